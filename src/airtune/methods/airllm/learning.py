"""The middle stages of a run: learn to predict losses from measured ones, train the policy on that, keep it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from airtune.errors import ConfigError
from airtune.links import Link
from airtune.methods.airllm.allocation import decision_budget
from airtune.methods.airllm.allocators import AirLLM
from airtune.methods.airllm.environment import AllocationEnv
from airtune.methods.airllm.packing import Packer
from airtune.methods.airllm.policy.freeze import saved_policy
from airtune.methods.airllm.policy.priors import CoarseLatent
from airtune.methods.airllm.policy.saved import POLICY, save_policy
from airtune.methods.airllm.policy.training import train_policy
from airtune.methods.airllm.search.acquisition import Acquisition, collect
from airtune.methods.airllm.search.archive import Archive
from airtune.methods.airllm.search.direction_gains import DirectionGains
from airtune.methods.airllm.search.greedy import Greedy
from airtune.methods.airllm.search.probes import probes
from airtune.methods.airllm.search.space import Space
from airtune.methods.airllm.search.surrogate import LossSurrogate, held_out
from airtune.methods.airllm.session import Session
from airtune.methods.airllm.trainee import Trainee
from airtune.records import generator


def learn_surrogate(
    session: Session, trainee: Trainee, packer: Packer, links: Sequence[Link]
) -> tuple[LossSurrogate, Acquisition, dict[str, float]]:
    """Measure allocations around the budgets that will be asked for, then where searches on the surrogate lead."""
    config, caps = session.config, trainee.adapter.caps
    budgets = [decision_budget(link, link.mean_state, config.link.deadline_s, config.link.late_share) for link in links]
    space, archive = (
        Space(caps, packer.air_bits, packer.direction_bits),
        Archive(trainee, packer.air_bits),
    )
    latent = CoarseLatent.of(trainee.adapter.sites)
    gains = DirectionGains(trainee.gains())
    surrogate = LossSurrogate(caps, [latent.layer_of, latent.kind_of], gains)
    acquisition = Acquisition(space, surrogate, archive, guess=gains.loss)
    count, shares = config.policy.measurements, [space.uniform(budget).total / caps.total for budget in budgets]
    drawn = probes(caps, shares, count, generator(config.seed, "probes"))
    with session.progress.stage("Measuring losses of allocations", total=count) as stage:
        collect(acquisition, drawn, budgets, count, lambda trial: stage.advance(note=f"loss {trial.loss:.3f}"))
    found = held_out(surrogate, archive.trials)
    quality = {
        "measurements": len(archive),
        "held_out_rmse": found.rmse,
        "held_out_r2": found.r2,
        "held_out_rank_correlation": found.rank_correlation,
        "held_out_coverage": found.coverage,
    }
    session.folder.metric("surrogate", **quality)
    return surrogate, acquisition, quality


def settle(session: Session, greedy: Greedy, links: Sequence[Link]) -> None:
    """Let greedy decide for every link before the policy learns: both then know the same measured losses.

    Where budgets follow the block seen (fading with `late_share` 0), greedy measures for those as they come.
    """
    deadline = session.config.link
    with session.progress.stage("Measuring what greedy would send", total=len(links)) as stage:
        for link in links:
            budget = decision_budget(link, link.mean_state, deadline.deadline_s, deadline.late_share)
            stage.advance(note=f"rank {greedy.settle(budget).total} at {link.snr_db:g} dB")


def learn_policy(
    session: Session,
    env: AllocationEnv,
    latent: CoarseLatent,
    greedy: Greedy,
    watch: Callable[[int, AirLLM], None] = lambda env_steps, policy: None,
) -> AirLLM:
    """Train PPO and the refiner by turns (Algorithm 1). After each round `watch` sees the policy as it stands."""
    config, folder = session.config, session.folder
    with session.progress.stage("Training the policy", total=config.policy.rounds) as stage:

        def on_round(env_steps: int, reward: float, loss: float, policy: AirLLM) -> None:
            watch(env_steps, policy)
            folder.metric("policy", env_steps=env_steps, reward_mean=reward, refiner_loss=loss)
            stage.advance(note=f"reward {reward:.3f}")

        return train_policy(env, latent, config.policy, greedy.propose, seed=config.seed, on_round=on_round)


def keep_policy(session: Session, policy: AirLLM, trainee: Trainee, packer: Packer, practice: Sequence[Link]) -> None:
    """Save the policy in the run folder, for `airtune decide` and `policy.trained`."""
    adapter = trainee.adapter
    try:
        saved = saved_policy(
            policy, session.config, packer, adapter.sites, adapter.caps, practice, trainee.parts.complexity
        )
    except ConfigError as error:
        session.progress.say(f"The policy is not kept: {error}.")
    else:
        save_policy(session.folder.path / POLICY, saved)
