"""Cutting data into parts that share nothing: normalised texts, stratified draws, leak-free training rows.

This module knows texts and labels, no files and no models. A draw depends on its generator and on the order of the
examples, on nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from airtune.errors import DataError
from airtune.tasks.examples import PARTS, Classification, Example, Part, Sizes

Examples = tuple[Example, ...]

SHARES: Mapping[Part, float] = {"train": 0.8, "calibration": 0.05, "dev": 0.05, "test": 0.1}
"""How one file is cut where it comes without parts; a calibration part of rows is drawn by `Sizes` instead."""

DEV_SHARE = 0.1
"""The share of the training rows that makes dev where there is a test part but no dev part."""


def normalised(text: str) -> str:
    """Return what two texts are compared by: case folded, white space runs as one blank.

    Example:
        >>> normalised(" A  Film\\n")
        'a film'
    """
    return " ".join(text.casefold().split())


def draw(examples: Sequence[Example], count: int | None, rng: np.random.Generator) -> tuple[Examples, Examples]:
    """Draw `count` examples, stratified by label, and return (drawn, rest), both in the given order.

    Each label gets its share of `count`, rounded down; the largest remainders get one more (Hamilton's method).
    None draws all, and so does a count that is not smaller than what there is.
    """
    if count is None or count >= len(examples):
        return tuple(examples), ()
    places: dict[int, list[int]] = defaultdict(list)
    for place, example in enumerate(examples):
        places[example.label].append(place)
    quotas = {label: divmod(count * len(places[label]), len(examples)) for label in sorted(places)}
    by_remainder = sorted(quotas, key=lambda label: -quotas[label][1])
    one_more = set(by_remainder[: count - sum(whole for whole, _ in quotas.values())])
    chosen: set[int] = set()
    for label, (whole, _) in quotas.items():
        chosen.update(rng.permutation(places[label])[: whole + (label in one_more)].tolist())
    drawn = tuple(example for place, example in enumerate(examples) if place in chosen)
    return drawn, tuple(example for place, example in enumerate(examples) if place not in chosen)


def without_texts_of(examples: Iterable[Example], *others: Iterable[Example]) -> Examples:
    """Drop the examples whose normalised text occurs in one of the others."""
    taken = {normalised(example.text) for other in others for example in other}
    return tuple(example for example in examples if normalised(example.text) not in taken)


def draw_texts(examples: Sequence[Example], count: int, rng: np.random.Generator) -> tuple[Examples, Examples]:
    """Draw `count` different texts, stratified, and return (drawn, rest) with all copies of a text on one side.

    Texts are compared normalised; copies are stratified by the label of the first one.
    """
    firsts = {normalised(example.text): example for example in reversed(examples)}
    drawn, _ = draw([firsts[text] for text in sorted(firsts)], count, rng)
    taken = {normalised(example.text) for example in drawn}
    return (
        tuple(example for example in examples if normalised(example.text) in taken),
        tuple(example for example in examples if normalised(example.text) not in taken),
    )


def shuffled(examples: Sequence[Example], rng: np.random.Generator) -> Examples:
    """Return the examples in a random order."""
    return tuple(examples[place] for place in rng.permutation(len(examples)))


def assemble(
    name: str,
    labels: tuple[str, ...],
    given: Mapping[Part, Sequence[Example]],
    sizes: Sizes,
    rng: np.random.Generator,
) -> Classification:
    """Make the four disjoint parts out of those that a source has: train, and perhaps dev and test.

    Neither dev nor test: both are drawn from train (5 % and 10 % of its texts). No dev: a tenth of train. No test: half
    of dev. Then rows whose normalised text stands in test leave dev, rows whose text stands in either leave train, and
    calibration is drawn from train. Raises `DataError` where the training rows do not suffice.
    """
    fixed = np.random.default_rng(0)  # whatever the seed, the same dev and test
    train = tuple(given["train"])
    dev, test = tuple(given.get("dev", ())), tuple(given.get("test", ()))
    if not dev and not test:
        test, remaining = draw_texts(train, round(SHARES["test"] * len(train)), fixed)
        dev, train = draw_texts(remaining, round(SHARES["dev"] * len(train)), fixed)
    elif not dev:
        dev, train = draw_texts(train, round(DEV_SHARE * len(train)), fixed)
    elif not test:
        dev, test = draw_texts(dev, len(dev) // 2, fixed)
    dev = without_texts_of(dev, test)
    clean = without_texts_of(train, dev, test)
    calibration, rest = _calibration(name, clean, sizes.calibration, rng)
    parts = {"train": shuffled(rest, rng), "calibration": calibration, "dev": dev, "test": test}
    kept = {part: draw(parts[part], getattr(sizes, part), rng)[0] for part in PARTS}
    return Classification(name, labels, train_rows_dropped=len(train) - len(clean), **kept)


def _calibration(name: str, train: Examples, count: int | None, rng: np.random.Generator) -> tuple[Examples, Examples]:
    """Draw the calibration part and return (calibration, training rows without its texts)."""
    size = count or max(1, min(512, len(train) // 10))
    if len(train) < 2 * size:
        found = f"{len(train)} training rows, too few to draw {size} calibration rows from"
        raise DataError(f"task {name} has {found}; give more rows or ask for a smaller calibration part")
    drawn, rest = draw(train, size, rng)
    return drawn, without_texts_of(rest, drawn)
