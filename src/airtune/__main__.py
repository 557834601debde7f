"""``python -m airtune``."""

from airtune.cli import main

main()
