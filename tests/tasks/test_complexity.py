"""Lexical entropy and out-of-vocabulary rate against numbers worked out by hand, and on real text."""

from __future__ import annotations

from pathlib import Path

import pytest

from airtune.errors import DataError
from airtune.tasks import Columns, Lexicon, complexity, load_task, words_of

KNOWN = Lexicon.of_words(["a", "b", "film"])


@pytest.mark.parametrize(
    ("texts", "entropy_bits"),
    [
        (["a a b b"], 1.0),  # two words, one half each
        (["a a", "b", "b"], 1.0),  # the batch counts, not its lines
        (["a b c d"], 2.0),  # log2 4
        (["a a a a"], 0.0),
        (["a a b c"], 1.5),  # 1/2 * 1 + 2 * 1/4 * 2
        (["A a B b"], 1.0),  # case does not count
    ],
)
def test_entropy_is_the_hand_worked_number_of_bits(texts: list[str], entropy_bits: float) -> None:
    assert complexity(texts, KNOWN).entropy_bits == pytest.approx(entropy_bits, abs=1e-12)


def test_oov_rate_is_the_share_of_unknown_occurrences() -> None:
    found = complexity(["a Film, a xylophone", "xylophone!"], KNOWN)
    assert found.words == 5
    assert found.oov_rate == pytest.approx(2 / 5)


def test_words_are_lower_cased_runs_of_letters_digits_and_inner_apostrophes() -> None:
    assert words_of("Don't re-read 'x_1' — C3PO’s café.") == ["don't", "re", "read", "x", "1", "c3po's", "café"]


def test_a_wordpiece_vocabulary_keeps_tokens_that_do_not_continue_a_word() -> None:
    lexicon = Lexicon.from_vocabulary(["[CLS]", "the", "##ing", "film", "!", "[unused1]"])
    assert lexicon.words == {"the", "film"}


@pytest.mark.parametrize("mark", ["Ġ", "▁"])
def test_a_bpe_vocabulary_keeps_tokens_with_a_word_start_mark(mark: str) -> None:
    lexicon = Lexicon.from_vocabulary(["ing", "<s>", f"{mark}The", f"{mark}film", mark, f"{mark}("])
    assert lexicon.words == {"the", "film"}
    assert "film" in lexicon
    assert "ing" not in lexicon
    assert len(lexicon) == 2


def test_an_empty_lexicon_and_a_batch_without_words_are_refused() -> None:
    with pytest.raises(DataError, match="holds no words"):
        Lexicon.from_vocabulary(["##ing", "!"])
    with pytest.raises(DataError, match="holds no words"):
        complexity(["...", ""], KNOWN)


def test_both_measures_vary_between_batches_of_real_text(shared: Path) -> None:
    folder = shared / "data" / "cl_benchmark"
    batches = {}
    for name in ("yelp", "dbpedia"):
        task = load_task("classify", data=folder / name / "test.jsonl.gz", columns=Columns(text="text"))
        batches[name] = [example.text for example in task.train[:64]]
    lexicon = Lexicon.of_words(batches["yelp"][:32])
    rates = [complexity(texts[32:], lexicon) for texts in batches.values()]
    assert 0 < rates[0].oov_rate < rates[1].oov_rate < 1  # encyclopaedia entries are further from reviews than reviews
    assert rates[0].entropy_bits != rates[1].entropy_bits


def test_no_unknown_words_means_rate_zero_and_all_unknown_means_one() -> None:
    assert complexity(["a b"], KNOWN).oov_rate == 0.0
    assert complexity(["x y"], KNOWN).oov_rate == 1.0
