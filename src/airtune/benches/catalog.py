"""The benches there are: a plain table. `run_bench` measures one and writes its JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from airtune.benches.result import Measured
from airtune.errors import ConfigError
from airtune.records import Progress, versions_in_force, write_text
from airtune.records.plain import json_text


@dataclass(frozen=True, slots=True)
class Bench:
    """One bench: what it compares, the module whose function `bench` measures it, and how often unless said."""

    summary: str
    module: str
    repeats: int

    def measure(self, repeats: int, progress: Progress) -> Measured:
        """Import the module, which may load heavy libraries, and run it."""
        found: Callable[[int, Progress], Measured] = import_module(self.module).bench
        return found(repeats, progress)


BENCHES: Mapping[str, Bench] = {
    "codec": Bench("format 2 on OPT-1.3B's shapes: bits, time, memory", "airtune.benches.codec", 5),
    "decision": Bench("one decision of the policy against diffusers' DDIM loop", "airtune.benches.decision", 15),
    "env": Bench("environment steps on real losses: time outside the model", "airtune.benches.env", 40),
    "step": Bench("fine-tuning steps against peft's LoRA and AdaLoRA", "airtune.benches.step", 12),
}


def run_bench(name: str, *, out: Path, repeats: int | None, progress: Progress) -> tuple[Measured, Path]:
    """Measure one bench and write `NAME.json` into a folder; return what was found and the file.

    Raises:
        ConfigError: an unknown bench, fewer than one repeat, or a folder that cannot be.
    """
    if name not in BENCHES:
        raise ConfigError(f"bench is {name!r}; choose one of {', '.join(BENCHES)}")
    bench = BENCHES[name]
    times = bench.repeats if repeats is None else repeats
    if times < 1:
        raise ConfigError(f"repeats is {times}; choose at least 1")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out is {str(out)!r}, no folder can be there ({error}); choose another") from None
    measured = bench.measure(times, progress)
    file = out / f"{name}.json"
    record = {"bench": name, "repeats": times, "machine": machine(), **measured.as_dict()}
    write_text(file, json_text(record, indent=2) + "\n")
    return measured, file


def machine() -> dict[str, str | int | float]:
    """Software in force, processor, threads that torch uses, and how busy the machine was before."""
    import os

    import torch

    found: dict[str, str | int | float] = dict(versions_in_force())
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        found["processor"] = names[0] if names else "unknown"
    if torch.cuda.is_available():
        found["accelerator"] = torch.cuda.get_device_name(0)
    return found | {"torch_threads": torch.get_num_threads(), "load_average": round(os.getloadavg()[0], 2)}
