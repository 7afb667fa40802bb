"""Feed-forward parts run in tiles of tokens, so that what is widest in a block exists for one tile at a time.

A feed-forward part computes every token by itself (arXiv 2506.13996, section 3.3, "TiledMLP"). Between the passes its
input alone is kept; in the backward pass each tile is run again and then backward. Where the whole block is run again
anyway, that costs no second time: the repetition ends once the last kept tensor is there, which is that input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import torch

from tenfold.errors import InputError
from tenfold.rig.precision import autocast
from tenfold.rig.probe import outputs_differ
from tenfold.rig.rig import Rig
from tenfold.rig.stand_in import StandIn, own_forward

Run = Callable[[torch.Tensor], torch.Tensor]

PROBED_TOKENS = 6


class TiledForward(StandIn):
    """The `forward` of a feed-forward part in tiles, where a backward pass may follow."""

    def __init__(self, module: torch.nn.Module, tiles: int, run: Run) -> None:
        """`run`: the module's own, or what computes the same."""
        super().__init__(module)
        self._module, self._tiles, self._run = module, tiles, run

    @torch.compiler.disable  # pyright: ignore[reportUntypedFunctionDecorator]  # torch gives it no type
    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., H] to [..., H]."""
        if not torch.is_grad_enabled():
            return self.own(hidden)
        learns = [weight for weight in self._module.parameters() if weight.requires_grad]
        tokens = hidden.flatten(0, -2)[None]  # of all rows, so that each tile is contiguous
        held = _Held.apply(tokens, torch.empty(0, requires_grad=True))
        tile = -(-tokens.shape[1] // self._tiles)
        output = _Tiles.apply(held, self._run, tile, _autocast(hidden.device.type), *learns)
        return output.view(hidden.shape)  # type: ignore[union-attr]


class _Held(torch.autograd.Function):
    """Keeps the input. A node of its own, made before the first tile, so that who repeats a block can stop here; and
    there is always one, since `anchor` has a gradient."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, anchor: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(hidden)
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        return grads[0], None


class _Tiles(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        held: torch.Tensor,
        run: Run,
        tile: int,
        cast: Callable[[], AbstractContextManager[Any]],
        *learns: torch.Tensor,
    ) -> torch.Tensor:
        ctx.held, ctx.run, ctx.tile, ctx.cast, ctx.learns = held.grad_fn, run, tile, cast, learns
        return torch.cat([run(part) for part in held.split(tile, dim=1)], dim=1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        (hidden,) = ctx.held.saved_tensors
        below = torch.empty_like(hidden)
        sums: list[torch.Tensor | None] = [None] * len(ctx.learns)
        parts = (values.split(ctx.tile, dim=1) for values in (hidden, grads[0].contiguous(), below))
        for part, grad, place in zip(*parts, strict=True):
            with torch.enable_grad(), ctx.cast():
                own = part.detach().requires_grad_()
                output = ctx.run(own)
            found = torch.autograd.grad(output, (own, *ctx.learns), grad)
            place.copy_(found[0])
            sums = [one if whole is None else whole.add_(one) for whole, one in zip(sums, found[1:], strict=True)]
        return below, None, None, None, *sums


def _autocast(kind: str) -> Callable[[], AbstractContextManager[Any]]:
    """The autocast of just now, for later."""
    dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
    return lambda: torch.autocast(kind, dtype, enabled=enabled)


def tile_feed_forwards(rig: Rig, blocks: Sequence[torch.nn.Module], tiles: int) -> None:
    """Let the feed-forward parts of these blocks run in so many tiles.

    Raises InputError where a block has none of its own, where it gives tokens together what it does not give them
    apart, or where it draws random numbers, which its second run would draw anew.
    """
    for block in blocks:
        part = _part_of(block)
        if part is None:
            raise InputError(f"cuts.checkpoint.mlp_tiles: {type(block).__name__} has no module mlp; leave it out")
        if block is blocks[0] and (fault := _fault(rig, part)):
            raise InputError(f"cuts.checkpoint.mlp_tiles: {type(part).__name__} {fault}; leave it out")
        own = own_forward(part)
        part.forward = cast("Any", TiledForward(part, tiles, _compiled(own) if rig.compiled else own))


def untile_feed_forwards(blocks: Sequence[torch.nn.Module]) -> None:
    """Let them run in one piece, as they were."""
    for part in filter(None, map(_part_of, blocks)):
        part.forward = own_forward(part)


def _part_of(block: torch.nn.Module) -> torch.nn.Module | None:
    part = getattr(block, "mlp", None)
    return part if isinstance(part, torch.nn.Module) else None


def _compiled(run: Run) -> Run:
    from tenfold.rig.compiling import compiled  # which takes a second to import

    return compiled(run)


@torch.no_grad()
def _fault(rig: Rig, part: torch.nn.Module) -> str:
    """Why this feed-forward part cannot run in tiles; empty if it can."""
    generator = torch.Generator().manual_seed(0)
    width = rig.model.config.get_text_config().hidden_size
    hidden = torch.randn(1, PROBED_TOKENS, width, generator=generator).to(rig.device, rig.dtype)
    run, training = own_forward(part), part.training
    part.train()
    try:
        with autocast(rig.device, rig.dtype):
            whole, again = run(hidden), run(hidden)
            apart = torch.cat([run(hidden[:, :2]), run(hidden[:, 2:])], dim=1)
    except (RuntimeError, TypeError, IndexError) as error:
        return f"takes no part of its tokens ({str(error).splitlines()[0]})"
    finally:
        part.train(training)
    if not whole.equal(again):
        return "drops out"
    difference = outputs_differ([whole], [apart])
    return f"mixes tokens ({difference})" if difference else ""
