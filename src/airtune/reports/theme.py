"""How figures look, by day and by night, and how a drawing becomes PNG bytes.

The series colours are Okabe and Ito's, safe for colour-blind readers (https://jfly.uni-koeln.de/color/), lightened for
dark paper; each series has a marker of its own too. Knows no runs. matplotlib is imported only where something is
drawn, without pyplot and inside a style context, so no setting of the caller's process changes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airtune.errors import RunError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 160
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of one paper: background, text, secondary text, grid, series, and the ramp of heat maps from 0 up."""

    paper: str
    ink: str
    muted: str
    grid: str
    series: tuple[str, ...]
    ramp: tuple[str, ...]

    def colour(self, index: int) -> str:
        """The colour of the series with this index."""
        return self.series[index % len(self.series)]

    def settings(self) -> dict[str, Any]:
        """matplotlib's settings for this paper. Text from data is never read as TeX."""
        return {
            "text.parse_math": False,
            "font.size": 9.5,
            "axes.titlesize": 9.5,
            "axes.labelsize": 9.5,
            "xtick.labelsize": 8.5,
            "ytick.labelsize": 8.5,
            "legend.fontsize": 9,
            "figure.facecolor": self.paper,
            "savefig.facecolor": self.paper,
            "axes.facecolor": self.paper,
            "axes.edgecolor": self.grid,
            "axes.labelcolor": self.ink,
            "text.color": self.ink,
            "xtick.color": self.grid,
            "ytick.color": self.grid,
            "xtick.labelcolor": self.muted,
            "ytick.labelcolor": self.muted,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": self.grid,
            "grid.linewidth": 0.6,
            "grid.alpha": 0.6,
            "lines.linewidth": 1.8,
            "lines.markersize": 5.5,
            "legend.frameon": False,
            "legend.handlelength": 1.8,
            "legend.columnspacing": 1.4,
        }


LIGHT = Theme(
    paper="#ffffff",
    ink="#1b2330",
    muted="#5b6574",
    grid="#cdd3dc",
    series=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5230", "#6b7280"),
    ramp=("#f3f6fa", "#c3d9ee", "#6aa6d6", "#1f6fb0", "#0b3c6f"),
)
DARK = Theme(
    paper="#161b22",
    ink="#e6eaf0",
    muted="#9aa5b4",
    grid="#3a4350",
    series=("#5bb4ec", "#f58f4f", "#2fc79a", "#e39cc4", "#f2c14e", "#8fd3ff", "#c9a27c", "#a3adba"),
    ramp=("#1c232d", "#1f4468", "#2b76b3", "#6db4ea", "#d3eaff"),
)


def render(draw: Callable[[Figure, Theme], None], size_in: tuple[float, float], theme: Theme) -> bytes:
    """Draw on a fresh figure of this size in inches and return PNG bytes at 160 dots per inch.

    Raises `RunError` where matplotlib is not installed.
    """
    try:
        import matplotlib.style
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise RunError("matplotlib is not installed, and figures need it; install airtune[train]") from None
    with matplotlib.style.context(theme.settings(), after_reset=True):
        figure = Figure(figsize=size_in, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure, theme)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": ""})
        return buffer.getvalue()
