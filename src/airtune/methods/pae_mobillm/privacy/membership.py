"""Who was in the training set: whoever holds the side network asks it about samples it may have been trained on.

The attacker has the sample, its label and the backbone, so both the side network's answer and the true difference; a
network that remembers is closer on what it has seen (Yeom et al. 2018). Answers of a rotated network are turned back
first, as by an attacker who has solved the rotation: the worst case. True differences carry no noise.
"""

from __future__ import annotations

import numpy as np

from airtune.methods.pae_mobillm.privacy.leak import Leak, area_under_curve, hit_rate

FALSE_ALARMS = 0.01


def membership(seen: tuple[np.ndarray, np.ndarray], unseen: tuple[np.ndarray, np.ndarray]) -> tuple[Leak, Leak]:
    """Area under the curve, and the share of members named at 1 % false alarms.

    Args:
        seen: Answers and true differences of samples that were trained on, ``(n, C)`` each.
        unseen: The same of others from the same task.
    """
    inside, outside = (-((answers - true) ** 2).sum(axis=1, dtype=np.float64) for answers, true in (seen, unseen))
    count = len(inside) + len(outside)
    return (
        Leak("membership: area", area_under_curve(inside, outside), 0.5, count),
        Leak("membership: found at 1 % false alarms", hit_rate(inside, outside, FALSE_ALARMS), FALSE_ALARMS, count),
    )
