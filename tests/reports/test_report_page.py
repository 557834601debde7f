"""The page: well-formed, complete, self-contained, and safe whatever the data says."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from airtune.errors import RunError
from airtune.reports import write_report
from airtune.reports.markup import VOID, Markup, tag

EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=y>"


class Outline(HTMLParser):
    """Collects tags, attributes and text, and checks that every element is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.cells: list[list[str]] = []
        self.text = ""

    def handle_starttag(self, name, attributes):
        self.tags.append(name)
        self.attributes += [(name, key, value) for key, value in attributes]
        if name not in VOID:
            self.open.append(name)
        if name == "tr":
            self.cells.append([])
        elif name in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text += data if "style" not in self.open else ""
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data


def outline(path) -> Outline:
    parsed = Outline()
    parsed.feed(path.read_text(encoding="utf-8"))
    parsed.close()
    assert parsed.open == []
    parsed.text = parsed.text.replace("\xa0", " ")
    parsed.cells = [[cell.replace("\xa0", " ") for cell in row] for row in parsed.cells]
    return parsed


def test_the_page_holds_every_row_as_worked_out_by_hand(write_run):
    page = outline(write_report(write_run()))
    for row in (
        "airllm|0|7|178.0|180.0|1.000|yes|★ 0.5123|84.4|84.2|84.2",
        "random|0|7|183.4|185.4|1.030|NO, LATE|0.5094|83.7|83.5|83.5",
        "airllm|10|7|310.0|312.0|0.500|yes|★ 0.4012|87.3|87.1|87.1",
        "random|10|7|429.5|431.5|0.690|yes|0.4305|–|–|–",
        "head only|80.0 %|81.0 %|0.5500|0.5400",
        "head only|||||||0.5500|80.0||",
        "base|50.0 %|–|0.7000|–",
        "airllm|0|119|359.9|180.0|1.000|0.5223|-0.5123|2.5e-06|abababababab",
        "bits|1.05 Mbit|1.2 kbit|1.05 Mbit",
        "memory|3.00 GB|–|3.00 GB",
    ):
        assert row.split("|") in page.cells, row


def test_the_page_tells_what_was_run_and_how(write_run):
    page = outline(write_report(write_run()))
    for text in (
        "airllm, nested mode", "tiny-bert", "180 kHz, still channel", "1 h 02 min", "torch 2.13.0",
        "one resource block",
        "at 0 dB airllm's loss 0.512 is above random's 0.509", "312.0 kbit on air are enough", 'name = "tiny <bert>"',
        "1 of 4 rows was sent past it", "Largest difference of any logit over all rows: 2.5e-06",
    ):  # fmt: skip
        assert text in page.text, text


def test_a_still_channel_without_late_rows_shows_nothing(write_run, rows):
    page = outline(write_report(write_run(rows=rows[:3])))
    assert "true by construction and show nothing about the method" in page.text


def test_late_blocks_are_counted_under_fading(write_run, rows):
    faded = [row | {"blocks": 200, "blocks_late": 3} for row in rows]
    page = outline(write_report(write_run(rows=faded, link={"fading": "rayleigh"})))
    assert "12 of 800 blocks (1.5 %) would have been late" in page.text
    assert any("3/200" in row for row in page.cells)


def test_the_page_embeds_every_figure_and_nothing_from_elsewhere(write_run):
    folder = write_run()
    page = outline(write_report(folder))
    figures = sorted((folder / "figures").glob("*.png"))
    assert page.tags.count("img") == len(figures) == 7
    assert all(path.stat().st_size > 5_000 for path in figures)
    assert sum(key == "alt" and len(value) > 40 for _, key, value in page.attributes) == 7
    links = [value for _, key, value in page.attributes if key in ("src", "srcset", "href", "action", "data")]
    assert len(links) == 14
    assert all(value.startswith("data:image/png;base64,") for value in links)
    assert "script" not in page.tags
    assert not re.search(r"https?://|url\(|@import", (folder / "report.html").read_text(encoding="utf-8"))


def test_nothing_from_the_data_becomes_markup(write_run, rows):
    folder = write_run(
        method=EVIL, mode=EVIL, model=EVIL, task=EVIL, seed=EVIL, notes=[EVIL], versions={EVIL: EVIL},
        reference={EVIL: {"score": 0.5}}, link={"fading": EVIL, "bandwidth_reason": EVIL},
        rows=[row | {"allocator": EVIL, "payload_sha256": EVIL} for row in rows],
    )  # fmt: skip
    (folder / "config.toml").write_text(EVIL, encoding="utf-8")
    (folder / "ledger.jsonl").write_text('{"quantity": "<b>", "amount": 1, "role": "</table><i>"}\n', encoding="utf-8")
    page = outline(write_report(folder))
    assert not {"script", "b", "i"} & set(page.tags)
    assert not any(key.startswith("on") for _, key, _ in page.attributes)
    assert page.tags.count("img") == 7
    assert page.text.count("<script>alert(1)</script>") > 10


def test_a_bare_run_still_makes_a_page(write_run, rows):
    bare = [{key: row[key] for key in ("allocator", "snr_db", "metric")} for row in rows[:2]]
    folder = write_run(rows=bare, reference={}, notes=[], versions={}, sites=[], link={}, wall_s=None)
    for name in ("config.toml", "metrics.jsonl", "ledger.jsonl"):
        (folder / name).unlink()
    page = outline(write_report(folder))
    assert "img" not in page.tags
    assert ["airllm", "10", "–", "–", "–", "–", "–", "–", "–", "–", "–"] in page.cells
    assert "This run booked no costs" in page.text


def test_one_snr_two_allocators_and_perplexity(write_run, rows):
    worded = [
        row | {"metric": "perplexity", "score_edge": score} for row, score in zip(rows, (26.5, 27.25), strict=False)
    ]
    reference = {"unconstrained": {"score": 26.4, "loss": 3.273}}
    page = outline(write_report(write_run(rows=worded, reference=reference)))
    assert "airllm at 10 dB scores perplexity 26.50 at the edge, within 0.01 nat" in page.text
    assert any(row[-1] == "27.25" for row in page.cells if row)
    assert page.tags.count("img") == 6


def test_the_page_is_replaced_whole(write_run):
    folder = write_run()
    (folder / "report.html").write_text("old", encoding="utf-8")
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    assert not list(folder.rglob("*.part"))


def test_a_folder_that_cannot_be_written_is_refused(write_run):
    folder = write_run()
    (folder / "figures").write_text("a file in the way", encoding="utf-8")
    with pytest.raises(RunError, match="cannot be written"):
        write_report(folder)


def test_markup_escapes_unless_it_is_markup():
    assert tag("p", "a < b", Markup("<br>"), class_='x"y', hidden=True, id=None) == (
        '<p class="x&quot;y" hidden>a &lt; b<br></p>'
    )
