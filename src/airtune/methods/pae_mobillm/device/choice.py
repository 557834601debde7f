"""The layers and bits that the settings ask for, on this backbone and these samples.

It reads the backbone for `greedy` alone, once over a few samples; `layers` does the deciding.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from airtune.methods.pae_mobillm.device.differences import prediction_differences
from airtune.methods.pae_mobillm.device.layers import LayerChoice, LayerWorth, greedy_layers, named_layers
from airtune.methods.pae_mobillm.device.pivots import blocks_of, outputs_of, read_pivots
from airtune.methods.pae_mobillm.device.upload import uplink_bits
from airtune.methods.pae_mobillm.identity import Identity
from airtune.methods.pae_mobillm.wire import as_received
from airtune.models import BaseModel, Items


def choose_layers(
    base: BaseModel,
    items: Items,
    how: str,
    *,
    layer_count: int,
    bits: int,
    budget_bits: int,
    value_items: int,
    batch_size: int,
    outputs: int,
    space: str,
    scale: float,
    rng: np.random.Generator,
) -> LayerChoice:
    """Decide what is sent of all `items`.

    Args:
        how: `all`, `uniform` (`layer_count` layers), a list, or `greedy` under `budget_bits`, which chooses bits
            itself.
        budget_bits: On the air for all items; see `uplink_budget`.
        value_items: Items that greedy measures on, at most, drawn by `rng`; of running text one pivot each.
        outputs: Numbers of a difference as sent.

    Raises:
        ConfigError: the backbone lacks a layer of the list.
        DeadlineError: no layer fits. DataError: too few items to measure on.
    """
    blocks = len(blocks_of(base))
    if how != "greedy":
        return named_layers(how, blocks, layer_count, bits)
    text = base.kind == "text"
    rows = int((items.lengths - 1).sum()) if text else len(items)
    blank = Identity("0" * 64, "0" * 64, "0" * 64, base.hidden_size, (blocks,), (16,), outputs, space)

    def air_bits(layers: tuple[int, ...], bits: tuple[int, ...]) -> int:
        return uplink_bits(replace(blank, layers=layers, bits=bits), len(items), rows, batch_size, several=text)

    layers = range(1, blocks + 1)
    worth = measured_worth(
        base, items.chosen(rng.permutation(len(items))[:value_items]), batch_size, space=space, scale=scale, rng=rng
    )
    return greedy_layers(layers, worth, air_bits, budget_bits)


def measured_worth(
    base: BaseModel, items: Items, batch_size: int, *, space: str, scale: float, rng: np.random.Generator
) -> LayerWorth:
    """What each block's hidden states say about the differences of some items, given in random order."""
    blocks = len(blocks_of(base))
    states = np.empty((len(items), blocks, base.hidden_size), np.float32)
    differences = np.empty((len(items), outputs_of(base)), np.float32)
    for rows in items.in_order(batch_size):
        read = read_pivots(base, items, rows, range(1, blocks + 1))
        one = (
            np.cumsum(read.counts) - 1 - rng.integers(0, read.counts)
        )  # one pivot of each: neighbours tell little more
        states[rows] = read.activations[one]
        differences[rows] = prediction_differences(read.logits[one], read.targets[one], space=space, scale=scale)
    blank = Identity("", "", "", base.hidden_size, (0,), (16,), 1)

    def received(layer: int, bits: int) -> np.ndarray:
        return as_received(states[:, layer - 1 : layer], replace(blank, layers=(layer,), bits=(bits,)))[:, 0]

    return LayerWorth(received, differences)
