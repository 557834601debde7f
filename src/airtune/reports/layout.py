"""The frame of every page: one self-contained document, its style sheet, and how it reaches the disk.

Light and dark, from a phone to a desk, no scripts, no fonts or files from elsewhere. Knows nothing of runs.
"""

from __future__ import annotations

import base64
import contextlib
import os
from pathlib import Path

from airtune.errors import RunError
from airtune.reports.figures import Drawing
from airtune.reports.markup import Markup, tag

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fff; --ink: #1b2330; --muted: #5b6574; --line: #dde2e9; --tint: #f4f6f9; --accent: #0b5fa5;
  --shade: #1b233030; --warn-ink: #8a2f00; --warn-tint: #fff4ec; --warn-line: #e8935c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #161b22; --ink: #e6eaf0; --muted: #9aa5b4; --line: #303946; --tint: #1d242e; --accent: #79c0f5;
    --shade: #0009; --warn-ink: #ffc49e; --warn-tint: #33231a; --warn-line: #c9743e;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif;
  overflow-wrap: break-word;
}
p, li, dd { max-width: 44rem; }
h1 { margin: 0 0 1.25rem; font-size: 1rem; font-weight: 600; color: var(--muted); }
h2 { margin: 3rem 0 .75rem; font-size: 1.3rem; line-height: 1.3; letter-spacing: -.01em; }
h3 { margin: 0; font-size: 1rem; line-height: 1.4; }
.headline {
  margin: 0 0 1rem; max-width: 50rem; font-size: clamp(1.3rem, 1rem + 1.6vw, 1.9rem); line-height: 1.32;
  font-weight: 600; letter-spacing: -.015em; text-wrap: pretty;
}
.remarks { margin: 0; padding: 0; list-style: none; color: var(--muted); }
.remarks li { margin: .2rem 0; }
.notes {
  margin: 2rem 0 0; padding: .9rem 1.1rem; max-width: 50rem; border-left: 4px solid var(--warn-line);
  border-radius: 0 6px 6px 0; background: var(--warn-tint); color: var(--warn-ink);
}
.notes h2 { margin: 0 0 .25rem; font-size: 1rem; }
.notes ul { margin: 0; padding-left: 1.15rem; }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.5rem; margin: 0; }
dl.facts dt { color: var(--muted); }
dl.facts dd { margin: 0; }
dl.terms dt { margin-top: .8rem; font-weight: 600; }
dl.terms dd { margin: 0; }
.scroll {
  overflow-x: auto; max-width: 100%;
  background:
    linear-gradient(to left, var(--paper) 40%, transparent) right / 3rem 100% no-repeat local,
    linear-gradient(to left, var(--shade), transparent) right / 1rem 100% no-repeat scroll;
}
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table {
  border-collapse: separate; border-spacing: 0;
  font-size: .925rem; line-height: 1.35; font-variant-numeric: tabular-nums;
}
.wide table { width: 100%; }
th, td { padding: .38rem .7rem; text-align: left; white-space: nowrap; }
thead th { vertical-align: bottom; font-weight: 600; border-bottom: 2px solid var(--line); }
tbody th { font-weight: 600; }
th:first-child { position: sticky; left: 0; z-index: 1; padding-left: 0; background: var(--paper); }
td:last-child, th:last-child { padding-right: .2rem; }
tbody + tbody tr:first-child > * { border-top: 1px solid var(--line); }
tbody tr:first-child > * { padding-top: .6rem; }
tbody tr:last-child > * { padding-bottom: .6rem; }
.number { text-align: right; }
.unit { display: block; color: var(--muted); font-weight: 400; font-size: .85em; }
.star { color: var(--accent); }
td:has(.star) { font-weight: 600; }
.late > * { color: var(--warn-ink); }
.hint { margin: .6rem 0 0; color: var(--muted); font-size: .9rem; }
.table-title { margin: 1.5rem 0 .25rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 2.5rem 2rem; }
figure { margin: 0; min-width: 0; }
figcaption { margin: 0 0 .6rem; }
figcaption p { margin: 0; color: var(--muted); font-size: .9rem; }
img { display: block; width: 100%; max-width: 52.5rem; height: auto; }
details { margin: .5rem 0; border-top: 1px solid var(--line); padding-top: .5rem; }
summary { cursor: pointer; font-weight: 600; padding: .3rem 0; }
pre {
  margin: .5rem 0 0; padding: 1rem; overflow-x: auto; border-radius: 6px; background: var(--tint);
  font: .85rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace;
}
@media (max-width: 40rem) {
  body { padding: 1.5rem 1rem 3rem; }
  h2 { margin-top: 2.25rem; }
  dl.facts { grid-template-columns: 1fr; gap: 0; }
  dl.facts dd { margin-bottom: .55rem; }
  th, td { padding-left: .5rem; padding-right: .5rem; }
  table { font-size: .875rem; }
  th:first-child { padding-right: .75rem; }
}
@media print {
  body { max-width: none; padding: 0; }
  figure, tbody { break-inside: avoid; }
}
"""


def document(title: str, *body: str) -> str:
    """A whole HTML document with this title and body."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(STYLE)),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", tag("main", *body)), lang="en") + "\n"


def section(title: str, *body: str) -> Markup:
    """A section under a heading."""
    return tag("section", tag("h2", title), *body)


def framed(drawing: Drawing) -> Markup:
    """A drawing under its title and caption, the one for dark paper where the reader prefers that."""
    picture = tag(
        "picture",
        tag("source", srcset=_data_url(drawing.dark), media="(prefers-color-scheme: dark)"),
        tag("img", src=_data_url(drawing.light), alt=drawing.alt),
    )
    return tag("figure", tag("figcaption", tag("h3", drawing.title), tag("p", drawing.caption)), picture)


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def write_atomically(path: Path, content: bytes) -> Path:
    """Write beside the path, then rename: a reader sees the old file or the new one, never half of it.

    Raises `RunError` where the folder cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise RunError(f"{path} cannot be written ({error.strerror}); give a folder that can be written") from None
    return path
