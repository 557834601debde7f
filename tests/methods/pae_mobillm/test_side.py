"""The side network against its equations in NumPy, its size, its start at zero, and its bytes."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from scipy.special import erf, expit

from airtune.errors import TransportError
from airtune.methods.pae_mobillm.side import SideNetwork

K, D, R, C = 4, 6, 3, 2


def network(*, layers: int = K, temperature: float = 1.0, seed: int = 0, drawn: bool = True) -> SideNetwork:
    """As it starts, or with every weight drawn."""
    draw = torch.Generator().manual_seed(seed)
    side = SideNetwork(layers, D, R, C, temperature=temperature, generator=draw)
    if drawn:
        with torch.no_grad():
            for parameter in side.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return side


def rows(n: int = 5, layers: int = K, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, layers, D)).astype(np.float32)


def by_the_equations(side: SideNetwork, activations: np.ndarray) -> np.ndarray:
    """Dy^ in float64 from the equations, with h_0 = 0 and mu_1 = 0."""
    weights = {name: value.detach().numpy().astype(np.float64) for name, value in side.named_parameters()}
    mu = expit(weights["alpha"] / side.temperature)
    mu[0] = 0
    h = np.zeros(activations[:, 0].shape)
    for i in range(activations.shape[1]):
        s = (1 - mu[i]) * activations[:, i].astype(np.float64) + mu[i] * h
        z = s @ weights["down"][i]
        h = s + (z * (1 + erf(z / np.sqrt(2))) / 2) @ weights["up"][i]
    return h @ weights["out"] + weights["bias"]


@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("layers", [1, 2, 4])
def test_it_is_the_recursion_of_the_equations(layers, temperature):
    side, activations = network(layers=layers, temperature=temperature), rows(layers=layers)
    expected = by_the_equations(side, activations)
    np.testing.assert_allclose(side.differences(activations), expected, rtol=2e-5, atol=2e-5)


def test_the_first_gate_has_no_effect():
    side, activations = network(), rows()
    before = side.differences(activations)
    with torch.no_grad():
        side.alpha[0] = 7.0
    np.testing.assert_array_equal(side.differences(activations), before)


def test_it_starts_at_exactly_zero():
    assert not network(drawn=False).differences(1e3 * rows()).any()


def test_down_starts_normal_with_variance_one_over_width():
    side = SideNetwork(2, 400, 50, 1, generator=torch.Generator().manual_seed(0))
    assert side.down.var().item() * 400 == pytest.approx(1, abs=0.05)  # 40,000 numbers: deviation 0.007


@pytest.mark.parametrize(("layers", "width", "bottleneck", "outputs"), [(1, 1, 1, 1), (4, 6, 3, 2), (24, 64, 8, 5)])
def test_it_has_as_many_numbers_as_the_formula_says(layers, width, bottleneck, outputs):
    side = SideNetwork(layers, width, bottleneck, outputs, generator=torch.Generator())
    counted = sum(parameter.numel() for parameter in side.parameters())
    assert SideNetwork.size(layers, width, bottleneck, outputs) == counted


def test_the_size_at_opt_1_3b():
    assert SideNetwork.size(24, 2048, 64, 0) == 6_291_480  # 24 (2 * 2048 * 64 + 1)


def test_rows_do_not_see_each_other():
    side, activations = network(), rows(8)
    together = side.differences(activations)
    single = np.concatenate([side.differences(activations[at : at + 1]) for at in range(8)])
    np.testing.assert_allclose(together, single, rtol=1e-5, atol=1e-5)


def test_it_crosses_as_bytes_bit_for_bit():
    side = network(temperature=0.5)
    back = SideNetwork.of_bytes(side.to_bytes(), layers=K, width=D, outputs=C, temperature=0.5)
    np.testing.assert_array_equal(back.differences(rows()), side.differences(rows()))
    assert not any(parameter.requires_grad for parameter in back.parameters())


def changed(**tensors: torch.Tensor | None) -> bytes:
    content = {**load(network().to_bytes()), **tensors}
    return save({name: tensor for name, tensor in content.items() if tensor is not None})


def without_numbers(rank: int) -> bytes:
    """The 88 bytes of a safetensors file with one tensor of no numbers, and what would be the bottleneck."""
    header = json.dumps({"down": {"dtype": "F32", "shape": [0, 0, rank], "data_offsets": [0, 0]}}).encode()
    return struct.pack("<Q", len(header)) + header


@pytest.mark.parametrize("bottleneck", [0, R])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no tensors",
        network().to_bytes()[:-1],
        changed(bias=None),
        changed(more=torch.zeros(1)),
        changed(down=torch.zeros(K, D)),
        changed(down=torch.zeros(K, D, R + 1)),
        changed(out=torch.zeros(D, C + 1)),
        changed(bias=torch.tensor([0.0, float("nan")])),
        changed(bias=torch.zeros(C, dtype=torch.int64)),
        without_numbers(10**13),
        without_numbers(2**62),
    ],
)
def test_other_bytes_are_refused(data, bottleneck):
    with pytest.raises(TransportError, match="side network that came"):
        SideNetwork.of_bytes(data, layers=K, width=D, outputs=C, bottleneck=bottleneck)


def test_another_bottleneck_is_refused_where_one_is_expected():
    with pytest.raises(TransportError, match=r"'down': \(4, 6, 3\).* expected finite float32 .*'down': \(4, 6, 2\)"):
        SideNetwork.of_bytes(network().to_bytes(), layers=K, width=D, outputs=C, bottleneck=2)
