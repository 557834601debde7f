"""The `leaks` cell: what the server reads off what it got under the settings' defences, beside the accuracy they leave.

Attacks are those of a run (`pae_mobillm.leaks`), on what the reading's cell has read of samples of the seed's own draw,
against the network of its `side`.

| measure           | the attack                                                                                      |
|-------------------|-------------------------------------------------------------------------------------------------|
| `label_argmax`    | labels read off as the largest entry of what was sent as a difference                           |
| `label_solved`    | labels by least squares against the backbone's predictions; where the last layer was sent       |
| `label_named`     | labels through what it trained, by texts of the task that it has with labels                    |
| `purity`          | share of samples in clusters of their own label                                                 |
| `nearest_first`, `_last` | the nearest single token stands in the text: first and last layer that was sent          |
| `words_first`, `_last`   | a linear reader of words, mean average precision: the same layers                        |
| `membership`      | area under the curve of telling trained samples from others                                     |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from airtune.methods.pae_mobillm.cells.reading import config_of, items_of, open_reading
from airtune.methods.pae_mobillm.cells.sending import Sending
from airtune.methods.pae_mobillm.cells.side import open_side, side_settings
from airtune.methods.pae_mobillm.cells.ways import known
from airtune.methods.pae_mobillm.config import config_from
from airtune.methods.pae_mobillm.leaks import Part, leaks
from airtune.methods.pae_mobillm.privacy.leak import Leak
from airtune.records.cells import Done, Outcome, Value
from airtune.workloads.opening import open_reader

ONCE = {
    "label: largest difference": "label_argmax",
    "label: rotation solved": "label_solved",
    "label: named by labelled texts": "label_named",
    "groups: purity": "purity",
    "membership: area": "membership",
}
BY_LAYER = {"token: nearest is in the text": "nearest", "words: mean average precision": "words"}
Settings = Mapping[str, Any]


def leaks_settings(settings: Settings) -> Settings:
    """What was sent, and how."""
    return side_settings(settings)


def compute_leaks(settings: Settings, work: Path, needs: Mapping[str, Done]) -> Outcome:
    """Values of `found` and, for an attacker who has seen nothing, of `chance`; `score` is the side cell's."""
    config, shared = config_from(settings), config_of(settings)
    reader = open_reader(shared)
    read = open_reading(needs["reading"])
    sending = Sending.chosen(config, read["train"], lambda: reader.base)
    network = open_side(needs["side"], config, sending)
    train, test, public = (
        Part(items_of(shared, reader, part), sending.reads(read[part])) for part in ("train", "test", "dev")
    )
    found = leaks(config, reader.base, sending.identity, sending.secrecy, network, train, test, public)
    values = []
    for measure, leak in named(found):
        values += [Value(measure, leak.value, of="found"), Value(measure, leak.chance, of="chance")]
    score = Value("score", known(needs["side"], "score", "pae"), of="found")
    return Outcome((score, *values), items={score.item_name: needs["side"].items["score/pae/"]})


def named(found: Sequence[Leak]) -> Iterator[tuple[str, Leak]]:
    """Those leaks that tables show, by the measures they are shown under."""
    for leak in found:
        if leak.measure in ONCE:
            yield ONCE[leak.measure], leak
    for measure, name in BY_LAYER.items():
        by_layer = [leak for leak in found if leak.measure == measure]  # first to last
        if by_layer:
            yield f"{name}_first", by_layer[0]
            yield f"{name}_last", by_layer[-1]
