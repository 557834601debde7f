"""What the rows of one run show, in sentences that claim no more than that.

Margins of non-inferiority: 1.0 point of accuracy, 0.01 nat of loss (so a perplexity at most exp(0.01) times the
reference's). One run is one seed: a reading, never a test.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from airtune.reports import units
from airtune.reports.run import Metric, Row, Run

MARGIN_POINTS = 0.01
MARGIN_NAT = 0.01
ROUNDING = 1e-9
PLACE = {"score_edge": "at the edge", "score_cloud": "in the cloud", "score_trained": "before quantising"}


def shortfall(score: float, reference: float, metric: Metric) -> float:
    """How much worse a score is than the reference: share of items, or nat. Negative where it is better."""
    return reference - score if metric == "accuracy" else math.log(score) - math.log(reference)


def sufficient(score: float | None, reference: float, metric: Metric) -> bool:
    """Whether a score is within the margin of the reference."""
    if score is None or not math.isfinite(score):
        return False
    return shortfall(score, reference, metric) <= (MARGIN_POINTS if metric == "accuracy" else MARGIN_NAT) + ROUNDING


def best_rows(run: Run) -> frozenset[Row]:
    """Per SNR the rows of lowest loss among those in time; a late row is never the best."""
    best: set[Row] = set()
    for snr_db in run.snrs_db:
        rivals = [row for row in run.rows if row.snr_db == snr_db and not row.late and _finite(row.loss)]
        lowest = min((row.loss for row in rivals if row.loss is not None), default=None)
        best.update(row for row in rivals if row.loss == lowest)
    return frozenset(best)


def smallest_sufficient(run: Run) -> dict[str, Row | None]:
    """Per allocator the row of fewest air bits that is in time and within the margin of the unconstrained adapter."""
    goal = _unconstrained(run)
    good = [row for row in _in_time(run) if goal is not None and sufficient(_score(run, row), goal, run.metric)]
    return {
        name: min((row for row in good if row.allocator == name), key=_air_bits, default=None)
        for name in run.allocators
    }


def headline(run: Run) -> str:
    """The first sentence of the report."""
    goal, rows = _unconstrained(run), [row for row in _in_time(run) if _finite(_score(run, row))]
    if not rows:
        return (
            "No row has both a score and an adapter that arrived in time, so this run shows nothing about equal score."
        )
    if goal is None:
        return (
            "This run has no unconstrained adapter to compare with, so it makes no claim of equal score. "
            f"Best in time: {_sentence(run, _best_scored(run, rows))}."
        )
    best = min((row for row in smallest_sufficient(run).values() if row is not None), key=_air_bits, default=None)
    if best is None:
        return (
            f"No row that arrived in time is within {_margin(run)} of the unconstrained adapter ({_text(run, goal)}). "
            f"The closest: {_sentence(run, _best_scored(run, rows))}."
        )
    if head_suffices(run):
        return (
            f"The head alone scores {_text(run, run.references['head_only'].score)}, within {_margin(run)} of the "
            f"unconstrained adapter's {_text(run, goal)}: this task cannot rank allocators, and no row is named."
        )
    return (
        f"{units.bits(_air_bits(best))} on air are enough: {best.allocator} at {units.decibels(best.snr_db)} scores "
        f"{_text(run, _score(run, best))} {PLACE[run.judged]}, within {_margin(run)} of the unconstrained adapter's "
        f"{_text(run, goal)}{_arrival(best)}."
    )


def head_suffices(run: Run) -> bool:
    """Whether a head trained alone is within the margin of the unconstrained adapter: then ranks decide nothing."""
    goal, head = _unconstrained(run), run.references.get("head_only")
    return goal is not None and head is not None and sufficient(head.score, goal, run.metric)


def remarks(run: Run) -> tuple[str, ...]:
    """What a reader should know beside the headline."""
    return tuple(_remarks(run))


def _remarks(run: Run) -> Iterable[str]:
    goal = _unconstrained(run)
    if goal is not None:
        smallest = smallest_sufficient(run)
        yield f"Smallest row in time and within {_margin(run)}: " + ", ".join(
            f"{name} {units.bits(_air_bits(row))} ({units.decibels(row.snr_db)})" if row else f"{name} none"
            for name, row in smallest.items()
        )
    late = sum(row.late for row in run.rows)
    yield f"{late} of {len(run.rows)} rows {'is' if late == 1 else 'are'} LATE" if late else "No row is late"
    if blocks := sum(run.values("blocks")):
        yield f"Of {blocks:,.0f} further blocks, {sum(run.values('blocks_late')):,.0f} would have been late"
    yield "One seed: a reading, not a test of non-inferiority"


def _unconstrained(run: Run) -> float | None:
    reference = run.references.get("unconstrained")
    return reference.score if reference is not None and _finite(reference.score) else None


def _in_time(run: Run) -> list[Row]:
    return [row for row in run.rows if row.deadline_met and _finite(row.air_bits)]


def _best_scored(run: Run, rows: list[Row]) -> Row:
    sign = -1 if run.metric == "accuracy" else 1
    return min(rows, key=lambda row: (sign * (_score(run, row) or 0.0), _air_bits(row)))


def _sentence(run: Run, row: Row) -> str:
    return (
        f"{row.allocator} at {units.decibels(row.snr_db)}, {_text(run, _score(run, row))} {PLACE[run.judged]} "
        f"with {units.bits(_air_bits(row))} on air{_arrival(row)}"
    )


def _arrival(row: Row) -> str:
    if row.airtime_s is None or row.deadline_s is None:
        return ""
    return f", in {units.seconds(row.airtime_s)} of the {units.seconds(row.deadline_s)} deadline"


def _margin(run: Run) -> str:
    return "1.0 point" if run.metric == "accuracy" else "0.01 nat"


def _score(run: Run, row: Row) -> float | None:
    return getattr(row, run.judged)


def _text(run: Run, score: float | None) -> str:
    if run.metric == "perplexity":
        return f"perplexity {units.PERPLEXITY.number(score)}"
    return units.PERCENT.quantity(score)


def _air_bits(row: Row) -> float:
    return row.air_bits if row.air_bits is not None else math.inf


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
