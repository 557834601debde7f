"""Labelled rows by hub name, through the optional `datasets` library.

This module knows how a hub data set names its parts and labels. It imports `datasets` only when asked for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from airtune.errors import DataError
from airtune.tasks.examples import Classification, Columns, Example, Part, Sizes
from airtune.tasks.files import UNLABELLED
from airtune.tasks.splits import assemble
from airtune.tasks.tables import sorted_labels

_SPLITS: Mapping[Part, tuple[str, ...]] = {
    "train": ("train",),
    "dev": ("validation", "dev", "validation_matched"),
    "test": ("test",),
}


def load_hub(name: str, columns: Columns, sizes: Sizes, rng: np.random.Generator) -> Classification:
    """Load `NAME[/CONFIG]`, for example `stanfordnlp/sst2` or `nyu-mll/glue/sst2`, as a classification task.

    Of two names with a slash between, the pair is tried as one data set first, then as name and configuration. A test
    part whose labels are withheld (-1) is left out, and so are rows without words. Raises `DataError` where `datasets`
    is not installed, the data set cannot be had, or a column is missing.
    """
    splits = _fetch(name)
    if "train" not in splits:
        raise DataError(f"hub data set {name} has parts {', '.join(splits)}, expected train; choose another data set")
    rows: dict[Part, list[tuple[str, str]]] = {}
    for part, candidates in _SPLITS.items():
        found = [split for split in candidates if split in splits]
        cells = list(_cells(name, splits[found[0]], columns)) if found else []
        if any(label != UNLABELLED for _, label in cells):
            rows[part] = cells
    labels = _label_names(splits["train"], columns) or sorted_labels(label for _, label in rows.get("train", []))
    index = {label: place for place, label in enumerate(labels)}
    parts: dict[Part, list[Example]] = {}
    for part, cells in rows.items():
        if stray := {label for _, label in cells} - set(index):
            raise DataError(
                f"hub data set {name}, {part}: label {min(stray)!r} is not in train; choose another data set"
            )
        parts[part] = [Example(text, index[label]) for text, label in cells]
    return assemble(f"hub:{name}", labels, parts, sizes, rng)


def _fetch(name: str) -> Mapping[str, Any]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        advice = "install airtune[hub], or pass local files to the task classify"
        raise DataError(f"hub:{name} needs the library datasets, which is not installed; {advice}") from error
    first, _, rest = name.partition("/")
    owner_and_name, _, config = rest.partition("/")
    calls: list[tuple[str, str | None]] = [(f"{first}/{owner_and_name}", config or None)] if rest else [(first, None)]
    if rest and not config:
        calls.append((first, rest))
    reason = ""
    for path, configuration in calls:
        try:
            return load_dataset(path, configuration)
        except Exception as error:  # the library raises its own, the hub client's and the network's errors
            reason = reason or f"{type(error).__name__}: {error}".splitlines()[0][:160]
            if not isinstance(error, FileNotFoundError):
                break
    advice = "check the name and the network, or pass local files to the task classify"
    raise DataError(f"hub:{name} cannot be loaded ({reason}); {advice}")


def _cells(name: str, split: Any, columns: Columns) -> Iterable[tuple[str, str]]:
    names = _label_names(split, columns)
    for column in (columns.text, columns.label):
        if column not in split.column_names:
            found = ", ".join(split.column_names)
            raise DataError(
                f"hub data set {name} has no column {column!r}, found: {found}; name the text and label columns"
            )
    for row in split:
        text, label = row[columns.text], row[columns.label]
        if not isinstance(text, str) or label is None:
            raise DataError(f"hub data set {name}: a row without text or label; choose another column or data set")
        known = names is not None and isinstance(label, int) and 0 <= label < len(names)
        if text.strip():
            yield text.strip(), names[label] if names is not None and known else str(label)


def _label_names(split: Any, columns: Columns) -> tuple[str, ...] | None:
    """Return the class names of a label column that has them."""
    names = getattr(split.features.get(columns.label), "names", None)
    return tuple(names) if names else None
