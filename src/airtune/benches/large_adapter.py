"""An adapter as large as the paper's: OPT-1.3B's shapes at rank 8, drawn with singular values that were measured.

Singular vectors are normal, and their length about 1: those of trained LoRA are near it (median excess kurtosis 0).
Singular values come from LoRA of rank 8 by kind of projection, means over layers and seeds, such that their squares
sum to 6 over the six kinds; docs/log.md says how they were measured. Layers do not differ, which they do in truth: a
codec that spends its bits where the energy is has it a little harder here. Knows shapes and spectra; not codecs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from airtune.codec import Factors

LAYERS, HIDDEN, FFN = 24, 2048, 8192
"""Of OPT-1.3B."""

Spectrum = Mapping[str, tuple[float, ...]]

SPECTRA: Mapping[str, Spectrum] = {
    "decoder": {
        "q_proj": (0.859, 0.560, 0.449, 0.377, 0.318, 0.259, 0.213, 0.147),
        "k_proj": (0.320, 0.241, 0.191, 0.146, 0.113, 0.083, 0.065, 0.042),
        "v_proj": (0.150, 0.125, 0.102, 0.083, 0.067, 0.056, 0.045, 0.032),
        "out_proj": (0.412, 0.275, 0.233, 0.209, 0.180, 0.151, 0.125, 0.098),
        "fc1": (0.617, 0.549, 0.496, 0.448, 0.409, 0.367, 0.330, 0.285),
        "fc2": (0.755, 0.618, 0.548, 0.480, 0.429, 0.387, 0.345, 0.287),
    },
}
"""Singular values by adapter and kind: `decoder`, stories260K on Tiny Shakespeare (five seeds; its `up_proj` and
`down_proj` are fc1 and fc2); `encoder`, MiniLM on SST-2 (two seeds)."""


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
