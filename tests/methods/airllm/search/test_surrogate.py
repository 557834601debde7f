"""Features by hand, losses of known shape learned, fidelity by hand, probes around budgets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airtune.adapters import RankVector
from airtune.errors import ConfigError
from airtune.methods.airllm.allocation import Trial
from airtune.methods.airllm.search.probes import probes
from airtune.methods.airllm.search.surrogate import LossSurrogate, fidelity, held_out

CAPS = RankVector((8, 8, 4, 8, 8, 4))
LAYERS, KINDS = (0, 0, 0, 1, 1, 1), (0, 1, 2, 0, 1, 2)
SHARES = (0.05, 0.1, 0.2, 0.4, 0.7)


def additive(ranks: np.ndarray) -> np.ndarray:
    """A loss that is a sum over sites: each falls as 1 / (1 + r), two of them also to the cap in a straight line."""
    weights, slopes = np.array([1.0, 0.2, 0.1, 0.5, 0.05, 0.02]), np.array([0, 0.1, 0, 0, 0, 0.05])
    return 0.3 + (weights / (1 + ranks)).sum(axis=-1) - (slopes * ranks).sum(axis=-1)


def measured(loss, count: int = 96, seed: int = 0, noise: float = 0.0) -> list[Trial]:
    rng = np.random.default_rng(seed)
    drawn = probes(CAPS, SHARES, count, rng)
    return [Trial(ranks, float(loss(np.array(ranks.ranks)) + noise * rng.normal())) for ranks in drawn]


def random_ranks(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, CAPS.ranks, endpoint=True, size=(count, len(CAPS)))


def test_features_by_hand():
    """Two sites of caps 3 and 7 in one layer: each site, the layer, and over all, for each of two numbers."""
    surrogate = LossSurrogate(RankVector((3, 7)), [(0, 0)])
    found = surrogate.features(np.array([[0, 0], [1, 7], [3, 1], [3, 7]]))
    used = [(0, 0), (1, 1), (1, 1), (1, 1)]
    share = [(0, 0), (1 / 2, 1), (1, 1 / 3), (1, 1)]  # log2(1 + r) / log2(1 + cap): 1 / 2 and 1 / 3 at rank 1
    for row, one, two in zip(found, used, share, strict=True):
        assert row == pytest.approx([x for a, b in (one, two) for x in (a, b, (a + b) / 2, (a + b) / 2)])


def test_groups_are_averaged_over_their_own_members():
    surrogate = LossSurrogate(CAPS, [LAYERS, KINDS])
    missing = 1 - surrogate.features(np.array([CAPS.ranks, (0, 8, 4, 8, 8, 4)]))[1]
    # sites, two layers of three, three kinds of two, all six; the same for both numbers
    assert missing == pytest.approx(2 * [1, 0, 0, 0, 0, 0, 1 / 3, 0, 1 / 2, 0, 0, 1 / 6])


def test_an_additive_loss_is_learned():
    surrogate = LossSurrogate(CAPS, [LAYERS, KINDS])
    found = held_out(surrogate, measured(additive))
    unseen = random_ranks(500)
    assert found.r2 > 0.99
    assert found.rank_correlation > 0.99
    error = surrogate.predict(unseen) - additive(unseen)
    assert np.sqrt((error**2).mean()) < 0.15 * additive(unseen).std()


def test_what_sites_are_worth_only_together_is_learned():
    """|a - b| with a and b in {0, 1}, each row held out once: a sum over sites errs to the wrong side every time."""
    caps = RankVector((1, 1, 1, 1))
    rows = np.array([[i >> k & 1 for k in range(4)] for i in range(16)])
    losses = np.abs(rows[:, 0] - rows[:, 1]) + 0.1 * rows[:, 2]
    trials = [Trial(RankVector.of(row), float(loss)) for row, loss in zip(rows, losses, strict=True)]
    design = np.column_stack([np.ones(16), rows])
    for held in range(16):
        others = np.arange(16) != held
        sum_over_sites = design[held] @ np.linalg.lstsq(design[others], losses[others])[0]
        found = LossSurrogate(caps).fit([trials[i] for i in np.flatnonzero(others)]).predict(rows[held])[0]
        assert (sum_over_sites > 0.55) != (losses[held] > 0.55)
        assert (found > 0.55) == (losses[held] > 0.55)


def test_the_interval_covers_what_is_noisy_and_narrows_where_much_was_measured():
    surrogate = LossSurrogate(CAPS, [LAYERS, KINDS])
    found = held_out(surrogate, measured(additive, 200, noise=0.1))
    assert 0.8 < found.coverage < 0.98
    assert 0.08 < found.rmse < 0.15
    few = LossSurrogate(CAPS, [LAYERS, KINDS]).fit(measured(additive, 12, noise=0.1))
    everywhere = random_ranks(200)
    assert surrogate.deviation(everywhere).mean() < 0.8 * few.deviation(everywhere).mean()


@pytest.mark.parametrize("noise", [0.0, 1e-12, 1e-3])
def test_a_flat_loss_stays_near_what_was_measured(noise):
    trials = measured(lambda ranks: 0.7, noise=noise)
    surrogate = LossSurrogate(CAPS, [LAYERS, KINDS]).fit(trials)
    everywhere = np.concatenate([random_ranks(200), [[0] * len(CAPS)], [CAPS.ranks]])
    assert np.abs(surrogate.predict(everywhere) - 0.7).max() <= 5 * noise + 1e-9


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30))
def test_whatever_was_measured_predictions_are_finite(seed, count):
    rng = np.random.default_rng(seed)
    rows = random_ranks(count, seed)[rng.integers(0, count, count)]  # some of them twice, with different losses
    surrogate = LossSurrogate(CAPS, [LAYERS, KINDS])
    surrogate.fit([Trial(RankVector.of(row), float(rng.normal())) for row in rows])
    assert np.isfinite(surrogate.predict(random_ranks(20, seed + 1))).all()
    assert (surrogate.deviation(random_ranks(20, seed + 1)) > 0).all()


def test_fidelity_by_hand():
    """Errors 0, 0, 1, -1 of losses with variance 5 / 4; 1.645 deviations hold three; ranks 1, 2, 4, 3."""
    found = fidelity(np.array([1.0, 2, 4, 3]), np.array([0.1, 0.1, 0.7, 0.5]), np.array([1.0, 2, 3, 4]))
    assert found.rmse == pytest.approx(0.5**0.5)
    assert found.r2 == pytest.approx(1 - 0.5 / 1.25)
    assert found.rank_correlation == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert found.coverage == 0.75


def test_predictions_are_the_same_again_and_do_not_depend_on_company():
    first, again = (LossSurrogate(CAPS, [LAYERS]).fit(measured(additive)) for _ in range(2))
    ranks = random_ranks(10)
    assert np.array_equal(first.predict(ranks), again.predict(ranks))
    assert first.predict(ranks[3]) == pytest.approx(first.predict(ranks)[3:4], rel=1e-12)
    trial = first.try_ranks(RankVector.of(ranks[3]))
    assert trial == Trial(RankVector.of(ranks[3]), float(first.predict(ranks[3])[0]), measured=False)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_measurements_are_refused(count):
    with pytest.raises(ConfigError, match=f"given {count} measurements; measure at least 2"):
        LossSurrogate(CAPS).fit(measured(additive, 5)[:count])


@pytest.mark.parametrize("count", [1, 2])
def test_nothing_can_be_held_out_of_too_few(count):
    with pytest.raises(ConfigError, match="measure at least 2"):
        held_out(LossSurrogate(CAPS), measured(additive, 5)[:count])


def test_held_out_error_by_hand():
    """One trial left out at a time: each is predicted by a fit of the other two."""
    trials = [Trial(RankVector((rank,)), loss) for rank, loss in ((0, 4.0), (1, 3.0), (2, 1.0))]
    predicted = []
    for index in range(3):
        others = [trial for place, trial in enumerate(trials) if place != index]
        fitted = LossSurrogate(RankVector((2,))).fit(others)
        predicted.append(fitted.predict(np.array(trials[index].ranks.ranks))[0])
    residual = np.array([4.0, 3.0, 1.0]) - predicted
    surrogate = LossSurrogate(RankVector((2,)))
    found = held_out(surrogate, trials)
    assert found.rmse == pytest.approx(np.sqrt((residual @ residual) / 3))
    around_mean = np.array([4.0, 3.0, 1.0]) - 8 / 3
    assert found.r2 == pytest.approx(1 - (residual @ residual) / (around_mean @ around_mean))
    whole = LossSurrogate(RankVector((2,))).fit(trials)  # and it is left fitted to all of them
    assert surrogate.predict(np.array([[1]])) == pytest.approx(whole.predict(np.array([[1]])))


def test_noise_that_nothing_explains_is_not_explained_when_held_out():
    rng = np.random.default_rng(3)
    trials = [Trial(RankVector.of(row), float(rng.normal())) for row in random_ranks(60)]
    found = held_out(LossSurrogate(CAPS, [LAYERS, KINDS]), trials)
    assert found.r2 < 0.1
    assert found.rmse > 0.9 * np.std([trial.loss for trial in trials])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12).map(tuple),
    st.lists(st.floats(0.01, 1), min_size=1, max_size=6),
    st.integers(1, 40),
    st.integers(0, 1000),
)
def test_probes_stay_within_caps_and_begin_with_the_full_adapter(caps, shares, count, seed):
    drawn = probes(RankVector(caps), shares, count, np.random.default_rng(seed))
    assert len(drawn) == count
    assert drawn[0].ranks == caps
    assert all(0 <= rank <= cap for ranks in drawn for rank, cap in zip(ranks.ranks, caps, strict=True))


def test_probes_surround_every_share_and_are_both_even_and_uneven():
    caps = RankVector((8,) * 36)
    drawn = probes(caps, SHARES, 400, np.random.default_rng(0))[1:]
    totals = np.array([ranks.total for ranks in drawn]) / (8 * 36)
    for share in SHARES:
        assert (totals < share).any()
        assert np.sum((totals > 0.8 * share) & (totals < 1.25 * share)) >= 20
    ranges = np.array([np.ptp(ranks.ranks) for ranks in drawn])
    assert (ranges <= 1).mean() > 0.1
    assert (ranges >= 4).mean() > 0.1


def test_probes_are_drawn_from_the_generator_alone():
    first, again, other = (probes(CAPS, SHARES, 30, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first == again != other
