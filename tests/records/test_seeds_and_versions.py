"""Streams that are named, stable and independent; versions that are the installed ones."""

from __future__ import annotations

import hashlib
import itertools
import platform

import numpy as np
import pytest

from airtune.records import generator, seed_for, versions_in_force


def test_a_seed_is_the_documented_hash():
    digest = hashlib.sha256(b'[7,"channel",3]').digest()
    assert seed_for(7, "channel", 3) == int.from_bytes(digest[:8], "big") // 2 < 2**63


def test_a_seed_never_changes():
    assert seed_for(0) == int(hashlib.sha256(b"[0]").hexdigest()[:16], 16) >> 1 == _SEED_OF_0


_SEED_OF_0 = 7520536977032167579


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0, "a"), (1, "a")),
        ((0, "a", "b"), (0, "ab")),
        ((0, "1"), (0, 1)),
        ((0,), (0, "")),
        ((0, "a", "b"), (0, "b", "a")),
    ],
)
def test_names_are_told_apart(one: tuple, other: tuple):
    assert seed_for(*one) != seed_for(*other)


def test_numpy_numbers_are_numbers():
    assert seed_for(np.int64(3), "a", np.uint8(2)) == seed_for(3, "a", 2)  # type: ignore[arg-type]


def test_what_is_no_whole_number_is_refused():
    with pytest.raises(TypeError):
        seed_for(0.5)  # type: ignore[arg-type]


def test_a_stream_starts_anew_with_each_generator_and_others_differ():
    first = generator(0, "channel").random(8)
    np.testing.assert_array_equal(generator(0, "channel").random(8), first)
    assert not np.any(np.isin(generator(0, "policy").random(8), first))


def test_streams_are_uncorrelated():
    draws = np.stack([generator(0, "seed", number).standard_normal(10_000) for number in range(8)])
    correlations = [np.corrcoef(draws[a], draws[b])[0, 1] for a, b in itertools.combinations(range(8), 2)]
    assert max(map(abs, correlations)) < 0.05  # five standard errors of 1 / sqrt(10000)


def test_the_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    generator(0, "a").random()
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_versions_are_those_of_the_interpreter_and_the_packages():
    versions = versions_in_force()
    assert versions["python"] == platform.python_version()
    assert versions["numpy"] == np.__version__
    assert int(versions["cpu_count"]) >= 1


def test_a_package_that_is_missing_is_left_out(monkeypatch: pytest.MonkeyPatch):
    from importlib.metadata import PackageNotFoundError

    def version(name: str) -> str:
        if name == "torch":
            raise PackageNotFoundError(name)
        return "1.2"

    monkeypatch.setattr("airtune.records.versions.version", version)
    versions = versions_in_force()
    assert "torch" not in versions
    assert versions["peft"] == "1.2"


def test_neither_room_imports_what_a_device_does_not_install(elsewhere):
    source = "import sys, airtune.records, airtune.transport; print({'torch', 'transformers'} & set(sys.modules))"
    assert elsewhere(source).stdout == "set()\n"
