"""Export to PEFT refuses what no runtime could load; that its logits are right is tested per family in test_adapter."""

from __future__ import annotations

import numpy as np
import pytest

from airtune.adapters import export_peft
from airtune.codec import Factors
from airtune.errors import PayloadError


def test_an_adapter_without_sites_is_refused(tmp_path):
    with pytest.raises(PayloadError, match="the adapter has no sites; expected one at least"):
        export_peft(tmp_path / "out", {}, {"classifier.weight": np.ones((2, 2))}, kind="classify", base_model="b")
    assert not list(tmp_path.iterdir())


def test_numbers_that_float32_does_not_hold_are_refused(tmp_path):
    huge = Factors(p=np.full((3, 1), 3e38, np.float32), lam=np.full(1, 3e38, np.float32), q=np.ones((1, 2), np.float32))
    with pytest.raises(PayloadError, match=r"layer\.lora_B\.weight holds a number that is not finite in float32"):
        export_peft(tmp_path / "out", {"layer": huge}, {}, kind="text", base_model="b")
    assert not list(tmp_path.iterdir())
