"""The sizes of a model that memory, FLOPs and adapters follow from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tenfold.errors import InputError
from tenfold.shape.families import Family, Kind, LinearShape, block_linears, family_of, norm_parameters

NAMES: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("hidden_size", "n_embd", "dim", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "intermediate_size": ("intermediate_size", "n_inner", "hidden_dim", "ffn_dim"),
    "vocab_size": ("vocab_size",),
    "max_positions": ("max_position_embeddings", "n_positions", "max_seq_len"),
}
"""What the same number is called in different families' config.json."""

ACTIVATION = ("hidden_activation", "hidden_act", "activation_function", "activation")
ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
HIDDEN_DROPOUT = ("hidden_dropout_prob", "resid_pdrop", "dropout", "mlp_dropout")
LOGIT_SCALES = ("final_logit_softcapping", "logit_scale", "logits_scaling")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True)
class Stored:
    """What the headers of a model's weight files say."""

    parameters: int
    bytes: int
    dtype: str
    """The commonest."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a model that memory, FLOPs and adapters follow from."""

    name: str
    folder: Path | None
    """Where its files are; None if only the configuration is known."""
    model_type: str
    kind: Kind
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_positions: int
    """The longest row that the model takes."""
    gated_mlp: bool
    tied_embeddings: bool
    norm: Literal["rms", "layer"]
    post_norm: bool
    """Norms follow the residual sums (BERT); there is no final norm."""
    post_norms: bool
    """Norms precede and follow attention and feed-forward (Gemma): four a block."""
    qk_norm: bool
    own_head_dim: bool
    """config.json may name a `head_dim` apart from hidden_size / num_attention_heads."""
    pooler: bool
    rotary: bool
    capped_logits: bool
    """The model scales or caps its logits after the head."""
    capped_attention: bool
    """The model caps its attention scores, which the fused kernels cannot do."""
    activation: str
    attention_dropout: float
    hidden_dropout: float
    block_linears: tuple[LinearShape, ...]
    parameters: int
    """All weights without a task head, with a decoder's head: by the headers of the weight files, else by formula."""
    embedding_parameters: int
    weights_bytes_on_disk: int | None
    dtype_on_disk: str

    @property
    def block_parameters(self) -> int:
        """Weights of all blocks' linear layers: what the bulk of the FLOPs goes through."""
        return self.layers * sum(linear.in_features * linear.out_features for linear in self.block_linears)

    @property
    def parameters_per_block(self) -> int:
        """Weights of one block; the biases of its norms, if it has any, are left out."""
        norms = (4 if self.post_norms else 2) * self.hidden_size + (2 * self.head_dim if self.qk_norm else 0)
        return sum(linear.parameters for linear in self.block_linears) + norms

    @property
    def head_parameters(self) -> int:
        """Weights of the language-model head: vocabulary x hidden size."""
        return self.vocab_size * self.hidden_size

    @property
    def tables(self) -> int:
        """Tables with a row per token: embeddings, and the head where it has its own."""
        return 1 if self.tied_embeddings or self.kind == "encoder" else 2

    @property
    def pooler_parameters(self) -> int:
        """Weights of BERT's pooler: a layer from the hidden size to itself."""
        return self.hidden_size * (self.hidden_size + 1) if self.pooler else 0

    def with_rows(self, rows: int) -> Shape:
        """This shape with a vocabulary of `rows`."""
        more = (rows - self.vocab_size) * self.hidden_size
        return replace(
            self,
            vocab_size=rows,
            parameters=self.parameters + self.tables * more,
            embedding_parameters=self.embedding_parameters + more,
        )

    def with_blocks(self, layers: int, intermediate_size: int) -> Shape:
        """This shape with so many blocks, and feed-forward parts so wide. Raises InputError on more than there are."""
        if intermediate_size > self.intermediate_size:
            raise InputError(
                f"cuts.warm_start.intermediate_size: found {intermediate_size}, but the model has"
                f" {self.intermediate_size}; write fewer"
            )
        outputs = {"gate": intermediate_size, "up": intermediate_size, "gate_up": 2 * intermediate_size}
        inputs = {"down": intermediate_size}
        linears = tuple(
            replace(
                linear,
                in_features=inputs.get(linear.name, linear.in_features),
                out_features=outputs.get(linear.name, linear.out_features),
            )
            for linear in self.block_linears
        )
        changed = replace(self, layers=layers, intermediate_size=intermediate_size, block_linears=linears)
        more = layers * changed.parameters_per_block - self.layers * self.parameters_per_block
        return replace(changed, parameters=self.parameters + more)

    def with_width(self, hidden_size: int, heads: int) -> Shape:
        """This shape with so many channels and attention heads, of the same head_dim; 0 leaves either.

        Raises InputError on more than there are, and on numbers that no such model can have.
        """
        hidden, heads = hidden_size or self.hidden_size, heads or self.heads
        key, most = "cuts.warm_start.{}: found {:,}, but ", "the model has {:,}; write fewer"
        if hidden > self.hidden_size:
            raise InputError(key.format("hidden_size", hidden) + most.format(self.hidden_size))
        if heads > self.heads:
            raise InputError(key.format("num_attention_heads", heads) + most.format(self.heads))
        if heads % (group := self.heads // self.kv_heads):
            raise InputError(
                f"{key.format('num_attention_heads', heads)}heads share keys and values in groups of {group}; write a"
                f" multiple of {group}"
            )
        if (hidden, heads) == (self.hidden_size, self.heads):
            return self
        if not self.own_head_dim and hidden != heads * self.head_dim:
            raise InputError(
                f"{key.format('hidden_size', hidden)}a {self.model_type} divides its hidden size among its heads; for"
                f" {heads} heads write hidden_size {heads * self.head_dim} and num_attention_heads {heads}"
            )
        kv_heads = heads // group
        query, key_width = heads * self.head_dim, kv_heads * self.head_dim
        outputs = {
            "q": query,
            "k": key_width,
            "v": key_width,
            "qkv": query + 2 * key_width,
            "o": hidden,
            "down": hidden,
        }
        linears = tuple(
            replace(
                linear,
                in_features={"o": query, "down": linear.in_features}.get(linear.name, hidden),
                out_features=outputs.get(linear.name, linear.out_features),
            )
            for linear in self.block_linears
        )
        narrow = replace(self, hidden_size=hidden, heads=heads, kv_heads=kv_heads, block_linears=linears)
        outside = self.parameters - self.layers * self.parameters_per_block - self.pooler_parameters
        outside = outside * hidden // self.hidden_size  # tables and norms
        return replace(
            narrow,
            embedding_parameters=self.embedding_parameters * hidden // self.hidden_size,
            parameters=outside + narrow.pooler_parameters + narrow.layers * narrow.parameters_per_block,
        )


def shape_from_config(
    name: str, config: Mapping[str, Any], folder: Path | None = None, stored: Stored | None = None
) -> Shape:
    """The shape that a config.json describes; `stored` is what the headers of its weights say.

    Raises InputError naming the size that is missing, or a mixture of experts, which these formulas do not describe.
    """
    nested = config.get("text_config")
    config = {**config, **nested} if isinstance(nested, dict) else config
    if experts := next((key for key in EXPERTS if (_count(config.get(key)) or 0) > 1), None):
        raise InputError(f"model: {name!r}: a mixture of experts ({experts}: {config[experts]}); choose a dense model")
    model_type = str(config.get("model_type", ""))
    family = family_of(model_type, config.get("architectures"))
    family = replace(family, **_overrules(config))
    sizes = {key: _size(name, config, key) for key in NAMES}
    hidden, heads, layers = sizes["hidden_size"], sizes["heads"], sizes["layers"]
    kv_heads = _count(config.get("num_key_value_heads")) or heads
    head_dim = _count(config.get("head_dim")) or hidden // heads
    if head_dim == 0:
        raise InputError(f"model: {name!r}: its config.json has {heads} heads on a hidden size of {hidden}; mend one")
    linears = block_linears(family, hidden, sizes["intermediate_size"], heads * head_dim, kv_heads * head_dim)
    embeddings = _embedding_rows(config, family, sizes)
    tied = bool(config.get("tie_word_embeddings", family.tied))
    head = 0 if tied or family.kind == "encoder" else sizes["vocab_size"] * hidden
    computed = (
        layers * sum(linear.parameters for linear in linears)
        + norm_parameters(family, hidden, layers, head_dim)
        + embeddings * hidden
        + head
        + (hidden * (hidden + 1) if family.pooler else 0)
    )
    sizes["max_positions"] -= family.position_offset
    return Shape(
        name=name,
        folder=folder,
        model_type=model_type,
        kind=family.kind,
        kv_heads=kv_heads,
        head_dim=head_dim,
        gated_mlp=family.gated_mlp,
        tied_embeddings=tied,
        norm=family.norm,
        post_norm=family.post_norm,
        post_norms=family.post_norms,
        qk_norm=family.qk_norm,
        own_head_dim=family.own_head_dim,
        pooler=family.pooler,
        rotary=family.rotary,
        capped_logits=any(config.get(key) not in (None, 1, 1.0) for key in LOGIT_SCALES),
        capped_attention=config.get("attn_logit_softcapping") is not None,
        activation=_word(config, ACTIVATION, family.activation),
        attention_dropout=_rate(config, ATTENTION_DROPOUT, family.dropout),
        hidden_dropout=_rate(config, HIDDEN_DROPOUT, family.dropout),
        block_linears=linears,
        parameters=computed if stored is None else stored.parameters,
        embedding_parameters=embeddings * hidden,
        weights_bytes_on_disk=None if stored is None else stored.bytes,
        dtype_on_disk=_word(config, ("dtype", "torch_dtype"), "float32") if stored is None else stored.dtype,
        **sizes,
    )


def _embedding_rows(config: Mapping[str, Any], family: Family, sizes: Mapping[str, int]) -> int:
    """Of tokens, and where they are learned of positions and of token types."""
    rows = sizes["vocab_size"] + (sizes["max_positions"] if family.learned_positions else 0)
    return rows + ((_count(config.get("type_vocab_size")) or 2) if family.token_types else 0)


def _overrules(config: Mapping[str, Any]) -> dict[str, bool]:
    """Biases that a config.json switches by name."""
    found: dict[str, bool] = {}
    if isinstance(value := config.get("attention_bias"), bool):
        found |= {"qkv_bias": value, "output_bias": value}
    for key in ("mlp_bias", "norm_bias"):
        if isinstance(value := config.get(key), bool):
            found[key] = value
    return found


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _size(name: str, config: Mapping[str, Any], key: str) -> int:
    names = NAMES[key]
    found = next((size for candidate in names if (size := _count(config.get(candidate))) is not None), None)
    if found is None and key == "intermediate_size" and config.get("model_type") == "gpt2":
        found = 4 * _size(name, config, "hidden_size")
    if found is None:
        raise InputError(f"model: {name!r}: its config.json has no {names[0]}; tenfold cannot plan a model without it")
    return found


def _word(config: Mapping[str, Any], names: tuple[str, ...], default: str) -> str:
    return next((str(config[name]) for name in names if config.get(name) is not None), default)


def _rate(config: Mapping[str, Any], names: tuple[str, ...], default: float) -> float:
    return next((float(config[name]) for name in names if isinstance(config.get(name), int | float)), default)
