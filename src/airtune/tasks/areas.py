"""Which module of Python's standard library belongs to which area: the labels of the task pydocs.

A plain table. A module that a Python version lacks is passed over; a module that stands in no area is not read.
"""

from __future__ import annotations

from collections.abc import Mapping

TOPICS = "topics"
"""Stands for `pydoc_data.topics`: not a module of docstrings but the language reference, one document a topic."""

AREAS: Mapping[str, str] = {
    "network": "asynchat asyncore cgi cgitb email ftplib http imaplib ipaddress mailbox mailcap netrc nntplib poplib"
    " smtpd smtplib socket socketserver ssl telnetlib urllib webbrowser wsgiref xmlrpc",
    "gui": "curses tkinter turtle",
    "concurrency": "_threading_local asyncio concurrent contextvars multiprocessing queue sched selectors signal"
    " subprocess threading",
    "formats": "_compression _markupbase aifc base64 bz2 chunk compression configparser copyreg csv dbm gzip html"
    " imghdr json lzma mimetypes pickle pickletools plistlib quopri shelve sndhdr sqlite3 sunau tarfile"
    " tomllib uu wave xdrlib xml zipapp zipfile",
    "language": TOPICS,
    "runtime": "__future__ _py_abc abc annotationlib ast code codeop compileall contextlib dataclasses dis enum"
    " functools imp importlib inspect modulefinder opcode operator pkgutil py_compile pyclbr pydoc runpy"
    " site symtable sysconfig tokenize types typing venv warnings weakref zipimport",
    "numbers": "_pydatetime _pydecimal _strptime bisect calendar colorsys datetime fractions hashlib heapq hmac"
    " numbers random secrets statistics uuid zoneinfo",
    "testing": "bdb cProfile doctest linecache logging pdb profile pstats tabnanny timeit trace traceback"
    " tracemalloc unittest",
    "system": "_pyio argparse cmd codecs difflib filecmp fileinput fnmatch genericpath getopt getpass gettext glob"
    " io locale ntpath optparse os pathlib pipes platform posixpath pprint pty re shlex shutil stat string"
    " tempfile textwrap tty",
}
"""Area -> its modules and packages, by top-level name."""


def area_by_name() -> dict[str, str]:
    """Return top-level module name -> area."""
    return {name: area for area, names in AREAS.items() for name in names.split()}
