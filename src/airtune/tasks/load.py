"""A task by name: the plain table of what can be loaded.

This module knows the names of tasks and which of them read the user's data. How each is read stands in its own module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from airtune.errors import DataError
from airtune.tasks.examples import Classification, Columns, Sizes, Task
from airtune.tasks.hub import load_hub
from airtune.tasks.pydocs import load_pydocs
from airtune.tasks.tables import load_classify, load_sst2
from airtune.tasks.text import load_text

TASKS = {
    "pydocs": "sentences of this Python's own documentation by area; needs no data",
    "sst2": "a folder with GLUE's train.tsv (or .gz), dev.tsv and perhaps a labelled test.tsv",
    "agnews": "a file or folder of AG News as classify reads it, in columns text and label",
    "classify": "texts with labels in a .jsonl, .tsv or .csv file (or .gz), or a folder with train, dev and test",
    "text": "a .txt file (or .gz), for next-token prediction",
    "hub:NAME": "a labelled data set by hub name, with /CONFIG if it has any, through the library datasets",
}
"""Every task with a line on what it is and what data it wants."""

_Tables = Callable[[Path, Columns, Sizes, np.random.Generator], Classification]
_TABLES: Mapping[str, _Tables] = {
    "sst2": load_sst2,
    "agnews": partial(load_classify, name="agnews"),
    "classify": load_classify,
}
_COLUMNS = {"agnews": Columns("text", "label")}
"""Where they are others than those of GLUE."""
_DEFAULT_COLUMNS, _ALL_ROWS = Columns(), Sizes()


def load_task(
    name: str,
    *,
    data: Path | None = None,
    columns: Columns = _DEFAULT_COLUMNS,
    sizes: Sizes = _ALL_ROWS,
    seed: int = 0,
) -> Task:
    """Load a task of `TASKS` by name.

    Args:
        name: A name of `TASKS`, or `hub:` with a data set's name.
        data: The folder or file that sst2, classify and text read; the others take none.
        columns: The names of the text and label columns of tables.
        sizes: Caps on the rows of each part. Running text has no rows and is cut by shares whatever they say.
        seed: Draws the calibration part and every split that the source does not fix.

    Raises `DataError` for an unknown name and for data that are missing, malformed or too few.
    """
    rng = np.random.default_rng(seed)
    hub_name = name.removeprefix("hub:") if name.startswith("hub:") else ""
    if name not in TASKS and not hub_name.strip("/"):
        raise DataError(f"unknown task {name!r}; choose one of {', '.join(TASKS)}")
    reads_data = name in ("text", *_TABLES)
    if data is not None and not reads_data:
        raise DataError(f"task {name} reads no data, but got {data}; leave data out, or choose classify or text")
    if data is None:
        if reads_data:
            raise DataError(f"task {name} got no data, expected {TASKS[name]}; pass its path as data")
        return load_hub(hub_name.strip("/"), columns, sizes, rng) if hub_name else load_pydocs(sizes, rng)
    if name == "text":
        return load_text(data)
    return _TABLES[name](data, columns_of(name, columns), sizes, rng)


def columns_of(task: str, columns: Columns) -> Columns:
    """The columns of a task's tables: those given, or the task's own where they are the default ones."""
    return _COLUMNS.get(task, columns) if columns == _DEFAULT_COLUMNS else columns
