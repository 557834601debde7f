"""What no receiver takes is refused before a file is there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import airtune
from airtune.codec.coded import fit
from airtune.errors import PayloadError


def peft_folder(folder: Path, sites: dict[str, tuple[int, int, int]]) -> Path:
    """An adapter of sites of shape (out, in) and rank r, directions of equal worth."""
    config = {"peft_type": "LORA", "lora_alpha": 1, "r": 1, "target_modules": sorted(sites)}
    tensors = {}
    for name, (out, into, rank) in sites.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = np.eye(rank, into, dtype=np.float32)
        tensors[f"base_model.model.{name}.lora_B.weight"] = np.eye(out, rank, dtype=np.float32)
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


BEYOND = {
    "dimension": ({"s": (2**20 + 1, 2, 1)}, r"s has a dimension of 1048577, the limit is 1048576; leave it out, or"),
    "sites": ({f"{i}": (2, 2, 1) for i in range(4097)}, r"found 4097 sites, the limit is 4096; leave some out, or"),
    "rank": ({"s": (1025, 1025, 1025)}, r"has 1025 directions, its sites hold 1024 .*; send fewer, or"),
}


@pytest.mark.parametrize(("sites", "line"), BEYOND.values(), ids=BEYOND)
def test_what_no_receiver_takes_is_not_written(tmp_path: Path, monkeypatch, sites: dict, line: str):
    monkeypatch.setattr(fit, "TRIES", 1)
    folder = peft_folder(tmp_path / "peft", sites)
    with pytest.raises(PayloadError, match=line):
        airtune.pack(folder, tmp_path / "p.atn", budget_bits=10**9)
    assert not (tmp_path / "p.atn").exists()
