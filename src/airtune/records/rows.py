"""Lines of JSON objects, read back. Knows no meanings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from airtune.errors import RunError
from airtune.records.atomic import read_lines


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a file, one a line; none where there is no file. Raises `RunError` for a damaged line."""
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise RunError(f"{path} line {number} is not JSON ({error}); delete that line") from None
        if not isinstance(row, dict):
            raise RunError(f"{path} line {number} holds a {type(row).__name__}, an object expected; delete that line")
        rows.append(row)
    return rows
