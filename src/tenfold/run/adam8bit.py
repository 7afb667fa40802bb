"""AdamW with its two moments in eight bits: arXiv 2110.02861, blockwise dynamic quantization."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F

BLOCK = 256
"""Values that share a scale, their largest magnitude."""

SMALL = 4096
"""Tensors with fewer elements keep float32 moments: there is nothing to save, and norms and biases are sensitive."""

AT_ONCE = 2**22
"""Elements whose moments are float32 at the same time, a multiple of BLOCK: 16 MiB a tensor, whatever the weight."""


@dataclass(frozen=True)
class Levels:
    """256 numbers of magnitude 1 and less, in rising order, and where the nearest of them changes [255]."""

    values: torch.Tensor
    between: torch.Tensor
    signed: bool

    @classmethod
    def dynamic(cls, signed: bool, device: torch.device) -> Levels:
        """Seven decades, each evenly divided, the upper ones finer (ibid., section 1.3); then 0 and 1."""
        numbers = [0.0, 1.0]
        for decade in range(7):
            count = 2**decade if signed else 2 ** (decade + 1)
            middles = [10.0 ** (decade - 6) * (0.1 + 0.9 * (place + 0.5) / count) for place in range(count)]
            numbers += [*middles, *(-middle for middle in middles)] if signed else middles
        values = torch.tensor(sorted(numbers), device=device)
        return cls(values, (values[1:] + values[:-1]) / 2, signed)


def quantize(blocks: torch.Tensor, levels: Levels) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes uint8 [n, 256] and scales float32 [n] of float32 `blocks` [n, 256].

    By unsigned levels nothing positive becomes 0: it will stand below a fraction bar.
    """
    scales = blocks.abs().amax(dim=1)
    unit = blocks / torch.where(scales > 0, scales, 1.0)[:, None]
    codes = torch.bucketize(unit, levels.between, out_int32=True)
    if not levels.signed:
        codes = torch.where(blocks > 0, codes.clamp_min(1), codes)
    return codes.to(torch.uint8), scales


def dequantize(codes: torch.Tensor, scales: torch.Tensor, levels: Levels) -> torch.Tensor:
    """float32 [n, 256]."""
    return F.embedding(codes.int(), levels.values[:, None]).squeeze(-1) * scales[:, None]


class Adam8bit(torch.optim.Optimizer):
    """AdamW (arXiv 1711.05101) on float32 weights. The moments are float32 only while an update is computed.

    State of a weight of n elements, B = ceil(n / 256): `mean` and `square` uint8 [B, 256] with `mean_scale` and
    `square_scale` float32 [B]; of a small one `mean` and `square` float32 in its shape. `step` float32 [].
    """

    def __init__(self, groups: Iterable[dict[str, Any]], betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": 1.0, "betas": betas, "eps": eps, "weight_decay": 0.0})
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for weight in weights:
            weight.data = weight.data.contiguous()  # updates are written through flat views
        self._levels = {
            device: (Levels.dynamic(True, device), Levels.dynamic(False, device))
            for device in {weight.device for weight in weights}
        }

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every weight that has a gradient. There is no closure to evaluate again."""
        if closure is not None:
            raise ValueError("Adam8bit evaluates no closure")
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)

    def _update(self, weight: torch.Tensor, group: dict[str, Any]) -> None:
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state.update(_empty_state(weight))
        state["step"] += 1
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        flat, gradient = weight.view(-1), weight.grad.reshape(-1).float()
        if "mean_scale" not in state:
            mean, square = state["mean"].view(-1), state["square"].view(-1)
            flat.sub_(_moved(mean, square, gradient, state["step"], group))
            return
        of_mean, of_square = self._levels[weight.device]
        for start in range(0, weight.numel(), AT_ONCE):
            here = slice(start, min(start + AT_ONCE, weight.numel()))
            blocks = slice(start // BLOCK, -(-here.stop // BLOCK))
            mean = dequantize(state["mean"][blocks], state["mean_scale"][blocks], of_mean)
            square = dequantize(state["square"][blocks], state["square_scale"][blocks], of_square)
            slope = F.pad(gradient[here], (0, mean.numel() - (here.stop - start))).view_as(mean)
            change = _moved(mean, square, slope, state["step"], group)
            flat[here].sub_(change.view(-1)[: here.stop - start])
            state["mean"][blocks], state["mean_scale"][blocks] = quantize(mean, of_mean)
            state["square"][blocks], state["square_scale"][blocks] = quantize(square, of_square)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a saved state. Torch's own would turn every part into the weight's number format."""
        super().load_state_dict({"state": {}, "param_groups": state_dict["param_groups"]})
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for number, slots in state_dict["state"].items():
            weight = weights[number]
            self.state[weight] = {name: cast("torch.Tensor", part).to(weight.device) for name, part in slots.items()}


def _moved(
    mean: torch.Tensor, square: torch.Tensor, gradient: torch.Tensor, step: torch.Tensor, group: dict[str, Any]
) -> torch.Tensor:
    """What to take from the weights; the moments move on in place. All of one shape."""
    beta1, beta2 = group["betas"]
    mean.lerp_(gradient, 1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    denominator = (square / (1 - beta2**step)).sqrt_().add_(group["eps"])
    return mean / denominator * (group["lr"] / (1 - beta1**step))


def _empty_state(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Moments of zero, in eight bits unless the weight is small."""
    step = torch.zeros((), device=weight.device)
    if weight.numel() < SMALL:
        wide = {name: torch.zeros_like(weight, dtype=torch.float32) for name in ("mean", "square")}
        return {"step": step, **wide}
    blocks = -(-weight.numel() // BLOCK)
    state = {"step": step}
    for name in ("mean", "square"):
        state[name] = torch.zeros(blocks, BLOCK, dtype=torch.uint8, device=weight.device)
        state[f"{name}_scale"] = torch.zeros(blocks, device=weight.device)
    return state
