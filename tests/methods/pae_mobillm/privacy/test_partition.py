"""Groups from directions: purity and Rand index worked out by hand, and clusters that are plain to see."""

from __future__ import annotations

import numpy as np
import pytest

from airtune.errors import DataError
from airtune.methods.pae_mobillm.privacy.defences import Rotation
from airtune.methods.pae_mobillm.privacy.partition import adjusted_rand, clusters, partition, purity


def test_purity_by_hand():
    """Clusters of 3 a + 1 b, 2 b, and 1 a + 2 c: (3 + 2 + 2) / 9."""
    found = np.array([5, 5, 5, 5, 6, 6, 7, 7, 7])
    labels = np.array([0, 0, 0, 1, 1, 1, 0, 2, 2])
    assert purity(found, labels) == pytest.approx(7 / 9)
    assert purity(np.zeros(9, int), labels) == pytest.approx(4 / 9)


def test_adjusted_rand_by_hand():
    """The table of the same: S = 3 + 1 + 1 = 5 pairs in both, A = 6 + 1 + 3 = 10, B = 6 + 3 + 1 = 10, N = 36."""
    found = np.array([5, 5, 5, 5, 6, 6, 7, 7, 7])
    labels = np.array([0, 0, 0, 1, 1, 1, 0, 2, 2])
    assert adjusted_rand(found, labels) == pytest.approx((5 - 100 / 36) / (10 - 100 / 36))
    assert adjusted_rand(labels, found) == adjusted_rand(found, labels)


def test_adjusted_rand_is_1_for_equal_partitions_and_0_for_one_cluster():
    labels = np.array([0, 0, 1, 1, 2])
    assert adjusted_rand(np.array([9, 9, 4, 4, 1]), labels) == 1.0
    assert adjusted_rand(np.zeros(5, int), labels) == 0.0
    assert adjusted_rand(np.zeros(5, int), np.ones(5, int)) == 1.0


def test_adjusted_rand_of_random_partitions_has_mean_0():
    rng = np.random.default_rng(0)
    found = [adjusted_rand(rng.integers(0, 3, 60), rng.integers(0, 4, 60)) for _ in range(600)]
    assert abs(np.mean(found)) < 5 * np.std(found) / np.sqrt(600)


@pytest.mark.parametrize("classes", [2, 4, 14])
def test_a_rotation_keeps_the_groups(classes: int):
    rng = np.random.default_rng(0)
    labels = np.arange(60 * classes) % classes
    logits = 0.4 * rng.normal(size=(len(labels), classes))
    differences = 4 * (np.eye(classes)[labels] - 1 / classes) - logits
    sent = differences @ Rotation.draw(classes, 3 * classes, rng).matrix.T
    pure, rand = partition(sent, labels, rng)
    assert pure.value == rand.value == 1.0
    assert (pure.chance, rand.chance, pure.count) == (1 / classes, 0.0, len(labels))


def test_directions_without_meaning_are_near_chance():
    rng = np.random.default_rng(0)
    pure, rand = partition(rng.normal(size=(2000, 6)), rng.integers(0, 2, 2000), rng)
    assert pure.value < pure.chance + 0.05
    assert abs(rand.value) < 0.01


def test_lengths_are_not_looked_at_and_zero_rows_do_no_harm():
    rows = np.array([[1.0, 0], [100.0, 1], [0, 1.0], [0, 0.001], [0, 0]])
    found = clusters(rows, 2, np.random.default_rng(0))
    assert found[0] == found[1] != found[2] == found[3]


def test_fewer_directions_than_clusters_are_clustered_all_the_same():
    found = clusters(np.ones((4, 2)), 3, np.random.default_rng(0))
    assert len(set(found.tolist())) == 1


def test_fewer_samples_than_clusters_are_refused():
    with pytest.raises(DataError, match="2 samples cannot make 3 clusters"):
        clusters(np.ones((2, 2)), 3, np.random.default_rng(0))
