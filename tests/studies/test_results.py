"""What a finished study says, against sums that can be told by hand: 100 + seed + plus + x."""

from __future__ import annotations

import csv
import io
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from sums import DECLARED, Runs

from airtune.studies.declaration import study_from
from airtune.studies.figures import draw
from airtune.studies.gather import Gathered, Slot
from airtune.studies.markdown import markdown
from airtune.studies.page import page
from airtune.studies.sheets import sheets
from airtune.studies.verdicts import verdicts

PNG = b"\x89PNG\r\n\x1a\n"


def test_long_form_holds_every_value(runs: Runs):
    rows = list(csv.DictReader(io.StringIO(runs.gathered(seeds=2).csv())))
    sums = {(r["variant"], r["seed"], r["x"]): float(r["value"]) for r in rows if r["measure"] == "sum"}
    assert sums == {
        (f"plus {n}", str(seed), f"{x}"): 100 + seed + n + x for n in (0, 1, 2) for seed in (0, 1) for x in (0, 10)
    }
    assert {r["kind"] for r in rows} == {"base", "sum"}


def test_a_variant_that_is_somebody_holds_nothing_of_the_cells_below(runs: Runs):
    variants = [{"name": name, "cell": "share", "of": name} for name in ("half", "double")]
    declared = DECLARED | {"cell": "share", "baseline": "half", "variants": variants, "claims": []}
    gathered = Gathered(plan := runs.plan(seeds=1, declared=declared), runs.compute(plan))
    rows = list(csv.DictReader(io.StringIO(gathered.csv())))
    found = [(r["variant"], r["kind"], r["measure"], r["of"], float(r["value"])) for r in rows]
    assert [row for row in found if row[2] != "reach"] == [
        ("half", "share", "share", "half", 50),
        ("double", "share", "share", "double", 200),
    ]
    assert [row[0] for row in found if row[2] == "reach"] == ["half"] * 3 + ["double"] * 2


def test_means_and_paired_differences(runs: Runs):
    gathered = runs.gathered(seeds=5)
    assert gathered.mean(Slot("numbers", "plus 1", "sum", 10.0)).mean == pytest.approx(113)  # 100 + 2 + 1 + 10
    assert gathered.mean(Slot("numbers", "plus 1", "sum")).mean == pytest.approx(108)
    apart = gathered.difference(Slot("numbers", "plus 2", "sum"), "plus 0")
    assert (apart.mean, apart.low, apart.high, apart.real) == pytest.approx((2, 2, 2, True))
    assert gathered.mean(Slot("numbers", "plus 2", "nothing")) is None


def test_items_are_paired_item_by_item(runs: Runs):
    gathered = runs.gathered(seeds=5, items=True)
    one = gathered.by_seed(Slot("numbers", "plus 1", "sum", 0.0))
    np.testing.assert_allclose(one[3], [103, 104, 105])
    apart = gathered.difference(Slot("numbers", "plus 1", "sum"), "plus 0")
    assert (apart.low, apart.high) == pytest.approx((1, 1))  # the items' spread is in both and goes out
    alone = gathered.mean(Slot("numbers", "plus 1", "sum"))
    assert alone.high - alone.low > 1


def test_a_claim_holds_is_contradicted_or_not_shown(runs: Runs):
    def words(seeds: int, **claim: str) -> str:
        declared = DECLARED | {"claims": [DECLARED["claims"][0] | claim]}
        gathered = Gathered(plan := runs.plan(seeds=seeds, declared=declared), runs.compute(plan))
        return next(iter(verdicts(gathered, "numbers"))).word

    assert words(5) == "holds"
    assert words(5, better="plus 1", worse="plus 0") == "contradicted"
    assert words(2) == "not shown"
    assert words(5, measure="nothing") == "not run"
    assert words(5, better="plus 1", worse="plus 1") == "the same"


def test_a_claim_with_a_margin_looks_at_every_x(runs: Runs):
    """`plus 1` is behind `plus 0` by exactly 1 at both x."""

    def word(seeds: int, margin: float, better: str = "plus 1") -> str:
        claim = {"says": "close", "better": better, "worse": "plus 0", "measure": "sum", "margin": margin}
        plan = runs.plan(seeds=seeds, declared=DECLARED | {"claims": [claim]})
        return next(iter(verdicts(Gathered(plan, runs.compute(plan)), "numbers"))).word

    assert word(5, 1.1) == "holds"
    assert word(5, 0.9) == "contradicted"
    assert word(2, 1.1) == "not shown"
    assert word(5, -1.5, better="plus 2") == "contradicted"


def test_what_is_missing_at_an_x_hides_no_contradiction_and_may_be_left_out(runs: Runs):
    """The double's reach lacks x = 1 and is 1/3 behind the half's at 4, 2 behind at 9."""

    def verdict(margin: float, **claim: float) -> tuple[str, str]:
        claims = [{"says": "close", "better": "double", "worse": "half", "measure": "reach", "margin": margin, **claim}]
        variants = [{"name": name, "cell": "share", "of": name} for name in ("half", "double")]
        declared = DECLARED | {"cell": "share", "baseline": "half", "variants": variants, "claims": claims}
        found = next(iter(verdicts(Gathered(plan := runs.plan(5, declared), runs.compute(plan)), "numbers")))
        return found.word, found.because

    assert verdict(1.9)[0] == "contradicted"
    assert verdict(2.1) == (
        "not shown",
        "double less half, at most: +2.000 [+2.000, +2.000] at 9, of 2 from 4 to 9; double has none at 1",
    )
    assert verdict(2.1, x=4)[0] == "holds"
    assert verdict(1.9, x=4)[0] == "contradicted"


def test_a_claim_about_one_mean_looks_at_its_whole_interval(runs: Runs):
    """The mean of `plus 1` over x is 106 + seed, so 108 over five seeds, from 106.04 to 109.96."""

    def word(seeds: int, low: float, high: float) -> str:
        claim = {"says": "in there", "better": "plus 1", "measure": "sum", "between": [low, high]}
        plan = runs.plan(seeds=seeds, declared=DECLARED | {"claims": [claim]})
        return next(iter(verdicts(Gathered(plan, runs.compute(plan)), "numbers"))).word

    assert word(5, 106.0, 110.0) == "holds"
    assert word(5, 106.1, 110.0) == "not shown"
    assert word(5, -math.inf, 109.9) == "not shown"
    assert word(5, 110.0, math.inf) == "contradicted"
    assert word(5, -math.inf, 106.0) == "contradicted"
    assert word(2, 0.0, 1000.0) == "not shown"


def test_a_claim_about_places_compares_their_means(runs: Runs):
    """Heights are 0, 3 and 5 above the number: 5 less (0 + 3) / 2 is 3.5, and (0 + 5) / 2 less 3 is -0.5."""

    def verdict(seeds: int, places: str, than: str) -> tuple[str, str]:
        claim = {"says": "higher", "better": "all", "measure": "height", "places": places, "than": than}
        declared = DECLARED | {"cell": "share", "baseline": "all", "variants": [{"name": "all"}], "claims": [claim]}
        found = next(iter(verdicts(Gathered(plan := runs.plan(seeds, declared), runs.compute(plan)), "numbers")))
        return found.word, found.because

    assert verdict(5, r"1\..*", r"0\..*") == ("holds", "more by +3.500 [+3.500, +3.500]")
    assert verdict(5, r".*\.a", r".*\.b") == ("contradicted", "more by -0.500 [-0.500, -0.500]")
    assert verdict(5, r"0\.a", r"0\.a")[0] == "the same"
    assert verdict(2, r"1\..*", r"0\..*")[0] == "not shown"
    assert verdict(5, r"1", r"0\..*")[0] == "not run"  # whole names


def test_tables_show_the_paper_beside_ours(runs: Runs):
    mean, by_x = sheets(runs.gathered(seeds=5), "numbers")
    assert mean.headings == ("variant", "paper: ", "ours", "less plus 0's", "real")
    assert mean.rows[2][:2] == ("plus 2", "2.00")
    assert mean.rows[2][2].startswith("109.00 [")
    assert mean.rows[2][3:] == ("+2.00 [+2.00, +2.00]", "yes, worse")
    assert by_x.headings == ("variant", "0", "10")
    assert by_x.rows[1][1].startswith("103.00 [")
    assert by_x.rows[1][1].endswith("] *")


def test_one_seed_shows_no_interval(runs: Runs):
    mean = next(sheets(runs.gathered(seeds=1), "numbers"))
    assert mean.rows[0][2] == "105.00 (one seed)"
    assert mean.rows[1][4] == "1 of 5 seeds"


def test_a_variant_with_fewer_seeds_says_so_and_shows_nothing_as_real(runs: Runs):
    """`plus 1` over seeds 0 and 1 is 105.5 + 1; over five, `plus 0` is 107. Over the first two they are 1 apart."""
    variants = [*DECLARED["variants"][:1], {**DECLARED["variants"][1], "seeds": 2}]
    claims = [{"says": "less is less", "better": "plus 0", "worse": "plus 1", "measure": "sum"}]
    declared = DECLARED | {"variants": variants, "claims": claims}
    plan = runs.plan(seeds=5, declared=declared)
    assert [(point.variant.name, point.seed) for point in plan.points] == [
        *(("plus 0", seed) for seed in range(5)),
        *(("plus 1", seed) for seed in range(2)),
    ]
    assert sorted(cell.kind.name for cell in plan.cells.values()) == ["base"] * 5 + ["sum"] * 7
    gathered = Gathered(plan, runs.compute(plan))
    row = next(sheets(gathered, "numbers")).rows[1]
    assert row[2].startswith("106.50 [")
    assert row[2].endswith("] (2 seeds)")
    assert row[3:] == ("+1.00 [+1.00, +1.00] (2 seeds)", "2 of 5 seeds")
    verdict = next(iter(verdicts(gathered, "numbers")))
    assert (verdict.word, verdict.because.endswith("2 seeds are too few to say")) == ("not shown", True)
    assert "over 2 of 5 seeds alone: plus 1" in markdown(gathered)
    assert runs.plan(seeds=1, declared=declared).notes == ()


class Pictures(HTMLParser):
    """Sources of the pictures, and everything fetched from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.inline, self.foreign = 0, []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        for name, value in attrs:
            if name in ("src", "srcset", "href"):
                self.inline += value.startswith("data:image/png")
                self.foreign += [] if value.startswith("data:") else [value]


def test_the_page_is_self_contained_and_says_what_is_missing(runs: Runs):
    declared = DECLARED | {"not_run": ["<b>baselines</b>"], "paper_says": "1 < 2"}
    gathered = Gathered(plan := runs.plan(seeds=2, declared=declared, fails_at=1), runs.compute(plan))
    text = page(gathered, draw(gathered))
    parser = Pictures()
    parser.feed(text)
    assert parser.inline == 4  # two figures, on light and on dark
    assert parser.foreign == []
    for words in (
        "1 &lt; 2",
        "&lt;b&gt;baselines",
        "the loss is nan; use another number",
        "2 cells failed",
        "--set fails_at=1",
    ):
        assert words in text
    assert "2 seeds: read, do not claim" in text
    told = markdown(gathered)
    assert "the loss is nan; use another number" in told
    assert "| plus 2 | 2.00 | 107.50" in told


def test_figures_are_drawn_for_both_papers(runs: Runs):
    drawings = draw(runs.gathered(seeds=2))
    assert [drawing.name for drawing in drawings] == ["sum_numbers_1", "sum_numbers_2"]
    assert all(drawing.light.startswith(PNG) and drawing.dark.startswith(PNG) for drawing in drawings)
    assert "plus 2 108.5" not in drawings[0].alt
    assert "plus 2 107.5" in drawings[0].alt  # 100 + 0.5 + 2 + 5


def test_steps_to_a_share_of_the_way_by_hand():
    study = study_from("sums", DECLARED | {"reach": {"name": "steps", "curve": "curve", "floor": "floor"}})

    class Fixed(Gathered):
        """Two curves from 0: one ends at 10, one at 9.4 (of 95 %: 9.5)."""

        def __init__(self) -> None:
            self.plan = type("P", (), {"study": study, "points": POINTS})()

        def values(self, point, measure=""):
            curve = {"plus 0": [(1, 5.0), (2, 9.6), (3, 10.0), (4, 10.4)], "plus 1": [(1, 2.0), (2, 9.4)]}
            found = [("", "", V(x, y)) for x, y in curve.get(point.variant.name, ())] if measure == "curve" else []
            return iter(found + ([("", "", V(None, 0.0))] if measure == "floor" else []))

    from collections import namedtuple

    V, P = namedtuple("V", "x value"), namedtuple("P", "workload variant seed")
    POINTS = [P("numbers", variant, 0) for variant in study.variants]
    found = {name: Fixed().by_seed(Slot("numbers", name, "steps")) for name in ("plus 0", "plus 1", "plus 2")}
    assert found["plus 0"][0] == 2  # best end: the mean of 9.6, 10 and 10.4 is 10
    assert found["plus 1"][0] == 3  # never: one point beyond its end
    assert found["plus 2"] == {}
    never = {name: Fixed().unreached(Slot("numbers", name, "steps")) for name in found}
    assert never == {"plus 0": "0 of 1", "plus 1": "1 of 1", "plus 2": "0 of 0"}
    assert Fixed().unreached(Slot("numbers", "plus 1", "curve")) == ""
