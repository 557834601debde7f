"""The 1-D U-Net: shapes for awkward numbers of sites, channels by hand, and a small problem that it must learn."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from airtune.errors import ConfigError
from airtune.methods.airllm.policy.denoiser import Denoiser
from airtune.methods.airllm.policy.diffusion import Schedule
from airtune.methods.airllm.policy.objective import Batch, hybrid_loss
from airtune.methods.airllm.policy.sampling import sample
from airtune.methods.airllm.policy.unet import UNet


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("sites", "padded"), [(36, 64), (35, 64), (144, 160), (32, 32), (1, 32)])
def test_any_number_of_sites_is_padded_to_a_multiple_of_32(sites: int, padded: int):
    network = UNet(sites, 5, width=32, generator=generator(0))
    lengths: list[int] = []
    network.enter.register_forward_hook(lambda module, args, out: lengths.append(out.shape[2]))
    network.narrow[4].register_forward_hook(lambda module, args, out: lengths.append(out.shape[2]))
    found = network(torch.randn(3, sites, generator=generator(1)), torch.tensor([1, 2, 3]), torch.zeros(3, 5))
    assert found.shape == (3, sites)
    assert lengths == [padded, padded // 32]  # six levels halve it five times


def test_depth_kernel_and_channels_are_table_iis():
    network = UNet(36, 5, width=64, generator=generator(0))
    assert [block.second[2].out_channels for block in network.down] == [2, 4, 8, 16, 32, 64]  # C_i = C_in 2^(i - 1)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv1d)]
    assert {module.kernel_size for module in convolutions} == {(1,), (3,)}  # 1 in shortcuts


def test_every_input_reaches_every_site_and_rows_do_not_touch():
    network = UNet(35, 2, width=32, generator=generator(0)).double()
    x, tau = torch.randn(2, 35, generator=generator(1)).double(), torch.tensor([5, 50])
    condition = torch.randn(2, 2, generator=generator(2)).double()
    base = network(x, tau, condition)
    moved = x.clone()
    moved[:, 0] += 1
    for changed in ((x, tau + 7, condition), (x, tau, condition + 1), (moved, tau, condition)):
        assert ((network(*changed) - base).abs().max(dim=1).values > 1e-6).all()
    assert (network(moved, tau, condition) - base)[:, -1].abs().max() > 1e-12  # through the coarse levels
    alone = torch.cat([network(x[i : i + 1], tau[i : i + 1], condition[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(base, alone)


def test_the_seed_alone_decides_the_weights():
    before = torch.random.get_rng_state()
    first, again, other = (UNet(4, 2, width=32, generator=generator(seed)).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["enter.weight"], other["enter.weight"])


def test_it_learns_a_pattern_for_each_condition():
    """Sites alternate between +-0.6 c, with c = -1 or 1: ignoring the condition would miss every site by 0.6."""
    pattern = 0.6 * torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    fresh, schedule = generator(5), Schedule("cosine", 100)
    denoiser = Denoiser(UNet(5, 1, width=64, generator=fresh), generator=fresh)
    optimiser = torch.optim.Adam(denoiser.parameters(), lr=3e-3)
    for _ in range(150):
        condition = torch.where(torch.rand(64, 1, generator=fresh) < 0.5, -1.0, 1.0)
        batch = Batch(condition, condition, condition * pattern, condition * pattern, torch.zeros(64))
        loss = hybrid_loss(denoiser, batch, schedule, objective="improved", kappa=0.0, generator=fresh, target="sample")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for c in (-1.0, 1.0):
        condition = torch.full((50, 1), c)
        with torch.no_grad():
            found = sample(
                lambda x, tau, given=condition: denoiser(x, tau, given),
                torch.randn(50, 5, generator=generator(6)),
                schedule,
                10,
                target="sample",
            )
        assert found.mean(0).tolist() == pytest.approx((c * pattern).tolist(), abs=0.15)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"width": 48}, "width of the U-Net is 48 at depth 6; choose a positive multiple of 32"),
        ({"sites": 0}, "sites 0"),
        ({"condition_size": 0}, "condition_size 0"),
        ({"time_size": 7}, "time_size 7"),
    ],
)
def test_nonsense_is_refused(sizes: dict[str, int], message: str):
    with pytest.raises(ConfigError, match=message):
        UNet(**{"sites": 4, "condition_size": 2, "width": 32, **sizes}, generator=generator(0))
