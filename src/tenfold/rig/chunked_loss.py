"""The fuse cut for real: head and cross-entropy a chunk of rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from tenfold.errors import InputError, NoEffect
from tenfold.rig.batch import IGNORED, Batch
from tenfold.rig.filler import filled_multiple
from tenfold.rig.last_block import LOSS_ROWS, narrow_last_block
from tenfold.rig.loss import model_inputs
from tenfold.rig.probe import outputs_differ
from tenfold.rig.rig import Rig
from tenfold.rig.rows import RowHead
from tenfold.workload import NARROWED_SHARE


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of hidden [N, H] against targets [N]; all gradients are made in the forward pass,
    so that the logits of a chunk die with it. Rows `ids` of `weight` are those of `learned`, which gets their gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        learned: torch.Tensor | None,
        ids: torch.Tensor | None,
        targets: torch.Tensor,
        rows: int,
        chunk_loss_and_gradient: ChunkLoss,
        needs: tuple[bool, bool, bool, bool],
    ) -> torch.Tensor:
        needs_hidden, needs_weight, needs_bias, needs_learned = needs
        working = weight.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight: torch.Tensor | None = None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if needs_bias and bias is not None else None
        grad_learned = torch.zeros_like(learned) if needs_learned and learned is not None else None
        total = hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, len(targets), rows):
            part = slice(start, start + rows)
            count = len(targets[part])
            states = _filled(hidden[part], rows)
            logits = (states @ working.T)[:count]
            if bias is not None:
                logits = logits + bias.to(logits.dtype)
            loss, grad = chunk_loss_and_gradient(logits, targets[part])
            del logits  # what a chunk makes dies before the next is made: at a large vocabulary it is most of the peak
            total += loss
            if any(needs):
                if grad_bias is not None:
                    grad_bias += grad.sum(0, dtype=torch.float32)
                narrow = _filled(grad.to(hidden.dtype), rows)
                if grad_hidden is not None:
                    grad_hidden[part] = (narrow @ working)[:count]
                if needs_weight and grad_weight is None:
                    grad_weight = narrow.T @ states
                elif grad_weight is not None:  # from the second chunk on a sum, in float32
                    grad_weight = grad_weight.float()
                    grad_weight += narrow.T @ states
                if grad_learned is not None and ids is not None:
                    grad_learned += narrow.index_select(1, ids).T @ states
                del narrow
            del grad
        if needs_weight and grad_weight is None:
            grad_weight = torch.zeros_like(weight)
        if grad_weight is not None and ids is not None:
            grad_weight.index_fill_(0, ids, 0.0)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias, grad_learned)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        grad_hidden, grad_weight, grad_bias, grad_learned = ctx.saved_tensors
        return (
            None if grad_hidden is None else grad_hidden * grad.to(grad_hidden.dtype),
            None if grad_weight is None else _scaled(grad_weight, grad, ctx.weight_dtype),
            None if grad_bias is None else (grad_bias * grad).to(ctx.weight_dtype),
            None if grad_learned is None else grad_learned * grad,
            None,
            None,
            None,
            None,
            None,
        )


ChunkLoss = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Summed cross-entropy of logits [N, V] against targets [N], float32, and its gradient, in the logits' dtype."""


def loss_in_place(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A `ChunkLoss` of few operations that reuse their memory; rows whose target is IGNORED count nothing."""
    wide = logits.float()
    bears = (targets != IGNORED)[:, None]
    wanted = targets.clamp_min(0)[:, None]
    normalizer = wide.logsumexp(1, keepdim=True)
    loss = ((normalizer - wide.gather(1, wanted)) * bears).sum()
    grad = wide.sub_(normalizer).exp_()  # softmax, in place of the logits
    grad.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=grad.dtype))
    return loss, grad.mul_(bears).to(logits.dtype)


def loss_in_one_pass(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A `ChunkLoss` without writes between, for a compiler to fuse: one pass for the sum, one for the gradient."""
    wide = logits.float()
    bears = (targets != IGNORED)[:, None]
    wanted = targets.clamp_min(0)[:, None]
    normalizer = wide.logsumexp(1, keepdim=True)
    loss = ((normalizer - wide.gather(1, wanted)) * bears).sum()
    chosen = torch.arange(wide.shape[1], device=wide.device) == wanted
    return loss, (((wide - normalizer).exp() - chosen.float()) * bears).to(logits.dtype)


def _scaled(values: torch.Tensor, factor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`values` times a float32 `factor` [] in a number format, rounded once; in the memory of `values` where it can."""
    return values.to(torch.promote_types(values.dtype, dtype)).mul_(factor).to(dtype)


def _filled(values: torch.Tensor, rows: int) -> torch.Tensor:
    """[N, ...] with zeros after it, at most `rows` in all, where each new shape of a product costs time."""
    missing = -len(values) % filled_multiple(values.device, values.dtype, rows)
    return values if missing == 0 else torch.nn.functional.pad(values, (0, 0, 0, missing))


def chunked_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    rows: int,
    chunk_loss_and_gradient: ChunkLoss = loss_in_place,
    learned: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Cross-entropy of hidden [N, H] times weight [V, H] plus bias [V] against targets [N], summed; float32.

    At most `rows` x V logits exist at any time. Equal to the plain loss up to rounding. `learned`: ids [n] of rows of
    `weight`, and the float32 [n, H] that they are copies of, which get a gradient where `weight` may have none.
    """
    ids, own = learned or (None, None)
    needs = (
        hidden.requires_grad,
        weight.requires_grad,
        bias is not None and bias.requires_grad,
        own is not None and own.requires_grad,
    )
    needs = needs if torch.is_grad_enabled() else (False, False, False, False)
    return _ChunkedCrossEntropy.apply(  # type: ignore[no-any-return]
        hidden, weight, bias, own, ids, targets, rows, chunk_loss_and_gradient, needs
    )


@dataclass(frozen=True)
class ChunkedLoss:
    """The next-token loss that runs the backbone, picks the rows that bear loss, and never holds all logits."""

    rows: int
    chunk_loss_and_gradient: ChunkLoss = loss_in_place
    narrowed: bool = False
    """The last block has learned to leave out rows without loss (rig/last_block)."""

    def __call__(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """Sum over targets that bear loss, float32."""
        few = len(batch.loss_index) <= NARROWED_SHARE * batch.input_ids.numel()
        wanted = {LOSS_ROWS: batch.loss_index} if self.narrowed and few else {}
        hidden = model.base_model(**model_inputs(batch), **wanted).last_hidden_state
        picked = hidden.flatten(0, 1).index_select(0, batch.loss_index)
        head = cast("torch.nn.Linear | RowHead", model.get_output_embeddings())  # `chunk_loss` has seen that it is one
        targets = batch.targets.flatten().index_select(0, batch.loss_index)
        learned = head.written() if isinstance(head, RowHead) else None
        return chunked_cross_entropy(
            picked, head.weight, head.bias, targets, self.rows, self.chunk_loss_and_gradient, learned
        )


def chunk_loss(rig: Rig, rows: int, *, narrow: bool = True) -> Rig:
    """The rig with the chunked loss and, if `narrow`, a last block that leaves out rows without loss.

    Raises NoEffect without a language-model head, InputError where the model does more to its logits than its head.
    """
    head = rig.model.get_output_embeddings()
    if rig.task == "classify" or not isinstance(head, torch.nn.Linear | RowHead):
        raise NoEffect(f"fuse: {type(rig.model).__name__} has no language-model head to fuse with the loss")
    if difference := _head_differs(rig.model, head):
        raise InputError(
            f"fuse: {type(rig.model).__name__} changes its logits after the head ({difference}); set cuts.fuse: false"
        )
    reason = narrow_last_block(rig.model) if narrow else "it is compiled like the others"
    skipped = f"the head (not the last block: {reason})" if reason else "the head and most of the last block"
    fact = f"fuse: loss in chunks of {rows} rows, rows without loss skip {skipped}"
    return replace(rig, loss=ChunkedLoss(rows, narrowed=not reason), facts=(*rig.facts, fact))


@torch.no_grad()
def _head_differs(model: PreTrainedModel, head: torch.nn.Linear | RowHead) -> str:
    """Why logits are not simply head(backbone(x)), as a phrase; empty if they are."""
    training = model.training
    model.eval()
    ids = torch.arange(4, device=model.device)[None] % model.config.get_text_config().vocab_size
    hidden: list[torch.Tensor] = []
    hook = model.base_model.register_forward_hook(lambda _module, _args, output: hidden.append(output[0]))
    logits = model(input_ids=ids, use_cache=False).logits
    hook.remove()
    model.train(training)
    return outputs_differ([logits], [head(hidden[0])])
