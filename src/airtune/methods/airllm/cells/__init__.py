"""What AirLLM's studies are made of: kinds of cells, from settings and the cells below to numbers.

| kind      | reads             | computes                                                          | file       |
|-----------|-------------------|-------------------------------------------------------------------|------------|
| `adapter` | -                 | the nested adapter of a workload and seed, and measured losses    | `adapter`  |
| `policy`  | adapter           | a policy variant, trained on the surrogate; decisions, state use  | `policy`   |
| `rows`    | adapter, policy   | real losses and scores of the policy's decisions, by SNR          | `rows`     |
| `specialised` | policy, adapter | the same, trained on at those ranks for each link; and uniform's  | `rows`     |
| `rivals`  | adapter           | the same for uniform, random and greedy                           | `rows`     |
| `uniform` | adapter           | the same for uniform alone                                        | `rows`     |
| `search`  | adapter           | the same for searches without a policy, a long one among them     | `regret`   |
| `regret`  | those three       | distance of everybody from the best that anybody found            | `regret`   |
| `curve`   | policy, adapter   | its predicted reward after each round, over the same states       | `unseen`   |
| `unseen`  | adapter, another  | real losses of its decisions between SNRs and on that other one   | `unseen`   |
| `times`   | -                 | time of a decision over sizes: needs the processor alone          | `times`    |

Trained baselines, each rank of which is a cell that every r_max above it shares:

| kind                          | reads                   | computes                                     | file        |
|-------------------------------|-------------------------|----------------------------------------------|-------------|
| `lora-sweep`, `adalora-sweep` | -                       | learning rate and alpha, chosen on dev       | `trained`   |
| `lora`, `adalora`             | the sweep of its rank   | an adapter trained by peft at one rank       | `trained`   |
| `cores16`, ... 32, 64         | as LoRA, with a sweep   | cores between that many singular vectors     | `trained`   |
| `baselines`                   | those of ranks to r_max | the same as `rows` for LoRA, AdaLoRA and SVD | `baselines` |

What trained adapters cost to send:

| kind    | reads                                  | computes                                    | file   |
|---------|----------------------------------------|---------------------------------------------|--------|
| `whole` | that of the first seed, for its rate   | the change of all weights, fine-tuned       | `bits` |
| `bits`  | `lora` of all ranks, cores, `whole`    | bits against loss of every way to send them | `bits` |

`opening` builds what they share out of settings and the adapter's cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from airtune.methods.airllm.cells.adapter import compute_adapter
from airtune.methods.airllm.cells.baselines import baseline_settings, compute_baselines, ladders
from airtune.methods.airllm.cells.bits import (
    bits_settings,
    compute_bits,
    compute_whole,
    first_whole,
    trainings,
    whole_settings,
)
from airtune.methods.airllm.cells.opening import adapter_settings, policy_settings, rival_settings, specialised_settings
from airtune.methods.airllm.cells.policy import compute_policy
from airtune.methods.airllm.cells.regret import compute_regret, compute_search
from airtune.methods.airllm.cells.rows import compute_rivals, compute_rows, compute_specialised, compute_uniform
from airtune.methods.airllm.cells.times import compute_times, times_settings
from airtune.methods.airllm.cells.timing import compute_timing, timing_settings
from airtune.methods.airllm.cells.trained import (
    BASELINES,
    compute_sweep,
    compute_trained,
    sweep_of,
    trained_settings,
)
from airtune.methods.airllm.cells.unseen import another_adapter, compute_curve, compute_unseen
from airtune.records.cells import Kind

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("adapter", 4, (), adapter_settings, compute_adapter),
        Kind("policy", 2, ("adapter",), policy_settings, compute_policy),
        Kind("rows", 1, ("policy", "adapter"), policy_settings, compute_rows),
        Kind("specialised", 1, ("policy", "adapter"), specialised_settings, compute_specialised),
        Kind("rivals", 2, ("adapter",), rival_settings, compute_rivals),
        Kind("uniform", 1, ("adapter",), rival_settings, compute_uniform),
        Kind("search", 4, ("adapter",), rival_settings, compute_search),
        Kind("curve", 1, ("policy", "adapter"), policy_settings, compute_curve),
        Kind("unseen", 2, ("adapter",), policy_settings, compute_unseen, also=another_adapter),
        Kind("regret", 1, ("rows", "rivals", "search"), policy_settings, compute_regret),
        Kind("timing", 1, ("policy", "adapter"), timing_settings, compute_timing, alone=True),
        Kind("times", 1, (), times_settings, compute_times, alone=True),
        *(Kind(f"{name}-sweep", 4, (), trained_settings, partial(compute_sweep, name=name)) for name in BASELINES),
        *(
            Kind(name, 1, (), trained_settings, partial(compute_trained, name=name), also=partial(sweep_of, name=name))
            for name in BASELINES
        ),
        Kind("whole", 2, (), whole_settings, compute_whole, also=first_whole),
        Kind("bits", 18, (), bits_settings, compute_bits, also=trainings),
        Kind("baselines", 5, (), baseline_settings, compute_baselines, also=ladders),
    )
}
