"""The last block works on the rows that bear loss alone, from where its attention has mixed them.

What no loss reads need not be computed: beyond the keys and values of the last block a row reads only itself, so of
the rest (queries, output projection, feed-forward part) rows without loss can be left out. Their gradients are zero.
The model stays a stock instance: hooks on its last block and on modules in it, found by watching it run, hand on fewer
rows. The rows come back to their places at the block's end, so that nothing after it sees a difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from tenfold.cuts.lora import MODULE_NAMES
from tenfold.rig.attention import unplanned_attention
from tenfold.rig.linear import AdaptedLinear
from tenfold.rig.probe import outputs_differ
from tenfold.rig.stored_linear import StoredLinear

LOSS_ROWS = "loss_rows"
"""What a backbone is called with: [N] int64, flat places in [B, L] of the rows whose hidden states are wanted. Blocks
and attention functions of transformers hand on keywords that they do not know."""

FULL = "before_narrowing"
"""What the block hands on to its attention beside: its whole input [B, L, H] and the rows."""

Linear = torch.nn.Linear | Conv1D | AdaptedLinear | StoredLinear


@dataclass(frozen=True)
class _Parts:
    """The modules of a block between which rows are mixed."""

    block: torch.nn.Module
    norm: torch.nn.Module | None
    """What attention's input has been through; None if it is the block's own input."""
    attention: torch.nn.Module
    query: torch.nn.Module | None
    """The projection of queries, where it is a layer of its own."""
    output: torch.nn.Module
    """The projection of what attention gives."""


class _Unlike(Exception):  # no error: the block is left as it is
    """What this block lacks of what `narrow_last_block` looks for."""


def narrow_last_block(model: PreTrainedModel) -> str:
    """Let the last block of a decoder leave out rows without loss, in calls with LOSS_ROWS; other calls are as before.

    Returns why it cannot be done, and then the model is as it was; "" once it is. Checked on the spot: the hidden
    states of the rows that are wanted must be the same.
    """
    inputs = _probe_inputs(model)
    rows = torch.tensor(PROBE_ROWS, device=model.device)
    try:
        parts = _parts(model, inputs)
    except _Unlike as unlike:
        return str(unlike)
    expected = _hidden(model, inputs).flatten(0, 1)[rows]
    hooks = _attach(parts)
    try:
        found = _hidden(model, {**inputs, LOSS_ROWS: rows}).flatten(0, 1)[rows]
        difference = outputs_differ([expected], [found])
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        difference = str(error).splitlines()[0]
    if difference:
        for hook in hooks:
            hook.remove()
    return difference


def _attach(parts: _Parts) -> list[RemovableHandle]:
    narrow = _Narrowing(parts.norm)
    hooks = [
        parts.block.register_forward_pre_hook(narrow.enter_block, with_kwargs=True),
        parts.block.register_forward_hook(narrow.leave_block, with_kwargs=True),
        parts.attention.register_forward_pre_hook(narrow.enter_attention, with_kwargs=True),
        parts.output.register_forward_pre_hook(narrow.enter_output),
    ]
    if parts.query is not None:
        hooks.append(parts.query.register_forward_pre_hook(narrow.enter_query))
        hooks.append(parts.query.register_forward_hook(narrow.leave_query))
    return hooks


class _Narrowing:
    """The hooks of one block. What they tell each other goes by the block's own keywords, so that a block that is run
    again in the backward pass finds it; only within one call of its attention is it remembered."""

    def __init__(self, norm: torch.nn.Module | None) -> None:
        self._norm = norm
        self._rows: torch.Tensor | None = None
        self._shape = torch.Size((0, 0))

    def enter_block(self, block: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The block works on the rows alone, but its attention will see all."""
        rows = kwargs.pop(LOSS_ROWS, None)
        if rows is None:
            return args, kwargs
        return (_picked(args[0], rows), *args[1:]), {**kwargs, FULL: (args[0], rows)}

    def leave_block(self, block: torch.nn.Module, args: Any, kwargs: dict[str, Any], output: torch.Tensor) -> Any:
        """The rows in their places."""
        if FULL not in kwargs:
            return output
        full, rows = kwargs[FULL]
        return _placed(output, rows, full.shape[:2])

    def enter_attention(self, attention: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Keys and values are made of all rows."""
        full, self._rows = kwargs.pop(FULL, (None, None))
        if full is None:
            return args, kwargs
        self._shape = full.shape[:2]
        hidden = full if self._norm is None else self._norm(full)
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    def enter_query(self, query: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        """Queries of the rows."""
        return args if self._rows is None else (_picked(args[0], self._rows),)

    def leave_query(self, query: torch.nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        """In their places, since attention wants as many queries as keys."""
        return output if self._rows is None else _placed(output, self._rows, self._shape)

    def enter_output(self, projection: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        """Attention is done: from here on the rows alone."""
        rows, self._rows = self._rows, None
        return args if rows is None else (_picked(args[0], rows),)


def _picked(hidden: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """[B, L, H] to [1, N, H]."""
    return hidden.flatten(0, 1).index_select(0, rows)[None]


def _placed(picked: torch.Tensor, rows: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """[1, N, H] to [B, L, H], zero where no row was picked. A row that was picked twice is the same both times."""
    flat = picked.new_zeros(shape[0] * shape[1], picked.shape[-1])
    return flat.index_put((rows,), picked[0]).unflatten(0, shape)  # unlike index_copy it keeps only the rows' numbers


def _parts(model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> _Parts:
    """The parts of the last block, found by watching it run. Raises _Unlike where one is missing."""
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not blocks:
        raise _Unlike("it has no blocks that transformers calls one by one")
    block = blocks[-1]
    # transformers' attention functions read is_causal from the module that calls them
    attentions = [child for child in block.children() if hasattr(child, "is_causal")]
    if len(attentions) != 1:
        raise _Unlike(f"its last block has {len(attentions)} attention layers, not one")
    attention = attentions[0]
    bases = [module.base for module in attention.modules() if isinstance(module, AdaptedLinear)]
    linears = {m: name for name, m in attention.named_modules() if isinstance(m, Linear) and m not in bases}
    calls = _watch(model, inputs, [block, *block.children(), *linears])
    read = {module: entered for module, entered, _ in calls}
    hidden = read[attention]
    norms = [module for module, entered, left in calls if entered is read[block] and left is hidden]
    if hidden is not read[block] and not norms:
        raise _Unlike("what its last block does before attention is no single layer")
    named = [m for m, name in linears.items() if name in MODULE_NAMES["q"] and read.get(m) is hidden]
    outputs = [module for module, entered, _ in calls if module in linears and entered is not hidden]
    if not outputs:
        raise _Unlike("its attention projects nothing after it has mixed the rows")
    return _Parts(
        block=block,
        norm=norms[0] if norms else None,
        attention=attention,
        query=named[0] if named else None,
        output=outputs[-1],
    )


def _watch(
    model: PreTrainedModel, inputs: Mapping[str, torch.Tensor], modules: Iterable[torch.nn.Module]
) -> list[tuple[torch.nn.Module, torch.Tensor, torch.Tensor]]:
    """The calls of these modules in a forward pass, in the order of their ends: module, hidden states, result."""
    calls: list[tuple[torch.nn.Module, torch.Tensor, torch.Tensor]] = []

    def note(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        calls.append((module, args[0] if args else kwargs["hidden_states"], output))

    hooks = [module.register_forward_hook(note, with_kwargs=True) for module in modules]
    try:
        _hidden(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _probe_inputs(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Two short rows, one of them padded: places 6 and 7 of the second are none."""
    ids = torch.arange(12, device=model.device).view(2, 6) % model.config.get_text_config().vocab_size
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


PROBE_ROWS = (1, 2, 4, 8, 9)
"""Some places of the two rows that `_probe_inputs` makes."""


@torch.no_grad()
def _hidden(model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The last hidden states [2, 6, H] of the probe; nothing random is drawn, and the model is left as it was."""
    training = model.training
    model.eval()
    with unplanned_attention():
        hidden = model.base_model(**inputs, use_cache=False).last_hidden_state
    model.train(training)
    return hidden
