"""Tokens from hidden states: the nearest of a dictionary that anyone with the public backbone can make.

The dictionary holds what the pivot's hidden states are when a text is one token alone, for every token of a list. Early
layers of a decoder are close to it: its pivot *is* a token. Knows arrays and how to have texts read; no secrets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from transformers import PreTrainedTokenizerBase

from airtune.errors import DataError
from airtune.methods.pae_mobillm.privacy.leak import Leak

Read = Callable[[Sequence[np.ndarray]], np.ndarray]
"""Token ids of some texts -> hidden states at the pivot of each, float32 ``(n, K, d)``: the attacker's own backbone."""

_AT_ONCE = 256
_STILL = 1e-4
"""Differences from the mean below this share of the mean are rounding, not direction."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around a token in a text of the dictionary."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def around(self, token: int) -> np.ndarray:
        return np.array([*self.before, token, *self.after], np.int64)


def frames(tokenizer: PreTrainedTokenizerBase, *, filler: int = 0, lengths: Sequence[int] = (0,)) -> tuple[Frame, ...]:
    """The tokenizer's own special tokens, and before the token so many fillers as each length says.

    Models that learn a vector for each position (OPT, GPT-2) have another dictionary at every place of the pivot, so
    that lengths should be about those of the texts; the rest need no fillers.

    Args:
        filler: Any common token.
    """
    encoded = tokenizer("a", return_special_tokens_mask=True)
    ids, mask = list(encoded["input_ids"]), list(encoded["special_tokens_mask"])
    start, end = mask.index(0), len(mask) - mask[::-1].index(0)
    return tuple(Frame((*ids[:start], *[filler] * length), tuple(ids[end:])) for length in lengths)


@dataclass(frozen=True, slots=True, eq=False)
class Dictionary:
    """Directions of hidden states from their mean, by frame, layer and token.

    Args:
        tokens: ``(w,)``.
        layers: Which hidden states, K of them.
        means: Over tokens, ``(frames, K, d)``.
        directions: Unit vectors ``(frames, K, w, d)``; zero where a token does not differ from the mean.
    """

    tokens: np.ndarray
    layers: tuple[int, ...]
    means: np.ndarray
    directions: np.ndarray

    @classmethod
    def read(
        cls, read: Read, tokens: np.ndarray, layers: Sequence[int], surroundings: Sequence[Frame] = (Frame(),)
    ) -> Dictionary:
        """Have every token read in every frame, float32: 4 K d bytes for each token and frame.

        Args:
            tokens: All of a vocabulary, or the most frequent of the attacker's own texts.
            layers: Those that `read` gives, in its order.
        """
        means, directions = [], []
        for frame in surroundings:
            texts = [frame.around(token) for token in tokens.tolist()]
            starts = range(0, len(texts), _AT_ONCE)
            states = np.concatenate([read(texts[start : start + _AT_ONCE]) for start in starts]).swapaxes(0, 1)
            means.append(states.mean(axis=1, dtype=np.float64).astype(np.float32))
            directions.append(np.stack([_directions(rows, mean) for rows, mean in zip(states, means[-1], strict=True)]))
        return cls(tokens, tuple(layers), np.stack(means), np.stack(directions))

    def nearest(self, rows: np.ndarray, layer: int) -> np.ndarray:
        """The token of largest cosine over all frames for each row ``(n, d)``, -1 where none points its way at all."""
        at = self.layers.index(layer)
        found = [self._of_some(rows[start : start + _AT_ONCE], at) for start in range(0, len(rows), _AT_ONCE)]
        return np.concatenate(found)

    def _of_some(self, rows: np.ndarray, at: int) -> np.ndarray:
        most, found = np.zeros(len(rows), np.float32), np.full(len(rows), -1, np.int64)
        for means, directions in zip(self.means[:, at], self.directions[:, at], strict=True):
            cosines = _directions(rows, means) @ directions.T
            best = cosines.argmax(axis=1)
            cosine = cosines[np.arange(len(rows)), best]
            found = np.where(cosine > most, self.tokens[best], found)
            most = np.maximum(most, cosine)
        return found


def nearest_tokens(
    activations: np.ndarray,
    layers: Sequence[int],
    dictionary: Dictionary,
    texts: Sequence[np.ndarray],
    pivots: np.ndarray | None = None,
) -> Iterator[Leak]:
    """By layer: how often the nearest token stands in the sample's text, and how often it is the pivot's own.

    Chance is the same guesses held against every other sample, in the mean: an attacker who mixed the samples up.

    Args:
        activations: As they came, one row per sample, ``(n, K, d)``.
        layers: Which hidden states these are; those that the dictionary has too are attacked.
        texts: The samples' token ids, without special ones, which anyone knows.
        pivots: Token ids at the pivots of a decoder ``(n,)``.

    Raises:
        DataError: fewer than two samples.
    """
    if len(texts) < 2:
        raise DataError(f"there are {len(texts)} samples to invert, at least 2 expected; send more")
    kept = [set(text.tolist()) for text in texts]
    for at, layer in enumerate(layers):
        if layer not in dictionary.layers:
            continue
        found = dictionary.nearest(activations[:, at], layer).tolist()
        yield _held_against("token: nearest is in the text", found, kept, layer)
        if pivots is not None:
            yield _held_against("token: nearest is the pivot", found, [{token} for token in pivots.tolist()], layer)


def _held_against(measure: str, found: list[int], texts: Sequence[set[int]], layer: int) -> Leak:
    having = Counter(chain.from_iterable(texts))
    hits = [token in text for token, text in zip(found, texts, strict=True)]
    others = [(having[token] - hit) / (len(texts) - 1) for token, hit in zip(found, hits, strict=True)]
    return Leak(measure, float(np.mean(hits)), float(np.mean(others)), len(texts), layer)


def _directions(rows: np.ndarray, mean: np.ndarray) -> np.ndarray:
    away = rows - mean
    norms = np.linalg.norm(away, axis=1, keepdims=True)
    still = norms <= _STILL * np.linalg.norm(mean)
    return np.where(still, 0, away / np.where(still, 1, norms)).astype(np.float32)
