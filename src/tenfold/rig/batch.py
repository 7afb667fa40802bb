"""Micro-batches, and the padded layout that makes them when nothing is packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import ceil

import torch

from tenfold.data.tokenize import Sample
from tenfold.rig.ragged import Ragged
from tenfold.rig.segments import Segments
from tenfold.workload import filling_step

IGNORED = -100
"""Target of a token that bears no loss: the default `ignore_index` of torch.nn.functional.cross_entropy."""


@dataclass(frozen=True)
class Batch:
    """One micro-batch. B rows of L tokens, of which `tokens` are not padding."""

    input_ids: torch.Tensor
    """[B, L] int64."""
    attention_mask: torch.Tensor | None
    """[B, L] int64, 1 where there is a token; None when packed into one row, and where nobody looks at padding."""
    position_ids: torch.Tensor | None
    """[B, L] int64, restarted in each packed row; None to let the model count."""
    segments: Segments | Ragged | None
    """Where the packed rows begin and end; None when padded."""
    targets: torch.Tensor
    """classify: [B] label numbers. Otherwise [B, L]: the next token where it bears loss, else IGNORED."""
    loss_index: torch.Tensor
    """[N] int64, the flat positions of targets that bear loss, and of some that do not where N shall repeat."""
    rows: int
    tokens: int
    loss_count: int
    """How many targets bear loss."""
    one_length: bool
    """Rows are equally long, and so are those of the next micro-batches: its shape comes again."""

    def to(self, device: torch.device) -> Batch:
        """This batch with all tensors on `device`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in values.items()
            if isinstance(value, torch.Tensor | Segments | Ragged)
        }
        return replace(self, **moved)


def next_token_targets(sample: Sample) -> list[int]:
    """For each token the token that follows, or IGNORED where that one bears no loss."""
    mask = sample.loss_mask or b""
    ids = sample.input_ids
    return [token if bears else IGNORED for token, bears in zip(ids[1:], mask[1:], strict=True)] + [IGNORED]


def loss_places(targets: torch.Tensor, fewest: int = 1, idle: int = 0) -> torch.Tensor:
    """Flat places of the targets that bear loss, and `idle`, one that bears none, so often that their number is a
    multiple of `fewest`, or of more if they are many."""
    bearing = (targets.flatten() != IGNORED).nonzero().flatten()
    multiple = fewest if fewest == 1 else filling_step(len(bearing), fewest)
    return torch.cat([bearing, bearing.new_full((-len(bearing) % multiple,), idle)])


def batch_from_tensors(input_ids: torch.Tensor, labels: torch.Tensor, attention_mask: torch.Tensor | None) -> Batch:
    """A padded batch from what a transformers model takes: labels [B] or [B, L], the latter not shifted yet."""
    targets = labels
    if labels.ndim == 2:
        targets = torch.full_like(labels, IGNORED)
        targets[:, :-1] = labels[:, 1:]
    return Batch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=None,
        segments=None,
        targets=targets,
        loss_index=loss_places(targets),
        rows=len(input_ids),
        tokens=input_ids.numel() if attention_mask is None else int(attention_mask.sum()),
        loss_count=int((targets != IGNORED).sum()),
        one_length=attention_mask is None,
    )


@dataclass(frozen=True)
class PaddedLayout:
    """Micro-batches of at most `rows` rows, padded on the right to their longest row."""

    rows: int
    pad_id: int
    fewest: int = 1
    """If more: micro-batches of unlike rows are padded on to one of few sizes, so many tokens apart at least, and the
    targets that are looked at are as few sizes."""
    causal: bool = False
    """Tokens look back only, and so never at padding: no mask, which kernels of attention are faster without."""

    def __call__(self, samples: Sequence[Sample]) -> list[Batch]:
        """The samples of one optimizer step as micro-batches, in their order."""
        parts = [samples[start : start + self.rows] for start in range(0, len(samples), self.rows)]
        one_length = of_one_length(samples)
        batches = [pad(part, self.pad_id, one_length, self.fewest, self.rows) for part in parts]
        # Nor do rows of one length need a mask.
        return [
            replace(b, attention_mask=None) if self.causal or b.tokens == b.input_ids.numel() else b for b in batches
        ]


def of_one_length(samples: Sequence[Sample]) -> bool:
    """All are equally long."""
    return len({len(sample.input_ids) for sample in samples}) == 1


def pad(samples: Sequence[Sample], pad_id: int, one_length: bool, fewest: int = 1, rows: int = 1) -> Batch:
    """One padded micro-batch, of a layout that makes them of `rows` at most."""
    lengths = {len(sample.input_ids) for sample in samples}
    length = max(lengths)
    if len(lengths) > 1 and fewest > 1:
        length += -length % filling_step(length, ceil(fewest / rows))
    input_ids = torch.full((len(samples), length), pad_id, dtype=torch.long)
    attention_mask = torch.zeros((len(samples), length), dtype=torch.long)
    for row, sample in enumerate(samples):
        input_ids[row, : len(sample.input_ids)] = torch.tensor(sample.input_ids)
        attention_mask[row, : len(sample.input_ids)] = 1
    if samples[0].label is None:
        targets = torch.full((len(samples), length), IGNORED, dtype=torch.long)
        for row, sample in enumerate(samples):
            targets[row, : len(sample.input_ids)] = torch.tensor(next_token_targets(sample))
    else:
        targets = torch.tensor([sample.label for sample in samples])
    return Batch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=None,
        segments=None,
        targets=targets,
        loss_index=loss_places(targets, fewest, idle=len(samples[0].input_ids) - 1),
        rows=len(samples),
        tokens=int(attention_mask.sum()),
        loss_count=int((targets != IGNORED).sum()),
        one_length=one_length,
    )
