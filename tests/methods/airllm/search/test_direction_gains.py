"""Gains of directions: sums by hand, what the surrogate makes of them, and that what they lead to is measured early."""

from __future__ import annotations

import numpy as np

from airtune.adapters import RankVector
from airtune.methods.airllm.allocation import Trial
from airtune.methods.airllm.search.acquisition import Acquisition
from airtune.methods.airllm.search.archive import Archive
from airtune.methods.airllm.search.direction_gains import DirectionGains
from airtune.methods.airllm.search.space import Space
from airtune.methods.airllm.search.surrogate import LossSurrogate

CAPS = RankVector((2, 1, 3))
GAINS = DirectionGains([np.array([0.5, 0.1]), np.array([0.25]), np.array([0.2, 0.05, 0.0])])


def test_gains_of_first_directions_are_summed():
    ranks = np.array([[0, 0, 0], [2, 1, 3], [1, 0, 2]])
    np.testing.assert_allclose(GAINS.of(ranks), [0.0, 1.1, 0.75])
    np.testing.assert_allclose(GAINS.loss(ranks), [0.0, -1.1, -0.75])


def test_where_losses_follow_gains_a_few_measurements_tell_all():
    """30 sites of very different worth, 5 losses: without gains nobody could know which site is worth what."""
    rng = np.random.default_rng(0)
    caps, worth = RankVector((1,) * 30), rng.exponential(size=30)
    drawn = (rng.random((35, 30)) < 0.5).astype(int)
    losses = 5.0 - 0.7 * drawn @ worth
    trials = [Trial(RankVector.of(row), float(loss)) for row, loss in zip(drawn, losses, strict=True)]
    errors = []
    for gains in (None, DirectionGains([np.array([value]) for value in worth])):
        found = LossSurrogate(caps, gains=gains).fit(trials[:5]).predict(drawn[5:])
        errors.append(float(np.sqrt(((found - losses[5:]) ** 2).mean())))
    assert errors[1] < 0.1 * errors[0]


class Losses:
    def try_ranks(self, ranks: RankVector) -> Trial:
        return Trial(ranks, 3.0 - float(GAINS.of(np.array([ranks.ranks]))[0]))


def test_what_gains_lead_to_is_measured_second_and_once_for_each_budget():
    """20 bits a direction: a budget of 60 holds three; by gains 0.5, 0.25 and 0.2 lead, one at each site."""
    bits = np.array([20, 20, 20])

    def air_bits(ranks: RankVector) -> int:
        return int(bits @ np.array(ranks.ranks))

    archive = Archive(Losses(), air_bits)
    for ranks in (CAPS, RankVector((0, 0, 0))):
        archive.measure(ranks)
    guided = Acquisition(Space(CAPS, air_bits, bits), LossSurrogate(CAPS, gains=GAINS), archive, guess=GAINS.loss)
    first, second = guided.step(60), guided.step(60)
    assert first is not None
    assert second is not None
    assert {first.ranks, second.ranks} >= {RankVector((1, 1, 1))}
    assert archive.best(60).ranks == RankVector((1, 1, 1))
