"""Token batches: sentences padded by length bucket, text cut into windows. Knows tokenizers; not models or adapters.

A schedule of batches is drawn whole from one generator, so a run that is interrupted at step k goes on with the
very batch it would have had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from airtune.errors import DataError

IGNORED = -100
"""The label that losses skip."""
BUCKET_BATCHES = 50
"""Sentences are sorted by length within pools of this many batches: three times fewer padded tokens."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids (n, t), attention mask (n, t), and labels: (n,) classes or (n, t) next tokens."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(*(getattr(self, name).to(device) for name in ("input_ids", "attention_mask", "labels")))

    @property
    def tokens(self) -> int:
        return self.input_ids.numel()


@dataclass(frozen=True)
class Items:
    """Tokenised items of one split: sentences with classes, or windows of a text (then `classes` is None)."""

    ids: tuple[np.ndarray, ...]
    classes: np.ndarray | None
    pad_id: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(ids) for ids in self.ids])

    @property
    def sha256(self) -> str:
        """Hash over every item's tokens and class: two sides with equal ones score the same."""
        digest = hashlib.sha256()
        for ids in (*self.ids, *(() if self.classes is None else (self.classes,))):
            digest.update(len(ids).to_bytes(8, "little") + ids.astype("<i8").tobytes())
        return digest.hexdigest()

    def chosen(self, rows: np.ndarray) -> Items:
        """Some of the items, in the order of `rows`."""
        classes = None if self.classes is None else self.classes[rows]
        return Items(tuple(self.ids[row] for row in rows), classes, self.pad_id)

    def evenly(self, most: int) -> Items:
        """At most so many items, spread over all of them."""
        return self.chosen(self.spread(most))

    def spread(self, most: int) -> np.ndarray:
        """Rows of those."""
        return np.linspace(0, len(self) - 1, min(len(self), most)).round().astype(int)

    def batch(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """Pad the chosen rows to their longest."""
        chosen = [self.ids[row] for row in rows]
        width = max(len(ids) for ids in chosen)
        input_ids = np.full((len(chosen), width), self.pad_id, dtype=np.int64)
        mask = np.zeros((len(chosen), width), dtype=np.int64)
        for row, ids in enumerate(chosen):
            input_ids[row, : len(ids)] = ids
            mask[row, : len(ids)] = 1
        labels = np.where(mask == 1, input_ids, IGNORED) if self.classes is None else self.classes[np.asarray(rows)]
        return Batch(torch.from_numpy(input_ids), torch.from_numpy(mask), torch.from_numpy(labels))

    def in_order(self, batch_size: int) -> list[np.ndarray]:
        """Rows in batches of like length, every row once: the cheapest way to score them all."""
        order = np.argsort(self.lengths, kind="stable")
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]

    def schedule(self, steps: int, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Draw the rows of `steps` training batches: shuffled, bucketed by length, passes repeated as needed."""
        lengths, batches = self.lengths, list[np.ndarray]()
        pool = BUCKET_BATCHES * batch_size
        while len(batches) < steps:
            order = rng.permutation(len(self))
            epoch = list[np.ndarray]()
            for start in range(0, len(order), pool):
                part = order[start : start + pool]
                part = part[np.argsort(lengths[part], kind="stable")]
                epoch += [part[at : at + batch_size] for at in range(0, len(part), batch_size)]
            batches += [epoch[index] for index in rng.permutation(len(epoch))]
        return batches[:steps]


def sentences(
    texts: Sequence[str], classes: Sequence[int], tokenizer: PreTrainedTokenizerBase, *, max_length: int
) -> Items:
    """Tokenise labelled sentences, cut to `max_length` tokens, special tokens included."""
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length, padding=False)["input_ids"]
    return Items(
        tuple(np.asarray(ids, dtype=np.int64) for ids in encoded),
        np.asarray(classes, dtype=np.int64),
        int(tokenizer.pad_token_id),
    )


def windows(text: str, tokenizer: PreTrainedTokenizerBase, *, window: int, stride: int | None = None) -> Items:
    """Tokenise a text and cut it into windows of `window` tokens, one every `stride` tokens (default: no overlap).

    Raises:
        DataError: the text is shorter than one window.
    """
    ids = np.asarray(_token_ids(text, tokenizer), dtype=np.int64)
    if len(ids) < window:
        raise DataError(f"the text has {len(ids)} tokens; expected at least one window of {window}; give a longer text")
    starts = range(0, len(ids) - window + 1, stride or window)
    return Items(tuple(ids[start : start + window] for start in starts), None, int(tokenizer.pad_token_id))


def _token_ids(text: str, tokenizer: PreTrainedTokenizerBase) -> Iterable[int]:
    """Encode a long text in blocks of lines: the same tokens as line by line, without one giant string."""
    lines = text.splitlines(keepends=True)
    blocks = ["".join(lines[start : start + 64]) for start in range(0, len(lines), 64)]
    encoded = tokenizer(blocks, add_special_tokens=False, padding=False, verbose=False)["input_ids"]
    return [token for block in encoded for token in block]
