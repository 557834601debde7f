"""Upload once and infer, against a server of a few lines and transports that lose, double and delay messages."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np
import pytest
import torch

from airtune.errors import ConfigError, DataError, LinkError, ModelError, RefusedError, TransportError
from airtune.ledger import Ledger
from airtune.links import Link
from airtune.methods.pae_mobillm.device.asking import ATTEMPTS
from airtune.methods.pae_mobillm.device.device import Device
from airtune.methods.pae_mobillm.device.differences import prediction_differences
from airtune.methods.pae_mobillm.device.flops import forward_flops, side_flops
from airtune.methods.pae_mobillm.device.pivots import identity_of, read_pivots
from airtune.methods.pae_mobillm.device.upload import sample_ids, uplink_bits
from airtune.methods.pae_mobillm.identity import Identity
from airtune.methods.pae_mobillm.side import SideNetwork
from airtune.methods.pae_mobillm.wire import as_received, decode_samples
from airtune.models import BaseModel, Items, load_base, score
from airtune.transport import Loopback, Message, OverTheAir, Transport
from tiny_models import save_tiny_model

SETTINGS = {"bottleneck": 4}


class Shelf:
    """A server in a few lines: rows by id, and a side network trained on them."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[bytes, bytes]] = {}
        self.arrived: list[list[int]] = []
        self.asked: list[str] = []
        self.gone: dict[int, int] = {}
        self.requests = 0
        self.identity: Identity | None = None

    def handle(self, message: Message) -> Message:
        self.asked.append(message.kind)
        return getattr(self, f"on_{message.kind}")(message)

    def on_open(self, message: Message) -> Message:
        identity = Identity.of_header(message.header["identity"])
        if self.identity is not None:
            self.identity.check(identity)
        else:
            self.identity = identity
            seed = torch.Generator().manual_seed(message.header["seed"])
            rank = message.header["side"]["bottleneck"]
            self.side = SideNetwork(len(identity.layers), identity.width, rank, identity.outputs, generator=seed)
        return message.reply("opened", {"held": len(self.rows), "requests": self.requests})

    def on_have(self, message: Message) -> Message:
        ids = np.frombuffer(message.body, "<u8").tolist()
        held, after = [one in self.rows for one in ids], message.header.get("again", 0)
        gone = [self.gone.get(one, 0) > after and one not in self.rows for one in ids]
        return message.reply("have", {}, np.packbits(held).tobytes() + np.packbits(gone).tobytes())

    def on_samples(self, message: Message) -> Message:
        count, several = message.header["count"], message.header["several"]
        assert message.header["key"] == self.identity.key
        samples = decode_samples(message.body, count, self.identity, several=several)
        for one, at in samples.rows_of():
            row = samples.activations[at].tobytes(), samples.differences[at].tobytes()
            if self.gone.get(one, 0) > message.header.get("again", 0):
                continue
            if self.rows.setdefault(one, row) != row:
                raise TransportError(f"sample {one} came before with other content; send each once")
        self.arrived.append(samples.ids.tolist())
        return message.reply("samples", {})

    def on_forget(self, message: Message) -> Message:
        asked = np.frombuffer(message.body, "<u8").tolist()
        gone = [self.rows.pop(one, None) for one in asked]
        self.requests += 1
        self.gone |= dict.fromkeys(asked, self.requests)
        return message.reply(
            "forgotten", {"forgotten": sum(row is not None for row in gone), "requests": self.requests}
        )

    def on_train(self, message: Message) -> Message:
        activations, differences = (torch.from_numpy(one) for one in self.cached(sorted(self.rows)))
        optimiser = torch.optim.Adam(self.side.parameters(), 0.01)
        for _ in range(message.header["until"]):
            optimiser.zero_grad()
            ((self.side(activations) - differences) ** 2).mean().backward()
            optimiser.step()
        return message.reply("trained", {"epoch": message.header["until"]})

    def on_side(self, message: Message) -> Message:
        return message.reply("side", {}, self.side.to_bytes())

    def cached(self, ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
        layers, width, outputs = len(self.identity.layers), self.identity.width, self.identity.outputs
        activations = b"".join(self.rows[one][0] for one in ids)
        differences = b"".join(self.rows[one][1] for one in ids)
        return (
            np.frombuffer(activations, np.float32).reshape(-1, layers, width).copy(),
            np.frombuffer(differences, np.float32).reshape(-1, outputs).copy(),
        )


class Flaky:
    """Loses requests, loses replies, doubles requests, and delivers some once more much later."""

    def __init__(self, inner: Transport, rng: np.random.Generator) -> None:
        self.inner, self.rng = inner, rng
        self.late: list[Message] = []
        self.happened: set[str] = set()

    def request(self, message: Message) -> Message:
        fate = self.rng.choice(["lost", "unanswered", "doubled", "late", "fine", "fine"])
        self.happened.add(str(fate))
        if fate == "lost":
            raise TransportError("the request was lost")
        reply = self.inner.request(message)
        if fate == "unanswered":
            raise TransportError("the reply was lost")
        if fate == "doubled":
            self.inner.request(message)
        if fate == "late":
            self.late.append(message)
        elif self.late and self.rng.random() < 0.5:
            self.inner.request(self.late.pop(0))
        return reply


class Breaking:
    """Delivers so many samples messages, then nothing any more."""

    def __init__(self, inner: Transport, after: int) -> None:
        self.inner, self.left, self.tried = inner, after, 0

    def request(self, message: Message) -> Message:
        if message.kind == "samples":
            self.left -= 1
        if self.left < 0:
            self.tried += 1
            raise TransportError("no connection")
        return self.inner.request(message)


def drawn_items(count: int, *, text: bool = False, seed: int = 0) -> Items:
    rng = np.random.default_rng(seed)
    ids = tuple(np.array([2, *rng.integers(4, 22, 6 if text else rng.integers(1, 8)), 3]) for _ in range(count))
    return Items(ids, None if text else rng.integers(0, 3, count), 0)


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, BaseModel]:
    return {
        "classify": load_base(
            str(save_tiny_model(tmp_path_factory.mktemp("c"), "bert", kind="classify")), "classify", labels=3
        ),
        "text": load_base(str(save_tiny_model(tmp_path_factory.mktemp("t"), "llama")), "text"),
    }


@pytest.fixture
def base(bases) -> BaseModel:
    return bases["classify"]


ITEMS = drawn_items(30)


def made(base: BaseModel, transport: Transport, bits: tuple[int, int] = (8, 16), **options: object) -> Device:
    space = options.pop("space", "logit")
    identity = identity_of(base, (1, 2), bits, length=10, outputs=options.pop("outputs", None), space=space)
    options = {"name": "phone", "batch_size": 8, "sleep": lambda seconds: None, **options}
    device = Device(base, identity, transport, **options)
    return device


def opened(base: BaseModel, shelf: Shelf, **options: object) -> Device:
    device = made(base, Loopback(shelf), **options)
    device.open(SETTINGS, 0)
    return device


def test_every_sample_is_sent_once(base):
    shelf = Shelf()
    device = opened(base, shelf)
    found = device.upload(ITEMS)
    # 30 samples of 8 + (16 + 4) + 2 * 16 + 4 * 3 bytes in batches of 8, 8, 8 and 6
    assert dataclasses.astuple(found) == (30, 0, 4, 30 * 72, 0, 0, 0)
    assert set(shelf.rows) == set(sample_ids("phone", ITEMS).tolist())
    assert shelf.asked == ["open", "have", *["samples"] * 4]
    assert [len(batch) for batch in shelf.arrived] == [8, 8, 8, 6]


def test_a_second_pass_sends_nothing(base):
    shelf = Shelf()
    device = opened(base, shelf)
    device.upload(ITEMS)
    asked = len(shelf.asked)
    assert dataclasses.astuple(device.upload(ITEMS)) == (0, 30, 0, 0, 0, 0, 0)
    assert len(shelf.asked) == asked
    # neither does another process of the same device: it asks, and that is all
    again = opened(base, shelf)
    assert dataclasses.astuple(again.upload(ITEMS)) == (0, 30, 0, 0, 0, 0, 0)
    assert shelf.asked[asked:] == ["open", "have"]


def test_what_is_sent_is_what_was_read(base):
    shelf = Shelf()
    device = opened(base, shelf)
    device.upload(ITEMS)
    ids = sample_ids("phone", ITEMS)
    for rows in ITEMS.in_order(8):
        read = read_pivots(base, ITEMS, rows, (1, 2))
        activations, differences = shelf.cached(ids[rows].tolist())
        assert np.array_equal(activations[:, 1], read.activations[:, 1].astype(np.float16).astype(np.float32))
        onehot = np.eye(3)[ITEMS.classes[rows]]
        centred = read.logits - read.logits.mean(1, keepdims=True)
        np.testing.assert_allclose(differences, 4 * (onehot - 1 / 3) - centred, atol=1e-5)


@pytest.mark.parametrize("kind", ["classify", "text"])
def test_the_air_carries_what_the_formula_says(bases, kind):
    # at 16 bits N (8 + 2 L d + 4 C); with 7 pivots a window N (8 + 4 + 7 (2 L d + 4 C))
    shelf, ledger, text = Shelf(), Ledger(), kind == "text"
    link = Link(1e6, 0.0)
    air = OverTheAir(Loopback(shelf), link, ledger, "device", lambda: link.mean_state)
    items = drawn_items(30, text=text)
    device = made(bases[kind], air, bits=(16, 16))
    device.open(SETTINGS, 0)
    found = device.upload(items)
    one = 2 * 2 * 16 + 4 * (32 if text else 3)
    assert found.body_bytes == 30 * (8 + 4 + 7 * one if text else 8 + one)
    on_air = sum(row["amount"] for row in ledger.rows() if row["what"] == "samples" and row["quantity"] == "bits")
    rows = 30 * 7 if text else 30
    assert on_air == uplink_bits(shelf.identity, 30, rows, 8, several=text)
    device.upload(items)
    assert on_air == sum(
        row["amount"] for row in ledger.rows() if row["what"] == "samples" and row["quantity"] == "bits"
    )


@pytest.mark.parametrize("seed", range(6))
def test_lost_doubled_and_late_messages_leave_the_same_samples(base, seed):
    calm, shelf = Shelf(), Shelf()
    opened(base, calm, batch_size=3).upload(ITEMS)
    flaky = Flaky(Loopback(shelf), np.random.default_rng(seed))
    waits: list[float] = []
    device = made(base, flaky, sleep=waits.append, batch_size=3)
    for _ in range(20):  # a run of bad luck ends a call; the next one goes on
        try:
            device.open(SETTINGS, 0)
            device.upload(ITEMS)
            break
        except TransportError:
            continue
    for message in flaky.late:
        flaky.inner.request(message)
    assert shelf.rows == calm.rows
    assert len(flaky.happened) >= 4, "too calm to tell"
    assert waits
    assert set(waits) <= {0.2, 0.4, 0.8, 1.6}


def test_a_failing_request_is_given_up_after_a_while(base):
    shelf = Shelf()
    broken = Breaking(Loopback(shelf), 2)
    waits: list[float] = []
    device = made(base, broken, sleep=waits.append)
    device.open(SETTINGS, 0)
    with pytest.raises(TransportError, match="no connection"):
        device.upload(ITEMS)
    assert broken.tried == ATTEMPTS == 5
    assert waits == [0.2, 0.4, 0.8, 1.6]
    assert len(shelf.rows) == 16


def test_what_the_server_refuses_is_not_asked_again(base):
    times = list[str]()

    class Full(Shelf):
        def handle(self, message: Message) -> Message:
            if message.kind == "samples":
                times.append(message.id)
                raise TransportError("not now")
            return super().handle(message)

    full, waits = Full(), list[float]()
    device = made(base, Loopback(full), sleep=waits.append)
    device.open(SETTINGS, 0)
    with pytest.raises(RefusedError, match="not now"):
        device.upload(ITEMS)
    assert (len(times), waits) == (1, [])


def test_a_server_without_room_is_left_with_what_it_holds(base):
    class Small(Shelf):
        def handle(self, message: Message) -> Message:
            if message.kind == "samples" and len(self.rows) >= 16:
                raise TransportError("the cache has no room for more samples, the disk is full")
            return super().handle(message)

    small = Small()
    device = opened(base, small)
    assert dataclasses.astuple(device.upload(ITEMS)) == (16, 0, 2, 16 * 72, 0, 0, 14)
    assert len(small.rows) == 16


def test_a_restart_goes_on_where_it_was(base):
    calm, shelf = Shelf(), Shelf()
    opened(base, calm).upload(ITEMS)
    device = made(base, Breaking(Loopback(shelf), 2))
    device.open(SETTINGS, 0)
    with pytest.raises(TransportError):
        device.upload(ITEMS)
    found = opened(base, shelf).upload(ITEMS)
    assert (found.samples, found.held) == (14, 16)
    sent = [one for batch in shelf.arrived for one in batch]
    assert len(sent) == len(set(sent)) == 30
    assert shelf.rows == calm.rows


def test_what_the_server_forgot_is_sent_again_after_a_restart(base):
    shelf = Shelf()
    opened(base, shelf).upload(ITEMS)
    gone = sorted(shelf.rows)[:5]
    kept = {one: shelf.rows.pop(one) for one in gone}
    assert opened(base, shelf).upload(ITEMS).samples == 5
    assert set(gone) <= set(shelf.rows)
    assert len(kept) == 5


def test_what_the_device_wants_forgotten_stays_so_until_it_is_sent_again_on_purpose(base):
    shelf = Shelf()
    device = opened(base, shelf)
    device.upload(ITEMS)
    before = dict(shelf.rows)
    device.forget(ITEMS.chosen(np.arange(10, 15)))
    gone = sample_ids("phone", ITEMS)[10:15].tolist()
    assert before.keys() - shelf.rows.keys() == set(gone)
    for other in (device, opened(base, shelf)):  # a restart is no purpose
        assert dataclasses.astuple(other.upload(ITEMS)) == (0, 25, 0, 0, 0, 5, 0)
        assert before.keys() - shelf.rows.keys() == set(gone)
    found = opened(base, shelf).upload(ITEMS, again=True)
    assert (found.samples, found.held, found.forgotten) == (5, 25, 0)
    assert shelf.rows.keys() == before.keys()


def test_all_repetitions_of_a_content_are_forgotten(base):
    """Of 21 equal items among others, whichever is named; ids by SHA-256 of name, repetition, label and tokens."""
    shelf = Shelf()
    device = opened(base, shelf)
    items = ITEMS.chosen(np.array([3, *[0] * 20, 5, 0]))
    device.upload(items)
    assert len(shelf.rows) == 23
    start = hashlib.sha256(b"phone").digest()
    content = np.array([ITEMS.classes[0], *ITEMS.ids[0]], "<i8").tobytes()
    digests = [hashlib.sha256(start + one.to_bytes(8, "little") + content).digest() for one in range(21)]
    equal = {int.from_bytes(digest[:8], "little") for digest in digests}
    assert equal < shelf.rows.keys()
    del shelf.rows[int.from_bytes(digests[0][:8], "little")]  # expired
    assert device.forget(items.chosen(np.array([7]))) == 20
    assert len(shelf.rows) == 2
    assert not equal & shelf.rows.keys()
    assert device.forget(items.chosen(np.array([22, 7, 1]))) == 0
    assert device.upload(items).forgotten == 21


def test_forgetting_that_was_broken_off_is_finished_when_asked_again(base):
    shelf = Shelf()
    device = opened(base, shelf)
    items = ITEMS.chosen(np.zeros(20, int))
    device.upload(items)

    class OneForget:
        left = 1

        def request(self, message: Message) -> Message:
            self.left -= message.kind == "forget"
            if self.left < 0:
                raise TransportError("no connection")
            return Loopback(shelf).request(message)

    with pytest.raises(TransportError, match="no connection"):
        made(base, OneForget()).forget(items)
    assert 0 < len(shelf.rows) < 20
    assert device.forget(items) == len(items) - 8
    assert not shelf.rows


def test_samples_stream_in_at_any_time(base):
    shelf, whole = Shelf(), Shelf()
    opened(base, whole).upload(ITEMS)
    device = opened(base, shelf)
    early, late = ITEMS.chosen(np.arange(12)), ITEMS.chosen(np.arange(12, 30))
    assert device.upload(early).samples == 12
    device.train(1)
    assert device.upload(late).samples == 18
    assert set(shelf.rows) == set(whole.rows)


def test_progress_counts_samples(base):
    class Counting:
        def __init__(self) -> None:
            self.told: list[object] = []

        def stage(self, name: str, total: int | None = None) -> Counting:
            self.told += [name, total]
            return self

        def __enter__(self) -> Counting:
            return self

        def __exit__(self, *_: object) -> None: ...

        def advance(self, by: int = 1, note: str = "") -> None:
            self.told.append(by)

        def say(self, line: str) -> None: ...

    watcher = Counting()
    opened(base, Shelf(), progress=watcher).upload(ITEMS)
    assert watcher.told == ["upload", 30, 8, 8, 8, 6]


@pytest.mark.parametrize("kind", ["classify", "text"])
def test_before_training_predictions_are_the_backbones(bases, kind):
    items = drawn_items(30, text=kind == "text")
    device = opened(bases[kind], Shelf())
    found, own = device.infer(items, device.side()), score(bases[kind].model, items, batch_size=8)
    if kind == "classify":  # next-token logits there are of the last token, whose next one is not known
        assert np.array_equal(found.logits, own.logits)
        assert np.array_equal(found.hits, own.hits)
    np.testing.assert_allclose(found.losses, own.losses, rtol=1e-4, atol=1e-6)
    assert found.metric == pytest.approx(own.metric, rel=1e-5)


@pytest.mark.parametrize("bits", [(8, 8), (8, 16), (32, 32)])
def test_the_device_predicts_what_the_server_does_bit_for_bit(base, bits):
    shelf = Shelf()
    device = opened(base, shelf, bits=bits)
    device.upload(ITEMS)
    device.train(20)
    side, ids = device.side(), sample_ids("phone", ITEMS)
    for rows in ITEMS.in_order(8):
        _, predicted = device.predict(ITEMS, rows, side)
        activations, _ = shelf.cached(ids[rows].tolist())
        servers = shelf.side.differences(activations)
        assert np.abs(servers).max() > 0.1
        assert np.array_equal(predicted, servers)


def test_inference_adds_the_answer_in_item_order(base):
    device = opened(base, Shelf())
    device.upload(ITEMS)
    device.train(20)
    side = device.side()
    read = read_pivots(base, ITEMS, np.arange(30), (1, 2))
    received = as_received(read.activations, identity_of(base, (1, 2), (8, 16), length=10))
    expected = read.logits + side.differences(received)
    found = device.infer(ITEMS, side)
    np.testing.assert_allclose(found.logits, expected, rtol=1e-3, atol=2e-2)
    assert found.hits.tolist() == (found.logits.argmax(1) == ITEMS.classes).tolist()
    assert found.metric > score(base.model, ITEMS).metric


def test_in_probability_space_answers_are_added_to_probabilities(base):
    shelf = Shelf()
    device = opened(base, shelf, space="probability")
    device.upload(ITEMS)
    found = device.infer(ITEMS, device.side())
    np.testing.assert_allclose(found.logits.sum(1), 1, rtol=1e-5)
    assert found.metric == score(base.model, ITEMS).metric
    _, differences = shelf.cached(sorted(shelf.rows))
    assert ((differences > 0).sum(1) == 1).all()


def test_text_has_no_perplexity_in_probability_space(bases):
    device = opened(bases["text"], Shelf(), space="probability")
    with pytest.raises(ConfigError, match=r"device\.space"):
        device.infer(drawn_items(3, text=True), device.side())


class Doubling:
    """Sends every difference twice over, minus in the second half; the answer is the first half less the second."""

    def outputs(self, outputs: int) -> int:
        return 2 * outputs

    def outgoing(
        self, ids: np.ndarray, activations: np.ndarray, differences: np.ndarray, counts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        assert ids.dtype == np.uint64
        assert len(ids) == len(counts)
        return 2 * activations, np.concatenate([differences, -differences], axis=1)

    def incoming(self, predicted: np.ndarray) -> np.ndarray:
        first, second = np.split(predicted, 2, axis=1)
        return (first - second) / 2


def test_what_is_sent_and_answered_passes_through_the_secrecy(base):
    shelf, plain = Shelf(), Shelf()
    opened(base, plain, bits=(32, 32)).upload(ITEMS)
    device = opened(base, shelf, bits=(32, 32), secrecy=Doubling(), outputs=6)
    device.upload(ITEMS)
    (activations, differences), (own, truth) = (one.cached(sorted(plain.rows)) for one in (shelf, plain))
    assert np.array_equal(activations, 2 * own)
    assert np.array_equal(differences, np.concatenate([truth, -truth], axis=1))
    shelf.side.bias.data = torch.tensor([1.0, 2.0, 3.0, 0.0, 4.0, 1.0])
    _, predicted = device.predict(ITEMS, np.arange(2), device.side())
    assert predicted.tolist() == [[0.5, -1.0, 1.0]] * 2


def test_outputs_other_than_the_secrecys_are_refused(base):
    with pytest.raises(ModelError, match="of 3 numbers, this device sends 6"):
        made(base, Loopback(Shelf()), secrecy=Doubling())


def test_costs_are_booked(base):
    ledger = Ledger()
    ticks = iter(range(1000))
    device = opened(base, Shelf(), ledger=ledger, clock=lambda: next(ticks))
    device.upload(ITEMS)
    read = sum(forward_flops(base, len(rows), int(ITEMS.lengths[rows].max())) for rows in ITEMS.in_order(8))
    assert ledger.total("flops", role="device") == read
    assert ledger.total("compute_seconds", role="device") == 4  # one tick for each of 4 batches
    device.infer(ITEMS, device.side())
    assert ledger.total("flops", role="device") == 2 * read + side_flops(2, 16, 4, 3, 30)


def test_another_backbone_is_refused_with_both_hashes(base, bases):
    shelf = Shelf()
    opened(base, shelf)
    first = shelf.identity.backbone
    base.model.classifier.bias.data[0] += 1
    try:
        device = made(base, Loopback(shelf))
        other = identity_of(base, (1, 2), (8, 16), length=10).backbone
        with pytest.raises(ModelError, match=f"backbone is {other[:12]}, the server's {first[:12]}"):
            device.open(SETTINGS, 0)
    finally:
        base.model.classifier.bias.data[0] -= 1


def test_an_error_of_another_kind_is_not_repeated(base):
    class Refusing:
        asked = 0

        def request(self, message: Message) -> Message:
            self.asked += 1
            raise LinkError("no")

    refusing = Refusing()
    with pytest.raises(LinkError):
        made(base, refusing).open(SETTINGS, 0)
    assert refusing.asked == 1


def answering(shelf: Shelf, kind: str, answer: Callable[[Message], bytes]) -> Shelf:
    setattr(shelf, f"on_{kind}", lambda message: message.reply(kind, {}, answer(message)))
    return shelf


def test_many_ids_are_asked_about_in_parts(base, monkeypatch):
    from airtune.methods.pae_mobillm.device import asking as module

    monkeypatch.setattr(module, "IDS_AT_ONCE", 7)
    shelf = Shelf()
    opened(base, shelf).upload(ITEMS.chosen(np.arange(9)))
    shelf.asked.clear()
    device = opened(base, shelf)
    assert device.upload(ITEMS).held == 9
    assert shelf.asked.count("have") == 5
    device.forget(ITEMS)
    assert shelf.asked.count("forget") == 5  # 30 ids
    assert not shelf.rows


def test_an_answer_of_the_wrong_length_is_refused(base):
    device = opened(base, answering(Shelf(), "have", lambda message: b"\0"))
    with pytest.raises(TransportError, match="answered 30 ids with 1 bytes, 8 expected"):
        device.upload(ITEMS)


def test_a_side_network_of_another_size_is_refused(base):
    seed = torch.Generator().manual_seed(0)
    other = SideNetwork(3, 16, 4, 3, generator=seed).to_bytes()
    device = opened(base, answering(Shelf(), "side", lambda message: other))
    with pytest.raises(TransportError, match="ask for it again"):
        device.side()
    with pytest.raises(TransportError, match="cannot be read"):
        opened(base, answering(Shelf(), "side", lambda message: b"torn")).side()
    wider = SideNetwork(2, 16, 5, 3, generator=seed).to_bytes()
    with pytest.raises(TransportError, match=r"'down': \(2, 16, 5\).* expected finite float32 .*'down': \(2, 16, 4\)"):
        opened(base, answering(Shelf(), "side", lambda message: wider)).side()


def test_a_backbone_that_is_not_finite_sends_nothing(base):
    shelf = Shelf()
    device = opened(base, shelf)
    weight = base.model.classifier.weight
    kept = weight.data.clone()
    weight.data[0, 0] = torch.nan
    try:
        with pytest.raises(DataError, match="difference is not finite"):
            device.upload(ITEMS)
    finally:
        weight.data = kept
    assert not shelf.rows


def test_batches_beyond_a_message_are_refused_before_they_are_sent(base, monkeypatch):
    from airtune.methods.pae_mobillm.device import device as module
    from airtune.transport import Limits

    monkeypatch.setattr(module, "DEFAULT_LIMITS", Limits(body_bytes=100))
    shelf = Shelf()
    with pytest.raises(TransportError, match=r"8 samples take 576 bytes, a message at most 100; lower device\.batch"):
        opened(base, shelf).upload(ITEMS)
    assert "samples" not in shelf.asked


def test_the_same_question_later_is_another_message(base):
    seen: list[str] = []

    class Noting:
        def request(self, message: Message) -> Message:
            seen.append(message.id)
            return message.reply("side", {}, SideNetwork(2, 16, 4, 3, generator=torch.Generator()).to_bytes())

    made(base, Noting()).side()
    made(base, Noting(), session="a").side()
    again = made(base, Noting(), session="a")
    again.side()
    again.side()
    assert seen[1] == seen[2]
    assert len(set(seen)) == 3


def test_differences_of_text_are_over_the_vocabulary(bases):
    items = drawn_items(4, text=True)
    shelf = Shelf()
    device = opened(bases["text"], shelf)
    device.upload(items)
    read = read_pivots(bases["text"], items, items.in_order(8)[0], (1, 2))
    ids = sample_ids("phone", items)[items.in_order(8)[0]].tolist()
    expected = prediction_differences(read.logits, read.targets, space="logit", scale=4.0)
    assert np.array_equal(shelf.cached(ids)[1], expected)
    assert expected.shape == (28, 32)
