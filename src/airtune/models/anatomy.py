"""Where the low-rank updates of each architecture go: its adapter sites, layer by layer (Eq. 1).

Knows the layout of each family of Hugging Face models; does not know ranks or adapters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from airtune.errors import ModelError


@dataclass(frozen=True, slots=True)
class Site:
    """One projection that takes a low-rank update: module `module` of layer `layer`."""

    layer: int
    """Index of the transformer block, from 0."""
    module: str
    """Kind of projection within the block, e.g. `query` or `fc1`; the same word in every layer."""
    path: str
    """Dotted path of the projection inside the model."""
    fan_in: int
    fan_out: int

    @property
    def cap(self) -> int:
        """The largest rank that can change anything: min(fan_in, fan_out)."""
        return min(self.fan_in, self.fan_out)


@dataclass(frozen=True, slots=True)
class Family:
    """How one architecture names its blocks and the projections inside a block."""

    blocks: str
    """Dotted path of the list of blocks below the backbone."""
    modules: Mapping[str, str]
    """Kind of projection -> dotted path below a block."""


_BERT = Family(
    "encoder.layer",
    {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "out": "attention.output.dense",
        "fc1": "intermediate.dense",
        "fc2": "output.dense",
    },
)
_OPT = Family(
    "decoder.layers",
    {
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "out": "self_attn.out_proj",
        "fc1": "fc1",
        "fc2": "fc2",
    },
)
_GPT2 = Family("h", {"qkv": "attn.c_attn", "out": "attn.c_proj", "fc1": "mlp.c_fc", "fc2": "mlp.c_proj"})
_LLAMA = Family(
    "layers",
    {
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "out": "self_attn.o_proj",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
    },
)
FAMILIES: Mapping[str, Family] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "opt": _OPT,
    "gpt2": _GPT2,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
}
"""`config.model_type` -> layout. A new architecture is one more row."""


def find_sites(model: PreTrainedModel) -> tuple[Site, ...]:
    """List the adapter sites of a model, layer by layer, in the family's module order.

    Raises:
        ModelError: the architecture is not in `FAMILIES`, or a projection is not where its family has it.
    """
    model_type = model.config.model_type
    family = FAMILIES.get(model_type)
    if family is None:
        raise ModelError(
            f"model type is {model_type!r}, whose projections airtune does not know; "
            f"looked for one of {', '.join(sorted(FAMILIES))}; add a row to airtune.models.FAMILIES"
        )
    prefix = f"{model.base_model_prefix}." if hasattr(model, model.base_model_prefix) else ""
    blocks_path = f"{prefix}{family.blocks}"
    blocks = _submodule(model, blocks_path, model_type)
    return tuple(
        _site(model, layer, kind, f"{blocks_path}.{layer}.{below}", model_type)
        for layer in range(len(blocks))  # type: ignore[arg-type]
        for kind, below in family.modules.items()
    )


def _site(model: nn.Module, layer: int, kind: str, path: str, model_type: str) -> Site:
    projection = _submodule(model, path, model_type)
    if isinstance(projection, Conv1D):  # GPT-2 keeps its weight as (in, out)
        fan_in, fan_out = projection.weight.shape
    elif isinstance(projection, nn.Linear):
        fan_out, fan_in = projection.weight.shape
    else:
        raise ModelError(
            f"{path} is a {type(projection).__name__}; expected a Linear or Conv1D projection; "
            "load the base model unquantised and without another adapter on it"
        )
    return Site(layer, kind, path, int(fan_in), int(fan_out))


def _submodule(model: nn.Module, path: str, model_type: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise ModelError(
            f"this {model_type} model has no module {path}; its layout differs from the family's; "
            "add a row for it to airtune.models.FAMILIES"
        ) from None
