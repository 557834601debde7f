"""The rank map: which site got how much, layers down, modules across, one panel per allocator.

Knows sites and ranks; not how they were chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from airtune.reports import units
from airtune.reports.run import Row, Site
from airtune.reports.theme import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 5.0
CELL_IN = 0.24
SMALLEST_NUMBERED_CELL_IN = 0.15


def grid(sites: Sequence[Site], ranks: Sequence[int]) -> NDArray[np.float64]:
    """Ranks as a matrix, shape (layers, modules), in the order of `axes_of`; NaN where the model has no site."""
    layers, modules = axes_of(sites)
    matrix = np.full((len(layers), len(modules)), np.nan)
    for site, rank in zip(sites, ranks, strict=True):
        matrix[layers.index(site.layer), modules.index(site.module)] = rank
    return matrix


def axes_of(sites: Sequence[Site]) -> tuple[list[int], list[str]]:
    """Layers rising and modules in the order of the sites."""
    return sorted({site.layer for site in sites}), list(dict.fromkeys(site.module for site in sites))


def short_names(modules: Sequence[str]) -> list[str]:
    """The fewest parts of dotted names that occur together in no other name; the whole name if there are none.

    Example:
        >>> short_names(["attention.self.query", "attention.output.dense", "output.dense"])
        ['query', 'attention.output', 'output.dense']
    """
    runs = {name: _runs(name) for name in modules}
    return [
        min((run for run in runs[name] if sum(run in of for of in runs.values()) == 1), key=_dots, default=name)
        for name in modules
    ]


def _dots(run: str) -> int:
    return run.count(".")


def _runs(name: str) -> list[str]:
    """Every run of neighbouring parts, the last parts first."""
    parts = name.split(".")
    return [".".join(parts[start:end]) for end in range(len(parts), 0, -1) for start in reversed(range(end))]


def size_in(sites: Sequence[Site], panels: int) -> tuple[float, float]:
    """Width and height of the figure in inches: two panels abreast."""
    layers, modules = axes_of(sites)
    labels = 0.055 * max(len(name) for name in short_names(modules))
    panel = min(max(CELL_IN * len(layers), 1.0), 2.4) + 0.45
    return WIDTH_IN, math.ceil(panels / 2) * panel + labels + 0.75


def draw_rank_map(sites: Sequence[Site], rows: Sequence[Row]) -> Callable[[Figure, Theme], None]:
    """A drawing of one panel per row, all on one colour scale from 0 to the largest cap."""
    layers, modules = axes_of(sites)
    cap = max(max(site.cap for site in sites), max(max(row.ranks) for row in rows), 1)
    across = min(len(rows), 2)
    down = math.ceil(len(rows) / across)

    def draw(figure: Figure, theme: Theme) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        colours = LinearSegmentedColormap.from_list("rank", theme.ramp).with_extremes(bad=theme.paper)
        panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for axes in panels.flat[len(rows) :]:
            axes.set_visible(False)
        for index, (axes, row) in enumerate(zip(panels.flat, rows, strict=False)):
            mesh = axes.pcolormesh(
                grid(sites, row.ranks), cmap=colours, vmin=0, vmax=cap, edgecolors=theme.paper, linewidth=0.8
            )
            late = ", LATE" if row.late else ""
            axes.set_title(f"{row.allocator}, total {units.COUNT.number(sum(row.ranks))}{late}", loc="left")
            axes.grid(False)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.tick_params(labelbottom=index + across >= len(rows))
            if index % across == 0:
                axes.set_ylabel("layer")
        _label_ticks(panels[0, 0], layers, modules)
        figure.colorbar(
            mesh, ax=panels, location="bottom", fraction=0.05, aspect=45, label=f"rank, 0 to {cap}"
        ).outline.set_visible(False)
        figure.draw_without_rendering()
        for axes, row in zip(panels.flat, rows, strict=False):
            _write_numbers(axes, grid(sites, row.ranks), cap, theme)

    return draw


def _label_ticks(axes: Axes, layers: list[int], modules: list[str]) -> None:
    step = max(1, math.ceil(len(layers) / 16))
    axes.set_yticks(np.arange(0, len(layers), step) + 0.5, [str(layer) for layer in layers[::step]])
    axes.set_ylim(len(layers), 0)
    axes.set_xticks(np.arange(len(modules)) + 0.5, short_names(modules))
    for panel in axes.figure.axes:
        for label in panel.get_xticklabels():
            label.set(rotation=40, ha="right", rotation_mode="anchor")


def _write_numbers(axes: Axes, matrix: NDArray[np.float64], cap: int, theme: Theme) -> None:
    """Write every rank into its cell where cells are large enough."""
    box = axes.get_window_extent().transformed(axes.figure.dpi_scale_trans.inverted())
    layers, modules = matrix.shape
    digits = len(str(int(np.nanmax(matrix))))
    if box.height / layers < SMALLEST_NUMBERED_CELL_IN or box.width / modules < 0.075 * digits + 0.06:
        return
    for (layer, module), rank in np.ndenumerate(matrix):
        if np.isfinite(rank):
            ink = theme.ramp[0] if rank > 0.5 * cap else theme.ramp[-1]
            axes.text(module + 0.5, layer + 0.5, f"{rank:.0f}", ha="center", va="center", fontsize=7.5, color=ink)
