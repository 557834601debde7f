"""LoRA on the device and split learning: bytes by formula, against each other, against torch's count of operations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from airtune.methods.pae_mobillm.device.flops import step_flops
from airtune.methods.pae_mobillm.rivals.lora import adapted, plan_for, train_epochs
from airtune.methods.pae_mobillm.rivals.split import cut_behind, half_bytes, middle
from airtune.models import BaseModel, Items, load_base, weights_hash
from tiny_models import CONFIGS, save_tiny_model

ITEMS, BATCH, EPOCHS, WIDTH = 21, 8, 2, 16


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return load_base(str(save_tiny_model(tmp_path_factory.mktemp("bert"), "bert", kind="classify")), "classify")


@pytest.fixture(scope="module")
def items(base: BaseModel) -> Items:
    rng = np.random.default_rng(0)
    texts = tuple(rng.integers(4, 20, rng.integers(3, 10)) for _ in range(ITEMS))
    return Items(texts, np.array([int(text.max() > 18) for text in texts]), int(base.tokenizer.pad_token_id))


def trained(base: BaseModel, items: Items, bits: int | None) -> tuple[dict[str, torch.Tensor], int, int, int]:
    """Every trained number after two epochs, bytes up and down, and those of the server's half; bits None is LoRA."""
    plan = plan_for(items, rate=1e-2, epochs=EPOCHS, batch_size=BATCH, seed=3)
    with adapted(base, 3) as parameters:
        if bits is None:
            done = list(train_epochs(base, parameters, items, plan))
            up = down = 0
        else:
            with cut_behind(base, middle(base), bits=bits) as traffic:
                done = list(train_epochs(base, parameters, items, plan, blocks=middle(base)))
                base.model(torch.tensor([[4, 5]]), torch.ones(1, 2))  # evaluation crosses nothing
            up, down = traffic.up, traffic.down
        assert [epoch.done for epoch in done] == [1, 2]
        found = {name: one.detach().clone() for name, one in parameters.items()}
        return found, up, down, half_bytes(base, parameters, middle(base))


def test_bytes_of_split_learning_are_those_of_the_formula(base: BaseModel, items: Items):
    """In an epoch of 3 steps: 16-bit hidden states and gradients of every token, 4 bytes a label, a norm each way."""
    _, up, down, half = trained(base, items, 16)
    tokens, steps = int(items.lengths.sum()), -(-ITEMS // BATCH)
    assert up == EPOCHS * (tokens * WIDTH * 2 + 4 * ITEMS + 4 * steps)
    assert down == EPOCHS * (tokens * WIDTH * 2 + 4 * steps)
    behind = [site for site in base.sites if site.layer == 1]
    head = sum(base.model.get_parameter(name).numel() for name in base.head)
    assert half == 4 * (sum(min(8, site.cap) * (site.fan_in + site.fan_out) for site in behind) + head)


def test_over_a_wire_of_32_bits_split_learning_is_lora(base: BaseModel, items: Items):
    whole, exact, rounded = (trained(base, items, bits)[0] for bits in (None, 32, 16))
    for name, value in whole.items():
        torch.testing.assert_close(exact[name], value, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(rounded[name], value, rtol=0, atol=2e-2)
    assert any(not torch.equal(rounded[name], value) for name, value in whole.items())


def test_the_model_is_afterwards_as_it_was_and_only_factors_and_head_were_trained(base: BaseModel, items: Items):
    before = weights_hash(base.model)
    with adapted(base, 0) as parameters:
        kinds = {name.rpartition(".")[2] for name in parameters if name not in base.head}
        assert (kinds, set(base.head) - set(parameters)) == ({"p", "q"}, set())
        start = base.model(torch.tensor([[4, 5, 6]])).logits
    assert torch.equal(start, base.model(torch.tensor([[4, 5, 6]])).logits)
    trained(base, items, 16)
    assert weights_hash(base.model) == before
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


@pytest.mark.parametrize("family", CONFIGS)
def test_a_step_costs_what_torch_counts(tmp_path, family: str):
    """Whole model, forward and backward; the small rest is what torch does for the head's first layers alone."""
    base = load_base(str(save_tiny_model(tmp_path, family, kind="classify")), "classify", labels=3)
    base.model.set_attn_implementation("eager")
    ids = torch.from_numpy(np.random.default_rng(0).integers(4, 20, (3, 7)))
    with adapted(base, 0, rank=4) as parameters:
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        with FlopCounterMode(display=False) as counter:
            logits = base.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
        assert step_flops(base, 3, 7, 4) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_half_a_step_costs_what_torch_counts(base: BaseModel):
    base.model.set_attn_implementation("eager")
    ids, seen = torch.from_numpy(np.random.default_rng(0).integers(4, 20, (3, 7))), []
    with adapted(base, 0, rank=4) as parameters:
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        block = base.model.get_submodule("bert.encoder.layer.0")
        hook = block.register_forward_hook(lambda _, __, output: seen.append(output))
        base.model(input_ids=ids)
        hook.remove()
        with FlopCounterMode(display=False) as counter:
            again = block(seen[0].detach())
            (again if isinstance(again, torch.Tensor) else again[0]).sum().backward()
        assert step_flops(base, 3, 7, 4, 1) == pytest.approx(counter.get_total_flops(), rel=0.02)
