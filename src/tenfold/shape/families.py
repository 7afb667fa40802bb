"""What distinguishes the families of models, and how many weights that makes. Source: transformers' modeling files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Kind = Literal["decoder", "encoder"]


@dataclass(frozen=True)
class Family:
    """A way to build a transformer. The defaults are Llama's; a config.json may overrule what it names."""

    kind: Kind = "decoder"
    norm: Literal["rms", "layer"] = "rms"
    norm_bias: bool = False
    post_norm: bool = False
    """Norms follow the residual sums instead of preceding the layers; there is no final norm."""
    post_norms: bool = False
    """Norms also follow attention and feed-forward: four a block."""
    qk_norm: bool = False
    first_norm: bool = True
    """The first block normalises its input (ModernBERT's embeddings have done so)."""
    gated_mlp: bool = True
    own_head_dim: bool = True
    """Heads are as wide as `head_dim` says, whatever the hidden size; else they divide the hidden size."""
    fused_qkv: bool = False
    fused_gate_up: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    rotary: bool = True
    learned_positions: bool = False
    position_offset: int = 0
    """Rows of the position table that no token uses."""
    token_types: bool = False
    embedding_norm: bool = False
    pooler: bool = False
    tied: bool = False
    activation: str = "silu"
    dropout: float = 0.0
    """Default of hidden and attention dropout where config.json names none."""
    modules: Mapping[str, str] = field(default_factory=dict[str, str])
    """Paths of a block's linear layers inside the block, by `LinearShape.name`; empty where nobody knows."""


_LLAMA = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "qkv": "self_attn.qkv_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "gate_up": "mlp.gate_up_proj",
    "down": "mlp.down_proj",
}
"""Llama's, and Phi-3's fused ones."""
_GPT2 = {"qkv": "attn.c_attn", "o": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}
_DISTILBERT = {
    "q": "attention.q_lin",
    "k": "attention.k_lin",
    "v": "attention.v_lin",
    "o": "attention.out_lin",
    "up": "ffn.lin1",
    "down": "ffn.lin2",
}
_MODERNBERT = {"qkv": "attn.Wqkv", "o": "attn.Wo", "gate_up": "mlp.Wi", "down": "mlp.Wo"}

_BERT = Family(
    kind="encoder",
    norm="layer",
    norm_bias=True,
    post_norm=True,
    own_head_dim=False,
    gated_mlp=False,
    qkv_bias=True,
    output_bias=True,
    mlp_bias=True,
    rotary=False,
    learned_positions=True,
    token_types=True,
    embedding_norm=True,
    pooler=True,
    tied=True,
    activation="gelu",
    dropout=0.1,
    modules={
        "q": "attention.self.query",
        "k": "attention.self.key",
        "v": "attention.self.value",
        "o": "attention.output.dense",
        "up": "intermediate.dense",
        "down": "output.dense",
    },
)
_ROBERTA = replace(_BERT, pooler=False, position_offset=2)
_GEMMA = Family(tied=True, activation="gelu_pytorch_tanh", modules=_LLAMA)

FAMILIES: Mapping[str, Family] = {
    "llama": Family(modules=_LLAMA),
    "mistral": Family(modules=_LLAMA),
    "qwen2": Family(qkv_bias=True, modules=_LLAMA),
    "qwen3": Family(qk_norm=True, modules=_LLAMA),
    "gemma": _GEMMA,
    "gemma2": replace(_GEMMA, post_norms=True),
    "gemma3_text": replace(_GEMMA, post_norms=True, qk_norm=True),
    "phi3": Family(fused_qkv=True, fused_gate_up=True, modules=_LLAMA),
    "gpt2": Family(
        norm="layer",
        norm_bias=True,
        own_head_dim=False,
        gated_mlp=False,
        fused_qkv=True,
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        rotary=False,
        learned_positions=True,
        tied=True,
        activation="gelu_new",
        dropout=0.1,
        modules=_GPT2,
    ),
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": replace(_BERT, token_types=False, pooler=False, modules=_DISTILBERT),
    "modernbert": Family(
        kind="encoder",
        norm="layer",
        first_norm=False,
        own_head_dim=False,
        fused_qkv=True,
        fused_gate_up=True,
        embedding_norm=True,
        tied=True,
        activation="gelu",
        modules=_MODERNBERT,
    ),
}
"""By `model_type`. Any other decoder with the usual keys is taken for a Llama, any other encoder for a BERT; what their
modules are called is then not known."""


def family_of(model_type: str, architectures: object) -> Family:
    """The family of a `model_type`, else by what the class in config.json says it predicts."""
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    named = str(architectures)
    return replace(_BERT, modules={}) if "MaskedLM" in named or "bert" in model_type else Family()


@dataclass(frozen=True)
class LinearShape:
    """A linear layer of one block. `name` is q, k, v, qkv, o, gate, up, gate_up or down in every family."""

    name: str
    in_features: int
    out_features: int
    bias: bool = False
    module: str = ""
    """Its path inside the block, such as self_attn.q_proj; empty where the family is not known."""

    @property
    def parameters(self) -> int:
        """Weights and bias."""
        return self.in_features * self.out_features + (self.out_features if self.bias else 0)


def block_linears(family: Family, hidden: int, ffn: int, query: int, key: int) -> tuple[LinearShape, ...]:
    """The linear layers of one block: hidden size, feed-forward width, and the widths of queries and of keys."""
    if family.fused_qkv:
        attention = [LinearShape("qkv", hidden, query + 2 * key, family.qkv_bias)]
    else:
        widths = {"q": query, "k": key, "v": key}
        attention = [LinearShape(name, hidden, width, family.qkv_bias) for name, width in widths.items()]
    attention.append(LinearShape("o", query, hidden, family.output_bias))
    if family.fused_gate_up:
        mlp = [LinearShape("gate_up", hidden, 2 * ffn, family.mlp_bias)]
    else:
        names = ("gate", "up") if family.gated_mlp else ("up",)
        mlp = [LinearShape(name, hidden, ffn, family.mlp_bias) for name in names]
    linears = (*attention, *mlp, LinearShape("down", ffn, hidden, family.mlp_bias))
    return tuple(replace(linear, module=family.modules.get(linear.name, "")) for linear in linears)


def norm_parameters(family: Family, hidden: int, layers: int, head_dim: int) -> int:
    """Weights of all norms."""
    per_norm = hidden * (2 if family.norm_bias else 1)
    count = layers * (4 if family.post_norms else 2)
    count += (0 if family.first_norm else -1) + (0 if family.post_norm else 1) + (1 if family.embedding_norm else 0)
    return count * per_norm + (2 * layers * head_dim if family.qk_norm else 0)
