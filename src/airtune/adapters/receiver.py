"""What a receiver knows by having the base model: whom payloads are for, their names and shapes, and bases of cores.

Knows base models and bases; not what payloads hold. Needs torch only to load a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airtune.adapters.derived import Bases, core_name
from airtune.codec import Binding, Contents, held_static
from airtune.codec.contents import Meta
from airtune.errors import DataError

if TYPE_CHECKING:
    from airtune.models import BaseModel

CLASSES: Mapping[str, int] = {"text": 0, "any": 0, "classify": 2}
"""Of the head to open a base model with, by what an adapter is for, as many as any; 0 for none."""


@dataclass(frozen=True, slots=True, eq=False)
class Receiver:
    """Someone with a base model.

    Args:
        bases: By site path, for cores between them instead of whole updates; none where whole ones are sent.
    """

    base: BaseModel
    bases: Mapping[str, Bases] = field(default_factory=dict)

    @classmethod
    def of(cls, model: str, kind: str, core_size: int = 0) -> Receiver:
        """Open a base model, by folder or hub name, for a kind of adapter; with bases of so many singular vectors.

        Raises:
            DataError: another kind than a causal language model or a classifier. ModelError: as `load_base`.
        """
        from airtune.adapters.core_adapter import bases_of
        from airtune.models import load_base

        labels = classes_of(kind)
        base = load_base(model, "classify" if labels else "text", labels=labels)
        return cls(base, bases_of(base, core_size) if core_size else {})

    def static_parts(self) -> dict[bytes, bytes]:
        """Those that it need not be sent, by their names: all sites, and the head."""
        shapes = {site.path: (site.fan_out, site.fan_in) for site in self.base.sites}
        if self.bases:
            sizes = {path: self.bases[path].size for path in shapes}
            shapes = {core_name(path, self.bases[path]): (size, size) for path, size in sizes.items()}
        head = {name: tuple(self.base.model.get_parameter(name).shape) for name in self.base.head}
        return held_static(Contents.of(shapes, head, *about(self.base)))


def about(base: BaseModel) -> tuple[Binding, Meta]:
    """Whom payloads are for, and what their notes say."""
    notes: Meta = {"base_model": base.name, "kind": base.kind, "fan_in_fan_out": int(base.fan_in_fan_out)}
    return Binding(base.sha256, base.tokenizer_sha256), notes


def classes_of(kind: str) -> int:
    """One of `CLASSES`. Raises `DataError` for another kind."""
    if kind not in CLASSES:
        opened = f"only causal language models and classifiers are opened, and the adapter is for {kind}"
        raise DataError(f"{opened}; leave the model out")
    return CLASSES[kind]
