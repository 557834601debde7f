"""Labels by name, from differences: the largest entry, the same with predictions added back, and through a rotation
by who knows predictions, or has labelled texts of the task and the network that was trained.

When the largest entry is the label, of a plain difference D with label y and C classes:

* probability space, D = onehot(y) - p: D_y = 1 - p_y >= 0 and D_j = -p_j <= 0 for all others. The largest entry is y
  always, but where p_y is rounded to 1 and another p_j to 0: two entries are 0 then.
* logit space, D = s (onehot(y) - 1 / C) - (l - mean l): D_y - D_j = s - (l_y - l_j). The largest entry is y unless
  l_y > l_j + s for some j: it fails where the backbone is so sure *and right* that the target draws it back. Hence it
  is measured. But a server that knows the backbone and has the last hidden state knows l, and l + D is the target.

Knows what a server sees and the true labels to compare with; no secrets.
"""

from __future__ import annotations

import numpy as np

from airtune.methods.pae_mobillm.privacy.leak import Leak, area_under_curve, share_right
from airtune.methods.pae_mobillm.privacy.partition import clusters

_ROUNDS = 50
_STARTS = 4


def by_largest(differences: np.ndarray, labels: np.ndarray) -> Leak:
    """Labels ``(n,)`` read off as the largest entries of differences ``(n, C')`` as sent.

    Of rotated ones it is luck, and for one secret all or none of a class: over secrets a share of 1 / C'.
    """
    return share_right("label: largest difference", differences.argmax(axis=1), labels)


def by_target(differences: np.ndarray, predictions: np.ndarray, labels: np.ndarray) -> Leak:
    """The same once the backbone's own predictions are added back: exact, wherever those are known.

    Args:
        differences: Plain, ``(n, C)``.
        predictions: Logits or probabilities, as differences were taken, ``(n, C)``, as the server computes them from
            the last hidden state it got.
    """
    return share_right("label: difference + prediction", (differences + _centred(predictions)).argmax(axis=1), labels)


def behind_rotation(
    differences: np.ndarray, predictions: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> Leak:
    """Names of labels in spite of a secret rotation, by a server that knows the backbone's predictions.

    A rotated difference is R t - R l, with one of C targets t. Samples of one class differ by R (l - l') alone, and all
    of that is known but R: least squares find it. Alternately, R and the class means are fitted and each sample is
    given to the nearest mean of D + R l, from directions of the differences on; of several starts the closest fit
    stays. A sample is then named by the axis of R that its D + R l is nearest to. Where noise leaves the groups but
    not R, names may be exchanged, and the share falls below chance.

    Args:
        differences: ``(n, K)``, K >= C.
        predictions: ``(n, C)``.
    """
    differences, known = differences.astype(np.float64), _centred(predictions)
    least, best = np.inf, np.zeros(len(labels), np.int64)
    for _ in range(_STARTS):
        groups = clusters(differences, predictions.shape[1], rng, restarts=1)
        for _ in range(_ROUNDS):
            axes, means, targets = _fit(differences, known, groups)
            distances = ((targets[:, None] - means) ** 2).sum(axis=2)
            before, groups = groups, distances.argmin(axis=1)
            if (groups == before).all():
                break
        if (error := distances.min(axis=1).sum()) < least:
            least, best = error, (targets @ axes).argmax(axis=1)
    return share_right("label: rotation solved", best, labels)


def by_labelled_texts(differences: np.ndarray, answers: np.ndarray, known: np.ndarray, labels: np.ndarray) -> Leak:
    """Names of labels in spite of a secret rotation, by a server that has labelled texts of the task.

    What it trained answers in the device's own rotation: R is fitted by least squares of its answers to these texts
    against their true differences, which follow from backbone and labels; a sample is then named by the axis of R that
    its difference is nearest to. It needs no layer to be the last one.

    Args:
        differences: As sent, ``(n, K)``.
        answers: Of the side network to the server's own m texts, not turned back, ``(m, K)``.
        known: Their true differences, ``(m, C)``.
    """
    turn = np.linalg.lstsq(known.astype(np.float64), answers.astype(np.float64), rcond=1e-6)[0]
    return share_right("label: named by labelled texts", (differences @ turn.T).argmax(axis=1), labels)


def wrong_by_norm(differences: np.ndarray, wrong: np.ndarray) -> Leak:
    """Whether longer differences tell which samples ``(n,)`` the backbone gets wrong: area under the curve."""
    norms = np.linalg.norm(differences, axis=1)
    area = area_under_curve(norms[wrong], norms[~wrong])
    return Leak("backbone wrong: norm of difference, area", area, 0.5, len(wrong))


def _fit(differences: np.ndarray, known: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """R ``(K, C)``, class means of D + R l ``(C, K)``, and D + R l ``(n, K)``, by least squares of D = mean - R l."""
    classes = known.shape[1]
    design = np.concatenate([np.eye(classes)[groups], known], axis=1)
    solved = np.linalg.lstsq(design, differences, rcond=1e-10)[0]
    axes = -solved[classes:].T
    return axes, solved[:classes], differences + known @ axes.T


def _centred(predictions: np.ndarray) -> np.ndarray:
    wide = predictions.astype(np.float64)
    return wide - wide.mean(axis=1, keepdims=True)
