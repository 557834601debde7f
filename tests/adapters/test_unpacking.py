"""What `inspect` tells of a file; that folders come back right is tested with packing, in tests/services."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from airtune.adapters.unpacking import inspect
from airtune.codec import Binding, Draft, Factors, code_adapter


@pytest.mark.parametrize("core", ["b", "b core=svd check=1,-2"])
def test_what_takes_singular_values_to_tell_is_not_told(tmp_path: Path, core: str):
    """A core weighs as much as the singular values it goes between; a whole update as much as its entries."""
    rng = np.random.default_rng(0)
    factors = {
        name: Factors(rng.normal(size=(size, 1)), np.ones(1), rng.normal(size=(1, size)))
        for name, size in (("a", 200), (core, 200))
    }
    draft = Draft(code_adapter(factors, {}, 1e-3, canonical=True), Binding("0" * 64, "0" * 64), {})
    (tmp_path / "p.atn").write_bytes(draft.encode((1, 1)).data)
    whole, other = inspect(tmp_path / "p.atn").sites
    assert whole.error is not None
    squares = [float((site.update() ** 2).sum()) for site in factors.values()]
    if core == "b":
        assert whole.update == pytest.approx(squares[0] / sum(squares), rel=1e-2)
        assert other.error is not None
    else:
        assert whole.update is other.update is other.error is None
