"""Payloads chosen by a measured loss: against losses whose least is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from airtune.codec import (
    DAMPINGS,
    LARGEST_SCALE,
    Binding,
    Curvature,
    Decoded,
    Draft,
    Factors,
    Fit,
    Quantiser,
    damped,
    decode,
    fit_budget,
    fit_measured,
    quantisers_of,
)
from airtune.codec.measured import left_along
from airtune.errors import PayloadError

BINDING = Binding("0" * 64, "1" * 64)


def adapter(rank: int = 3) -> dict[str, Factors]:
    rng = np.random.default_rng(5)
    shapes = {"a": (40, 30), "b": (25, 60)}
    return {
        name: Factors(
            rng.normal(size=(out, rank)).astype(np.float32),
            np.geomspace(1, 0.1, rank).astype(np.float32),
            rng.normal(size=(rank, into)).astype(np.float32),
        )
        for name, (out, into) in shapes.items()
    }


def bends() -> dict[str, Curvature]:
    rng = np.random.default_rng(6)
    moments = [rng.normal(size=(8, size)) * np.geomspace(1, 0.02, size) for size in (40, 30, 25, 60)]
    squares = [seen.T @ seen for seen in moments]
    return {"a": Curvature(squares[1], squares[0]), "b": Curvature(squares[3], squares[2])}


def distance(sent: Mapping[str, Factors], times: float) -> Callable[[Decoded], float]:
    """Squared distance to so many times the adapter."""
    return lambda found: sum(
        float(((found.factors[name].update() - times * site.update()) ** 2).sum()) for name, site in sent.items()
    )


def fit(sent: Mapping[str, Factors], budget: int, loss: Callable[[Decoded], float]) -> Fit:
    return fit_measured(sent, quantisers_of(sent, {}, bends()), BINDING, {}, budget, loss, named=True)


def test_what_is_left_along_an_update_is_the_ratio_of_inner_products():
    sent, other = adapter(3), adapter(2)
    flat = [np.concatenate([site.update().ravel() for site in each.values()]).astype(float) for each in (sent, other)]
    assert left_along(sent, other) == pytest.approx(flat[0] @ flat[1] / (flat[0] @ flat[0]), rel=1e-5)
    assert left_along({"a": Factors.nothing(3, 4)}, {"a": Factors.nothing(3, 4)}) == 1.0


@pytest.mark.parametrize("steps", [1, 4, 5])
def test_louder_is_so_many_quarters_of_an_octave_and_nothing_else(steps: int):
    quantised = Quantiser(adapter(), {}, canonical=True).at(0.01)
    before, after = (
        decode(Draft(one, BINDING, {}).encode([3, 3]).data, BINDING) for one in (quantised, quantised.louder(steps))
    )
    for name, site in before.factors.items():
        np.testing.assert_allclose(after.factors[name].update(), 2 ** (steps / 4) * site.update(), atol=1e-5)
    assert np.array_equal(quantised.louder(5000).coded.sites["a"].scales, np.full(3, LARGEST_SCALE))


def test_an_update_that_lost_much_becomes_louder_up_to_what_it_lost():
    """Wanted twice as loud, so that louder is always better; allowed is what undoes the loss along the update."""
    sent = adapter()
    found = fit(sent, 1_200, distance(sent, 2.0))
    best = math.inf
    for quantiser in quantisers_of(sent, {}, bends()):
        slope = fit_budget(quantiser, BINDING, {}, 1_200, named=True)[1]
        draft = Draft(quantiser.at(slope), BINDING, {}, named=True)
        plain = decode(draft.ladder(1_200, slope).data, BINDING, held=draft.held)
        left = left_along(sent, plain.factors)
        assert 0.1 < left < 0.8
        loud = 2 ** (round(-4 * math.log2(left)) / 4)
        factors = {name: Factors(site.p, site.lam * loud, site.q) for name, site in plain.factors.items()}
        best = min(best, distance(sent, 2.0)(replace(plain, factors=factors)))
    assert found.loss == pytest.approx(best, rel=1e-4)
    assert 0.84 < left_along(sent, found.decoded.factors) < 1.19  # half a step either way
    assert found.payload.bits <= 1_200
    assert [site.rank for site in found.quantised.coded.sites.values()] == list(found.decoded.ranks)


def test_with_many_bits_it_is_the_adapter_and_not_a_louder_one():
    sent = adapter()
    found = fit(sent, 12_000, distance(sent, 2.0))
    for name, site in sent.items():
        np.testing.assert_allclose(found.decoded.factors[name].update(), site.update(), atol=0.05)


def test_the_curvature_is_damped_as_lowers_the_loss():
    """Two dampings round differently; whichever is nearer in plain distance is taken."""
    sent = adapter()
    plain = []
    for damping in DAMPINGS:
        quantiser = Quantiser(sent, {}, damped(bends(), damping), canonical=True)
        payload, _ = fit_budget(quantiser, BINDING, {}, 3_000, named=True)
        held = Draft(quantiser.at(1.0), BINDING, {}, named=True).held
        plain.append(distance(sent, 1.0)(decode(payload.data, BINDING, held=held)))
    assert plain[1] < 0.9 * plain[0]
    assert fit(sent, 3_000, distance(sent, 1.0)).loss <= plain[1]


def test_damping_leaves_the_moments_as_they_are():
    before = bends()
    after = damped(before, 0.5)
    assert after.keys() == before.keys()
    for name, bent in before.items():
        assert after[name].damping == 0.5
        assert after[name].inputs is bent.inputs
        assert after[name].outputs is bent.outputs


def test_a_loss_that_is_not_finite_is_the_worst():
    losses = iter([math.nan, 3.0, math.inf, 5.0, 6.0, 7.0])
    assert fit(adapter(), 3_000, lambda found: next(losses)).loss == 3.0


def test_a_budget_below_the_header_is_refused():
    with pytest.raises(PayloadError, match="raise it"):
        fit(adapter(), 40, lambda found: 0.0)
