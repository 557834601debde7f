"""A fading by name, for settings and the command line.

A plain table: adding a kind is adding a line. It knows no file format or formula.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from types import MappingProxyType
from typing import Final

from airtune.errors import LinkError
from airtune.links.fading import Fading, Nakagami, Rayleigh, Rician, Still
from airtune.links.trace import Trace

FADINGS: Final[Mapping[str, Callable[..., Fading]]] = MappingProxyType(
    {
        "still": Still,
        "rayleigh": Rayleigh,
        "rician": Rician,
        "nakagami": Nakagami,
        "trace": Trace.from_csv,
    }
)
"""What makes each kind, by its name."""


def make_fading(name: str, **options: object) -> Fading:
    """The fading of that name: ``still``, ``rayleigh``, ``rician`` (k_factor), ``nakagami`` (m), ``trace`` (path, ...).

    Raises:
        LinkError: an unknown name, an option that is missing or not the kind's, or a value the kind refuses.

    Example:
        >>> make_fading("rician", k_factor=4)
        Rician(k_factor=4.0)
    """
    if name not in FADINGS:
        raise LinkError(f"fading is {name!r}; choose one of {', '.join(FADINGS)}")
    make = FADINGS[name]
    try:
        signature(make).bind(**options)
    except TypeError as error:
        known = ", ".join(signature(make).parameters) or "none"
        raise LinkError(f"{name} fading has wrong options ({error}); its options are: {known}") from None
    return make(**options)
