"""The cache: what it keeps bit by bit, what it refuses, what is left of what it forgot, and what a crash leaves."""

from __future__ import annotations

import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from server_material import at_wire_precision, body, drawn, identity

from airtune.errors import BusyError, ModelError, RunError, TransportError
from airtune.methods.pae_mobillm.identity import Identity
from airtune.methods.pae_mobillm.server.cache import ActivationCache
from airtune.methods.pae_mobillm.wire import row_bytes

IDENTITY = identity()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


def raw(path: Path) -> bytes:
    """Every byte of every file of the cache."""
    return b"".join(file.read_bytes() for file in path.parent.iterdir())


def put(cache: ActivationCache, which: list[int], now: float = 0.0, again: int = 0, **drawing) -> tuple[int, int]:
    several = "counts" in drawing
    return cache.put(body(which, IDENTITY, **drawing), len(which), several=several, again=again, now=now)


@pytest.mark.parametrize("memory_mb", [0.0, 1.0])
def test_rows_come_back_at_the_precision_they_travelled_in(path, memory_mb):
    which = [7, 3, 2**64 - 1, 0, 2**63]
    samples = drawn(which, IDENTITY)
    with ActivationCache(path, IDENTITY, memory_mb=memory_mb) as cache:
        assert put(cache, which) == (5, 0)
        found = cache.rows(ids(2**63, 7, 3))
    order = [4, 0, 1]
    assert found.ids.tolist() == [2**63, 7, 3]
    for at, bits in enumerate(IDENTITY.bits):
        expected = at_wire_precision(samples.activations[order, at], bits)
        np.testing.assert_array_equal(found.activations[:, at], expected)
    np.testing.assert_array_equal(found.differences, samples.differences[order])


@pytest.mark.parametrize("memory_mb", [0.0, 1.0])
def test_several_pivots_stay_with_their_sample(path, memory_mb):
    samples = drawn([5, 6, 7], IDENTITY, counts=[2, 1, 3])
    with ActivationCache(path, IDENTITY, memory_mb=memory_mb) as cache:
        put(cache, [5, 6, 7], counts=[2, 1, 3])
        found = cache.rows(ids(7, 5))
    assert found.counts.tolist() == [3, 2]
    np.testing.assert_array_equal(found.differences, samples.differences[[3, 4, 5, 0, 1]])
    np.testing.assert_array_equal(found.activations[:, 2], samples.activations[[3, 4, 5, 0, 1], 2])


def test_a_sample_sent_twice_is_there_once(path):
    with ActivationCache(path, IDENTITY) as cache:
        put(cache, [1, 2])
        before = raw(path)
        assert put(cache, [2, 1]) == (0, 2)
        assert raw(path) == before
        assert put(cache, [2, 3]) == (1, 1)
        assert cache.ids().tolist() == [1, 2, 3]
        assert len(cache) == 3


@pytest.mark.parametrize("drawing", [{"seed": 9}, {"counts": [1, 1, 2]}])
def test_other_content_under_a_known_id_is_refused_and_the_first_stays(path, drawing):
    with ActivationCache(path, IDENTITY) as cache:
        put(cache, [4])
        with pytest.raises(TransportError, match="sample 4 came again with other content"):
            put(cache, [8, 5, 4], **drawing)
        assert cache.ids().tolist() == [4]
        np.testing.assert_array_equal(cache.rows(ids(4)).differences, drawn([4], IDENTITY).differences)


def test_it_says_which_are_there(path):
    with ActivationCache(path, IDENTITY) as cache:
        many = list(range(0, 2400, 2))
        put(cache, many)
        assert cache.present(np.arange(2400, dtype=np.uint64)).tolist() == [True, False] * 1200
        assert cache.ids().tolist() == many
        assert len(cache.rows(cache.ids()).activations) == 1200
        with pytest.raises(TransportError, match="sample 1 is not cached"):
            cache.rows(ids(0, 1))


@pytest.mark.parametrize("width", [400, 768, 1200, 2700])
def test_a_row_costs_on_disk_what_it_cost_on_the_wire(path, width):
    wide = identity(width=width, bits=(16, 16))
    with ActivationCache(path, wide, memory_mb=0) as cache:
        cache.put(body(range(400), wide), 400, now=0.0)
        cache.forget(ids(0))  # empties the log
    wire = 400 * row_bytes(wide)
    assert wire < path.stat().st_size < 1.35 * wire


@pytest.mark.parametrize("width", [2, 40, 900])
def test_what_is_forgotten_is_in_no_file(path, width):
    """Many small additions and removals, so that SQLite balances its trees: plain deletion leaves rows behind."""
    of = identity(width=width, bits=(16,), outputs=3)
    rng = np.random.default_rng(width)
    contents: dict[int, bytes] = {}
    gone: list[bytes] = []
    with ActivationCache(path, of, memory_mb=0.01) as cache:
        for step in range(12):
            which = [int(one) * 7919 % 1_000_003 for one in range(20 * step, 20 * step + 20)]
            counts = rng.integers(1, 4, 20).tolist()
            cache.put(body(which, of, counts=counts), 20, several=True, now=0.0)
            samples = drawn(which, of, counts=counts)
            contents |= {one: samples.differences[rows].tobytes() for one, rows in samples.rows_of()}
            if step == 0:
                found = raw(path)
                assert all(content[:12] in found for content in contents.values())  # the search would find them
            leaving = rng.choice(list(contents), size=15, replace=False)
            assert cache.forget(leaving.astype(np.uint64)) == 15
            gone += [contents.pop(int(one)) for one in leaving]
        found = raw(path)
        assert not [content for content in gone for at in range(0, len(content), 12) if content[at : at + 12] in found]
        assert all(content[:12] in found for content in contents.values())
        assert cache.ids().tolist() == sorted(contents)
        for one, content in contents.items():
            assert cache.rows(ids(one)).differences.tobytes() == content


def test_what_is_forgotten_is_not_in_memory(path):
    with ActivationCache(path, IDENTITY) as cache:
        put(cache, [1, 2])
        assert cache.forget(ids(1, 3)) == 1
        assert cache.forget(ids(1)) == 0
        assert cache.present(ids(1, 2)).tolist() == [False, True]
        with pytest.raises(TransportError, match="sample 1 is not cached"):
            cache.rows(ids(1))
        assert put(cache, [1], seed=5) == (0, 0)  # perhaps a late copy
        assert put(cache, [1], seed=5, again=2) == (1, 0)  # a new sample
        np.testing.assert_array_equal(cache.rows(ids(1)).differences, drawn([1], IDENTITY, seed=5).differences)


def test_a_late_copy_does_not_bring_back_what_was_forgotten(path):
    """Which messages may store sample 2: those that know of its last forgetting, whatever comes in between."""
    with ActivationCache(path, IDENTITY) as cache:
        put(cache, [1, 2, 3])
        cache.forget(ids(2))
        assert put(cache, [1, 2, 3]) == (0, 2)
    with ActivationCache(path, IDENTITY) as cache:  # it is on disk
        assert put(cache, [1, 2, 3]) == (0, 2)
        assert cache.forgotten(ids(1, 2, 4)).tolist() == [False, True, False]
        assert put(cache, [1, 2, 3], again=1) == (1, 2)
        assert not cache.forgotten(ids(2)).any()
        cache.forget(ids(2, 9))  # 9 overtook its sample
        assert put(cache, [2, 9], again=1) == (0, 0)
        assert cache.ids().tolist() == [1, 3]
        assert cache.requests == 2
        assert put(cache, [2], again=2) == (1, 0)
        cache.forget(ids(1))
        assert put(cache, [2, 3], again=2) == (0, 2)


def until_full(cache: ActivationCache, of: Identity, start: int) -> int:
    """How many samples from that id on the cache takes one by one."""
    with suppress(TransportError):
        for sent in range(1000):
            cache.put(body([start + sent], of), 1, now=0.0)
    return sent


def test_a_full_cache_keeps_the_ids_that_it_forgot(path):
    wide = identity(width=500, bits=(32,))
    with ActivationCache(path, wide, memory_mb=0, disk_mb=0.1) as cache:
        sent = until_full(cache, wide, 0)
        gone = np.arange(10_000, dtype=np.uint64)
        assert cache.forget(gone) == sent
        assert cache.forgotten(gone).all()
        assert path.stat().st_size < 100_000 + 10_000 * 24
        assert until_full(cache, wide, 10_000) <= sent  # the limit is back


def test_what_expired_leaves_no_id(path):
    with ActivationCache(path, IDENTITY, keep_s=10.0) as cache:
        put(cache, [1], now=0.0)
        assert cache.expire(11.0) == 1
        assert (cache.requests, cache.forgotten(ids(1)).tolist()) == (0, [False])
        assert put(cache, [1], now=12.0) == (1, 0)


def test_samples_expire_by_the_clock_given(path):
    with ActivationCache(path, IDENTITY, keep_s=10.0) as cache:
        put(cache, [1], now=100.0)
        put(cache, [2], now=105.0)
        put(cache, [1], now=109.0)  # known: its time stays
        assert cache.expire(110.0) == 0
        assert cache.expire(110.5) == 1
        assert cache.ids().tolist() == [2]
        assert drawn([1], IDENTITY).differences.tobytes() not in raw(path)
        assert cache.expire(1000.0) == 1
    with ActivationCache(path, IDENTITY) as cache:
        put(cache, [1], now=0.0)
        assert cache.expire(1e12) == 0


def test_a_full_cache_refuses_a_message_whole_and_goes_on(path):
    wide = identity(width=500, bits=(32,))
    with ActivationCache(path, wide, memory_mb=0, disk_mb=0.2) as cache:
        stored = 0
        refusal = ""
        while not refusal:
            try:
                stored += cache.put(body(range(stored, stored + 10), wide), 10, now=0.0)[0]
            except TransportError as error:
                refusal = str(error)
        assert refusal.startswith("the cache has no room for more samples, its 0.199")
        assert "send it again" in refusal
        assert 50 <= stored <= 100  # 2 kB each
        assert cache.ids().tolist() == list(range(stored))
        last = drawn(range(stored), wide)
        np.testing.assert_array_equal(cache.rows(cache.ids()).activations, last.activations)
        assert cache.put(body(range(10), wide), 10, now=0.0) == (0, 10)  # what is there needs no room
        cache.forget(np.arange(10, dtype=np.uint64))
        assert cache.put(body(range(stored, stored + 10), wide), 10, now=0.0) == (10, 0)
        assert path.stat().st_size <= 200_000


def test_no_room_even_for_an_empty_cache_is_refused(path):
    with pytest.raises(TransportError, match="no room"):
        ActivationCache(path, IDENTITY, disk_mb=0.004)


def test_a_new_server_finds_everything(path):
    with ActivationCache(path, IDENTITY) as cache:
        put(cache, [1, 2, 3])
        cache.forget(ids(2))
    with ActivationCache(path, IDENTITY) as cache:
        assert cache.ids().tolist() == [1, 3]
        assert put(cache, [4]) == (1, 0)  # takes the slot of 2
        np.testing.assert_array_equal(cache.rows(ids(1, 3, 4)).differences, drawn([1, 3, 4], IDENTITY).differences)
    assert sqlite3.connect(path).execute("SELECT count(*) FROM slots").fetchone() == (3,)


def test_a_full_disk_is_a_full_cache(path):
    """What SQLite says of a disk without room it says of a file at its page limit."""
    with ActivationCache(path, IDENTITY) as cache:
        put(cache, [1])
        cache._disk._base.connection.execute("PRAGMA max_page_count=1").fetchall()  # taken as: no more pages than now
        with pytest.raises(TransportError, match="no room for more samples, the disk is full"):
            put(cache, list(range(2, 400)))
        assert cache.ids().tolist() == [1]
        assert cache.forget(ids(1)) == 1


def test_a_disk_without_room_to_forget_in_is_told_as_that(path, monkeypatch):
    with ActivationCache(path, IDENTITY) as cache:
        put(cache, [1, 2])

        def full(error: sqlite3.Error) -> TransportError:
            return TransportError("the cache has no room for more samples")

        monkeypatch.setattr(cache._disk._base, "_refusal", full)
        cache._disk._base.connection.execute("PRAGMA query_only=1")
        with pytest.raises(RunError, match=r"has no room to forget 1 samples in; nothing is forgotten yet; free some"):
            cache.forget(ids(1))
        cache._disk._base.connection.execute("PRAGMA query_only=0")
        np.testing.assert_array_equal(cache.rows(ids(1)).differences, drawn([1], IDENTITY).differences)
        assert cache.forget(ids(1)) == 1


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """A disk on which no file grows beyond that, for this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_log_that_cannot_be_emptied_is_no_forgetting_however_often_asked(path):
    """The zeros are committed, and fail on their way from the log into the file, which may not grow."""
    early, late = list(range(1500)), list(range(1500, 1700))
    with ActivationCache(path, IDENTITY) as cache:
        put(cache, early)
        cache.forget(ids(0))  # empties the log
        put(cache, late)
        contents = [one.tobytes() for one in drawn(late, IDENTITY).differences]  # in the log alone
        with files_no_larger_than(path.stat().st_size):
            for _ in range(3):
                with pytest.raises(RunError, match=r"log of .* cannot be emptied .*may still be read there"):
                    cache.forget(ids(*late))
                assert all(content in raw(path) for content in contents)
        assert cache.forget(ids(*late)) == 200
        assert not [content for content in contents if content in raw(path)]
        assert cache.forget(ids(*late)) == 0


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from server_material import body, identity
from airtune.methods.pae_mobillm.identity import Identity
from airtune.methods.pae_mobillm.server.cache import ActivationCache
of = identity()
cache = ActivationCache(Path(sys.argv[1]), of)
cache.put(body(range(20), of), 20, now=0.0)
base = cache._disk._base.connection
left = int(sys.argv[4])
def kill(statement):
    global left
    left -= sys.argv[3] in statement
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
base.execute("PRAGMA cache_size=1")  # so that pages leave for the log before the transaction ends
base.set_trace_callback(kill)
cache.put(body(range(20, 40), of), 20, now=0.0)
cache.forget(cache.ids()[:5])
"""


def killed_at(path: Path, statement: str, time: int) -> None:
    """A server that put 0 to 19, then 20 to 39, then forgot 0 to 4, and was killed just before this statement."""
    arguments = str(path), str(Path(__file__).parent), statement, str(time)
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_server_killed_in_mid_upload_keeps_whole_messages(path):
    killed_at(path, "INSERT INTO samples", 5)
    with ActivationCache(path, IDENTITY) as cache:
        assert cache.ids().tolist() == list(range(20))
        assert put(cache, list(range(40))) == (20, 20)
        np.testing.assert_array_equal(cache.rows(cache.ids()).differences, drawn(range(40), IDENTITY).differences)


def test_a_server_killed_while_it_forgets_ends_that_when_it_starts(path):
    killed_at(path, "wal_checkpoint", 1)
    gone = drawn(range(5), IDENTITY).differences
    assert any(row.tobytes() in raw(path) for row in gone)  # in the log
    with ActivationCache(path, IDENTITY) as cache:
        assert cache.ids().tolist() == list(range(5, 40))
        assert not any(row.tobytes() in raw(path) for row in gone)


def test_a_second_server_is_refused(path):
    with ActivationCache(path, IDENTITY), pytest.raises(BusyError, match="another server uses"):
        ActivationCache(path, IDENTITY)
    ActivationCache(path, IDENTITY).close()


def test_samples_of_another_identity_are_refused(path):
    ActivationCache(path, IDENTITY).close()
    other = identity(backbone="d" * 64)
    with pytest.raises(ModelError, match=f"{IDENTITY.key[:12]}, not {other.key[:12]}"):
        ActivationCache(path, other)


def test_a_file_that_is_no_database_is_refused(path):
    path.write_bytes(b"something else" * 1000)
    with pytest.raises(RunError, match="is damaged"):
        ActivationCache(path, IDENTITY)


@pytest.mark.parametrize("start", [100, 4096])
def test_a_damaged_database_is_refused(path, start):
    with ActivationCache(path, IDENTITY) as cache:
        put(cache, list(range(300)))
    data = bytearray(path.read_bytes())
    data[start:] = b"\xff" * (len(data) - start)
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"cache\.db is damaged .*delete it"):
        ActivationCache(path, IDENTITY)


def test_a_folder_that_is_missing_is_refused(tmp_path):
    with pytest.raises(RunError, match="cannot be used"):
        ActivationCache(tmp_path / "none" / "cache.db", IDENTITY)


def test_a_damaged_row_is_refused_and_the_others_are_not(path):
    with ActivationCache(path, IDENTITY) as cache:
        put(cache, [1, 2])
        cache.forget(ids(99))
    content = drawn([1], IDENTITY).differences.tobytes()
    data = path.read_bytes()
    assert data.count(content) == 1
    path.write_bytes(data.replace(content, content[:-1] + bytes([content[-1] ^ 1])))
    with ActivationCache(path, IDENTITY) as cache:
        with pytest.raises(RunError, match=r"sample 1 in .* is not what was written"):
            cache.rows(ids(2, 1))
        assert len(cache.rows(ids(2))) == 1
        cache.forget(ids(1))
        assert put(cache, [1], again=2) == (1, 0)


def test_memory_holds_the_samples_used_last(path):
    size = row_bytes(IDENTITY)
    with ActivationCache(path, IDENTITY, memory_mb=2 * size / 1e6) as cache:
        put(cache, [1, 2])
        cache.rows(ids(1))  # 2 is now the one used least recently
        put(cache, [3])
        with sqlite_erased(cache):
            cache.rows(ids(1, 3))
            with pytest.raises(RunError):
                cache.rows(ids(2))


class sqlite_erased:
    """Rows on disk made unreadable, so that only memory can answer."""

    def __init__(self, cache: ActivationCache) -> None:
        self._base = cache._disk._base.connection

    def __enter__(self) -> None:
        self._base.execute("BEGIN")
        self._base.execute("UPDATE slots SET data = zeroblob(length(data))")

    def __exit__(self, *_: object) -> None:
        self._base.execute("ROLLBACK")
