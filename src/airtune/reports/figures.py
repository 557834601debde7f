"""Every figure of a report: what it shows, in words and as PNG.

Knows the values of a run; not the page they end up on. A figure whose data the run lacks is not drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from airtune.reports import units
from airtune.reports.axes import Level, draw_levels, draw_lines, put_legend, set_bit_ticks
from airtune.reports.rank_map import draw_rank_map, size_in
from airtune.reports.run import Run
from airtune.reports.theme import DARK, LIGHT, Theme, render
from airtune.reports.units import Unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE_IN = (5.0, 3.5)
Metrics = Sequence[Mapping[str, Any]]
"""Lines of metrics.jsonl."""
REFERENCE_NAMES = {"unconstrained": "unconstrained", "head_only": "head only"}


@dataclass(frozen=True, slots=True)
class Drawing:
    """One figure, drawn for light and for dark paper."""

    name: str
    title: str
    caption: str
    alt: str
    light: bytes
    dark: bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """One figure before it is drawn."""

    name: str
    title: str
    caption: str
    alt: str
    draw: Callable[[Figure, Theme], None]
    size_in: tuple[float, float] = SIZE_IN

    def drawing(self) -> Drawing:
        """Draw it on both papers."""
        light, dark = (render(self.draw, self.size_in, theme) for theme in (LIGHT, DARK))
        return Drawing(self.name, self.title, self.caption, self.alt, light, dark)


def draw_figures(run: Run) -> tuple[Drawing, ...]:
    """Draw every figure that the run has data for, most telling first."""
    return tuple(plan.drawing() for plan in _plans(run))


def _plans(run: Run) -> Iterator[Plan]:
    score, place = units.score_unit(run.metric), run.judged.removeprefix("score_")
    better = "" if run.metric == "accuracy" else ", lower is better"
    name = f"{run.metric}, {place}{', %' if run.metric == 'accuracy' else better}"
    yield from _against_bits(run, "score_against_bits", "Score against bits on air", run.judged, score, name)
    yield from _against_bits(run, "loss_against_bits", "Loss against bits on air", "loss", units.LOSS, "loss, nat")
    yield from _rank_maps(run)
    yield from _airtime(run)
    yield from _reward(run)
    yield from _evaluations(run)
    yield from _training(run)


def _against_bits(run: Run, name: str, title: str, field: str, unit: Unit, label: str) -> Iterator[Plan]:
    """One line per allocator over the bits on air, one point per SNR."""
    shown = [row for row in run.rows if _plottable(row.air_bits) and _plottable(getattr(row, field)) and row.air_bits]
    if not shown:
        return
    kind = "loss" if field == "loss" else "score"
    levels = [
        Level(f"{words}\n{unit.quantity(value)}", value)
        for key, words in REFERENCE_NAMES.items()
        if key in run.references and _plottable(value := getattr(run.references[key], kind))
    ]
    bit_unit = units.bit_unit(row.air_bits or 0.0 for row in shown)

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        axes.set_xscale("log")
        draw_lines(axes, run, shown, theme, lambda row: (row.air_bits or 0.0) / bit_unit.factor, field, unit)
        set_bit_ticks(axes, [(row.air_bits or 0.0) / bit_unit.factor for row in shown])
        draw_levels(axes, levels, unit, theme)
        axes.set(xlabel=f"on air, {bit_unit.name} (log scale)", ylabel=label)
        put_legend(figure, axes)

    ranges = "; ".join(
        f"{allocator} from {unit.quantity(getattr(rows[0], field))} at {units.bits(rows[0].air_bits or 0)} "
        f"to {unit.quantity(getattr(rows[-1], field))} at {units.bits(rows[-1].air_bits or 0)}"
        for allocator in run.allocators
        if (rows := sorted((r for r in shown if r.allocator == allocator), key=lambda r: r.air_bits or 0))
    )
    alt = f"{title}, one line per allocator: {ranges}."
    late = " Hollow points marked LATE missed the deadline." if any(row.late for row in shown) else ""
    yield Plan(name, title, f"One point per SNR; payload and everything around it counts.{late}", alt, draw)


def _airtime(run: Run) -> Iterator[Plan]:
    shown = [row for row in run.rows if _plottable(row.airtime_s)]
    if not shown:
        return
    deadlines = {row.snr_db: row.deadline_s for row in run.rows if _plottable(row.deadline_s)}
    unit = units.time_unit([*run.values("airtime_s"), *run.values("deadline_s")])

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        draw_lines(axes, run, shown, theme, lambda row: row.snr_db, "airtime_s", unit)
        if len(set(deadlines.values())) == 1:
            deadline = next(iter(deadlines.values())) or 0.0
            draw_levels(axes, [Level(f"deadline\n{unit.quantity(deadline)}", deadline)], unit, theme, keep=True)
        elif deadlines:
            times = [(time or 0.0) / unit.factor for time in deadlines.values()]
            axes.plot(list(deadlines), times, color=theme.ink, linewidth=1.2, linestyle="--", label="deadline")
        axes.set_ylim(0, axes.get_ylim()[1] * 1.06)  # last: fixed limits do not grow with what is drawn
        axes.set_xticks(list(run.snrs_db))
        axes.set(xlabel="SNR, dB", ylabel=f"airtime, {unit.name}")
        put_legend(figure, axes)

    late = sum(row.late for row in run.rows)
    alt = (
        f"Airtime against SNR from {units.decibels(run.snrs_db[0])} to {units.decibels(run.snrs_db[-1])}, one line per "
        f"allocator, deadline drawn in; longest airtime {units.seconds(max(row.airtime_s or 0 for row in shown))}, "
        f"{late} of {len(run.rows)} rows late."
    )
    yield Plan("airtime_against_snr", "Airtime against SNR", "Above the deadline is too late.", alt, draw)


def _rank_maps(run: Run) -> Iterator[Plan]:
    ends = dict.fromkeys((run.snrs_db[0], run.snrs_db[-1]))
    for snr_db, which in zip(ends, ("lowest", "highest") if len(ends) == 2 else ("only",), strict=True):
        rows = [row for row in run.rows if row.snr_db == snr_db and row.ranks]
        if not rows or not run.sites:
            continue
        totals = ", ".join(f"{row.allocator} {sum(row.ranks)}" for row in rows)
        yield Plan(
            f"ranks_at_{which}_snr",
            f"Ranks at {units.decibels(snr_db)}",
            f"The {which} SNR of the run. One cell per site, one colour scale for all panels.",
            f"Rank of every site at {units.decibels(snr_db)}, one panel per allocator; total ranks: {totals}.",
            draw_rank_map(run.sites, rows),
            size_in(run.sites, len(rows)),
        )


def _reward(run: Run) -> Iterator[Plan]:
    points = metric_points(run.metrics, "policy", "env_steps", "reward_mean")
    levels = [
        Level(f"{rival}\n{np.mean(rewards):.3f}", float(np.mean(rewards)))
        for rival in ("uniform", "random")
        if (rewards := [float(line["reward_mean"]) for line in _metric_lines(run.metrics, rival, "reward_mean")])
    ]
    if points:
        yield curve(
            "policy_reward",
            "Reward of the policy, as the surrogate predicts it",
            points,
            ("environment steps", "mean predicted reward"),
            levels,
        )
    if episodes := metric_points(run.metrics, "episode", "env_steps", "reward_mean"):
        labels = ("environment steps, each one of training", "mean reward")
        yield curve("episode_reward", "Reward of an episode, as measured", episodes, labels, [])


def _evaluations(run: Run) -> Iterator[Plan]:
    if points := metric_points(run.metrics, "evaluation", "step", "loss"):
        yield curve("dev_loss", "Loss on dev, under the ranks of the step", points, ("step", "loss, nat"), [])


def _training(run: Run) -> Iterator[Plan]:
    points = metric_points(run.metrics, "train", "step", "loss")
    if points:
        yield curve("training_loss", "Training loss", points, ("step", "loss, nat"), [])


def curve(
    name: str, title: str, points: Sequence[tuple[float, float]], labels: tuple[str, str], levels: list[Level]
) -> Plan:
    """Single values as faint points, their moving mean as a line."""
    steps, values = (np.array(column) for column in zip(*points, strict=True))
    window = max(1, len(values) // 12)
    middle, mean = (np.convolve(column, np.ones(window), "valid") / window for column in (steps, values))

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        axes.plot(steps, values, "o", markersize=3, color=theme.muted, alpha=0.45, markeredgewidth=0, label="logged")
        axes.plot(middle, mean, color=theme.colour(0), label="moving mean" if window > 1 else "line")
        draw_levels(axes, levels, Unit("", 1, 3), theme)
        axes.set(xlabel=labels[0], ylabel=labels[1])
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        put_legend(figure, axes)

    beside = "".join(f"; {level.name.replace(chr(10), ' ')}" for level in levels)
    alt = f"{title} over {len(values)} logged values, from {values[0]:.3f} to {values[-1]:.3f}{beside}."
    caption = f"Points as logged, line: mean over {window} of them." if window > 1 else "As logged."
    return Plan(name, title, caption, alt, draw)


def _metric_lines(metrics: Metrics, name: str, *keys: str) -> Iterable[dict[str, float]]:
    for line in metrics:
        values = {key: line.get(key) for key in keys}
        if line.get("metric") == name and all(_plottable(value) for value in values.values()):
            yield {key: float(value) for key, value in values.items() if value is not None}


def metric_points(metrics: Metrics, name: str, x: str, y: str) -> list[tuple[float, float]]:
    """Pairs of two values of a metric's lines, by rising x."""
    return sorted(
        {line[x]: line[y] for line in _metric_lines(metrics, name, x, y)}.items()
    )  # a resumed run repeats some


def _plottable(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
