"""Mutated recipes and files of rows: none may crash tenfold, pass with a value out of range, or lose a row.

python bench/fuzz.py [--count 10000] [--seed 0]
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz_recipes
import fuzz_rows
from measure import machine, write_result

FINE = ("read", "refused")
SLOW_SECONDS = 1.0
"""Of processor time, for one recipe or file."""
"""Of processor time, for one recipe or file."""


def fuzz(what: str, count: int, seed: int, one: Callable[[random.Random], tuple[str, str, str]]) -> dict[str, Any]:
    """Outcomes of `count` mutations, each drawn from its own seed so that it can be had again alone."""
    outcomes: Counter[str] = Counter()
    levels: dict[str, Counter[str]] = {}
    faults: list[dict[str, Any]] = []
    slowest = 0.0
    started = time.perf_counter()
    for number in range(count):
        began = time.process_time()
        level, outcome, detail = one(random.Random(f"{what} {seed} {number}"))
        seconds = time.process_time() - began
        slowest = max(slowest, seconds)
        if seconds > SLOW_SECONDS and outcome in FINE:
            outcome, detail = "slow", f"{seconds:.2f} s"
        outcomes[outcome] += 1
        levels.setdefault(level, Counter())[outcome] += 1
        if outcome not in FINE:
            faults.append({"number": number, "level": level, "outcome": outcome, "detail": detail})
    return {
        "what": what,
        "mutations": count,
        "outcomes": dict(outcomes),
        "by_level": {level: dict(counted) for level, counted in sorted(levels.items())},
        "faults": faults[:50],
        "slowest_seconds": slowest,
        "seconds": time.perf_counter() - started,
    }


def fuzz_all_recipes(count: int, seed: int) -> dict[str, Any]:
    """Of recipes."""

    def one(draw: random.Random) -> tuple[str, str, str]:
        level, content = fuzz_recipes.mutate(draw)
        return (level, *fuzz_recipes.check(content))

    return fuzz("recipes", count, seed, one)


def fuzz_all_rows(count: int, seed: int) -> dict[str, Any]:
    """Of files of rows."""
    used = fuzz_rows.tokenizer()
    with tempfile.TemporaryDirectory() as folder:

        def one(draw: random.Random) -> tuple[str, str, str]:
            level, kind, suffix, content = fuzz_rows.mutate(draw)
            return (level, *fuzz_rows.check(content, suffix, kind, used, Path(folder), draw))

        return fuzz("rows", count, seed, one)


def main() -> None:
    """Fuzz both, print, write the result; exit 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    head = machine()
    print(f"seed {arguments.seed}, {arguments.count} mutations of each", flush=True)
    rows = [fuzz_all_recipes(arguments.count, arguments.seed), fuzz_all_rows(arguments.count, arguments.seed)]
    summary = {row["what"]: row["outcomes"] for row in rows}
    print(summary)
    for row in rows:
        for fault in row["faults"]:
            print(row["what"], fault)
    settings = {"count": arguments.count, "seed": arguments.seed, "slow_seconds": SLOW_SECONDS}
    write_result("fuzz", settings, rows, summary, head)
    raise SystemExit(any(row["faults"] for row in rows))


if __name__ == "__main__":
    main()
