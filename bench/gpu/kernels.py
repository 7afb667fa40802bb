"""The kernels of rig/gated_kernels: right, and how near to the memory's speed.

    python bench/gpu/kernels.py [--out DIR] [--try-settings]

Each against the plain torch operations of rig/gated_passes in float32, on fresh random inputs, memory poisoned with NaN
before. Bytes are those that must move, each tensor once; the copy at the top is what the memory can do. --try-settings
times other tile sizes and warps.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SHAPES = ((16384, 14336, 16), (2048, 14336, 16), (1000, 8192, 8), (4096, 6144, 64), (16384, 8192, 16))
"""Rows, width of the MLP, rank."""

TOLERANCE = {"h": 6e-3, "thin": 6e-3, "gradients": 8e-3, "products": 8e-3, "peaks": 1e-2, "rounded": 0.04}
"""||found - expected|| / ||expected||: one rounding to bfloat16 is 2**-9 at most, one to float8_e4m3fn 2**-4."""


def main() -> None:
    """Check, time, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "results")
    parser.add_argument("--try-settings", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    copy = copy_speed()
    print(f"copy {copy:.2f} TB/s", flush=True)
    rows = [row for shape in SHAPES for activation in ("silu", "gelu_tanh") for row in check(*shape, activation)]
    body = {
        "benchmark": "gated-kernels",
        "date": datetime.date.today().isoformat(),
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "copy_tb_per_second": copy,
        "rows": rows,
        "settings": try_settings() if arguments.try_settings else [],
    }
    path = arguments.out / f"kernels_{torch.cuda.get_device_name().split()[-1].lower()}_{body['date']}.json"
    path.write_text(json.dumps(body, indent=1) + "\n")
    wrong = [row for row in rows if not row["right"]]
    print(f"{path}: {len(rows) - len(wrong)} of {len(rows)} right", flush=True)
    raise SystemExit(1 if wrong else 0)


def copy_speed() -> float:
    """TB/s of a device-to-device copy, bytes read and written."""
    source = torch.randn(2**29, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source)) / 1e12


def seconds(call: Callable[[], object]) -> float:
    """The median of some runs, by events."""
    import triton

    return float(triton.testing.do_bench(call, warmup=20, rep=100, return_mode="median")) / 1000


def draw(rows: int, width: int, rank: int) -> dict[str, torch.Tensor]:
    """The operands of one MLP in bfloat16; gate and up are views of one product, as in a run."""

    def normal(*shape: int, std: float = 1.0) -> torch.Tensor:
        return (torch.randn(*shape, device="cuda") * std).bfloat16()

    gate, up = normal(rows, 2 * width).chunk(2, dim=1)
    return {
        "gate": gate, "up": up, "thin": normal(rows, 2 * rank), "gate_b": normal(width, rank, std=0.2),
        "up_b": normal(width, rank, std=0.2), "dh": normal(rows, width), "thin_dh": normal(rows, rank),
        "down_a": normal(rank, width, std=0.2), "scales": torch.rand(2 * width, device="cuda") + 0.5,
        "beside": normal(2 * rank, 2 * width, std=0.1),
    }  # fmt: skip


def check(rows: int, width: int, rank: int, activation: str) -> list[dict[str, Any]]:
    """One row for each kernel, scaled and not."""
    from tenfold.rig import gated_kernels as kernels
    from tenfold.rig import gated_passes as passes

    v = draw(rows, width, rank)
    forward = (v["gate"], v["up"], v["thin"], v["gate_b"], v["up_b"])
    found: list[dict[str, Any]] = []

    def note(name: str, call: Callable[[], Any], plain: Callable[[], Any], names: list[str], moved: float) -> Any:
        torch.use_deterministic_algorithms(True, warn_only=True)  # fills what torch.empty gives with NaN
        mine = call()
        torch.use_deterministic_algorithms(False)
        wanted = plain()
        errors = [float((a.float() - b.float()).norm() / b.float().norm()) for a, b in zip(mine, wanted, strict=True)]
        right = all(error <= TOLERANCE[kind] for kind, error in zip(names, errors, strict=True))
        took = seconds(call)
        row = {
            "kernel": name, "rows": rows, "width": width, "rank": rank, "activation": activation, "right": right,
            "errors": errors, "milliseconds": took * 1000, "tb_per_second": moved / took / 1e12,
        }  # fmt: skip
        print(json.dumps(row), flush=True)
        found.append(row)
        return mine

    wide = 2.0 * rows * width
    note(
        "gated_forward",
        lambda: kernels.gated_forward(*forward, activation),
        lambda: passes.gated_forward._init_fn(*(t.float() for t in forward), activation),
        ["h", "peaks"],
        3 * wide,
    )
    for scales in (None, v["scales"]):
        back = (v["dh"], *forward[:3], v["thin_dh"], *forward[3:], v["down_a"])
        both, peaks, _ = note(
            f"gated_backward{'' if scales is None else ', scaled'}",
            lambda s=scales, b=back: kernels.gated_backward(*b, s, activation),
            lambda s=scales, b=back: passes.gated_backward._init_fn(*(t.float() for t in b), s, activation),
            ["gradients", "peaks", "products"],
            5 * wide,
        )
        note(
            f"round_and_project{'' if scales is None else ', scaled'}",
            lambda s=scales, x=both, p=peaks: kernels.round_and_project(x, p, s, v["beside"]),
            lambda s=scales, x=both, p=peaks: passes.round_and_project._init_fn(x, p, s, v["beside"]),
            ["rounded", "peaks", "thin"],
            3 * wide,
        )
    return found


def calls(rows: int) -> dict[str, tuple[list[Any], Callable[[], Any]]]:
    """By the name of its setting: the settings to try of a kernel, and a call of it."""
    from tenfold.rig import gated_kernels as kernels

    v = draw(rows, 14336, 16)
    forward = (v["gate"], v["up"], v["thin"], v["gate_b"], v["up_b"])
    back = (v["dh"], *forward[:3], v["thin_dh"], *forward[3:], v["down_a"], v["scales"], "silu")
    both, peaks, _ = kernels.gated_backward(*back)
    tiles, pipelines = itertools.product((16, 32, 64, 128), (4, 8)), itertools.product((128, 256, 512), (4, 8), (2, 3))
    return {
        "FORWARD": (list(tiles), lambda: kernels.gated_forward(*forward, "silu")),
        "BACKWARD": (list(itertools.product((16, 32, 64), (4, 8))), lambda: kernels.gated_backward(*back)),
        "ROUND": (list(pipelines), lambda: kernels.round_and_project(both, peaks, v["scales"], v["beside"])),
    }


def try_settings() -> list[dict[str, Any]]:
    """Milliseconds of other tiles and warps, at the largest shape and at a small micro-batch."""
    from tenfold.rig import gated_kernels as kernels

    tried: list[dict[str, Any]] = []
    for rows in (16384, 2048):
        for name, (settings, call) in calls(rows).items():
            kept = getattr(kernels, name)
            mine: list[dict[str, Any]] = []
            for setting in settings:
                setattr(kernels, name, setting)
                item: dict[str, Any] = {"kernel": name, "rows": rows, "setting": setting}
                try:
                    item["milliseconds"] = seconds(call) * 1000
                except Exception as error:
                    item["error"] = str(error)[:200]
                mine.append(item)
            setattr(kernels, name, kept)
            for item in sorted(mine, key=lambda item: item.get("milliseconds", 1e9))[:4]:
                print(json.dumps(item), flush=True)
            tried += mine
    return tried


if __name__ == "__main__":
    main()
