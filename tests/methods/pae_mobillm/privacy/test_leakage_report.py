"""Every attack in turn, and what each defence does to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from airtune.errors import DataError
from airtune.methods.pae_mobillm.privacy.defences import Defence, GaussianNoise, Plain, Rotation
from airtune.methods.pae_mobillm.privacy.inversion import Dictionary
from airtune.methods.pae_mobillm.privacy.leak import Leak
from airtune.methods.pae_mobillm.privacy.report import Attacker, Seen, Truth, attacks
from airtune.methods.pae_mobillm.wire import Samples

COUNT, CLASSES, WIDTH, WORDS = 240, 4, 24, 8
RNG = np.random.default_rng(0)
MEANINGS = RNG.normal(size=(2, WORDS, WIDTH)).astype("f4")
"""Hidden states here are sums of their words' vectors, one set per layer."""


def states(texts: list[np.ndarray]) -> np.ndarray:
    return np.stack([MEANINGS[:, text].sum(axis=1) for text in texts])


def drawn() -> list[np.ndarray]:
    return [RNG.choice(WORDS, RNG.integers(1, 4), replace=False) for _ in range(COUNT)]


TEXTS, PUBLIC = drawn(), drawn()
LABELS = np.arange(COUNT) % CLASSES
LOGITS = RNG.normal(size=(COUNT, CLASSES)).astype("f4")
DIFFERENCES = (4 * (np.eye(CLASSES)[LABELS] - 1 / CLASSES) - LOGITS + LOGITS.mean(1, keepdims=True)).astype("f4")
TRUTH = Truth(LABELS, TEXTS, LOGITS.argmax(1) != LABELS)
LABELLED = DIFFERENCES[RNG.permutation(COUNT)]
"""True differences of the public texts."""
ATTACKER = Attacker(
    Dictionary.read(states, np.arange(WORDS), (2, 5)),
    np.arange(WORDS),
    PUBLIC,
    LABELLED,
)


def seen(defence: Defence, again: Defence) -> Seen:
    """Both sides' texts under one defence, with secrets of their own."""
    ids = np.arange(COUNT, dtype=np.uint64)
    activations, differences = defence.outgoing(ids, states(TEXTS), DIFFERENCES)
    public, _ = again.outgoing(ids, states(PUBLIC), DIFFERENCES)
    samples = Samples(ids, np.ones(COUNT, np.int64), activations, differences)
    halves = (DIFFERENCES, DIFFERENCES), (DIFFERENCES + 1, DIFFERENCES)
    _, answers = defence.outgoing(ids, states(PUBLIC), LABELLED)  # of a network that has learned all there is
    return Seen(samples, (2, 5), public, LOGITS, answers, *halves)


def noise(seed: int) -> GaussianNoise:
    return GaussianNoise.calibrated(1.0, 1e-5, (10.0, 4.0), np.random.default_rng(seed))


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, str, int | None], Leak]:
    rotation, rng = Rotation.draw(CLASSES, 9, np.random.default_rng(1)), np.random.default_rng(0)
    cases = {
        "plain": seen(Plain(), Plain()),
        "rotation": seen(rotation, rotation),
        "noise": seen(noise(2), noise(3)),
    }
    found = {name: attacks(case, TRUTH, ATTACKER, rng.spawn(1)[0]) for name, case in cases.items()}
    return {(name, leak.measure, leak.layer): leak for name, leaks in found.items() for leak in leaks}


def test_plain_gives_everything_away(rows: dict):
    for measure in ("label: difference + prediction", "label: rotation solved"):
        assert rows["plain", measure, None].value == 1.0
    for measure in ("label: largest difference", "label: named by labelled texts"):
        assert rows["plain", measure, None].value > 0.95
    for layer in (2, 5):
        assert rows["plain", "words: mean average precision", layer].value > 0.99
        found = rows["plain", "token: nearest is in the text", layer]
        assert found.value > 0.9 > 0.5 > found.chance
    assert rows["plain", "membership: area", None].value == 1.0
    assert rows["plain", "backbone wrong: norm of difference, area", None].value > 0.8


def test_a_rotation_hides_the_largest_entry_and_nothing_else(rows: dict):
    assert ("rotation", "label: difference + prediction", None) not in rows
    assert rows["rotation", "label: largest difference", None].value < 0.6
    assert rows["rotation", "label: rotation solved", None].value == 1.0
    named, largest = (f"label: {how}" for how in ("named by labelled texts", "largest difference"))
    assert rows["rotation", named, None].value == rows["plain", largest, None].value  # the rotation is out of the way
    for measure in ("groups: purity", "backbone wrong: norm of difference, area"):
        kept = rows["plain", measure, None].value
        assert rows["rotation", measure, None].value == pytest.approx(kept, abs=0.05)


def test_noise_of_a_small_epsilon_brings_attacks_to_chance(rows: dict):
    for (defence, measure, _), row in rows.items():
        if defence == "noise" and not measure.startswith("membership"):  # whose answers were given
            assert row.value < row.chance + 0.12, measure


def test_samples_must_match_their_labels():
    short = replace(TRUTH, labels=LABELS[:-1])
    with pytest.raises(DataError, match="240 samples with 240 pivots came for 239 labels"):
        list(attacks(seen(Plain(), Plain()), short, ATTACKER, np.random.default_rng(0)))


def test_a_backbone_that_is_never_wrong_has_no_such_row():
    right = replace(TRUTH, wrong=np.zeros(COUNT, bool))
    plain = replace(seen(Plain(), Plain()), predictions=None, answers=None, members=None)
    found = {leak.measure for leak in attacks(plain, right, ATTACKER, np.random.default_rng(0))}
    assert found == {
        *("label: largest difference", "groups: purity", "groups: adjusted Rand index"),
        *("token: nearest is in the text", "words: mean average precision"),
    }
