"""Figures: what is drawn, that it holds something, and that drawing leaves the process as it was."""

from __future__ import annotations

import io
import math
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from airtune.reports import Site, read_run
from airtune.reports.axes import Level, draw_levels, draw_lines
from airtune.reports.figures import draw_figures
from airtune.reports.rank_map import draw_rank_map, grid, short_names, size_in
from airtune.reports.theme import LIGHT
from airtune.reports.units import SECOND, Unit

ALL = [
    "score_against_bits", "loss_against_bits", "ranks_at_lowest_snr", "ranks_at_highest_snr", "airtime_against_snr",
    "policy_reward", "training_loss",
]  # fmt: skip


def test_every_figure_is_a_png_that_shows_something(write_run):
    drawings = draw_figures(read_run(write_run()))
    assert [drawing.name for drawing in drawings] == ALL
    for drawing in drawings:
        for png in (drawing.light, drawing.dark):
            pixels = imread(io.BytesIO(png), format="png")
            assert png.startswith(b"\x89PNG\r\n\x1a\n")
            assert pixels.shape[1] == 800  # 5.0 in at 160 dpi
            assert pixels.shape[0] >= 320
            assert len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 20
        assert len(drawing.alt) > 40


def test_alt_texts_tell_the_numbers(write_run):
    alt = {drawing.name: drawing.alt.replace("\xa0", " ") for drawing in draw_figures(read_run(write_run()))}
    assert "airllm from 84.2 % at 180.0 kbit to 87.1 % at 312.0 kbit" in alt["score_against_bits"]
    assert "longest airtime 1.03 s, 1 of 4 rows late" in alt["airtime_against_snr"]
    assert "airllm 7, random 7" in alt["ranks_at_lowest_snr"]
    assert "uniform -0.100; random -0.600" in alt["policy_reward"]


def test_drawing_changes_no_setting_and_loads_no_pyplot(write_run):
    before = dict(matplotlib.rcParams)
    folder = write_run()
    draw_figures(read_run(folder))
    assert dict(matplotlib.rcParams) == before
    code = (
        "import sys, pathlib, airtune.reports as r; loaded = 'matplotlib' in sys.modules;"
        "r.write_report(pathlib.Path(sys.argv[1])); print(loaded, 'matplotlib.pyplot' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert output.stdout.split() == ["False", "False"]


def test_one_snr_gives_one_rank_map(write_run, rows):
    names = [drawing.name for drawing in draw_figures(read_run(write_run(rows=rows[:2])))]
    assert [name for name in names if name.startswith("ranks")] == ["ranks_at_only_snr"]


def test_what_was_not_recorded_is_not_drawn(write_run, rows):
    folder = write_run(rows=[{**row, "ranks": None, "score_edge": None, "score_cloud": None} for row in rows], sites=[])
    (folder / "metrics.jsonl").unlink()
    names = [drawing.name for drawing in draw_figures(read_run(folder))]
    assert names == ["score_against_bits", "loss_against_bits", "airtime_against_snr"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_diverged_values_and_names_with_dollars_can_be_drawn(write_run, rows, value):
    rows[0] |= {"loss": value, "allocator": r"$\frac{$"}
    rows[2]["allocator"] = "_hidden"
    assert len(draw_figures(read_run(write_run(rows=rows)))) == len(ALL)


def test_levels_far_away_do_not_squeeze_the_lines():
    axes = Figure().subplots()
    axes.plot([0, 1], [0.80, 0.90])
    draw_levels(axes, [Level("near", 0.95), Level("far", 0.10)], Unit("%", 1), LIGHT)
    low, high = axes.get_ylim()
    assert 0.5 < low < 0.80
    assert 0.95 < high < 1.5
    assert [text.get_text() for text in axes.texts] == ["near", "↓ far"]


def test_a_deadline_is_drawn_however_far():
    axes = Figure().subplots()
    axes.plot([0, 1], [0.001, 0.002])
    draw_levels(axes, [Level("deadline", 1.0)], Unit("s", 1), LIGHT, keep=True)
    assert axes.get_ylim()[1] > 1.0
    assert axes.texts[0].get_text() == "deadline"


def test_late_points_carry_the_word(write_run):
    run = read_run(write_run())
    axes = Figure().subplots()
    draw_lines(axes, run, run.rows, LIGHT, lambda row: row.snr_db, "airtime_s", SECOND)
    assert [(text.get_text(), text.xy) for text in axes.texts] == [("LATE", (0.0, 1.03))]
    assert {tuple(line.get_ydata()) for line in axes.lines[:1]} == {(0.9998, 0.5)}


def test_ranks_stand_at_their_layer_and_module():
    sites = [Site(layer, module, 4) for layer in (3, 5) for module in ("q", "v")] + [Site(5, "o", 4)]
    matrix = grid(sites, [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(matrix, [[1, 2, np.nan], [3, 4, 5]])


def test_the_rank_map_has_one_scale_and_writes_every_rank(write_run):
    run = read_run(write_run())
    figure = Figure(figsize=size_in(run.sites, 2), layout="constrained")
    draw_rank_map(run.sites, run.rows[:2])(figure, LIGHT)
    panels = [axes for axes in figure.axes if axes.collections and axes.texts]
    assert [[text.get_text() for text in axes.texts] for axes in panels] == [["0", "1", "2", "4"]] * 2
    assert {axes.collections[0].get_clim() for axes in panels} == {(0.0, 4.0)}


def test_numbers_are_left_out_where_cells_are_small(write_run, rows):
    sites = [{"layer": layer, "module": f"m{m}", "in": 8, "out": 8, "cap": 4} for layer in range(40) for m in range(6)]
    run = read_run(write_run(rows=[row | {"ranks": [2] * 240} for row in rows], sites=sites))
    figure = Figure(figsize=size_in(run.sites, 2), layout="constrained")
    draw_rank_map(run.sites, run.rows[:2])(figure, LIGHT)
    assert not any(axes.texts for axes in figure.axes)


def test_short_names_stay_distinct():
    names = ["attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense"]
    assert short_names(names) == ["query", "attention.output", "intermediate", "output.dense"]
    assert short_names(["fc1"]) == ["fc1"]
