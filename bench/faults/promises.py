"""What tenfold promises: nothing lost, nothing untrue; the test of each promise, and where its figure comes from.

A promise is one row. `result` names a benchmark: the newest `bench/results/<result>_*.json` is read, and its `summary`
fills the braces of `figure` by key; several results are joined where a promise has several. Without a result, `figure`
stands as it is written. `test` is a file under tests/, with `::name` where it is one test, or a command of bench/.
Another page's promises are another tuple of the same kind, added to `SECTIONS`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Promise:
    """One row of docs/reliability.md."""

    promise: str
    test: str
    figure: str
    result: str = ""


COMMAND = "bench/reliability.py --only"

LOSING_NOTHING = (
    Promise(
        "A run killed at any moment (kill -9) ends, after the same command, at the weights, evaluations and ledger row"
        " of a run that was not, bit for bit on a CPU",
        f"{COMMAND} kills",
        "{held:,} of {tried:,} random kills over {recipes_n} recipes; continued at {steps_continued_at_n} different"
        " steps",
        "reliability-kills",
    ),
    Promise(
        "A write is there whole or not at all, wherever its process dies: files, folders, checkpoints, receipt, ledger",
        f"{COMMAND} crash-points",
        "{held:,} of {tried:,} enumerated points of {writers} writers: old or new, and the next write succeeds",
        "reliability-crash-points",
    ),
    Promise(
        "A whole run survives a kill, a full disk or an I/O error at each change it makes to the disk",
        f"{COMMAND} points",
        "{held:,} of {tried:,} faults at {points_of_the_run} points, continued to the same weights",
        "reliability-points",
    ),
    Promise(
        "Continuing again and again loses no row and repeats none",
        f"{COMMAND} resumes",
        "{stops_in_one_run} stops in one run, of each of {tried} recipes: {rows_lost_or_repeated} steps with other"
        " rows, {held} of {tried} runs bit-identical",
        "reliability-resumes",
    ),
    Promise(
        "A damaged checkpoint is named, and the one before it used",
        f"{COMMAND} damages",
        "{held} of {tried} ways of damaging the newest one, to the same weights",
        "reliability-damages",
    ),
    Promise(
        "No flipped bit of a checkpoint goes unseen",
        f"{COMMAND} flips",
        "{held:,} of {tried:,} flips in {kinds_of_file} kinds of file seen",
        "reliability-flips",
    ),
    Promise(
        "SIGTERM while loading, tokenising, training, evaluating or saving ends a run within 10 s with exit code 75,"
        " and it continues to the same weights",
        f"{COMMAND} signals",
        "{held} of {tried}; the slowest took {slowest_seconds} s on tiny models",
        "reliability-signals",
    ),
    Promise(
        "A budget is passed by one optimizer step (or one micro-batch of an evaluation) and what is saved at the end,"
        " at most",
        f"{COMMAND} budgets",
        "{held:,} of {tried:,} simulated runs; the worst used {worst_part_of_promise:.1%} of that",
        "reliability-budgets",
    ),
    Promise(
        "What an attempt spent after its last checkpoint is billed, and counts against the budget",
        "tests/faults/test_fault_account.py",
        "up to the last step, noted every half second; a power cut may lose the note",
    ),
    Promise(
        "The last verified checkpoint is never deleted",
        "tests/run/test_checkpoint_save.py",
        "a state is read back before it gets its name, and only then may older ones go",
    ),
    Promise(
        "NaN or Inf is never learned from, and never saved",
        "tests/faults/test_fault_numbers.py",
        "in loss, gradient, weight and update; the last good checkpoint stays",
    ),
    Promise(
        "A spike of the loss is said, and where a recipe wants it so, left out: to the bit the run that never saw it",
        "tests/faults/test_fault_spikes.py",
        "one step and fifty, with kills before and within, and with another answer given on the way",
    ),
    Promise(
        "Too little memory makes a step smaller, not another one",
        "tests/rig/test_shrinking.py",
        "same gradients; an evaluation is done in smaller parts too",
    ),
    Promise(
        "Another library, device or number of threads is recorded as not bit-exact; other rows, weights or base are"
        " refused",
        "tests/faults/test_fault_places.py",
        "in the receipt's events",
    ),
)

TELLING_THE_TRUTH = (
    Promise(
        "A recipe is read or refused in one line; no value out of range is accepted",
        "tests/test_fuzz.py",
        "`bench/fuzz.py`: {recipes[read]:,} mutations read and {recipes[refused]:,} refused, no other end",
        "fuzz",
    ),
    Promise(
        "Rows in are rows trained, held out or rejected, each with its reason",
        "tests/test_fuzz.py",
        "`bench/fuzz.py`: {rows[read]:,} mutated files read and {rows[refused]:,} refused, no row unaccounted for",
        "fuzz",
    ),
    Promise(
        "A line far over the cap of 32 MiB, one of 10 MB, a million short ones: read in less memory than twice the cap",
        f"{COMMAND} lines",
        "{held} of {tried} files, of up to {longest_bytes:,} bytes and {most_lines:,} lines; at most {peak_mib} MiB; a"
        " line of letters that just fits takes {fitting_mib} MiB",
        "reliability-lines",
    ),
    Promise(
        "What comes from a hub is what it declared, or is refused and not kept",
        "tests/test_hub.py",
        "size and hash, of small files and of weights, whatever the way",
    ),
    Promise(
        "Nonsense is refused before the first step: rows that teach nothing, stop tokens that are not learned, tokens"
        " without a row, layouts or exports that compute something else",
        "tests/checks/test_paper_checks.py",
        "eleven checks, each with a fault of its kind that it must find",
    ),
    Promise(
        "A changed bill shows: ledger rows are chained by hash and name the hash of their receipt",
        "tests/test_ledger.py",
        "every column, every row, their order, every byte tried",
    ),
    Promise(
        "Nothing that a run is given is executed, and no secret is told",
        "tests/test_house.py",
        "no pickle, eval, exec, shell or unsafe YAML in the source; templates render in a process with limits",
    ),
)

SECTIONS = (("Losing nothing", LOSING_NOTHING), ("Telling the truth", TELLING_THE_TRUTH))
"""The tables of docs/reliability.md: a title and its promises."""
