"""What only a GPU can show: compiled, recorded and fp8 steps against the plain ones in float32.

    python -m pytest tests/test_gpu.py

The model is a small Llama whose heads are wide enough for the attention kernels of GPUs.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers

from rigs import make_rows, relative_error
from tenfold.cuts import Checkpoint, Cut, Fuse, LoRA, Pack, Quantize, on_rig
from tenfold.data.tokenize import Sample
from tenfold.rig.batch import Batch, PaddedLayout
from tenfold.rig.graphs import RecordingFailed
from tenfold.rig.model import rig_around
from tenfold.rig.rig import Rig
from tenfold.rig.shrinking import recover
from updates import largest_difference, updated_masters

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

BF16 = 2e-2
"""bfloat16 keeps 8 bits: each operation rounds by up to 2**-9, and a gradient passes some dozens of them."""

FP8 = 0.15
"""float8_e4m3fn keeps 4 bits: 2.6 % in the mean square on either side of a product."""

CASES: dict[str, tuple[Cut, ...]] = {
    "compiled": (Pack(tokens=256), Fuse(loss_rows=64, compile=True)),
    "recomputed": (Pack(tokens=256), Fuse(loss_rows=64, compile=True), Checkpoint(2)),
    "padded": (Fuse(loss_rows=64, compile=True),),
    "plain, last block on loss rows": (Pack(tokens=256), Fuse(loss_rows=64)),
    "offloaded": (Pack(tokens=256), Fuse(loss_rows=64), Checkpoint(0, offload=2)),
    "recomputed and offloaded": (Pack(tokens=256), Fuse(loss_rows=64), Checkpoint(3, offload=2)),
    "compiled and offloaded": (Pack(tokens=256), Fuse(loss_rows=64, compile=True), Checkpoint(2, offload=1)),
}


def llama(dtype: torch.dtype, quantize: Quantize | None = None) -> Rig:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, pad_token_id=0, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    rig = rig_around(model.cuda(), "sft")
    rig = replace(rig, layout=PaddedLayout(16, 0))
    rig = on_rig((*([quantize] if quantize else []), LoRA(rank=8, alpha=16.0)), rig)
    for name, weight in rig.trainable:
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    rig.model.to(dtype)
    for _, weight in rig.trainable:
        weight.data = weight.data.float()
    return rig


def gradient(rig: Rig, rows: list[Sample]) -> tuple[float, torch.Tensor]:
    for _, weight in rig.trainable:
        weight.grad = None
    batches = rig.layout(rows)
    count = sum(batch.loss_count for batch in batches)
    total = sum(rig.backward(batch, count) for batch in batches)
    return float(total) / count, torch.cat([w.grad.float().flatten() for _, w in rig.trainable if w.grad is not None])


def precise(model, loss, batch, loss_tokens, dtype):
    """`eager_backward` without autocast."""
    summed = loss(model, batch)
    (summed / loss_tokens).backward()
    return summed.detach()


@pytest.fixture(scope="module")
def reference() -> tuple[float, torch.Tensor]:
    rig = llama(torch.float32)
    return gradient(replace(rig, backpropagate=precise), make_rows("sft", count=16, longest=100))


@pytest.mark.parametrize("name", CASES)
def test_every_call_gives_the_gradients_of_the_plain_model(name: str, reference: tuple[float, torch.Tensor]) -> None:
    """Calls three and later are replayed from a recording where shapes are steady."""
    rig = on_rig(CASES[name], llama(torch.bfloat16))
    rig.model.train()
    rows = make_rows("sft", count=16, longest=100)
    for _ in range(5):
        loss, found = gradient(rig, rows)
        assert loss == pytest.approx(reference[0], rel=5e-3)
        assert relative_error(reference[1], found) < BF16


def test_other_rows_of_the_same_shape_are_not_mistaken_for_the_recorded_ones() -> None:
    """The control of replaying."""
    rig = on_rig(CASES["compiled"], llama(torch.bfloat16))
    rig.model.train()
    rows = make_rows("sft", count=16, longest=100)
    for _ in range(4):
        _, recorded = gradient(rig, rows)
    others = [replace(row, input_ids=row.input_ids[::-1]) for row in rows]
    assert relative_error(recorded, gradient(rig, others)[1]) > 10 * BF16


def test_a_pass_that_cannot_be_recorded_runs_on_without_recording(reference: tuple[float, torch.Tensor]) -> None:
    rig = on_rig(CASES["compiled"], llama(torch.bfloat16))
    plain_loss = rig.loss

    def looks_at_the_host(model: transformers.PreTrainedModel, batch: Batch) -> torch.Tensor:
        loss = plain_loss(model, batch)
        return loss if loss.isfinite().item() else loss * 0  # reading a number on the host ends a recording

    rig = replace(rig, loss=looks_at_the_host)
    rig.model.train()
    rows = make_rows("sft", count=16, longest=100)
    for _ in range(2):
        gradient(rig, rows)
    with pytest.raises(RecordingFailed) as raised:
        gradient(rig, rows)
    found = recover(rig, raised.value, longest_row=100)
    assert found is not None and "without recording" in found[1]
    for _ in range(3):
        loss, values = gradient(found[0], rows)
        assert loss == pytest.approx(reference[0], rel=5e-3)
        assert relative_error(reference[1], values) < BF16


QUANTIZED = {
    **{f"{name}, bf16": (Quantize(name), BF16) for name in ("fp8", "int8", "nf4")},
    **{f"{name}, fp8": (Quantize(name, "fp8"), FP8) for name in ("fp8", "int8", "nf4")},
    **{f"{name}, fp8, kept": (Quantize(name, "fp8", keep=True), FP8) for name in ("fp8", "nf4")},
    "nf4, bf16, kept": (Quantize("nf4", keep=True), BF16),
}


@pytest.mark.parametrize("name", QUANTIZED)
def test_quantized_steps_give_the_gradients_of_the_stored_weights(name: str) -> None:
    """Against float32 products with the same stored weights, made dense by the storages' plain operations."""
    quantize, tolerance = QUANTIZED[name]
    rows = make_rows("sft", count=16, longest=100)
    plain = llama(torch.float32, Quantize(quantize.storage))
    expected_loss, expected = gradient(replace(plain, backpropagate=precise), rows)
    rig = on_rig(CASES["compiled"], llama(torch.bfloat16, quantize))
    rig.model.train()
    for _ in range(4):
        loss, found = gradient(rig, rows)
        assert loss == pytest.approx(expected_loss, rel=1e-2)
        assert relative_error(expected, found) < tolerance


def test_a_compiled_update_is_the_plain_one() -> None:
    """On a CPU, operation by operation, levels sought; and in one kernel of this GPU, levels computed."""
    expected = updated_masters(compiled=False)
    assert largest_difference(updated_masters(compiled=True, device="cuda"), expected) < 1e-4
    assert largest_difference(updated_masters(compiled=False, device="cuda"), expected) < 1e-4
    assert largest_difference(updated_masters(compiled=False, rate=1.02e-3), expected) > 1e-4, "the control"
