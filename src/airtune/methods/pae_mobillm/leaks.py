"""What the server of this run could read off what it got: the attacks of `privacy`, on samples as they were received.

The attacker has the public backbone and texts of the same kind, labelled for the same task (the dev part).
Running text is its own label: of it the next tokens are read, and nothing more is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from airtune.methods.pae_mobillm.building import reads
from airtune.methods.pae_mobillm.config import PAEConfig
from airtune.methods.pae_mobillm.device.differences import prediction_differences
from airtune.methods.pae_mobillm.device.pivots import Reading, blocks_of, read_pivots, selector_of
from airtune.methods.pae_mobillm.device.upload import sample_ids
from airtune.methods.pae_mobillm.identity import Identity
from airtune.methods.pae_mobillm.privacy.defences import Defence
from airtune.methods.pae_mobillm.privacy.inversion import Dictionary, frames
from airtune.methods.pae_mobillm.privacy.leak import Leak, share_right
from airtune.methods.pae_mobillm.privacy.report import Answers, Attacker, Seen, Truth, attacks
from airtune.methods.pae_mobillm.privacy.words import frequent_tokens
from airtune.methods.pae_mobillm.side import SideNetwork
from airtune.methods.pae_mobillm.wire import Samples, as_received
from airtune.models import BaseModel, Items
from airtune.records import generator

ATTACKED, DICTIONARY, WORDS = 500, 1000, 100
"""Samples, tokens of the dictionary, and words looked for. Of the layers the first, one between and the last."""
BATCH = 32
"""Samples in a pass."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Items, and how those at some rows are read: hidden states of the layers that are sent, logits, targets."""

    items: Items
    read: Callable[[np.ndarray], Reading]

    @classmethod
    def of(cls, base: BaseModel, items: Items, layers: Sequence[int]) -> Part:
        """Classified items that the backbone reads when they are asked for, in batches of like length."""

        def read(rows: np.ndarray) -> Reading:
            chosen = items.chosen(rows)
            order = chosen.in_order(BATCH)
            found = [read_pivots(base, chosen, some, layers) for some in order]
            back = np.argsort(np.concatenate(order))
            names = ("counts", "activations", "logits", "targets")
            return Reading(*(np.concatenate([getattr(one, name) for one in found])[back] for name in names))

        return cls(items, read)


def leaks(
    config: PAEConfig,
    base: BaseModel,
    identity: Identity,
    secrecy: Defence,
    side: SideNetwork,
    train: Part,
    test: Part,
    public: Part,
) -> tuple[Leak, ...]:
    """Every attack that what was sent allows; for running text, its next tokens alone.

    Args:
        identity: What was sent of each sample.
        secrecy: How.
        side: As the server has it.
        train: What was uploaded, in the order of its upload.
        test: Items that the side network was not trained on.
        public: Texts that the attacker has, with labels.
    """
    rng = generator(config.seed, "attacks")
    if base.kind == "text":
        return tuple(_next_tokens(config, base, identity, secrecy, train.items.chosen(_drawn(train, rng))))
    (victims, of_victims), (texts_of, of_public) = _some(train, rng), _some(public, rng)

    def known(read: Reading) -> Known:
        return _known(config, identity, secrecy, side, read)

    own, ids = known(of_victims), sample_ids("attacked", victims)
    activations, differences = secrecy.outgoing(ids, own.read.activations, own.differences, own.read.counts)
    at = sorted({0, len(identity.layers) // 2, len(identity.layers) - 1})
    layers = tuple(identity.layers[one] for one in at)
    received = Samples(ids, own.read.counts, as_received(activations, identity)[:, at], differences)
    reader = reads(base, layers)
    texts, public_texts = (_words_of(items, base) for items in (victims, texts_of))
    words, of_texts = frequent_tokens(public_texts, DICTIONARY), known(of_public)
    attacker = Attacker(
        Dictionary.read(reader, words, layers, frames(base.tokenizer)),
        frequent_tokens(public_texts, WORDS),
        public_texts,
        of_texts.differences,
    )
    texts_ids = sample_ids("attacker", texts_of)
    public_sent, _ = secrecy.outgoing(texts_ids, of_public.activations, of_texts.differences, of_public.counts)
    predictions = own.read.logits if identity.layers[-1] == base.model.config.num_hidden_layers else None
    seen = Seen(
        received,
        layers,
        as_received(public_sent, identity)[:, at],
        predictions,
        of_texts.learned,
        own.answers,
        known(_some(test, rng)[1]).answers,
    )
    truth = Truth(own.read.targets, texts, own.read.logits.argmax(1) != own.read.targets, _pivots(victims, base))
    return tuple(attacks(seen, truth, attacker, rng))


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What the device knows of some items: their hidden states and plain differences, and the side network's answers
    as it learned them and turned back."""

    read: Reading
    differences: np.ndarray
    learned: np.ndarray
    predicted: np.ndarray

    @property
    def answers(self) -> Answers:
        return self.predicted, self.differences


def _known(config: PAEConfig, identity: Identity, secrecy: Defence, side: SideNetwork, read: Reading) -> Known:
    settings = config.device
    plain = prediction_differences(read.logits, read.targets, space=settings.space, scale=settings.target_scale)
    learned = side.differences(as_received(read.activations, identity))
    return Known(read, plain, learned, secrecy.incoming(learned))


def _next_tokens(
    config: PAEConfig, base: BaseModel, identity: Identity, secrecy: Defence, victims: Items
) -> list[Leak]:
    """Next tokens by the largest entry of a difference, and with predictions added back where the last layer tells
    them; a batch at a time, for differences are as wide as the vocabulary."""
    settings, last, targets = config.device, len(blocks_of(base)), list[np.ndarray]()
    found: dict[str, list[np.ndarray]] = {"largest difference": [], "difference + prediction": []}
    for rows in victims.in_order(BATCH):
        some = victims.chosen(rows)
        read = read_pivots(base, some, np.arange(len(some)), [last])
        plain = prediction_differences(read.logits, read.targets, space=settings.space, scale=settings.target_scale)
        _, sent = secrecy.outgoing(sample_ids("attacked", some), read.activations, plain, read.counts)
        found["largest difference"].append(sent.argmax(axis=1))
        if identity.layers[-1] == last and sent.shape == read.logits.shape:
            found["difference + prediction"].append((sent + read.logits).argmax(axis=1))
        targets.append(read.targets)
    tokens = np.concatenate(targets)
    return [share_right(f"next token: {how}", np.concatenate(some), tokens) for how, some in found.items() if some]


def _drawn(part: Part, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.permutation(len(part.items))[:ATTACKED])


def _some(part: Part, rng: np.random.Generator) -> tuple[Items, Reading]:
    rows = _drawn(part, rng)
    return part.items.chosen(rows), part.read(rows)


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
