"""What PAE MobiLLM's studies are made of: kinds of cells, from settings and the cells below to numbers.

| kind      | reads   | computes                                                                       |
|-----------|---------|--------------------------------------------------------------------------------|
| `reading` | -       | hidden states at the pivots, logits and classes of every part; for all seeds   |
| `side`    | reading | accuracy and bytes of side networks by differences and by labels, and a probe  |
"""

from __future__ import annotations

from collections.abc import Mapping

from airtune.methods.pae_mobillm.cells.reading import compute_reading, reading_settings
from airtune.methods.pae_mobillm.cells.side import compute_side, side_settings
from airtune.records.cells import Kind

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("reading", 1, (), reading_settings, compute_reading),
        Kind("side", 1, ("reading",), side_settings, compute_side),
    )
}
