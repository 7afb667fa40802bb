"""Faults against real runs of tiny models, by the thousand; raw results to results/, docs/reliability.md from them.

python bench/reliability.py [--only kills flips] [--kills 1000] [--resumes 50] [--signals 200] [--flips 10000]
                            [--budgets 10000] [--lines 1000000] [--seconds 3600] [--seed 1] [--jobs 2]
python bench/reliability.py --document      # docs/reliability.md from the results alone

`--seconds` bounds each campaign: a result says how many were really done. The seed is printed, and is in the result.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "tests"), str(ROOT / "src")]

import torch  # noqa: E402

import tenfold.run.train  # noqa: E402, F401 - imported here once, for every fork
from faults import budgets, crash_points, damages, flips, kills, lines, points, resumes, runs, stops  # noqa: E402
from faults.document import write_document  # noqa: E402
from measure import machine, write_result  # noqa: E402

Row = dict[str, Any]

LEAST_FREE_BYTES = 2**30
"""In memory, where a campaign's files may lie: containers often have 64 MiB for them, which one alone may fill."""


@dataclass(frozen=True)
class Campaign:
    """`rows(folder, count, until, seed)` tries faults; `summary` says how many were tried and how many held."""

    rows: Callable[[Path, int, float, int], Iterator[Row]]
    summary: Callable[[list[Row]], Row]
    count: int
    """The number that a release owes."""
    divisible: bool = False
    """Whether halves of it may run side by side."""


CAMPAIGNS = {
    "budgets": Campaign(budgets.budgets, budgets.summary, 10_000),
    "lines": Campaign(lines.long_lines, lines.summary, 1_000_000),
    "flips": Campaign(flips.bit_flips, flips.summary, 10_000),
    "damages": Campaign(damages.damaged, damages.summary, 13),
    "resumes": Campaign(resumes.chained, resumes.summary, 50),
    "crash-points": Campaign(crash_points.crash_points, crash_points.summary, 1),
    "points": Campaign(points.disturbed, points.summary, 10_000, divisible=True),
    "signals": Campaign(stops.terminations, stops.summary, 200, divisible=True),
    "kills": Campaign(kills.random_kills, kills.summary, 1000, divisible=True),
}


def main() -> None:
    """Every campaign asked for, one after the other."""
    wishes = read_arguments()
    if not wishes.document:
        torch.set_num_threads(1)
        gc.freeze()  # so that a fork shares its pages
        if wishes.busy:
            runs.LONGEST_SECONDS = stops.LONGEST_SECONDS = 3600.0
        print(f"seed {wishes.seed}", flush=True)
        for name in wishes.only:
            run_campaign(name, wishes)
    if wishes.out is None:
        print(write_document())


def read_arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(CAMPAIGNS), default=list(CAMPAIGNS))
    for name, campaign in CAMPAIGNS.items():
        parser.add_argument(f"--{name}", type=int, default=campaign.count, dest=name)
    parser.add_argument("--seconds", type=float, default=3600.0, help="longest time of a campaign")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--busy", action="store_true", help="on a busy computer: nothing is too slow")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side, for kills and signals")
    parser.add_argument("--out", type=Path, help="write <campaign>.json into this folder, not to bench/results")
    parser.add_argument("--document", action="store_true", help="write docs/reliability.md and do nothing else")
    return parser.parse_args()


def run_campaign(name: str, wishes: argparse.Namespace) -> None:
    """One campaign in a folder of its own, in memory where there is such a place: kills do not need a disk."""
    campaign, head, started = CAMPAIGNS[name], machine(), time.monotonic()
    roomy = os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > LEAST_FREE_BYTES
    base = "/dev/shm" if roomy else None
    jobs = wishes.jobs if campaign.divisible else 1
    folder = Path(tempfile.mkdtemp(prefix=f"faults-{name}-", dir=base))
    try:
        rows = side_by_side(campaign, folder, getattr(wishes, name), started + wishes.seconds, wishes.seed, jobs)
        summary = {**campaign.summary(rows), "seconds": round(time.monotonic() - started, 1)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{name}: {json.dumps(summary)}", flush=True)
    settings = {"asked_for": getattr(wishes, name), "seed": wishes.seed, "jobs": jobs}
    if wishes.out is None:
        write_result(f"reliability-{name}", settings, rows, summary, head)
    else:
        wishes.out.mkdir(parents=True, exist_ok=True)
        (wishes.out / f"{name}.json").write_text(json.dumps({"settings": settings, "summary": summary, "rows": rows}))


def side_by_side(campaign: Campaign, folder: Path, count: int, until: float, seed: int, jobs: int) -> list[Row]:
    """The rows of `jobs` processes with a share of `count` and a seed each."""
    children: list[int] = []
    for number in range(jobs):
        share = count // jobs + (number < count % jobs)
        (place := folder / str(number)).mkdir()
        os.environ["XDG_DATA_HOME"] = os.environ["XDG_CONFIG_HOME"] = str(folder / "user")
        pid = os.fork()
        if pid == 0:
            rows = list(campaign.rows(place, share, until, seed + number))
            (folder / f"{number}.json").write_text(json.dumps(rows))
            os._exit(0)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    if any(codes):
        raise SystemExit(f"a process of the campaign failed: {codes}")
    return read_all([folder / f"{number}.json" for number in range(jobs)])


def read_all(paths: Sequence[Path]) -> list[Row]:
    """The rows in several files."""
    return [row for path in paths for row in json.loads(path.read_text())]


if __name__ == "__main__":
    main()
