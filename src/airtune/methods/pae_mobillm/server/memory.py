"""The samples used last, in memory up to a number of bytes. Knows ids and bytes; not what they mean."""

from __future__ import annotations

from collections import OrderedDict
from typing import final


@final
class MemoryTier:
    """Contents by id; the least recently used leave first.

    Args:
        most_bytes: Contents held, in bytes; ids and Python's own share come on top.
    """

    def __init__(self, most_bytes: float) -> None:
        self._most, self._held = most_bytes, 0
        self._contents: OrderedDict[int, bytes] = OrderedDict()

    def get(self, one: int) -> bytes | None:
        """A content that is here; it leaves later for that."""
        if one in self._contents:
            self._contents.move_to_end(one)
        return self._contents.get(one)

    def put(self, one: int, content: bytes) -> None:
        """Hold a content, the others as there is room."""
        self.forget(one)
        self._contents[one] = content
        self._held += len(content)
        while self._held > self._most:
            self._held -= len(self._contents.popitem(last=False)[1])

    def forget(self, one: int) -> None:
        """Let a content go, if it is here."""
        self._held -= len(self._contents.pop(one, b""))
