"""Cut 3: new tokens and new layers start from what is known, not from noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from tenfold.cuts.cut import Cut

if TYPE_CHECKING:
    from tenfold.job import Job
    from tenfold.rig.rig import Rig
    from tenfold.shape import Shape

Method = Literal["random", "mean", "subtokens", "compose", "focus", "transplant", "donor", "distil"]

DISTIL_BLOCKS = 1
"""distil matches states after so many blocks."""

DISTIL_POSITIONS = 1
"""distil reads so many tokens of text for each new row: the common ones several times, the rarest never."""

DISTIL_LEAST_POSITIONS = 2000
"""That it reads in any case: a few rows would else be fitted in too few steps."""

DISTIL_EPOCHS = 3
"""It goes over them so many times, having heard once what the teacher says."""

DISTIL_AT_ONCE = 320
"""New tokens in one product, about: small steps, and many of them, from few positions."""

DISTIL_DENSITY = 1.9
"""Times as dense as in the texts are new tokens in what it reads (classics-28m on PubMedQA)."""

LOGIT_ROWS = 256
"""Positions whose logits distil has at once."""

RETENTION_LONGEST = 625
"""Tokens of a text of the old domain, of 2,000 characters (run/retention.py)."""

RETENTION_TOKENS = 3 * 16 * RETENTION_LONGEST
"""That are scored: 16 texts, three times."""

FLOAT32_BYTES = 4


def distil_positions(rows: int) -> int:
    """Tokens of text that distil reads for so many new rows, if there is that much."""
    return max(DISTIL_POSITIONS * rows, DISTIL_LEAST_POSITIONS)


@dataclass(frozen=True)
class WarmStart(Cut):
    """Give the model a vocabulary in which its new texts are shorter, or other layers, all of them initialised.

    Saves: the positions that fewer tokens take, in training and in use; of the training itself, what rows of noise
    would take to become rows.
    Costs: a row of the embeddings per token, multiplied at every position that bears loss; what the method takes before
    the first step; a copy of the base on disk, in its new form; retention, by a loss that is measured before and after.
    Evidence: bench/results/warm_start_2cores_2026-11-24.json; auto leaves it off, since its quality is measured on one
    small model alone.
    Paper: arXiv 2211.10974 (subtokens), 2305.14481 (focus), 2506.06607 (transplant), 2505.20133 (distil), 2401.02415
    (grown layers), 2312.09299 (smaller models from larger ones).

    `tokens` are new, in the spelling of the tokenizer's model; or `tokenizer` names another whole vocabulary. New rows
    learn at a rate of their own, and alone in the first `rows_first` of the steps. Blocks: those of `keep_layers` (all
    if empty), then `take_layers` of the donor, then `grow_layers` new ones spread among them that change nothing yet.
    """

    name: ClassVar[str] = "warm_start"
    exact: ClassVar[bool] = False

    tokens: tuple[str, ...] = ()
    tokenizer: str = ""
    initialise: Method = "distil"
    donor: str = ""
    rows_first: float = 0.0
    rows_learning_rate: float = 2e-3
    keep_layers: tuple[int, ...] = ()
    take_layers: tuple[int, ...] = ()
    grow_layers: int = 0
    intermediate_size: int = 0
    """Of the feed-forward parts, narrower than the model's; 0 leaves it."""
    hidden_size: int = 0
    """Channels of the stream, fewer than the model's; 0 leaves them."""
    num_attention_heads: int = 0
    """Fewer than the model's, as wide as they are; 0 leaves them."""

    @property
    def changes_vocabulary(self) -> bool:
        """Whether rows are new."""
        return bool(self.tokens or self.tokenizer)

    @property
    def changes_layers(self) -> bool:
        """Whether blocks are."""
        return bool(self.keep_layers or self.take_layers or self.grow_layers or self.changes_width)

    @property
    def changes_width(self) -> bool:
        """Whether they are narrower."""
        return bool(self.intermediate_size or self.hidden_size or self.num_attention_heads)

    def price(self, job: Job) -> Job:
        """Fewer positions and more rows; other blocks."""
        if not job.pretrained:
            return job
        shape, workload, new = job.shape, job.workload, job.workload.new_vocabulary
        rows = blocks = 0
        if self.changes_layers:
            layers = (len(self.keep_layers) or shape.layers) + len(self.take_layers) + self.grow_layers
            shape = shape.with_blocks(layers, self.intermediate_size or shape.intermediate_size)
            shape = shape.with_width(self.hidden_size, self.num_attention_heads)
            blocks = self.grow_layers * shape.parameters_per_block
        if self.changes_vocabulary and new is not None:
            shape, workload = shape.with_rows(new.table_rows), new.workload
            rows = new.new_rows * shape.hidden_size * shape.tables
        if shape == job.shape and workload == job.workload:
            return job
        return replace(
            job,
            original=(job.shape, job.workload),
            shape=shape,
            workload=workload,
            row_parameters=rows,
            preparation_bytes=self._preparation_bytes(job, shape, rows),
            preparation_flops=2.0 * RETENTION_TOKENS * job.shape.block_parameters
            + (self._distil_flops(job) if rows and self.initialise == "distil" else 0.0),
            full_block_parameters=blocks,
        )

    def _preparation_bytes(self, job: Job, shape: Shape, rows: int) -> float:
        """The named model whole and dense, however it is stored later, and beside it all of a model with other blocks;
        and the most of: a pass over text, its logits, what distil keeps and one block takes forward and back, tables
        old, new and in place."""
        size, distils = job.loaded_bytes, bool(rows) and self.initialise == "distil"
        whole = size * (job.shape.parameters + (shape.parameters if self.changes_layers else 0))
        table = shape.hidden_size * shape.vocab_size
        positions = self._distil_positions(job) if distils else 0
        lessons = FLOAT32_BYTES * (2.0 * positions * shape.hidden_size + 4.0 * rows)  # and rows as Adam holds them
        read = max(RETENTION_LONGEST, DISTIL_AT_ONCE * self._distil_old_tokens(job) if distils else 0.0)
        pass_over_text = FLOAT32_BYTES * read * (3.0 * shape.intermediate_size + 4.0 * shape.hidden_size)
        fitting = FLOAT32_BYTES * DISTIL_AT_ONCE * (6.0 * shape.intermediate_size + 12.0 * shape.hidden_size)
        made = (
            3.0 * FLOAT32_BYTES * RETENTION_LONGEST * shape.vocab_size,
            max(pass_over_text, fitting) + lessons if distils else pass_over_text,
            size * table + lessons + 2.0 * FLOAT32_BYTES * LOGIT_ROWS * shape.vocab_size if distils else 0.0,
            (2.0 * FLOAT32_BYTES + size) * table * shape.tables if rows else 0.0,
        )
        return whole + max(made)

    def _distil_positions(self, job: Job) -> int:
        new = job.workload.new_vocabulary
        assert new is not None
        return min(distil_positions(new.new_rows), new.workload.tokens)

    def _distil_old_tokens(self, job: Job) -> float:
        """For each new one of what it reads."""
        new = job.workload.new_vocabulary
        assert new is not None
        return 1 + DISTIL_DENSITY * (job.workload.tokens / new.workload.tokens - 1)

    def _distil_flops(self, job: Job) -> float:
        """The teacher reads old tokens once. Then rows are fitted through the first blocks, which are frozen, and by
        the last states, which are given: two products each, forward and back."""
        new = job.workload.new_vocabulary
        assert new is not None
        shape = job.shape
        head = 0 if job.task == "classify" else shape.hidden_size
        teacher = self._distil_old_tokens(job) * shape.block_parameters + head * shape.vocab_size
        fitted = shape.block_parameters * min(1.0, DISTIL_BLOCKS / shape.layers) + head * new.new_rows
        return self._distil_positions(job) * (2.0 * teacher + 4.0 * DISTIL_EPOCHS * fitted)

    def apply(self, rig: Rig) -> Rig:
        """Change the model, or find it changed already; let its new rows and blocks learn."""
        from tenfold.rig.warm.start import warm_start

        return warm_start(rig, self)
