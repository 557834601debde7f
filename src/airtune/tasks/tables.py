"""Labelled rows from the user's files: a GLUE folder of SST-2, or any folder or file of .jsonl, .tsv, .csv.

This module knows which file makes which part and what counts as a label. Reading is done in `files`, cutting in
`splits`. It knows no models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from airtune.errors import DataError
from airtune.tasks.examples import Classification, Columns, Example, Part, Sizes
from airtune.tasks.files import TABLE_KINDS, UNLABELLED, Row, read_table
from airtune.tasks.splits import assemble

SST2_LABELS = ("negative", "positive")
_STEMS: Mapping[Part, tuple[str, ...]] = {"train": ("train",), "dev": ("dev", "validation", "valid"), "test": ("test",)}


def load_sst2(folder: Path, columns: Columns, sizes: Sizes, rng: np.random.Generator) -> Classification:
    """Read SST-2 as GLUE ships it: train.tsv (or .tsv.gz), dev.tsv and, if it has labels, test.tsv.

    Without a labelled test.tsv, half of dev becomes test. Raises `DataError` for a missing file or column and for a
    label that is not 0 or 1, with its line.
    """
    paths = _parts_in(folder, kinds=(".tsv",))
    if "dev" not in paths:
        raise DataError(f"no dev.tsv in {folder}; put GLUE's dev.tsv beside train.tsv")
    rows = {part: read_table(path, columns, labels_optional=part == "test") for part, path in paths.items()}
    if "test" in rows and {row.label for row in rows["test"]} == {UNLABELLED}:
        del rows["test"]
    parts = {part: [Example(row.text, _glue_label(paths[part], row)) for row in rows[part]] for part in rows}
    return assemble("sst2", SST2_LABELS, parts, sizes, rng)


def load_classify(
    data: Path, columns: Columns, sizes: Sizes, rng: np.random.Generator, *, name: str = "classify"
) -> Classification:
    """Read a table file, or a folder with train, dev (or validation, valid) and test tables; only train must be there.

    Labels are the different entries of the label column of train, sorted: as numbers if all are integers, else as
    strings. Raises `DataError` for a label of dev or test that train lacks.
    """
    paths: dict[Part, Path] = _parts_in(data, kinds=TABLE_KINDS) if data.is_dir() else {"train": data}
    rows: dict[Part, tuple[Row, ...]] = {part: read_table(path, columns) for part, path in paths.items()}
    labels = sorted_labels(row.label for row in rows["train"])
    parts = {part: with_indices(paths[part], rows[part], labels) for part in rows}
    return assemble(name, labels, parts, sizes, rng)


def sorted_labels(found: Iterable[str]) -> tuple[str, ...]:
    """Return the different labels, sorted as numbers if all are integers, else as strings.

    Example:
        >>> sorted_labels(["10", "9", "10"])
        ('9', '10')
    """
    labels = set(found)
    if all(_is_integer(label) for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def with_indices(path: Path, rows: Iterable[Row], labels: Sequence[str]) -> tuple[Example, ...]:
    """Replace the labels of rows by their indices. Raises `DataError` for a label that is not among them."""
    index = {label: place for place, label in enumerate(labels)}
    for row in rows:
        if row.label not in index:
            known = ", ".join(labels[:8])
            raise DataError(f"{path}, line {row.line}: label {row.label!r} is not in train ({known}); mend the row")
    return tuple(Example(row.text, index[row.label]) for row in rows)


def _parts_in(folder: Path, kinds: tuple[str, ...]) -> dict[Part, Path]:
    """Find the one file of each part in a folder; train must be there."""
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; give the folder that holds train{kinds[0]}")
    paths: dict[Part, Path] = {}
    for part, stems in _STEMS.items():
        names = [f"{stem}{kind}{packed}" for stem in stems for kind in kinds for packed in ("", ".gz")]
        found = [folder / name for name in names if (folder / name).is_file()]
        if len(found) > 1:
            listed = ", ".join(path.name for path in found)
            raise DataError(f"{folder} holds several files for {part}: {listed}; keep one of them")
        if found:
            paths[part] = found[0]
    if "train" not in paths:
        listed = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise DataError(f"no train file in {folder}, found: {listed}; name one train{kinds[0]} (or .gz)")
    return paths


def _glue_label(path: Path, row: Row) -> int:
    if row.label not in ("0", "1"):
        raise DataError(f"{path}, line {row.line}: label is {row.label!r}, expected 0 or 1; mend the row")
    return int(row.label)


def _is_integer(label: str) -> bool:
    return label.removeprefix("-").isdecimal()
