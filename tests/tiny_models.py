"""Small random models of every family, and a word-level tokenizer, so that no test downloads anything."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    RobertaConfig,
)

WIDE = {"initializer_range": 0.4}
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *[
        "the",
        "cat",
        "dog",
        "sat",
        "ran",
        "on",
        "a",
        "mat",
        "log",
        "fast",
        "slow",
        "red",
        "blue",
        "and",
        "then",
        "it",
        "was",
        "not",
    ],
]
SPECIAL = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}

CONFIGS: dict[str, PretrainedConfig] = {
    "bert": BertConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        pad_token_id=0,
        **WIDE,
    ),
    "roberta": RobertaConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        **SPECIAL,
        **WIDE,
    ),
    "opt": OPTConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=32,
        word_embed_proj_dim=16,
        init_std=0.4,
        **SPECIAL,
    ),
    "gpt2": GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, **SPECIAL, **WIDE),
    "llama": LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=24,
        **SPECIAL,
        **WIDE,
    ),
    "qwen2": Qwen2Config(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=24,
        **SPECIAL,
        **WIDE,
    ),
}
SITES_PER_LAYER = {"bert": 6, "roberta": 6, "opt": 6, "gpt2": 4, "llama": 7, "qwen2": 7}


def save_tiny_model(folder: Path, family: str, *, kind: str = "text", seed: int = 0) -> Path:
    """Write a random model of a family, with a tokenizer, in Hugging Face layout."""
    torch.manual_seed(seed)
    config = CONFIGS[family]
    if kind == "text" and family in ("bert", "roberta"):
        config = type(config).from_dict(config.to_dict() | {"is_decoder": True})
    chosen = AutoModelForCausalLM if kind == "text" else AutoModelForSequenceClassification
    model = chosen.from_config(config)
    model.base_model.save_pretrained(folder) if kind == "classify" else model.save_pretrained(folder)
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        eos_token="[SEP]",
    ).save_pretrained(folder)
    return folder
