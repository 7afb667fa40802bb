"""Predictions beside measurements: collected on a CPU, rates fitted, docs/plan-accuracy.md written.

python bench/plan_accuracy.py cpu [--minutes 20]     # calibrate, then measure what has no row yet; stop in time
python bench/plan_accuracy.py cpu --rows unseen --out bench/results/plan_accuracy_cpu_unseen.json # others, never fitted
python bench/plan_accuracy.py cpu --again            # all of it anew: a quarter of an hour on two quiet cores
python bench/plan_accuracy.py calibrate              # tenfold calibrate on this computer, kept beside the rows
python bench/plan_accuracy.py fit                    # the shipped rates of measured machines, from the rows
python bench/plan_accuracy.py table                  # docs/plan-accuracy.md

On a GPU: python bench/accuracy/gpu_session.py.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE / "accuracy"))

from collect import Collection, leg_row  # noqa: E402
from configurations import CPU, FRESH, HELD_OUT, UNSEEN  # noqa: E402
from evidence import write_evidence  # noqa: E402
from recalibrate import calibrations_here  # noqa: E402
from table import write_table  # noqa: E402

from measure import RESULTS  # noqa: E402
from tenfold.machine import local_machine  # noqa: E402

ROWS = {"fitted": CPU, "held-out": HELD_OUT, "unseen": UNSEEN, "fresh": FRESH}

MOST_DISTURBED = 0.08
"""Cores that other processes, or the host, may keep busy on average while a leg runs; else it is measured again."""

LITTLE_DRIFT = 0.25
"""By which the computer's speed may differ from what it was at its calibration; else it is calibrated again before the
next leg."""

LEG_SECONDS = 100.0
"""No leg takes longer; none is begun with less left than the longest so far."""


def measure_cpu(arguments: argparse.Namespace) -> None:
    """A calibration, and again when the computer's speed is another; and the configurations that have no row yet, each
    in processes of its own."""
    if arguments.again:
        arguments.out.unlink(missing_ok=True)
    collection = Collection(arguments.out, "plan-accuracy-cpu")
    collection.body.setdefault("date", datetime.date.today().isoformat())
    collection.body.setdefault("flops", dict(local_machine().flops))
    if not collection.body.get("references"):
        calibrate_here(collection)
    before = reference()
    started, longest = time.perf_counter(), 15.0
    names = [one.name for one in ROWS[arguments.rows]]
    for name in collection.missing(names):
        if time.perf_counter() - started + longest > 60 * arguments.minutes:
            break
        if drift(collection.body["references"][-1], before) > LITTLE_DRIFT:
            calibrate_here(collection)
            before = reference()
        calibrated = collection.body["references"][-1]
        leg_started = time.perf_counter()
        row = leg_row(name, arguments.work, LEG_SECONDS)
        seconds, after = time.perf_counter() - leg_started, reference()
        longest = max(longest, seconds)
        if "error" not in row and row["others_busy_cores"] > MOST_DISTURBED:
            row = {"name": name, "error": f"disturbed: others kept {row['others_busy_cores']:.2f} cores busy"}
        if "error" not in row:
            row["reference"] = {"before": before, "after": after}
            row["calibration"] = len(collection.body["references"]) - 1
            row["drift"] = max(drift(calibrated, now) for now in (before, after))
        before = after
        collection.add(row)
        print(f"{name}: {seconds:.0f} s, drift {row.get('drift', 0):.0%} {row.get('error', '')[-200:]}", flush=True)
    left = collection.missing(names)
    print(f"{len(names) - len(left)} of {len(names)} measured: {arguments.out}")


def reference() -> dict[str, float]:
    """How fast the computer is just now."""
    words = [sys.executable, str(HERE / "accuracy" / "reference.py")]
    return json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout)


def drift(calibrated: dict[str, float], now: dict[str, float]) -> float:
    """How far a product and a copy together are from what they took then; the table shows no seconds of a row with too
    much of it."""
    return abs(math.prod(now[name] / calibrated[name] for name in calibrated) ** (1 / len(calibrated)) - 1)


def calibrate_here(collection: Collection) -> None:
    """Calibrate this computer, and note how fast it was then."""
    before = reference()
    found = calibrations_here()
    after = reference()
    references = collection.body.setdefault("references", [])
    for row in found:
        collection.body.setdefault("calibrations", []).append({**row, "number": len(references)})
    references.append({name: (before[name] + after[name]) / 2 for name in before})
    collection.save()


def main() -> None:
    """One of the verbs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("cpu", "calibrate", "fit", "table"))
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--again", action="store_true", help="forget the rows that are there")
    parser.add_argument("--rows", choices=ROWS, default="fitted", help="which configurations")
    parser.add_argument("--work", type=Path, default=Path("/tmp/tenfold-accuracy"))
    parser.add_argument("--out", type=Path, default=RESULTS / "plan_accuracy_cpu.json")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.verb == "cpu":
        measure_cpu(arguments)
    elif arguments.verb == "calibrate":
        calibrate_here(Collection(arguments.out, "plan-accuracy-cpu"))
    elif arguments.verb == "fit":
        write_evidence()
    else:
        write_table()


if __name__ == "__main__":
    main()
