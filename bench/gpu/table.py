"""One table of all rows, from the raw results alone.

    python bench/gpu/table.py [--results bench/results] [--out docs/speed.md]

A system's repeats become one line: their median and their range. Rows that failed stand below with their reasons.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gate import LEAST_COSINE, LOSS_TOLERANCE
from goals import COLUMNS as GOAL_COLUMNS
from goals import FIGURES, card_of, goal_lines

from shapes import SHAPES, flops_per_token

ROOT = Path(__file__).resolve().parents[2]
BF16_FLOPS = 790e12
"""FLOP/s of large bf16 matrix products on an H200: the denominator of every row, whatever it computes in."""

TITLES = {
    "llama-8b": "Llama-3.1-8B", "llama-1b": "Llama-3.2-1B", "qwen3-1.7b": "Qwen3-1.7B", "tiny": "tiny (a try-out)",
}  # fmt: skip
COLUMNS = (
    "model", "rows", "system", "useful tokens/s", "range", "MFU", "peak GiB", "load s", "first step s", "loss",
    "cosine", "gate",
)  # fmt: skip


def read(folder: Path) -> list[dict[str, Any]]:
    """All rows of all files, each with its file's name, date and reference loss."""
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("rows_*.json")):
        body = json.loads(path.read_text())
        if body.get("benchmark") != "gpu-rows":
            continue
        head = {"file": path.name, "date": body["date"], "reference_loss": body.get("reference_loss")}
        head |= {"shape": body["shape"], "workload": body["workload"], "settings": body["settings"]}
        rows += [head | row | {"sized_name": _sized(row)} for row in body["rows"]]
    return rows


def lines(rows: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """The table's cells: one line for each shape, workload and system, the fastest first."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        if "tokens_per_second" in row:
            size = f"{row['settings']['rows']} x {row['settings']['length']}"
            groups.setdefault((row["shape"], row["workload"], size, row["sized_name"]), []).append(row)
    order = list(SHAPES)

    def place(group: tuple[tuple[str, ...], list[Mapping[str, Any]]]) -> tuple[int, str, str, float]:
        shape, workload, size, _ = group[0]
        return order.index(shape), workload, size, -_median(group[1], "tokens_per_second")

    return [_line(*group) for group in sorted(groups.items(), key=place)]


def _sized(row: Mapping[str, Any]) -> str:
    """The system; of ours with the size of its micro-batches, also where it was left to the default."""
    name, given = row["system_name"], row.get("arguments", {})
    return f"{name}@{given['micro_tokens']}" if name.startswith("ours-") and "@" not in name and given else name


def _line(key: tuple[str, ...], repeats: Sequence[Mapping[str, Any]]) -> list[str]:
    shape, workload, size, system = key
    speeds = [row["tokens_per_second"] for row in repeats]
    trains = "full" if "full" in system else "lora"
    flops = flops_per_token(shape, repeats[0]["attended_tokens"], repeats[0]["loss_share"], trains)
    cosine = next((row["check"]["least_cosine"] for row in repeats if "least_cosine" in row.get("check", {})), None)
    memory = max(row.get("peak_allocated_bytes", 0) for row in repeats) / 2**30
    return [
        TITLES[shape],
        f"{size} tokens, {'all bear loss' if workload == 'fixed' else 'short rows'}",
        _title(system, repeats[0]),
        f"{statistics.median(speeds):,.0f}",
        f"{min(speeds):,.0f} to {max(speeds):,.0f}" if len(speeds) > 1 else "one run",
        f"{100 * statistics.median(speeds) * flops / BF16_FLOPS:.0f} %",
        f"{memory:.1f}",
        f"{_median(repeats, 'load_seconds'):.0f}",
        f"{repeats[0]['first_step_seconds']:.0f}",
        f"{repeats[0]['losses'][0]:.4f}",
        "-" if cosine is None else f"{cosine:.4f}",
        _verdict(repeats),
    ]


def _title(system: str, row: Mapping[str, Any]) -> str:
    if system.startswith("ours-"):
        return f"**tenfold**, {system.removeprefix('ours-').replace('@', ', micro-batches of ')}"
    return f"{row['system']}, {row['setting'].replace('-', ' ')}" + _extras(system, row)


def _extras(system: str, row: Mapping[str, Any]) -> str:
    extra = {"unsloth-graphs": ", CUDA graphs", "unsloth-model": ", FastModel"}.get(system, "")
    lacks_kernel = row["workload"] == "packed" and any("no xformers" in fact for fact in row["facts"])
    return extra + (", without xformers: each row attends on its own" if lacks_kernel else "")


def _verdict(repeats: Sequence[Mapping[str, Any]]) -> str:
    judged = [row["gate"] for row in repeats if "gate" in row]
    if not judged:
        return "not judged"
    faults = sorted({fault for verdict in judged for fault in verdict["faults"]})
    if faults:
        return "**fails**: " + "; ".join(faults)
    return "-" if repeats[0]["precision"] not in LOSS_TOLERANCE else "passes"


def _median(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    return statistics.median(row[key] for row in rows)


def floors(rows: Sequence[Mapping[str, Any]], limits: Sequence[Mapping[str, Any]]) -> str:
    """What no engine can pass on this card (limits.py), and the goals beside it (goals.py)."""
    lines = [FLOOR_COLUMNS, ["---"] * len(FLOOR_COLUMNS)]
    for body in limits:
        clocks = body["layer_and_chunk_parts"]
        for kind in body[FIGURES[0]]:
            figures = [body.get(figure, {}).get(kind) for figure in FIGURES]
            held = clocks[kind.partition(",")[0]]["clocks"]
            lines.append(
                [
                    card_of(body),
                    TITLES[body["shape"]],
                    f"{body['rows']} x {body['length']}" + (", short rows" if body.get("workload") == "packed" else ""),
                    body.get("train", "lora"),
                    kind,
                    *("-" if figure is None else f"{figure:,.0f}" for figure in figures),
                    f"{held['sm_mhz']:,.0f}" if "sm_mhz" in held else "-",
                    f"{held['watts']:.0f}" if "watts" in held else "-",
                ]
            )
    goals = [GOAL_COLUMNS, ["---"] * len(GOAL_COLUMNS), *goal_lines(rows, limits, TITLES)]
    return f"\n{FLOORS}\n{_cells(lines)}\n\n{GOALS_HEAD}\n{_cells(goals)}"


def _cells(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


FLOOR_COLUMNS = (
    "card", "model", "rows", "learns", "products in", "products and attention", "with passes", "in one round", "MHz",
    "watts",
)  # fmt: skip

FLOORS = """What a step cannot do without, alone and back to back on random numbers, in tokens/s
(`bench/gpu/limits.py`): the wide products and the head, both ways, and attention; with them the norms, rotations,
activations, additions and, in fp8, roundings, each as a copy of the fewest bytes that it can read and write, and in
full fine-tuning the update; and all of it in one round, as one step. No adapters. The card lowers its clock to keep
to its power, so that sustained products run below the rate of short ones. A dash: the file is from before the figure.
"""

GOALS_HEAD = """The goals beside these, in useful tokens/s, and the floor of the card that the rows were measured on,
else of the other one. What is above 100 % of the last of these figures is out of reach on that card in these formats.
Where the passes of the H200 were not timed, they are their bytes at the rate of its copies. With adapters: the passes,
and the thin products' operands read once more each; an engine that does all but this perfectly reaches so much.
"""


def page(rows: Sequence[Mapping[str, Any]], limits: Sequence[Mapping[str, Any]]) -> str:
    """The whole page."""
    environments = [row["environment"] for row in rows if "environment" in row]
    gpus = sorted({str(environment["gpu"]) for environment in environments})
    versions: dict[str, set[str]] = {}
    for environment in environments:
        for name, version in environment["versions"].items():
            versions.setdefault(name, set()).add(version)
    dates = sorted({row["date"] for row in rows})
    listed = ", ".join(f"{name} {'/'.join(sorted(found))}" for name, found in sorted(versions.items()))
    table = [COLUMNS, ["---"] * len(COLUMNS), *lines(rows)]
    body = _cells(table)
    failed = [
        f"- {TITLES[row['shape']]}, {row['workload']}, {row['system_name']}, repeat {row['repeat']}:"
        f" {' '.join(str(row['error']).split())[:300]}"
        for row in rows
        if "error" in row
    ]
    seconds = min(row["timed_seconds"] for row in rows if "timed_seconds" in row)
    body += "\n" + floors(rows, limits) if limits else ""
    tail = "\nRows without a result:\n\n" + "\n".join(failed) + "\n" if failed else ""
    return (
        f"{HEAD.format(dates=', '.join(dates), gpus=', '.join(gpus), versions=listed, seconds=seconds)}\n{body}\n{tail}"
    )


HEAD = f"""# Speed beside peers

Written by `bench/gpu/table.py` from the raw rows in `bench/results/rows_*.json`; do not edit. Measured {{dates}} on
{{gpus}}. {{versions}}.

LoRA r=16 alpha=32 on all seven linears, dropout 0, random weights of the published shapes, the same token ids in the
same order for all, each row in a process of its own, alternating, at least {{seconds:.0f}} s timed with the optimizer
included. Useful tokens are all but padding. MFU counts useful FLOPs, nothing recomputed, over
{BF16_FLOPS / 1e12:.0f} TFLOP/s for every row. Peak is torch's `max_memory_allocated` from the first step on, recording
of CUDA graphs included. Gate: loss at step 0 beside float32 within {LOSS_TOLERANCE["bf16"]:.0e} (bf16) or
{LOSS_TOLERANCE["fp8"]:.0e} (FP8), every weight has a gradient after step 2, and where compared, each adapter's gradient
has a cosine of at least {LEAST_COSINE["bf16"]} (bf16) or {LEAST_COSINE["fp8"]} (FP8) with float32's on the shape's
first layers, whose weights are random here: roundings grow from layer to layer in such, and do not in trained ones
([measured](measurements.md)). nf4 changes the weights: shown, not judged.
"""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "speed.md")
    arguments = parser.parse_args()
    rows = read(arguments.results)
    if not rows:
        raise SystemExit(f"no rows_*.json in {arguments.results}")
    limits = [json.loads(path.read_text()) for path in sorted(arguments.results.glob("limits_*.json"))]
    arguments.out.write_text(page(rows, limits))
    print(arguments.out)


if __name__ == "__main__":
    main()
