"""The environment as Algorithm 1 means it: least rank, floor, cost by the paper's count, nothing cut, links anew."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from airtune.adapters import RankVector
from airtune.links import Link, Rayleigh
from airtune.methods.airllm.allocation import Trial
from airtune.methods.airllm.encoding import decode, encode
from airtune.methods.airllm.environment import AllocationEnv, Executed
from airtune.tasks import Complexity

CAPS = RankVector((8, 8, 4))
WIDTH = 16


class Fixed:
    """Every rank vector costs the same loss; AdaLoRA-like where it keeps to ranks of its own."""

    def __init__(self, loss: float, held: RankVector | None = None) -> None:
        self.loss, self.held = loss, held
        self.tried: list[RankVector] = []

    def try_ranks(self, ranks: RankVector) -> Trial:
        self.tried.append(ranks)
        return Trial(self.held or ranks, self.loss)


def bits(ranks: RankVector) -> int:
    """32 bits for each of 2 d_h numbers a rank."""
    return 32 * 2 * WIDTH * ranks.total


def soft_env(losses: Fixed, links: list[Link], **more: object) -> AllocationEnv:
    options: dict = {"deadline_s": 0.5, "cost_weight": 0.1, "horizon": 3, "soft": True} | more
    decoder = partial(decode, rule="floor", least=1)
    return AllocationEnv(losses, CAPS, bits, links, [Complexity(5.0, 0.1, 50)], decoder=decoder, **options)


def test_reward_and_cost_by_hand():
    """W = 1 kHz at 0 dB carries 1000 bit/s: 500 bits by the deadline. Ranks 2, 3, 1 weigh 6 x 1024 = 6144 bits."""
    env = soft_env(losses := Fixed(0.7), [Link(1e3, 0.0)])
    env.reset(seed=0)
    done = env.execute(RankVector((2, 3, 1)))
    assert done.ranks.ranks == (2, 3, 1) == losses.tried[0].ranks  # nothing is cut, though it is far too late
    assert done.air_bits == 6144
    assert done.eta == pytest.approx(6144 / 500)
    assert done.reward == pytest.approx(-0.7 - 0.1 * 12.288)


def test_the_cost_is_of_the_mean_rate_under_fading():
    """Rayleigh at 0 dB: e E1(1) / ln 2 = 0.8603 bit/s/Hz, in every block."""
    env = soft_env(Fixed(0.7), [Link(1e3, 0.0, Rayleigh())])
    for seed in range(3):
        env.reset(seed=seed)
        assert env.execute(RankVector((1, 0, 0))).eta == pytest.approx(1024 / (860.3 * 0.5), rel=1e-4)


def test_what_was_tried_is_paid_for_not_what_was_asked():
    held = RankVector((1, 1, 1))
    env = soft_env(Fixed(0.7, held), [Link(1e3, 0.0)])
    env.reset(seed=0)
    done = env.advance(CAPS)
    assert (done.ranks, done.air_bits) == (held, 3 * 1024)
    assert env.state.ranks == held


def test_no_rank_is_below_the_least_one():
    env = soft_env(Fixed(0.7), [Link(1e3, 0.0)])
    assert env.asked(np.array([-1.0, -0.8, -1.0])).ranks == (1, 1, 1)  # 8 x 0.1 = 0.8
    assert env.asked(np.array([1.0, 0.99, 0.6])).ranks == (8, 7, 3)  # floors 8, 7.96, 3.2
    assert decode(np.array([-1.0, -1.0]), np.array([2, 8]), least=4).tolist() == [2, 4]  # not above a cap


@pytest.mark.parametrize("cap", [8, 64])
def test_what_random_and_uniform_send_needs_no_decoding(cap):
    """Floor loses ranks on the way there and back; asked ranks go in as they are."""
    env = soft_env(losses := Fixed(0.7), [Link(1e3, 0.0)])
    env.reset(seed=0)
    env.advance(RankVector((7, 3, 2)))
    assert losses.tried == [RankVector((7, 3, 2))]
    ranks = np.arange(cap + 1)
    assert (decode(encode(ranks, cap), cap, rule="floor") <= ranks).all()


def test_an_episode_starts_at_half_of_every_cap_and_is_truncated():
    env = soft_env(Fixed(0.7), [Link(1e3, 0.0)])
    env.reset(seed=0)
    assert env.state.ranks.ranks == (4, 4, 2)
    ends = [env.step(np.array([1.0, -1.0, -1.0]))[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]
    assert env.state.ranks.ranks == (8, 1, 1)


def test_every_step_draws_its_link():
    links = [Link(1e3, snr_db) for snr_db in (-5.0, 0.0, 5.0, 10.0, 15.0)]
    seen: list[Executed] = []
    env = soft_env(Fixed(0.7), links, horizon=400, on_executed=seen.append)
    env.reset(seed=0)
    snrs = []
    for _ in range(400):
        snrs.append(env.state.channel.snr_db)
        env.advance(RankVector((1, 1, 1)))
    counts = [snrs.count(snr_db) for snr_db in (-5.0, 0.0, 5.0, 10.0, 15.0)]
    assert sum(counts) == 400
    assert min(counts) > 45  # 80 each on average, standard deviation 8
    for snr_db, executed in zip(snrs, seen, strict=True):  # what is paid is what was seen
        rate = 1e3 * math.log2(1 + 10 ** (snr_db / 10))
        assert executed.eta == pytest.approx(3 * 1024 / (rate * 0.5))
