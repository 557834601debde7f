"""airtune: fine-tune in the cloud, choose ranks for the channel, send the adapter in time, apply it at the edge.

`run`, `forget`, `plan`, `decide`, `report`, `train`, `pack`, `inspect` and `unpack` are the commands of the same names.
Types and some functions load when they are first used, so that importing airtune costs next to nothing and needs no
torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airtune.errors import AirtuneError, ConfigError

if TYPE_CHECKING:
    from airtune.adapters import RankVector
    from airtune.adapters.unpacking import inspect, unpack
    from airtune.codec import Allocation, Payload
    from airtune.ledger import Ledger
    from airtune.links import ChannelState, Link
    from airtune.methods.airllm.plan import Plan
    from airtune.methods.airllm.policy.decide import Decision
    from airtune.methods.pae_mobillm.forgetting import Forgotten
    from airtune.records import Progress, RunFolder
    from airtune.services.packing import pack
    from airtune.services.training import train

__version__ = "0.1.0"

_HOMES = {
    "Allocation": "airtune.codec",
    "ChannelState": "airtune.links",
    "Ledger": "airtune.ledger",
    "Link": "airtune.links",
    "Payload": "airtune.codec",
    "RankVector": "airtune.adapters",
    "RunFolder": "airtune.records",
    "inspect": "airtune.adapters.unpacking",
    "pack": "airtune.services.packing",
    "train": "airtune.services.training",
    "unpack": "airtune.adapters.unpacking",
}

__all__ = [
    "AirtuneError",
    "Allocation",
    "ChannelState",
    "Ledger",
    "Link",
    "Payload",
    "RankVector",
    "RunFolder",
    "__version__",
    "decide",
    "forget",
    "inspect",
    "pack",
    "plan",
    "report",
    "run",
    "train",
    "unpack",
]


def run(
    method: str,
    *,
    preset: str = "",
    overrides: Mapping[str, object] | None = None,
    out: str | Path,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run a method into a run folder and return its summary.

    Args:
        method: `airllm` or `pae_mobillm`.
        preset: Settings to start from: `default` where none is given, `demo`, `tiny`, `cpu`, `cpu-sst2`, `cpu-paper`
            or `paper`.
        overrides: Settings over the preset, e.g. ``{"model.name": "minilm", "adapter.max_rank": 16}``.
        out: New or empty folder, or with `resume` the folder of an interrupted run, whose recorded settings then hold.
        progress: Whoever watches; nobody by default.

    Raises:
        AirtuneError: one line that says what was found, what was expected and what to do.
    """
    from airtune.services import resume_method, run_method

    if resume:
        if overrides or preset:
            raise ConfigError("resume goes on under the recorded settings; leave preset and overrides out")
        return resume_method(method, out=Path(out), progress=progress)
    return run_method(method, preset=preset or "default", overrides=overrides or {}, out=Path(out), progress=progress)


def forget(
    run: str | Path,
    *,
    texts: Sequence[str] | None = None,
    file: str | Path | None = None,
    everything: bool = False,
    method: str = "pae_mobillm",
    progress: Progress | None = None,
) -> Forgotten:
    """Have the cloud forget samples that a run sent it; return what it held. What was learned from them stays.

    Args:
        run: The device's run folder.
        texts: As they stand in the data.
        file: Holds them: a table like the task's, or a .txt with one text a line.
        everything: All that the cloud holds of the run.
        progress: Whoever watches; nobody by default.

    Raises:
        AirtuneError: one line that says what was found, what was expected and what to do.
    """
    from airtune.services import forget_samples

    given = [
        name for name, one in (("texts", texts is not None), ("a file", file is not None), ("all", everything)) if one
    ]
    if len(given) != 1:
        raise ConfigError(
            f"{' and '.join(given) or 'nothing'} to forget was given; give texts, or a file, or all of it"
        )
    if isinstance(texts, str):
        raise ConfigError("texts is one string; give a list of texts, or its path as file")
    asked = texts if file is None else Path(file)
    found: Forgotten = forget_samples(method, run=Path(run), texts=asked, progress=progress)
    return found


def plan(
    method: str = "airllm",
    *,
    preset: str = "",
    overrides: Mapping[str, object] | None = None,
    known: Sequence[str | Path] = (),
) -> Plan:
    """Say before any training what ranks, bits and airtime a link has room for, by SNR.

    Args:
        preset, overrides: Settings, as for `run`.
        known: Finished run folders of the same model and task; the lowest loss they sent within a budget stands beside.

    Raises:
        AirtuneError: one line that says what was found, what was expected and what to do.
    """
    from airtune.records import RunFolder
    from airtune.services import method_entry

    entry = method_entry(method)
    if entry.plan is None:
        raise ConfigError(f"method {method} has no plan; choose airllm")
    summaries = [RunFolder.open(Path(folder)).read_summary() for folder in known]
    found: Plan = entry.plan(entry.load_config(preset or "default", overrides or {}), summaries)
    return found


def decide(
    snr_db: float,
    bandwidth_hz: float,
    *,
    policy: str | Path = "",
    deadline_s: float | None = None,
    entropy_bits: float | None = None,
    oov_rate: float | None = None,
) -> Decision:
    """Decide the ranks for one channel state by a trained policy; needs no torch.

    Args:
        policy: Folder of a saved policy, or of a run; by default the one that comes with airtune, for `minilm`.
        deadline_s: T_max in seconds; the policy's own where none is given.
        entropy_bits, oov_rate: H and rho of the data; those of the task it was trained on where none are given.

    Raises:
        AirtuneError: one line that says what was found, what was expected and what to do.
    """
    from airtune.links import Link
    from airtune.methods.airllm.policy.decide import decide as decide_for
    from airtune.methods.airllm.policy.decide import open_policy

    return decide_for(
        open_policy(policy),
        Link(bandwidth_hz, snr_db),
        deadline_s=deadline_s,
        entropy_bits=entropy_bits,
        oov_rate=oov_rate,
    )


def report(*runs: str | Path, out: str | Path = "comparison.html") -> Path:
    """Write a run's report page again, or, given several runs, one page at `out` that compares them."""
    from airtune.reports import compare, write_report

    folders = [Path(run) for run in runs]
    return write_report(folders[0]) if len(folders) == 1 else compare(folders, Path(out))


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'airtune' has no attribute {name!r}")
