"""Differences and the way back, worked by hand and against torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from airtune.errors import ConfigError, DataError
from airtune.methods.pae_mobillm.device.differences import corrected, outcomes, prediction_differences

ONE = np.array([1])


def test_a_logit_difference_by_hand():
    # C = 3, s = 6: the target is 6 (onehot - 1/3) = (-2, 4, -2); the logits less their mean 3 are (-2, 0, 2)
    found = prediction_differences(np.array([[1.0, 3.0, 5.0]], np.float32), ONE, space="logit", scale=6.0)
    np.testing.assert_allclose(found, [[0.0, 4.0, -4.0]], atol=1e-6)
    assert found.dtype == np.float32


def test_a_probability_difference_by_hand():
    logits = np.log(np.array([[0.2, 0.3, 0.5]])).astype(np.float32) + 7
    found = prediction_differences(logits, ONE, space="probability", scale=6.0)
    np.testing.assert_allclose(found, [[-0.2, 0.7, -0.5]], atol=1e-6)


def test_a_shift_of_all_logits_changes_nothing():
    logits = np.array([[0.5, -1.0], [2.0, 3.0]], np.float32)
    for space in ("logit", "probability"):
        first = prediction_differences(logits, np.array([0, 1]), space=space, scale=4.0)
        np.testing.assert_allclose(
            first, prediction_differences(logits + 10, np.array([0, 1]), space=space, scale=4.0), atol=1e-5
        )
        np.testing.assert_allclose(first.sum(1), 0, atol=1e-6)


def test_the_label_is_the_one_positive_component_of_a_probability_difference():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 5, 200)
    found = prediction_differences(rng.normal(size=(200, 5)) * 3, targets, space="probability", scale=1.0)
    assert ((found > 0).sum(1) == 1).all()
    assert np.array_equal(found.argmax(1), targets)


def test_large_logits_do_not_overflow():
    found = prediction_differences(np.array([[1000.0, 0.0]], np.float32), ONE, space="probability", scale=1.0)
    np.testing.assert_allclose(found, [[-1.0, 1.0]])
    assert outcomes(np.array([[1000.0, 0.0]]), ONE, ONE, space="logit", text=False).loss == 1000.0


def test_the_true_difference_leads_to_the_target():
    rng = np.random.default_rng(1)
    logits, targets = rng.normal(size=(50, 4)).astype(np.float32), rng.integers(0, 4, 50)
    onehot = np.eye(4)[targets]
    for space, reached in (("logit", 4 * (onehot - 0.25)), ("probability", onehot)):
        truth = prediction_differences(logits, targets, space=space, scale=4.0)
        scores = corrected(logits, truth, space=space)
        shift = logits.mean(1, keepdims=True) if space == "logit" else 0
        np.testing.assert_allclose(scores - shift, reached, atol=1e-5)
        assert outcomes(scores, targets, np.ones(50, int), space=space, text=False).metric == 1.0


def test_no_difference_is_the_backbones_own_prediction_exactly():
    logits = np.random.default_rng(2).normal(size=(20, 3)).astype(np.float32)
    assert np.array_equal(corrected(logits, np.zeros_like(logits), space="logit"), logits)
    probability = corrected(logits, np.zeros_like(logits), space="probability")
    np.testing.assert_allclose(probability, torch.from_numpy(logits).softmax(1).numpy(), rtol=1e-6)


def test_loss_and_accuracy_are_torchs():
    rng = np.random.default_rng(3)
    scores, targets = rng.normal(size=(30, 4)).astype(np.float32) * 5, rng.integers(0, 4, 30)
    found = outcomes(scores, targets, np.ones(30, int), space="logit", text=False)
    expected = functional.cross_entropy(torch.from_numpy(scores), torch.from_numpy(targets), reduction="none")
    np.testing.assert_allclose(found.losses, expected.numpy(), rtol=1e-4, atol=1e-6)
    assert found.hits is not None
    assert found.hits.tolist() == (scores.argmax(1) == targets).tolist()
    assert np.array_equal(found.logits, scores)


def test_a_probability_score_has_no_loss():
    found = outcomes(np.array([[0.9, 0.3]]), ONE, ONE, space="probability", text=False)
    assert math.isnan(found.loss)
    assert found.metric == 0.0


def test_perplexity_by_hand():
    # two windows of 2 and 1 next tokens with probabilities 1/2, 1/8 and 1/4: mean losses ln 4 and ln 4
    scores = np.log(np.array([[0.5, 0.5], [0.125, 0.875], [0.75, 0.25]]))
    found = outcomes(scores, np.array([0, 0, 1]), np.array([2, 1]), space="logit", text=True)
    np.testing.assert_allclose(found.losses, [math.log(4)] * 2)
    assert found.hits is None
    assert found.metric == pytest.approx(4.0)
    np.testing.assert_array_equal(found.logits, scores[1:])


def test_a_difference_corrects_a_next_token():
    # softmax((0, 0) + (ln 3, 0)) = (3/4, 1/4)
    scores = corrected(np.zeros((1, 2), np.float32), np.array([[math.log(3), 0.0]]), space="logit")
    assert outcomes(scores, np.array([0]), ONE, space="logit", text=True).metric == pytest.approx(4 / 3)


@pytest.mark.parametrize("target", [-1, 2])
def test_a_target_that_is_no_class_is_refused(target):
    with pytest.raises(DataError, match="tells 0 to 1 apart"):
        prediction_differences(np.zeros((1, 2)), np.array([target]), space="logit", scale=4.0)


def test_perplexity_in_probability_space_is_refused():
    with pytest.raises(ConfigError, match=r"set device\.space to logit"):
        outcomes(np.zeros((1, 2)), np.array([0]), ONE, space="probability", text=True)
