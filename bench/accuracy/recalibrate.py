"""What `tenfold calibrate` measured, and the rates that it would find from that today: probes are counted anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tenfold.calibrate.calibrate import calibrated_efficiency
from tenfold.calibrate.probe import Probe
from tenfold.calibrate.probes import probes_of
from tenfold.cuts import cut_from_dict
from tenfold.job import training_work
from tenfold.job.fit import Observation
from tenfold.job.seconds import SIZES_AS_SYMBOLS
from tenfold.machine import Efficiency, Machine, Overheads, efficiency_from, evidence, local_machine


def definition(probe: Probe) -> dict[str, Any]:
    """All that a probe is, as it stands in a file."""
    return {
        "name": probe.name,
        "config": dict(probe.config),
        "task": probe.task,
        "lengths": list(probe.lengths),
        "cuts": [cut.to_dict() for cut in probe.cuts],
        "micro_rows": probe.micro_rows,
        "optimizer": probe.optimizer,
    }


def probe_from(row: Mapping[str, Any]) -> Probe:
    """The probe of a definition."""
    cuts = tuple(cut_from_dict(cut) for cut in row["cuts"])
    return Probe(
        row["name"], row["config"], row["task"], tuple(row["lengths"]), cuts, row["micro_rows"], row["optimizer"]
    )


def calibrations_here() -> list[dict[str, Any]]:
    """The rows of `tenfold calibrate` on this computer, in a folder of their own, and what their probes are."""
    definitions = [definition(probe) for probe in probes_of(local_machine())]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tenfold", "calibrate"]
        subprocess.run(command, env=os.environ | {"XDG_DATA_HOME": folder}, check=True)
        found = [json.loads(path.read_text()) for path in Path(folder).rglob("*.json")]
    return [{**row, "definitions": definitions, "saves_states": True} for row in found]


def guess(dtype: str) -> Efficiency:
    """What is shipped for any CPU in a number format."""
    return efficiency_from(next(row for row in evidence()["machines"] if row["match"] == f"cpu, {dtype}"))


def recalibrated(row: Mapping[str, Any], machine: Machine) -> Efficiency:
    """From a calibration's row, of `machine`: on a CPU starting from the guess, never from a shipped row, since shipped
    rows are fitted to what is foretold here; on a GPU from the shipped row, fitted to another one's rows. Rows of
    2026-11-24 name their probes and do not define them; those probes have not changed since."""
    defined = [probe_from(one) for one in row.get("definitions", [])] or list(probes_of(machine))
    measured = {one["name"]: one["seconds"] for one in row["probes"]}
    prior = machine if machine.vendor_kind == "cuda" else replace(machine, efficiency=guess(machine.dtype))
    seen = [
        Observation(training_work(probe.job(prior)), measured[probe.name])
        for probe in defined
        if probe.name in measured
    ]
    return calibrated_efficiency(prior, seen)


STATE = 0.64
"""A saved state's bytes a second beside those of a file that was written and hashed, not read back from the disk, which
is what calibrations measured until later on 2026-11-28: 320 and 340 beside 510 and 530 MB/s on two hosts."""

MEASURED_HERE = {
    "cpu": ("import_seconds", "saved_bytes_per_second", "load_bytes_per_second"),
    "cuda": ("import_seconds", "compile_seconds", "saved_bytes_per_second"),
}
"""Overheads that `tenfold calibrate` measures."""


def overheads_today(row: Mapping[str, Any], machine: Machine) -> Overheads:
    """What a calibration's row comes to today: measured overheads as they are, the others as they are shipped. A row
    that was measured when all sizes were compiled as symbols says so, as does one whose probe of the disk was a state.
    On a CPU those that have no number yet did not import all that a run does.
    """
    if machine.vendor_kind == "cpu" and "number" not in row:
        return machine.overheads
    measured = {name: row["overheads"][name] for name in MEASURED_HERE[machine.vendor_kind]}
    if not row.get("saves_states"):
        measured["saved_bytes_per_second"] *= STATE
    if row.get("sizes_as_symbols"):
        measured["compile_seconds"] /= SIZES_AS_SYMBOLS
    return replace(machine.overheads, **measured)
