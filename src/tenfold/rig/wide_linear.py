"""Linear layers that compute in the dtype of their own weights, under autocast too."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel


class WideLinear(torch.nn.Linear):
    """A linear layer that autocast does not narrow: its input is widened to its weight instead."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out], in the weight's dtype."""
        with torch.autocast(input.device.type, enabled=False):
            return F.linear(input.to(self.weight.dtype), self.weight, self.bias)


def widen_linears(model: PreTrainedModel, names: tuple[str, ...]) -> None:
    """Put a WideLinear around the weights of every linear layer in the modules `names`; the weights stay the same.

    For the heads of classifiers on CPUs. They see rows, not tokens, and so another number in each micro-batch, and for
    each number oneDNN would compile bfloat16 kernels that cost more memory than the head: five of about 1 MB each.
    """
    inside = tuple(f"{name}." for name in names)
    for name, module in list(model.named_modules()):
        if type(module) is torch.nn.Linear and (name in names or name.startswith(inside)):
            with torch.device("meta"):
                wide = WideLinear(module.in_features, module.out_features, "bias" in dict(module.named_parameters()))
            wide.weight, wide.bias = module.weight, module.bias
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, wide.train(module.training))
