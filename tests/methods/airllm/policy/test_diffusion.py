"""The samplers against diffusers' schedulers, and both directions of the process against closed forms."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from airtune.errors import ConfigError
from airtune.methods.airllm.policy.diffusion import (
    Kind,
    Schedule,
    Spacing,
    Target,
    add_noise,
    clean_and_noise,
    target_of,
    unit_noise,
    velocity,
)
from airtune.methods.airllm.policy.sampling import ddim_step, ddpm_posterior_mean, ddpm_step, sample, sample_ddpm

KINDS: dict[Kind, str] = {"linear": "linear", "cosine": "squaredcos_cap_v2", "scaled_linear": "scaled_linear"}
TARGETS: dict[Target, str] = {"epsilon": "epsilon", "v": "v_prediction", "sample": "sample"}
STEPS: list[tuple[Spacing, int, int]] = [
    ("trailing", 1000, 50),
    ("trailing", 600, 30),
    ("trailing", 100, 100),
    ("leading", 1000, 50),
    ("leading", 1000, 30),
    ("leading", 800, 100),
]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reference(schedule: Schedule, sample_steps: int, target: Target, *, clip: bool = False) -> DDIMScheduler:
    scheduler = DDIMScheduler(
        num_train_timesteps=schedule.train_steps,
        beta_start=1e-4,
        beta_end=2e-2,
        beta_schedule=KINDS[schedule.kind],
        prediction_type=TARGETS[target],
        clip_sample=clip,
        timestep_spacing=schedule.spacing,
    )
    scheduler.set_timesteps(sample_steps)
    return scheduler


def toy_prediction(x: Tensor, tau: Tensor) -> Tensor:
    """Some smooth function of x and tau, with values within -1..1, standing in for a network."""
    return torch.sin(1.7 * x + tau.unsqueeze(1) / 90 + torch.arange(x.shape[1]))


def reference_sample(
    scheduler: DDIMScheduler, start: Tensor, eta: float, fresh: torch.Generator, *, recompute: bool = False
) -> Tensor:
    x = start
    for t in scheduler.timesteps:
        prediction = toy_prediction(x, torch.full((len(x),), int(t) + 1))
        last = t == scheduler.timesteps[-1]
        noise = torch.zeros_like(x) if eta == 0 or last else unit_noise(x, fresh)
        x = scheduler.step(
            prediction, t, x, eta=eta, variance_noise=noise, use_clipped_model_output=recompute
        ).prev_sample
    return x


def relative_gap(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, over the largest value where that exceeds 1."""
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1))


@pytest.mark.parametrize("train_steps", [10, 600, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_noise_levels_equal_diffusers_and_start_at_the_clean_end(kind: Kind, train_steps: int):
    schedule = Schedule(kind, train_steps)
    scheduler = reference(schedule, 10, "epsilon")
    torch.testing.assert_close(schedule.betas[1:], scheduler.betas, rtol=0, atol=1e-7)
    torch.testing.assert_close(schedule.alphas_bar[1:], scheduler.alphas_cumprod, rtol=0, atol=1e-7)
    assert schedule.alphas_bar[0] == 1
    assert schedule.betas[0] == 0
    assert (schedule.alphas_bar.diff() < 0).all()


def test_linear_schedule_by_hand():
    assert Schedule("linear", 3).betas.tolist() == pytest.approx([0, 0.0001, 0.01005, 0.02])
    assert float(Schedule("linear", 3).alphas_bar[3]) == pytest.approx(0.9999 * 0.98995 * 0.98)
    assert float(Schedule("scaled_linear", 3).betas[2]) == pytest.approx(((0.01 + 0.02**0.5) / 2) ** 2)


@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize("train_steps", [600, 800, 1000])
@pytest.mark.parametrize("sample_steps", [1, 7, 10, 30, 50, 100, 333, 600])
def test_sub_sequence_equals_diffusers_time_steps(spacing: Spacing, train_steps: int, sample_steps: int):
    schedule = Schedule("linear", train_steps, spacing)
    taus = schedule.sub_sequence(sample_steps)
    theirs = reference(schedule, sample_steps, "epsilon").timesteps.tolist()
    assert [tau - 1 for tau in taus] == theirs[:sample_steps]
    assert theirs[sample_steps:] in ([], [-1])  # float steps of 600 / 7 leave diffusers one visit to -1 too many
    assert all(now > previous for now, previous in pairwise((*taus, 0)))


def test_sub_sequence_by_hand():
    assert Schedule("linear", 10).sub_sequence(3) == (10, 7, 3)
    assert Schedule("linear", 10, "leading").sub_sequence(3) == (7, 4, 1)
    assert Schedule("linear", 4).sub_sequence(4) == (4, 3, 2, 1)


@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("spacing", "train_steps", "sample_steps"), STEPS)
def test_every_step_and_the_trajectory_equal_diffusers(
    spacing: Spacing, train_steps: int, sample_steps: int, kind: Kind, target: Target, eta: float
):
    schedule = Schedule(kind, train_steps, spacing)
    scheduler = reference(schedule, sample_steps, target)
    start = unit_noise(torch.empty(3, 5), generator(1))
    fresh = generator(2)
    x = start
    for tau, previous in pairwise((*schedule.sub_sequence(sample_steps), 0)):
        prediction, noise = toy_prediction(x, torch.full((3,), tau)), unit_noise(x, fresh)
        theirs = scheduler.step(prediction, tau - 1, x, eta=eta, variance_noise=noise).prev_sample
        sigma = schedule.sigma(tau, previous, eta)
        x = ddim_step(x, prediction, schedule, tau, previous, target=target, sigma=sigma, noise=noise)
        assert relative_gap(x, theirs) < 1e-6
    ours = sample(
        toy_prediction,
        start,
        schedule,
        sample_steps,
        target=target,
        eta=eta,
        generator=generator(3),
        clip_clean=False,
    )
    assert relative_gap(ours, reference_sample(scheduler, start, eta, generator(3))) < 1e-6


@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", KINDS)
def test_clamped_trajectories_equal_diffusers(kind: Kind, target: Target, eta: float):
    schedule = Schedule(kind, 1000)
    start = unit_noise(torch.empty(4, 36), generator(4))
    options = {"target": target, "eta": eta, "generator": generator(5), "clip_clean": True}
    ours = sample(toy_prediction, start, schedule, 50, **options)
    theirs = reference_sample(reference(schedule, 50, target, clip=True), start, eta, generator(5))
    assert relative_gap(ours, theirs) < 1e-6


def test_clamping_keeps_the_predicted_noise_as_diffusers_does_by_default():
    schedule = Schedule("linear", 100)
    start = 2 * unit_noise(torch.empty(4, 6), generator(6))
    scheduler = reference(schedule, 10, "epsilon", clip=True)
    ours = sample(toy_prediction, start, schedule, 10, clip_clean=True)
    assert relative_gap(ours, reference_sample(scheduler, start, 0, generator(0))) < 1e-6
    assert relative_gap(ours, reference_sample(scheduler, start, 0, generator(0), recompute=True)) > 1e-2
    assert ours.abs().max() <= 1
    assert sample(toy_prediction, start, schedule, 10, clip_clean=False).abs().max() > 1


def test_previous_step_is_looked_up_where_steps_are_uneven():
    schedule = Schedule("scaled_linear", 800)
    x, noise = unit_noise(torch.empty(2, 3), generator(7)), unit_noise(torch.empty(2, 3), generator(8))
    gaps = set()
    for tau, previous in pairwise((*schedule.sub_sequence(30), 0)):
        gap = tau - previous
        scheduler = reference(schedule, 800 // gap, "v")  # the reference steps back by T // T_diff, here the true gap
        assert 800 // (800 // gap) == gap
        theirs = scheduler.step(x, tau - 1, x, eta=0.5, variance_noise=noise).prev_sample
        sigma = schedule.sigma(tau, previous, 0.5)
        ours = ddim_step(x, x, schedule, tau, previous, target="v", sigma=sigma, noise=noise)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
        gaps.add(gap)
    assert gaps == {26, 27}


def test_ddpm_mean_of_eq_16_is_a_ddim_step_at_eta_1_and_not_the_clean_estimate():
    schedule = Schedule("linear", 1000)
    x, noise = torch.tensor([[0.3, -1.2]]), torch.tensor([[0.5, 0.1]])
    for tau in (2, 100, 1000):
        sigma = schedule.sigma(tau, tau - 1, 1.0)
        step = ddim_step(x, noise, schedule, tau, tau - 1, sigma=sigma, noise=torch.zeros_like(x))
        mean = ddpm_posterior_mean(x, noise, schedule, tau)
        torch.testing.assert_close(mean, step, rtol=1e-5, atol=1e-5)
        clean, _ = clean_and_noise(x, noise, float(schedule.alphas_bar[tau]), "epsilon")
        before, now, beta = (float(v) for v in (*schedule.alphas_bar[tau - 1 : tau + 1], schedule.betas[tau]))
        by_ho = (before**0.5 * beta * clean + (1 - beta) ** 0.5 * (1 - before) * x) / (1 - now)  # Ho et al., Eq. 7
        torch.testing.assert_close(mean, by_ho, rtol=1e-3, atol=1e-3)
        assert (mean - clean).abs().max() > 1e-3


def ddpm_reference(schedule: Schedule, target: Target, *, clip: bool) -> DDPMScheduler:
    return DDPMScheduler(
        num_train_timesteps=schedule.train_steps,
        beta_start=1e-4,
        beta_end=2e-2,
        beta_schedule=KINDS[schedule.kind],
        prediction_type=TARGETS[target],
        variance_type="fixed_small",
        clip_sample=clip,
    )


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("kind", "train_steps"), [("linear", 600), ("cosine", 800), ("scaled_linear", 1000)])
def test_ancestral_steps_equal_diffusers(kind: Kind, train_steps: int, target: Target, clip: bool):
    """Both draw fresh noise of one shape in one order from equal generators; diffusers draws none for its last step."""
    schedule = Schedule(kind, train_steps)
    scheduler = ddpm_reference(schedule, target, clip=clip)
    x = unit_noise(torch.empty(3, 5), generator(20))
    for tau in (train_steps, train_steps // 2, 17, 2, 1):
        prediction = toy_prediction(x, torch.full((3,), tau))
        noise = unit_noise(x, generator(tau))
        ours = ddpm_step(x, prediction, schedule, tau, target=target, noise=noise, clip_clean=clip)
        theirs = scheduler.step(prediction, tau - 1, x, generator=generator(tau)).prev_sample
        assert relative_gap(ours, theirs) < 1e-5
        x = theirs


def test_an_ancestral_trajectory_equals_diffusers():
    schedule, start = Schedule("scaled_linear", 600), unit_noise(torch.empty(4, 36), generator(21))
    scheduler, fresh = ddpm_reference(schedule, "epsilon", clip=True), generator(22)
    scheduler.set_timesteps(600)
    x = start
    for t in scheduler.timesteps:
        prediction = toy_prediction(x, torch.full((4,), int(t) + 1))
        x = scheduler.step(prediction, t, x, generator=fresh).prev_sample
    ours = sample_ddpm(toy_prediction, start, schedule, generator=generator(22))
    assert relative_gap(ours, x) < 1e-4  # 600 steps of float32
    assert relative_gap(ours, sample_ddpm(toy_prediction, start, schedule, generator=generator(23))) > 1e-2


def test_the_mean_of_an_ancestral_step_is_mu_of_eq_16_where_nothing_is_clamped():
    schedule = Schedule("linear", 1000)
    x, noise = torch.tensor([[0.3, -1.2]]), torch.tensor([[0.5, 0.1]])
    for tau in (1, 2, 100, 1000):
        step = ddpm_step(x, noise, schedule, tau, noise=torch.zeros_like(x))
        torch.testing.assert_close(step, ddpm_posterior_mean(x, noise, schedule, tau), rtol=1e-3, atol=1e-3)


def test_ancestral_sampling_recovers_a_gaussian_target():
    """10,000 draws: standard errors 0.005 on means and 1.4 % on variances."""
    schedule = Schedule("linear", 1000)
    mean, deviation = torch.tensor([0.5, -0.3]), torch.tensor([0.2, 0.5])
    start = unit_noise(torch.empty(10_000, 2), generator(24))
    denoise = exact_posterior(schedule, mean, deviation)
    drawn = sample_ddpm(denoise, start, schedule, generator=generator(25), clip_clean=False)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.02)
    np.testing.assert_allclose(drawn.var(0), deviation**2, rtol=0.08)


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_reads_back_as_clean_and_noise(target: Target):
    schedule = Schedule("cosine", 100)
    clean, noise = unit_noise(torch.empty(6, 4), generator(9)), unit_noise(torch.empty(6, 4), generator(10))
    alpha_bar = schedule.alpha_bar(torch.tensor([1, 20, 40, 60, 80, 90]))
    assert alpha_bar.shape == (6, 1)
    x = add_noise(clean, noise, alpha_bar)
    found = clean_and_noise(x, target_of(clean, noise, alpha_bar, target), alpha_bar, target)
    torch.testing.assert_close(found, (clean, noise), rtol=0, atol=1e-4)
    for other in TARGETS:
        turned = target_of(*found, alpha_bar, other)
        torch.testing.assert_close(turned, target_of(clean, noise, alpha_bar, other), rtol=0, atol=1e-4)


def test_forward_process_equals_diffusers_and_hand():
    schedule = Schedule("scaled_linear", 1000)
    scheduler = reference(schedule, 10, "epsilon")
    clean, noise = unit_noise(torch.empty(3, 4), generator(11)), unit_noise(torch.empty(3, 4), generator(12))
    tau = torch.tensor([1, 500, 1000])
    torch.testing.assert_close(
        add_noise(clean, noise, schedule.alpha_bar(tau)), scheduler.add_noise(clean, noise, tau - 1), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(
        velocity(clean, noise, schedule.alpha_bar(tau)),
        scheduler.get_velocity(clean, noise, tau - 1),
        rtol=0,
        atol=1e-6,
    )
    assert float(add_noise(torch.tensor(1.0), torch.tensor(2.0), 0.64)) == pytest.approx(0.8 + 0.6 * 2)
    assert float(velocity(torch.tensor(1.0), torch.tensor(2.0), 0.64)) == pytest.approx(0.8 * 2 - 0.6)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_added_step_by_step_has_the_closed_form_mean_and_variance(kind: Kind):
    """Eq. 13 walked 60 times gives Eq. 14; 40,000 draws have standard errors of 0.005 (mean) and 0.7 % (variance)."""
    schedule, fresh = Schedule(kind, 100), generator(13)
    x = torch.full((40_000,), 0.7)
    for beta in schedule.betas[1:61].tolist():
        x = (1 - beta) ** 0.5 * x + beta**0.5 * unit_noise(x, fresh)
    level = float(schedule.alphas_bar[60])
    assert float(x.mean()) == pytest.approx(level**0.5 * 0.7, abs=0.02)
    assert float(x.var()) == pytest.approx(1 - level, rel=0.03)
    direct = add_noise(torch.full((40_000,), 0.7), unit_noise(x, fresh), level)
    assert float(direct.mean()) == pytest.approx(level**0.5 * 0.7, abs=0.02)
    assert float(direct.var()) == pytest.approx(1 - level, rel=0.03)


def exact_posterior(schedule: Schedule, mean: Tensor, deviation: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """E[eps | x_tau] for x_0 ~ N(mean, deviation^2): x_tau is N(sqrt(ab) mean, ab deviation^2 + 1 - ab)."""

    def denoise(x: Tensor, tau: Tensor) -> Tensor:
        level = schedule.alpha_bar(tau)
        return (1 - level) ** 0.5 * (x - level**0.5 * mean) / (level * deviation**2 + 1 - level)

    return denoise


@pytest.mark.parametrize("kind", KINDS)
def test_deterministic_sampling_carries_unit_noise_to_a_gaussian_target(kind: Kind):
    """The map is affine, so its values at 0 and 1 are the mean and the deviation of what comes out."""
    schedule = Schedule(kind, 1000)
    mean, deviation = torch.tensor([0.5, -0.3, 0.0]), torch.tensor([0.2, 0.5, 1.0])
    start = torch.stack([torch.zeros(3), torch.ones(3)]).double()
    at_0, at_1 = sample(exact_posterior(schedule, mean, deviation), start, schedule, 1000, clip_clean=False)
    np.testing.assert_allclose(at_0, mean, atol=0.02)
    np.testing.assert_allclose(at_1 - at_0, deviation, rtol=0.02)


def test_stochastic_sampling_recovers_a_gaussian_target():
    """20,000 draws at eta 1: standard errors 0.004 on means and 1 % on variances."""
    schedule = Schedule("linear", 1000)
    mean, deviation = torch.tensor([0.5, -0.3]), torch.tensor([0.2, 0.5])
    start = unit_noise(torch.empty(20_000, 2), generator(14))
    denoise = exact_posterior(schedule, mean, deviation)
    drawn = sample(denoise, start, schedule, 1000, eta=1.0, generator=generator(15), clip_clean=False)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.02)
    np.testing.assert_allclose(drawn.var(0), deviation**2, rtol=0.06)


@pytest.mark.parametrize(("train_steps", "steps"), [(600, 3), (1000, 2), (1000, 3)])
def test_all_of_ddpms_noise_is_allowed_where_alpha_bar_is_next_to_nothing(train_steps, steps):
    schedule = Schedule("cosine", train_steps)  # rounding put sigma^2 above 1 - alpha_bar here
    drawn = sample(lambda x, tau: 0 * x, torch.ones(4, 2), schedule, steps, eta=1.0, generator=generator(1))
    assert torch.isfinite(drawn).all()


def test_seeds_reproduce_and_differ():
    schedule, start = Schedule("linear", 100), unit_noise(torch.empty(2, 3), generator(18))
    first, again, other = (
        sample(toy_prediction, start, schedule, 10, eta=1.0, generator=generator(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_gradients_flow_from_the_sample_to_the_denoiser():
    scale = torch.tensor(0.1, requires_grad=True)
    schedule = Schedule("linear", 100)
    drawn = sample(lambda x, tau: scale * x, torch.ones(1, 2), schedule, 4, clip_clean=False)
    drawn.sum().backward()
    assert scale.grad is not None
    assert scale.grad != 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Schedule("linear", 100).sub_sequence(101), "sample_steps is 101; choose 1 to 100"),
        (lambda: Schedule("linear", 100).sub_sequence(0), "sample_steps is 0"),
        (lambda: Schedule("linear", 0), "train_steps is 0"),
        (lambda: Schedule("quadratic"), "schedule kind is 'quadratic'"),  # type: ignore[arg-type]
        (lambda: Schedule("linear", 10, "middle"), "spacing is 'middle'"),  # type: ignore[arg-type]
        (lambda: target_of(torch.ones(1), torch.ones(1), 0.5, "noise"), "prediction target is 'noise'"),  # type: ignore[arg-type]
        (lambda: step(10, 10), "step 10 -> 10"),
        (lambda: step(101, 0), "step 101 -> 0"),
        (lambda: step(10, 5, sigma=0.9), "sigma at step 10 is 0.9"),
        (lambda: step(10, 5, sigma=-0.01), "sigma at step 10 is -0.01"),
        (lambda: step(10, 5, sigma=float("nan")), "sigma at step 10 is nan"),
        (lambda: step(10, 5, sigma=0.01), "no noise came"),
        (lambda: walk(eta=0.5), "no noise came"),
        (lambda: ancestral(0), "step 0 of ancestral sampling; expected 1 to 100"),
        (lambda: ancestral(101), "step 101 of ancestral"),
        (lambda: ancestral(2), "ancestral step 2 adds noise but none came"),
        (lambda: walk(eta=40.0), "sigma at step 100"),
    ],
)
def test_what_cannot_be_sampled_is_refused(build: Callable[[], object], message: str):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        build()


def step(tau: int, previous: int, sigma: float = 0.0) -> Tensor:
    return ddim_step(torch.ones(1, 2), torch.ones(1, 2), Schedule("linear", 100), tau, previous, sigma=sigma)


def ancestral(tau: int) -> Tensor:
    return ddpm_step(torch.ones(1, 2), torch.ones(1, 2), Schedule("linear", 100), tau)


def walk(**options: object) -> Tensor:
    return sample(toy_prediction, torch.ones(1, 2), Schedule("linear", 100), 4, **options)  # type: ignore[arg-type]
