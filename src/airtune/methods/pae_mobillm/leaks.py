"""What the server of this run could read off what it got: the attacks of `privacy`, on samples as they were received.

The attacker has the public backbone and texts of the same kind (the dev part). Classification alone: running text is
its own label, and its attacks would say so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from airtune.methods.pae_mobillm.building import reads
from airtune.methods.pae_mobillm.config import PAEConfig
from airtune.methods.pae_mobillm.device.differences import prediction_differences
from airtune.methods.pae_mobillm.device.pivots import Reading, read_pivots
from airtune.methods.pae_mobillm.device.upload import sample_ids
from airtune.methods.pae_mobillm.identity import Identity
from airtune.methods.pae_mobillm.privacy.defences import Defence
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
    config: PAEConfig,
    base: BaseModel,
    identity: Identity,
    secrecy: Defence,
    side: SideNetwork,
    train: Items,
    test: Items,
    public: Items,
) -> tuple[Leak, ...]:
    """Every attack that what was sent allows; none for running text.

    Args:
        identity: What was sent of each sample.
        secrecy: How.
        side: As the server has it.
        train: What was uploaded, in the order of its upload.
        test: Items that the side network was not trained on.
        public: Texts that the attacker has.
    """
    if base.kind == "text":
        return ()
    rng = generator(config.seed, "attacks")
    victims, public = _some(train, rng), _some(public, rng)

    def known(items: Items) -> Known:
        return _known(config, base, identity, secrecy, side, items)

    own, ids = known(victims), sample_ids("attacked", victims)
    activations, differences = secrecy.outgoing(ids, own.read.activations, own.differences, own.read.counts)
    at = sorted({0, len(identity.layers) // 2, len(identity.layers) - 1})
    layers = tuple(identity.layers[one] for one in at)
    received = Samples(ids, own.read.counts, as_received(activations, identity)[:, at], differences)
    reader = reads(base, layers)
    texts, public_texts = (_words_of(items, base) for items in (victims, public))
    words = frequent_tokens(public_texts, DICTIONARY)
    attacker = Attacker(
        Dictionary.read(reader, words, layers, frames(base.tokenizer)),
        frequent_tokens(public_texts, WORDS),
        public_texts,
    )
    of_public = as_received(reads(base, identity.layers)(public.ids), identity)[:, at]
    predictions = own.read.logits if identity.layers[-1] == base.model.config.num_hidden_layers else None
    seen = Seen(
        received,
        layers,
        of_public,
        predictions,
        own.answers,
        known(_some(test, rng)).answers,
    )
    truth = Truth(own.read.targets, texts, own.read.logits.argmax(1) != own.read.targets)
    return tuple(attacks(seen, truth, attacker, rng))


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What the device knows of some items: their hidden states, plain differences, and the side network's answers."""

    read: Reading
    differences: np.ndarray
    predicted: np.ndarray

    @property
    def answers(self) -> Answers:
        return self.predicted, self.differences


def _known(
    config: PAEConfig, base: BaseModel, identity: Identity, secrecy: Defence, side: SideNetwork, items: Items
) -> Known:
    read, settings = read_pivots(base, items, np.arange(len(items)), identity.layers), config.device
    plain = prediction_differences(read.logits, read.targets, space=settings.space, scale=settings.target_scale)
    predicted = secrecy.incoming(side.differences(as_received(read.activations, identity)))
    return Known(read, plain, predicted)


def _some(items: Items, rng: np.random.Generator) -> Items:
    return items.chosen(np.sort(rng.permutation(len(items))[:ATTACKED]))


def _words_of(items: Items, base: BaseModel) -> list[np.ndarray]:
    """Token ids of each item without the special ones."""
    special = np.array(base.tokenizer.all_special_ids)
    return [ids[~np.isin(ids, special)] for ids in items.ids]
