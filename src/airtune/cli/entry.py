"""The process of a command: environment before, exit codes and one clear line after. Knows errors; not the commands."""

from __future__ import annotations

import os
import sys
import warnings

from rich.console import Console

from airtune.cli.app import app
from airtune.errors import AirtuneError

NO_MEMORY = ("out of memory", "not enough memory", "allocate memory")
"""What torch's allocators say in a RuntimeError."""

NO_HOME = "determine home directory"
"""What pathlib says where a path begins with ~ and nobody's name."""


def main() -> None:
    """Run the command line; end with 1 and one clear line when airtune refuses something."""
    _quieten()
    try:
        app()
    except AirtuneError as error:
        _complain(" ".join(str(error).split()))
        sys.exit(1)
    except ModuleNotFoundError as error:
        _complain(f"this command needs the package {error.name}, which is not installed; pip install 'airtune[train]'")
        sys.exit(1)
    except OSError as error:  # a path too long, say, which every way of asking about it raises
        _complain(f"{str(error.filename or 'the system')[:200]}: {error.strerror or error}; give another path")
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if NO_HOME in str(error):
            _complain("a path begins with ~ and a user who is not here; write the folder out")
            sys.exit(1)
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in NO_MEMORY):
            raise
        reason = (str(error).strip().splitlines() or ["no more memory"])[0]
        _complain(f"memory ran out ({reason}); choose smaller settings, batches or model, or a larger machine")
        sys.exit(1)
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C
            _complain("interrupted; `run --resume` goes on where a run stopped, `study` by the same command")
        raise


def _complain(line: str) -> None:
    Console(stderr=True).print(f"airtune: {line}", style="red", highlight=False, markup=False, soft_wrap=True)


def _quieten() -> None:
    """Nothing on the screen but what airtune says; threads wait briefly awake between a step's thousand operations."""
    if not sys.warnoptions:  # python -W still shows them
        warnings.simplefilter("ignore")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "OMP_WAIT_POLICY" not in os.environ:  # asleep they wake too late, spinning for long they starve other processes
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
