"""Labels from differences: where the largest entry must be the label, where it cannot, and what a rotation hides."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from airtune.errors import DataError
from airtune.methods.pae_mobillm.privacy.defences import Rotation
from airtune.methods.pae_mobillm.privacy.labels import (
    behind_rotation,
    by_labelled_texts,
    by_largest,
    by_target,
    wrong_by_norm,
)


def backbone(n: int = 400, classes: int = 4, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and logits that know a little of them."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, n)
    return labels, (spread * rng.normal(size=(n, classes)) + 0.5 * np.eye(classes)[labels]).astype(np.float32)


def in_logits(labels: np.ndarray, logits: np.ndarray, scale: float = 4.0) -> np.ndarray:
    classes = logits.shape[1]
    return scale * (np.eye(classes)[labels] - 1 / classes) - (logits - logits.mean(axis=1, keepdims=True))


def turned(differences: np.ndarray, dimensions: int = 9) -> np.ndarray:
    return differences @ Rotation.draw(differences.shape[1], dimensions, np.random.default_rng(3)).matrix.T


@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("classes", [2, 4, 14])
def test_probabilities_give_every_label_away(classes: int, spread: float):
    labels, logits = backbone(classes=classes, spread=spread)
    found = by_largest((np.eye(classes)[labels] - softmax(logits, axis=1)).astype(np.float32), labels)
    assert (found.value, found.count) == (1.0, 400)
    assert found.chance == np.bincount(labels).max() / 400


def test_probabilities_fail_only_where_two_entries_are_rounded_to_0():
    labels, logits = backbone(spread=40.0)
    differences = (np.eye(4)[labels] - softmax(logits, axis=1)).astype(np.float32)
    tied = (differences == differences.max(axis=1, keepdims=True)).sum(axis=1) > 1
    assert 0.01 < tied.mean() < 0.5
    assert (differences[tied].max(axis=1) == 0).all()
    assert by_largest(differences[~tied], labels[~tied]).value == 1.0


def test_logits_give_every_label_away_until_the_backbone_is_surer_than_the_target():
    labels, logits = backbone(spread=0.5)
    assert by_largest(in_logits(labels, logits), labels).value == 1.0
    labels, logits = backbone(spread=4.0)
    sure = logits[np.arange(400), labels] - logits.min(axis=1) > 4
    assert 0.1 < sure.mean() < 0.9
    found = by_largest(in_logits(labels, logits), labels)
    assert found.value == pytest.approx(1 - sure.mean())
    assert by_target(in_logits(labels, logits), logits, labels).value == 1.0  # and predictions mend that


@pytest.mark.parametrize("classes", [2, 4, 14])
@pytest.mark.parametrize("spread", [0.3, 2.0])
def test_a_rotation_is_solved_by_who_knows_the_predictions(classes: int, spread: float):
    labels, logits = backbone(1000, classes, spread)
    sent = turned(in_logits(labels, logits), 16)
    assert behind_rotation(sent, logits, labels, np.random.default_rng(1)).value > 0.999
    assert by_largest(sent, labels).value < 0.6


def test_a_rotation_of_probabilities_is_solved_too():
    labels, logits = backbone()
    probabilities = softmax(logits, axis=1)
    sent = turned(np.eye(4)[labels] - probabilities)
    assert behind_rotation(sent, probabilities, labels, np.random.default_rng(1)).value == 1.0


@pytest.mark.parametrize("classes", [2, 4, 14])
def test_a_rotation_is_undone_by_what_was_trained_behind_it_and_labelled_texts(classes: int):
    """Answers are R (0.4 D + noise) for texts whose differences D are known; nothing is known of the samples."""
    labels, logits = backbone(400, classes, 0.5)
    matrix = Rotation.draw(classes, 16, np.random.default_rng(3)).matrix
    plain = in_logits(labels, logits)
    victims, texts = plain[:250], plain[250:]
    noise = np.random.default_rng(5).normal(size=texts.shape)
    found = by_labelled_texts(victims @ matrix.T, (0.4 * texts + 0.2 * noise) @ matrix.T, texts, labels[:250])
    assert (found.value, found.count) == (1.0, 250)
    assert by_largest(victims @ matrix.T, labels[:250]).value < 0.6


def test_noise_alone_is_solved_into_nothing():
    labels, logits = backbone()
    strange = np.random.default_rng(9).normal(size=logits.shape)
    sent = np.random.default_rng(8).normal(size=(400, 9))
    found = behind_rotation(sent, strange, labels, np.random.default_rng(1))
    assert found.value == pytest.approx(1 / 4, abs=5 * np.sqrt(3 / 16 / 400))


def test_long_differences_tell_what_the_backbone_gets_wrong():
    differences = np.array([[3.0, 4.0], [0.0, 1.0], [0.0, 2.0], [6.0, 0.0]])
    wrong = np.array([True, False, False, True])
    assert wrong_by_norm(differences, wrong).value == 1.0
    assert wrong_by_norm(turned(differences), wrong).value == 1.0
    assert (
        wrong_by_norm(differences, np.array([True, False, True, False])).value == 0.5
    )  # 5 beats 1, not 6; 2 beats 1, not 6
    with pytest.raises(DataError, match="both kinds"):
        wrong_by_norm(differences, np.zeros(4, bool))
