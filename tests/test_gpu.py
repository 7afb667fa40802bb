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
from tenfold.cuts import Checkpoint, Cut, Fuse, LoRA, Pack, on_rig
from tenfold.data.tokenize import Sample
from tenfold.rig.batch import PaddedLayout
from tenfold.rig.model import rig_around
from tenfold.rig.rig import Rig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

BF16 = 2e-2
"""bfloat16 keeps 8 bits: each operation rounds by up to 2**-9, and a gradient passes some dozens of them."""

CASES: dict[str, tuple[Cut, ...]] = {
    "compiled": (Pack(tokens=256), Fuse(loss_rows=64, compile=True)),
    "recomputed": (Pack(tokens=256), Fuse(loss_rows=64, compile=True), Checkpoint(2)),
    "padded": (Fuse(loss_rows=64, compile=True),),
}


def llama(dtype: torch.dtype) -> Rig:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, pad_token_id=0, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    rig = rig_around(model.cuda(), "sft")
    rig = on_rig((LoRA(rank=8, alpha=16.0),), replace(rig, layout=PaddedLayout(16, 0)))
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


@pytest.fixture(scope="module")
def reference() -> tuple[float, torch.Tensor]:
    rig = llama(torch.float32)

    def precise(model, loss, batch, loss_tokens):
        summed = loss(model, batch)
        (summed / loss_tokens).backward()
        return summed.detach()

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
