"""Algorithm 1: PPO and the DDIM refiner trained by turns on the allocation environment.

Knows the environment and its two learners; not what stands behind the environment's losses.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from airtune.adapters import RankVector
from airtune.methods.airllm.allocation import AllocationEnv
from airtune.methods.airllm.allocators import AirLLM
from airtune.methods.airllm.coarse import CoarseLatent, CoarsePolicy
from airtune.methods.airllm.config import PolicyConfig
from airtune.methods.airllm.denoiser import Denoiser, ResidualMLP
from airtune.methods.airllm.diffusion import Schedule
from airtune.methods.airllm.improve import Improver
from airtune.methods.airllm.refine import RefinedActions, Refiner
from airtune.records import generator, seed_for

GAMMA, GAE_LAMBDA, ENTROPY_WEIGHT = 0.95, 0.95, 0.01
BATCH = 64


def new_refiner(latent: CoarseLatent, state_size: int, config: PolicyConfig, seed: int) -> Refiner:
    """A refiner at its start, drawn from `seed`."""
    draw = torch.Generator().manual_seed(seed_for(seed, "denoiser"))
    backbone = ResidualMLP(
        len(latent.layer_of), state_size + latent.size, width=config.width, blocks=config.blocks, generator=draw
    )
    return Refiner(
        Denoiser(backbone, generator=draw),
        latent,
        Schedule(config.schedule, config.train_steps),
        sample_steps=config.sample_steps,
        target=config.prediction,
        eta=config.eta,
        guidance=config.guidance,
        dropped=config.condition_dropout,
        learning_rate=config.ddim_learning_rate,
        generator=torch.Generator().manual_seed(seed_for(seed, "refiner")),
    )


def train_policy(
    env: AllocationEnv,
    latent: CoarseLatent,
    config: PolicyConfig,
    expert: Callable[[int], RankVector],
    *,
    seed: int,
    on_round: Callable[[int, float, float], None] = lambda env_steps, reward, loss: None,
) -> AirLLM:
    """Train the hierarchical policy (Algorithm 1).

    Args:
        expert: As in `Improver`.
        on_round: Hears environment steps so far, the round's mean reward, and the refiner's loss.
    """
    state_size = int(env.observation_space.shape[0])  # type: ignore[index]
    refiner = new_refiner(latent, state_size, config, seed)
    with _global_generators_kept():  # stable-baselines3 seeds and draws from them
        rng = generator(seed, "replay")
        refiner.warm_start(state_size, updates=config.warm_start_updates, batch=256, rng=rng)
        improver = Improver(env.caps, [latent.layer_of, latent.kind_of], expert, proposals=config.proposals)
        refined = RefinedActions(env, refiner, improver)
        coarse = CoarsePolicy(
            refined,
            steps=config.env_steps,
            width=config.ppo_width,
            learning_rate=config.ppo_learning_rate,
            epochs=config.ppo_epochs,
            clip=config.clip,
            gamma=GAMMA,
            gae_lambda=GAE_LAMBDA,
            entropy_weight=ENTROPY_WEIGHT,
            seed=seed_for(seed, "ppo") % 2**31,
        )
        for round in range(config.rounds):
            coarse.learn()  # lines 3-16: act with the refiner frozen, update PPO
            latest = refined.replay[-config.env_steps :]
            loss = refiner.learn(  # lines 17-21: update the refiner, PPO frozen
                refined.replay, kappa=config.kappa, updates=config.updates, batch=BATCH, rng=rng
            )
            reward = float(np.mean([transition.reward for transition in latest]))
            on_round((round + 1) * config.env_steps, reward, loss)
    return AirLLM(env.caps, coarse, refiner, seed)


@contextmanager
def _global_generators_kept() -> Iterator[None]:
    """Give Python's, NumPy's and torch's global generators back as they were."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - kept, not used
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
