"""The tree of errors: one root, one line each."""

from __future__ import annotations

import pytest

from airtune import errors
from airtune.errors import AirtuneError, DeadlineError, LinkError

_TREE = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]


@pytest.mark.parametrize("error", _TREE)
def test_every_error_is_caught_by_the_root_and_keeps_its_line(error: type[AirtuneError]):
    with pytest.raises(AirtuneError, match=r"^found this; do that$"):
        raise error("found this; do that")


def test_a_missed_deadline_is_a_link_error():
    assert issubclass(DeadlineError, LinkError)


def test_the_tree_is_documented():
    assert all(error.__doc__ for error in _TREE)
