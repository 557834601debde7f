"""How long work says how far it is. Knows stages and counts; not terminals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, final


class Stage(Protocol):
    """One piece of work under way."""

    def advance(self, by: int = 1, note: str = "") -> None:
        """Count `by` more units as done; `note` is a few words on how it goes, such as the latest loss."""
        ...


class Progress(Protocol):
    """Whoever shows progress: a terminal, a log, nobody."""

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Stage]:
        """Enter a stage of `total` units (None: unknown)."""
        ...

    def say(self, line: str) -> None:
        """Tell one line that should stay."""
        ...


@final
class Silent:
    """Nobody watches."""

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        yield _Nothing()

    def say(self, line: str) -> None:
        """Not heard."""


@final
class _Nothing:
    def advance(self, by: int = 1, note: str = "") -> None:
        """Not counted."""
