"""New rows fitted so that the model, unchanged, does with a new token what it did with the tokens before.

Both sides of a row are fitted to a teacher, which is the model itself reading the same text in its old vocabulary.
Input: after the first blocks the state at a new token is to be the state that stood at the last of its old tokens
(arXiv 2505.20133 matches a later block's; the first ones cost a fraction). Output: in the teacher's last states a row
is to win where the text goes on with its token, and nowhere else; what the old tokens win there is one number a
position, so that rows are learned at the price of rows. Tied rows are fitted to both at once. What is read
are stretches of text with many new tokens, the common ones first; the rarest only learn where they do not stand.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from tenfold.cuts.warm_start import DISTIL_AT_ONCE, DISTIL_BLOCKS, DISTIL_EPOCHS, LOGIT_ROWS, distil_positions
from tenfold.errors import InputError
from tenfold.rig.precision import autocast
from tenfold.rig.warm.means import subtoken_rows
from tenfold.rig.warm.request import Request, Rows
from tenfold.rig.warm.windows import Window, choose_windows

WIDTH = 16
"""New tokens that are read at once, without what stood before them: short stretches hold more of what is looked for,
long ones have more to go by (classics-28m on 8 documents of PubMedQA: 1.361, 1.359, 1.348 and 1.349 nats per byte
before training with 8, 12, 16 and 24)."""

RATE = 0.35
"""Of Adam, falling to 0, as a share of the root mean square of the rows that it starts from (classics-28m)."""

DAMPING = 3.0
"""Adam's epsilon, as a multiple of the root mean square of its first gradient. A row's token stands in few batches, and
in all others the row is only pushed back a little: with the usual epsilon those pushes are made as large as what the
token's own text says (found on classics-28m, as the weight below)."""

INPUT_WEIGHT = 10.0
"""Of the input's error, a share, beside the output's, in nats, where one row has both."""


@dataclass(frozen=True)
class Lesson:
    """A batch of windows, [B, L] new tokens padded on the right, with what the teacher had to say."""

    ids: torch.Tensor
    mask: torch.Tensor
    """Where there is a token."""
    known: torch.Tensor
    """Where a token ends with an old one, so that there is a state to match."""
    early: torch.Tensor
    """[B, L, hidden]: the teacher's states after DISTIL_BLOCKS blocks."""
    last: torch.Tensor | None
    """[B, L, hidden]: its last states; None without a head."""
    background: torch.Tensor | None
    """[B, L]: the log-sum-exp of the logits of all tokens that are kept."""


def distilled_rows(request: Request) -> Rows:
    """Rows of sub-token means, fitted. Raises InputError without text that shows the new tokens."""
    wanted = frozenset(request.transfer.new_ids)
    most = distil_positions(len(wanted))
    longest = int(getattr(request.model.config.get_text_config(), "max_position_embeddings", 0) or 4 * WIDTH)
    width = min(WIDTH, longest // 4)  # the same stretch takes more of the old tokens
    windows = choose_windows(request.texts, request.old, request.new, wanted, width, most)
    windows = [window for window in windows if len(window.old) <= longest - 2]  # RoBERTa counts two positions more
    if not windows:
        raise InputError(
            "cuts.warm_start.initialise: distil learns new rows from text that holds their tokens, and found none; name"
            " data that does, or write subtokens"
        )
    model = request.model
    windows.sort(key=lambda window: len(window.old))  # so that next to nothing is padded
    at_once = DISTIL_AT_ONCE // width
    groups = [windows[start : start + at_once] for start in range(0, len(windows), at_once)]
    training, learning = model.training, [weight for weight in model.parameters() if weight.requires_grad]
    model.eval().requires_grad_(False)
    try:
        with autocast(model.device, request.dtype):
            kept = _kept_rows(request)
            lessons = [_teach(request, group, kept) for group in groups]
            return _fit(request, lessons, subtoken_rows(request))
    finally:
        model.train(training)
        for weight in learning:
            weight.requires_grad_(True)


@torch.no_grad()
def _teach(request: Request, windows: Sequence[Window], kept: torch.Tensor | None) -> Lesson:
    model, device = request.model, request.model.device
    old, mask = _padded([window.old for window in windows], device)
    ids, there = _padded([window.new for window in windows], device)
    ends, _ = _padded([window.ends for window in windows], device, filling=-1)
    early, last = _states(model, {"input_ids": old, "attention_mask": mask.long()}, stop=False)
    place = ends.clamp_min(0)[..., None]
    early = early.gather(1, place.expand(-1, -1, early.shape[-1]))
    if kept is None:
        return Lesson(ids, there, ends >= 0, early, None, None)
    last = last.gather(1, place.expand(-1, -1, last.shape[-1]))
    background = [(part @ kept.T.to(part.dtype)).float().logsumexp(-1) for part in last.flatten(0, 1).split(LOGIT_ROWS)]
    return Lesson(ids, there, ends >= 0, early, last, torch.cat(background).view(ids.shape))


def _kept_rows(request: Request) -> torch.Tensor | None:
    """[kept, hidden]: those of the head; None without one."""
    head = cast("torch.nn.Linear | None", request.model.get_output_embeddings())
    if head is None:
        return None
    table = head.weight.detach()
    return table[torch.tensor([number for _, number in request.transfer.kept], device=table.device)]


def _fit(request: Request, lessons: list[Lesson], start: Rows) -> Rows:
    """Adam over the rows alone, damped."""
    device = request.model.device
    numbers = torch.full((request.transfer.rows,), -1, device=device)
    numbers[torch.tensor(request.transfer.new_ids, device=device)] = torch.arange(len(start.input), device=device)
    rows = torch.nn.Parameter(start.input.to(device))
    output = rows if start.output is None else torch.nn.Parameter(start.output.to(device))
    tables = [rows] if output is rows else [rows, output]
    rates = [RATE * _root_mean_square(table) for table in tables]
    optimizer = torch.optim.Adam([{"params": [table]} for table in tables])
    total = DISTIL_EPOCHS * len(lessons)
    for step, number in enumerate(_order(len(lessons), request.seed)):
        lesson = lessons[number]
        places = numbers[lesson.ids]
        loss = INPUT_WEIGHT * input_error(request, lesson, places, rows)
        if lesson.last is not None:
            loss = loss + output_error(lesson, places, output)
        optimizer.zero_grad()
        loss.backward()
        for group, rate, table in zip(optimizer.param_groups, rates, tables, strict=True):
            group["lr"] = rate * (1 - step / total)
            if step == 0 and table.grad is not None:
                group["eps"] = max(1e-8, DAMPING * _root_mean_square(table.grad))
        optimizer.step()
    fitted = rows.detach().float().cpu()
    return Rows(fitted, None if start.output is None else output.detach().float().cpu())


def _root_mean_square(values: torch.Tensor) -> float:
    return float(values.detach().square().mean().sqrt())


def _order(lessons: int, seed: int) -> list[int]:
    """All of them in each epoch, in an order of its own."""
    draw = random.Random(f"distil {seed}")
    return [number for _ in range(DISTIL_EPOCHS) for number in draw.sample(range(lessons), lessons)]


def input_error(request: Request, lesson: Lesson, places: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The squared distance of the states from the teacher's, from the first new token of each window on, as a share of
    the teacher's square."""
    model = request.model
    embedding = cast("torch.nn.Embedding", model.get_input_embeddings())
    is_new = (places >= 0) & lesson.mask
    own = _old_ids(request, lesson.ids)
    learned = F.embedding(places.clamp_min(0), rows)
    scale = getattr(embedding, "embed_scale", None)  # Gemma multiplies in the embedding itself
    if scale is not None:
        learned = learned * torch.as_tensor(scale, dtype=learned.dtype, device=learned.device)
    inputs = torch.where(is_new[..., None], learned.to(embedding.weight.dtype), embedding(own))
    states, _ = _states(model, {"inputs_embeds": inputs, "attention_mask": lesson.mask.long()}, stop=True)
    counted = (is_new.cumsum(1) > 0) & lesson.known & lesson.mask
    wanted = lesson.early[counted].float()
    return (states[counted].float() - wanted).square().mean() / wanted.square().mean().clamp_min(1e-12)


def output_error(lesson: Lesson, places: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the token that follows, less what the rows cannot change."""
    assert lesson.last is not None
    assert lesson.background is not None
    counted = lesson.known[:, :-1] & lesson.mask[:, 1:]
    background, following = lesson.background[:, :-1][counted], places[:, 1:][counted]
    logits = (lesson.last[:, :-1][counted] @ rows.T.to(lesson.last.dtype)).float()
    everything = torch.logaddexp(background, logits.logsumexp(-1))
    own = logits.gather(1, following.clamp_min(0)[:, None])[:, 0]
    return (everything - torch.where(following >= 0, own, background)).mean()


def _old_ids(request: Request, ids: torch.Tensor) -> torch.Tensor:
    """New ids as ids of the old table; 0 for a token that it lacks."""
    table = torch.zeros(request.transfer.rows, dtype=torch.long, device=ids.device)
    kept = torch.tensor(request.transfer.kept, device=ids.device)
    table[kept[:, 0]] = kept[:, 1]
    return table[ids]


class _EnoughError(Exception):  # no error: what follows is not needed
    """Carries the states out of a forward pass."""

    def __init__(self, states: torch.Tensor) -> None:
        super().__init__()
        self.states = states


def _states(model: PreTrainedModel, inputs: dict[str, Any], stop: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """States after DISTIL_BLOCKS blocks, and the last ones; the first ones twice if it is to `stop` there."""
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    found: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, args: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)
        if stop:
            raise _EnoughError(found[0])

    hook = blocks[min(DISTIL_BLOCKS, len(blocks)) - 1].register_forward_hook(keep)
    if hasattr(model.config, "use_cache"):  # keys and values of all blocks, else held to the end
        inputs = {**inputs, "use_cache": False}
    try:
        last = model.base_model(**inputs).last_hidden_state
    except _EnoughError as enough:
        return enough.states, enough.states
    finally:
        hook.remove()
    return found[0], last


def _padded(rows: Sequence[Sequence[int]], device: torch.device, filling: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """[B, L] of ids, and where there is one."""
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=filling)
    lengths = torch.tensor([len(row) for row in rows])
    return ids.to(device), (torch.arange(ids.shape[1]) < lengths[:, None]).to(device)
