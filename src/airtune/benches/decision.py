"""One decision, PPO's latent and 50 DDIM steps over 144 sites, against the same network in diffusers' scheduler loop.

Weights are random: time does not depend on them. Both sides start from the same noise, and their results are compared
before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

from airtune.benches.result import Measured, Ratio
from airtune.benches.timing import interleaved, median
from airtune.errors import ModelError
from airtune.methods.airllm.policy.coarse import CoarsePolicy
from airtune.methods.airllm.policy.denoiser import Denoiser, ResidualMLP
from airtune.methods.airllm.policy.diffusion import Schedule
from airtune.methods.airllm.policy.fast_sampling import fast_sample
from airtune.records import Progress

SITES, LATENT, WIDTH, BLOCKS = 144, 30, 256, 3
"""OPT-1.3B's 24 layers of 6 projections; one latent value per layer and per kind of projection."""
TRAIN_STEPS, SAMPLE_STEPS, MANY = 1000, 50, 256
GUIDANCE = 1.5
FASTER, DECISIONS = 2.0, 20.0
TOLERANCE = 1e-5


def bench(repeats: int, progress: Progress) -> Measured:
    """Median time of a decision, alone and 256 at once, guidance off and on."""
    draw = torch.Generator().manual_seed(0)
    state_size = 4 + SITES
    denoiser = Denoiser(
        ResidualMLP(SITES, state_size + LATENT, width=WIDTH, blocks=BLOCKS, generator=draw), generator=draw
    )
    coarse = CoarsePolicy(
        DummyVecEnv([lambda: _Sized(state_size, LATENT)]),
        steps=2,
        width=WIDTH,
        learning_rate=1e-4,
        epochs=1,
        clip=0.2,
        gamma=0.95,
        gae_lambda=0.95,
        entropy_weight=0.01,
        seed=0,
    )
    schedule = Schedule("scaled_linear", TRAIN_STEPS)
    theirs = _diffusers_loop(denoiser)

    def ours(start: Tensor, condition: Tensor, guidance: float) -> Tensor:
        return fast_sample(denoiser, start, condition, schedule, SAMPLE_STEPS, target="sample", guidance=guidance)

    def decide(sampler: Callable[[Tensor, Tensor, float], Tensor], batch: int, guidance: float) -> Callable[[], Tensor]:
        states = np.random.default_rng(0).uniform(-1, 1, (batch, state_size)).astype(np.float32)
        start = torch.randn(batch, SITES, generator=torch.Generator().manual_seed(1))

        def decision() -> Tensor:
            condition = torch.from_numpy(np.concatenate([states, coarse.act(states)], axis=1))
            return sampler(start, condition, guidance)

        return decision

    rows: list[Mapping[str, float | str]] = []
    ratios: list[Ratio] = []
    with progress.stage("Timing decisions", total=2) as stage:
        for guidance in (1.0, GUIDANCE):
            label = f"guidance {'off' if guidance == 1 else guidance}"
            rivals = {
                "diffusers loop": decide(theirs, 1, guidance),
                "airtune": decide(ours, 1, guidance),
                f"airtune, {MANY} at once": decide(ours, MANY, guidance),
            }
            gap = float((rivals["diffusers loop"]() - rivals["airtune"]()).abs().max())
            if not gap <= TOLERANCE:
                raise ModelError(f"the two loops differ by {gap:.1e}; expected at most {TOLERANCE:g}; do not time them")
            times = {name: median(found) for name, found in interleaved(rivals, repeats).items()}
            one, mine, many = times.values()
            for name, seconds in times.items():
                count = MANY if name.endswith("once") else 1
                rows.append({"decision": name, "": label, "ms": 1e3 * seconds, "decisions per s": count / seconds})
            ratios.append(Ratio(f"decision against the diffusers loop, {label}, batch 1", one / mine, FASTER))
            ratios.append(
                Ratio(f"decisions per s, batch {MANY} against its batch 1, {label}", MANY * one / many, DECISIONS)
            )
            stage.advance(note=f"{one / mine:.2f}x")
    return Measured(rows, ratios)


def _diffusers_loop(denoiser: Denoiser) -> Callable[[Tensor, Tensor, float], Tensor]:
    from diffusers import DDIMScheduler

    scheduler: Any = DDIMScheduler(
        num_train_timesteps=TRAIN_STEPS,
        beta_start=1e-4,
        beta_end=2e-2,
        beta_schedule="scaled_linear",
        prediction_type="sample",
        clip_sample=True,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(SAMPLE_STEPS)

    @torch.no_grad()
    def loop(start: Tensor, condition: Tensor, guidance: float) -> Tensor:
        x = start
        for t in scheduler.timesteps:
            prediction = denoiser.guided(x, (t + 1).expand(len(x)), condition, guidance)
            x = scheduler.step(prediction, t, x).prev_sample
        return x

    return loop


class _Sized(gymnasium.Env[np.ndarray, np.ndarray]):
    """No environment but its sizes, which is all that PPO's networks are built from."""

    def __init__(self, state_size: int, action_size: int) -> None:
        self.observation_space = gymnasium.spaces.Box(-5.0, 5.0, (state_size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (action_size,), np.float32)
