"""An adapter as large as the paper's: OPT-1.3B's shapes at rank 8, drawn with singular values that were measured.

Singular vectors are normal with a length of about 1: those of trained LoRA are near it (excess kurtosis -0.1 and 0 in
the median, docs/log.md). Singular values are those of LoRA trained at rank 8, roots of mean squares over layers and
seeds by kind of projection, their squares over six kinds brought to a sum of 6. Layers do not differ, which trained
ones do; a codec that spends bits where the energy is loses a little by that. Knows shapes and spectra; not codecs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from airtune.codec import Factors

LAYERS, HIDDEN, FFN = 24, 2048, 8192
"""Of OPT-1.3B."""

Spectrum = Mapping[str, tuple[float, ...]]

SPECTRA: Mapping[str, Spectrum] = {
    "SST-2": {
        "q_proj": (0.813, 0.270, 0.203, 0.149, 0.114, 0.105, 0.081, 0.068),
        "k_proj": (0.846, 0.267, 0.206, 0.146, 0.118, 0.108, 0.094, 0.080),
        "v_proj": (0.661, 0.198, 0.120, 0.087, 0.070, 0.058, 0.047, 0.039),
        "out_proj": (0.705, 0.186, 0.143, 0.107, 0.099, 0.083, 0.071, 0.057),
        "fc1": (1.126, 0.684, 0.316, 0.229, 0.195, 0.168, 0.147, 0.125),
        "fc2": (1.014, 0.336, 0.155, 0.104, 0.069, 0.051, 0.039, 0.031),
    },
    "text": {
        "q_proj": (0.859, 0.560, 0.449, 0.377, 0.318, 0.259, 0.213, 0.147),
        "k_proj": (0.320, 0.241, 0.191, 0.146, 0.113, 0.083, 0.065, 0.042),
        "v_proj": (0.150, 0.125, 0.102, 0.083, 0.067, 0.056, 0.045, 0.032),
        "out_proj": (0.412, 0.275, 0.233, 0.209, 0.180, 0.151, 0.125, 0.098),
        "fc1": (0.617, 0.549, 0.496, 0.448, 0.409, 0.367, 0.330, 0.285),
        "fc2": (0.755, 0.618, 0.548, 0.480, 0.429, 0.387, 0.345, 0.287),
    },
}
"""Singular values by kind. `SST-2`: MiniLM, the paper's task, one seed; its query, key, value, attention output,
intermediate and output layers. `text`: stories260K on Tiny Shakespeare, five seeds; its up_proj is fc1."""


def large_adapter(
    spectrum: Spectrum,
    rng: np.random.Generator,
    *,
    layers: int = LAYERS,
    hidden: int = HIDDEN,
    ffn: int = FFN,
) -> dict[str, Factors]:
    """Factors by site, the six projections of every layer, float32."""
    wide = {"fc1": (ffn, hidden), "fc2": (hidden, ffn)}
    return {
        f"model.decoder.layers.{layer}.{kind}": _site(*wide.get(kind, (hidden, hidden)), values, rng)
        for layer in range(layers)
        for kind, values in spectrum.items()
    }


def _site(fan_out: int, fan_in: int, values: tuple[float, ...], rng: np.random.Generator) -> Factors:
    p = rng.standard_normal((fan_out, len(values)), np.float32) / np.float32(fan_out**0.5)
    q = rng.standard_normal((len(values), fan_in), np.float32) / np.float32(fan_in**0.5)
    return Factors(p, np.array(values, np.float32), q)
