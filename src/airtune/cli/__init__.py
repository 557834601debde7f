"""The command line on top: every command is one call below it, plus tables and progress bars.

Reading map: `entry` (errors and exit codes), `app` (commands), `show` (progress, tables).
"""

from airtune.cli.entry import main

__all__ = ["main"]
