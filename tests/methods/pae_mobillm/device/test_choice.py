"""The layers that settings ask for, on a backbone whose last block says everything."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from airtune.errors import ConfigError, DataError, DeadlineError
from airtune.ledger import Ledger
from airtune.links import Link
from airtune.methods.pae_mobillm.device.choice import choose_layers, measured_worth
from airtune.methods.pae_mobillm.device.device import Device
from airtune.methods.pae_mobillm.device.layers import LayerChoice
from airtune.methods.pae_mobillm.device.pivots import identity_of, read_pivots
from airtune.methods.pae_mobillm.device.upload import uplink_bits
from airtune.models import BaseModel, Items, load_base
from airtune.transport import Message, OverTheAir
from tiny_models import save_tiny_model

OPTIONS = {
    **{"layer_count": 1, "bits": 16, "value_items": 64, "batch_size": 8},
    **{"outputs": 3, "space": "logit", "scale": 4.0},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> BaseModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("bert"), "bert", kind="classify")
    return load_base(str(folder), "classify", labels=3)


def sentences(count: int, text: bool = False) -> Items:
    rng = np.random.default_rng(0)
    ids = tuple(np.array([2, *rng.integers(4, 22, 5)]) for _ in range(count))
    return Items(ids, None if text else rng.integers(0, 3, count), 0)


def choice(base: BaseModel, items: Items, how: str, **changes: object) -> LayerChoice:
    return choose_layers(
        base, items, how, **{"budget_bits": 10**9, "rng": np.random.default_rng(0), **OPTIONS, **changes}
    )


def told_by_first_block(base: BaseModel) -> Items:
    """Sentences whose class is told by what leaves block 1."""
    items = sentences(96)
    states = read_pivots(base, items, np.arange(96), [1]).activations[:, 0]
    scores = states @ np.random.default_rng(7).normal(size=(16, 3))
    return Items(items.ids, (scores - scores.mean(0)).argmax(1), 0)


def test_all_and_uniform(base):
    assert choice(base, sentences(4), "all") == LayerChoice((1, 2), (16, 16))
    assert choice(base, sentences(4), "uniform") == LayerChoice((2,), (16,))


def test_a_list_is_sent_as_it_stands(base):
    """Two blocks there are; whichever way they are named, hidden states go ascending."""
    assert choice(base, sentences(4), "1") == LayerChoice((1,), (16,))
    assert choice(base, sentences(4), "2,1", bits=8) == LayerChoice((1, 2), (8, 8))
    assert choice(base, sentences(4), "2:32,1:8") == LayerChoice((1, 2), (8, 32))
    assert choice(base, sentences(4), "2,1:8") == LayerChoice((1, 2), (8, 16))
    for wrong in ("3", "1,1", "1:8,1:16"):
        with pytest.raises(ConfigError, match=f"device.layers is {wrong}; the backbone has blocks 1 to 2"):
            choice(base, sentences(4), wrong)


def test_greedy_stays_within_the_uplink_to_the_bit(base):
    items = told_by_first_block(base)
    roomy = choice(base, items, "greedy")
    assert roomy.explained is not None
    assert roomy.explained > 0
    one = identity_of(base, (1,), (8,), length=8)
    least = uplink_bits(one, 96, 96, 8)
    tight = choice(base, items, "greedy", budget_bits=least)
    assert tight.bits == (8,)
    with pytest.raises(DeadlineError, match=f"need {least};"):
        choice(base, items, "greedy", budget_bits=least - 1)

    class Taking:
        def request(self, message: Message) -> Message:
            return message.reply(message.kind, {}, bytes(2 * 96 // 8))

    ledger, link = Ledger(), Link(1e6, 0.0)
    air = OverTheAir(Taking(), link, ledger, "device", lambda: link.mean_state)
    Device(base, identity_of(base, tight.layers, tight.bits, length=8), air, name="phone", batch_size=8).upload(items)
    sent = [row["amount"] for row in ledger.rows() if (row["quantity"], row["what"]) == ("bits", "samples")]
    assert sum(sent) == least


def test_outputs_as_sent_are_what_is_paid_for(base):
    items = told_by_first_block(base)
    least = uplink_bits(dataclasses.replace(identity_of(base, (1,), (8,), length=8), outputs=10), 96, 96, 8)
    with pytest.raises(DeadlineError, match=f"need {least};"):
        choice(base, items, "greedy", outputs=10, budget_bits=least - 1)


def test_running_text_is_paid_for_pivot_by_pivot(tmp_path):
    base = load_base(str(save_tiny_model(tmp_path, "llama")), "text")
    items = sentences(20, text=True)
    identity = identity_of(base, (1,), (8,), length=6)
    least = uplink_bits(identity, 20, 100, 8, several=True)
    with pytest.raises(DeadlineError, match=f"need {least};"):
        choice(base, items, "greedy", outputs=32, budget_bits=least - 1)
    assert len(choice(base, items, "greedy", outputs=32, budget_bits=least).layers) == 1


def test_the_worth_is_measured_on_what_would_arrive(base):
    items = told_by_first_block(base)
    worth = measured_worth(base, items, 8, space="logit", scale=4.0, rng=np.random.default_rng(0))
    fine, coarse = worth.error({1: 16}), worth.error({1: 8})
    assert fine != coarse
    assert abs(fine - coarse) < 0.1 * fine
    assert worth.error({}) > fine


def test_too_few_items_are_refused(base):
    with pytest.raises(DataError, match="at least 8"):
        choice(base, sentences(7), "greedy")
    with pytest.raises(DataError, match="at least 8"):
        choice(base, sentences(20), "greedy", value_items=7)
