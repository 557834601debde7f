"""How hard a batch of text is: lexical entropy H and out-of-vocabulary rate rho (AirLLM, section III-A).

The paper uses one symbol V both for the words summed over and for the reference vocabulary, and no sub-word tokenizer
ever meets an unknown word, which would fix rho at zero. Here words are words, H sums over the words of the batch, and
the reference is a `Lexicon` that is given. This module knows no tokenizer and no model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from airtune.errors import DataError

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_CONTINUATION, _WORD_STARTS = "##", ("Ġ", "▁")


def words_of(text: str) -> list[str]:
    """Return the lower-cased runs of letters and digits of a text; an apostrophe inside a run belongs to it.

    Example:
        >>> words_of("Don't re-read x_1!")
        ["don't", 're', 'read', 'x', '1']
    """
    return _WORD.findall(text.replace("’", "'").lower())


@dataclass(frozen=True, slots=True)
class Lexicon:
    """The reference words against which a word is known or out of vocabulary."""

    words: frozenset[str]

    @classmethod
    def of_words(cls, words: Iterable[str]) -> Lexicon:
        """Take words as they are, cut and lower-cased as `words_of` does. Raises `DataError` where none is left."""
        lexicon = cls(frozenset(word for entry in words for word in words_of(entry)))
        if not lexicon.words:
            raise DataError(
                "the reference lexicon holds no words; build it from words or from a tokenizer's vocabulary"
            )
        return lexicon

    @classmethod
    def from_vocabulary(cls, tokens: Iterable[str]) -> Lexicon:
        """Keep the whole words among a tokenizer's tokens.

        In a vocabulary with word-start marks (byte-level BPE's Ġ, SentencePiece's ▁) only marked tokens begin a word;
        in one without (WordPiece) every token does unless it begins with ##. Special tokens such as [CLS] are left out.
        """
        tokens = list(tokens)
        marked = [token[1:] for token in tokens if token.startswith(_WORD_STARTS)]
        whole = marked or [token for token in tokens if not token.startswith(_CONTINUATION)]
        return cls.of_words(token for token in whole if words_of(token) == [token.lower()])

    def __contains__(self, word: str) -> bool:
        return word in self.words

    def __len__(self) -> int:
        return len(self.words)


@dataclass(frozen=True, slots=True)
class Complexity:
    """What the state of the channel policy says about a batch of text.

    `entropy_bits` lies between 0 and log2(words), `oov_rate` between 0 and 1; `words` counts occurrences.
    """

    entropy_bits: float
    oov_rate: float
    words: int


def complexity(texts: Iterable[str], lexicon: Lexicon) -> Complexity:
    """Measure a batch: H = -sum_w p(w) log2 p(w) in bits, rho = share of word occurrences not in the lexicon.

    Section III-A of the AirLLM paper, with log to base 2. Raises `DataError` where the batch holds no word at all.

    Example:
        >>> complexity(["a a", "b b"], Lexicon.of_words(["a"]))
        Complexity(entropy_bits=1.0, oov_rate=0.5, words=4)
    """
    counts = Counter(word for text in texts for word in words_of(text))  # w -> occurrences in the batch
    total = counts.total()
    if not total:
        raise DataError("the batch of texts holds no words; give texts with letters or digits in them")
    p = np.array(sorted(counts.values())) / total
    unknown = sum(count for word, count in counts.items() if word not in lexicon)
    return Complexity(entropy_bits=float(-(p * np.log2(p)).sum()) + 0.0, oov_rate=unknown / total, words=total)
