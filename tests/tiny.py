"""Tiny random instances of every supported family, and a tokenizer for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

VOCABULARY = 300
WIDE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
COMMON: dict[str, Any] = {"vocab_size": VOCABULARY, "max_position_embeddings": 64, "pad_token_id": 0}
IDS: dict[str, Any] = {"bos_token_id": 2, "eos_token_id": 3}
GROUPED = {"num_key_value_heads": 2}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

DECODERS: dict[str, transformers.PreTrainedConfig] = {
    "llama": transformers.LlamaConfig(**COMMON, **IDS, **WIDE, **GROUPED),
    "qwen2": transformers.Qwen2Config(**COMMON, **IDS, **WIDE, **GROUPED),
    "qwen3": transformers.Qwen3Config(**COMMON, **IDS, **WIDE, **GROUPED, head_dim=8, tie_word_embeddings=True),
    "mistral": transformers.MistralConfig(**COMMON, **IDS, **WIDE, **GROUPED, sliding_window=6),
    "gemma3": transformers.Gemma3TextConfig(
        **COMMON, **IDS, **WIDE, **GROUPED, head_dim=8, sliding_window=6, query_pre_attn_scalar=8,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    ),
    "phi3": transformers.Phi3Config(**COMMON, **IDS, **WIDE, **GROUPED, sliding_window=None),
    "gpt2": transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=3, n_head=4, pad_token_id=0, **IDS,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    ),
}  # fmt: skip

ENCODERS: dict[str, transformers.PreTrainedConfig] = {
    "bert": transformers.BertConfig(**COMMON, **WIDE, **NO_DROPOUT),
    "roberta": transformers.RobertaConfig(**{**COMMON, "pad_token_id": 1}, **IDS, **WIDE, **NO_DROPOUT),
    "distilbert": transformers.DistilBertConfig(
        vocab_size=VOCABULARY, max_position_embeddings=64, pad_token_id=0, dim=32, hidden_dim=64, n_layers=3, n_heads=4,
        dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0,
    ),
    "modernbert": transformers.ModernBertConfig(
        **COMMON, **IDS, **WIDE, cls_token_id=2, sep_token_id=3, local_attention=8, global_attn_every_n_layers=2,
    ),
}  # fmt: skip

FAMILIES = {**DECODERS, **ENCODERS}


def tiny_model(family: str, task: str, labels: int = 3, seed: int = 0) -> transformers.PreTrainedModel:
    """A random instance, float32, in training mode. Weights are large enough for every part to matter."""
    config = FAMILIES[family]
    kind = transformers.AutoModelForSequenceClassification if task == "classify" else transformers.AutoModelForCausalLM
    torch.manual_seed(seed)
    settings = {key: value for key, value in config.to_dict().items() if key not in ("id2label", "label2id")}
    config = type(config).from_dict({**settings, "num_labels": labels})
    model = kind.from_config(config, attn_implementation="sdpa")
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn_like(weight)
    return model


def tiny_tokenizer(bos: bool = False, pad_id: int = 0) -> Tokenizer:
    """Whole words w0, w1 ... and a few symbols; ids below VOCABULARY."""
    special = ["<pad>", "<unk>", "<s>", "</s>"] if pad_id == 0 else ["<unk>", "<pad>", "<s>", "</s>"]
    words = special + [f"w{number}" for number in range(VOCABULARY - 8)]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(special)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    return tokenizer


def byte_tokenizer() -> Tokenizer:
    """Single bytes: what transformers' Qwen2 tokenizer class can rebuild from a file."""
    special = ["<pad>", "<unk>", "<s>", "</s>"]
    alphabet = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return tokenizer


def tiny_folder(folder: Path, family: str = "llama", seed: int = 0) -> Path:
    """A plain transformers folder: pre-trained weights (no task head for encoders), config and tokenizer."""
    config = FAMILIES[family]
    task = "text" if family in DECODERS else "classify"
    model = tiny_model(family, task, seed=seed)
    (model if family in DECODERS else model.base_model).save_pretrained(folder)
    tokenizer = byte_tokenizer() if family == "qwen2" else tiny_tokenizer(pad_id=int(config.pad_token_id or 0))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "pad_token": "<pad>",
                "eos_token": "</s>",
                "bos_token": "<s>",
                "unk_token": "<unk>",
                "model_max_length": 64,
            }
        )
    )
    return folder
