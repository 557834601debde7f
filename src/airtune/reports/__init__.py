"""Reads run folders and shows them: a table for the terminal, figures, one self-contained page.

Start reading at `page.write_report`. The folder is parsed and checked in `reading`; a run that tells its own tables is
shown by `told`; `units` turns numbers into text;
`findings` says what the rows prove and what they do not; `tables` sets them out for terminal and page; `figures` and
`rank_map` draw them in the colours of `theme`; `markup` escapes, `layout` holds the style sheet; `comparison` puts
several seeds on one page. This room knows what a run leaves on disk and nothing about how the run was done.
"""

from __future__ import annotations

from airtune.reports.comparison import compare
from airtune.reports.page import write_report
from airtune.reports.reading import read_run
from airtune.reports.run import Reference, Row, Run, Site
from airtune.reports.tables import result_table
from airtune.reports.told import result_tables

__all__ = ["Reference", "Row", "Run", "Site", "compare", "read_run", "result_table", "result_tables", "write_report"]
