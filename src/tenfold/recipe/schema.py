"""What a recipe may say: frozen models that refuse unknown keys, wrong types and numbers out of range.

The descriptions are what editors and the docs show. Upper bounds without a source are far beyond any real run; they
stand there to catch slips of the keyboard (`1e30`) before they cost money.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    StrictBool,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tenfold.recipe.contradictions import find_contradictions
from tenfold.recipe.machines import MachineWish
from tenfold.recipe.values import LEAST_USD, Count, Rows, Share, Switch, Text, Texts, Tokens, Wish, as_list, as_switch
from tenfold.recipe.warm_start import WarmStartWish

Task = Literal["classify", "sft", "text"]
Metric = Literal["loss", "perplexity", "accuracy", "macro_f1"]
Tracker = Literal["tensorboard", "wandb", "mlflow"]
OptimizerName = Literal["adamw", "adamw_8bit", "adamw_8bit_split"]


def _as_quantize(value: object) -> object:
    """A format alone is its settings."""
    return {"storage": value} if value in ("nf4", "int8", "fp8") else as_switch(value)


def _as_targets(value: object) -> object:
    return value if value == "all-linear" else as_list(value)


class ModelWish(Wish):
    """Which model to start from."""

    name: Text = Field(description="A folder, or a Hugging Face model id.", examples=["Qwen/Qwen3-0.6B"])
    revision: Text | None = Field(default=None, description="Branch, tag or commit of a Hugging Face model.")


class Columns(Wish):
    """Which columns hold what."""

    text: Text = Field(default="text", description="The text; tasks text and classify.")
    label: Text = Field(default="label", description="The label; task classify.")
    prompt: Text = Field(default="prompt", description="What the model is given; task sft.")
    completion: Text = Field(default="completion", description="What it learns to answer; task sft.")
    messages: Text = Field(default="messages", description="A conversation of roles and contents; task sft.")


class DataWish(Wish):
    """What to train and evaluate on."""

    train: Annotated[Texts, BeforeValidator(as_list, json_schema_input_type=Text | Texts)] = Field(
        description="Files (.jsonl, .json, .csv, .parquet) or Hugging Face dataset ids.", examples=["train.jsonl"]
    )
    eval: Annotated[Texts | None, BeforeValidator(as_list, json_schema_input_type=Text | Texts | None)] = Field(
        default=None, description="Files or dataset ids to evaluate on; else a share of the training rows is held out."
    )
    eval_fraction: Share = Field(
        default=0.05, description="Share of training rows held out if there is no data.eval; 0 turns evaluation off."
    )
    columns: Columns = Field(default=Columns(), description="Names of the columns.")
    max_length: Tokens | None = Field(default=None, description="Longest row in tokens; null is the model's own limit.")
    overlong: Literal["truncate", "drop", "split", "refuse"] | None = Field(
        default=None, description="Rows over max_length; null is truncate for classify, drop for sft, split for text."
    )
    duplicates: Literal["keep", "drop"] = Field(default="keep", description="Rows that occur more than once.")
    bad_rows: Literal["refuse", "drop"] = Field(default="refuse", description="Rows that cannot be used.")
    max_rows: Count | None = Field(default=None, description="Use only the first so many rows for training.")
    split: Text = Field(default="train", description="Split of a Hugging Face dataset.")
    subset: Text | None = Field(default=None, description="Subset (configuration) of a Hugging Face dataset.")

    @model_serializer(mode="wrap")
    def _leave_out_unused(self, rest: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is written is read again, and a share that data.eval overrules would be refused."""
        written = rest(self)
        if self.eval is not None:
            written.pop("eval_fraction", None)
        return written


class Budget(Wish):
    """What the run may cost at most; it stops with a checkpoint before it would cost more."""

    usd: float | None = Field(default=None, strict=True, ge=LEAST_USD, le=1e9, description="Dollars.", examples=[5])
    hours: float | None = Field(
        default=None, strict=True, gt=0, le=87_600, description="Hours; ten years at most.", examples=[2]
    )


class QualityWish(Wish):
    """How good the result has to be."""

    metric: Metric = Field(description="accuracy and macro_f1 for classify, perplexity for sft and text, loss for all.")
    at_least: float | None = Field(
        default=None, strict=True, ge=0, le=1, description="Floor for accuracy or macro_f1, as a share.", examples=[0.9]
    )
    at_most: float | None = Field(
        default=None, strict=True, gt=0, le=1e9, description="Ceiling for loss or perplexity.", examples=[1.5]
    )


class LoraWish(Wish):
    """Settings of the cut lora."""

    rank: int = Field(default=16, strict=True, ge=1, le=4096, description="Rank of the adapters.")
    alpha: float | None = Field(
        default=None, strict=True, gt=0, le=1e6, description="Scale of the adapters; null is twice the rank."
    )
    dropout: Share = Field(default=0.0, description="Dropout on the adapters' input.")
    targets: Annotated[
        Literal["all-linear"] | Texts,
        BeforeValidator(_as_targets, json_schema_input_type=Literal["all-linear"] | Text | Texts),
    ] = Field(default="all-linear", description="all-linear, or the names of modules.", examples=["all-linear"])
    rslora: StrictBool = Field(default=False, description="Scale by alpha / sqrt(rank) instead of alpha / rank.")


class QuantizeWish(Wish):
    """Settings of the cut quantize."""

    storage: Literal["nf4", "int8", "fp8", "auto"] = Field(
        default="nf4",
        description="How frozen weights are kept: 4.1 bits (nf4, double quantization), or 8; auto: what is cheapest.",
    )
    compute: Literal["bf16", "fp8", "auto"] = Field(
        default="bf16", description="What products with them are computed in; fp8 needs compute capability 8.9."
    )
    keep: bool | None = Field(
        default=False,
        description="Keep in memory what products take: faster, and larger than the storage alone; null: if it pays.",
    )


class CheckpointWish(Wish):
    """Settings of the cut checkpoint."""

    layers: int | None = Field(
        default=None,
        strict=True,
        ge=1,
        le=10_000,
        description="How many blocks to recompute; null lets the planner choose, or is none beside offload.",
    )
    offload: int | None = Field(
        default=None,
        strict=True,
        ge=1,
        le=10_000,
        description="What so many blocks keep waits in host memory; null lets the planner choose, or is none beside"
        " layers.",
    )
    mlp_tiles: int | None = Field(
        default=None,
        strict=True,
        ge=2,
        le=1024,
        description="Tiles of tokens that the feed-forward parts of recomputed blocks run in, for very long rows; null"
        " lets the planner choose, or is one beside layers or offload. All blocks are recomputed unless layers says.",
    )


class PackWish(Wish):
    """Settings of the cut pack."""

    tokens: Tokens | None = Field(
        default=None, description="Tokens of one packed micro-batch; null lets the planner choose."
    )


class FuseWish(Wish):
    """Settings of the cut fuse."""

    loss_rows: Rows = Field(default=2048, description="Tokens whose logits are held at once.")
    compile: bool | None = Field(
        default=None, description="Compile layers and record passes; null lets the planner choose, on GPUs only."
    )


class Cuts(Wish):
    """Which cuts to make: auto (the planner decides), true (forced), false (forbidden), or settings (forced).

    Of the approximate cuts (lora) auto takes those alone whose quality was measured for the task.
    """

    fine_tune: Annotated[Switch, BeforeValidator(as_switch)] = Field(
        default="auto", description="Start from the model's weights; false starts from noise."
    )
    warm_start: Annotated[Switch | WarmStartWish, BeforeValidator(as_switch)] = Field(
        default="auto",
        description="New tokens or layers, initialised from what is known; true adds tokens, auto leaves it off.",
    )
    lora: Annotated[Switch | LoraWish, BeforeValidator(as_switch)] = Field(
        default="auto", description="Freeze the weights, learn low-rank adapters; approximate."
    )
    quantize: Annotated[
        Switch | QuantizeWish,
        BeforeValidator(
            _as_quantize, json_schema_input_type=Switch | Literal["off", "nf4", "int8", "fp8"] | QuantizeWish
        ),
    ] = Field(
        default="auto",
        description="Keep the frozen weights under lora in few bits; true is nf4, auto leaves it off: its quality is"
        " measured on one small model alone.",
    )
    checkpoint: Annotated[
        Switch | Literal["selective", "full"] | CheckpointWish,
        BeforeValidator(
            as_switch, json_schema_input_type=Switch | Literal["off", "selective", "full"] | CheckpointWish
        ),
    ] = Field(default="auto", description="Recompute activations instead of keeping them; off is false.")
    pack: Annotated[Switch | PackWish, BeforeValidator(as_switch)] = Field(
        default="auto", description="Lay rows end to end instead of padding them."
    )
    fuse: Annotated[Switch | FuseWish, BeforeValidator(as_switch)] = Field(
        default="auto", description="A loss that never holds all logits, and on GPUs compiled layers."
    )


class TrainWish(Wish):
    """How to train. AdamW; one optimizer step is `batch_size` rows, however they are laid out."""

    epochs: float = Field(default=3.0, strict=True, gt=0, le=10_000, description="Passes over the data.", examples=[3])
    max_steps: Count | None = Field(default=None, description="Optimizer steps, instead of epochs.", examples=[100])
    batch_size: Rows = Field(
        default=32,
        description="Rows per optimizer step, fewer in the last of an epoch: micro_batch_size x accumulation steps.",
    )
    micro_batch_size: Rows | None = Field(
        default=None, description="Rows computed at once; null lets the planner choose."
    )
    learning_rate: float | None = Field(
        default=None,
        strict=True,
        gt=0,
        le=10,
        description="Peak learning rate; null chooses by method.",
        examples=[2e-4],
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        default="linear", description="Course of the rate after warmup."
    )
    warmup: float = Field(
        default=0.03,
        strict=True,
        ge=0,
        le=1e9,
        description="Below 1 a share of all steps, from 1 on a number of steps.",
    )
    weight_decay: float = Field(
        default=0.0, strict=True, ge=0, le=10, description="Decay of weights, not of biases and norms."
    )
    beta1: Share = Field(default=0.9, description="AdamW's decay of the mean of gradients.")
    beta2: Share = Field(default=0.999, description="AdamW's decay of the mean of squared gradients.")
    optimizer: OptimizerName | Literal["auto"] = Field(
        default="adamw",
        description="AdamW, or the same with its moments in 8 bits, or with these and weights of 24 bits, 16 of which"
        " compute; the latter for full fine-tuning in bfloat16. auto: the cheaper one of the first two.",
    )
    epsilon: float = Field(default=1e-8, strict=True, gt=0, le=1, description="AdamW's term against division by zero.")
    max_grad_norm: float | None = Field(
        default=1.0,
        strict=True,
        gt=0,
        le=1e6,
        description="Gradients are clipped to this norm; null turns clipping off.",
    )
    on_loss_spike: Literal["record", "stop", "skip"] = Field(
        default="record",
        description="A step whose loss is far above those before it: recorded and learned from; or left out, and the"
        " run stops behind it or goes on.",
    )
    dropout: Share | None = Field(
        default=None, description="Dropout of the model itself; null keeps what its configuration says.", examples=[0.0]
    )
    seed: int = Field(
        default=0, strict=True, ge=0, le=2**32 - 1, description="Seed of row order, dropout and new weights."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="Number format of the computation."
    )
    shuffle: StrictBool = Field(default=True, description="Another order of rows in every epoch.")
    eval_every_steps: Count | None = Field(
        default=None, description="Steps between evaluations; null is once per epoch."
    )
    save_every_steps: Count | None = Field(
        default=None, description="Steps between checkpoints; null is only when stopped."
    )
    keep_checkpoints: int = Field(default=2, strict=True, ge=1, le=1000, description="How many checkpoints to keep.")
    log_every_steps: Count = Field(default=10, description="Steps between lines of progress.")

    @model_serializer(mode="wrap")
    def _leave_out_unused(self, rest: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is written is read again, and both epochs and max_steps would be refused."""
        written = rest(self)
        if self.max_steps is not None:
            written.pop("epochs", None)
        return written


class Output(Wish):
    """Where results go."""

    folder: Text = Field(
        default="runs/recipe", description="Folder of the run; runs/<name of the recipe file> if not given."
    )
    tags: tuple[Text, ...] = Field(default=(), description="Words to find the run by in the ledger.")
    trackers: tuple[Tracker, ...] = Field(default=(), description="Experiment trackers to write to as well.")
    ledger: Text | None = Field(default=None, description="The ledger's file; null is the default one.")


class Recipe(Wish):
    """What is wanted: the model, the data, the limits, and what to leave to the planner."""

    model: ModelWish = Field(description="Which model to start from; a name alone will do.")
    task: Task = Field(description="classify (labels), sft (answers to prompts) or text (plain text).")
    data: DataWish = Field(description="What to train and evaluate on; files alone will do.")
    budget: Budget = Field(default=Budget(), description="What the run may cost at most.")
    quality: QualityWish | None = Field(default=None, description="How good the result has to be.")
    machine: MachineWish = Field(
        default=MachineWish(), description="Which computers may be used; a name alone will do."
    )
    cuts: Cuts = Field(default=Cuts(), description="Which cuts to make; the planner decides if not given.")
    train: TrainWish = Field(default=TrainWish(), description="How to train.")
    output: Output = Field(default=Output(), description="Where results and their records go.")

    @model_validator(mode="after")
    def _agree(self) -> Recipe:
        if found := find_contradictions(self):
            text = "; ".join(f"{one.keys[0]}: {one.text}" for one in found)
            raise PydanticCustomError("contradiction", "{text}", {"text": text, "found": found})
        return self
