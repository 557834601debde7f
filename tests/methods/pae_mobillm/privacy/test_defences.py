"""Rotations are exact, training does not notice them, and a chain undoes itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from airtune.errors import ConfigError
from airtune.methods.pae_mobillm.privacy.defences import Chain, GaussianNoise, Plain, Rotation, defence
from airtune.methods.pae_mobillm.side import SideNetwork

IDS = np.arange(5, dtype=np.uint64)


def plain(outputs: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    return rng.normal(size=(5, 2, 6)), rng.normal(size=(5, outputs))


@pytest.mark.parametrize(("outputs", "dimensions"), [(2, 2), (2, 8), (14, 32)])
def test_a_rotation_keeps_angles_and_comes_back(outputs: int, dimensions: int):
    rotation = Rotation.draw(outputs, dimensions, np.random.default_rng(0))
    activations, differences = plain(outputs)
    hidden, sent = rotation.outgoing(IDS, activations, differences)
    assert hidden is activations
    assert sent.shape == (5, rotation.outputs(outputs)) == (5, dimensions)
    np.testing.assert_allclose(rotation.matrix.T @ rotation.matrix, np.eye(outputs), atol=1e-14)
    np.testing.assert_allclose(sent @ sent.T, differences @ differences.T, atol=1e-13)
    np.testing.assert_allclose(rotation.incoming(sent), differences, atol=1e-14)
    assert rotation.outgoing(IDS, activations, differences.astype("f4"))[1].dtype == np.float32


def test_rotations_are_drawn_evenly():
    """A column drawn evenly points anywhere: its entries have mean 0, variance 1 / K and fourth moment 3 / K(K + 2)."""
    rng = np.random.default_rng(0)
    drawn = np.stack([Rotation.draw(2, 4, rng).matrix for _ in range(4000)])
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=5 * 0.5 / math.sqrt(4000))
    np.testing.assert_allclose((drawn**2).mean(axis=0), 1 / 4, atol=0.02)
    np.testing.assert_allclose((drawn**4).mean(axis=0), 3 / 24, atol=0.02)


def test_a_rotation_that_loses_dimensions_is_refused():
    with pytest.raises(ConfigError, match="rotate_to is 2"):
        Rotation.draw(3, 2, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="one of 3 outputs, not of 4"):
        Rotation.draw(3, 5, np.random.default_rng(0)).outputs(4)


def test_gradient_descent_does_not_notice_a_rotation():
    """The whole side network in double precision, 60 steps of plain descent on the summed squared error."""
    activations, differences = plain()
    rotation = Rotation.draw(3, 7, np.random.default_rng(2))
    rows = torch.from_numpy(activations)
    found = []
    for targets, outputs in ((differences, 3), (rotation.outgoing(IDS, activations, differences)[1], 7)):
        side = SideNetwork(2, 6, 4, outputs, generator=torch.Generator().manual_seed(0)).double()
        weights = list(side.parameters())
        for _ in range(60):
            slopes = torch.autograd.grad(((side(rows) - torch.from_numpy(targets)) ** 2).sum(), weights)
            with torch.no_grad():
                for weight, slope in zip(weights, slopes, strict=True):
                    weight -= 0.01 * slope
        found.append(side(rows).detach().numpy())
    assert np.abs(found[0]).max() > 0.5  # it has learned something
    assert np.abs(rotation.incoming(found[1]) - found[0]).max() < 1e-12


def test_the_largest_entry_says_nothing_about_a_rotated_label():
    """By symmetry of the axes the largest of K entries is the label's with probability 1 / K."""
    rng = np.random.default_rng(5)
    labels = np.arange(3)
    differences = np.eye(3) - 1 / 3
    hits = [Rotation.draw(3, 6, rng).outgoing(labels, labels, differences)[1].argmax(1) == labels for _ in range(2000)]
    assert np.mean(hits) == pytest.approx(1 / 6, abs=5 * math.sqrt(5 / 36 / 6000 * 3))


def test_a_chain_rotates_then_adds_noise_and_comes_back_in_reverse():
    activations, differences = plain()
    chain = defence(3, rotate_to=5, epsilon=1e9, clips=(50.0, 50.0), secret=np.random.default_rng(0))
    assert isinstance(chain, Chain)
    assert [type(part) for part in chain.parts] == [Rotation, GaussianNoise]
    hidden, sent = chain.outgoing(IDS, activations, differences)
    assert chain.outputs(3) == sent.shape[1] == 5
    np.testing.assert_allclose(hidden, activations, atol=0.1)
    np.testing.assert_allclose(chain.incoming(sent), differences, atol=0.1)
    assert np.linalg.matrix_rank(sent) == 5  # noise hides that there are 3 outputs
    assert np.linalg.matrix_rank(chain.parts[0].outgoing(IDS, activations, differences)[1]) == 3


def test_settings_name_defences():
    secret = np.random.default_rng(0)
    assert isinstance(defence(3, secret=secret), Plain)
    assert isinstance(defence(3, rotate_to=3, secret=secret), Rotation)
    assert isinstance(defence(3, epsilon=1.0, clips=(1.0, 1.0), secret=secret), GaussianNoise)
    activations, differences = plain()
    assert Plain().outgoing(IDS, activations, differences)[1] is differences
    assert Plain().incoming(differences) is differences
    assert Plain().outputs(3) == 3
