"""Eq. 19's three objectives: weights, errors and gradients against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from airtune.errors import ConfigError, DataError
from airtune.methods.airllm.policy.denoiser import Denoiser
from airtune.methods.airllm.policy.diffusion import Schedule, Target, add_noise, target_of
from airtune.methods.airllm.policy.objective import Batch, Objective, advantage_weights, hybrid_loss

SCHEDULE = Schedule("cosine", 50)


class Constant(nn.Module):
    """A backbone whose prediction is one learned row, whatever it sees: losses are quadratics in it."""

    condition_size = 3

    def __init__(self, row: list[float]) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.tensor(row))
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, tau: Tensor, condition: Tensor) -> Tensor:
        self.seen.append((x, tau))
        return self.row.expand(len(x), -1)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def constant(row: list[float]) -> tuple[Denoiser, Constant]:
    backbone = Constant(row)
    return Denoiser(backbone, generator=generator(0)), backbone


def batch_of(executed: Tensor, improved: Tensor | None = None, advantage: Tensor | None = None) -> Batch:
    rows = len(executed)
    improved = executed if improved is None else improved
    advantage = torch.zeros(rows) if advantage is None else advantage
    return Batch(torch.zeros(rows, 2), torch.zeros(rows, 3), executed, improved, advantage)


def loss_of(
    denoiser: Denoiser, batch: Batch, objective: Objective, *, kappa: float = 1.0, target: Target = "sample", **more
) -> Tensor:
    return hybrid_loss(
        denoiser, batch, SCHEDULE, objective=objective, kappa=kappa, generator=generator(7), target=target, **more
    )


def test_weights_by_hand():
    """Advantages 1, 1, 4, -2: mean 1, deviation sqrt(18 / 4); z = 0, 0, +-sqrt 2."""
    advantage = torch.tensor([1.0, 1.0, 4.0, -2.0])
    weights = advantage_weights(advantage, 0.5)
    assert weights.tolist() == pytest.approx([1, 1, math.exp(0.5**0.5), math.exp(-(0.5**0.5))])
    assert advantage_weights(advantage, 0.0).tolist() == [1, 1, 1, 1]
    assert advantage_weights(advantage, 100.0).tolist() == pytest.approx([1, 1, 10, 0.1])


def test_a_lucky_channel_is_not_weighted_up():
    """Two actions on a good channel (value 11) and two on a bad one (value 1), one above and one below each."""
    reward, baseline = torch.tensor([12.0, 10.0, 2.0, 0.0]), torch.tensor([11.0, 11.0, 1.0, 1.0])
    assert advantage_weights(reward - baseline, 1.0).tolist() == pytest.approx([math.e, 1 / math.e, math.e, 1 / math.e])
    naive = advantage_weights(reward, 1.0)
    assert naive[1] > 1 > naive[2]  # the worse action on the good channel beats the better one on the bad


def test_equal_advantages_weigh_alike_and_nothing_flows_back():
    advantage = torch.tensor([0.1, 0.1 + 1e-9, 0.1 - 1e-9], requires_grad=True)
    weights = advantage_weights(advantage, 1.0)
    assert weights.tolist() == pytest.approx([1, 1, 1], abs=0.05)
    assert not weights.requires_grad
    assert advantage_weights(torch.tensor([6.0]), 1.0).tolist() == [1]


@pytest.mark.parametrize("target", ["epsilon", "v", "sample"])
def test_advantage_is_the_weighted_error_worked_out_by_hand(target: Target):
    """A prediction of 0: each sample's error is the mean square of its target. z = +-1, so weights e and 1 / e."""
    denoiser, _ = constant([0.0] * 4)
    x = torch.randn(6, 4, generator=generator(1))
    drawn = generator(7)
    tau, noise = torch.randint(1, 51, (6,), generator=drawn), torch.randn(6, 4, generator=drawn)
    errors = target_of(x, noise, SCHEDULE.alpha_bar(tau), target).square().sum(dim=1).tolist()
    advantage = torch.tensor([3.0, 1.0, 3.0, 1.0, 3.0, 1.0])
    by_hand = sum(e / 4 * (math.e if i % 2 == 0 else 1 / math.e) for i, e in enumerate(errors)) / 6
    loss = loss_of(denoiser, batch_of(x, advantage=advantage), "advantage", target=target)
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)


def test_the_gradient_of_advantage_pulls_to_the_weighted_mean_of_executed_actions():
    """Predicting m for actions 1 (weight e) and -1 (weight 1 / e): d/dm = e (m - 1) + (m + 1) / e, zero at tanh 1."""
    executed = torch.tensor([[1.0], [-1.0]])
    batch = batch_of(executed, improved=torch.tensor([[9.0], [9.0]]), advantage=torch.tensor([1.0, 0.0]))
    for m in (0.0, 0.3, math.tanh(1)):
        denoiser, backbone = constant([m])
        loss_of(denoiser, batch, "advantage").backward()
        assert backbone.row.grad is not None
        assert backbone.row.grad.item() == pytest.approx(math.e * (m - 1) + (m + 1) / math.e, abs=1e-5)


def test_the_gradient_of_improved_pulls_to_the_improved_actions_alone():
    """Improved actions 0.5 and 0.7, predicted m: d/dm of the mean square is 2 m - 1.2; rewards and kappa do nothing."""
    executed, improved = torch.tensor([[1.0], [-1.0]]), torch.tensor([[0.5], [0.7]])
    for kappa, advantage in ((0.0, [0.0, 0.0]), (3.0, [5.0, -5.0])):
        denoiser, backbone = constant([0.2])
        batch = batch_of(executed, improved, torch.tensor(advantage))
        loss_of(denoiser, batch, "improved", kappa=kappa).backward()
        assert backbone.row.grad is not None
        assert backbone.row.grad.item() == pytest.approx(2 * 0.2 - 1.2, abs=1e-6)


def bowl(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Q1 = -(a - 0.5)^2, best at 0.5; Q2 = 4 everywhere, a scale of its own."""
    return -(action - 0.5).square().sum(dim=1), torch.full((len(action),), 4.0)


@pytest.mark.parametrize("kappa", [0.0, 1.0, 8.0])
def test_the_gradient_of_critic_adds_that_of_the_normalised_value(kappa: float):
    """x0-hat is m itself: d/dm [mean (m - x)^2 + kappa (m - 0.5)^2 / 4] = 2 (m - 0.2) + kappa (m - 0.5) / 2."""
    batch = batch_of(torch.tensor([[0.4], [0.0]]))  # mean 0.2
    for m in (-0.3, 0.1):
        denoiser, backbone = constant([m])
        loss_of(denoiser, batch, "critic", kappa=kappa, critics=bowl).backward()
        assert backbone.row.grad is not None
        assert backbone.row.grad.item() == pytest.approx(2 * (m - 0.2) + kappa * (m - 0.5) / 2, abs=1e-5)


def test_the_critics_gradient_reaches_a_noise_prediction_through_the_clean_estimate():
    """x0-hat = (x - sqrt(1 - ab) eps) / sqrt(ab), so d x0-hat / d eps = -sqrt((1 - ab) / ab), where not clamped."""
    eps, batch = 0.1, batch_of(torch.zeros(1, 1))
    denoiser, backbone = constant([eps])
    loss_of(denoiser, batch, "critic", kappa=2.0, target="epsilon", critics=bowl).backward()
    drawn = generator(7)
    tau, noise = int(torch.randint(1, 51, (1,), generator=drawn)), float(torch.randn(1, 1, generator=drawn))
    ab = float(SCHEDULE.alphas_bar[tau])
    clean = ((1 - ab) ** 0.5 * noise - (1 - ab) ** 0.5 * eps) / ab**0.5
    assert abs(clean) < 1  # the draw is one where nothing is clamped
    by_value = 2.0 * (2 * (clean - 0.5) / 4) * -(((1 - ab) / ab) ** 0.5)
    assert backbone.row.grad is not None
    assert backbone.row.grad.item() == pytest.approx(2 * (eps - noise) + by_value, rel=1e-4)


def test_the_critics_unit_does_not_matter():
    def scaled(factor: float) -> Tensor:
        denoiser, backbone = constant([0.1])
        batch = batch_of(torch.zeros(4, 1))
        critics = lambda s, a: tuple(factor * q for q in bowl(s, a))  # noqa: E731
        loss_of(denoiser, batch, "critic", critics=critics).backward()
        assert backbone.row.grad is not None
        return backbone.row.grad

    assert scaled(1.0).item() == pytest.approx(scaled(1000.0).item(), rel=1e-5)


def test_the_network_is_shown_the_noisy_actions_and_all_steps():
    denoiser, backbone = constant([0.0])
    schedule, clean = Schedule("linear", 4), torch.full((4000, 1), 0.5)
    batch = batch_of(clean)
    hybrid_loss(denoiser, batch, schedule, objective="advantage", kappa=0.0, generator=generator(8))
    (x, tau), drawn = backbone.seen[0], generator(8)
    assert torch.bincount(tau, minlength=5).tolist() == pytest.approx([0, 1000, 1000, 1000, 1000], abs=150)
    assert torch.equal(tau, torch.randint(1, 5, (4000,), generator=drawn))
    torch.testing.assert_close(x, add_noise(clean, torch.randn(4000, 1, generator=drawn), schedule.alpha_bar(tau)))


ROWS = torch.zeros(2, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: advantage_weights(torch.ones(2, 1), 1.0), DataError, r"advantages have shape \(2, 1\)"),
        (lambda: advantage_weights(torch.tensor([math.nan]), 1.0), DataError, "not finite"),
        (lambda: Batch(ROWS, ROWS, ROWS, ROWS, torch.ones(2, 1)), DataError, r"'advantage': \(2, 1\)"),
        (lambda: Batch(ROWS, ROWS, ROWS, torch.zeros(2, 3), torch.ones(2)), DataError, r"'improved': \(2, 3\)"),
        (lambda: Batch(torch.zeros(3, 1), ROWS, ROWS, ROWS, torch.ones(2)), DataError, r"'state': \(3, 1\)"),
        (lambda: loss_of(constant([0.0])[0], batch_of(ROWS[:, :1]), "critic"), ConfigError, "no critics came"),
        (lambda: loss_of(constant([0.0])[0], batch_of(ROWS[:, :1]), "reward"), ConfigError, "objective is 'reward'"),  # type: ignore[arg-type]
    ],
)
def test_nonsense_is_refused(call, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()
