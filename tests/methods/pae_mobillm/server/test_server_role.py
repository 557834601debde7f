"""The server message by message: what it answers, each refusal, and that it goes on where the last one ended."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from server_material import SIDE, body, drawn, identity

from airtune.errors import AirtuneError, BusyError, ConfigError, DataError, ModelError, RunError, TransportError
from airtune.methods.pae_mobillm.building import server_role
from airtune.methods.pae_mobillm.config import MAX_EPOCHS, load_config
from airtune.methods.pae_mobillm.identity import Identity
from airtune.methods.pae_mobillm.server.binding import Binding
from airtune.methods.pae_mobillm.server.role import ServerRole
from airtune.methods.pae_mobillm.server.training import Training
from airtune.methods.pae_mobillm.side import SideNetwork
from airtune.transport import Http, HttpServer, Message, message_id

IDENTITY = identity()
KEY = IDENTITY.key
OPENING = Binding(IDENTITY, SIDE, 5).as_header()


def ask(role: ServerRole, kind: str, header: dict | None = None, content: bytes = b"") -> Message:
    header = {"key": KEY, **(header or {})}
    return role.handle(Message(kind, message_id(kind, header, content), header, content))


def ids(*values: int) -> bytes:
    return np.array(values, "<u8").tobytes()


def send(role: ServerRole, which: list[int], of: Identity = IDENTITY, **drawing) -> dict:
    header = {"key": of.key, "count": len(which), "several": "counts" in drawing}
    return dict(ask(role, "samples", header, body(which, of, **drawing)).header)


@pytest.fixture
def role(tmp_path: Path):
    with ServerRole(tmp_path / "store") as found:
        ask(found, "open", OPENING)
        yield found


def test_a_whole_conversation(tmp_path):
    with ServerRole(tmp_path) as role:
        assert ask(role, "open", OPENING).header == {"key": KEY, "cached": 0, "epoch": 0, "requests": 0}
        assert send(role, [1, 2, 3, 4, 5]) == {"stored": 5, "known": 0, "forgotten": 0}
        assert send(role, [5, 6], counts=[1, 2]) == {"stored": 1, "known": 1, "forgotten": 0}
        have = ask(role, "have", {}, ids(1, 7, 6, 0, 2, 2, 9, 8, 5))
        assert have.body == bytes([0b10101100, 0b10000000, 0, 0])
        trained = ask(role, "train", {"until": 2})
        assert (trained.kind, trained.header["epoch"], trained.header["rows"]) == ("trained", 2, [7, 7])
        side = ask(role, "side")
        assert (side.kind, side.header) == ("side", {"epoch": 2})
        assert ask(role, "forget", {}, ids(6, 1, 99)).header == {"forgotten": 2, "requests": 1}
        assert ask(role, "have", {}, ids(1, 7, 2, 99)).body == bytes([0b00100000, 0b10010000])
        assert send(role, [5, 6], counts=[1, 2]) == {"stored": 0, "known": 1, "forgotten": 1}  # a late copy
        assert ask(role, "train", {"until": 3}).header["rows"] == [7, 7, 4]
        assert ask(role, "open", OPENING).header == {"key": KEY, "cached": 4, "epoch": 3, "requests": 1}
        assert (
            ask(role, "samples", {"count": 1, "several": False, "again": 1}, body([1], IDENTITY)).header["stored"] == 1
        )
        for again in (0, 2, True, "1"):
            with pytest.raises(TransportError, match=r"again is .* from 1 to 1"):
                ask(role, "samples", {"count": 1, "several": False, "again": again}, body([99], IDENTITY))


def test_the_weights_are_those_trained_on_the_samples_directly(tmp_path, role):
    """Sent twice, in other groups and out of order: the same network as from arrays."""
    for some in ([3, 1], [5, 2, 4], [1, 3], [4, 5]):
        send(role, some)
    losses = ask(role, "train", {"until": 3}).header["losses"]
    direct = Training(tmp_path / "direct", IDENTITY, Binding(IDENTITY, SIDE, 5).plan)

    class Directly:
        def ids(self):
            return np.arange(1, 6, dtype=np.uint64)

        def rows(self, which):
            return role._bound.cache.rows(which)

    assert [epoch.loss for epoch in direct.until(Directly(), 3)] == losses
    sizes = {"layers": 3, "width": 6, "outputs": 3}
    came = SideNetwork.of_bytes(ask(role, "side").body, **sizes)
    rows = drawn(range(4), IDENTITY).activations
    np.testing.assert_array_equal(came.differences(rows), direct.network.differences(rows))
    assert came.differences(rows).any()


def test_the_network_starts_at_zero(role):
    side = SideNetwork.of_bytes(ask(role, "side").body, layers=3, width=6, outputs=3)
    assert not side.differences(drawn(range(4), IDENTITY).activations).any()


def test_training_asked_again_answers_from_history(role):
    send(role, [1, 2, 3])
    first = ask(role, "train", {"until": 3}).header
    side = ask(role, "side").body
    assert ask(role, "train", {"until": 3}).header == first
    assert ask(role, "train", {"until": 2}).header["losses"] == first["losses"][:2]
    ask(role, "forget", {}, ids(1, 2, 3))
    assert ask(role, "train", {"until": 3}).header == first  # nothing is cached, nothing is needed
    assert ask(role, "side").body == side
    with pytest.raises(DataError, match="nothing is cached"):
        ask(role, "train", {"until": 4})


def test_a_new_server_on_the_store_goes_on_in_upload_and_training(tmp_path):
    with ServerRole(tmp_path / "one") as unbroken:
        ask(unbroken, "open", OPENING)
        send(unbroken, list(range(9)))
        expected = ask(unbroken, "train", {"until": 4}).header
        side = ask(unbroken, "side").body
    with ServerRole(tmp_path / "two") as first:
        ask(first, "open", OPENING)
        send(first, [0, 1, 2, 3])
    with ServerRole(tmp_path / "two") as second:  # in mid-upload; it needs no open, it is bound
        assert ask(second, "have", {}, ids(*range(9))).body == bytes([0b11110000, 0, 0, 0])
        send(second, [3, 4, 5, 6, 7, 8])
        ask(second, "train", {"until": 2})
    with ServerRole(tmp_path / "two") as third:
        assert ask(third, "open", OPENING).header == {"key": KEY, "cached": 9, "epoch": 2, "requests": 0}
        assert ask(third, "train", {"until": 4}).header == expected
        assert ask(third, "side").body == side


def test_a_server_stopped_between_epochs_loses_none_of_them(tmp_path, monkeypatch):
    with ServerRole(tmp_path) as role:
        ask(role, "open", OPENING)
        send(role, [1, 2, 3])
        whole = Training._train_epoch

        def stop_in_the_third(training, source):
            if len(training.history) == 2:
                raise KeyboardInterrupt
            whole(training, source)

        monkeypatch.setattr(Training, "_train_epoch", stop_in_the_third)
        with pytest.raises(KeyboardInterrupt):
            ask(role, "train", {"until": 4})
        monkeypatch.undo()
    with ServerRole(tmp_path) as role:
        assert ask(role, "open", OPENING).header["epoch"] == 2
        assert ask(role, "train", {"until": 4}).header["epoch"] == 4


def test_samples_expire_by_the_role_s_clock(tmp_path):
    now = [1000.0]
    with ServerRole(tmp_path, keep_s=60.0, clock=lambda: now[0]) as role:
        ask(role, "open", OPENING)
        send(role, [1])
        now[0] = 1030.0
        send(role, [2])
        now[0] = 1061.0
        assert ask(role, "have", {}, ids(1, 2)).body == bytes([0b01000000, 0])
        assert ask(role, "train", {"until": 1}).header["rows"] == [1]
        now[0] = 1100.0
        with pytest.raises(DataError, match="nothing is cached"):
            ask(role, "train", {"until": 2})
        assert ask(role, "open", OPENING).header["cached"] == 0


def test_what_expired_while_no_server_ran_is_gone_when_one_starts(tmp_path):
    now = [1000.0]
    with ServerRole(tmp_path, keep_s=60.0, clock=lambda: now[0]) as role:
        ask(role, "open", OPENING)
        send(role, [1])
    now[0] = 2000.0
    with ServerRole(tmp_path, keep_s=60.0, clock=lambda: now[0]):
        pass
    content = drawn([1], IDENTITY).differences.tobytes()
    assert not [file for file in tmp_path.iterdir() if content in file.read_bytes()]


def test_what_a_killed_server_left_half_written_goes_when_the_next_starts(role, tmp_path):
    leftover = tmp_path / "store" / ".side-000003.safetensors.12-34.partial"
    leftover.write_bytes(b"half")
    with pytest.raises(BusyError):
        ServerRole(tmp_path / "store")
    assert leftover.exists()  # it may be the running one's
    role.close()
    ServerRole(tmp_path / "store").close()
    assert not leftover.exists()


def test_an_opening_that_cannot_be_saved_leaves_the_store_free(tmp_path, monkeypatch):
    def fail(path: Path, text: str) -> None:
        raise RunError(f"cannot write {path}")

    with ServerRole(tmp_path) as role:
        monkeypatch.setattr("airtune.methods.pae_mobillm.server.binding.write_text", fail)
        with pytest.raises(RunError, match="cannot write"):
            ask(role, "open", OPENING)
        monkeypatch.undo()
        assert ask(role, "open", OPENING).header["cached"] == 0


def test_a_full_cache_answers_and_training_goes_on(tmp_path):
    wide = identity(width=500, bits=(32,))
    with ServerRole(tmp_path, disk_mb=0.1) as role:
        role.handle(Message("open", "one", Binding(wide, SIDE, 5).as_header()))
        sent, refusal = 0, ""
        while not refusal:
            try:
                sent += send(role, list(range(sent, sent + 5)), wide)["stored"]
            except TransportError as error:
                refusal = str(error)
        assert "no room for more samples" in refusal
        assert 20 <= sent < 50
        assert ask(role, "train", {"key": wide.key, "until": 1}).header["rows"] == [sent]
        ask(role, "forget", {"key": wide.key}, ids(0, 1, 2, 3, 4))
        assert send(role, list(range(sent, sent + 5)), wide)["stored"] == 5


def test_samples_leave_room_for_two_checkpoints_on_the_disk(tmp_path, monkeypatch):
    """Of a network of 3 (2 x 6 x 3 + 1) + 7 x 3 numbers, with AdamW's two moments of each in 4 bytes, and 2^16."""
    free = [10**9]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free[0]))
    two = 2 * (3 * 4 * (3 * 37 + 21) + 2**16)
    with ServerRole(tmp_path) as role:
        ask(role, "open", OPENING)
        send(role, [1, 2])
        free[0] = two
        with pytest.raises(
            TransportError, match=r"^the cache has no room .* the room that training needs the disk is full"
        ):
            send(role, [3])
        assert send(role, [1, 2])["known"] == 2  # needs none
        free[0] = two + 2 * len(body([3], IDENTITY))
        assert send(role, [3])["stored"] == 1
        ask(role, "train", {"until": 2})
    size = max(file.stat().st_size for file in tmp_path.glob("side-*.safetensors"))
    assert 3 * 4 * (3 * 37 + 21) < size < two / 2


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (Binding(identity(backbone="d" * 64), SIDE, 5), "backbone is dddddddddddd, the server's aaaaaaaaaaaa"),
        (Binding(identity(template="d" * 64), SIDE, 5), "template is dddddddddddd, the server's cccccccccccc"),
        (Binding(identity(bits=(8, 8, 32)), SIDE, 5), r"bits is \(8, 8, 32\), the server's \(16, 8, 32\)"),
        (Binding(IDENTITY, replace(SIDE, bottleneck=9), 5), "bottleneck is 9, the server's 3"),
        (Binding(IDENTITY, replace(SIDE, loss="huber"), 5), "loss is huber, the server's mse"),
        (Binding(IDENTITY, SIDE, 6), "seed is 6, the server's 5"),
    ],
)
def test_a_device_of_another_kind_is_refused_by_both_values(role, tmp_path, other, named):
    with pytest.raises(ModelError, match=f"the device's {named}"):
        ask(role, "open", other.as_header())
    role.close()
    with ServerRole(tmp_path / "store") as again, pytest.raises(ModelError, match=f"the device's {named}"):
        ask(again, "open", other.as_header())


def test_more_epochs_are_no_other_settings(role):
    answer = ask(role, "open", Binding(IDENTITY, replace(SIDE, epochs=99), 5).as_header())
    assert answer.header["key"] == KEY


def test_another_key_is_refused_by_both(role):
    other = identity(tokenizer="e" * 64).key
    for kind in ("samples", "have", "forget", "train", "side"):
        with pytest.raises(ModelError, match=f"for identity {other[:12]}, the server holds {KEY[:12]}"):
            ask(role, kind, {"key": other})
    with pytest.raises(ModelError, match="for identity None"):
        ask(role, "side", {"key": None})


def test_before_the_first_open_nothing_is_answered(tmp_path):
    with ServerRole(tmp_path) as role, pytest.raises(TransportError, match=r"not open.*send open first"):
        ask(role, "side")


def test_an_unknown_kind_is_refused(role):
    with pytest.raises(TransportError, match="'score'; a server answers open, samples, have, forget, train, side"):
        ask(role, "score")


@pytest.mark.parametrize(
    ("changes", "error", "line"),
    [
        ({"identity": None}, TransportError, "needs identity, side and seed"),
        ({"identity": {}}, TransportError, "identity is"),
        ({"side": 3}, TransportError, "needs identity, side and seed"),
        ({"side": {"bottleneck": 0}}, ConfigError, "side.bottleneck is 0"),
        ({"side": {"epochs": 10_001}}, ConfigError, "side.epochs is 10001"),
        ({"side": {"rank": 4}}, ConfigError, "unknown setting side.rank"),
        ({"side": {"loss": "hinge"}}, ConfigError, "side.loss"),
        ({"side": {"learning_rate": "fast"}}, ConfigError, "side.learning_rate"),
        ({"seed": None}, TransportError, "needs identity, side and seed"),
        ({"seed": True}, TransportError, "needs identity, side and seed"),
        ({"seed": -1}, TransportError, "needs identity, side and seed"),
        ({"side": {"bottleneck": 1_000_000}, "identity": {"width": 1_000_000}}, TransportError, "at most 1073741824"),
    ],
)
def test_an_opening_that_is_none_binds_nothing(tmp_path, changes, error, line):
    header = dict(OPENING)
    for name, value in changes.items():
        header[name] = {**OPENING[name], **value} if isinstance(value, dict) and value else value
    with ServerRole(tmp_path / "store") as role:
        with pytest.raises(error, match=line):
            ask(role, "open", header)
        assert not (tmp_path / "store").exists()
        ask(role, "open", OPENING)


@pytest.mark.parametrize(
    ("header", "content", "line"),
    [
        ({"count": 2, "several": None}, body([1, 2], IDENTITY), "several is None"),
        ({"count": "2", "several": False}, body([1, 2], IDENTITY), "count is '2'"),
        ({"count": True, "several": False}, body([1], IDENTITY), "count is True"),
        ({"count": 0, "several": False}, b"", "count is 0"),
        ({"count": -1, "several": False}, body([1], IDENTITY), "count is -1"),
        ({"count": 2**62, "several": False}, body([1], IDENTITY), "count is 4611686018427387904"),
        ({"count": 1, "several": False}, body([1, 2], IDENTITY), "1 samples with 1 pivots came in"),
        ({"count": 2, "several": False}, body([1, 2], IDENTITY)[:-1], "expected"),
        ({"count": 2, "several": True}, body([1, 2], IDENTITY), "pivots came in|no pivot|ends after"),
        ({"count": 2, "several": False}, body([1, 1], IDENTITY), "occurs twice"),
        ({"count": 1, "several": False}, body([1], IDENTITY)[:-4] + b"\0\0\xc0\x7f", "difference .* is not finite"),
        ({"count": 1, "several": False}, body([1], identity(width=7)), "came in"),
    ],
)
def test_samples_that_are_none_are_refused(role, header, content, line):
    with pytest.raises(TransportError, match=line):
        ask(role, "samples", header, content)
    assert ask(role, "open", OPENING).header["cached"] == 0


def test_a_known_id_with_other_content_is_refused(role):
    send(role, [1, 2])
    with pytest.raises(TransportError, match="sample 2 came again with other content"):
        send(role, [3, 2], seed=8)
    assert ask(role, "open", OPENING).header["cached"] == 2


@pytest.mark.parametrize("kind", ["have", "forget"])
@pytest.mark.parametrize("content", [b"", b"1234567", b"123456789"])
def test_ids_that_are_not_whole_are_refused(role, kind, content):
    with pytest.raises(TransportError, match=f"{kind} came with {len(content)} bytes"):
        ask(role, kind, {}, content)


@pytest.mark.parametrize("kind", ["have", "forget"])
def test_more_ids_than_a_device_asks_about_at_once_are_refused(role, kind):
    most = np.arange(65_536, dtype="<u8")
    ask(role, kind, {}, most.tobytes())
    with pytest.raises(
        TransportError, match=rf"{kind} came with 524296 bytes, at most 65536 ids of 8 bytes .* in parts"
    ):
        ask(role, kind, {}, most.tobytes() + bytes(8))


@pytest.mark.parametrize("until", [None, 0, -3, 1.0, "2", True, MAX_EPOCHS + 1])
def test_epochs_that_are_no_number_are_refused(role, until):
    send(role, [1])
    with pytest.raises(TransportError, match=f"until is .*from 1 to {MAX_EPOCHS}"):
        ask(role, "train", {"until": until})


def test_a_store_in_use_is_refused(role, tmp_path):
    with pytest.raises(BusyError, match="another server uses"):
        ServerRole(tmp_path / "store")


def test_a_store_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot use"):
        ask(ServerRole(tmp_path / "file" / "store"), "open", OPENING)


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({**OPENING, "seed": "5"})])
def test_a_damaged_binding_is_refused(role, tmp_path, text):
    role.close()
    (tmp_path / "store" / "identity.json").write_text(text)
    with pytest.raises(RunError, match=r"identity\.json is damaged"):
        ServerRole(tmp_path / "store")


def test_over_a_socket(tmp_path):
    with ServerRole(tmp_path) as role, HttpServer(role) as server, Http(server.url) as client:
        client.request(Message("open", "1", OPENING))
        header = {"key": KEY, "count": 3, "several": False}
        client.request(Message("samples", "2", header, body([1, 2, 3], IDENTITY)))
        trained = client.request(Message("train", "3", {"key": KEY, "until": 1}))
        assert trained.header["rows"] == [3]
        with pytest.raises(ModelError, match="backbone"):
            client.request(Message("open", "4", Binding(identity(backbone="d" * 64), SIDE, 5).as_header()))


def test_the_builder_reads_the_settings(tmp_path):
    config = load_config("default", {"server.store": str(tmp_path / "named"), "server.disk_mb": 0.004})
    with server_role(config, tmp_path / "other") as role, pytest.raises(TransportError, match="no room"):
        ask(role, "open", OPENING)
    assert (tmp_path / "named").is_dir()
    with server_role(load_config("default"), tmp_path / "other") as role:
        ask(role, "open", OPENING)
    assert (tmp_path / "other" / "server" / "identity.json").exists()


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["open", "samples", "have", "train", "side"]),
    changes=st.dictionaries(
        st.sampled_from(["key", "count", "several", "until", "identity", "side", "seed"]), JSON_VALUES, max_size=2
    ),
    content=st.binary(max_size=80) | st.just(body([1, 2], IDENTITY)),
)
def test_whatever_comes_is_answered_or_refused_in_one_line(role, kind, changes, content):
    header = {**OPENING, "key": KEY, "count": 2, "several": False, "until": 1, **changes}
    assume(not (type(header["until"]) is int and 3 < header["until"] <= MAX_EPOCHS))  # a lawful request, and a long one
    refusal = ""
    try:
        assert role.handle(Message(kind, "1", header, content)).kind in ("opened", "stored", "have", "trained", "side")
    except AirtuneError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert set(role._bound.cache.ids().tolist()) <= {1, 2}
