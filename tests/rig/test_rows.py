"""Single rows that learn: the model computes what it did, and they get exactly the gradient their table would give."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest
import torch

from rigs import make_rig, make_rows, relative_error
from tenfold.cuts import Fuse, LoRA, Pack, on_rig
from tenfold.recipe import TrainWish
from tenfold.rig.rig import Rig
from tenfold.rig.rows import RowEmbedding, fold_rows, folded, learn_rows, row_modules
from tenfold.run.optimizer import make_optimizer
from tiny import DECODERS, FAMILIES

IDS = (7, 20, 21, 150)
TEXT = torch.tensor([[5, 7, 20, 33, 8, 21], [7, 6, 150, 4, 11, 20]])


def logits(rig: Rig) -> torch.Tensor:
    with torch.no_grad():
        return rig.model.eval()(input_ids=TEXT, attention_mask=torch.ones_like(TEXT)).logits


def gradients(rig: Rig) -> dict[str, torch.Tensor]:
    """Of one step on rows full of the tokens IDS."""
    rig.model.zero_grad(set_to_none=True)
    rows = make_rows("sft", seed=3)
    for row in rows:
        cast("list[int]", row.input_ids)[::3] = [IDS[len(row.input_ids) % 4]] * len(row.input_ids[::3])
    for batch in rig.layout(rows):
        rig.backward(batch, 10)
    return {name: w.grad.clone() for name, w in rig.model.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_computes_what_it_did(family: str) -> None:
    task = "sft" if family in DECODERS else "classify"
    rig = make_rig(family, task)
    expected = logits(rig)
    count = learn_rows(rig.model, IDS)
    torch.testing.assert_close(logits(rig), expected, rtol=1e-5, atol=1e-6)
    tied = rig.model.get_output_embeddings() is None or rig.model.config.tie_word_embeddings
    assert count == len(IDS) * rig.model.config.hidden_size * (1 if tied else 2)
    for module in row_modules(rig.model).values():
        module.rows.data += torch.linspace(-1, 1, module.rows.numel()).view_as(module.rows)
    assert not torch.allclose(logits(rig), expected, atol=1e-3), "the control: the rows are what is computed with"
    moved = logits(rig)
    fold_rows(rig.model)
    torch.testing.assert_close(logits(rig), moved)
    assert not row_modules(rig.model)


@pytest.mark.parametrize("cuts", [(), (Fuse(loss_rows=5),), (Pack(tokens=48), Fuse(loss_rows=7))], ids=len)
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "gemma3"])
def test_rows_get_the_gradient_that_their_table_gives(family: str, cuts: tuple[Any, ...]) -> None:
    plain = make_rig(family, "sft")
    apart = make_rig(family, "sft")
    learn_rows(apart.model, IDS)
    expected, found = gradients(on_rig(cuts, plain)), gradients(on_rig(cuts, apart))
    for name in row_modules(apart.model):
        table = f"{name}.weight"
        if table not in expected:  # tied: the gradient is the embedding's
            continue
        assert relative_error(expected[table][list(IDS)], found[f"{name}.rows"]) < 1e-5
        rest = found[f"{name}.base.weight"]
        assert not rest[list(IDS)].any(), "the rows of the table itself have none"
        others = [i for i in range(len(rest)) if i not in IDS]
        assert relative_error(expected[table][others], rest[others]) < 1e-5
        assert relative_error(expected[table][[8, 22, 23, 151]], found[f"{name}.rows"]) > 0.1, "the control: other rows"


@pytest.mark.parametrize("fused", [False, True])
def test_beside_adapters_only_the_rows_learn(fused: bool) -> None:
    rig = make_rig("llama", "sft")
    learn_rows(rig.model, IDS)
    rig = on_rig((LoRA(rank=2), Fuse(loss_rows=5)) if fused else (LoRA(rank=2),), rig)
    found = gradients(rig)
    assert {name.rsplit(".", 1)[-1] for name in found} == {"lora_A", "lora_B", "rows"}
    optimizer = make_optimizer(rig, TrainWish())
    optimizer.step()
    sizes = {tuple(w.shape): tuple(s["exp_avg"].shape) for w, s in optimizer.state.items()}
    assert (len(IDS), 32) in sizes
    assert all(weight == moment for weight, moment in sizes.items())
    assert not any(shape[0] == 300 for shape in sizes)


def test_a_narrow_table_has_wide_rows() -> None:
    rig = make_rig("llama", "sft")
    rig.model.to(torch.bfloat16)  # pyright: ignore[reportArgumentType]
    expected = logits(rig)
    learn_rows(rig.model, IDS)
    torch.testing.assert_close(logits(rig), expected)
    embedding = cast("RowEmbedding", rig.model.get_input_embeddings())
    assert embedding.rows.dtype == torch.float32
    assert embedding.weight.dtype == torch.bfloat16


def test_inside_folded_the_model_is_plain_and_outside_it_is_as_it_was() -> None:
    rig = make_rig("llama", "sft")
    learn_rows(rig.model, IDS)
    for module in row_modules(rig.model).values():
        module.rows.data += 0.5
    expected, modules = logits(rig), row_modules(rig.model)
    with folded(rig.model):
        assert not row_modules(rig.model)
        torch.testing.assert_close(logits(rig), expected)
        kept = copy.deepcopy(rig.model.state_dict())
        assert set(kept) == set(make_rig("llama", "sft").model.state_dict())
    assert row_modules(rig.model) == modules
    assert torch.equal(logits(rig), expected)
