"""Ids of samples, and what an upload weighs on the air."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest

from airtune.methods.pae_mobillm.device.upload import sample_ids, samples_header, uplink_bits
from airtune.methods.pae_mobillm.identity import Identity
from airtune.methods.pae_mobillm.wire import Samples, encode_samples
from airtune.models import Items
from airtune.transport import Message, air_bits

ITEMS = Items((np.array([2, 5, 3]), np.array([2, 5, 3]), np.array([2, 6, 3])), np.array([0, 0, 1]), 0)


def test_an_id_by_hand():
    hashed = hashlib.sha256(hashlib.sha256(b"phone").digest() + struct.pack("<5q", 0, 1, 2, 6, 3)).digest()
    assert sample_ids("phone", ITEMS).tolist()[2] == struct.unpack("<Q", hashed[:8])[0]
    assert sample_ids("phone", ITEMS).dtype == np.uint64


def test_ids_stay_the_same_and_differ_in_all_they_depend_on():
    ids = sample_ids("phone", ITEMS)
    assert np.array_equal(ids, sample_ids("phone", ITEMS))
    assert len(set(ids.tolist())) == 3  # the second is the first once more
    relabelled = Items(ITEMS.ids, np.array([0, 1, 1]), 0)
    assert (sample_ids("phone", relabelled) == ids).tolist() == [True, False, True]
    assert not (sample_ids("other", ITEMS) == ids).any()
    for rows, same in (([1, 2], [0, 2]), ([2, 0, 1], [2, 0, 1]), ([0, 1, 2, 2], [0, 1, 2])):  # order and others
        assert np.array_equal(sample_ids("phone", ITEMS.chosen(np.array(rows)))[: len(same)], ids[same])
    text = Items(ITEMS.ids, None, 0)
    assert not (sample_ids("phone", text) == ids).any()


def test_ids_do_not_tell_the_order():
    many = Items(tuple(np.array([place, 3]) for place in range(2000)), np.zeros(2000, int), 0)
    ids = sample_ids("phone", many).astype(float)
    assert abs(np.corrcoef(np.arange(2000), ids)[0, 1]) < 0.1
    assert ids.max() > 2**63


@pytest.mark.parametrize(("samples", "batch_size"), [(1, 4), (4, 4), (9, 4), (8, 100), (25, 10)])
@pytest.mark.parametrize("several", [False, True])
def test_the_uplink_is_the_sum_of_its_messages(samples, batch_size, several):
    identity = Identity("b", "t", "x", 8, (1, 2), (8, 16), 3)
    pivots = 3 if several else 1
    total = 0
    for start in range(0, samples, batch_size):
        count = min(batch_size, samples - start)
        rows = count * pivots
        body = encode_samples(
            Samples(
                np.arange(count).astype(np.uint64),
                np.full(count, pivots),
                np.ones((rows, 2, 8), np.float32),
                np.ones((rows, 3), np.float32),
            ),
            identity,
            several=several,
        )
        total += air_bits(Message("samples", "0" * 32, samples_header(identity, count, several), body))
    assert uplink_bits(identity, samples, samples * pivots, batch_size, several=several) == total
