"""Baseline codecs: values and bits against those worked out by hand, and that scoring leaves the model as it was."""

from __future__ import annotations

from collections import defaultdict
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from airtune.codec import DAMPINGS, Binding, Curvature, Factors
from airtune.errors import PayloadError
from airtune.methods.airllm.baselines.training import TrainedAdapter, score_adapter
from airtune.methods.airllm.bits.candidate import Candidate, of_same_factors, score_all
from airtune.methods.airllm.bits.grid import WIDTHS, RowGrids, at_widths, blockwise, calibrated, cuts, grid, on_grid
from airtune.methods.airllm.bits.ternary import ternary
from airtune.methods.airllm.bits.whole import whole
from airtune.models import Items, load_base, score, weights_hash
from tiny_models import save_tiny_model

ROWS = np.random.default_rng(0).normal(size=(5, 40))


@pytest.mark.parametrize(("width", "values"), [(1, 2), (2, 4), (3, 8), (4, 16), (8, 256)])
def test_a_row_takes_as_many_values_as_its_width_allows_evenly_spaced(width: int, values: int):
    for row in on_grid(ROWS, width):
        found = np.unique(row)
        assert len(found) <= values
        steps = np.diff(found)
        assert np.allclose(steps / steps.min(), np.round(steps / steps.min()), atol=1e-3)


def test_no_peak_on_a_fine_mesh_serves_a_row_better():
    """Least squares over peaks, here at 3 bits, by trying 2,000 of them: -3 to 3 steps, and -3.5 to 3.5."""
    sparse = np.where(np.abs(ROWS) > 1.2, ROWS, 0.0)  # best with a value at 0
    rows = np.vstack([ROWS, sparse])
    for row, found in zip(rows, on_grid(rows, 3), strict=True):
        steps = np.linspace(0.05, 1.2, 2000)[:, None] * np.abs(row).max() / 3
        with_zero = np.clip(np.round(row / steps), -3, 3) * steps
        around = np.clip(np.round(row / steps - 0.5) + 0.5, -3.5, 3.5) * steps
        least = min(((tried - row) ** 2).sum(axis=1).min() for tried in (with_zero, around))
        assert ((found - row) ** 2).sum() == pytest.approx(least, rel=0.02)


def test_one_bit_is_the_sign_and_the_mean_size():
    np.testing.assert_allclose(on_grid(np.array([[1.0, -2.0, 3.0]]), 1), [[2.0, -2.0, 2.0]])


@pytest.fixture
def trained() -> dict[int, TrainedAdapter]:
    rng = np.random.default_rng(1)

    def adapter(rank: int) -> TrainedAdapter:
        lam = np.sort(rng.exponential(size=rank).astype(np.float32))[::-1]
        site = Factors(rng.normal(size=(20, rank)).astype("f"), lam, rng.normal(size=(rank, 12)).astype("f"))
        return TrainedAdapter({"a": site}, {"head": rng.normal(size=(3, 4)).astype("f")}, ())

    return {1: adapter(1), 4: adapter(4)}


def test_bits_of_the_grid(trained: dict[int, TrainedAdapter]):
    """Rank r has 32 r numbers and r scales; the head 12 numbers in 3 rows, or all at 32 without scales."""
    bits = {found.name: found.bits for found in grid(trained)}
    assert bits["rank 1, 3 bits, head 8"] == 32 * 3 + 16 + 12 * 8 + 3 * 16
    assert bits["rank 4, 2 bits, head 3"] == 4 * (32 * 2 + 16) + 12 * 3 + 3 * 16
    assert len(bits) == len(trained) * (7 * 5 + 1)
    assert bits["rank 4, 32 bits"] == (4 * 32 + 12) * 32


def test_blockwise_counts_numbers_and_a_scale_for_every_64_of_them(trained: dict[int, TrainedAdapter]):
    """Bytes: a row of 20 takes 10 and a scale of 2, one of 12 6 and 2, lam 4; the head 12 and 2; a chunk's index 4."""
    found = {one.name: one for one in blockwise(trained, Binding("0" * 64, "0" * 64), {})}
    for rank in trained:
        numbers = rank * (10 + 2 + 6 + 2 + 4) + 12 + 2
        assert (found[f"rank {rank}"].bits / 8 - numbers) / 4 in range(1, rank + 2)  # chunks: the head, then by level


def test_a_calibrated_grid_is_the_same_grid_with_less_error_where_it_counts(trained: dict[int, TrainedAdapter]):
    rng = np.random.default_rng(3)
    inputs, outputs = (seen.T @ seen for seen in (rng.normal(size=(9, n)) @ rng.normal(size=(n, n)) for n in (12, 20)))
    bends = {rank: {"a": Curvature(inputs, outputs)} for rank in trained}
    plain, made = ({one.name: one for one in found} for found in (grid(trained), calibrated(trained, bends)))
    assert {name.partition("rank ")[2] for name in made} == {name.partition("rank ")[2] for name in plain}
    gains = defaultdict[tuple[float, int], list[float]](list)
    for (name, one), damping in product(plain.items(), DAMPINGS):
        other = made[f"calibrated, damping {damping:g}, {name}"]
        assert other.bits == one.bits
        if (width := int(name.split()[2])) < 32:
            grids = RowGrids.fitted(trained[int(name.split()[1][:-1])].factors["a"].q, width)
            places = other.factors["a"].q / grids.steps - np.where(grids.around, 0.5, 0)
            np.testing.assert_allclose(places, np.round(places), atol=1e-4)
            assert -(2 ** (width - 1)) <= np.round(places.min()) <= np.round(places.max()) < 2 ** (width - 1)
        error = [found.factors["a"].q - trained[int(name.split()[1][:-1])].factors["a"].q for found in (one, other)]
        metric = inputs + damping * np.trace(inputs) / 12 * np.eye(12)
        counts = [np.trace(e @ metric @ e.T) for e in error]
        if "32 bits" in name:
            assert counts[1] == counts[0] == 0
        else:
            gains[damping, width].append(1 - counts[1] / counts[0])
    light, heavy = ({width: np.mean(gains[damping, width]) for width in WIDTHS[:-1]} for damping in DAMPINGS)
    assert all(light[width] > max(heavy[width], 0) for width in light)  # damped more, less is fed back


@pytest.mark.parametrize("damping", DAMPINGS)
def test_a_calibrated_grid_is_rounded_under_moments_with_so_much_of_their_mean_added(trained, damping: float):
    rng = np.random.default_rng(3)
    moments = [seen.T @ seen for seen in (rng.normal(size=(30, n)) @ rng.normal(size=(n, n)) for n in (12, 20))]
    inputs, outputs = (seen + damping * np.trace(seen) / len(seen) * np.eye(len(seen)) for seen in moments)
    made = {one.name: one for one in calibrated(trained, {rank: {"a": Curvature(*moments)} for rank in trained})}
    by_hand = at_widths("by hand", trained[4].factors, trained[4].dense, {"a": Curvature(inputs, outputs, damping=0)})
    for expected in by_hand:
        found = made[f"calibrated, damping {damping:g}, rank 4{expected.name.removeprefix('by hand')}"]
        np.testing.assert_allclose(found.factors["a"].q, expected.factors["a"].q, rtol=1e-5)
        np.testing.assert_allclose(found.factors["a"].p, expected.factors["a"].p, rtol=1e-5)


def test_32_bits_and_no_cut_are_the_adapter_itself(trained: dict[int, TrainedAdapter]):
    found = {candidate.name: candidate for candidate in [*grid(trained), *cuts(trained)]}
    for name in ("rank 4, 32 bits", "cut to 4, 32 bits"):
        np.testing.assert_allclose(found[name].factors["a"].update(), trained[4].factors["a"].update(), rtol=1e-4)
        np.testing.assert_array_equal(found[name].dense["head"], trained[4].dense["head"])
    shorter = found["cut to 1, 32 bits"].factors["a"]
    np.testing.assert_allclose(shorter.update(), trained[4].factors["a"].prefix(1).update(), rtol=1e-4, atol=1e-6)


def test_ternary_keeps_the_largest_and_counts_places_and_signs(trained: dict[int, TrainedAdapter]):
    found = {candidate.name: candidate for candidate in ternary(trained)}
    one = found["rank 4, 10% of entries, one size of 2 for each adapter, head 4"]
    numbers = np.concatenate([one.factors["a"].p.ravel(), one.factors["a"].q.ravel()])
    sizes = np.unique(np.abs(numbers))
    assert sizes[0] == 0
    assert len(sizes) == 2
    kept = np.count_nonzero(numbers)
    assert kept == 13  # a tenth of 128
    share = kept / 128
    entropy = -128 * (share * np.log2(share) + (1 - share) * np.log2(1 - share))
    assert one.bits == pytest.approx(entropy + kept + 16 + 12 * 4 + 3 * 16)
    site = trained[4].factors["a"]
    balanced = np.concatenate([(site.p * np.sqrt(site.lam)).ravel(), (site.q.T * np.sqrt(site.lam)).T.ravel()])
    assert sizes[1] == pytest.approx(2 * np.sqrt((balanced**2).mean()), rel=1e-5)
    assert np.abs(balanced[numbers != 0]).min() > np.abs(balanced[numbers == 0]).max()
    assert (np.sign(balanced) == np.sign(numbers))[numbers != 0].all()
    by_direction = found["rank 4, 10% of entries, one size of 1 for each direction, head 3"]
    factors = by_direction.factors["a"]
    assert all(len(np.unique(np.abs(row[row != 0]))) == 1 for row in [*factors.p.T, *factors.q])
    kept = sum(int(np.count_nonzero(part)) for part in (factors.p, factors.q))
    places = -(kept * np.log2(kept / 128) + (128 - kept) * np.log2(1 - kept / 128))
    assert by_direction.bits == pytest.approx(places + kept + 4 * 16 + 12 * 3 + 3 * 16)


def test_the_change_of_all_weights_is_sent_and_taken_back(tmp_path: Path):
    base = load_base(str(save_tiny_model(tmp_path / "llama", "llama")), "text", labels=0)
    rng = np.random.default_rng(0)
    items = Items(tuple(rng.integers(4, 22, 8) for _ in range(4)), None, pad_id=0)
    change = {name: 0.05 * rng.normal(size=value.shape) for name, value in base.model.named_parameters()}
    before, plain = weights_hash(base.model, base.head), score(base.model, items, keep_logits=0).loss
    exact = Candidate("exact", 0, change=change).score(base, items).loss
    assert weights_hash(base.model, base.head) == before
    with torch.no_grad():
        for name, value in base.model.named_parameters():
            value += torch.tensor(change[name], dtype=torch.float32)
    assert exact == pytest.approx(score(base.model, items, keep_logits=0).loss, rel=1e-6)
    assert abs(exact - plain) > 1e-4
    found = {candidate.name: candidate for candidate in whole(change)}
    numbers = sum(value.size for value in change.values())
    rows = sum(len(np.atleast_2d(value)) for value in change.values())
    assert [found[f"{width} bits"].bits for width in (1, 4)] == [numbers + 16 * rows, 4 * numbers + 16 * rows]
    errors = [
        sum(((candidate.change[name] - change[name]) ** 2).sum() for name in change) for candidate in found.values()
    ]
    assert errors == sorted(errors, reverse=True)


def test_candidates_scored_together_have_the_scores_that_they_have_alone(tmp_path: Path):
    """A classifier's, with heads of several widths on the same factors, and others between them."""
    base = load_base(str(save_tiny_model(tmp_path, "bert", kind="classify")), "classify", labels=2)
    rng = np.random.default_rng(0)
    items = Items(tuple(rng.integers(4, 22, 8) for _ in range(9)), rng.integers(0, 2, 9), pad_id=0)
    factors = {
        site.path: Factors(
            *(rng.normal(size=shape).astype("f") for shape in ((site.fan_out, 2), (2,), (2, site.fan_in)))
        )
        for site in base.sites
    }
    dense = {name: rng.normal(size=tuple(base.model.get_parameter(name).shape)).astype("f") for name in base.head}
    found = list(grid({2: TrainedAdapter(factors, dense, ())}))
    together = score_all(found, base, items)
    assert len(list(of_same_factors(found))) == len(WIDTHS)
    before = weights_hash(base.model)
    for one, shared in zip(found, together, strict=True):
        alone = one.score(base, items)
        np.testing.assert_array_equal(alone.losses, shared.losses)
        np.testing.assert_array_equal(alone.hits, shared.hits)
    assert weights_hash(base.model) == before
    assert len({score.loss for score in together}) > len(WIDTHS)


@pytest.mark.parametrize(("family", "kind"), [("llama", "text"), ("gpt2", "classify"), ("bert", "classify")])
def test_weights_with_an_update_in_them_score_as_layers_beside_them(tmp_path: Path, family: str, kind: str):
    base = load_base(str(save_tiny_model(tmp_path, family, kind=kind)), kind, labels=2)
    draw, before = np.random.default_rng(0), {n: v.clone() for n, v in base.model.state_dict().items()}
    factors = {
        site.path: Factors(
            draw.normal(size=(site.fan_out, 3)).astype("f") / 5,
            np.array([1.0, 0.5, 0.2]),
            draw.normal(size=(3, site.fan_in)) / 5,
        )
        for site in base.sites
    }
    head = {name: draw.normal(size=base.model.get_parameter(name).shape).astype("f") for name in base.head}
    classes = None if kind == "text" else np.arange(6) % 2
    items = Items(tuple(draw.integers(4, 30, 12) for _ in range(6)), classes, 0)
    expected = score_adapter(base, factors, head, items)
    found = Candidate("one", 1, factors, head).score(base, items)
    assert abs(expected.loss - score(base.model, items).loss) > 0.01
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in base.model.state_dict().items())
    with pytest.raises(PayloadError, match="sites differ"):
        Candidate("one", 1, dict(list(factors.items())[1:]), head).score(base, items)
