"""A refiner that learns from its own actions at constant reward stays where it is; with the paper's floor it does not.

Twenty generations of sampling and retraining: each generation's ranks join the replay, which Algorithm 1 keeps, and the
refiner is trained on it. Nothing tells better from worse, so every move of the mean rank is a fault of the machinery.
"""

from __future__ import annotations

import numpy as np
import pytest

from airtune.methods.airllm.encoding import Rule, decode, encode
from airtune.methods.airllm.policy.priors import CoarseLatent
from airtune.methods.airllm.policy.refine import Replay
from airtune.methods.airllm.policy.settings import PolicyConfig
from airtune.methods.airllm.policy.training import new_refiner

LATENT = CoarseLatent(layer_of=(0, 0, 1, 1), kind_of=(0, 1, 0, 1))
CAP, STATE_SIZE, ACTIONS = 8, 3, 256
CONFIG = PolicyConfig(width=64, train_steps=100, sample_steps=5)


def mean_ranks(generations: int, rule: Rule, *, seed: int) -> list[float]:
    """Mean rank before the first generation and after each."""
    refiner, rng = new_refiner(LATENT, 4, STATE_SIZE, CONFIG, seed), np.random.default_rng(seed)
    refiner.warm_start(STATE_SIZE, updates=400, batch=128, rng=rng)
    states = rng.random((ACTIONS, STATE_SIZE), dtype=np.float32)
    latents = rng.uniform(-1, 1, (ACTIONS, LATENT.size)).astype(np.float32)
    replayed: list[np.ndarray] = []
    means = []
    for _ in range(generations + 1):
        ranks = decode(refiner.refine(states, latents, rng), CAP, rule)
        means.append(float(ranks.mean()))
        replayed.append(encode(ranks, CAP))
        actions, times = np.concatenate(replayed), len(replayed)
        s, c, same = np.tile(states, (times, 1)), np.tile(latents, (times, 1)), np.zeros(len(actions), np.float32)
        replay = Replay(s, c, actions, actions, advantage=same, next_state=s, next_condition=c, terminal=same + 1)
        refiner.learn(replay, objective="advantage", kappa=0.1, gamma=0.95, updates=100, batch=64, rng=rng)
    return means


@pytest.mark.parametrize("seed", [0, 1])
def test_twenty_generations_move_the_mean_rank_by_less_than_a_tenth(seed: int):
    means = mean_ranks(20, "round", seed=seed)
    assert 3 < means[0] < 5
    assert max(abs(mean - means[0]) for mean in means) < 0.1


def test_the_papers_floor_drifts_within_five_generations():
    means = mean_ranks(5, "floor", seed=0)
    assert means[-1] < means[0] - 0.3
