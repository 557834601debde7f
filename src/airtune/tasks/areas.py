"""Which module of Python's standard library belongs to which area: the labels of the task pydocs.

A plain table. A module that a Python version lacks is passed over; a module that stands in no area is not read.

Areas are families of modules that speak of one thing, so that what is learned on some files of a family carries over to
files never seen; catch-all areas (system, formats, numbers) did not, and are left out. How much adapting the model is
worth against a trained head alone is a row of every run's table; docs/log.md has what was tried.
"""

from __future__ import annotations

from collections.abc import Mapping

TOPICS = "topics"
"""Stands for `pydoc_data.topics`: not a module of docstrings but the language reference, one document a topic."""

AREAS: Mapping[str, str] = {
    "mail": "email imaplib mailbox mailcap nntplib poplib smtpd smtplib",
    "web": "cgi ftplib http ipaddress socket socketserver ssl telnetlib urllib webbrowser wsgiref xmlrpc",
    "gui": "curses tkinter turtle",
    "concurrency": "_threading_local asyncio concurrent contextvars multiprocessing queue sched selectors signal"
    " subprocess threading",
    "language": TOPICS,
    "testing": "bdb cProfile doctest logging pdb profile pstats timeit trace traceback unittest warnings",
    "markup": "configparser csv html json plistlib xml",
    "import": "ast dis imp importlib inspect modulefinder pkgutil pyclbr runpy symtable tokenize zipimport",
}
"""Area -> its modules and packages, by top-level name."""


def area_by_name() -> dict[str, str]:
    """Return top-level module name -> area."""
    return {name: area for area, names in AREAS.items() for name in names.split()}
