"""Why each cut is on or off, in dollars and gigabytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tenfold.cuts import Checkpoint, Cut, FineTune, Fuse, LoRA, Pack, on_paper
from tenfold.job import Job, peak_bytes, seconds_by_part, usd_of
from tenfold.job.memory import MARGIN


def explain_cuts(job: Job, cuts: Sequence[Cut], checkpoints: Sequence[Cut | None]) -> tuple[str, ...]:
    """One sentence for each cut of the planner, chosen or not."""
    names = {cut.name for cut in cuts}
    bare = replace(
        job, pretrained=False, adapter_rank=0, adapter_dropout=0.0, adapter_parameters=0, adapted=(), packed_tokens=None, loss_rows=None,
        recomputed_layers=0,
    )  # fmt: skip
    sentences: list[str] = []
    for cut in (*cuts, *(other for other in _defaults(job, checkpoints) if other.name not in names)):
        if cut.name in names:
            without = on_paper([other for other in cuts if other.name != cut.name], bare)
            sentences.append(f"{cut.name} on: without it {_difference(job, without)}")
        else:
            chosen = sorted([*cuts, cut], key=_order)
            changed = on_paper(chosen, bare)
            if changed == job:
                sentences.append(f"{cut.name} off: it would change nothing here")
            elif isinstance(cut, Checkpoint):
                room = job.machine.memory_bytes * (1 - MARGIN) - peak_bytes(job)
                sentences.append(
                    f"checkpoint off: fits with {room / 1e9:.1f} GB to spare; with it {_difference(job, changed)}"
                )
            else:
                sentences.append(f"{cut.name} off: with it {_difference(job, changed)}")
    return tuple(sentences)


def _defaults(job: Job, checkpoints: Sequence[Cut | None]) -> tuple[Cut, ...]:
    full = next((cut for cut in reversed(checkpoints) if cut is not None), Checkpoint(job.shape.layers))
    return (FineTune(), LoRA(), Pack(), Fuse(), full)


def _order(cut: Cut) -> int:
    return ("fine_tune", "lora", "pack", "fuse", "checkpoint").index(cut.name)


def _difference(job: Job, other: Job) -> str:
    """What the other job costs more or less: dollars (or time) and gigabytes."""
    seconds, other_seconds = (sum(seconds_by_part(one).values()) for one in (job, other))
    gigabytes = (peak_bytes(other) - peak_bytes(job)) / 1e9
    usd, other_usd = usd_of(job, seconds), usd_of(other, other_seconds)
    if usd is None or other_usd is None:
        money = f"{_signed(other_seconds - seconds, ',.0f')} s"
    else:
        change = other_usd - usd
        money = f"{'+' if change >= 0 else '-'}${abs(change):,.{2 if abs(change) >= 1 else 4}f}"
    return f"{money}, {_signed(gigabytes, ',.2f')} GB"


def _signed(value: float, form: str) -> str:
    return f"{'+' if value >= 0 else '-'}{abs(value):{form}}"
