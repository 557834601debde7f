"""Derived bases against the definition of LoRA-XS, and receivers whose bases are others."""

from __future__ import annotations

from dataclasses import replace
from hashlib import shake_256

import numpy as np
import pytest

from airtune.adapters.derived import Bases, core_name, derive, lift_cores, path_of
from airtune.codec import Binding, Draft, Factors, Quantiser, decode
from airtune.errors import ConfigError, PayloadError

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(12, 7)).astype(np.float32)
BINDING = Binding("a" * 64, "b" * 64)


def a_core(size: int, rank: int, seed: int = 1) -> Factors:
    rng = np.random.default_rng(seed)
    return Factors(rng.normal(size=(size, rank)), rng.normal(size=rank), rng.normal(size=(rank, size)))


@pytest.mark.parametrize("size", [1, 3, 7, 20])
def test_bases_are_the_truncated_svd(size: int):
    """U_k S_k V_k^T is the best approximation of rank k (Eckart and Young): its error are the values left out."""
    found, k = derive(WEIGHT, size), min(size, 7)
    assert found.left.shape == (12, k)
    assert found.right.shape == (k, 7)
    values = np.linalg.svd(WEIGHT.astype(float), compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(found.left, axis=0), values[:k], rtol=1e-6)
    np.testing.assert_allclose(found.right @ found.right.T, np.eye(k), atol=1e-6)
    np.testing.assert_allclose(found.left.T @ found.left, np.diag(values[:k] ** 2), atol=1e-4)
    left_out = ((WEIGHT - found.left @ found.right) ** 2).sum()
    assert left_out == pytest.approx((values[k:] ** 2).sum(), abs=1e-5)


def test_no_bases_are_refused():
    with pytest.raises(ConfigError, match="choose 1 at least"):
        derive(WEIGHT, 0)


def test_a_lifted_core_is_left_core_right():
    bases, core = derive(WEIGHT, 4), a_core(4, 3)
    lifted = bases.lift(core)
    assert lifted.rank == 3
    middle = core.p @ np.diag(core.lam) @ core.q
    np.testing.assert_allclose(lifted.update(), bases.left @ middle @ bases.right, rtol=1e-5, atol=1e-5)


def test_the_core_of_a_lifted_core_is_that_core():
    bases, core = derive(WEIGHT, 4), a_core(4, 3)
    np.testing.assert_allclose(bases.core(bases.lift(core)).update(), core.update(), atol=1e-5)
    alone = derive(np.diag([2.0, 0.0]), 2)  # a weight of rank 1: U S has a column of zeros, which no core reaches
    np.testing.assert_allclose(alone.core(alone.lift(a_core(2, 2))).update()[1], 0)


def test_as_many_vectors_as_the_smaller_side_reach_every_update_within_the_rows_of_the_weight():
    """W is (7, 7) and of full rank: any update is U S R V^T with R = S^-1 U^T dW V."""
    weight, update = WEIGHT[:7], RNG.normal(size=(7, 7))
    bases = derive(weight, 7)
    core = np.linalg.solve(bases.left.astype(float), update) @ np.linalg.inv(bases.right.astype(float))
    lifted = bases.lift(Factors(core, np.ones(7), np.eye(7)))
    np.testing.assert_allclose(lifted.update(), update, atol=1e-4)


def test_signs_are_those_of_the_first_large_entry_whatever_the_svd_says(monkeypatch: pytest.MonkeyPatch):
    expected, svd = derive(WEIGHT, 5), np.linalg.svd
    for row in expected.right:
        assert row[np.argmax(np.abs(row) >= np.abs(row).max() / 2)] > 0

    def flipped(matrix: np.ndarray, full_matrices: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        u, values, vt = svd(matrix, full_matrices=full_matrices)
        signs = np.array([1, -1, -1, 1, -1, 1, -1])
        return u * signs, values, vt * signs[:, None]

    monkeypatch.setattr(np.linalg, "svd", flipped)
    found = derive(WEIGHT, 5)
    np.testing.assert_array_equal(found.left, expected.left)
    np.testing.assert_array_equal(found.right, expected.right)
    assert found.checks == expected.checks


def test_half_precision_weights_have_the_bases_of_their_values():
    half = WEIGHT.astype(np.float16)
    found, exact = derive(half, 3), derive(half.astype(np.float64), 3)
    assert found.left.dtype == found.right.dtype == np.float32
    np.testing.assert_array_equal(found.left, exact.left)
    assert found.checks == exact.checks != derive(WEIGHT, 3).checks


def test_check_numbers_are_projections_onto_signs_by_hand():
    """W = diag(3, 2): U = V = I, so a^T U b + b^T V^T c is the sum of b_i (a_i + c_i)."""

    def signs(text: str) -> list[int]:
        byte = shake_256(text.encode()).digest(1)[0]
        return [1 - 2 * (byte >> 7 & 1), 1 - 2 * (byte >> 6 & 1)]

    for which, check in enumerate(derive(np.diag([3.0, 2.0]), 2).checks):
        a, b, c = (signs(f"{side} {which}") for side in ("out", "core", "in"))
        assert check == 2**16 * sum(b[i] * (a[i] + c[i]) for i in range(2))


def test_a_name_says_what_it_is_and_of_which_site():
    name = core_name("model.layers.0.q", derive(WEIGHT, 2))
    assert name.startswith("model.layers.0.q core=svd check=")
    assert path_of(name) == path_of("model.layers.0.q") == "model.layers.0.q"
    assert path_of("q core=svd check=") == "q core=svd check="  # no check, no core


def sent(bases: Bases, core: Factors) -> dict[str, Factors]:
    """What a receiver decodes of a core and of a plain update beside it."""
    sites = {core_name("a", bases): core, "b": Factors(np.ones((3, 1)), np.ones(1), np.ones((1, 2)))}
    draft = Draft(Quantiser(sites, {}, canonical=True).at(1e-9), BINDING, {}, named=True)
    return dict(decode(draft.encode([2, 1]).data, BINDING, held=draft.held).factors)


def test_a_receiver_with_the_same_weights_gets_the_update_through_a_payload():
    bases, core = derive(WEIGHT, 4), a_core(4, 2)
    found = lift_cores(sent(bases, core), {"a": derive(WEIGHT.copy(), 4)})
    assert list(found) == ["a", "b"]
    np.testing.assert_allclose(found["a"].update(), bases.lift(core).update(), atol=2e-3)
    np.testing.assert_allclose(found["b"].update(), np.ones((3, 2)), atol=1e-3)


def turned(bases: Bases, angle: float) -> Bases:
    """Another choice among bases of two equal singular values: both vectors turned."""
    turn = np.eye(bases.size)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    u, values, vt = np.linalg.svd(bases.left @ bases.right, full_matrices=False)
    values[1:3] = values[1:3].mean()
    k = bases.size
    return derived_from(u[:, :k] @ turn, values[:k], turn.T @ vt[:k])


def derived_from(u: np.ndarray, values: np.ndarray, vt: np.ndarray) -> Bases:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np.linalg, "svd", lambda *_, **__: (u, values, vt))
        return derive(WEIGHT, len(values))


@pytest.mark.parametrize("angle", [np.pi / 2, 0.3, 1e-3])
def test_bases_turned_among_equal_singular_values_are_noticed(angle: float):
    bases = derive(WEIGHT, 4)
    same, other = turned(bases, 0.0), turned(bases, angle)
    decoded = sent(same, a_core(4, 2))
    lift_cores(decoded, {"a": same})
    with pytest.raises(PayloadError, match="another update"):
        lift_cores(decoded, {"a": other})


@pytest.mark.parametrize("direction", range(4))
@pytest.mark.parametrize("sides", ["left", "right", "both"])
def test_a_flipped_singular_vector_is_noticed(direction: int, sides: str, monkeypatch: pytest.MonkeyPatch):
    u, values, vt = np.linalg.svd(WEIGHT.astype(float), full_matrices=False)
    u, values, vt = u[:, :4], values[:4], vt[:4]
    decoded = sent(derived_from(u, values, vt), a_core(4, 2))
    monkeypatch.setattr("airtune.adapters.derived._sign", lambda row: 1.0)  # a receiver without the rule of signs
    mine = derived_from(*signed(u, values, vt))
    lift_cores(decoded, {"a": mine})
    flip = np.where(np.arange(4) == direction, -1, 1)
    u, values, vt = signed(u, values, vt)
    other = derived_from(u * (flip if sides != "right" else 1), values, vt * (flip[:, None] if sides != "left" else 1))
    with pytest.raises(PayloadError, match="another update"):
        lift_cores(decoded, {"a": other})


def signed(u: np.ndarray, values: np.ndarray, vt: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rule of signs, once more."""
    signs = np.array([np.sign(next(v for v in row if abs(v) >= np.abs(row).max() / 2)) for row in vt])
    return u * signs, values, vt * signs[:, None]


def test_rounding_of_another_build_is_borne():
    bases, core = derive(WEIGHT, 4), a_core(4, 2)
    near = replace(bases, checks=(bases.checks[0] + 1, bases.checks[1] - 1))
    assert set(lift_cores(sent(near, core), {"a": bases})) == {"a", "b"}
    with pytest.raises(PayloadError, match="another update"):
        lift_cores(sent(replace(near, checks=(bases.checks[0], bases.checks[1] + 2)), core), {"a": bases})
    with pytest.raises(PayloadError, match="another update"):
        lift_cores(sent(replace(near, checks=bases.checks[:1]), core), {"a": bases})


@pytest.mark.parametrize(
    ("bases", "at_hand"), [({}, "no bases are at hand"), ({"a": derive(WEIGHT, 3)}, "the bases at hand are of size 3")]
)
def test_a_core_of_bases_that_are_not_here_is_refused(bases: dict[str, Bases], at_hand: str):
    with pytest.raises(PayloadError, match=f"{at_hand}; derive those"):
        lift_cores(sent(derive(WEIGHT, 4), a_core(4, 2)), bases)


def test_a_site_that_comes_twice_is_refused():
    bases, core = derive(WEIGHT, 4), a_core(4, 2)
    plain = Factors(np.ones((12, 1)), np.ones(1), np.ones((1, 7)))
    for twice in ({core_name("a", bases): core, "a": plain}, {"a": plain, core_name("a", bases): core}):
        with pytest.raises(PayloadError, match="twice"):
            lift_cores(twice, {"a": bases})
