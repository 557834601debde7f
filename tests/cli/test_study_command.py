"""`airtune study` as a user meets it: refusals in one line, a whole tiny study, and nothing done twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tiny_models import WORDS, save_tiny_model

SMALL = [
    *("adapter.steps=3", "policy.rounds=1", "policy.env_steps=16", "policy.updates=2", "policy.warm_start_updates=2"),
    *("policy.sample_steps=3", "model.window=16"),
]


def airtune(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "airtune", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
    )


def test_an_unknown_study_is_refused_in_one_line(tmp_path: Path):
    done = airtune("study", "table9", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().startswith("airtune: study is 'table9'; of airllm choose one of bits, complexity")
    assert "\n" not in done.stderr.strip()
    assert not list(tmp_path.iterdir())


def test_a_whole_study_and_the_same_again(tmp_path: Path):
    (tmp_path / "prose.txt").write_text(" ".join(WORDS[4 + i * i % 18] for i in range(4000)))
    save_tiny_model(tmp_path / "llama", "llama")
    given = ["--preset", "tiny", "--model", "./llama", "--data", "prose.txt", "--jobs", "2", "--out", "out"]
    settings = [word for setting in SMALL for word in ("--set", setting)]
    first = airtune("study", "state", *given, *settings, folder=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "policy: 4 cells, 0 there, 4 to compute (none measured yet)." in first.stdout
    found = {name: (tmp_path / "out" / name).read_text() for name in ("results.csv", "results.md")}
    assert (tmp_path / "out" / "page.html").exists()
    again = airtune("study", "state", *given, *settings, folder=tmp_path)
    assert "policy: 4 cells, 4 there, 0 to compute." in again.stdout
    assert found == {name: (tmp_path / "out" / name).read_text() for name in found}
