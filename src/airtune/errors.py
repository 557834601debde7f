"""One tree of errors for every room.

Each message says what was found, what was expected and what to do, in one line; the command line prints that line
and ends with a non-zero exit code. Catch `AirtuneError` to catch them all.
"""

from __future__ import annotations


class AirtuneError(Exception):
    """Anything airtune refuses, with one line a user can act on."""


class ConfigError(AirtuneError):
    """A setting, preset or key that is unknown, out of range or contradicts another."""


class DataError(AirtuneError):
    """Task data that is missing, malformed or too small."""


class ModelError(AirtuneError):
    """A base model that cannot be found, read, or whose anatomy is not known."""


class LinkError(AirtuneError):
    """A channel value that is not finite or not physical."""


class DeadlineError(LinkError):
    """A deadline that no payload can meet on this link."""


class PayloadError(AirtuneError):
    """Bytes that are not a valid payload for this receiver: nothing of them is applied."""


class TransportError(AirtuneError):
    """A message that could not be delivered, or that the other role refused."""


class RefusedError(TransportError):
    """A message that the other role got and refused as it is: asked again, it refuses again."""


class RunError(AirtuneError):
    """A run folder that cannot be written, read or resumed."""


class BusyError(RunError):
    """A folder that another process is writing just now."""
