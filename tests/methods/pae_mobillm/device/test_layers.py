"""Which layers are sent: against a ridge regression written out, budgets to the bit, and data with a known answer."""

from __future__ import annotations

import numpy as np
import pytest

from airtune.errors import DataError, DeadlineError
from airtune.links import Link, make_fading
from airtune.methods.pae_mobillm.device.layers import (
    PENALTIES,
    LayerChoice,
    LayerWorth,
    every_layer,
    greedy_layers,
    uniform_layers,
    uplink_budget,
)
from airtune.methods.pae_mobillm.identity import Identity
from airtune.methods.pae_mobillm.wire import as_received, body_bytes

WIDTH, OUTPUTS, SAMPLES = 6, 3, 120


def test_layers_are_spread_evenly_and_the_last_is_among_them():
    assert every_layer(4, 16) == LayerChoice((1, 2, 3, 4), (16,) * 4)
    assert uniform_layers(6, 3, 8) == LayerChoice((2, 4, 6), (8, 8, 8))
    assert uniform_layers(12, 5, 16).layers == (2, 5, 7, 10, 12)
    assert uniform_layers(12, 1, 16).layers == (12,)
    assert uniform_layers(2, 3, 16).layers == (1, 2)
    for blocks in range(1, 40):
        for count in range(1, blocks + 1):
            found = uniform_layers(blocks, count, 16).layers
            gaps = np.diff((0, *found))
            assert len(found) == count
            assert found[-1] == blocks
            assert gaps.max() - gaps.min() <= 1


def told_by(layer: int, noise: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states of layers 1 to 3 and differences that one of them alone determines."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(SAMPLES, 3, WIDTH)).astype(np.float32)
    differences = states[:, layer - 1] @ rng.normal(size=(WIDTH, OUTPUTS))
    return states, differences + noise * rng.normal(size=differences.shape)


def worth_of(states: np.ndarray, differences: np.ndarray) -> LayerWorth:
    def received(layer: int, bits: int) -> np.ndarray:
        identity = Identity("b", "t", "x", states.shape[2], (layer,), (bits,), OUTPUTS)
        return as_received(states[:, layer - 1 : layer], identity)[:, 0]

    return LayerWorth(received, differences)


def bits_of(layers: tuple[int, ...], bits: tuple[int, ...]) -> int:
    identity = Identity("b", "t", "x", WIDTH, layers, bits, OUTPUTS)
    return 8 * body_bytes(identity, SAMPLES, SAMPLES) + 1000


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_the_layer_that_carries_everything_is_chosen_first(layer):
    worth = worth_of(*told_by(layer))
    one = bits_of((layer,), (8,))
    found = greedy_layers((1, 2, 3), worth, bits_of, one)
    assert (found.layers, found.bits) == ((layer,), (8,))
    assert found.explained is not None
    assert found.explained > 0.95
    # with room for everything, layers of noise help nothing and stay at home
    assert greedy_layers((1, 2, 3), worth, bits_of, 10**9).layers == (layer,)


def test_a_cheap_layer_that_hardly_helps_does_not_end_the_search():
    """Of an error of 1 layer 3 explains half, layer 2 three quarters of a hundredth, layer 1 two fifths of one."""

    class Said:
        def error(self, bits: dict[int, int]) -> float:
            return 1.0 - sum({3: 0.5, 2: 0.0075, 1: 0.004}[layer] for layer in bits)

    def air_bits(layers: tuple[int, ...], bits: tuple[int, ...]) -> int:
        return sum({3: 400, 2: 200, 1: 50}[layer] for layer in layers)

    found = greedy_layers((1, 2, 3), Said(), air_bits, 1000, precisions=(16,))
    assert found.layers == (2, 3)
    assert found.explained == pytest.approx(0.5075)


def test_two_layers_that_carry_half_each_are_both_chosen():
    rng = np.random.default_rng(1)
    states = rng.normal(size=(SAMPLES, 3, WIDTH)).astype(np.float32)
    maps = rng.normal(size=(2, WIDTH, OUTPUTS))
    differences = states[:, 0] @ maps[0] + states[:, 2] @ maps[1]
    found = greedy_layers((1, 2, 3), worth_of(states, differences), bits_of, 10**9)
    assert found.layers == (1, 3)


def test_more_bits_are_bought_where_they_help():
    # one number a thousand times the rest: 8 bits' steps are 1000 / 127, far above what tells the difference
    states, differences = told_by(1, noise=0.0)
    states[:, :, 0] = 1000
    differences = states[:, 0, 1:] @ np.random.default_rng(3).normal(size=(WIDTH - 1, OUTPUTS))
    found = greedy_layers((1, 2, 3), worth_of(states, differences), bits_of, 10**9)
    assert (found.layers, found.bits) == ((1,), (16,))


@pytest.mark.parametrize("spare", [0, -1])
def test_the_budget_is_honoured_to_the_bit(spare):
    rng = np.random.default_rng(1)
    states = rng.normal(size=(SAMPLES, 3, WIDTH)).astype(np.float32)
    maps = np.eye(WIDTH, OUTPUTS) * [[[3.0]], [[0.5]], [[2.0]]]
    differences = np.einsum("nkd,kdc->nc", states, maps)
    budget = bits_of((1, 3), (8, 8)) + spare
    found = greedy_layers((1, 2, 3), worth_of(states, differences), bits_of, budget)
    assert found.layers == ((1, 3) if spare == 0 else (1,))
    assert bits_of(found.layers, found.bits) <= budget


def test_one_layer_is_sent_even_where_none_helps():
    rng = np.random.default_rng(5)
    states = rng.normal(size=(SAMPLES, 3, WIDTH)).astype(np.float32)
    found = greedy_layers((1, 2, 3), worth_of(states, rng.normal(size=(SAMPLES, OUTPUTS))), bits_of, 10**9)
    assert len(found.layers) == 1


def test_a_deadline_that_no_layer_meets_is_refused_with_what_is_needed():
    # 120 samples of 8 + (6 + 4) + 4 * 3 bytes and 1000 bits
    least = 8 * 120 * 30 + 1000
    worth = worth_of(*told_by(1))
    with pytest.raises(DeadlineError, match=f"carries {least - 1} bits .* need {least};"):
        greedy_layers((1, 2, 3), worth, bits_of, least - 1)
    assert greedy_layers((1, 2, 3), worth, bits_of, least).layers == (1,)


def by_least_squares(states: np.ndarray, wanted: np.ndarray, layers: list[int]) -> float:
    """The same error from the primal side: concatenated columns, each penalty as extra rows of a least-squares fit,
    and every sample really left out in turn."""
    half = len(wanted) // 2
    wanted = wanted - wanted[:half].mean(0)
    columns = []
    for layer in layers:
        one = states[:, layer - 1].astype(float) - states[:half, layer - 1].astype(float).mean(0)
        columns.append(one / np.sqrt((one[:half] ** 2).sum(1).mean()))
    side_by_side = np.concatenate(columns, axis=1)
    trace = (side_by_side[:half] ** 2).sum()

    def weights(rows: np.ndarray, penalty: float) -> np.ndarray:
        extra = np.sqrt(penalty) * np.eye(side_by_side.shape[1])
        left = np.concatenate([side_by_side[rows], extra])
        right = np.concatenate([wanted[rows], np.zeros((len(extra), wanted.shape[1]))])
        return np.linalg.lstsq(left, right, rcond=None)[0]

    def left_out(penalty: float) -> float:
        errors = []
        for row in range(half):
            others = np.delete(np.arange(half), row)
            errors.append(((wanted[row] - side_by_side[row] @ weights(others, penalty)) ** 2).sum())
        return float(np.mean(errors))

    penalty = min((share * trace for share in PENALTIES), key=left_out)
    found = side_by_side[half:] @ weights(np.arange(half), penalty)
    return float(((wanted[half:] - found) ** 2).sum(1).mean())


@pytest.mark.parametrize("layers", [[1], [2], [1, 3]])
def test_the_worth_is_a_ridge_regressions(layers):
    states, differences = told_by(1, noise=1.0)
    states, differences = states[:40], differences[:40]
    worth = LayerWorth(lambda layer, bits: states[:, layer - 1], differences)
    expected = by_least_squares(states, differences, layers)
    assert worth.error(dict.fromkeys(layers, 16)) == pytest.approx(expected, rel=1e-6)


def test_without_layers_the_error_is_the_means():
    differences = np.array([[0.0], [2.0]] * 2 + [[5.0], [1.0]] * 2)
    worth = LayerWorth(lambda layer, bits: np.zeros((8, 2)), differences)
    assert worth.error({}) == 8.0  # mean 1; held out 5, 1, 5, 1 -> (16 + 0) / 2


def test_a_layer_that_never_changes_is_worth_nothing():
    rng = np.random.default_rng(0)
    differences = rng.normal(size=(20, 2))
    worth = LayerWorth(lambda layer, bits: np.ones((20, 4)), differences)
    assert worth.error({1: 8}) == pytest.approx(worth.error({}))


def test_a_vocabulary_of_outputs_is_measured_in_the_rows_own_span():
    rng = np.random.default_rng(0)
    states, narrow = rng.normal(size=(40, 5)), rng.normal(size=(40, 3))
    rotation = np.linalg.qr(rng.normal(size=(500, 3)))[0]  # 3 outputs laid into 500 dimensions, distances unchanged
    few = LayerWorth(lambda layer, bits: states, narrow)
    many = LayerWorth(lambda layer, bits: states, narrow @ rotation.T)
    assert many.error({1: 16}) == pytest.approx(few.error({1: 16}))
    assert many.error({}) == pytest.approx(few.error({}))


def test_too_few_samples_are_refused():
    with pytest.raises(DataError, match=r"on 7 samples; give device\.value_items at least 8"):
        LayerWorth(lambda layer, bits: np.zeros((7, 2)), np.zeros((7, 2)))


def test_the_budget_is_what_the_uplink_carries_by_the_deadline():
    still = Link(bandwidth_hz=1e6, snr_db=0.0)
    assert uplink_budget(still, 2.0, 0.05, still.mean_state) == 2_000_000
    fading = Link(1e6, 0.0, make_fading("rayleigh"))
    seen = fading.mean_state
    assert uplink_budget(fading, 2.0, 0.0, seen) == 2_000_000
    # Rayleigh: |h|^2 is exponential, its 5 % quantile -ln 0.95
    assert uplink_budget(fading, 2.0, 0.05, seen) == int(2e6 * np.log2(1 - np.log(0.95)))
