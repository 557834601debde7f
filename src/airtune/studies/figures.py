"""Figures of a study: lines over x, points by variant, maps of sites; means over seeds with their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from airtune.reports.figures import Drawing, Plan
from airtune.reports.theme import MARKERS, Theme
from airtune.studies.declaration import Figure as Declared
from airtune.studies.gather import Gathered, Slot
from airtune.studies.intervals import Interval
from airtune.studies.sheets import workloads_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH_IN = 5.0
LEGEND_CHARACTERS = 72
"""What fits beside each other above the axes."""


def draw(gathered: Gathered) -> tuple[Drawing, ...]:
    """Every declared figure that there are numbers for, on every workload."""
    return tuple(plan.drawing() for workload in workloads_of(gathered) for plan in _plans(gathered, workload))


def _plans(gathered: Gathered, workload: str) -> Iterator[Plan]:
    kinds = {"lines": _lines, "points": _points, "map": _map}
    for index, declared in enumerate(gathered.plan.study.figures):
        plan = kinds[declared.kind](gathered, workload, declared, f"{declared.measure}_{workload}_{index + 1}")
        if plan is not None:
            yield plan


def _names(gathered: Gathered, workload: str, measure: str) -> list[str]:
    variants = [variant.name for variant in gathered.plan.study.variants]
    return [name for name in variants if gathered.by_seed(Slot(workload, name, measure))]


def _lines(gathered: Gathered, workload: str, declared: Declared, name: str) -> Plan | None:
    xs, names = gathered.xs(declared.measure), _names(gathered, workload, declared.measure)
    if not names or not xs:
        return None
    found = {n: [gathered.mean(Slot(workload, n, declared.measure, x)) for x in xs] for n in names}

    def paint(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        for index, (variant, means) in enumerate(found.items()):
            here = [(x, m) for x, m in zip(xs, means, strict=True) if m is not None]
            at, mean, low, high = _columns(here, declared.factor)
            marker = MARKERS[index % len(MARKERS)] if len(at) <= 12 else ""
            axes.plot(at, mean, color=theme.colour(index), marker=marker, label=variant, zorder=3)
            axes.fill_between(at, low, high, color=theme.colour(index), alpha=0.13, linewidth=0)
        axes.set(xlabel=declared.x, ylabel=declared.y)
        if declared.log:
            axes.set(xscale="log", yscale="log")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        elif len(xs) <= 8:
            axes.set_xticks(xs)
        columns = max(1, min(4, LEGEND_CHARACTERS // (6 + max(map(len, names)))))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=columns)

    ends = "; ".join(f"{n} ends at {m[-1].mean / declared.factor:.3g}" for n, m in found.items() if m[-1] is not None)
    size = (WIDTH_IN, 3.2 + 0.12 * len(names))
    return Plan(name, declared.title, _caption(gathered, workload), f"{declared.title}: {ends}.", paint, size)


def _points(gathered: Gathered, workload: str, declared: Declared, name: str) -> Plan | None:
    names = _names(gathered, workload, declared.measure)
    found = [(n, m) for n in names if (m := gathered.mean(Slot(workload, n, declared.measure))) is not None]
    if not found:
        return None

    def paint(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        for row, (variant, mean) in enumerate(found):
            first = variant == gathered.plan.study.baseline
            colour = theme.colour(0 if first else 1)
            scale = declared.factor
            axes.plot([mean.low / scale, mean.high / scale], [row, row], color=colour, linewidth=2, zorder=2)
            axes.plot(mean.mean / scale, row, "o" if first else "s", color=colour, zorder=3)
        axes.set_yticks(range(len(found)), [variant for variant, _ in found])
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set(xlabel=declared.y)

    alt = f"{declared.title}: " + "; ".join(f"{n} {m.mean / declared.factor:.4g}" for n, m in found) + "."
    return Plan(name, declared.title, _caption(gathered, workload), alt, paint, (WIDTH_IN, 1.1 + 0.32 * len(found)))


def _map(gathered: Gathered, workload: str, declared: Declared, name: str) -> Plan | None:
    names, ats = _names(gathered, workload, declared.measure), gathered.ats(declared.measure)
    if not names or not ats:
        return None
    layers = list(dict.fromkeys(at.split(".", 1)[0] for at in ats))
    modules = list(dict.fromkeys(at.split(".", 1)[1] for at in ats))
    grids = {}
    for variant in names:
        grid = np.full((len(layers), len(modules)), np.nan)
        for at in ats:
            mean = gathered.mean(Slot(workload, variant, declared.measure, at=at))
            layer, module = at.split(".", 1)
            grid[layers.index(layer), modules.index(module)] = np.nan if mean is None else mean.mean
        grids[variant] = grid
    most = max(float(np.nanmax(grid)) for grid in grids.values())

    def paint(figure: Figure, theme: Theme) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        ramp = LinearSegmentedColormap.from_list("ranks", theme.ramp)
        panels = figure.subplots(1, len(grids), squeeze=False)[0]
        for panel, (variant, grid) in zip(panels, grids.items(), strict=True):
            image = panel.imshow(grid, cmap=ramp, vmin=0, vmax=most, aspect="auto")
            panel.set_title(f"{variant}\nmean {np.nanmean(grid):.2f}")
            panel.set_xticks(range(len(modules)), modules, rotation=90)
            panel.set_yticks(range(len(layers)), layers if panel is panels[0] else [""] * len(layers))
            panel.grid(visible=False)
        panels[0].set_ylabel("layer")
        figure.colorbar(image, ax=list(panels), label=declared.y)

    alt = f"{declared.title}: " + "; ".join(f"{n} mean {np.nanmean(g):.2f}" for n, g in grids.items()) + "."
    size = (1.2 + 1.9 * len(grids), 2.0 + 0.22 * len(layers))
    return Plan(name, declared.title, _caption(gathered, workload, intervals=False), alt, paint, size)


def _columns(points: Sequence[tuple[float, Interval]], factor: float) -> tuple[np.ndarray, ...]:
    rows = [(x, m.mean / factor, m.low / factor, m.high / factor) for x, m in points]
    return tuple(np.array(column) for column in zip(*rows, strict=True))


def _caption(gathered: Gathered, workload: str, *, intervals: bool = True) -> str:
    seeds, few = gathered.plan.seeds, [variant.seeds for variant in gathered.plan.study.variants if variant.seeds]
    over = f"Mean over {seeds} seeds" + (f" (some over {min(few)}, see the tables)" if few and min(few) < seeds else "")
    return f"On {workload}. {over}" + (", with 95 % intervals." if intervals and seeds > 1 else ".")
