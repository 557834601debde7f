"""How the loss bends at every site, and updates as vectors of P and of Q that are measured by it.

The loss is held to grow by half of tr(G E A E^T) for an error E of an update (Kronecker-factored curvature, Martens
and Grosse 2015): A and G are second moments of a projection's inputs and of the loss's gradients at its outputs. Knows
factors and metrics; not codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from airtune.codec.coded.rounding import DAMPING, Floats, Metric, metrics_of
from airtune.codec.factors import Factors


@dataclass(frozen=True, slots=True, eq=False)
class Curvature:
    """How the loss bends at one site; None counts every entry alike.

    Args:
        inputs: A, second moments of the inputs, shape (in, in), or its diagonal (in,).
        outputs: G, second moments of the gradients at the outputs, shape (out, out), or its diagonal (out,).
        damping: As `Metric`: how little the moments are trusted where errors are large.
    """

    inputs: npt.NDArray[np.floating] | None = None
    outputs: npt.NDArray[np.floating] | None = None
    damping: float = DAMPING


def site_metrics(
    shapes: Mapping[str, tuple[int, int]], curvature: Mapping[str, Curvature]
) -> dict[str, tuple[Metric, Metric]]:
    """Those of errors of P and of Q at every site, of shapes (out, in)."""
    dampings = {name: bends.damping for name, bends in curvature.items()}
    outputs = metrics_of(
        {name: bends.outputs for name, bends in curvature.items()}, {n: s[0] for n, s in shapes.items()}, dampings
    )
    inputs = metrics_of(
        {name: bends.inputs for name, bends in curvature.items()}, {n: s[1] for n, s in shapes.items()}, dampings
    )
    return {name: (outputs[name], inputs[name]) for name in shapes}


def expected_loss(sent: Factors, found: Factors, curvature: Curvature) -> float:
    """Half of tr(G E A E^T), G and A damped, E what an update is off by; without curvature half its squared entries."""
    outputs = Metric(curvature.outputs, sent.shape[0], curvature.damping)
    inputs = Metric(curvature.inputs, sent.shape[1], curvature.damping)
    ours, theirs = (plain_vectors(site, outputs, inputs) for site in (sent, found))
    columns, rows = outputs.whiten(np.vstack([ours[0], -theirs[0]])), inputs.whiten(np.vstack([ours[1], theirs[1]]))
    return 0.5 * float(((columns @ columns.T) * (rows @ rows.T)).sum())


def plain_vectors(site: Factors, outputs: Metric, inputs: Metric) -> tuple[Floats, Floats]:
    """P's columns with lam in them, and Q's rows, shapes (r, out) and (r, in)."""
    p, lam, q = (np.asarray(part, np.float64) for part in (site.p, site.lam, site.q))
    return (p * lam).T, q


def canonical_vectors(site: Factors, outputs: Metric, inputs: Metric) -> tuple[Floats, Floats]:
    """The same update in directions that do not touch under the metrics, the largest first; at most min(out, in)."""
    columns, rows = plain_vectors(site, outputs, inputs)
    of_p, right_p = np.linalg.qr(outputs.whiten(columns).T)
    of_q, right_q = np.linalg.qr(inputs.whiten(rows).T)
    left, singular, right = np.linalg.svd(right_p @ right_q.T, full_matrices=False)
    return outputs.unwhiten((of_p @ left * singular).T), inputs.unwhiten((of_q @ right.T).T)
