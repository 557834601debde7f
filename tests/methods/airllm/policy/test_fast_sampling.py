"""The fast sampler against `sampling.sample` over the same network, which tests hold against diffusers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from airtune.errors import ConfigError
from airtune.methods.airllm.policy.denoiser import Denoiser, ResidualMLP
from airtune.methods.airllm.policy.diffusion import Schedule, Target
from airtune.methods.airllm.policy.fast_sampling import fast_sample, steps_of
from airtune.methods.airllm.policy.sampling import sample

SITES, CONDITION = 12, 7


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Mixer(nn.Module):
    """Some other backbone."""

    condition_size = CONDITION

    def forward(self, x: Tensor, tau: Tensor, condition: Tensor) -> Tensor:
        return torch.tanh(x.roll(1, dims=1) + tau.unsqueeze(1) / 300 + condition.sum(dim=1, keepdim=True))


def denoiser_of(kind: str) -> Denoiser:
    mlp = ResidualMLP(SITES, CONDITION, width=32, blocks=3, generator=draw(0))
    return Denoiser(mlp if kind == "mlp" else Mixer(), generator=draw(1))


@pytest.mark.parametrize("kind", ["mlp", "other"])
@pytest.mark.parametrize("batch", [1, 5, 40])
@pytest.mark.parametrize("guidance", [1.0, 1.5, 0.0])
@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("target", ["epsilon", "v", "sample"])
def test_equals_the_plain_sampler(kind: str, batch: int, guidance: float, eta: float, target: Target):
    denoiser, schedule = denoiser_of(kind), Schedule("scaled_linear", 600)
    start, condition = torch.randn(batch, SITES, generator=draw(2)), torch.randn(batch, CONDITION, generator=draw(3))
    kept = start.clone()
    with torch.no_grad():
        expected = sample(
            lambda x, tau: denoiser.guided(x, tau, condition, guidance),
            start,
            schedule,
            30,
            target=target,
            eta=eta,
            generator=draw(4),
        )
    found = fast_sample(
        denoiser, start, condition, schedule, 30, target=target, guidance=guidance, eta=eta, generator=draw(4)
    )
    # epsilon divides by a signal of 0.04 at the first steps: float32's rounding is 25 times as large there
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 if target == "sample" else 2e-5)
    assert torch.equal(start, kept)


def test_sees_weights_that_changed_since_the_last_decision():
    denoiser, schedule = denoiser_of("mlp"), Schedule("linear", 600)
    start, condition = torch.randn(2, SITES, generator=draw(2)), torch.randn(2, CONDITION, generator=draw(3))
    before = fast_sample(denoiser, start, condition, schedule, 10, target="sample")
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.mul_(0.5)
        expected = sample(lambda x, tau: denoiser.guided(x, tau, condition, 1.0), start, schedule, 10, target="sample")
    after = fast_sample(denoiser, start, condition, schedule, 10, target="sample")
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-6)
    assert not torch.allclose(before, after, atol=1e-3)


def test_coefficients_of_the_last_step_by_hand():
    last = steps_of(Schedule("linear", 10), 10, "epsilon", 0.0)[-1]
    signal = (1 - 1e-4) ** 0.5  # alpha_bar_1 = 1 - beta_1
    assert (last.tau, last.keep, last.move_x, last.move_p, last.sigma) == (1, 1.0, 0.0, 0.0, 0.0)
    assert last.clean_x == pytest.approx(1 / signal, rel=1e-6)
    assert last.clean_p == pytest.approx(-(1e-4**0.5) / signal, rel=1e-3)


def test_noise_without_a_generator_is_refused():
    denoiser = denoiser_of("mlp")
    with pytest.raises(ConfigError, match="pass a generator"):
        fast_sample(denoiser, torch.zeros(1, SITES), torch.zeros(1, CONDITION), Schedule(), 10, eta=1.0)
