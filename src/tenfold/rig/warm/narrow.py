"""A narrower model: the feed-forward neurons, attention heads and channels of a larger one that weigh most.

Neurons and heads are chosen block by block; a channel of the stream is the same one in every block. What is chosen is
found from weights alone (arXiv 2312.09299 and 2407.14679 do the same by the states of texts), and whatever is left out
was as good as 0 if it weighed nothing: then the narrow model computes what the wide one did.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from tenfold.cuts.warm_start import WarmStart
from tenfold.rig.precision import cast_weights
from tenfold.shape import Shape, shape_from_config
from tenfold.shape.families import Family
from tenfold.shape.shape import NAMES

EPSILONS = frozenset(("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps"))
"""What families call the number that norms add to a mean over all channels."""


def narrowed(model: PreTrainedModel, cut: WarmStart, path: str, family: Family) -> PreTrainedModel:
    """A model like `model`, whose blocks stand at `path`, in the width of `cut`.

    Raises InputError on a width that the model cannot have.
    """
    wide = shape_from_config(type(model).__name__, model.config.to_dict())
    narrow = wide.with_blocks(wide.layers, cut.intermediate_size or wide.intermediate_size)
    narrow = narrow.with_width(cut.hidden_size, cut.num_attention_heads)
    weights = dict(model.state_dict())
    blocks = [Block(weights, f"{path}.{place}.", family, wide) for place in range(wide.layers)]
    channels = _strongest(_channel_weight(model, blocks), narrow.hidden_size)
    for block in blocks:
        block.keep_neurons(_strongest(block.neuron_weight(), narrow.intermediate_size))
        block.keep_heads(_strongest(block.group_weight(), narrow.kv_heads))
    changed = _built(model, wide, narrow)
    for name, wanted in changed.state_dict().items():
        for dimension, (now, then) in enumerate(zip(weights[name].shape, wanted.shape, strict=True)):
            if now != then:
                weights[name] = weights[name].index_select(dimension, channels)
    changed.load_state_dict(weights, strict=True)
    if narrow.hidden_size < wide.hidden_size:
        _rescale(changed, path, (wide.hidden_size / narrow.hidden_size) ** 0.5)
    return changed


@dataclass
class Block:
    """The linear layers of one block among the `weights` of a model, which it changes."""

    weights: dict[str, torch.Tensor]
    start: str
    family: Family
    shape: Shape

    def matrix(self, role: str) -> torch.Tensor | None:
        """[out, in] float32; None where the block has no such layer."""
        weight = self.weights.get(f"{self.start}{self.family.modules.get(role)}.weight")
        if weight is None:
            return None
        return (weight.T if self._transposed else weight).float()

    @property
    def _transposed(self) -> bool:
        return self.family.modules["down"] == "mlp.c_proj"  # GPT-2's Conv1D keeps weights the other way round

    def _keep(self, role: str, outputs: torch.Tensor | None = None, inputs: torch.Tensor | None = None) -> None:
        for part in ("weight", "bias"):
            name = f"{self.start}{self.family.modules.get(role)}.{part}"
            if (tensor := self.weights.get(name)) is None:
                continue
            if outputs is not None:
                tensor = tensor.index_select(1 if self._transposed and part == "weight" else 0, outputs)
            if inputs is not None and part == "weight":
                tensor = tensor.index_select(0 if self._transposed else 1, inputs)
            self.weights[name] = tensor

    def neuron_weight(self) -> torch.Tensor:
        """[neurons]: the norm of what leads in times the norm of what leads out, which says how much a neuron can
        move the stream."""
        down = self.matrix("down")
        assert down is not None
        weight = down.norm(dim=0)
        for role in ("gate", "up", "gate_up"):
            if (matrix := self.matrix(role)) is not None:
                weight = weight * matrix.norm(dim=1).view(-1, len(weight)).prod(0)
        return weight

    def group_weight(self) -> torch.Tensor:
        """[groups of heads that share keys and values]: the Frobenius norm of what its heads do to the stream, values
        times output (the "OV circuit" of Elhage et al., 2021)."""
        shape, values, output = self.shape, self.matrix("v"), self.matrix("o")
        assert output is not None
        if values is None:
            fused = self.matrix("qkv")
            assert fused is not None
            values = fused[(shape.heads + shape.kv_heads) * shape.head_dim :]
        values = values.unflatten(0, (shape.kv_heads, 1, shape.head_dim))
        output = output.T.unflatten(0, (shape.kv_heads, -1, shape.head_dim))
        squares = (output @ output.mT) * (values @ values.mT)  # |O V|² = tr(OᵀO VVᵀ), without the product
        return squares.sum((1, 2, 3)).clamp_min(0).sqrt()

    def keep_neurons(self, kept: torch.Tensor) -> None:
        """Leave out all neurons but those of `kept`."""
        for role in ("gate", "up"):
            self._keep(role, outputs=kept)
        self._keep("gate_up", outputs=torch.cat([kept, kept + self.shape.intermediate_size]))
        self._keep("down", inputs=kept)

    def keep_heads(self, groups: torch.Tensor) -> None:
        """Leave out all groups of heads but those of `groups`."""
        shape = self.shape
        keys = _places(groups, shape.head_dim)
        queries = _places(groups, shape.heads // shape.kv_heads * shape.head_dim)
        self._keep("q", outputs=queries)
        for role in ("k", "v"):
            self._keep(role, outputs=keys)
        first, second = shape.heads * shape.head_dim, (shape.heads + shape.kv_heads) * shape.head_dim
        self._keep("qkv", outputs=torch.cat([queries, first + keys, second + keys]))
        self._keep("o", inputs=queries)


def _strongest(weight: torch.Tensor, count: int) -> torch.Tensor:
    return weight.topk(count).indices.sort().values


def _places(groups: torch.Tensor, size: int) -> torch.Tensor:
    """The places of all members of groups of `size`."""
    return (groups[:, None] * size + torch.arange(size, device=groups.device)).flatten()


def _channel_weight(model: PreTrainedModel, blocks: list[Block]) -> torch.Tensor:
    """[hidden]: squares of all that writes into a channel of the stream, each table and layer counted alike."""
    embedding: Any = model.get_input_embeddings()
    written = _share(embedding.weight.float(), 0)
    for block in blocks:
        for role in ("o", "down"):
            matrix = block.matrix(role)
            assert matrix is not None
            written = written + _share(matrix, 1)
    return written


def _share(matrix: torch.Tensor, dimension: int) -> torch.Tensor:
    squares = matrix.square().sum(dimension)
    return squares / squares.sum().clamp_min(1e-12)


def _built(model: PreTrainedModel, wide: Shape, narrow: Shape) -> PreTrainedModel:
    """A model of the same kind from the narrow configuration."""
    settings = model.config.to_dict()
    for key, size in (
        ("hidden_size", narrow.hidden_size),
        ("heads", narrow.heads),
        ("intermediate_size", narrow.intermediate_size),
    ):
        name = next((name for name in NAMES[key] if name in settings), key)
        settings[name] = size
    for name in EPSILONS & settings.keys():
        settings[name] *= wide.hidden_size / narrow.hidden_size
    if "num_key_value_heads" in settings:
        settings["num_key_value_heads"] = narrow.kv_heads
    if narrow.own_head_dim:
        settings["head_dim"] = narrow.head_dim
    changed = type(model)(type(model.config).from_dict(settings))
    cast_weights(changed, model.dtype)
    return changed


@torch.no_grad()
def _rescale(model: PreTrainedModel, path: str, factor: float) -> None:
    """Norms divide by the root of a mean over all channels, which is `factor` times as large without those that were
    as good as 0. Gemma multiplies its embeddings by the root of their width, which is `factor` times as small."""
    embedding: Any = model.get_input_embeddings()
    gemma, tied = hasattr(embedding, "embed_scale"), bool(model.config.get_text_config().tie_word_embeddings)
    for name, module in model.named_modules():
        if not type(module).__name__.endswith("Norm") or name.endswith(("q_norm", "k_norm")):
            continue
        weight: Any = module.weight
        if not gemma:
            weight.mul_(factor)
        elif not tied or name.startswith(f"{path}."):  # the last one's rows are those of the embeddings
            weight.add_(1).mul_(factor).sub_(1)  # it multiplies by 1 more than its weight
    if gemma:
        embedding.weight.mul_(factor)
