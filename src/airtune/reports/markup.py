"""HTML that is safe by default: text is escaped unless it is `Markup`, and only `tag` makes `Markup`.

Knows nothing of runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import final

VOID = frozenset({"br", "hr", "img", "meta", "source"})


@final
class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str | bool | None) -> Markup:
    """Build one element; children that are not `Markup`, and every attribute value, are escaped.

    A trailing underscore avoids Python's keywords (``class_``), others become hyphens; True is an attribute without
    a value, False and None leave it out.

    Example:
        >>> tag("p", "a < b", tag("br"), class_="note")
        '<p class="note">a &lt; b<br></p>'
    """
    head = name
    for key, value in attributes.items():
        if value is not None and value is not False:
            key = key.rstrip("_").replace("_", "-")
            head += f" {key}" if value is True else f' {key}="{escape(value)}"'
    return Markup(f"<{head}>") if name in VOID else Markup(f"<{head}>{join(children)}</{name}>")


def join(children: Iterable[str]) -> Markup:
    """Put pieces one after another, each escaped unless it is `Markup`."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in children))
