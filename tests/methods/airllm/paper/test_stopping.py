"""The early stop by table: reward above min(-lambda, -0.5), and so many evaluations in a row without gain."""

from __future__ import annotations

import pytest

from airtune.methods.airllm.paper.stopping import EarlyStop, Evaluation


def evaluations(scores: list[float], reward: float, *, losses: list[float] | None = None) -> list[Evaluation]:
    found = losses or [0.5] * len(scores)
    return [
        Evaluation(100 * (i + 1), loss, score, reward, 8)
        for i, (score, loss) in enumerate(zip(scores, found, strict=True))
    ]


@pytest.mark.parametrize(
    ("cost_weight", "threshold"), [(0.01, -0.5), (0.1, -0.5), (0.5, -0.5), (1.0, -1.0), (2.0, -2.0)]
)
def test_the_threshold_is_the_papers(cost_weight, threshold):
    assert EarlyStop(cost_weight, 5, True).threshold == threshold


FLAT = [0.80, 0.81, 0.80, 0.81, 0.79, 0.81, 0.80]
"""The best is the second; five others follow, two of them equal to it: no gain."""


@pytest.mark.parametrize(
    ("scores", "reward", "cost_weight", "stops"),
    [
        (FLAT, -0.4, 0.1, True),
        (FLAT[:6], -0.4, 0.1, False),  # four in a row
        (FLAT, -0.5, 0.1, False),  # not above
        (FLAT, -0.6, 0.1, False),
        (FLAT, -0.6, 1.0, True),  # lambda 1: -1 is enough
        (FLAT, -1.0, 1.0, False),
        ([*FLAT[:6], 0.82], -0.4, 0.1, False),  # gain at the last moment
        ([*FLAT[:6], 0.82, *[0.8] * 4], -0.4, 0.1, False),
        ([*FLAT[:6], 0.82, *[0.8] * 5], -0.4, 0.1, True),
        ([], -0.4, 0.1, False),
    ],
)
def test_it_stops_when_both_conditions_hold(scores, reward, cost_weight, stops):
    assert EarlyStop(cost_weight, 5, True).stops(evaluations(scores, reward)) is stops


def test_only_the_last_reward_counts():
    found = [*evaluations(FLAT[:6], -0.4), *evaluations(FLAT[6:], -0.7)]
    assert not EarlyStop(0.1, 5, True).stops(found)


def test_for_running_text_a_gain_is_a_lower_loss():
    falling, flat = [0.49, 0.48, 0.47, 0.46, 0.45, 0.44, 0.43], [0.4, 0.43, 0.42, 0.41, 0.44, 0.41, 0.4]
    rule = EarlyStop(0.1, 5, by_accuracy=False)
    assert not rule.stops(evaluations([1.5] * 7, -0.45, losses=falling))
    assert rule.stops(evaluations([1.5] * 7, -0.45, losses=flat))
