"""The correctness gate: losses and adapter gradients in float32, by plain transformers and PEFT.

    python bench/gpu/reference.py loss --model DIR --workload fixed --rows 8 --length 2048 --out FILE.json
    python bench/gpu/reference.py gradients --shape llama-8b --out DIR

`loss`: of the first step's rows on the untouched model, which is every adapter run's loss at step 0, since B is zero.
`gradients`: of adapters with non-zero B on the shape's first layers; DIR holds the adapters' values and gradients.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from gate import gate
from program import ALPHA, LINEARS, RANK, go_offline
from protocol import System
from rows import Row, padded, steps_of_rows, targets

from shapes import SHAPES, make_model, model_folder

LAYERS, CHECK_ROWS, CHECK_LENGTH, CHECK_SEED = 4, 2, 1024, 17
"""What gradients are compared on."""

LOSS_CHUNK = 1024
"""Tokens whose logits exist at once: 0.5 GB in float32 for 128,256 words."""

__all__ = ["compare_gradients", "gate", "reference_gradients", "reference_loss"]

NAME = re.compile(r"layers\.(\d+)\.(?:self_attn|mlp)\.(\w+?_proj)\..*?lora_([AB])")


def canonical(name: str) -> str | None:
    """`0.q_proj.A` for the usual names of adapters, PEFT's and tenfold's alike; None for anything else."""
    found = NAME.search(name)
    return ".".join(found.groups()) if found else None


@torch.no_grad()
def reference_loss(model_path: Path, rows: Sequence[Row], device: str) -> float:
    """Mean loss of the rows in float32, a few rows of like length at a time."""
    model = _load(model_path, device)
    order = sorted(rows, key=lambda row: len(row.input_ids))
    total = 0.0
    for start in range(0, len(order), 8):
        batch = padded(order[start : start + 8], device)
        total += float(_summed_loss(model, batch))
    return total / targets(rows)


def _load(path: Path, device: str) -> Any:
    from transformers import AutoModelForCausalLM

    torch.set_float32_matmul_precision("highest")
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.bfloat16, attn_implementation="sdpa", device_map={"": device}
    )
    return model.float()  # bf16 over the bus, widened on the device


def _summed_loss(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    labels = batch.pop("labels")
    hidden = model.get_decoder()(**batch, use_cache=False).last_hidden_state[:, :-1]
    hidden, wanted = hidden.flatten(0, 1), labels[:, 1:].flatten()
    total = torch.zeros((), device=hidden.device)
    for start in range(0, len(wanted), LOSS_CHUNK):
        logits = model.get_output_embeddings()(hidden[start : start + LOSS_CHUNK])
        part = wanted[start : start + LOSS_CHUNK]
        total = total + torch.nn.functional.cross_entropy(logits, part, reduction="sum", ignore_index=-100)
    return total


def check_rows(vocabulary: int) -> list[Row]:
    """The rows that gradients are compared on."""
    return steps_of_rows("fixed", CHECK_ROWS, CHECK_LENGTH, vocabulary, 1, CHECK_SEED)[0]


def reference_gradients(shape: str, out: Path, device: str) -> dict[str, Any]:
    """Write the adapters' values and their float32 gradients; returns what `gradients.json` says about them."""
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file

    layers = min(LAYERS, SHAPES[shape]["num_hidden_layers"])
    folder = make_model(model_folder(shape, layers), shape, layers, device)
    base = _load(folder, device)
    model = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(LINEARS)))
    adapters = {canonical(name): weight for name, weight in model.named_parameters() if weight.requires_grad}
    draw = torch.Generator().manual_seed(CHECK_SEED)
    for name, weight in adapters.items():
        if str(name).endswith("B"):
            weight.data.copy_(0.02 * torch.randn(weight.shape, generator=draw))
        else:
            weight.data.copy_((torch.rand(weight.shape, generator=draw) * 2 - 1) / weight.shape[1] ** 0.5)
    rows = check_rows(SHAPES[shape]["vocab_size"])
    loss = _summed_loss(base, padded(rows, device)) / targets(rows)
    loss.backward()
    loss = loss.detach()
    out.mkdir(parents=True, exist_ok=True)
    save_file({str(k): v.data.cpu().contiguous() for k, v in adapters.items()}, out / "adapters.safetensors")
    save_file({str(k): v.grad.cpu().contiguous() for k, v in adapters.items()}, out / "gradients.safetensors")
    about = {"shape": shape, "layers": layers, "model": str(folder), "loss": float(loss), "adapters": len(adapters)}
    (out / "gradients.json").write_text(json.dumps(about, indent=1))
    return about


def compare_gradients(build: Callable[[Path], System], folder: Path, device: str) -> dict[str, Any]:
    """Build a system on the small model, give it the reference's adapters, and compare one backward pass."""
    from safetensors.torch import load_file

    about = json.loads((folder / "gradients.json").read_text())
    values, wanted = load_file(folder / "adapters.safetensors"), load_file(folder / "gradients.safetensors")
    system = build(Path(about["model"]))
    adapters = {system.names.get(name) or canonical(name): weight for name, weight in system.parameters.items()}
    if set(adapters) != set(values):
        return {"error": f"adapters are named otherwise: {sorted(system.parameters)[:3]}", "count": len(adapters)}
    for name, weight in adapters.items():
        weight.data.copy_(values[str(name)])
    system.optimizer.zero_grad(set_to_none=True)
    loss = float(system.backward(system.prepare(check_rows(SHAPES[about["shape"]]["vocab_size"]))))
    cosines, ratios = {}, []
    for name, weight in adapters.items():
        mine = torch.zeros_like(weight) if weight.grad is None else weight.grad
        mine, theirs = mine.detach().float().cpu().flatten(), wanted[str(name)].flatten()
        cosines[str(name)] = float(torch.nn.functional.cosine_similarity(mine, theirs, dim=0))
        ratios.append(float(mine.norm() / theirs.norm()))
    return {"loss": loss, "reference_loss": about["loss"], "layers": about["layers"], **_summary(cosines, ratios)}


def _summary(cosines: Mapping[str, float], ratios: Sequence[float]) -> dict[str, Any]:
    worst = sorted(cosines, key=lambda name: cosines[name])
    return {
        "count": len(cosines),
        "least_cosine": cosines[worst[0]],
        "mean_cosine": sum(cosines.values()) / len(cosines),
        "worst": {name: round(cosines[name], 5) for name in worst[:4]},
        "norm_ratio": [round(min(ratios), 4), round(max(ratios), 4)],
    }


def main() -> None:
    """Write one reference."""
    go_offline()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["loss", "gradients"])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--workload", choices=["fixed", "packed"], default="fixed")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    started = time.perf_counter()
    if arguments.what == "gradients":
        print(json.dumps(reference_gradients(arguments.shape, arguments.out, arguments.device)))
        return
    vocabulary = json.loads((arguments.model / "config.json").read_text())["vocab_size"]
    rows = steps_of_rows(arguments.workload, arguments.rows, arguments.length, vocabulary, 1, arguments.seed)[0]
    loss = reference_loss(arguments.model, rows, arguments.device)
    record = {"loss": loss, "tokens": targets(rows), "seconds": time.perf_counter() - started}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record))
    print(json.dumps(record))


if __name__ == "__main__":
    main()
