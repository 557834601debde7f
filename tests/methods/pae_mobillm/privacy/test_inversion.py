"""Nearest tokens on tiny models: single tokens come back exactly, mixed-up rows are chance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from airtune.errors import DataError
from airtune.methods.pae_mobillm.privacy.inversion import Dictionary, Frame, Read, frames, nearest_tokens
from airtune.models import BaseModel, Items, load_base
from tiny_models import save_tiny_model

TOKENS = np.arange(4, 22)
LAYERS = (0, 1, 2)


def reader(base: BaseModel, pivot: int) -> Read:
    """Hidden states at one end of each text, as transformers lists them."""

    def read(texts: Sequence[np.ndarray]) -> np.ndarray:
        batch = Items(tuple(texts), np.zeros(len(texts), np.int64), 0).batch(range(len(texts)))
        with torch.inference_mode():
            states = base.model(batch.input_ids, batch.attention_mask, output_hidden_states=True).hidden_states
        at = batch.attention_mask.sum(1) - 1 if pivot else torch.zeros(len(texts), dtype=torch.int64)
        return torch.stack([state[torch.arange(len(texts)), at] for state in states], 1).numpy()

    return read


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> BaseModel:
    return load_base(str(save_tiny_model(folder / "bert", "bert", kind="classify")), "classify")


@pytest.fixture(scope="module")
def decoder(folder: Path) -> BaseModel:
    return load_base(str(save_tiny_model(folder / "opt", "opt", kind="classify")), "classify")


def test_an_encoders_first_token_gives_single_words_away_behind_the_first_block(encoder: BaseModel):
    (frame,) = frames(encoder.tokenizer)
    assert frame == Frame((2,), (3,))
    read = reader(encoder, 0)
    dictionary = Dictionary.read(read, TOKENS, LAYERS, [frame])
    rows = read([frame.around(token) for token in TOKENS])
    texts = [np.array([token]) for token in TOKENS]
    before, first, second = nearest_tokens(rows, LAYERS, dictionary, texts)
    assert (before.value, before.layer) == (0.0, 0)  # [CLS] itself: the same whatever follows
    assert (first.value, second.value) == (1.0, 1.0)
    assert first.chance == 0.0  # every text has another word
    mixed = np.random.default_rng(0).permutation(rows)
    found = list(nearest_tokens(mixed, LAYERS, dictionary, texts))
    assert found[1].value <= 3 / 18


def test_a_decoders_last_token_is_the_nearest(decoder: BaseModel):
    read = reader(decoder, -1)
    dictionary = Dictionary.read(read, TOKENS, LAYERS)
    rows = read([Frame().around(token) for token in TOKENS])
    found = list(nearest_tokens(rows, LAYERS, dictionary, [np.array([token]) for token in TOKENS], TOKENS))
    assert [one.layer for one in found] == [0, 0, 1, 1, 2, 2]
    assert [one.value for one in found] == [1.0] * 6


def test_fillers_meet_learned_positions(decoder: BaseModel):
    """Behind other words the last token's embedding has another position's vector; a frame of that length knows it."""
    rng = np.random.default_rng(0)
    texts = [rng.choice(TOKENS, length) for length in rng.integers(1, 6, 200)]
    pivots = np.array([text[-1] for text in texts])
    read = reader(decoder, -1)
    rows, found = read(texts), []
    for lengths in ((0,), range(5)):
        surroundings = [Frame((4,) * length) for length in lengths]
        found.append(
            list(nearest_tokens(rows, LAYERS, Dictionary.read(read, TOKENS, LAYERS, surroundings), texts, pivots))
        )
    (_, alone, *_), (_, filled, _, behind, *_) = found
    assert filled.value == 1.0
    assert alone.value < filled.value
    assert behind.value > 3 * behind.chance
    assert behind.chance == pytest.approx(1 / 18, abs=0.02)


def test_chance_is_the_mean_over_all_other_texts():
    """Guesses 7, 8, 7 for texts {7}, {7, 9}, {8}: right once; against the others 1/2 (7 in the second), 1/2, 2/2."""
    dictionary = Dictionary(
        np.array([7, 8]), (1,), np.zeros((1, 1, 2), np.float32), np.eye(2, dtype=np.float32)[None, None]
    )
    rows = np.array([[[1.0, 0]], [[0, 1.0]], [[2.0, 1.0]]], np.float32)
    texts = [np.array([7]), np.array([7, 9]), np.array([8])]
    (found,) = nearest_tokens(rows, (1,), dictionary, texts)
    assert (found.value, found.chance, found.count) == (pytest.approx(1 / 3), pytest.approx(2 / 3), 3)
    assert list(nearest_tokens(rows, (2,), dictionary, texts)) == []
    with pytest.raises(DataError, match="1 samples to invert"):
        list(nearest_tokens(rows[:1], (1,), dictionary, texts[:1]))


def test_frames_put_fillers_between_special_tokens_and_the_word(encoder: BaseModel):
    assert frames(encoder.tokenizer, filler=4, lengths=(0, 2)) == (Frame((2,), (3,)), Frame((2, 4, 4), (3,)))
