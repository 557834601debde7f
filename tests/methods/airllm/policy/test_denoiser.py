"""The denoiser, its guidance and its objective: shapes and mixing by hand, and small problems that it must learn."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import Tensor

from airtune.errors import ConfigError
from airtune.methods.airllm.policy.denoiser import Denoiser, ResidualMLP, time_embedding
from airtune.methods.airllm.policy.diffusion import Schedule, Target, unit_noise
from airtune.methods.airllm.policy.objective import Batch, hybrid_loss
from airtune.methods.airllm.policy.sampling import sample


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(sites: int = 4, condition_size: int = 3, seed: int = 0, width: int = 32) -> Denoiser:
    drawn = generator(seed)
    backbone = ResidualMLP(sites, condition_size, width=width, blocks=2, time_size=16, generator=drawn)
    return Denoiser(backbone, generator=drawn)


def rows(batch: int = 5, sites: int = 4, condition_size: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    drawn = generator(1)
    return (
        torch.randn(batch, sites, generator=drawn),
        torch.arange(1, batch + 1),
        torch.randn(batch, condition_size, generator=drawn),
    )


def test_every_input_reaches_the_prediction():
    denoiser, (x, tau, condition) = small(), rows()
    base = denoiser(x, tau, condition)
    assert base.shape == (5, 4)
    assert base.dtype == torch.float32
    for changed in ((x + 1, tau, condition), (x, tau + 7, condition), (x, tau, condition + 1), (x, tau, None)):
        assert ((denoiser(*changed) - base).abs().max(dim=1).values > 1e-4).all()


@torch.no_grad()
def test_blocks_add_to_what_enters_them():
    """Blocks whose last layer is zero add nothing: what is left is the layer in and the layer out."""
    denoiser, (x, tau, condition) = small(), rows()
    with_blocks = denoiser(x, tau, condition)
    for block in denoiser.backbone.blocks:
        block[3].weight.zero_()
        block[3].bias.zero_()
    entered = denoiser.backbone.enter(torch.cat([x, time_embedding(tau, 16), condition], dim=1))
    torch.testing.assert_close(denoiser(x, tau, condition), denoiser.backbone.leave(entered), rtol=0, atol=1e-6)
    assert (denoiser(x, tau, condition) - with_blocks).abs().max() > 1e-2


def test_rows_of_a_batch_do_not_touch_each_other():
    denoiser, (x, tau, condition) = small(), rows()
    alone = torch.cat([denoiser(x[i : i + 1], tau[i : i + 1], condition[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(denoiser(x, tau, condition), alone, rtol=0, atol=1e-6)


def test_the_seed_alone_decides_the_weights():
    before = torch.random.get_rng_state()
    first, again, other = small(seed=3).state_dict(), small(seed=3).state_dict(), small(seed=4).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["null"], other["null"])
    assert not torch.equal(first["backbone.enter.weight"], other["backbone.enter.weight"])


def test_time_embedding_by_hand():
    """Four frequencies from 1 to 1/10000, equally spaced in the logarithm: 1, 10^(-4/3), 10^(-8/3), 10^-4."""
    found = time_embedding(torch.tensor([0, 30]), 8)
    angles = [30 * 10 ** (-4 * i / 3) for i in range(4)]
    assert found[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert found[1].tolist() == pytest.approx([math.sin(a) for a in angles] + [math.cos(a) for a in angles], abs=1e-5)


def test_guidance_mixes_the_two_predictions():
    denoiser, (x, tau, condition) = small(), rows()
    conditional, unconditional = denoiser(x, tau, condition), denoiser(x, tau, None)
    assert torch.equal(denoiser.guided(x, tau, condition, 1.0), conditional)
    torch.testing.assert_close(denoiser.guided(x, tau, condition, 0.0), unconditional, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        denoiser.guided(x, tau, condition, 1.5), 1.5 * conditional - 0.5 * unconditional, rtol=0, atol=1e-5
    )
    assert (conditional - unconditional).abs().max() > 1e-2


def test_guidance_runs_both_rows_in_one_call():
    denoiser, (x, tau, condition) = small(), rows()
    sizes: list[int] = []
    denoiser.backbone.register_forward_hook(lambda module, args, out: sizes.append(len(args[0])))
    denoiser.guided(x, tau, condition, 2.0)
    denoiser.guided(x, tau, condition, 1.0)
    assert sizes == [10, 5]


def test_dropped_conditions_become_the_null_token_and_train_it():
    denoiser, condition = small(), torch.ones(20_000, 3)
    replaced = (denoiser.drop(condition, 0.1, generator(5)) == denoiser.null).all(dim=1)
    assert float(replaced.float().mean()) == pytest.approx(0.1, abs=0.01)  # standard error 0.002
    assert torch.equal(denoiser.drop(condition, 0.0, generator(5)), condition)
    everything = denoiser.drop(condition[:4], 1.0, generator(5))
    assert torch.equal(everything, denoiser.null.expand(4, -1))
    everything.sum().backward()
    assert denoiser.null.grad is not None
    assert denoiser.null.grad.tolist() == [4, 4, 4]


def trained(
    clean: Tensor,
    condition: Tensor,
    advantage: Tensor,
    *,
    kappa: float = 0.0,
    target: Target = "epsilon",
    steps: int = 500,
) -> Denoiser:
    """A small denoiser after some hundred steps on random batches of 128."""
    denoiser, fresh = small(clean.shape[1], condition.shape[1], seed=11, width=64), generator(12)
    optimiser = torch.optim.Adam(denoiser.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        chosen = torch.randint(len(clean), (128,), generator=fresh)
        x, c = clean[chosen], condition[chosen]
        batch = Batch(c, c, x, x, advantage[chosen])
        loss = hybrid_loss(
            denoiser,
            batch,
            SCHEDULE,
            objective="advantage",
            kappa=kappa,
            generator=fresh,
            target=target,
            dropped=0.2,
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return denoiser


SCHEDULE = Schedule("cosine", 100)


@functools.cache
def two_conditions(target: Target) -> Denoiser:
    """x_0 ~ N(0.6 c, 0.1^2) at one site and N(-0.4 c, 0.1^2) at another, with c = -1 or 1."""
    fresh = generator(10)
    condition = torch.where(torch.rand(4000, 1, generator=fresh) < 0.5, -1.0, 1.0)
    clean = condition * torch.tensor([0.6, -0.4]) + 0.1 * torch.randn(4000, 2, generator=fresh)
    return trained(clean, condition, torch.zeros(4000), target=target)


@torch.no_grad()
def drawn_from(
    denoiser: Denoiser, condition: Tensor, weight: float, *, sites: int, target: Target = "epsilon"
) -> Tensor:
    start = unit_noise(torch.empty(len(condition), sites), generator(13))
    return sample(lambda x, tau: denoiser.guided(x, tau, condition, weight), start, SCHEDULE, 20, target=target)


@pytest.mark.parametrize("target", ["epsilon", "v", "sample"])
def test_the_denoiser_learns_a_mean_for_each_condition(target: Target):
    """1000 draws a condition; a network that ignored the condition would miss both means by 0.6 and 0.4."""
    for c in (-1.0, 1.0):
        drawn = drawn_from(two_conditions(target), torch.full((1000, 1), c), 1.0, sites=2, target=target)
        assert drawn.mean(0).tolist() == pytest.approx([0.6 * c, -0.4 * c], abs=0.08)
        assert (drawn.std(0) < 0.25).all()
        assert target == "sample" or (drawn.std(0) > 0.03).all()  # x0 prediction learns the spread last


def test_without_its_condition_the_denoiser_draws_both_modes():
    """Half the draws near each mean: about 0 on average, and a deviation of sqrt(0.6^2 + 0.1^2) = 0.61."""
    drawn = drawn_from(two_conditions("epsilon"), torch.ones(2000, 1), 0.0, sites=2)
    assert drawn[:, 0].mean().item() == pytest.approx(0, abs=0.15)
    assert drawn[:, 0].std().item() == pytest.approx(0.61, abs=0.08)
    assert (drawn[:, 0].abs() > 0.3).float().mean() > 0.9
    assert (drawn[:, 0] * drawn[:, 1] < 0).float().mean() > 0.9  # the sites go together, as in the data


@pytest.mark.parametrize(("kappa", "share"), [(0.0, 0.5), (1.0, math.e / (math.e + 1 / math.e))])
def test_the_reward_moves_mass_to_the_better_mode(kappa: float, share: float):
    """Two modes, +-0.5, equally frequent, rewards 1 and 0: z = +-1, so e^2 : 1 is 88 % of the weight at kappa 1."""
    fresh = generator(14)
    mode = torch.where(torch.arange(4000) % 2 == 0, 1.0, -1.0)
    clean = 0.5 * mode.unsqueeze(1) + 0.1 * torch.randn(4000, 1, generator=fresh)
    denoiser = trained(clean, torch.zeros(4000, 1), (mode > 0).float() - 0.5, kappa=kappa)
    drawn = drawn_from(denoiser, torch.zeros(2000, 1), 1.0, sites=1)
    assert float((drawn > 0).float().mean()) == pytest.approx(share, abs=0.12)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: small(sites=0), ConfigError, "sites of the denoiser is 0"),
        (lambda: ResidualMLP(2, 2, time_size=5, generator=generator(0)), ConfigError, "time_size of the denoiser is 5"),
        (lambda: small().drop(torch.ones(2, 3), 1.5, generator(0)), ConfigError, "dropped conditions is 1.5"),
    ],
)
def test_nonsense_is_refused(call, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()
