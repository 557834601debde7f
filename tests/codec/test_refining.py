"""A new adapter as changes of a held one: what is sent of it, and what it is worth."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from coded_material import small_adapter
from payload_material import BINDING, OTHER, draw_factors

from airtune.codec import Binding, Curvature, Decoded, Draft, Factors, Quantiser, Refiner, decode, fit_budget
from airtune.errors import PayloadError

SHAPES = {"a": (40, 30), "b": (24, 50)}


def drawn(seed: int, rank: int = 4) -> dict[str, Factors]:
    rng = np.random.default_rng(seed)
    return {name: draw_factors(rng, *shape, rank) for name, shape in SHAPES.items()}


def whole(factors: dict[str, Factors], slope: float, dense: dict | None = None) -> Decoded:
    draft = Draft(Quantiser(factors, dense or {}, canonical=True).at(slope), BINDING, {})
    return decode(draft.ladder(2**40, slope).data, BINDING)


def changed(refiner: Refiner, slope: float, since: Decoded) -> tuple[int, Decoded]:
    """Bits of all changes worth their price, and what a receiver then holds."""
    payload = Draft(refiner.at(slope), BINDING, {}).ladder(2**40, slope)
    return payload.bits, decode(payload.data, BINDING, since=since.held)


def error(found: Decoded, factors: dict[str, Factors], curvature: dict | None = None) -> float:
    """tr(G E A E^T) / 2 over all sites; G and A are the identity where no curvature is given."""
    total = 0.0
    for name, site in factors.items():
        off = site.update().astype(float) - found.factors[name].update().astype(float)
        bends = (curvature or {}).get(name)
        g, a = (np.eye(off.shape[0]), np.eye(off.shape[1])) if bends is None else (bends.outputs, bends.inputs)
        total += float(np.trace(g @ off @ a @ off.T)) / 2
    return total


def near(factors: dict[str, Factors], by: float, seed: int = 9) -> dict[str, Factors]:
    """Both factors of every site moved by a share of their size."""
    rng = np.random.default_rng(seed)
    return {
        name: Factors(
            site.p + by * rng.normal(size=site.p.shape), site.lam, site.q + by * rng.normal(size=site.q.shape)
        )
        for name, site in factors.items()
    }


@pytest.mark.parametrize("times", [0.02, 0.2, 1.0, 1e3])
def test_a_tensor_of_another_size_changes_at_every_price_or_at_none(times: float):
    """Its error falls with the price until held numbers and the largest code allow no finer steps."""
    rng = np.random.default_rng(5)
    head, new = rng.normal(size=(2, 3, 40))
    held = whole(drawn(1), 0.05, {"head": head})
    refiner = Refiner(held.held, held.factors, {"head": times * new})
    errors = []
    for octave in range(8, -17, -4):
        found = changed(refiner, refiner.usual_slope * 2.0**octave, held)[1].dense["head"]
        errors.append(float(np.abs(found - times * new).max() / np.abs(times * new).max()))
    assert errors[0] < 0.5
    assert all(after <= 1.01 * before for before, after in pairwise(errors))
    if times >= 0.2:
        assert errors[-1] < 1e-2
    for far in (1e-6, 1e9):
        refiner = Refiner(held.held, held.factors, {"head": far * new})
        for octave in (8, 0, -16):
            with pytest.raises(PayloadError, match="head has become much larger or smaller"):
                refiner.at(refiner.usual_slope * 2.0**octave)


def test_what_is_held_already_costs_a_header():
    held = whole(drawn(1), 0.05)
    bits, found = changed(Refiner(held.held, held.factors, {}), 0.05, held)
    assert bits == 8 * (12 + 16 + 16)
    assert found.held.name == held.held.name


def test_directions_that_were_mixed_anew_are_the_same_adapter():
    held = whole(drawn(1), 0.05)
    mixed = {}
    for name, site in held.factors.items():
        mix = np.random.default_rng(3).normal(size=(site.rank, site.rank))
        mixed[name] = Factors((site.p * site.lam) @ mix, np.ones(site.rank), np.linalg.solve(mix, site.q))
    bits, found = changed(Refiner(held.held, mixed, {}), 0.05, held)
    assert bits == 8 * (12 + 16 + 16)
    assert found.held.name == held.held.name


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_small_move_takes_far_fewer_bits_for_about_the_same_error(seed: int):
    """A move of a tenth has log2(10) bits a number less. Steps are within half an octave of those of a whole one."""
    first, slope = drawn(seed), 0.005
    held, new = whole(first, slope), near(first, 0.1)
    anew = Draft(Quantiser(new, {}, canonical=True).at(slope), BINDING, {}).ladder(2**40, slope)
    bits, found = changed(Refiner(held.held, new, {}), slope, held)
    assert bits < 0.6 * anew.bits
    assert error(found, new) < 2 * error(decode(anew.data, BINDING), new)


def test_error_falls_with_the_price_to_what_rounding_of_codes_allows():
    held, new = whole(drawn(1), 0.05), near(drawn(1), 0.3)
    refiner = Refiner(held.held, new, {})
    size = sum(float((site.update() ** 2).sum()) / 2 for site in new.values())
    errors, bits = [], []
    for slope in (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5):
        spent, found = changed(refiner, slope, held)
        bits.append(spent)
        errors.append(error(found, new) / size)
    assert errors == sorted(errors, reverse=True)
    assert bits == sorted(bits)
    assert errors[-1] < 1e-5


def test_another_adapter_of_more_directions_is_reached_by_new_ones():
    held, new = whole(drawn(1, rank=2), 0.05), drawn(2, rank=5)
    _, found = changed(Refiner(held.held, new, {}), 1e-4, held)
    size = sum(float((site.update() ** 2).sum()) / 2 for site in new.values())
    assert error(found, new) / size < 1e-3
    assert min(found.ranks) > 2


def test_sites_that_are_missing_lose_their_update_and_empty_ones_gain_one():
    first = drawn(1)
    nothing = Factors(np.zeros((24, 0)), np.zeros(0), np.zeros((0, 50)))
    held = whole({"a": first["a"], "b": nothing}, 0.01)
    _, found = changed(Refiner(held.held, {"b": first["b"]}, {}), 1e-4, held)
    gone, there = found.factors["a"].update(), found.factors["b"].update()
    assert (gone**2).sum() < 1e-3 * (first["a"].update() ** 2).sum()
    assert ((there - first["b"].update()) ** 2).sum() < 1e-3 * (first["b"].update() ** 2).sum()


def test_curvature_says_where_bits_are_spent():
    rng = np.random.default_rng(4)
    bends = {}
    for name, (out, into) in SHAPES.items():
        left, right = rng.normal(size=(out, out)), rng.normal(size=(into, into))
        bends[name] = Curvature(right @ np.diag(np.logspace(-3, 1, into)) @ right.T, left @ left.T)
    held, new = whole(drawn(1), 0.05), near(drawn(1), 0.3)
    sent = {}
    for which, curvature in (("bent", bends), ("plain", None)):
        draft = Refiner(held.held, new, {}, curvature)
        payload, _ = fit_budget(draft, BINDING, {}, 6000)
        assert payload.bits <= 6000
        sent[which] = error(decode(payload.data, BINDING, since=held.held), new, bends)
    assert sent["bent"] < 0.7 * sent["plain"]


def test_gains_add_up_to_the_error_that_is_gone():
    held, new = whole(drawn(1), 0.05), near(drawn(1), 0.3)
    quantised = Refiner(held.held, new, {}).at(0.01)
    payload = Draft(quantised, BINDING, {}).encode([site.rank for site in quantised.coded.sites.values()])
    gained = sum(float(gains.sum()) for gains in quantised.gains.values())
    gone = error(held, new) - error(decode(payload.data, BINDING, since=held.held), new)
    assert gained == pytest.approx(gone, rel=1e-4)


def test_dense_rows_are_as_near_as_in_a_payload_of_their_own_for_fewer_bits():
    """Steps are within an octave of what the price asks for."""
    rng = np.random.default_rng(5)
    before = {"head": rng.normal(size=(4, 300)), "bias": rng.normal(size=4)}
    after = {name: value + 0.05 * rng.normal(size=value.shape) for name, value in before.items()}
    held = whole(drawn(1), 0.05, before)
    bits, found = changed(Refiner(held.held, held.factors, after), 0.05, held)
    spread = np.sqrt((after["head"] ** 2).mean(axis=1, keepdims=True))
    new = Quantiser(held.factors, after, canonical=True)
    levels = 16 * (new.usual_slope / 0.05) ** 0.5
    assert levels > 4
    assert (np.abs(found.dense["head"] - after["head"]) <= spread / levels).all()
    own = Draft(Quantiser({}, after, canonical=True, dense_levels=levels).at(1e-30), BINDING, {}).encode([])
    assert bits < 0.5 * own.bits


def test_what_does_not_fit_the_held_adapter_is_refused():
    held = whole(drawn(1), 0.05, {"head": np.ones((2, 3))}).held
    fine = {"head": np.ones((2, 3))}
    for factors, dense, line in (
        (
            {"c": draw_factors(np.random.default_rng(1), 3, 4, 1)},
            fine,
            r"c has shape \(3, 4\), the held adapter's has None",
        ),
        (
            {"a": draw_factors(np.random.default_rng(1), 3, 4, 1)},
            fine,
            r"a has shape \(3, 4\), .* has \(40, 30\); send",
        ),
        (drawn(1), {}, r"head has shape None, the held adapter's has \(2, 3\); send this adapter whole"),
        (drawn(1), {"head": np.ones(3)}, r"head has shape \(3,\)"),
        (drawn(1), {"head": np.full((2, 3), np.nan)}, "head holds a value that is not finite"),
        ({"a": Factors(np.full((40, 1), np.inf), np.ones(1), np.ones((1, 30)))}, fine, "a holds a value that is not"),
    ):
        with pytest.raises(PayloadError, match=line):
            Refiner(held, factors, dense)
    with pytest.raises(PayloadError, match="head has become much larger or smaller than the held one"):
        Refiner(held, drawn(1), {"head": np.full((2, 3), 1e-9)}).at(0.05)
    refiner = Refiner(held, drawn(1), fine)
    for slope in (0.0, -1.0, np.nan):
        with pytest.raises(PayloadError, match="slope is"):
            refiner.at(slope)
    with pytest.raises(PayloadError, match="for base model"):
        Draft(refiner.at(1.0), Binding(OTHER, BINDING.base_sha256), {})


def test_the_smallest_of_sites_and_repeated_held_directions_are_no_trouble():
    """Held directions that depend on each other leave the least change open; it is taken."""
    small = small_adapter()
    site = small.factors["layer.0.query"]
    twin = Factors(np.repeat(site.p, 2, 1), np.repeat(site.lam, 2), np.repeat(site.q, 2, 0))
    draft = Draft(Quantiser({"s": twin}, {}, canonical=False).at(0.01), BINDING, {})
    held = decode(draft.encode([6]).data, BINDING)
    new = {"s": Factors(site.p * 1.3, 2 * site.lam, site.q)}
    _, found = changed(Refiner(held.held, new, {}), 1e-4, held)
    assert error(found, new) < 1e-3 * float((new["s"].update() ** 2).sum())
