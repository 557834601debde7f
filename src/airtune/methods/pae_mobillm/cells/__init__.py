"""What PAE MobiLLM's studies are made of: kinds of cells, from settings and the cells below to numbers.

| kind      | reads                | computes                                                                          |
|-----------|----------------------|-----------------------------------------------------------------------------------|
| `reading` | -                    | hidden states at the pivots, logits and classes of every part; for all seeds      |
| `memory`  | reading              | a device's peak memory by way, in fresh processes; for all seeds                  |
| `side`    | reading, memory      | a side network by differences, under the settings' layers, bits and defences      |
| `labels`  | reading, memory      | the same network by true labels, also as MobiLLM has it                           |
| `probe`   | reading, memory      | a softmax on the last pivot; the backbone alone                                   |
| `lora`    | reading, memory      | LoRA trained on the device                                                        |
| `split`   | reading, memory, lora | split learning with LoRA on both sides                                           |
| `gap`     | reading, side, labels | accuracy by true labels less that by differences, at the number of classes       |
| `leaks`   | reading, side        | attacks on what was sent                                                          |

Reading map: `ways` is what every way is told by, `choosing` how its rate and epochs are found, `sending` what crosses.
"""

from __future__ import annotations

from collections.abc import Mapping

from airtune.methods.pae_mobillm.cells.gap import compute_gap, gap_settings
from airtune.methods.pae_mobillm.cells.labels import compute_labels, compute_probe, labels_settings, probe_settings
from airtune.methods.pae_mobillm.cells.leaks import compute_leaks, leaks_settings
from airtune.methods.pae_mobillm.cells.memory import compute_memory, memory_settings
from airtune.methods.pae_mobillm.cells.reading import compute_reading, reading_settings
from airtune.methods.pae_mobillm.cells.side import compute_side, side_settings
from airtune.methods.pae_mobillm.cells.trained import compute_lora, compute_split, trained_settings
from airtune.records.cells import Kind

_READ = ("reading", "memory")

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("reading", 2, (), reading_settings, compute_reading),
        Kind("memory", 2, ("reading",), memory_settings, compute_memory),
        Kind("side", 2, _READ, side_settings, compute_side),
        Kind("labels", 2, _READ, labels_settings, compute_labels),
        Kind("probe", 1, _READ, probe_settings, compute_probe),
        Kind("lora", 3, _READ, trained_settings, compute_lora),
        Kind("split", 3, (*_READ, "lora"), trained_settings, compute_split),
        Kind("gap", 2, ("reading", "side", "labels"), gap_settings, compute_gap),
        Kind("leaks", 2, ("reading", "side"), leaks_settings, compute_leaks),
    )
}
