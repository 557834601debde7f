"""What a step holds, counted by hand, and that every rival takes a step. No test here judges a time."""

from __future__ import annotations

import torch

from airtune.benches.step import held_bytes, steps


def test_a_tensor_saved_twice_is_held_once():
    x = torch.ones(10, requires_grad=True)
    y = torch.ones(6, requires_grad=True)
    assert held_bytes(lambda: (x * x).sum() + (y * 2).sum()) == 40  # ten float32; times two needs nothing saved
    assert held_bytes(lambda: (x[:6] * y).sum()) == 40 + 24  # a view holds its whole storage


def test_every_rival_steps_and_adalora_keeps_its_full_width_under_sparse_ranks():
    held = {name: held_bytes(rival) for name, rival in steps(64, sparse=True).items()}
    assert held["airtune, Eq. 3"] < held["peft AdaLoRA"]
