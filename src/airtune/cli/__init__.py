"""The command line on top: every command is one documented call of the Python API, plus tables and progress bars.

Reading map: `app` (commands and their errors), `show` (progress, tables).
"""

from airtune.cli.app import main

__all__ = ["main"]
