"""AdamW with its two moments in eight bits, and where a weight is kept in bfloat16, with eight bits more of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F

from tenfold.run.levels8bit import BLOCK, Levels, dequantize, quantize
from tenfold.run.split_master import join, phase_of, split, thresholds

SMALL = 4096
"""Tensors with fewer elements keep float32 moments: there is nothing to save, and norms and biases are sensitive."""

AT_ONCE = 2**22
"""Elements whose moments are float32 at the same time, a multiple of BLOCK: 16 MiB a tensor, whatever the weight. A
compiled update needs no such limit: none of them is ever written."""


class Blocks(NamedTuple):
    """A weight and its state, or a piece of them, as blocks. An update writes to all but the gradient."""

    weight: torch.Tensor
    """float32 or bfloat16 [n, 256]."""
    low: torch.Tensor | None
    """int8 [n, 256]: what the master of a bfloat16 weight is more."""
    gradient: torch.Tensor
    """[n, 256]."""
    mean: torch.Tensor
    """uint8 [n, 256], and so is `square`; their scales float32 [n]."""
    mean_scale: torch.Tensor
    square: torch.Tensor
    square_scale: torch.Tensor


class Adam8bit(torch.optim.Optimizer):
    """AdamW (arXiv 1711.05101) on float32 weights or split ones. Moments and masters are float32 only while an update
    is computed.

    State of a weight of n elements, B = ceil(n / 256): `mean` and `square` uint8 [B, 256] with `mean_scale` and
    `square_scale` float32 [B]; of a small one `mean` and `square` float32 in its shape. `low` int8 in its shape where
    the weight is split. `step` float32 [], on the host.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], betas: tuple[float, float], eps: float, *, compiled: bool = False
    ) -> None:
        """`compiled`: updates of whole weights by one kernel each; needs a compiler."""
        super().__init__(groups, {"lr": 1.0, "betas": betas, "eps": eps, "weight_decay": 0.0})
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for weight in weights:
            weight.data = weight.data.contiguous()  # updates are written through flat views
        self._levels = {
            device: (Levels.dynamic(True, device), Levels.dynamic(False, device))
            for device in {weight.device for weight in weights}
        }
        self._compiled = torch.compile(advance, dynamic=True) if compiled else None

    def split(self, weight: torch.nn.Parameter) -> None:
        """Keep a weight in bfloat16 from now on, and what its master is more in the state. Not for small ones."""
        if weight.numel() < SMALL:
            raise ValueError(f"a weight of {weight.numel()} elements is kept whole")
        weight.data, low = split(weight.data.float())
        self.state[weight] = {**_empty_state(weight), "low": low}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every weight that has a gradient. There is no closure to evaluate again."""
        if closure is not None:
            raise ValueError("Adam8bit evaluates no closure")
        settings: dict[tuple[int, int, torch.device], tuple[Factors, torch.Tensor]] = {}
        for number, group in enumerate(self.param_groups):
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state.update(_empty_state(weight))
                state["step"] += 1
                step = int(state["step"])
                if "mean_scale" not in state:
                    _update_small(weight, state, _factors(group, step))
                elif self._compiled is None or weight.numel() % BLOCK:
                    self._update(weight, state, _factors(group, step), step)
                else:
                    key = (number, step, weight.device)  # of most weights the same: on the device once
                    if key not in settings:
                        factors, phase = torch.tensor(_factors(group, step)), torch.tensor(phase_of(step, 0))
                        settings[key] = (factors.to(weight.device).unbind(), phase.to(weight.device))
                    factors, phase = settings[key]
                    blocks = _piece(weight, state, slice(0, weight.numel()))
                    self._compiled(blocks, factors, phase, self._levels[weight.device], by_decade=True)

    def _update(self, weight: torch.Tensor, state: dict[str, Any], factors: Factors, step: int) -> None:
        """Piece by piece."""
        for start in range(0, weight.numel(), AT_ONCE):
            here = slice(start, min(start + AT_ONCE, weight.numel()))
            blocks = _piece(weight, state, here)
            advance(blocks, factors, phase_of(step, start), self._levels[weight.device], by_decade=False)
            if (here.stop - start) % BLOCK:  # then these two are copies, filled up
                weight.view(-1)[here] = blocks.weight.view(-1)[: here.stop - start]
                if blocks.low is not None:
                    state["low"].view(-1)[here] = blocks.low.view(-1)[: here.stop - start]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a saved state. Torch's own would turn every part into the weight's number format."""
        super().load_state_dict({"state": {}, "param_groups": state_dict["param_groups"]})
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for number, slots in state_dict["state"].items():
            weight = weights[number]
            self.state[weight] = {
                name: cast("torch.Tensor", part).to("cpu" if name == "step" else weight.device)
                for name, part in slots.items()
            }


Factors = Sequence[Any]
"""What weights are multiplied by, the rate over the mean's correction, both betas, the square's correction, epsilon."""


def _factors(group: dict[str, Any], step: int) -> Factors:
    beta1, beta2 = group["betas"]
    rate = group["lr"] / (1 - beta1**step)
    return (1 - group["lr"] * group["weight_decay"], rate, beta1, beta2, 1 - beta2**step, group["eps"])


def advance(
    blocks: Blocks, factors: Factors, phase: int | torch.Tensor, levels: tuple[Levels, Levels], *, by_decade: bool
) -> None:
    """One update. `factors`: numbers or float32 []; `phase`: where the sequence of roundings stands at the first
    element; `by_decade`: see `quantize`."""
    if blocks.gradient.shape[1] != BLOCK:  # so that a compiler knows the length of what it sums up
        raise ValueError(f"blocks of {blocks.gradient.shape[1]}")
    keep, rate, beta1, beta2, correction, eps = factors
    of_mean, of_square = levels
    slope = blocks.gradient.float()
    mean = dequantize(blocks.mean, blocks.mean_scale, of_mean).lerp_(slope, 1 - beta1)
    square = dequantize(blocks.square, blocks.square_scale, of_square)
    square.mul_(beta2).add_(slope.square().mul_(1 - beta2))
    change = (mean / (square / correction).sqrt_().add_(eps)).mul_(rate)
    if blocks.low is None:
        blocks.weight.mul_(keep).sub_(change)
    else:
        master = join(blocks.weight, blocks.low).mul_(keep).sub_(change)
        roundings = thresholds(master.numel(), phase, master.device).view_as(master)
        for part, new in zip((blocks.weight, blocks.low), split(master, roundings), strict=True):
            part.copy_(new)
    for codes, scales, moment, kind in (
        (blocks.mean, blocks.mean_scale, mean, of_mean),
        (blocks.square, blocks.square_scale, square, of_square),
    ):
        new_codes, new_scales = quantize(moment, kind, by_decade)
        codes.copy_(new_codes)
        scales.copy_(new_scales)


def _piece(weight: torch.Tensor, state: dict[str, Any], here: slice) -> Blocks:
    """A piece that begins with a block. Where it does not end with one, weight, low bits and gradient are copies.

    `.data` makes tensors of views: a compiler would tell views of a 4096 x 14336 weight from others.
    """
    assert weight.grad is not None
    blocks = slice(here.start // BLOCK, -(-here.stop // BLOCK))

    def filled(values: torch.Tensor) -> torch.Tensor:
        flat = values.reshape(-1)[here]
        missing = -flat.numel() % BLOCK
        return (F.pad(flat, (0, missing)) if missing else flat).view(-1, BLOCK).data

    return Blocks(
        weight=filled(weight.data),
        low=filled(state["low"]) if "low" in state else None,
        gradient=filled(weight.grad),
        mean=state["mean"][blocks].data,
        mean_scale=state["mean_scale"][blocks].data,
        square=state["square"][blocks].data,
        square_scale=state["square_scale"][blocks].data,
    )


def _update_small(weight: torch.Tensor, state: dict[str, Any], factors: Factors) -> None:
    """With float32 moments."""
    assert weight.grad is not None
    keep, rate, beta1, beta2, correction, eps = factors
    gradient = weight.grad.float()
    state["mean"].lerp_(gradient, 1 - beta1)
    state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    denominator = (state["square"] / correction).sqrt_().add_(eps)
    weight.mul_(keep).sub_(state["mean"] / denominator * rate)


def _empty_state(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Moments of zero, in eight bits unless the weight is small."""
    step = torch.zeros(())
    if weight.numel() < SMALL:
        wide = {name: torch.zeros_like(weight, dtype=torch.float32) for name in ("mean", "square")}
        return {"step": step, **wide}
    blocks = -(-weight.numel() // BLOCK)
    state = {"step": step}
    for name in ("mean", "square"):
        state[name] = torch.zeros(blocks, BLOCK, dtype=torch.uint8, device=weight.device)
        state[f"{name}_scale"] = torch.zeros(blocks, device=weight.device)
    return state
