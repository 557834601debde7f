"""Allocation, Factors and Binding refuse nonsense and do small sums."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from airtune.codec import Allocation, Binding, Factors
from airtune.errors import PayloadError


def test_allocation_takes_any_whole_numbers_and_keeps_ints():
    allocation = Allocation(np.array([1, 0, 3]), [8, 4, 32])  # type: ignore[arg-type]
    assert allocation.ranks == (1, 0, 3)
    assert allocation.bits == (8, 4, 32)
    assert {type(rank) for rank in allocation.ranks} == {int}
    assert allocation.total_rank == 4
    assert len(allocation) == 3
    assert allocation == Allocation((1, 0, 3), (8, 4, 32))


def test_dense_tensors_follow_the_widths_of_the_sites():
    assert Allocation((1, 1), (32, 32)).dense_bits == 32
    assert Allocation((1, 0), (32, 16)).dense_bits == 16
    assert Allocation((), ()).dense_bits == 32
    assert Allocation((1, 0), (8, 4)).dense_bits == 8
    assert Allocation((1, 0), (4, 32)).dense_bits == 16


def test_capped_is_what_arrives():
    assert Allocation((5, 1, 0), (4, 8, 16)).capped(2) == Allocation((2, 1, 0), (4, 8, 16))


@pytest.mark.parametrize(
    ("ranks", "bits", "message"),
    [
        ((1, 2), (8,), "2 ranks and 1"),
        ((-1,), (8,), "-1"),
        ((65536,), (8,), "65536"),
        ((1,), (5,), "5 bits"),
        ((1.5,), (8,), "whole number"),
        (None, (8,), "whole number"),
    ],
)
def test_allocation_refuses(ranks, bits, message: str):
    with pytest.raises(PayloadError, match=message):
        Allocation(ranks, bits)


@pytest.mark.parametrize(
    "shapes",
    [((3, 2), (2,), (3, 4)), ((3, 2), (1,), (2, 4)), ((3,), (2,), (2, 4)), ((3, 2), (2, 1), (2, 4)), ((), (), ())],
)
def test_factors_refuse_shapes_that_do_not_fit(shapes):
    with pytest.raises(PayloadError, match="shapes"):
        Factors(*(np.zeros(shape) for shape in shapes))


def test_factors_by_hand():
    factors = Factors(p=np.array([[1.0, 2.0], [0.0, 1.0]]), lam=np.array([3.0, 10.0]), q=np.array([[1.0], [1.0]]))
    assert (factors.rank, factors.shape) == (2, (2, 1))
    assert factors.update().tolist() == [[23.0], [10.0]]
    assert factors.prefix(1).update().tolist() == [[3.0], [0.0]]
    assert factors.prefix(9).rank == 2


@pytest.mark.parametrize("sha256", ["", "abc", "A1" * 32, "a1" * 33, None, "g1" * 32, "a1" * 32 + "\n"])
def test_binding_wants_sha256(sha256):
    with pytest.raises(PayloadError, match="base model hash"):
        Binding(sha256, "a1" * 32)
    with pytest.raises(PayloadError, match="tokenizer hash"):
        Binding("a1" * 32, sha256)


def test_a_device_needs_no_torch():
    script = "import sys, airtune.codec; sys.exit(bool({'torch', 'transformers', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
