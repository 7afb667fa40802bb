"""Measuring this machine in a minute, and keeping its rates where plans look for them."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

from tenfold.calibrate.probe import run_probe
from tenfold.calibrate.probes import probes_of
from tenfold.durable import write_file
from tenfold.errors import InputError
from tenfold.job import of_one_length, training_work, work_seconds
from tenfold.job.fit import Observation, fit_efficiency
from tenfold.machine import Efficiency, Machine, Overheads, calibration_file, find_compiler

SECONDS = 60.0
"""All that a calibration may take, imports included."""

ENOUGH_SECONDS = 1.2
"""Of counted steps for each probe."""

PRIOR_WIDTH = 0.2
"""Of a rate's logarithm before it is measured here, a factor of 1.2. Probes are small and short: given more freedom,
they foretell real runs worse (docs/plan-accuracy.md; 0.1 to 1.0 were tried)."""

CARD_WIDTH, HOST_WIDTH = 0.01, 0.5
"""The same for a GPU whose kind was measured elsewhere: cards of one kind are alike to some percent (on three H200 2 %
in the mean where the card is the limit, but for one shape), their hosts are not (a launch took 37 us there, 49 here).
Probes tell little of a card: those that it is the limit of were 7 to 12 % faster on all three than rates fitted to
whole models say, and 0.03 made those models' compiled steps 5.1 % wrong in the mean, 0.01 3.4, and 0.005 3.2
(bench/results/plan_accuracy_h200_2026-11-28.json, _after.json, _warm.json)."""

LEAST_ERROR = 0.10
"""What a prediction may be off by at least, however well the probes are met: their own runs differ by some percent."""

DISK_BYTES = {"cpu": 2**28, "cuda": 2**30}
"""Of the state that is saved to know the disk: on a GPU's host 256 MiB went at 390 MB/s where 7.2 GB went at 270
(bench/results/plan_accuracy_h200_2026-11-28_one-graph.json)."""


@dataclass(frozen=True)
class Calibration:
    """What was measured of a machine."""

    device: str
    efficiency: Efficiency
    overheads: Overheads
    probes: tuple[dict[str, Any], ...]
    """Name, measured seconds, and what the fitted rates say of them."""
    left_out: tuple[str, ...]
    """Probes that were not run, and why."""

    def row(self) -> dict[str, Any]:
        """As it stands in a file."""
        return {
            **asdict(self.efficiency),
            "overheads": asdict(self.overheads),
            "device": self.device,
            "probes": list(self.probes),
            "left_out": list(self.left_out),
        }

    def write(self) -> Path:
        """Keep it for the plans to come."""
        path = calibration_file(self.device)
        write_file(path, json.dumps(self.row(), indent=1) + "\n")
        return path


def calibrate(
    machine: Machine,
    seconds: float = SECONDS,
    tell: Callable[[str], None] = lambda _: None,
    *,
    age_seconds: float = 0.0,
) -> Calibration:
    """Time the probes of `machine`, which must be this computer, and fit its rates to them.

    It takes at most `seconds`, of which `age_seconds` have passed. Raises InputError where nothing could be timed.
    """
    if not machine.here:
        raise InputError(f"{machine.name}: only the computer at hand can be measured; run tenfold calibrate there")
    started = time.monotonic() - age_seconds
    import_module("tenfold.run.train")
    measured = (
        f"imports, disk and compiler measured here, {datetime.now(UTC).date()}; the rest: {machine.overheads.source}"
    )
    overheads = replace(machine.overheads, import_seconds=_import_seconds(), source=measured, **_disk_rates(machine))
    observations: list[Observation] = []
    timed: list[tuple[str, Observation, float]] = []
    left_out: list[str] = []
    compiles = machine.vendor_kind == "cuda" and find_compiler("cuda") is not None
    compile_seconds: list[float] = []
    longest = {False: 0.0, True: machine.overheads.compile_seconds}
    for probe in probes_of(machine):
        needs_compiler = any(getattr(cut, "compile", False) for cut in probe.cuts)
        left = seconds - (time.monotonic() - started)
        if needs_compiler and not compiles:
            left_out.append(f"{probe.name}: there is no C compiler")
            continue
        if left < longest[needs_compiler] + 1.0:
            left_out.append(f"{probe.name}: no time was left")
            continue
        began = time.monotonic()
        try:
            with _nothing_compiled() if needs_compiler else nullcontext():
                found = run_probe(probe, machine, ENOUGH_SECONDS)
        except (MemoryError, RuntimeError) as error:  # too small a machine for this one; torch's lack of memory is both
            left_out.append(f"{probe.name}: {str(error).splitlines()[0][:120]}")
            continue
        longest[needs_compiler] = max(longest[needs_compiler], time.monotonic() - began)
        job = probe.job(machine)
        observation = Observation(training_work(job), found.seconds)
        observations.append(observation)
        timed.append((probe.name, observation, found.first_step_seconds))
        if needs_compiler and of_one_length(job):
            compile_seconds.append(found.first_step_seconds - found.seconds)
        tell(f"{probe.name}: {1000 * found.seconds:,.1f} ms a step")
    if not observations:
        raise InputError(f"{machine.name}: no probe could be timed: {'; '.join(left_out)}")
    if compile_seconds:
        overheads = replace(overheads, compile_seconds=statistics.median(compile_seconds))
    return _fitted(machine, overheads, observations, timed, tuple(left_out))


def render_calibration(found: Calibration, path: Path) -> str:
    """What was measured, for a terminal."""
    lines = [f"{found.device}: predictions to within {found.efficiency.error:.0%}, kept in {path}", ""]
    lines += [
        f"  {probe['name']:<20} {1000 * probe['seconds']:>10,.1f} ms a step   met within {probe['error']:+.1%}"
        for probe in found.probes
    ]
    lines += [f"  left out: {text}" for text in found.left_out]
    return "\n".join(lines)


def calibrated_efficiency(machine: Machine, observations: Sequence[Observation]) -> Efficiency:
    """The machine's rates as its probes have them."""
    if machine.vendor_kind == "cuda" and not machine.efficiency.guessed:
        return fit_efficiency(machine, observations, CARD_WIDTH, HOST_WIDTH)
    return fit_efficiency(machine, observations, PRIOR_WIDTH)


def _fitted(
    machine: Machine,
    overheads: Overheads,
    observations: list[Observation],
    timed: list[tuple[str, Observation, float]],
    left_out: tuple[str, ...],
) -> Calibration:
    efficiency = calibrated_efficiency(machine, observations)
    met = [work_seconds(one.work, machine, efficiency) / one.seconds - 1 for one in observations]
    error = max(LEAST_ERROR, 2 * (sum(miss**2 for miss in met) / len(met)) ** 0.5)
    source = f"tenfold calibrate on this computer, {datetime.now(UTC).date()}, {len(met)} probes"
    probes = tuple(
        {"name": name, "seconds": one.seconds, "error": miss, "first_step_seconds": first}
        for (name, one, first), miss in zip(timed, met, strict=True)
    )
    efficiency = replace(efficiency, error=error, guessed=False, source=source)
    return Calibration(machine.device, efficiency, overheads, probes, left_out)


@contextmanager
def _nothing_compiled() -> Generator[None]:
    """What a probe compiles is compiled anew, as a model's first run has it, and forgotten."""
    fresh_cache = import_module("torch._inductor.utils").fresh_cache
    import_module("torch._dynamo").reset()
    with fresh_cache():
        yield


def _import_seconds() -> float:
    """Of what a run imports, in a process of its own. Its files were just read, as all runs but a machine's first find
    them: there it took 0.5 to 3.6 s longer (bench/results/plan_accuracy_h200_2026-11-28_*.json)."""
    program = "from tenfold.collector import collect_rarely; collect_rarely(); import tenfold.run.train"
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - began


def _disk_rates(machine: Machine) -> dict[str, float]:
    """How fast a state is saved; on a CPU also how a file is read and hashed, which beside a GPU is done meanwhile."""
    torch = import_module("torch")
    save_state = import_module("tenfold.run.checkpoint").save_state
    size = DISK_BYTES[machine.vendor_kind]
    content = torch.frombuffer(bytearray(os.urandom(2**26)), dtype=torch.uint8).repeat(size // 2**26)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        saved = save_state(Path(folder), 0, {"content": content}, {}, keep=1)
        rates = {"saved_bytes_per_second": size / (time.perf_counter() - began)}
        if machine.vendor_kind == "cpu":
            (file,) = saved.glob("*.safetensors")
            began = time.perf_counter()
            sha256(file.read_bytes()).hexdigest()
            # Weights are hashed, and read once more to be put in their place.
            rates["load_bytes_per_second"] = size / (2 * (time.perf_counter() - began))
    return rates
