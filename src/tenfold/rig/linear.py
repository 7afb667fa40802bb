"""The lora cut for real: linear layers with a frozen weight and a low-rank adapter."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from tenfold.cuts.lora import LoRA
from tenfold.errors import InputError, NoEffect
from tenfold.rig.adapter_product import adapter_product
from tenfold.rig.precision import cast_weights
from tenfold.rig.product_group import ProductGroup
from tenfold.rig.rig import Rig
from tenfold.rig.rows import RowHead, row_modules
from tenfold.rig.stored_linear import StoredLinear, stored_weights
from tenfold.rig.wide_linear import widen_linears


class AdaptedLinear(torch.nn.Module):
    """y = base(x) + scale * B A dropout(x); `base` is frozen, A [rank, in] and B [out, rank] learn.

    A starts as Kaiming-uniform noise and B as zero (arXiv 2106.09685, section 4.1): the first output is the base's.
    """

    def __init__(self, base: torch.nn.Linear | Conv1D | StoredLinear, cut: LoRA) -> None:
        super().__init__()
        inputs, outputs = features(base)
        self.base = base
        self.scale = cut.scale
        self.dropout = torch.nn.Dropout(cut.dropout)
        self.lora_A = torch.nn.Parameter(torch.empty(cut.rank, inputs, device=base.weight.device))
        self.lora_B = torch.nn.Parameter(torch.zeros(outputs, cut.rank, device=base.weight.device))
        torch.nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.group: ProductGroup | None = None
        """Computes this layer's product, once fuse has merged it with those of the layers that read the same input."""

    @property
    def weight(self) -> torch.Tensor:
        """The frozen weight, for code that looks at a linear layer's dtype or shape."""
        return self.base.weight

    @property
    def bias(self) -> torch.Tensor | None:
        """The frozen bias."""
        return self.base.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out]."""
        if self.group is not None:
            return self.group(self, x)
        if not isinstance(self.base, StoredLinear) and (self.dropout.p == 0.0 or not self.training):
            x = x.to(self.weight.dtype)  # a norm may hand float32 to a layer that is frozen in bfloat16
            weight = self.weight.T if isinstance(self.base, Conv1D) else self.weight
            return adapter_product(x, weight, self.bias, self.lora_A, self.lora_B, self.scale)
        y = self.base(x)
        thin = F.linear(self.dropout(x).flatten(0, -2), self.lora_A.to(x.dtype))
        sum_ = torch.addmm(y.flatten(0, -2), thin, self.lora_B.to(x.dtype).T, alpha=self.scale)
        return sum_.view(y.shape)

    def delta(self) -> torch.Tensor:
        """scale * B A in the layout of the base's weight, float32."""
        product = (self.lora_B.float() @ self.lora_A.float()).mul_(self.scale)
        return product.T if isinstance(self.base, Conv1D) else product


def features(linear: torch.nn.Linear | Conv1D | StoredLinear) -> tuple[int, int]:
    """Input and output width; GPT-2's Conv1D keeps its weight transposed."""
    if isinstance(linear, StoredLinear):
        return linear.in_features, linear.out_features
    rows, columns = linear.weight.shape
    return (rows, columns) if isinstance(linear, Conv1D) else (columns, rows)


def target_linears(model: PreTrainedModel, cut: LoRA, new_modules: tuple[str, ...]) -> list[str]:
    """Names of the layers that `cut` adapts: never the output head, nor what trains in full anyway."""
    head = model.get_output_embeddings()
    plain_head = head.base if isinstance(head, RowHead) else head
    linears = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D | StoredLinear)
        and module is not plain_head
        and not _inside(name, new_modules)
    ]
    if isinstance(cut.targets, str):
        return linears
    if missing := [target for target in cut.targets if not any(_ends(name, target) for name in linears)]:
        known = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linears}))
        raise InputError(f"cuts.lora.targets: no linear layer is called {missing[0]!r}; this model has {known}")
    return [name for name in linears if any(_ends(name, target) for target in cut.targets)]


def adapt_linears(rig: Rig, cut: LoRA) -> Rig:
    """The rig with adapters on the target layers and all else frozen but `new_modules` and single rows of embeddings.

    Raises NoEffect if the model has no linear layer, InputError on an unknown target.
    """
    model = rig.model
    names = target_linears(model, cut, rig.new_modules)
    if not names:
        raise NoEffect(f"lora: {type(model).__name__} has no linear layer to adapt")
    model.requires_grad_(False)
    rows = {module: module.rows.data.float() for module in row_modules(model).values()}
    if rig.dtype != torch.float32:
        cast_weights(model, rig.dtype)
    for name in names:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, AdaptedLinear(model.get_submodule(name), cut))  # type: ignore[arg-type]
    for name in rig.new_modules:
        model.get_submodule(name).requires_grad_(True).float()
    for module, values in rows.items():
        module.rows.requires_grad_(True)
        module.rows.data = values
    if rig.device.type == "cpu" and rig.dtype != torch.float32:
        heads = [n for n in rig.new_modules if not isinstance(model.get_submodule(n), GradientCheckpointingLayer)]
        widen_linears(model, tuple(heads))
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    total = sum(weight.numel() for weight in model.parameters()) + stored_weights(model)
    fact = f"lora: {len(names)} linear layers, rank {cut.rank}, {trained:,} of {total:,} parameters learn"
    return replace(rig, adapter=cut, facts=(*rig.facts, fact))


def _inside(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
