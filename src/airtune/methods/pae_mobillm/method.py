"""PAE MobiLLM, start to end, as the device sees it: read once, send once, have a side network trained, infer with it.

START HERE. In the order of docs/methods/pae_mobillm.md: frozen backbone and its samples -> layers and bits under the
uplink's deadline -> hidden states at the pivot and prediction differences, each sample once -> the server trains on
what it has cached, epoch by epoch, and nothing more is uploaded -> the side network comes back -> backbone and side
network on test -> what the server could read off what it got.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, final

import numpy as np

from airtune.errors import DataError
from airtune.ledger import Ledger
from airtune.methods.pae_mobillm.building import Built, new_device, open_uplink, samples_of
from airtune.methods.pae_mobillm.config import PAEConfig
from airtune.methods.pae_mobillm.costs import costs
from airtune.methods.pae_mobillm.device.asking import whole_number
from airtune.methods.pae_mobillm.device.pivots import blocks_of
from airtune.methods.pae_mobillm.leaks import Part, leaks
from airtune.methods.pae_mobillm.privacy.leak import Leak
from airtune.methods.pae_mobillm.side import SideNetwork
from airtune.methods.pae_mobillm.started import Started
from airtune.methods.pae_mobillm.telling import told
from airtune.models import BaseModel, FitPlan, Items, Score, head_only
from airtune.records import Progress, RunFolder, generator, write_bytes
from airtune.transport import Message, Transport
from airtune.workloads.opening import labels_of, open_reader

UPLOADING = ("open", "have", "samples")
"""Messages that the deadline is for; training is asked for afterwards, epoch by epoch."""
PROBE_STEPS, PROBE_RATE = 1000, 1e-2
"""Of the linear probe, a head trained on the backbone's own features; dev chooses among four rates."""


def run(config: PAEConfig, folder: RunFolder, server: Transport, progress: Progress) -> dict[str, Any]:
    """Run the device's side; return the summary, which is also in the folder.

    A resumed run sends only what the server lacks and goes on at the epoch that it had reached.

    Args:
        server: Reaches a role made by `server_role` from the same settings.
    """
    if config.note:
        progress.say(config.note)
    ledger, stages = folder.read_ledger(), dict[str, float]()
    with _timed("load", stages), progress.stage("Loading model and task"):
        reader = open_reader(config)
        base = reader.base
        train, test = samples_of(config, reader), reader.spread("test", config.task.test_items)
    with _timed("choose", stages), progress.stage("Choosing what is sent"):
        link = open_uplink(config)
        built = new_device(config, base, train, link, _Booked(server, folder, ledger), ledger, progress)
    progress.say(f"Sent of each sample: {sent_of(built)}.")

    device = built.device
    with _timed("upload", stages):
        before = Started.read(folder)
        answer = device.open(asdict(config.side), config.seed, requests=before.requests if before else None)
        if before is None:
            Started(built.identity, labels_of(reader.task), whole_number(answer, "requests")).write(folder)
        sent = device.upload(train, again=config.server.again)
        kept = train.chosen(np.flatnonzero(device.holds(train)))
    with _timed("train", stages):
        losses, last_rows = _train(config, built, folder, progress)
    with _timed("infer", stages), progress.stage("Scoring test", total=2) as stage:
        side = device.side(temperature=config.side.temperature)
        learned = side.to_bytes()
        write_bytes(folder.path / "side.safetensors", learned)
        ledger.book("bits", 8 * len(learned), role="server", what="side")
        blank = SideNetwork.blank(side)
        scores = {"backbone alone": device.infer(test, blank)}
        stage.advance()
        scores["PAE MobiLLM"] = device.infer(test, side)
        stage.advance()
    if base.head and config.report.probe:
        with _timed("probe", stages), progress.stage("Training a head alone, to compare"):
            scores["a head alone, on the device"] = _probe(config, base, train, reader.items("dev"), test)
    found, unattacked = tuple[Leak, ...](), ""
    if config.report.attacks:
        with _timed("leaks", stages), progress.stage("Attacking what was sent"):
            parts = (Part.of(base, items, built.identity.layers) for items in (train, test, reader.items("dev")))
            try:
                found = leaks(config, base, built.identity, built.secrecy, side, *parts)
            except DataError as error:  # too few samples, say, which is no reason to lose what was trained
                unattacked = str(error)

    rows, all_rows = (int((some.lengths - 1).sum()) if base.kind == "text" else len(some) for some in (kept, train))
    ways = costs(
        built.identity,
        len(kept),
        rows,
        int(kept.lengths.sum()),
        config.side.epochs,
        len(learned),
        blocks=len(blocks_of(base)),
        text=base.kind == "text",
    )
    airtime_s = ledger.total("seconds", role="device")
    upload_s = ledger.total("seconds", role="device", what=UPLOADING)
    summary = {
        "method": "pae_mobillm",
        "seed": config.seed,
        "model": config.model.name,
        "task": config.task.name,
        "metric": reader.task.metric,
        "wall_s": sum(stages.values()),
        "stage_s": stages,
        "versions": folder.versions,
        "identity": built.identity.as_header(),
        "sent": {**asdict(sent), "explained": built.choice.explained},
        "uplink": {
            "snr_db": link.snr_db,
            "bandwidth_hz": link.bandwidth_hz,
            "deadline_s": config.link.deadline_s,
            "air_bits": ledger.total("bits", role="device"),
            "airtime_s": airtime_s,
            "upload_s": upload_s,
            "deadline_met": upload_s <= config.link.deadline_s,
        },
        "downlink_bits": ledger.total("bits", role="server"),
        "losses": losses,
        "last_epoch": {"rows": last_rows, "sent": all_rows},
        "defences": {
            "rotation": config.privacy.rotate_to > 0,
            "noise": config.privacy.epsilon > 0,
            "secret": bool(config.device.secret),
        },
        "scores": {name: {"score": one.metric, "loss": _finite(one.loss)} for name, one in scores.items()},
        "costs": [asdict(one) for one in ways],
        "report": asdict(config.report),
        "leaks": [asdict(one) for one in found],
        "unattacked": unattacked,
    }
    summary |= told(summary)
    folder.write_ledger(ledger)
    folder.write_summary(summary)
    return summary


@final
class _Booked:
    """Records what is booked of a message before it leaves: what a killed run has sent counts too.

    Not before a server has opened, so that a run which is refused leaves its folder free. A long ledger is recorded
    anew when it has grown by a 32nd, so that recording costs no more than its length.
    """

    def __init__(self, inner: Transport, folder: RunFolder, ledger: Ledger) -> None:
        self._inner, self._folder, self._ledger = inner, folder, ledger
        self._due = 0

    def request(self, message: Message) -> Message:
        if message.kind != "open" and len(self._ledger) >= self._due:
            self._folder.write_ledger(self._ledger)
            self._due = len(self._ledger) * 33 // 32
        return self._inner.request(message)


def sent_of(built: Built) -> str:
    """Layers and bits in words: `blocks 1, 2 and 6 at 16 bits`, say."""
    identity = built.identity
    parts = []
    for bits in sorted(set(identity.bits), reverse=True):
        layers = [f"{layer}" for layer, own in zip(identity.layers, identity.bits, strict=True) if own == bits]
        names = layers[0] if len(layers) == 1 else f"{', '.join(layers[:-1])} and {layers[-1]}"
        parts.append(f"block{'s' * (len(layers) > 1)} {names} at {bits} bits")
    return ", ".join(parts)


def _train(config: PAEConfig, built: Built, folder: RunFolder, progress: Progress) -> tuple[list[float], int]:
    """Have the server train, one epoch per question; mean losses by epoch, and on how many pivots the last was."""
    losses, rows, told_before = list[float](), 0, {row["epoch"] for row in folder.read_metrics("train")}
    with progress.stage("The server trains on what it has cached", total=config.side.epochs) as stage:
        for epoch in range(1, config.side.epochs + 1):
            answer = built.device.train(epoch)
            losses = [float(loss) for loss in answer["losses"]]  # type: ignore[union-attr, arg-type]
            rows = int(answer["rows"][-1])  # type: ignore[index, arg-type]
            if epoch not in told_before:
                folder.metric("train", epoch=epoch, loss=losses[-1])
            stage.advance(note=f"loss {losses[-1]:.4f}")
    return losses, rows


def _probe(config: PAEConfig, base: BaseModel, train: Items, dev: Items, test: Items) -> Score:
    plan = FitPlan(steps=PROBE_STEPS, batch_size=32, learning_rate=PROBE_RATE, seed=config.seed)
    some = dev.chosen(np.arange(min(len(dev), config.task.dev_items)))
    return head_only(base, train, some, test, plan, generator(config.seed, "probe"))[1]


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


@contextmanager
def _timed(name: str, stages: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        stages[name] = stages.get(name, 0.0) + time.perf_counter() - start
