"""From a model's name to a rig: skeleton, pre-trained weights, or random ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from tenfold.errors import InputError
from tenfold.rig.batch import PaddedLayout
from tenfold.rig.filler import filled_multiple
from tenfold.rig.loss import classification_loss, next_token_loss
from tenfold.rig.out_of_memory import ran_out_of_memory
from tenfold.rig.precision import default_dtype
from tenfold.rig.quantizing import store_linears, stored_as
from tenfold.rig.rig import Rig, Source, Task
from tenfold.rig.stream import stream_weights

HEADS = ("classifier", "score", "pre_classifier", "head")
"""What transformers calls the modules on top of a backbone for sequence classification."""

DROPOUTS = {
    "hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout", "hidden_dropout", "dropout",
    "resid_pdrop", "embd_pdrop", "attn_pdrop", "embedding_dropout", "mlp_dropout", "classifier_dropout",
    "seq_classif_dropout",
}  # fmt: skip
"""What configurations call the dropout of a model's parts."""


def build_rig(
    source: Source,
    task: Task,
    *,
    labels: tuple[str, ...] = (),
    device: torch.device | str = "cpu",
    micro_batch_rows: int = 8,
    pad_id: int | None = None,
    dropout: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> Rig:
    """A rig whose model is a skeleton on the meta device: shapes without weights.

    Raises InputError if transformers maps no class for the task.
    """
    try:
        config = AutoConfig.from_pretrained(source.name, revision=source.revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise InputError(
                f"model: {source.name!r} comes with code of its own, which tenfold never runs; choose a model that"
                " transformers knows by itself"
            ) from None
        raise InputError(f"model: cannot read {source.name!r}: {_first_line(error)}") from error
    if labels:
        config.num_labels = len(labels)
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: number for number, label in enumerate(labels)}
    if pad_id is not None and getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = pad_id
    if dropout is not None:
        for name in DROPOUTS & set(vars(config)):
            setattr(config, name, dropout)
    kind = AutoModelForSequenceClassification if task == "classify" else AutoModelForCausalLM
    try:
        with torch.device("meta"):
            computed_in = _dtype(config, torch.device(device))
            model = kind.from_config(config, attn_implementation="sdpa", dtype=computed_in, trust_remote_code=False)
    except ValueError as error:
        raise InputError(f"model: {source.name!r} cannot {_TASK[task]}: {_first_line(error)}") from error
    return Rig(
        model=model,
        task=task,
        source=source,
        device=torch.device(device),
        layout=PaddedLayout(
            micro_batch_rows,
            int(config.pad_token_id or 0),
            filled_multiple(torch.device(device), dtype, 1),
            needs_no_mask(model, torch.device(device), dtype),
        ),
        loss=classification_loss if task == "classify" else next_token_loss,
        dtype=dtype,
        labels=labels,
        new_modules=_heads(model) if task == "classify" else (),
    )


_TASK = {"classify": "classify sequences", "sft": "predict the next token", "text": "predict the next token"}


def needs_no_mask(model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether rows that are padded on the right are attended without one. In float32 a GPU's kernel wants as many key
    heads as query heads, which transformers makes of them beside a mask only; else attention is written out."""
    return looks_back_only(model) and not (device.type == "cuda" and dtype == torch.float32)


def looks_back_only(model: PreTrainedModel) -> bool:
    """Whether in every attention layer tokens see earlier ones alone, by what transformers' own functions ask it."""
    answers = [module.is_causal for module in model.modules() if hasattr(module, "is_causal")]
    return bool(answers) and all(answers)


def rig_around(model: PreTrainedModel, task: Task | None = None) -> Rig:
    """A rig with a model that somebody else has loaded."""
    if task is None:
        task = "classify" if type(model).__name__.endswith("ForSequenceClassification") else "text"
    return Rig(
        model=model,
        task=task,
        source=Source(str(model.config.name_or_path), None),
        device=model.device,
        layout=PaddedLayout(1, int(model.config.pad_token_id or 0)),
        loss=classification_loss if task == "classify" else next_token_loss,
        dtype=default_dtype(model.device),
        labels=tuple((model.config.id2label or {}).values()) if task == "classify" else (),
        new_modules=_heads(model) if task == "classify" else (),
    )


def initialise(rig: Rig) -> Rig:
    """The rig with random weights, float32: training from scratch."""
    model = type(rig.model)(rig.model.config)
    model.to(rig.device)  # pyright: ignore[reportArgumentType]  # transformers' wrapper loses the types
    return replace(rig, model=model, facts=(*rig.facts, "from scratch: all weights are random"))


def load_pretrained(rig: Rig) -> Rig:
    """The rig with pre-trained weights: float32 on the CPU, as stored on a GPU.

    Tensor by tensor into the skeleton where the files match it, else through transformers. The classification head is
    always new. Where the skeleton's layers are stored in few bits, so are those of the result. Raises InputError if the
    files hold too little of the model.
    """
    try:
        reason = _stream(rig)
        if not reason:
            fact = "fine_tune: pre-trained weights loaded, tensor by tensor"
            return replace(rig, facts=(*rig.facts, fact))
        model, missing = _load_whole(rig)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if ran_out_of_memory(error):
            raise  # not the model's fault; `train` knows what to say
        raise InputError(f"model: cannot load {rig.source.name!r}: {_first_line(error)}") from error
    new = _new_modules(model, missing) if rig.task == "classify" else ()
    absent = [key for key in missing if not any(key.startswith(f"{name}.") for name in (*new, *rig.new_modules))]
    if absent:
        raise InputError(
            f"model: {rig.source.name!r} lacks {len(absent)} tensors of {type(model).__name__}, first {absent[0]!r};"
            " is it a checkpoint of another kind of model?"
        )
    modules = tuple(dict.fromkeys((*rig.new_modules, *new)))
    if (storage_name := stored_as(rig.model)) is not None:
        store_linears(model, storage_name, modules, rig.device)
    named = f"; new: {', '.join(modules)}" if modules else ""
    fact = f"fine_tune: pre-trained weights loaded, whole: {reason}{named}"
    model.to(rig.device)  # pyright: ignore[reportArgumentType]  # transformers' wrapper loses the types
    return replace(rig, model=model, new_modules=modules, facts=(*rig.facts, fact))


def _dtype(config: PreTrainedConfig, device: torch.device) -> torch.dtype | None:
    """float32 on the CPU; on a GPU what the configuration says, if it does."""
    if device.type == "cpu":
        return torch.float32
    return config.dtype if isinstance(config.dtype, torch.dtype) else None


def _stream(rig: Rig) -> str:
    """Read the weights into the rig's skeleton, or say why not."""
    if rig.task == "classify":
        return "its head is new"
    return stream_weights(rig.model, rig.source, rig.device, _dtype(rig.model.config, rig.device))


def _load_whole(rig: Rig) -> tuple[PreTrainedModel, list[str]]:
    """A model by from_pretrained, all of it in host memory, and the names of the tensors that the files lack."""
    # Its declared types know neither a revision of None nor the pair that output_loading_info makes it return.
    load = cast("Any", type(rig.model).from_pretrained)
    model, report = load(
        rig.source.name,
        revision=rig.source.revision,
        config=rig.model.config,
        dtype=torch.float32 if rig.device.type == "cpu" else "auto",
        attn_implementation="sdpa",
        use_safetensors=True,
        output_loading_info=True,
    )
    return model, sorted(report["missing_keys"])


def _heads(model: PreTrainedModel) -> tuple[str, ...]:
    """The task's head, and the pooler below it where the backbone has one: both are made for the task, not for text."""
    heads = [name for name, _ in model.named_children() if name in HEADS]
    pooler = f"{model.base_model_prefix}.pooler"
    has_pooler = any(name == pooler for name, _ in model.named_modules())
    return (*((pooler,) if has_pooler else ()), *heads)


def _new_modules(model: PreTrainedModel, missing: list[str]) -> tuple[str, ...]:
    """Modules with missing weights, if outside the backbone or its pooler, which some checkpoints leave out."""
    prefix = model.base_model_prefix
    modules = [
        ".".join(key.split(".")[:2]) if key.startswith(f"{prefix}.pooler") else key.split(".")[0] for key in missing
    ]
    return tuple(name for name in dict.fromkeys(modules) if name != prefix)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
