"""The edge message by message: what it applies, what it refuses and keeps, and what it says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from airtune.adapters import Adapter, RankVector
from airtune.codec import Binding, Draft, Payload, Quantiser, Refiner, decode, encode
from airtune.errors import AirtuneError, ModelError, PayloadError, TransportError
from airtune.methods.airllm.packing import block_packer
from airtune.methods.airllm.roles import (
    PROBE_ITEMS,
    EdgeRole,
    adapter_message,
    ask_score,
    check_edge,
)
from airtune.methods.airllm.sizes import adapter_overhead_bits
from airtune.models import BaseModel, Items, load_base, score, sentences
from airtune.transport import Idempotent, Loopback, Message, air_bits
from tiny_models import save_tiny_model

TEXTS = ["the cat sat on the mat", "a dog ran fast", "red and blue", "it was not slow", "then the dog sat"] * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return str(save_tiny_model(tmp_path_factory.mktemp("bert"), "bert", kind="classify"))


def items(base: BaseModel, texts: list[str] = TEXTS) -> Items:
    return sentences(texts, [len(text) % 2 for text in texts], base.tokenizer, max_length=32)


def trained(base: BaseModel, max_rank: int, seed: int) -> Adapter:
    """An adapter whose every number was drawn, so that every rank changes the scores."""
    draw = torch.Generator().manual_seed(seed)
    adapter = Adapter(base, max_rank, generator=draw)
    with torch.no_grad():
        for parameter in adapter.parameters().values():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.5)
    return adapter


class Cloud:
    """A copy of the base model with a drawn adapter on it, and the packer of its prefixes."""

    def __init__(self, folder: str, *, seed: int, max_rank: int = 4, labels: int = 2) -> None:
        self.base = load_base(folder, "classify", labels=labels, seed=seed)
        self.adapter = trained(self.base, max_rank, seed)
        self.packer = block_packer(self.base, self.adapter.factors(), self.adapter.dense(), 8)
        self.test = items(self.base)

    def payload(self, rank: int) -> Payload:
        return self.packer.encode(RankVector.uniform(self.adapter.sites, rank))

    def score(self, payload: Payload) -> tuple[float, float, np.ndarray]:
        """What the edge must find: the decoded payload's scores, computed here."""
        decoded = self.packer.decode(payload)
        self.adapter.load(decoded.factors, decoded.dense)
        found = score(self.base.model, self.test)
        return found.metric, found.loss, found.logits[:PROBE_ITEMS].ravel()


@pytest.fixture(scope="module")
def cloud(folder) -> Cloud:
    return Cloud(folder, seed=1)


@pytest.fixture
def edge(folder) -> Loopback:
    base = load_base(folder, "classify", seed=2)  # another fresh head: the payload brings the trained one
    return Loopback(EdgeRole(base, items(base)))


def asked(edge: Loopback, payload: Payload, round: int = 0) -> tuple[float, float, np.ndarray]:
    return ask_score(edge, payload, round, logits=2 * PROBE_ITEMS)


def assert_scores(found: tuple[float, float, np.ndarray], expected: tuple[float, float, np.ndarray]) -> None:
    assert found[0] == expected[0]
    assert found[1] == pytest.approx(expected[1], rel=1e-6)
    assert np.abs(found[2] - expected[2]).max() < 1e-5


def test_hello_names_base_model_tokenizer_and_test_set(edge, folder):
    base = load_base(folder, "classify", seed=3)
    hello = edge.request(Message("hello", "1", {}))
    assert hello.header == {
        "base_model": base.sha256,
        "tokenizer": base.tokenizer_sha256,
        "test_set": items(base).sha256,
    }
    check_edge(edge, base, items(base))


def test_test_sets_that_differ_in_a_word_a_label_or_an_order_are_told_apart(folder):
    base = load_base(folder, "classify")
    whole = items(base)
    flipped = replace(whole, classes=1 - whole.classes)
    reordered = replace(whole, ids=whole.ids[1:] + whole.ids[:1])
    hashes = {
        found.sha256 for found in (whole, flipped, reordered, items(base, TEXTS[:-1]), replace(whole, classes=None))
    }
    assert len(hashes) == 5
    assert items(base).sha256 == whole.sha256


def test_another_base_model_is_refused_by_name(edge, tmp_path):
    other = load_base(str(save_tiny_model(tmp_path / "other", "bert", kind="classify", seed=9)), "classify")
    with pytest.raises(ModelError, match=r"the edge's base model is [0-9a-f]{12}, the cloud's [0-9a-f]{12}; start"):
        check_edge(edge, other, items(other))


def test_an_applied_payload_scores_as_in_the_cloud(edge, cloud):
    seen = set()
    for number, rank in enumerate((2, 4, 0)):
        payload = cloud.payload(rank)
        applied = edge.request(adapter_message(payload, number))
        sites = len(cloud.adapter.sites)
        assert applied.header == {"payload_sha256": payload.sha256, "total_rank": rank * sites}
        found = asked(edge, payload, number)
        assert_scores(found, cloud.score(payload))
        seen.add(found[1])
    assert len(seen) == 3


def test_larger_and_smaller_ranks_follow_each_other(edge, cloud, folder):
    larger = Cloud(folder, seed=5, max_rank=9)
    for number, (sender, rank) in enumerate(((cloud, 1), (larger, 9), (cloud, 3), (larger, 5))):
        payload = sender.payload(rank)
        edge.request(adapter_message(payload, number))
        assert_scores(asked(edge, payload, number), sender.score(payload))


def test_the_edge_attaches_each_site_at_its_own_rank(cloud, folder):
    """A payload of rank 9 at one site and nothing elsewhere, then one of rank 1 everywhere: P, lam and Q of each."""
    base = load_base(folder, "classify", labels=2)
    edge, bare = EdgeRole(base, items(base)), sum(value.numel() for value in base.model.parameters())
    large = Cloud(folder, seed=5, max_rank=9)
    for number, ranks in enumerate(([9] + [0] * (len(base.sites) - 1), [1] * len(base.sites))):
        edge.handle(adapter_message(large.packer.encode(RankVector.of(ranks)), number))
        there = sum(value.numel() for value in base.model.parameters()) - bare
        assert there == sum(
            rank * (site.fan_in + site.fan_out + 1) for rank, site in zip(ranks, base.sites, strict=True)
        )


def altered(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def for_other_binding(cloud: Cloud) -> Payload:
    rank, other = RankVector.uniform(cloud.adapter.sites, 2).allocation(8), Binding("0" * 64, "1" * 64)
    return encode(cloud.adapter.factors(), cloud.adapter.dense(), rank, other, {"kind": "classify"})


def without_head(cloud: Cloud) -> Payload:
    rank = RankVector.uniform(cloud.adapter.sites, 2).allocation(8)
    return encode(cloud.adapter.factors(), {}, rank, cloud.packer.binding, {"kind": "classify"})


def a_site_less(cloud: Cloud) -> Payload:
    factors = dict(list(cloud.adapter.factors().items())[1:])
    rank = RankVector((9,) * len(factors)).allocation(8)
    return encode(factors, cloud.adapter.dense(), rank, cloud.packer.binding, {"kind": "classify"})


REFUSALS: Mapping[str, tuple[str, str]] = {
    "truncated": ("PayloadError", "bytes"),
    "altered": ("PayloadError", "SHA-256"),
    "newer": ("PayloadError", "format version 3, this airtune reads 1 and 2; update airtune"),
    "no payload": ("PayloadError", "magic"),
    "other base": ("PayloadError", "base model"),
    "no head": ("PayloadError", "holds no head"),
    "other head": ("PayloadError", "head"),
    "other sites": ("PayloadError", "sites differ"),
}


@pytest.fixture(scope="module")
def bad(cloud, folder) -> dict[str, Payload]:
    large = Cloud(folder, seed=6, max_rank=9)
    good = cloud.payload(2).data
    return {
        "truncated": Payload(good[:-1]),
        "altered": Payload(altered(good, len(good) // 2)),
        "newer": Payload(good[:4] + b"\x03\x00" + good[6:]),
        "no payload": Payload(b"PK\x03\x04" + good[4:]),
        "other base": for_other_binding(cloud),
        "no head": without_head(cloud),
        "other head": Cloud(folder, seed=7, max_rank=9, labels=3).payload(9),  # larger: there was no room for it
        "other sites": a_site_less(large),
    }


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refused_adapter_leaves_the_one_in_use(edge, cloud, bad, name):
    payload = cloud.payload(3)
    edge.request(adapter_message(payload, 1))
    before = asked(edge, payload, 2)
    with pytest.raises(AirtuneError) as caught:
        edge.request(adapter_message(bad[name], 3))
    kind, words = REFUSALS[name]
    assert type(caught.value).__name__ == kind
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    after = asked(edge, payload, 4)
    assert after[:2] == before[:2]
    assert np.array_equal(after[2], before[2])
    with pytest.raises(PayloadError, match="send that one first"):
        asked(edge, bad[name], 5)


def test_refusals_do_not_stand_in_the_way_of_what_follows(edge, cloud, bad):
    for number, payload in enumerate(bad.values()):
        with pytest.raises(PayloadError):
            edge.request(adapter_message(payload, number))
    with pytest.raises(PayloadError, match="the adapter in use is none"):
        asked(edge, cloud.payload(2))
    edge.request(adapter_message(cloud.payload(2), 99))
    assert_scores(asked(edge, cloud.payload(2)), cloud.score(cloud.payload(2)))


def test_a_manifest_of_another_payload_is_refused(edge, cloud):
    message = adapter_message(cloud.payload(2), 0)
    with pytest.raises(PayloadError, match=r"SHA-256 is [0-9a-f]{12}, its manifest says [0-9a-f]{12}; send it again"):
        edge.request(Message("adapter", "x", message.header, cloud.payload(3).data))
    with pytest.raises(PayloadError, match="its manifest says None"):
        edge.request(Message("adapter", "y", {}, cloud.payload(3).data))


def test_a_score_of_what_is_not_applied_is_refused(edge, cloud):
    first, second = cloud.payload(1), cloud.payload(2)
    with pytest.raises(PayloadError, match="the adapter in use is none, not"):
        asked(edge, first)
    edge.request(adapter_message(first, 0))
    edge.request(adapter_message(second, 1))
    with pytest.raises(PayloadError, match=f"in use is {second.sha256[:12]}, not {first.sha256[:12]}"):
        asked(edge, first)


def test_an_unknown_message_names_those_an_edge_answers(edge):
    with pytest.raises(TransportError, match="'adaptor'; an edge answers hello, adapter and score"):
        edge.request(Message("adaptor", "1", {}))


class Counted:
    """An edge that counts what reaches it."""

    def __init__(self, role: EdgeRole) -> None:
        self.role, self.kinds = role, list[str]()

    def handle(self, message: Message) -> Message:
        self.kinds.append(message.kind)
        return self.role.handle(message)


def test_a_repeated_message_is_answered_from_memory_and_a_refused_one_is_tried_again(cloud, folder):
    base = load_base(folder, "classify", seed=2)
    counted = Counted(EdgeRole(base, items(base)))
    edge = Loopback(Idempotent(counted))
    payload = cloud.payload(2)
    with pytest.raises(PayloadError):
        asked(edge, payload)
    first = edge.request(adapter_message(payload, 0))
    assert edge.request(adapter_message(payload, 0)) == first
    scores = asked(edge, payload)  # the id that was refused before
    assert_scores(asked(edge, payload), scores)
    assert counted.kinds == ["score", "adapter", "score"]
    edge.request(adapter_message(payload, 1))  # another round is another message
    assert counted.kinds == ["score", "adapter", "score", "adapter"]


@pytest.mark.parametrize("rank", [0, 1, 4])
def test_the_message_weighs_what_was_planned(cloud, rank):
    payload = cloud.payload(rank)
    ranks = RankVector.uniform(cloud.adapter.sites, rank)
    assert cloud.packer.payload_bits(ranks) == payload.bits
    for round in (0, 7, 10**9):
        assert air_bits(adapter_message(payload, round)) == payload.bits + adapter_overhead_bits()
    assert cloud.packer.air_bits(ranks) == payload.bits + adapter_overhead_bits()


class Says:
    """An edge that answers every question the same way."""

    def __init__(self, header: Mapping[str, object], body: bytes) -> None:
        self._header, self._body = header, body

    def handle(self, message: Message) -> Message:
        return message.reply("score", self._header, self._body)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("header", "body", "words"),
    [
        ({}, b"", "the edge's score is None"),
        ({"score": "1.0", "loss": 0.5}, bytes(16), "'1.0'"),
        ({"score": 1.0, "loss": 0.5}, bytes(15), "15 bytes of logits, not 16"),
        ({"score": 1.0, "loss": 0.5}, bytes(20), "20 bytes of logits, not 16"),
    ],
)
def test_an_answer_that_is_no_score_is_refused(cloud, header, body, words):
    with pytest.raises(TransportError, match=words):
        ask_score(Loopback(Says(header, body)), cloud.payload(1), 0, logits=4)


def test_changes_apply_once_in_order_and_not_after_a_restart(edge, cloud, folder):
    """The sender knows from what it sent what the edge holds; scores are of the decoded payloads, computed here."""
    binding = cloud.packer.binding
    first = Draft(Quantiser(cloud.adapter.factors(), cloud.adapter.dense(), canonical=True).at(1e-3), binding, {})
    sent = [first.encode(first.sizes.ranks)]
    held = [decode(sent[0].data, binding).held]
    for seed in (11, 12):
        new = Cloud(folder, seed=seed).adapter
        changes = Draft(Refiner(held[-1], new.factors(), new.dense()).at(1e-3), binding, {})
        sent.append(changes.encode(changes.sizes.ranks))
        held.append(decode(sent[-1].data, binding, since=held[-1]).held)
    check = load_base(folder, "classify", seed=3)
    adapter = Adapter(check, 16, generator=torch.Generator().manual_seed(0))
    for number, (payload, state) in enumerate(zip(sent, held, strict=True)):
        if number:
            with pytest.raises(PayloadError, match="this receiver holds none"):
                Loopback(EdgeRole(load_base(folder, "classify"), items(check))).request(adapter_message(payload, 9))
        edge.request(adapter_message(payload, number))
        adapter.load(
            {name: site.factors() for name, site in state.sites.items()},
            {name: tensor.tensor() for name, tensor in state.dense.items()},
        )
        expected = score(check.model, items(check))
        before = asked(edge, payload, 10 + number)
        assert_scores(before, (expected.metric, expected.loss, expected.logits[:PROBE_ITEMS].ravel()))
        for wrong in [sent[1]] * (number != 0) + [sent[2]] * (number != 1):
            with pytest.raises(PayloadError, match=f"changes adapter .*, this receiver holds {state.name.hex()}"):
                edge.request(adapter_message(wrong, 20 + number))
            assert_scores(asked(edge, payload, 30 + number), before)
