"""Algorithm 1: PPO and the diffusion refiner trained by turns on the allocation environment, in every variant.

Knows the environment and its two learners; not what stands behind the environment's losses.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from airtune.adapters import RankVector
from airtune.errors import AirtuneError
from airtune.methods.airllm.allocators import AirLLM
from airtune.methods.airllm.environment import AllocationEnv
from airtune.methods.airllm.policy.coarse import CoarsePolicy
from airtune.methods.airllm.policy.critic import TwinCritics
from airtune.methods.airllm.policy.denoiser import Denoiser, ResidualMLP
from airtune.methods.airllm.policy.diffusion import Schedule
from airtune.methods.airllm.policy.improve import Improver
from airtune.methods.airllm.policy.priors import CoarseLatent, DiscreteHeads, NoPrior, Prior
from airtune.methods.airllm.policy.refine import Refiner
from airtune.methods.airllm.policy.rollouts import RefinedActions
from airtune.methods.airllm.policy.settings import PolicyConfig
from airtune.methods.airllm.policy.unet import UNet
from airtune.records import generator, seed_for

GAMMA, GAE_LAMBDA, ENTROPY_WEIGHT = 0.95, 0.95, 0.01
BATCH, WARM_START_BATCH = 64, 256


def name_of(config: PolicyConfig) -> str:
    """What a variant is called in a table: `airllm` the default, `ppo`, `ddim`, `airllm-ddpm-unet` and so on."""
    if config.refiner == "none":
        return "ppo" if config.prior == "latent" else "ppo-discrete"
    parts = {
        "discrete": config.prior == "discrete",
        "ddpm": config.refiner == "ddpm" and config.prior != "none",
        "unet": config.backbone == "unet",
    }
    head = config.refiner if config.prior == "none" else "airllm"
    return "-".join([head, *(part for part, holds in parts.items() if holds)])


def new_prior(config: PolicyConfig, latent: CoarseLatent, caps: RankVector) -> Prior:
    """What PPO decides in this variant."""
    if config.prior == "latent":
        return latent
    return DiscreteHeads(caps) if config.prior == "discrete" else NoPrior(len(caps))


def new_refiner(prior: Prior, sites: int, state_size: int, config: PolicyConfig, seed: int) -> Refiner:
    """A refiner at its start, drawn from `seed`."""
    draw = torch.Generator().manual_seed(seed_for(seed, "denoiser"))
    sizes = (sites, state_size + prior.size)
    backbone: torch.nn.Module
    if config.backbone == "unet":
        backbone = UNet(*sizes, width=config.width, generator=draw)
    else:
        backbone = ResidualMLP(*sizes, width=config.width, blocks=config.blocks, generator=draw)
    critics = None
    if config.objective == "critic":
        critic_draw = torch.Generator().manual_seed(seed_for(seed, "critics"))
        critics = TwinCritics(
            state_size, sites, width=config.width, learning_rate=config.ddim_learning_rate, generator=critic_draw
        )
    return Refiner(
        Denoiser(backbone, generator=draw),
        prior,
        sites,
        Schedule(config.schedule, config.train_steps),
        sampler="ddpm" if config.refiner == "ddpm" else "ddim",
        sample_steps=config.sample_steps,
        target=config.prediction,
        eta=config.eta,
        guidance=config.guidance,
        dropped=config.condition_dropout,
        learning_rate=config.ddim_learning_rate,
        generator=torch.Generator().manual_seed(seed_for(seed, "refiner")),
        critics=critics,
    )


@dataclass(frozen=True)
class TrainedPolicy:
    """A prior with PPO's networks, the refiner, or both."""

    prior: Prior
    coarse: CoarsePolicy | None
    refiner: Refiner | None

    def act(self, states: np.ndarray, noise: np.random.Generator) -> np.ndarray:
        """States ``(n, d_s)`` to normalised ranks ``(n, sites)`` in [-1, 1]; noise is the refiner's."""
        raw = np.zeros((len(states), 0)) if self.coarse is None else self.coarse.act(states)
        condition = self.prior.condition(raw)
        return self.prior.spread(condition) if self.refiner is None else self.refiner.refine(states, condition, noise)


def train_policy(
    env: AllocationEnv,
    latent: CoarseLatent,
    config: PolicyConfig,
    expert: Callable[[int], RankVector],
    *,
    seed: int,
    on_round: Callable[[int, float, float, AirLLM], None] = lambda env_steps, reward, loss, policy: None,
) -> AirLLM:
    """Train the policy (Algorithm 1), without the half that its variant leaves out.

    Args:
        env: Copied, `config.parallel` times at most, so that one batch of denoising serves several decisions.
        expert: As in `Improver`.
        on_round: Hears environment steps so far, the round's mean reward, the refiner's loss (0 without one), and the
            policy as it stands.

    Raises:
        AirtuneError: of its own kind, with the round, where a reward, a loss or a policy is no longer finite.
    """
    sites, state_size = len(env.caps), int(env.observation_space.shape[0])  # type: ignore[index]
    prior = new_prior(config, latent, env.caps)
    refiner = None if config.refiner == "none" else new_refiner(prior, sites, state_size, config, seed)
    groups = [latent.layer_of, latent.kind_of]
    improves = refiner is not None and config.objective == "improved"
    with global_generators_kept():  # stable-baselines3 seeds and draws from them
        rng = generator(seed, "replay")
        if refiner is not None:
            refiner.warm_start(state_size, updates=config.warm_start_updates, batch=WARM_START_BATCH, rng=rng)
        envs = RefinedActions(
            DummyVecEnv([partial(copy, env)] * math.gcd(config.parallel, config.env_steps)),
            prior,
            refiner.refine if refiner is not None else None,
            Improver(env.caps, groups, expert, proposals=config.proposals) if improves else None,
            rng=generator(seed, "rollouts"),
        )
        coarse = None if config.prior == "none" else new_ppo(envs, config, config.env_steps, seed)
        policy = AirLLM(env.caps, TrainedPolicy(prior, coarse, refiner), seed, name_of(config))
        if coarse is None:
            envs.seed(seed_for(seed, "ppo") % 2**31)
            envs.reset()
        for round in range(1, config.rounds + 1):
            with _named(round):
                if coarse is not None:
                    coarse.learn()  # lines 3-16: act with the refiner frozen, update PPO
                else:
                    envs.collect(config.env_steps)
                loss = 0.0
                if refiner is not None:
                    loss = refiner.learn(  # lines 17-21: update the refiner, PPO frozen
                        envs.stacked(coarse.act if coarse is not None else None),
                        objective=config.objective,
                        kappa=config.kappa,
                        gamma=GAMMA,
                        updates=config.updates,
                        batch=BATCH,
                        rng=rng,
                    )
            latest = envs.replay[-config.env_steps :]
            on_round(round * config.env_steps, float(np.mean([t.reward for t in latest])), loss, policy)
    return policy


def new_ppo(envs: RefinedActions, config: PolicyConfig, steps: int, seed: int) -> CoarsePolicy:
    """PPO at its start, with rollouts of so many environment steps; draws from the global generators."""
    return CoarsePolicy(
        envs,
        steps=steps,
        width=config.ppo_width,
        learning_rate=config.ppo_learning_rate,
        epochs=config.ppo_epochs,
        clip=config.clip,
        gamma=GAMMA,
        gae_lambda=GAE_LAMBDA,
        entropy_weight=ENTROPY_WEIGHT,
        seed=seed_for(seed, "ppo") % 2**31,
    )


@contextmanager
def _named(round: int) -> Iterator[None]:
    """Say in which round a refusal came."""
    try:
        yield
    except AirtuneError as error:
        raise type(error)(f"policy training, round {round}: {error}") from error


@contextmanager
def global_generators_kept() -> Iterator[None]:
    """Give Python's, NumPy's and torch's global generators back as they were."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - kept, not used
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
