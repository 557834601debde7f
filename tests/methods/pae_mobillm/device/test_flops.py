"""Counted operations against torch's own counter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from airtune.methods.pae_mobillm.device.flops import forward_flops, side_flops
from airtune.methods.pae_mobillm.side import SideNetwork
from airtune.models import load_base
from tiny_models import CONFIGS, save_tiny_model


@pytest.mark.parametrize("kind", ["classify", "text"])
@pytest.mark.parametrize("family", CONFIGS)
def test_a_forward_pass_costs_what_torch_counts(tmp_path, family, kind):
    base = load_base(str(save_tiny_model(tmp_path, family, kind=kind)), kind, labels=3)
    base.model.set_attn_implementation("eager")
    ids = torch.from_numpy(np.random.default_rng(0).integers(4, 20, (3, 7)))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        base.model(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert counter.get_total_flops() == forward_flops(base, 3, 7)


def test_the_side_network_costs_what_torch_counts():
    side = SideNetwork(3, 8, 4, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        side(torch.zeros(5, 3, 8))
    assert side_flops(3, 8, 4, 2, 5) == counter.get_total_flops()
