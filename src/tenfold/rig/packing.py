"""The pack cut for real: batches without padding, and a model that keeps packed rows apart."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedModel

from tenfold.data.tokenize import Sample
from tenfold.errors import InputError, NoEffect
from tenfold.rig.attention import attend_packed, unplanned_attention
from tenfold.rig.batch import IGNORED, Batch, loss_places, next_token_targets, of_one_length, pad
from tenfold.rig.filler import filled_multiple
from tenfold.rig.last_block import LOSS_ROWS
from tenfold.rig.precision import autocast
from tenfold.rig.probe import outputs_differ
from tenfold.rig.ragged import ragged_rows
from tenfold.rig.rig import Rig
from tenfold.rig.segments import segment_rows

ATTENTION = "tenfold_segments"
"""Our name in transformers' registry of attention functions, its extension point for this."""


@dataclass(frozen=True)
class PackedLayout:
    """Micro-batches of whole rows, together at most `tokens` long (a longer row stands alone)."""

    tokens: int
    pad_id: int
    steady: bool = False
    """Fill micro-batches up to one of few lengths, for layers that are compiled and passes that are recorded."""
    multiple: int = 1
    """Filler after the last row makes each micro-batch a multiple of so many tokens."""

    def __call__(self, samples: Sequence[Sample]) -> list[Batch]:
        """The samples of one optimizer step as micro-batches.

        First-fit decreasing, which needs at most 11/9 of the fewest bins (Johnson 1973).
        """
        bins: list[tuple[int, list[Sample]]] = []
        for sample in sorted(samples, key=lambda sample: -len(sample.input_ids)):
            length = len(sample.input_ids)
            place = next((i for i, (used, _) in enumerate(bins) if used + length <= self.tokens), None)
            if place is None:
                bins.append((length, [sample]))
            else:
                used, held = bins[place]
                bins[place] = (used + length, [*held, sample])
        one_length = of_one_length(samples)
        return [self._lay_out(rows, one_length) for _, rows in bins]

    def _lay_out(self, rows: Sequence[Sample], one_length: bool) -> Batch:
        lengths = [len(row.input_ids) for row in rows]
        if rows[0].label is not None:  # the head of a classifier wants its rows apart: the model packs and unpacks
            return replace(pad(rows, self.pad_id, one_length), segments=segment_rows(lengths, self.multiple))
        filling = filling_rows(lengths, self.tokens) if self.steady else filling_tokens(lengths, self.multiple)
        targets = torch.tensor([t for row in rows for t in next_token_targets(row)] + [IGNORED] * sum(filling))
        multiple = max(1, len(targets) // STEPS_OF_LENGTH) if self.steady else self.multiple
        return Batch(
            input_ids=torch.tensor([[token for row in rows for token in row.input_ids] + [self.pad_id] * sum(filling)]),
            attention_mask=None,
            position_ids=torch.tensor([[place for length in (*lengths, *filling) for place in range(length)]]),
            segments=ragged_rows(lengths, filling) if self.steady else segment_rows(lengths, self.multiple),
            targets=targets[None],
            loss_index=loss_places(targets, multiple, idle=lengths[0] - 1),  # a row's last token never bears loss
            rows=len(rows),
            tokens=sum(lengths),
            loss_count=int((targets != IGNORED).sum()),
            one_length=one_length and not (self.steady and filling),
        )


STEPS_OF_LENGTH = 8
"""A steady micro-batch is so many eighths of the token budget long, and so many eighths of its targets bear loss."""


def filling_rows(lengths: Sequence[int], tokens: int) -> list[int]:
    """Lengths of the rows of padding that fill a micro-batch up to the next eighth of `tokens`."""
    step = max(1, tokens // STEPS_OF_LENGTH)
    missing, longest = -sum(lengths) % step, max(lengths)
    whole, rest = divmod(missing, longest)
    return [longest] * whole + [rest] * (rest > 0)


def filling_tokens(lengths: Sequence[int], multiple: int) -> list[int]:
    """Single tokens of padding, each at position 0, that fill a micro-batch up to a multiple."""
    return [1] * (-sum(lengths) % multiple)


def pack_rig(rig: Rig, tokens: int) -> Rig:
    """The rig with packed batches.

    Raises NoEffect without an attention layer, InputError where packing changes results.
    """
    with autocast(rig.device, rig.dtype):  # as in training: what learns is float32, what is frozen may not be
        pack_model(rig.model, rig.dtype)
    pad_id = int(rig.model.config.pad_token_id or 0)
    fact = f"pack: rows end to end, at most {tokens} tokens a micro-batch, attention isolated per row"
    multiple = filled_multiple(rig.device, rig.dtype, tokens)
    return replace(rig, layout=PackedLayout(tokens, pad_id, multiple=multiple), facts=(*rig.facts, fact))


def pack_model(model: PreTrainedModel, computed_in: torch.dtype) -> None:
    """Let `model` take packed batches, and pack padded ones by itself.

    Two hooks on the backbone instance and one attention implementation; no class is changed. Checked on the spot: the
    same rows padded and packed must give the same hidden states, otherwise the model is put back and InputError raised.
    """
    backbone = model.base_model
    before = model.config._attn_implementation  # pyright: ignore[reportPrivateUsage]  # transformers has no public reader
    if before is None:
        raise NoEffect(f"pack: {type(model).__name__} has no attention layer that transformers lets us choose")
    rows = _probe_rows(model)
    expected = _hidden_rows(model, rows)
    AttentionInterface.register(ATTENTION, attend_packed)  # type: ignore[arg-type]
    offset = _first_position(model)
    signature = inspect.signature(backbone.forward)

    def pack_inputs(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        bound = signature.bind_partial(*args, **kwargs)
        extra = bound.arguments.pop("kwargs", {})
        return (), _pack_inputs({**bound.arguments, **extra}, offset)

    def unpack_outputs(module: torch.nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        return _unpack_outputs(module, kwargs, output)

    hooks = [
        backbone.register_forward_pre_hook(pack_inputs, with_kwargs=True),
        backbone.register_forward_hook(unpack_outputs, with_kwargs=True),
    ]
    model.set_attn_implementation(ATTENTION)
    try:
        difference = outputs_differ(expected, _hidden_rows(model, rows), computed_in)
    except (RuntimeError, ValueError, TypeError) as error:
        difference = str(error).splitlines()[0]
    if difference and all(row.isfinite().all() for row in expected):  # else it is the weights, which checks/ tells
        for hook in hooks:
            hook.remove()
        model.set_attn_implementation(before)
        raise InputError(
            f"pack: {type(model).__name__} gives other results on packed rows ({difference}); set cuts.pack: false"
        )


def _pack_inputs(inputs: dict[str, Any], offset: int) -> dict[str, Any]:
    """Arguments of a backbone call, packed: [B, L] with a mask becomes [1, T] with positions and segments."""
    input_ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
    packed_already = inputs.get("segments") is not None and mask is None
    if packed_already:
        return inputs
    if input_ids is None or inputs.get("past_key_values") is not None:
        raise RuntimeError("a packed model takes input_ids and no cache; load the saved model to generate")
    mask = torch.ones_like(input_ids) if mask is None else mask
    segments = inputs.get("segments") or segment_rows(mask.sum(1).tolist()).to(input_ids.device)
    counted = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids) + offset

    def pick(values: torch.Tensor) -> torch.Tensor:
        return torch.cat([values.reshape(-1)[segments.cells], values.new_zeros(segments.filler)])[None]

    packed: dict[str, Any] = {
        **inputs,
        "input_ids": pick(input_ids),
        "position_ids": pick(counted),
        "segments": segments,
    }
    packed["attention_mask"] = None
    packed["padded_shape"] = segments.padded_shape
    if inputs.get("token_type_ids") is not None:
        packed["token_type_ids"] = pick(inputs["token_type_ids"])
    if inputs.get(LOSS_ROWS) is not None:
        packed[LOSS_ROWS] = torch.searchsorted(segments.cells, inputs[LOSS_ROWS])
    return packed


def _unpack_outputs(module: torch.nn.Module, inputs: Mapping[str, Any], output: Any) -> Any:
    """The hidden states of a call that `_pack_inputs` packed, back in their padded [B, L, hidden] places."""
    if "padded_shape" not in inputs:
        return output
    rows, length = inputs["padded_shape"]
    segments = inputs["segments"]
    packed = output.last_hidden_state[0, : len(segments.cells)]
    flat = packed.new_zeros(rows * length, packed.shape[-1]).index_copy(0, segments.cells, packed)
    output.last_hidden_state = flat.unflatten(0, (rows, length))
    if output.get("pooler_output") is not None:
        output.pooler_output = module.pooler(output.last_hidden_state)  # type: ignore[operator]
    return output


def _first_position(model: PreTrainedModel) -> int:
    """The position number of a row's first token: RoBERTa's family counts from its padding index + 1."""
    learned = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    padding = next((module.padding_idx for module in learned if isinstance(module, torch.nn.Embedding)), None)
    return 0 if padding is None else padding + 1


def _probe_rows(model: PreTrainedModel) -> list[torch.Tensor]:
    """Three short rows of different length, drawn without touching the random state that training uses."""
    generator = torch.Generator().manual_seed(0)
    vocabulary, pad_id = model.config.get_text_config().vocab_size, model.config.pad_token_id
    rows = [torch.randint(0, vocabulary, (length,), generator=generator) for length in (9, 4, 6)]
    return [torch.where(row == pad_id, (row + 1) % vocabulary, row).to(model.device) for row in rows]


@torch.no_grad()
def _hidden_rows(model: PreTrainedModel, rows: list[torch.Tensor]) -> list[torch.Tensor]:
    """The last hidden states of each row, from one padded call of the backbone."""
    training = model.training
    model.eval()
    lengths = [len(row) for row in rows]
    input_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=model.config.pad_token_id or 0)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    with unplanned_attention():
        hidden = model.base_model(input_ids=input_ids, attention_mask=mask).last_hidden_state
    model.train(training)
    return [hidden[row, :length] for row, length in enumerate(lengths)]
