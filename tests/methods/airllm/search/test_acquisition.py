"""What is measured next: uniform, proposal, neighbours; until nothing better is near; counted, repeatable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airtune.adapters import RankVector
from airtune.errors import ConfigError
from airtune.methods.airllm.search.acquisition import Acquisition, collect
from airtune.methods.airllm.search.archive import Archive
from airtune.methods.airllm.search.probes import probes
from airtune.methods.airllm.search.surrogate import LossSurrogate
from small_losses import OVERHEAD, ByFormula, Separable, acquisition_on, best_loss, linear_space

CAPS = RankVector((2, 2, 2, 2))
SPACE = linear_space(CAPS, [10] * 4)


def noise(seed: int) -> ByFormula:
    """A surrogate that knows only that a direction more is better: else any number for any vector, the same again.

    Where one dislikes a direction, room for it may be left unspent, and no exchange spends it.
    """
    table = np.random.default_rng(seed).normal(size=4**8)
    return ByFormula(lambda ranks: float(table[int(np.array(ranks) @ 4 ** np.arange(len(ranks)))]) - 20 * sum(ranks))


def partners(ranks: np.ndarray) -> float:
    """Sites 0 and 1 pay only together, site 2 pays a little, site 3 nothing."""
    return 1 - 0.3 * min(ranks[0], ranks[1]) - 0.05 * ranks[2]


def learning(losses: ByFormula) -> Acquisition:
    return Acquisition(SPACE, LossSurrogate(CAPS), Archive(losses, SPACE.air_bits))


def test_uniform_and_the_proposal_first_then_neighbours_of_the_best():
    """One direction of three is affordable; the surrogate would have it at site 0."""
    truth = Separable([[0.1], [1.0], [0.4]])
    mistaken = Separable([[1.0], [0.2], [0.1]])
    space = linear_space(truth.caps, [10, 10, 10])
    acquisition = acquisition_on(truth, space, mistaken)
    assert space.uniform(OVERHEAD + 10).ranks == (1, 0, 0) == acquisition.propose(OVERHEAD + 10).ranks
    found = [acquisition.step(OVERHEAD + 10) for _ in range(4)]
    assert [trial and trial.ranks.ranks for trial in found] == [(1, 0, 0), (0, 1, 0), (0, 0, 1), None]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=3), min_size=3, max_size=4),
    st.integers(0, 9),
    st.integers(0, 1000),
)
def test_whatever_the_surrogate_says_steps_end_at_the_optimum_where_directions_cost_the_same(falls, directions, seed):
    """Separable, convex, equal costs: where no exchange helps, nothing does. The end is known by every neighbour."""
    losses = Separable(falls)
    space = linear_space(losses.caps, [10] * len(falls))
    budget = OVERHEAD + 10 * directions
    acquisition = acquisition_on(losses, space, noise(seed))
    while (trial := acquisition.step(budget)) is not None:
        assert space.air_bits(trial.ranks) <= budget
    assert len(losses.tried) == len(set(losses.tried)) == len(acquisition.archive)
    assert acquisition.archive.best(budget).loss == pytest.approx(best_loss(losses, space, budget), abs=1e-6)


@pytest.mark.parametrize("directions", [2, 5, 6])
def test_learning_finds_what_pays_only_together(directions):
    """20 of 81 allocations are measured; for at least 8 of 10 draws of probes the optimum is among them."""
    budget, found = OVERHEAD + 10 * directions, []
    for seed in range(10):
        losses = ByFormula(partners)
        acquisition = learning(losses)
        collect(acquisition, probes(CAPS, [directions / 8], 60, np.random.default_rng(seed)), [budget], 20)
        assert len(losses.tried) == 20
        found.append(acquisition.archive.best(budget).loss)
    assert losses.at(SPACE.uniform(budget)) > best_loss(losses, SPACE, budget) + 0.2
    assert np.sum(np.isclose(found, best_loss(losses, SPACE, budget))) >= 8


def test_half_are_probes_and_the_rest_go_to_each_budget_by_turns():
    losses, heard = ByFormula(partners), []
    acquisition = learning(losses)
    drawn = list(dict.fromkeys(probes(CAPS, [0.3, 0.6], 60, np.random.default_rng(1))))
    budgets = [OVERHEAD + 20, OVERHEAD + 50, OVERHEAD + 80]  # the last one holds everything
    collect(acquisition, drawn, budgets, 16, heard.append)
    assert [trial.ranks for trial in heard] == losses.tried == [trial.ranks for trial in acquisition.archive.trials]
    assert losses.tried[:8] == drawn[:8]
    bits = [SPACE.air_bits(ranks) for ranks in losses.tried[8:]]
    assert len(bits) == 8
    assert all(bits[turn] <= budgets[turn % 2] for turn in range(8))
    assert len(set(losses.tried)) == 16


def test_the_same_losses_lead_the_same_way():
    tried = []
    for _ in range(2):
        losses = ByFormula(partners)
        drawn = probes(CAPS, [0.3, 0.6], 60, np.random.default_rng(2))
        collect(learning(losses), drawn, [OVERHEAD + 20, OVERHEAD + 50], 20)
        tried.append(losses.tried)
    assert tried[0] == tried[1]


def test_no_more_is_measured_than_there_is():
    """Two sites of one direction each: four vectors."""
    caps = RankVector((1, 1))
    space, losses = linear_space(caps, [10, 10]), ByFormula(lambda ranks: 1 - 0.1 * ranks[0] - 0.2 * ranks[1])
    acquisition = Acquisition(space, LossSurrogate(caps), Archive(losses, space.air_bits))
    collect(acquisition, probes(caps, [0.5], 50, np.random.default_rng(0)), [OVERHEAD + 10], 50)
    assert sorted(ranks.ranks for ranks in losses.tried) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_an_archive_measures_once_and_keeps_the_first_of_equals():
    losses = ByFormula(lambda ranks: -min(ranks.sum(), 2))
    archive = Archive(losses, SPACE.air_bits)
    for ranks in ((1, 1, 0, 0), (0, 0, 1, 1), (1, 1, 0, 0), (2, 2, 2, 2), (0, 0, 0, 1)):
        assert archive.measure(RankVector(ranks)).ranks.ranks == ranks
    assert len(losses.tried) == len(archive) == 4
    assert archive.best(OVERHEAD + 80).ranks.ranks == (1, 1, 0, 0)
    assert archive.best(OVERHEAD + 10).ranks.ranks == (0, 0, 0, 1)
    assert RankVector((0, 0, 1, 1)) in archive
    assert RankVector((0, 1, 1, 1)) not in archive
    with pytest.raises(ConfigError, match="none of 4 measured allocations fits 109 bits"):
        archive.best(OVERHEAD + 9)


def test_the_best_pays_for_its_bits():
    """lambda 0.4 under 200 bits: 0.002 nat a bit, so 20 bits that take 0.03 nat off cost 0.04."""
    losses = ByFormula(lambda ranks: 1 - 0.5 * min(ranks.sum(), 2) - 0.015 * max(0, ranks.sum() - 2))
    archive = Archive(losses, SPACE.air_bits)
    for ranks in ((1, 0, 0, 0), (1, 1, 0, 0), (1, 1, 1, 1)):
        archive.measure(RankVector(ranks))
    assert archive.best(200).ranks.ranks == (1, 1, 1, 1)
    assert archive.best(200, 0.4).ranks.ranks == (1, 1, 0, 0)
    acquisition = acquisition_on(losses, SPACE)
    assert sum(acquisition.propose(200).ranks) == 8
    assert sum(acquisition.propose(200, 0.4).ranks) == 2
