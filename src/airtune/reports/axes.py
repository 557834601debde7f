"""The pieces that several figures share: a line per allocator, levels to compare with, ticks in bits, the legend.

Knows rows and matplotlib's axes; not what a figure is about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airtune.reports.run import Row, Run
from airtune.reports.theme import MARKERS, Theme
from airtune.reports.units import Unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Level:
    """A horizontal line to compare with, labelled at the right."""

    name: str
    value: float


def draw_lines(
    axes: Axes, run: Run, shown: Sequence[Row], theme: Theme, x: Callable[[Row], float], field: str, unit: Unit
) -> None:
    """One line per allocator, the run's first on top and the others wider beneath it, so that equal lines all show."""
    for depth, allocator in enumerate(run.allocators):
        rows = sorted((row for row in shown if row.allocator == allocator), key=x)
        colour, marker = theme.colour(depth), MARKERS[depth % len(MARKERS)]
        xs, ys = [x(row) for row in rows], [getattr(row, field) / unit.factor for row in rows]
        below, wider = 3 - 0.1 * depth, min(depth, 5)
        axes.plot(
            xs,
            ys,
            marker=marker,
            color=colour,
            markeredgecolor=theme.paper,
            markeredgewidth=0.6,
            label=allocator,
            zorder=below,
            linewidth=1.9 + 0.3 * wider,
            markersize=5.5 + 0.9 * wider,
        )
        for left, height, row in zip(xs, ys, rows, strict=True):
            if row.late:
                _mark_late(axes, left, height, marker, colour, theme)


def draw_levels(axes: Axes, levels: Sequence[Level], unit: Unit, theme: Theme, *, keep: bool = False) -> None:
    """Dashed lines named at the right; one far beyond the data is named at the edge with an arrow, unless kept."""
    low, high = axes.get_ylim()
    reach = 1.5 * (high - low)
    heights = [level.value / unit.factor for level in levels]
    near = [height for height in heights if keep or low - reach <= height <= high + reach]
    crowded = len(near) > 1 and max(near) - min(near) < 0.2 * (max(high, *near) - min(low, *near))
    for height, name in zip(heights, (level.name for level in levels), strict=True):
        if height in near:
            axes.axhline(height, color=theme.muted, linewidth=1.1, linestyle=(0, (5, 3)), zorder=1)
            place, frame = (1.0, height), axes.get_yaxis_transform()
            align = "center" if not crowded else "bottom" if height == max(near) else "top"
        else:
            top = height > high
            name, place, frame = f"{'↑' if top else '↓'} {name}", (1.0, float(top)), axes.transAxes
            align = "top" if top else "bottom"
        axes.annotate(
            name, place, (5, 0), xycoords=frame, textcoords="offset points", va=align, fontsize=8.5, color=theme.muted
        )


def set_bit_ticks(axes: Axes, values: Sequence[float]) -> None:
    """Plain numbers on a logarithmic axis: 100, 200, 500."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    ratio = max(values) / min(values)
    axes.xaxis.set_major_locator(MaxNLocator(5) if ratio < 4 else LogLocator(subs=(1, 2, 5) if ratio < 500 else (1,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")


def put_legend(figure: Figure, axes: Axes) -> None:
    """Name the lines above the axes, where they cover nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(4, len(labels)))


def _mark_late(axes: Axes, x: float, y: float, marker: str, colour: str, theme: Theme) -> None:
    """A hollow point and the word, so that no reader depends on colour."""
    axes.plot(
        x, y, marker=marker, color=theme.paper, markeredgecolor=colour, markeredgewidth=1.6, markersize=8, zorder=4
    )
    box = {"facecolor": theme.paper, "edgecolor": "none", "alpha": 0.85, "pad": 0.8}
    axes.annotate(
        "LATE", (x, y), (0, 9), textcoords="offset points", ha="center", fontsize=8, weight="bold", bbox=box, zorder=5
    )
