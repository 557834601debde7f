"""Every attack on what a server got under one defence. For classification, one pivot per sample.

Nothing is trained or sent here: what a server would hold, and the answers of what it trained, are given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from airtune.errors import DataError
from airtune.methods.pae_mobillm.privacy import labels as by_name
from airtune.methods.pae_mobillm.privacy.inversion import Dictionary, nearest_tokens
from airtune.methods.pae_mobillm.privacy.leak import Leak
from airtune.methods.pae_mobillm.privacy.membership import membership
from airtune.methods.pae_mobillm.privacy.partition import partition
from airtune.methods.pae_mobillm.privacy.words import bag_of_words, words
from airtune.methods.pae_mobillm.wire import Samples

Answers = tuple[np.ndarray, np.ndarray]
"""A side network's answers, turned back, and true differences without noise, ``(n, C)`` each."""


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What attacks are held against; no attacker has it.

    Args:
        labels: ``(n,)``.
        texts: Token ids of each sample, without special ones.
        wrong: Which samples the backbone alone gets wrong, bool ``(n,)``.
        pivots: Token ids at a decoder's pivots ``(n,)``; None for an encoder.
    """

    labels: np.ndarray
    texts: Sequence[np.ndarray]
    wrong: np.ndarray
    pivots: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Attacker:
    """What the server has of its own.

    Args:
        dictionary: Of the public backbone.
        tokens: The words it looks for, ``(V',)``.
        texts: Token ids of m public texts, which have these words.
        differences: Their true ones ``(m, C)``, from the public backbone and labels: texts of the same task that
            somebody has labelled. None where the server has no labels.
    """

    dictionary: Dictionary
    tokens: np.ndarray
    texts: Sequence[np.ndarray]
    differences: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What the server holds under one defence.

    Args:
        samples: As decoded, in the order of `Truth`.
        layers: Which hidden states, K of them.
        public: The attacker's m texts sent in the same way with secrets of its own, ``(m, K, d)``.
        predictions: The backbone's ``(n, C)``, as the server works them out of the last hidden state it got; None where
            that was not sent.
        answers: Of the side network to the attacker's m texts, not turned back, ``(m, C')``.
        members: Of samples that the side network was trained on, and `others` of samples that it was not.
    """

    samples: Samples
    layers: tuple[int, ...]
    public: np.ndarray
    predictions: np.ndarray | None = None
    answers: np.ndarray | None = None
    members: Answers | None = None
    others: Answers | None = None


def attacks(seen: Seen, truth: Truth, attacker: Attacker, rng: np.random.Generator) -> Iterator[Leak]:
    """Every attack that what was seen allows.

    Raises:
        DataError: samples with several pivots, or not as many as there are labels.
    """
    differences, labels, count = seen.samples.differences, truth.labels, len(truth.labels)
    if len(seen.samples) != count or len(differences) != count:
        raise DataError(
            f"{len(seen.samples)} samples with {len(differences)} pivots came for {count} labels; give one of each"
        )
    yield by_name.by_largest(differences, labels)
    if seen.predictions is not None:
        if seen.predictions.shape == differences.shape:
            yield by_name.by_target(differences, seen.predictions, labels)
        yield by_name.behind_rotation(differences, seen.predictions, labels, rng)
    if seen.answers is not None and attacker.differences is not None:
        yield by_name.by_labelled_texts(differences, seen.answers, attacker.differences, labels)
    yield from partition(differences, labels, rng)
    if truth.wrong.any() and not truth.wrong.all():
        yield by_name.wrong_by_norm(differences, truth.wrong)
    yield from nearest_tokens(seen.samples.activations, seen.layers, attacker.dictionary, truth.texts, truth.pivots)
    bags, public_bags = (bag_of_words(texts, attacker.tokens) for texts in (truth.texts, attacker.texts))
    for at, layer in enumerate(seen.layers):
        yield words(seen.samples.activations[:, at], bags, seen.public[:, at], public_bags, layer)
    if seen.members is not None and seen.others is not None:
        yield from membership(seen.members, seen.others)
