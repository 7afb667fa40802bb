"""Models on paper that several tests plan for."""

from __future__ import annotations

from tenfold.shape import Shape, shape_from_config
from tiny import FAMILIES

LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "dtype": "bfloat16",
}
"""What matters here of the configuration of Llama-3.1-8B, which has 8,030,261,248 weights."""


def make_shape(family: str) -> Shape:
    """A tiny model of `family` on paper."""
    return shape_from_config(family, FAMILIES[family].to_dict())
