"""The formulas against real models: what autograd keeps, and what torch's own counter counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any
from weakref import WeakSet

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch.autograd.graph import saved_tensors_hooks  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from tenfold.cuts import Checkpoint, Cut, FineTune, Fuse, LoRA, Pack, Quantize, on_paper, on_rig  # noqa: E402
from tenfold.data.tokenize import Sample  # noqa: E402
from tenfold.job import Job, bytes_by_kind, flops_by_part, kept_bytes, seconds_by_part  # noqa: E402
from tenfold.job.activations import input_bytes  # noqa: E402
from tenfold.job.fullest import fullest_head_rows, fullest_last_block_share  # noqa: E402
from tenfold.machine import local_machine  # noqa: E402
from tenfold.rig.batch import PaddedLayout  # noqa: E402
from tenfold.rig.compiling import TORCH  # noqa: E402
from tenfold.rig.loss import classification_loss, next_token_loss  # noqa: E402
from tenfold.rig.model import looks_back_only  # noqa: E402
from tenfold.rig.rig import Rig, Source  # noqa: E402
from tenfold.rig.stored_linear import StoredLinear  # noqa: E402
from tenfold.shape import shape_from_config  # noqa: E402
from tenfold.workload import Workload  # noqa: E402

VOCABULARY = 1000
WIDE = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 6}
COMMON: dict[str, Any] = {"vocab_size": VOCABULARY, "max_position_embeddings": 258, "pad_token_id": 0}
IDS: dict[str, Any] = {"bos_token_id": 2, "eos_token_id": 3}
GROUPED = {"num_key_value_heads": 2}
DISTILBERT = {"vocab_size": VOCABULARY, "pad_token_id": 0, "dim": 192, "hidden_dim": 512, "n_layers": 3, "n_heads": 6}
GPT2: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_token_id": 0, "n_embd": 192, "n_layer": 3, "n_head": 6, **IDS}

DECODERS = {
    "llama": transformers.LlamaConfig(**COMMON, **IDS, **WIDE, **GROUPED),
    "qwen2": transformers.Qwen2Config(**COMMON, **IDS, **WIDE, **GROUPED),
    "qwen3": transformers.Qwen3Config(**COMMON, **IDS, **WIDE, **GROUPED, head_dim=32, tie_word_embeddings=True),
    "mistral": transformers.MistralConfig(**COMMON, **IDS, **WIDE, num_key_value_heads=6, sliding_window=None),
    "gemma3": transformers.Gemma3TextConfig(
        **COMMON, **IDS, **WIDE, **GROUPED, head_dim=32, sliding_window=300, query_pre_attn_scalar=32
    ),
    "phi3": transformers.Phi3Config(**COMMON, **IDS, **WIDE, **GROUPED, sliding_window=None),
    "gpt2": transformers.GPT2Config(**GPT2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
    "gpt2 with dropout": transformers.GPT2Config(**GPT2),
}
ENCODERS = {
    "bert": transformers.BertConfig(**COMMON, **WIDE, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
    "bert with dropout": transformers.BertConfig(**COMMON, **WIDE),
    "roberta": transformers.RobertaConfig(**{**COMMON, "pad_token_id": 1}, **IDS, **WIDE),
    "distilbert": transformers.DistilBertConfig(**DISTILBERT, dropout=0.0, attention_dropout=0.0),
    "distilbert with dropout": transformers.DistilBertConfig(**DISTILBERT),
    "modernbert": transformers.ModernBertConfig(
        **COMMON, **IDS, **WIDE, cls_token_id=2, sep_token_id=3, local_attention=600, global_attn_every_n_layers=2
    ),
}
FAMILIES = {**DECODERS, **ENCODERS}

UNEQUAL, EQUAL = (120, 90, 64, 17), (96, 96, 96)
"""Rows of one padded micro-batch, with an attention mask and without."""


def rows_of(task: str, lengths: Sequence[int]) -> list[Sample]:
    generator = torch.Generator().manual_seed(0)
    rows: list[Sample] = []
    for line, length in enumerate(lengths, 1):
        ids = torch.randint(4, VOCABULARY, (length,), generator=generator).tolist()
        mask = None if task == "classify" else bytes([0, *(place % 2 for place in range(1, length))])
        rows.append(Sample(ids, mask, line % 3 if task == "classify" else None, "rows.jsonl", line))
    return rows


LAYERS = {"num_hidden_layers", "n_layer", "n_layers"}
"""What configurations call the number of their blocks."""


def make_rig(family: str, rows: int, layers: int = 3) -> Rig:
    torch.manual_seed(0)
    named = FAMILIES[family].to_dict()
    changed: dict[str, Any] = dict.fromkeys(LAYERS & set(named), layers)
    if named.get("layer_types"):
        changed["layer_types"] = [named["layer_types"][place % 3] for place in range(layers)]
    config = type(FAMILIES[family]).from_dict({**named, **changed, "num_labels": 3})
    decoder = family in DECODERS
    kind = transformers.AutoModelForCausalLM if decoder else transformers.AutoModelForSequenceClassification
    model = kind.from_config(config, attn_implementation="sdpa")
    heads = ("classifier", "pre_classifier", "head")
    return Rig(
        model=model,
        task="text" if decoder else "classify",
        source=Source(family),
        device=torch.device("cpu"),
        layout=PaddedLayout(rows, int(config.pad_token_id), causal=looks_back_only(model)),
        loss=next_token_loss if decoder else classification_loss,
        labels=() if decoder else ("a", "b", "c"),
        new_modules=() if decoder else tuple(name for name, _ in model.named_children() if name in heads),
    )


def make_job(family: str, samples: Sequence[Sample]) -> Job:
    task = "text" if family in DECODERS else "classify"
    labels = 0 if family in DECODERS else 3
    shape = shape_from_config(family, FAMILIES[family].to_dict())
    machine = replace(local_machine(), vendor_kind="cpu", flops={"float32": 1e11}, compute_capability=None)
    return Job(
        shape=shape,
        workload=Workload.from_samples(samples, labels=labels),
        machine=machine,
        task=task,
        batch_size=len(samples),
        micro_rows=len(samples),
        steps_wanted=1,
        epochs=1.0,
        labels=labels,
    )


@dataclass(eq=False)
class Saved:
    """A tensor as autograd's graph holds it: gone with the part of the graph that nothing reads."""

    tensor: torch.Tensor


class Kept:
    """Unique storages that autograd keeps, parameters and buffers left out."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._known = {x.untyped_storage().data_ptr() for x in (*model.parameters(), *model.buffers())}
        self._saved: WeakSet[Saved] = WeakSet()

    def pack(self, tensor: torch.Tensor) -> Saved:
        saved = Saved(tensor)
        self._saved.add(saved)
        return saved

    def bytes_now(self) -> int:
        storages = {saved.tensor.untyped_storage().data_ptr(): saved.tensor.untyped_storage() for saved in self._saved}
        return sum(storage.nbytes() for pointer, storage in storages.items() if pointer not in self._known)


def kept_by(rig: Rig, samples: Sequence[Sample]) -> int:
    """Bytes that autograd keeps of one micro-batch."""
    kept = Kept(rig.model)
    rig.model.train()
    (batch,) = rig.layout(samples)
    with saved_tensors_hooks(kept.pack, lambda saved: saved.tensor):
        loss = rig.loss(rig.model, batch)
    assert loss.requires_grad
    return kept.bytes_now()


def measure(rig: Rig, samples: Sequence[Sample]) -> tuple[int, int]:
    """(bytes that autograd keeps, FLOPs of forward and backward) of one micro-batch."""
    kept = Kept(rig.model)
    rig.model.train()
    (batch,) = rig.layout(samples)
    with FlopCounterMode(display=False) as counter:
        with saved_tensors_hooks(kept.pack, lambda saved: saved.tensor):
            loss = rig.loss(rig.model, batch)
        kept_bytes = kept.bytes_now()
        loss.backward()
    return kept_bytes, counter.get_total_flops()


def kept_on_paper(job: Job) -> float:
    """Activations, and what of the loss lasts until the backward pass.

    Autograd does not see the whole input of a last block that is recomputed and works on fewer rows: the block hands it
    to its attention by a keyword, which checkpoint holds by itself. With torch 2.11 it is the picked rows that it does
    not see.
    """
    total = kept_bytes(job, job.largest)
    if job.recomputed_layers == job.shape.layers and fullest_last_block_share(job) < 1:
        total -= input_bytes(job, job.largest) * (1.0 if TORCH >= (2, 13) else fullest_last_block_share(job))
    if job.task == "classify":
        return total
    if job.loss_rows is None:
        return total + 4 * VOCABULARY * job.largest.tokens
    gradient_of_head = 0 if job.adapted else 4 * job.shape.head_parameters
    return total + 4 * fullest_head_rows(job) * job.shape.hidden_size + gradient_of_head


LORA = LoRA(rank=8, alpha=16.0)
COMBINATIONS: dict[str, tuple[Cut, ...]] = {
    "full": (),
    "lora": (LORA,),
    "lora with dropout": (LoRA(rank=8, alpha=16.0, dropout=0.1),),
    "checkpoint": (Checkpoint(layers=2),),
    "lora checkpoint": (LORA, Checkpoint(layers=2)),
    "pack": (Pack(tokens=4096),),
    "lora pack": (LORA, Pack(tokens=4096)),
    "fuse": (Fuse(loss_rows=32),),
    "lora fuse": (LORA, Fuse(loss_rows=32)),
    "lora with dropout fuse": (LoRA(rank=8, alpha=16.0, dropout=0.1), Fuse(loss_rows=32)),
    "lora pack fuse": (LORA, Pack(tokens=4096), Fuse(loss_rows=32)),
    "lora pack fuse checkpoint all": (LORA, Pack(tokens=4096), Fuse(loss_rows=32), Checkpoint(layers=3)),
    "quantize lora": (Quantize(), LORA),
    "quantize lora pack checkpoint": (Quantize("fp8"), LORA, Pack(tokens=4096), Checkpoint(layers=1)),
    "lora pack checkpoint": (LORA, Pack(tokens=4096), Checkpoint(layers=1)),
    "lora pack fuse checkpoint": (LORA, Pack(tokens=4096), Fuse(loss_rows=32), Checkpoint(layers=1)),
}


CASES = [
    *(
        (family, name, UNEQUAL)
        for family, name in product(FAMILIES, COMBINATIONS)
        if family in DECODERS or "fuse" not in name
    ),
    *((family, name, EQUAL) for family, name in product(FAMILIES, ("full", "lora"))),
]


def counted_on_paper(job: Job) -> float:
    """FLOPs that torch's counter sees: without dropout the CPU's attention is one kernel that it does not know."""
    parts = flops_by_part(job)
    if job.shape.attention_dropout:
        return sum(parts.values())
    unseen = 4.0 * job.attended_pairs * job.shape.heads * job.shape.head_dim * job.recomputed_layers
    return sum(parts.values()) - parts["attention"] - unseen


@pytest.mark.parametrize(("family", "name", "lengths"), CASES)
def test_predicts_bytes_and_flops(family: str, name: str, lengths: tuple[int, ...]) -> None:
    cuts = COMBINATIONS[name]
    samples = rows_of("text" if family in DECODERS else "classify", lengths)
    measured_bytes, measured_flops = measure(on_rig(cuts, make_rig(family, len(samples))), samples)
    job = on_paper((FineTune(), *cuts), make_job(family, samples))
    assert kept_on_paper(job) == pytest.approx(measured_bytes, rel=0.04)
    assert counted_on_paper(job) == pytest.approx(measured_flops, rel=0.03)


@pytest.mark.parametrize("name", ["full", "lora", "lora pack", "lora checkpoint"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "phi3"])
def test_predicts_bytes_under_autocast(family: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 as on a GPU: float32 masters under autocast, or frozen bfloat16 weights with float32 adapters."""
    monkeypatch.setattr("tenfold.rig.segments._working_dtype", lambda query: query.dtype)
    samples = rows_of("text", UNEQUAL)
    rig = on_rig(COMBINATIONS[name], make_rig(family, len(samples)))
    if rig.adapter is not None:
        for _, weight in rig.model.named_parameters():
            weight.data = weight.data.float() if weight.requires_grad else weight.data.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        measured = kept_by(rig, samples)
    job = make_job(family, samples)
    gpu = replace(job.machine, vendor_kind="cuda", compute_capability=9.0, flops={"bfloat16": 1e15})
    job = on_paper((FineTune(), *COMBINATIONS[name]), replace(job, machine=gpu))
    learning = job.adapter_parameters if job.adapted else job.shape.block_parameters + job.shape.head_parameters
    assert kept_on_paper(job) + 2 * learning == pytest.approx(measured, rel=0.04)


def test_the_measurement_tells_cuts_apart() -> None:
    """Negative control: the prediction for one combination is not within tolerance of another's measurement."""
    samples = rows_of("text", UNEQUAL)
    kept, flops = measure(make_rig("llama", len(samples)), samples)
    for name in ("lora", "checkpoint", "pack", "fuse"):
        job = on_paper((FineTune(), *COMBINATIONS[name]), make_job("llama", samples))
        apart = abs(kept_on_paper(job) / kept - 1) > 0.04, abs(counted_on_paper(job) / flops - 1) > 0.03
        assert any(apart), name


def make_plain_job(rows: int = 640, **changes: Any) -> Job:
    """A fine-tune of rows of 1, 2, ... tokens in steps of 32, micro-batches of 8; no other cut."""
    samples = [Sample([5] * size, bytes([0, *[1] * (size - 1)]), None, "rows.jsonl", 1) for size in range(1, rows + 1)]
    return replace(on_paper((FineTune(),), make_job("llama", samples)), batch_size=32, micro_rows=8, **changes)


def test_from_scratch_takes_twenty_tokens_per_parameter() -> None:
    job = replace(make_plain_job(), pretrained=False)
    assert job.tokens_trained == pytest.approx(20 * job.shape.parameters, rel=1e-2)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"epochs": 3.0, "steps_wanted": None}, 60),
        ({"epochs": 0.5, "steps_wanted": None}, 10),
        ({"epochs": 0.01, "steps_wanted": None}, 1),
        ({"epochs": 3.0, "steps_wanted": 7}, 7),
        ({"epochs": 1.0, "steps_wanted": None, "batch_size": 1000}, 1),
    ],
)
def test_counts_the_steps_that_the_schedule_makes(changes: dict[str, Any], steps: int) -> None:
    assert replace(make_plain_job(), **changes).steps == steps


WEIGHTS_TOLERANCE = 0.04
"""Relative; nf4 keeps a table of 2 KiB beside each weight, which counts in a model of 3 MB."""


def weight_bytes(rig: Rig) -> int:
    """Parameters and what is stored of them, adapters and the model's own tables of positions left out."""
    stored = [part for m in rig.model.modules() if isinstance(m, StoredLinear) for part in m.parts.values()]
    plain = [weight for name, weight in rig.model.named_parameters() if "lora_" not in name]
    return sum(weight.nbytes for weight in (*plain, *stored))


@pytest.mark.parametrize("storage", ["fp8", "int8", "nf4"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "phi3", "gpt2", "bert"])
def test_quantize_predicts_the_bytes_of_weights(family: str, storage: Any) -> None:
    samples = rows_of("text" if family in DECODERS else "classify", EQUAL)
    measured = weight_bytes(on_rig((Quantize(storage), LORA), make_rig(family, len(samples))))
    job = make_job(family, samples)
    kinds = bytes_by_kind(on_paper((FineTune(), Quantize(storage), LORA), job))
    plain = bytes_by_kind(on_paper((FineTune(), LORA), job))
    assert kinds["weights"] == pytest.approx(measured, rel=WEIGHTS_TOLERANCE)
    assert plain["weights"] > 1.3 * measured, "the control: what is not quantized is another number"
    same = {"adapters", "gradients", "optimizer", "activations", "logits", "libraries"}
    assert {kind for kind in kinds if kinds[kind] == plain[kind]} >= same


def test_quantize_changes_no_byte_where_all_weights_learn() -> None:
    job = make_plain_job()
    assert bytes_by_kind(Quantize().price(job)) == bytes_by_kind(job)
    assert Quantize().price(replace(job, pretrained=False)) == replace(job, pretrained=False)


def test_eight_bit_moments_are_a_quarter_of_the_optimizer() -> None:
    plain, small = (bytes_by_kind(make_plain_job(optimizer=kind)) for kind in ("adamw", "adamw_8bit"))
    assert small["optimizer"] / plain["optimizer"] == (1 + 4 / 256) / 4
    assert {kind for kind in plain if plain[kind] != small[kind]} == {"optimizer"}, "the peak is at the loss"


def test_fp8_products_are_priced_where_the_machine_has_them() -> None:
    job = make_plain_job()
    rates = {"bfloat16": 1e12, "float8": 2e12}
    fast = replace(job.machine, vendor_kind="cuda", compute_capability=9.0, flops=rates)

    def seconds(compute: Any, *cuts: Cut) -> float:
        changed = on_paper((Quantize("fp8", compute), LORA, *cuts), replace(job, machine=fast))
        return seconds_by_part(changed)["train"]

    compiled = (Pack(512), Fuse(compile=True))
    assert seconds("fp8", *compiled) < seconds("bf16", *compiled)
    assert seconds("fp8") == seconds("bf16"), "merged products alone compute in fp8"
    slow = replace(job, machine=replace(fast, flops={"bfloat16": 1e12}))
    assert Quantize("fp8", "fp8").price(slow) == slow


def test_a_price_is_a_changed_copy() -> None:
    job = make_plain_job()
    before = replace(job)
    for cut in (LORA, Quantize(), Checkpoint(layers=1), Fuse(), Pack()):
        assert cut.price(job) != job
    assert job == before


def test_recomputing_costs_time_and_lora_saves_some() -> None:
    job = make_plain_job()
    whole = sum(seconds_by_part(job).values())
    assert sum(seconds_by_part(Checkpoint(layers=3).price(job)).values()) > whole
    assert sum(seconds_by_part(LORA.price(job)).values()) < whole
