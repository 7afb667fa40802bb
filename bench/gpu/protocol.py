"""How one row is measured, the same for every system, in a process of its own.

Warm up until three consecutive steps agree within 3 %, then time at least 12 s of steps with one synchronisation at
either edge and one event per step for the median. A step is zero gradients, forward, backward, optimizer.
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from rows import Row, targets, tokens

TIMED_SECONDS = 12.0
AGREEMENT = 0.03
WARM_STEPS = 5
PACKAGES = (
    "tenfold", "torch", "triton", "transformers", "peft", "trl", "accelerate", "liger-kernel", "unsloth",
    "unsloth-zoo", "bitsandbytes", "xformers", "datasets",
)  # fmt: skip


@dataclass
class System:
    """One way to train, built and loaded, behind the three things that the timed loop needs."""

    name: str
    parameters: dict[str, torch.nn.Parameter]
    """What learns."""
    optimizer: torch.optim.Optimizer
    prepare: Callable[[Sequence[Row]], Any]
    """The rows of one optimizer step as tensors on the device."""
    backward: Callable[[Any], torch.Tensor]
    """Forward and backward of the rows of one step; their mean loss, detached, still on the device."""
    precision: str = "bf16"
    """Of the frozen weights: bf16, fp8 or nf4. Decides which tolerance the losses are held to."""
    facts: list[str] = field(default_factory=list)
    """What was really run: loss path, loop, attention, memory settings."""
    names: dict[str, str] = field(default_factory=dict)
    """Only where parameters do not carry the usual names: theirs to `0.q_proj.A`."""


@dataclass(frozen=True)
class Budget:
    """Seconds of wall clock that one row may take, from the start of its process."""

    started: float
    seconds: float

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.seconds - (time.perf_counter() - self.started)


@dataclass(frozen=True)
class Timing:
    """How long to time."""

    seconds: float = TIMED_SECONDS
    steps: int = 5
    """At least so many, however long they take."""


def measure(
    system: System, steps: Sequence[Sequence[Row]], device: str, budget: Budget, timing: Timing
) -> dict[str, Any]:
    """Train on the rows of `steps`, round and round, and say how fast."""
    prepared = [system.prepare(rows) for rows in steps]
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    losses: list[torch.Tensor] = []

    def step() -> float:
        started = time.perf_counter()
        losses.append(run_step(system, prepared[len(losses) % len(prepared)]))
        synchronise(device)
        return time.perf_counter() - started

    result: dict[str, Any] = {"first_step_seconds": step(), "gradients_step_1": gradient_norms(system)}
    warm = [step()]
    result["gradients_step_2"] = gradient_norms(system)
    while not _settled(warm) and budget.left > timing.seconds:
        warm.append(step())
    result |= {"warm_steps": len(warm) + 1, "warm_step_seconds": _rounded(warm), "settled": _settled(warm)}
    wanted = max(timing.steps, round(min(timing.seconds, max(2.0, budget.left)) / statistics.median(warm[-3:])) + 1)
    first, graphs = len(losses), _graphs()
    with Clocks(device != "cpu") as clocks:
        seconds, each = _timed(system, [prepared[(first + n) % len(prepared)] for n in range(wanted)], device, losses)
    ran = [steps[(first + number) % len(steps)] for number in range(wanted)]
    total, bearing = sum(map(tokens, ran)), sum(map(targets, ran))
    result |= {
        "timed_steps": wanted,
        "timed_seconds": seconds,
        "tokens_per_second": total / seconds,
        "loss_tokens_per_second": bearing / seconds,
        "loss_share": bearing / total,
        "median_step_seconds": statistics.median(each),
        "median_tokens_per_second": total / wanted / statistics.median(each),
        "step_seconds": _rounded(each[:200]),
        "recompiled_in_window": _graphs() - graphs,
        "clocks": clocks.summary,
        "losses": [round(value, 6) for value in torch.stack(losses[:12]).float().tolist()],
        "last_loss": float(losses[-1]),
    }
    if device != "cpu":
        result["peak_allocated_bytes"] = torch.cuda.max_memory_allocated()
        result["peak_reserved_bytes"] = torch.cuda.max_memory_reserved()
    return result


def _timed(
    system: System, batches: Sequence[Any], device: str, losses: list[torch.Tensor]
) -> tuple[float, list[float]]:
    """Wall seconds of all steps between two synchronisations, and of each step: by events, on a CPU by the clock."""
    cuda = device != "cpu"
    events = [torch.cuda.Event(enable_timing=True) for _ in range(len(batches) + 1)] if cuda else []
    synchronise(device)
    marks = [time.perf_counter()]
    if cuda:
        events[0].record()
    for number, batch in enumerate(batches):
        losses.append(run_step(system, batch))
        marks.append(time.perf_counter())
        if cuda:
            events[number + 1].record()
    synchronise(device)
    seconds = time.perf_counter() - marks[0]
    if cuda:
        return seconds, [a.elapsed_time(b) / 1000 for a, b in itertools.pairwise(events)]
    return seconds, [b - a for a, b in itertools.pairwise(marks)]


def run_step(system: System, batch: Any) -> torch.Tensor:
    """One optimizer step. Gradients stay until the next one, to be looked at."""
    system.optimizer.zero_grad(set_to_none=True)
    loss = system.backward(batch)
    system.optimizer.step()
    return loss


def gradient_norms(system: System) -> dict[str, Any]:
    """The smallest and largest gradient norm, and what has none. dA is zero on step 1, where B still is."""
    norms = {
        name: float(weight.grad.float().norm()) if weight.grad is not None else 0.0
        for name, weight in system.parameters.items()
    }
    zero = [name for name, norm in norms.items() if not norm > 0]  # NaN counts as none
    return {
        "count": len(norms),
        "min": min(norms.values(), default=0.0),
        "max": max(norms.values(), default=0.0),
        "without": len(zero),
        "without_examples": zero[:4],
    }


def synchronise(device: str) -> None:
    """Wait for the device."""
    if device != "cpu":
        torch.cuda.synchronize()


class Clocks:
    """SM clock, power and temperature twice a second while the steps run; read, never set."""

    def __init__(self, on: bool) -> None:
        self.on = on
        self.readings: list[tuple[float, float, float]] = []

    def __enter__(self) -> Clocks:
        import threading

        self._stop = threading.Event()
        if self.on:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def _watch(self) -> None:
        try:
            import pynvml as nv

            nv.nvmlInit()
            card = nv.nvmlDeviceGetHandleByIndex(0)
            while not self._stop.wait(0.5):
                self.readings.append(
                    (
                        float(nv.nvmlDeviceGetClockInfo(card, nv.NVML_CLOCK_SM)),
                        nv.nvmlDeviceGetPowerUsage(card) / 1000,
                        float(nv.nvmlDeviceGetTemperature(card, nv.NVML_TEMPERATURE_GPU)),
                    )
                )
        except Exception as error:
            print(f"clocks not read: {error}", file=sys.stderr)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self.on:
            self._thread.join(5)

    @property
    def summary(self) -> dict[str, float]:
        """Medians: MHz, watts, degrees Celsius."""
        names = ("sm_mhz", "watts", "celsius")
        columns = zip(*self.readings, strict=True)
        return {name: statistics.median(column) for name, column in zip(names, columns, strict=False)}


def environment(device: str) -> dict[str, Any]:
    """Versions, the GPU's name, the processor's cores."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    gpu = torch.cuda.get_device_name() if device != "cpu" else None
    settings = {name: value for name, value in sorted(os.environ.items()) if name.startswith("UNSLOTH_")}
    return {
        "gpu": gpu,
        "cores": os.cpu_count(),
        "cuda": torch.version.cuda,
        "versions": found,
        "unsloth_settings": settings,
    }


def _settled(seconds: Sequence[float]) -> bool:
    last = seconds[-3:]
    return len(seconds) + 1 >= WARM_STEPS and max(last) - min(last) <= AGREEMENT * min(last)


def _graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 5) for value in values]
