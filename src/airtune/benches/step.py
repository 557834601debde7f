"""One fine-tuning step under a changing rank vector, against peft's LoRA and AdaLoRA at equal ranks.

MiniLM, 32 sentences of 16 tokens, AdamW. Dense vectors have r_max everywhere; sparse ones r_max / 4 at every second
site and nothing at the others, moved on by one layer each step, which peft's LoRA could not do. AdaLoRA keeps its full
width and masks it. What a step holds for its backward pass, with factors and moments, stands beside its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Any

import numpy as np
import torch
from peft import AdaLoraConfig, LoraConfig, PeftConfig, get_peft_model
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from airtune.adapters import Adapter, RankSampler, RankVector
from airtune.benches.result import Measured, Ratio
from airtune.benches.timing import interleaved, median
from airtune.models import load_base
from airtune.records import Progress

SENTENCES, TOKENS = 32, 16
MAX_RANKS = (8, 16, 64)
PLAIN, WITH_EQ_3 = 1.05, 1.10
"""What a step may cost against LoRA's at equal ranks, without and with the orthogonality term."""
ADALORA_EVERY = 10
"""Steps between two of AdaLoRA's allocations, as its paper has them at least."""

Step = Callable[[], object]


def bench(repeats: int, progress: Progress) -> Measured:
    """Median step times by r_max, dense and sparse, and the bytes that a step holds."""
    rows: list[dict[str, float | str]] = []
    ratios: list[Ratio] = []
    with progress.stage("Timing fine-tuning steps", total=2 * len(MAX_RANKS)) as stage:
        for max_rank in MAX_RANKS:
            for sparse in (False, True):
                rivals = steps(max_rank, sparse=sparse)
                times = {name: median(found) for name, found in interleaved(rivals, repeats, warm_up=2).items()}
                label, lora = f"r_max {max_rank}, {'sparse' if sparse else 'dense'}", times["peft LoRA"]
                for name, rival in rivals.items():
                    seconds, held = times[name], held_bytes(rival)
                    found = {"ms": 1e3 * seconds, "of LoRA": seconds / lora, "MB held": held / 1e6}
                    rows.append({"ranks": label, "step": name, **found})
                ours, with_eq_3, adalora = (times[name] for name in ("airtune", "airtune, Eq. 3", "peft AdaLoRA"))
                ratios.append(Ratio(f"step against peft LoRA, {label}", ours / lora, PLAIN, at_least=False))
                line = f"step with Eq. 3 against peft LoRA, {label}"
                ratios.append(Ratio(line, with_eq_3 / lora, WITH_EQ_3, at_least=False))
                if sparse:
                    line = f"step with Eq. 3 against peft AdaLoRA, {label}"
                    ratios.append(Ratio(line, with_eq_3 / adalora, 1.0, at_least=False))
                stage.advance(note=f"{ours / lora:.2f}x LoRA")
    return Measured(rows, ratios)


def steps(max_rank: int, *, sparse: bool) -> dict[str, Step]:
    """The rivals, each with a model of its own: one call is one step of forward, backward, clipping and AdamW."""
    base = load_base("minilm", "classify", labels=2)
    width = len(base.sites) // (max(site.layer for site in base.sites) + 1)
    ranks = [max_rank] * len(base.sites)
    if sparse:
        ranks = [max(1, max_rank // 4) * (index % 2) for index in range(len(base.sites))]
    adapter = Adapter(base, max_rank, generator=torch.Generator().manual_seed(0))
    parameters = list(adapter.parameters().values())
    moved = count()

    def ours(penalty: Callable[[], torch.Tensor] | None) -> Step:
        step = _step(base.model, parameters, penalty)

        def changed() -> None:
            by = width * next(moved) % len(ranks)
            adapter.set_ranks(RankVector.of(ranks[by:] + ranks[:by]))
            step()

        return changed

    def nested() -> None:
        adapter.set_item_ranks(RankSampler(per_item=True).draw(adapter.caps, SENTENCES, np.random.default_rng(0)))
        nested_step()

    nested_step = _step(base.model, parameters, lambda: 0.001 * adapter.orthogonality())
    kept = {site.path: rank for site, rank in zip(base.sites, ranks, strict=True) if rank}
    lora = LoraConfig(r=max_rank, lora_alpha=max_rank, rank_pattern=kept, target_modules=list(kept))
    adalora = AdaLoraConfig(
        init_r=max_rank,
        target_r=max(1, min(max_rank - 1, sum(ranks) // len(ranks))),  # equal to init_r, peft 0.21 fails
        deltaT=ADALORA_EVERY,
        total_step=1_000_000,
        target_modules=[site.path for site in base.sites],
    )
    rivals = {
        "peft LoRA": _peft_step(lora),
        "peft AdaLoRA": _peft_step(adalora),
        "airtune": ours(None),
        "airtune, Eq. 3": ours(lambda: 0.001 * adapter.orthogonality()),
    }
    return rivals if sparse else rivals | {"airtune, ranks per item": nested}


def held_bytes(step: Step) -> int:
    """Bytes of the distinct tensors that one step saves for its backward pass, frozen weights included."""
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(seen.values())


def _peft_step(config: PeftConfig) -> Step:
    base = load_base("minilm", "classify", labels=2)
    config.task_type = "SEQ_CLS"
    model: Any = get_peft_model(base.model, config)
    step = _step(model, [parameter for parameter in model.parameters() if parameter.requires_grad])
    if not isinstance(config, AdaLoraConfig):
        return step
    done = count(1)

    def allocated() -> None:
        step()
        model.base_model.update_and_allocate(next(done))

    return allocated


def _step(model: Any, parameters: Iterable[nn.Parameter], penalty: Callable[[], torch.Tensor] | None = None) -> Step:
    trained = list(parameters)
    for parameter in trained:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(trained, lr=1e-4)
    batch = _batch()

    def step() -> None:
        loss = model(**batch).loss
        optimiser.zero_grad(set_to_none=True)
        (loss if penalty is None else loss + penalty()).backward()
        nn.utils.clip_grad_norm_(trained, 0.3)
        optimiser.step()

    return step


def _batch() -> Mapping[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 20_000, (SENTENCES, TOKENS), generator=draw)
    labels = torch.randint(0, 2, (SENTENCES,), generator=draw)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
