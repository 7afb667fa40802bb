"""Quantize on every family: the step of a model with the same weights kept dense. Each check has one that must fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rigs import make_rig, make_rows, relative_error, step_gradient
from tenfold.cuts import Checkpoint, FineTune, Fuse, LoRA, Pack, Quantize, on_rig
from tenfold.errors import InputError
from tenfold.rig.linear import AdaptedLinear
from tenfold.rig.model import build_rig
from tenfold.rig.quantizing import make_dense, stored_as
from tenfold.rig.rig import Source, Task
from tenfold.rig.storage import STORAGES
from tenfold.rig.stored_linear import StoredLinear
from tiny import DECODERS, FAMILIES, tiny_folder

TOLERANCE = 2e-6
"""Relative; float32 has 1.2e-7."""

LORA = LoRA(rank=4, alpha=8.0)
CASES: list[tuple[str, Task]] = [(family, "classify") for family in FAMILIES] + [(family, "sft") for family in DECODERS]


@pytest.mark.parametrize(("family", "task"), CASES)
def test_a_step_is_that_of_the_stored_weights_kept_dense(family: str, task: Task) -> None:
    rows = make_rows(task)
    storage = ("nf4", "int8", "fp8")[CASES.index((family, task)) % 3]
    torch.manual_seed(0)
    stored = on_rig((Quantize(storage), LORA), make_rig(family, task))  # type: ignore[arg-type]
    torch.manual_seed(0)
    dense = on_rig((LORA,), make_dense(on_rig((Quantize(storage),), make_rig(family, task))))  # type: ignore[arg-type]
    torch.manual_seed(0)
    original = on_rig((LORA,), make_rig(family, task))
    assert stored_as(dense.model) is None
    loss, gradient = step_gradient(dense, rows)
    found_loss, found = step_gradient(stored, rows)
    assert found_loss == pytest.approx(loss, rel=TOLERANCE)
    assert relative_error(gradient, found) < TOLERANCE
    assert relative_error(gradient, step_gradient(original, rows)[1]) > 100 * TOLERANCE


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3"])
def test_the_exact_cuts_stay_exact_on_it(family: str) -> None:
    rows = make_rows("sft")
    torch.manual_seed(0)
    loss, gradient = step_gradient(on_rig((Quantize(), LORA), make_rig(family, "sft")), rows)
    torch.manual_seed(0)
    cuts = (Quantize(), LORA, Pack(tokens=64), Fuse(loss_rows=7), Checkpoint(layers=2))
    cut_loss, cut_gradient = step_gradient(on_rig(cuts, make_rig(family, "sft")), rows)
    assert cut_loss == pytest.approx(loss, rel=TOLERANCE)
    assert relative_error(gradient, cut_gradient) < TOLERANCE


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("storage", STORAGES)
def test_a_block_on_it_is_traced_whole(storage: Any) -> None:
    torch.compiler.reset()  # the limit of recompilations counts those of other formats
    rows = make_rows("sft")
    torch.manual_seed(0)
    rig = on_rig((Quantize(storage), LORA), make_rig("llama", "sft"))
    loss, gradient = step_gradient(rig, rows)
    for block in rig.model.model.layers:  # type: ignore[attr-defined,union-attr]
        block.compile(backend="aot_eager", fullgraph=True)  # type: ignore[operator,union-attr]
    found_loss, found = step_gradient(rig, rows)
    assert found_loss == pytest.approx(loss, rel=TOLERANCE)
    assert relative_error(gradient, found) < TOLERANCE


@pytest.mark.parametrize(("family", "task"), CASES)
def test_only_linear_layers_of_blocks_are_stored(family: str, task: Task) -> None:
    rig, plain = on_rig((Quantize(),), make_rig(family, task)), make_rig(family, task)
    stored = {name for name, module in rig.model.named_modules() if isinstance(module, StoredLinear)}
    gone = {name.rpartition(".")[0] for name in plain.model.state_dict().keys() - rig.model.state_dict().keys()}
    assert stored >= gone
    assert all(".layer" in name or ".h." in name for name in stored), stored
    assert not any(name.startswith(module) for name in stored for module in rig.new_modules)
    for name, weight in rig.model.named_parameters():
        assert torch.equal(weight, plain.model.get_parameter(name)), name


def test_adapters_go_on_stored_layers_and_count_them() -> None:
    rig = on_rig((Quantize(), LORA), make_rig("llama", "sft"))
    plain = on_rig((LORA,), make_rig("llama", "sft"))
    adapted = [module for module in rig.model.modules() if isinstance(module, AdaptedLinear)]
    assert len(adapted) == 21
    assert all(isinstance(module.base, StoredLinear) for module in adapted)
    assert rig.facts[-1] == plain.facts[-1]
    assert "21 linear layers in nf4" in rig.facts[0]
    assert adapted[0].bias is None
    assert adapted[0].delta().shape == adapted[0].weight.shape


@pytest.mark.parametrize("task", ["sft", "classify"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_weights_read_into_a_skeleton_are_those_stored_afterwards(family: str, task: Task, tmp_path: Path) -> None:
    source = Source(str(tiny_folder(tmp_path / "base", family)))
    labels = ("a", "b") if task == "classify" else ()
    torch.manual_seed(0)
    skeleton = on_rig((FineTune(), Quantize("int8")), build_rig(source, task, labels=labels)).model.state_dict()
    torch.manual_seed(0)
    rig = build_rig(source, task, labels=labels)
    afterwards = Quantize("int8").apply(FineTune().apply(rig)).model.state_dict()
    assert skeleton.keys() == afterwards.keys()
    assert all(torch.equal(skeleton[name], afterwards[name]) for name in afterwards)


def test_fp8_products_are_refused_on_a_cpu() -> None:
    with pytest.raises(
        InputError, match=r"fp8 products need a GPU of compute capability 8\.9, this is cpu; write bf16"
    ):
        Quantize(compute="fp8").apply(make_rig("llama", "sft"))
