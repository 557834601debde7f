"""The last stages of a run, the same in both modes: send at every SNR, then say what came of it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from airtune.links import Link
from airtune.methods.airllm.allocators import Allocator
from airtune.methods.airllm.building import specialiser
from airtune.methods.airllm.packing import Packer
from airtune.methods.airllm.rounds import Rounds, Row
from airtune.methods.airllm.session import Session
from airtune.methods.airllm.trainee import Trainee
from airtune.records import generator, write_bytes
from airtune.transport import Transport


def new_rounds(
    session: Session, trainee: Trainee, packer: Packer, edge: Transport, metric: str, *, soft: bool = False
) -> Rounds:
    """Rounds under the run's settings; `soft` ones are not cut to the deadline."""
    config = session.config
    return Rounds(
        trainee,
        packer,
        edge,
        session.ledger,
        trainee.parts.complexity,
        metric=metric,
        deadline_s=config.link.deadline_s,
        cost_weight=config.policy.cost_weight,
        late_share=config.link.late_share,
        run_id=secrets.randbits(64),  # after a resume too: the edge may remember the messages from before
        soft=soft,
        specialise=specialiser(config, trainee, packer, session.folder.path),
    )


def send_all(session: Session, rounds: Rounds, allocators: Sequence[Allocator], links: Sequence[Link]) -> list[Row]:
    """One round for every SNR and allocator; payloads are kept in the folder, the last one as its own."""
    folder, rows = session.folder, []
    with session.progress.stage("Sending adapters and scoring", total=len(links) * len(allocators)) as stage:
        for link in links:
            for allocator in allocators:
                draws = generator(session.config.seed, "channel", f"{link.snr_db:g}")  # the same blocks for all
                row, payload = rounds.run(allocator, link, draws)
                kept = rounds.file(payload)
                write_bytes(folder.payload_at(allocator.name, link.snr_db), kept)
                if allocator is allocators[-1] and link is links[-1]:
                    write_bytes(folder.payload, kept)
                rows.append(row)
                folder.write_ledger(session.ledger)
                stage.advance(note=f"{allocator.name} at {link.snr_db:g} dB: {row.air_bits / 1e3:.1f} kbit")
    return rows


def summarise(
    session: Session,
    trainee: Trainee,
    rows: Sequence[Row],
    reason: str,
    reference: Mapping[str, Mapping[str, float]],
    notes: Sequence[str],
    **more: Any,
) -> dict[str, Any]:
    """Write ledger and summary into the folder; return the summary.

    Args:
        reason: Why the links have the bandwidth they have.
        more: What only one mode has to say.
    """
    config, folder = session.config, session.folder
    new_losses = trainee.measured - session.ledger.total("loss_evaluations")
    session.ledger.book("loss_evaluations", new_losses, role="cloud", what="calibration")
    summary = {
        "method": "airllm",
        "mode": config.mode,
        "seed": config.seed,
        "model": config.model.name,
        "task": config.task.name,
        "wall_s": session.wall_s,
        "stage_s": session.stage_s,
        "versions": folder.versions,
        "sites": [
            {"layer": site.layer, "module": site.module, "in": site.fan_in, "out": site.fan_out, "cap": cap}
            for site, cap in zip(trainee.adapter.sites, trainee.adapter.caps.ranks, strict=True)
        ],
        "link": {"fading": config.link.fading, "bandwidth_reason": reason},
        "reference": reference,
        **more,
        "notes": notes,
        "rows": [row.as_dict() for row in rows],
    }
    folder.write_ledger(session.ledger)
    folder.write_summary(summary)
    return summary
