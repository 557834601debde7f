"""Hidden states and logits at the pivots, against Hugging Face's own outputs."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from airtune.errors import DataError, ModelError
from airtune.methods.pae_mobillm.device.pivots import blocks_of, identity_of, outputs_of, read_pivots, selector_of
from airtune.models import BaseModel, Items, load_base
from tiny_models import CONFIGS, save_tiny_model

FAMILIES = tuple(CONFIGS)
LAYERS = (0, 1, 2)
NORMED_BEHIND = ("opt", "gpt2", "llama", "qwen2")
SENTENCES = Items(
    tuple(np.array(ids) for ids in ([2, 5, 6, 3], [2, 7, 3], [2, 9, 10, 11, 12, 3])), np.array([0, 2, 1]), 0
)
WINDOWS = Items(tuple(np.array(ids) for ids in ([5, 6, 7, 8], [9, 10, 11, 12])), None, 0)


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[tuple[str, str], BaseModel]:
    found = {}
    for family in FAMILIES:
        for kind in ("classify", "text"):
            folder = save_tiny_model(tmp_path_factory.mktemp(f"{family}-{kind}"), family, kind=kind)
            found[family, kind] = load_base(str(folder), kind, labels=3)
    return found


def final_norm(base: BaseModel) -> torch.nn.Module | None:
    path = {"opt": "decoder.final_layer_norm", "gpt2": "ln_f", "llama": "norm", "qwen2": "norm"}
    family = base.model.config.model_type
    return base.model.base_model.get_submodule(path[family]) if family in path else None


def own_outputs(base: BaseModel, items: Items) -> tuple[list[np.ndarray], np.ndarray]:
    """Hugging Face's hidden states (the last one as what its final norm was given) and logits."""
    batch = items.batch(range(len(items)))
    before_norm: list[torch.Tensor] = []
    norm = final_norm(base)
    hook = norm and norm.register_forward_pre_hook(lambda _, inputs: before_norm.append(inputs[0]))
    with torch.no_grad():
        found = base.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True)
    if hook:
        hook.remove()
    states = [*found.hidden_states[:-1], before_norm[0] if norm else found.hidden_states[-1]]
    if norm:
        torch.testing.assert_close(found.hidden_states[-1], norm(before_norm[0]))
    return [state.numpy() for state in states], found.logits.numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_classifiers_are_read_where_their_head_reads(bases, family):
    base = bases[family, "classify"]
    states, logits = own_outputs(base, SENTENCES)
    at = [0, 0, 0] if family in ("bert", "roberta") else [3, 2, 5]
    found = read_pivots(base, SENTENCES, np.arange(3), LAYERS)
    expected = np.stack([[state[n, at[n]] for state in states] for n in range(3)])
    np.testing.assert_allclose(found.activations, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.logits, logits, rtol=1e-5, atol=1e-6)
    assert found.counts.tolist() == [1, 1, 1]
    assert found.targets.tolist() == [0, 2, 1]
    assert found.activations.dtype == found.logits.dtype == np.float32


@pytest.mark.parametrize("family", NORMED_BEHIND)
def test_the_head_makes_the_logits_of_exactly_the_pivot_that_was_read(bases, family):
    base = bases[family, "classify"]
    norm = final_norm(base)
    found = read_pivots(base, SENTENCES, np.arange(3), [2])
    with torch.no_grad():
        remade = base.model.score(norm(torch.from_numpy(found.activations[:, 0])))
    np.testing.assert_allclose(found.logits, remade.numpy(), rtol=1e-5, atol=1e-5)


def test_a_sentence_that_ends_in_the_padding_token_is_read_before_it(bases):
    base = bases["gpt2", "classify"]
    ending = Items((np.array([2, 5, 6, 0]), np.array([2, 5, 6])), np.array([0, 0]), 0)
    found = read_pivots(base, ending, np.arange(2), LAYERS)
    np.testing.assert_allclose(found.activations[0], found.activations[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.logits, own_outputs(base, ending)[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_running_text_is_read_at_every_token_whose_next_is_known(bases, family):
    base = bases[family, "text"]
    states, logits = own_outputs(base, WINDOWS)
    found = read_pivots(base, WINDOWS, np.arange(2), LAYERS)
    expected = np.stack([state[:, :3].reshape(6, 16) for state in states], axis=1)
    np.testing.assert_allclose(found.activations, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.logits, logits[:, :3].reshape(6, 32), rtol=1e-5, atol=1e-6)
    assert found.counts.tolist() == [3, 3]
    assert found.targets.tolist() == [6, 7, 8, 10, 11, 12]


def test_windows_of_different_lengths_give_as_many_pivots_as_they_have_next_tokens(bases):
    base = bases["llama", "text"]
    uneven = Items((np.array([5, 6, 7, 8]), np.array([9, 10])), None, 0)
    found = read_pivots(base, uneven, np.arange(2), [1])
    assert found.counts.tolist() == [3, 1]
    assert found.targets.tolist() == [6, 7, 8, 10]
    alone = read_pivots(base, uneven, np.array([1]), [1])
    np.testing.assert_allclose(found.activations[3:], alone.activations, rtol=1e-4, atol=1e-5)


def test_layers_come_in_the_order_asked_for(bases):
    base = bases["bert", "classify"]
    both = read_pivots(base, SENTENCES, np.arange(3), [1, 2])
    last = read_pivots(base, SENTENCES, np.arange(3), [2])
    assert np.array_equal(both.activations[:, 1:], last.activations)


@pytest.mark.parametrize("enabled", [True, False])
def test_no_gradient_can_exist(bases, enabled):
    base = bases["bert", "classify"]
    seen = []
    hooks = [
        block.register_forward_hook(lambda _, __, out: seen.append((torch.is_inference_mode_enabled(), out)))
        for block in blocks_of(base)
    ]
    base.model.train()
    try:
        with torch.set_grad_enabled(enabled):
            read_pivots(base, SENTENCES, np.arange(3), LAYERS)
            assert torch.is_grad_enabled() == enabled
    finally:
        for hook in hooks:
            hook.remove()
    assert len(seen) == 2
    assert all(inference and out.grad_fn is None and not out.requires_grad for inference, out in seen)
    assert not base.model.training
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in base.model.parameters())


def test_even_trainable_weights_get_no_graph(bases):
    base = bases["bert", "classify"]
    seen = []
    hook = blocks_of(base)[1].register_forward_hook(lambda _, __, out: seen.append(out))
    base.model.requires_grad_(True)
    try:
        read_pivots(base, SENTENCES, np.arange(3), LAYERS)
    finally:
        hook.remove()
        base.model.requires_grad_(False)
    assert seen[0].grad_fn is None


def test_dropout_is_off(bases):
    base = bases["roberta", "classify"]
    assert base.model.config.hidden_dropout_prob == 0.1
    base.model.train()
    first = read_pivots(base, SENTENCES, np.arange(3), LAYERS)
    again = read_pivots(base, SENTENCES, np.arange(3), LAYERS)
    assert np.array_equal(first.activations, again.activations)


def hooks_on(base: BaseModel) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in base.model.modules())


def test_nothing_stays_on_the_model(bases):
    base = bases["opt", "classify"]
    before = hooks_on(base)
    read_pivots(base, SENTENCES, np.arange(3), LAYERS)
    assert hooks_on(base) == before


def test_nothing_stays_on_the_model_when_it_fails(bases, monkeypatch):
    base = bases["opt", "classify"]
    before = hooks_on(base)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no more memory")

    monkeypatch.setattr(base.model.score, "forward", fail)
    with pytest.raises(RuntimeError, match="no more memory"):
        read_pivots(base, SENTENCES, np.arange(3), LAYERS)
    assert hooks_on(base) == before


@pytest.mark.parametrize("layers", [[], [3], [-1], [0, 1, 2, 3]])
def test_layers_that_are_not_there_are_refused(bases, layers):
    with pytest.raises(ModelError, match=r"hidden states 0 .* to 2"):
        read_pivots(bases["bert", "classify"], SENTENCES, np.arange(3), layers)
    with pytest.raises(ModelError, match=r"hidden states 0 .* to 2"):
        identity_of(bases["bert", "classify"], layers, [16] * len(layers), length=8)


def test_items_of_another_kind_are_refused(bases):
    with pytest.raises(DataError, match="windows of a text"):
        read_pivots(bases["opt", "classify"], WINDOWS, np.arange(2), [1])
    with pytest.raises(DataError, match="sentences with classes"):
        read_pivots(bases["opt", "text"], SENTENCES, np.arange(2), [1])


def test_items_without_a_pivot_are_refused(bases):
    with pytest.raises(DataError, match="item 1 has 1 tokens, at least 2"):
        read_pivots(bases["opt", "text"], Items((np.array([5, 6]), np.array([5])), None, 0), np.arange(2), [1])
    empty = Items((np.array([], int),), np.array([0]), 0)
    with pytest.raises(DataError, match="item 0 has 0 tokens, at least 1"):
        read_pivots(bases["opt", "classify"], empty, np.arange(1), [1])


def test_selectors(bases):
    found = {family: selector_of(bases[family, "classify"]) for family in FAMILIES}
    last = dict.fromkeys(NORMED_BEHIND, "last")
    assert found == {"bert": "first", "roberta": "first", **last}
    assert {selector_of(bases[family, "text"]) for family in FAMILIES} == {"every"}
    assert outputs_of(bases["bert", "classify"]) == 3
    assert outputs_of(bases["llama", "text"]) == 32


def test_an_identity_covers_the_head_the_length_and_the_kind(bases):
    base = bases["bert", "classify"]
    first = identity_of(base, [1, 2], [8, 16], length=64)
    assert (first.width, first.layers, first.bits, first.outputs, first.space) == (16, (1, 2), (8, 16), 3, "logit")
    assert first.tokenizer == base.tokenizer_sha256
    assert first.template == hashlib.sha256(b'["classify", "first", 64]').hexdigest()
    assert identity_of(base, [1, 2], [8, 16], length=32).template != first.template
    assert identity_of(base, [1], [16], length=64, outputs=7, space="probability").outputs == 7
    head = base.model.classifier.bias
    head.data[0] += 1
    try:
        assert identity_of(base, [1, 2], [8, 16], length=64).backbone != first.backbone
    finally:
        head.data[0] -= 1
    assert identity_of(base, [1, 2], [8, 16], length=64) == first
