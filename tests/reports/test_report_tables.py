"""The table in a terminal: 120 columns, numbers by hand, nothing that a terminal would obey."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from airtune.reports import result_table


def shown(folder, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(result_table(folder))
    return console.file.getvalue()


def line(text: str, *words: str) -> str:
    """The cells of the line that starts with these words, single spaces between them."""
    return next(" ".join(line.split()) for line in text.splitlines() if line.split()[: len(words)] == list(words))


def test_every_cell_is_as_worked_out_by_hand(write_run):
    text = shown(write_run())
    assert line(text, "airllm", "0") == "airllm 0 7 178.0 180.0 1.000 yes ★ 0.5123 84.4 84.2 84.2"
    assert line(text, "random", "0") == "random 0 7 183.4 185.4 1.030 NO, LATE 0.5094 83.7 83.5 83.5"
    assert line(text, "airllm", "10") == "airllm 10 7 310.0 312.0 0.500 yes ★ 0.4012 87.3 87.1 87.1"
    assert line(text, "random", "10") == "random 10 7 429.5 431.5 0.690 yes 0.4305 – – –"
    assert line(text, "head", "only") == "head only 0.5500 80.0"


@pytest.mark.parametrize("fading", [False, True])
def test_the_table_fits_in_120_columns(write_run, rows, fading):
    for row in rows:
        row |= {
            "allocator": row["allocator"] + "_with_a_rather_long_name",
            "air_bits": 10**9,
            "payload_bits": 10**9 - 1,
        }
        row |= {"blocks": 200, "blocks_late": 13} if fading else {}
    text = shown(write_run(rows=rows))
    assert max(map(len, text.splitlines())) <= 120
    assert "NO, LATE" in text
    assert ("13/200" in text) is fading
    assert "0.5094" in text


def test_perplexity_is_not_a_share(write_run, rows):
    text = shown(write_run(rows=[row | {"metric": "perplexity", "score_edge": 26.555} for row in rows]))
    assert "ppl" in text
    assert line(text, "airllm", "0").endswith((" 26.55", " 26.56"))


def test_names_can_neither_style_nor_steer_the_terminal(write_run, rows):
    rows[0]["allocator"] = "[red]x[/nonsense]\x1b[31m"
    text = shown(write_run(rows=rows))
    assert "[red]x[/nonsense]" in text
    assert "\x1b" not in text
