"""What the server of this run could read off what it got: the attacks of `privacy`, on samples as they were received.

The attacker has the public backbone and texts of the same kind (the dev part). Classification alone: running text is
its own label, and its attacks would say so.
"""

from __future__ import annotations

import numpy as np

from airtune.methods.pae_mobillm.building import Built, reads
from airtune.methods.pae_mobillm.config import PAEConfig
from airtune.methods.pae_mobillm.device.device import Device
from airtune.methods.pae_mobillm.device.differences import prediction_differences
from airtune.methods.pae_mobillm.device.pivots import read_pivots, selector_of
from airtune.methods.pae_mobillm.device.upload import sample_ids
from airtune.methods.pae_mobillm.privacy.inversion import Dictionary, frames
from airtune.methods.pae_mobillm.privacy.leak import Leak
from airtune.methods.pae_mobillm.privacy.report import Answers, Attacker, Seen, Truth, attacks
from airtune.methods.pae_mobillm.privacy.words import frequent_tokens
from airtune.methods.pae_mobillm.side import SideNetwork
from airtune.methods.pae_mobillm.wire import Samples, as_received
from airtune.models import BaseModel, Items
from airtune.records import generator

ATTACKED, DICTIONARY, WORDS = 500, 1000, 100
"""Samples, tokens of the dictionary, and words looked for. Of the layers the first, one between and the last."""


def leaks(
    config: PAEConfig, base: BaseModel, built: Built, side: SideNetwork, train: Items, test: Items, public: Items
) -> tuple[Leak, ...]:
    """Every attack that what was sent allows; none for running text.

    Args:
        side: As the server has it.
        train: What was uploaded, in the order of its upload.
        test: Items that the side network was not trained on.
        public: Texts that the attacker has.
    """
    if base.kind == "text":
        return ()
    rng, identity = generator(config.seed, "attacks"), built.identity
    victims, public = _some(train, rng), _some(public, rng)
    read = read_pivots(base, victims, np.arange(len(victims)), identity.layers)
    settings = config.device
    device = Device(  # as the one that sent, but what the attacks take is not booked on it
        base, identity, built.air, name="attacked", scale=settings.target_scale, secrecy=built.secrecy
    )
    sent = device.samples(victims, np.arange(len(victims)), sample_ids("attacked", victims))
    at = sorted({0, len(identity.layers) // 2, len(identity.layers) - 1})
    layers = tuple(identity.layers[one] for one in at)
    activations = as_received(sent.activations, identity)[:, at]
    received = Samples(sent.ids, sent.counts, activations, sent.differences)
    reader = reads(base, layers)
    texts, public_texts = (_words_of(items, base) for items in (victims, public))
    words = frequent_tokens(public_texts, DICTIONARY)
    attacker = Attacker(
        Dictionary.read(reader, words, layers, frames(base.tokenizer)),
        frequent_tokens(public_texts, WORDS),
        public_texts,
    )
    of_public = device.samples(public, np.arange(len(public)), sample_ids("attacker", public))
    predictions = read.logits if identity.layers[-1] == base.model.config.num_hidden_layers else None
    seen = Seen(
        received,
        layers,
        as_received(of_public.activations, identity)[:, at],
        predictions,
        _answers(config, device, side, victims),
        _answers(config, device, side, _some(test, rng)),
    )
    truth = Truth(read.targets, texts, read.logits.argmax(1) != read.targets, _pivots(victims, base))
    return tuple(attacks(seen, truth, attacker, rng))


def _answers(config: PAEConfig, device: Device, side: SideNetwork, items: Items) -> Answers:
    read, answers = device.predict(items, np.arange(len(items)), side)
    space, scale = config.device.space, config.device.target_scale
    return answers, prediction_differences(read.logits, read.targets, space=space, scale=scale)


def _some(items: Items, rng: np.random.Generator) -> Items:
    return items.chosen(np.sort(rng.permutation(len(items))[:ATTACKED]))


def _pivots(items: Items, base: BaseModel) -> np.ndarray | None:
    """The tokens that hidden states are of; none where anyone knows them, as an encoder's first one."""
    if selector_of(base) == "first":
        return None
    found = np.array([ids[ids != base.model.config.pad_token_id][-1] for ids in items.ids])
    return None if np.isin(found, base.tokenizer.all_special_ids).any() else found


def _words_of(items: Items, base: BaseModel) -> list[np.ndarray]:
    """Token ids of each item without the special ones."""
    special = np.array(base.tokenizer.all_special_ids)
    return [ids[~np.isin(ids, special)] for ids in items.ids]
