"""A computer on paper: what it can do, and its dated price."""

from __future__ import annotations

import csv
import difflib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

from tenfold.errors import InputError

if TYPE_CHECKING:
    from tenfold.recipe import MachineWish


@dataclass(frozen=True)
class Efficiency:
    """How near to its peak a machine comes in training, as far as known."""

    matmul: float
    """Share of the peak FLOP/s that matrix products reach."""
    bandwidth: float
    """Share of the peak bandwidth that all else reaches."""
    passes: float
    """How often each byte of activations is moved, by all operations that are not matrix products together."""
    block_overhead_seconds: float
    """Of one block in one micro-batch, whatever its size: beside the computation on a CPU, in its shadow on a GPU."""
    error: float
    """Relative half-width of what the time prediction may be off by."""
    guessed: bool
    source: str


@dataclass(frozen=True)
class Machine:
    """Specifications and price of one computer, or of one GPU of it."""

    name: str
    vendor_kind: Literal["cpu", "cuda"]
    memory_bytes: int
    """Usable: as reported, or 0.92 of a GPU's label where nobody reported it."""
    flops: Mapping[str, float]
    """Dense peak FLOP/s by dtype."""
    bandwidth_bytes_per_second: float
    compute_capability: float | None
    efficiency: Efficiency
    float32_efficiency: Efficiency | None = None
    """Where it differs."""
    tdp_watts: float | None = None
    usd_per_hour: float | None = None
    provider: str = ""
    tier: str = "on_demand"
    price_source: str = ""
    price_date: date | None = None

    @property
    def dtype(self) -> Literal["float32", "bfloat16"]:
        """What tenfold computes in here: bfloat16 where the hardware multiplies matrices of it, float32 elsewhere.

        On GPUs from compute capability 8.0 on, on CPUs with AMX or AVX512-BF16: where `flops` has a rate for it.
        """
        return "bfloat16" if "bfloat16" in self.flops else "float32"

    def computing_in(self, dtype: Literal["auto", "float32", "bfloat16"]) -> Machine:
        """This machine, held to a number format. Raises InputError where it has no hardware for it."""
        if dtype in ("auto", self.dtype):
            return self
        if dtype == "bfloat16":
            raise InputError(f"train.dtype: {self.label} has no hardware for bfloat16; write auto or float32")
        flops = {"float32": self.flops["float32"]}
        return replace(self, flops=flops, efficiency=self.float32_efficiency or self.efficiency)

    @property
    def label(self) -> str:
        """Name, provider and kind of price."""
        tier = "" if self.tier == "on_demand" else f" {self.tier}"
        return f"{self.name} ({self.provider}{tier})" if self.provider else self.name

    @property
    def supports_bf16(self) -> bool:
        """Matrix products in bfloat16: where a rate for it is known, which is from compute capability 8.0 on.

        Source: NVIDIA's CUDA C++ Programming Guide, arithmetic instructions by compute capability.
        """
        return "bfloat16" in self.flops

    @property
    def supports_fp8(self) -> bool:
        """Matrix products in fp8 (e4m3, e5m2): compute capability 8.9 (Ada), 9.0 (Hopper) and later; never a CPU.

        Source: torch._scaled_mm refuses anything older; NVIDIA's CUDA C++ Programming Guide, as above.
        """
        return self.vendor_kind == "cuda" and (self.compute_capability or 0) >= 8.9


def find_compiler(kind: Literal["cpu", "cuda"]) -> str | None:
    """Path of the compiler that torch.compile calls on this computer, None where it would fail for want of one.

    For a GPU, Triton builds its launchers in C with CC, else the first of gcc, clang and cl (triton.runtime.build). For
    a CPU, Inductor builds its kernels in C++ with CXX, else with the one that the system is known for
    (torch._inductor.config.cpp.cxx). A variable that names no program is not made good by another compiler.
    """
    if kind == "cuda":
        variable, names = "CC", ("gcc", "clang", "cl")
    else:
        variable, names = "CXX", ({"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++"),)
    named = os.environ.get(variable)
    paths = (shutil.which(name) for name in (names if named is None else (named,)))
    return next((path for path in paths if path is not None), None)


def _rows(name: str) -> list[dict[str, str]]:
    text = files("tenfold").joinpath("catalogue", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@lru_cache(maxsize=1)
def evidence() -> dict[str, Any]:
    """evidence/efficiency.json: what was measured, and what is guessed."""
    return json.loads(files("tenfold").joinpath("evidence", "efficiency.json").read_text(encoding="utf-8"))


def efficiency_of(device: str, kind: str) -> Efficiency:
    """The evidence for a device by its name, else for its kind."""
    rows = evidence()["machines"]
    found = next((row for row in rows if row["match"] == device), None) or next(r for r in rows if r["match"] == kind)
    return Efficiency(**{key: value for key, value in found.items() if key != "match"})


@lru_cache(maxsize=1)
def _gpus() -> dict[str, tuple[Machine, str]]:
    """Every GPU of the catalogue without a price, and the name its driver gives it."""
    found: dict[str, tuple[Machine, str]] = {}
    for row in _rows("gpus.csv"):
        rates = {dtype: row[f"{dtype}_tflops"] for dtype in ("bfloat16", "float32", "float8")}
        found[row["gpu"]] = (
            Machine(
                name=row["gpu"],
                vendor_kind="cuda",
                memory_bytes=int(float(row["memory_gib"]) * 2**30),
                flops={dtype: float(rate) * 1e12 for dtype, rate in rates.items() if rate},
                bandwidth_bytes_per_second=float(row["bandwidth_gb_per_second"]) * 1e9,
                compute_capability=float(row["compute_capability"]),
                efficiency=efficiency_of(row["names"], "cuda"),
                tdp_watts=float(row["tdp_watts"]),
            ),
            row["names"],
        )
    return found


@lru_cache(maxsize=1)
def catalogue() -> tuple[Machine, ...]:
    """Every GPU of the catalogue at every known price.

    Not those that are sold several at once: a run uses one GPU, and eighths of an instance of eight cannot be rented.
    """
    gpus = _gpus()
    return tuple(
        replace(
            gpus[row["gpu"]][0],
            usd_per_hour=float(row["usd_per_gpu_hour"]),
            provider=row["provider"],
            tier=row["tier"],
            price_source=row["source"],
            price_date=date.fromisoformat(row["checked_at"]) if row["checked_at"] else None,
        )
        for row in _rows("prices.csv")
        if row["gpu_count"] == "1"
    )


def find_machines(wish: MachineWish, dtype: Literal["auto", "float32", "bfloat16"] = "auto") -> tuple[Machine, ...]:
    """The machines that a recipe allows, at the prices that count, computing in the number format it wishes for.

    Raises InputError if a name is unknown, or if the provider, tier or number format leaves none.
    """
    found = _find_machines(wish)
    able = [machine for machine in found if dtype != "bfloat16" or machine.dtype == "bfloat16"]
    return tuple(machine.computing_in(dtype) for machine in able or found[:1])


def _find_machines(wish: MachineWish) -> tuple[Machine, ...]:
    found: list[Machine] = []
    for wanted in wish.names:
        if wanted == "local":
            found.append(local_machine(wish.usd_per_hour))
            continue
        name = wanted if wanted == "auto" else _catalogue_name(wanted)
        if wish.usd_per_hour is not None and name != "auto":
            found.append(_own_price(_gpus()[name][0], wish.usd_per_hour, wish.provider or ""))
            continue
        found += [
            machine
            for machine in catalogue()
            if name in ("auto", machine.name)
            and machine.tier == wish.tier
            and wish.provider in (None, machine.provider)
        ]
    if not found:
        raise InputError(
            f"machine: the catalogue has no {wish.tier} price for {', '.join(wish.names)}"
            + (f" at {wish.provider}" if wish.provider else "")
            + "; set machine.usd_per_hour to your own"
        )
    return tuple(found)


def _catalogue_name(wanted: str) -> str:
    """The catalogue's name for a GPU: case and spaces do not matter, nor a variant where there is only one."""

    def plain(name: str) -> str:
        return re.sub(r"[\s_-]|nvidia", "", name.lower())

    names = list(_gpus())
    exact = [name for name in names if plain(name) == plain(wanted)]
    starting = exact or [name for name in names if plain(name).startswith(plain(wanted))]
    if len(starting) == 1:
        return starting[0]
    close = starting or difflib.get_close_matches(wanted, [*names, "local", "auto"], 1, 0.4)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: local, auto, {', '.join(names)}"
    raise InputError(f"machine.name: found {wanted!r}, which the catalogue does not know; {hint}")


def _own_price(machine: Machine, usd_per_hour: float, provider: str) -> Machine:
    return replace(machine, usd_per_hour=usd_per_hour, provider=provider, price_source="the recipe", price_date=None)


def local_machine(usd_per_hour: float | None = None) -> Machine:
    """The computer this runs on: its first GPU if the driver shows one, else its CPU. Without a price unless given."""
    gpu = _driver_gpu()
    machine = _cpu() if gpu is None else _gpu_by_driver_name(*gpu)
    return machine if usd_per_hour is None else _own_price(machine, usd_per_hour, "")


def _driver_gpu() -> tuple[str, float] | None:
    """(name, GiB) of the first visible GPU, from nvidia-smi; None without a driver."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        name, mebibytes = shown.splitlines()[0].rsplit(",", 1)
        return name.strip(), float(mebibytes) / 1024
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def _gpu_by_driver_name(name: str, memory_gib: float) -> Machine:
    known = next((machine for machine, driver_name in _gpus().values() if driver_name == name), None)
    if known is not None:
        return known
    raise InputError(
        f"machine: the catalogue does not know this computer's GPU, {name!r} ({memory_gib:.0f} GiB);"
        " set machine.name to the nearest of its names, or CUDA_VISIBLE_DEVICES= to use the CPU"
    )


def _cpu() -> Machine:
    """This computer's CPU: peak = cores x clock x FLOP per cycle.

    The clock is the one that the system shows; turbo may exceed it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            info = file.read()
    except OSError:
        info = ""
    clock = re.search(r"^cpu MHz\s*:\s*([\d.]+)", info, re.M)
    named = re.search(r"^model name\s*:\s*(.+)$", info, re.M)
    model = named[1].strip() if named else "CPU"
    hertz = float(clock[1]) * 1e6 if clock else 2.5e9
    flops = {dtype: cores * hertz * rate for dtype, rate in flops_per_cycle(info).items()}
    dtype = "bfloat16" if "bfloat16" in flops else "float32"
    return Machine(
        name=f"local: {cores} x {model}",
        vendor_kind="cpu",
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        flops=flops,
        bandwidth_bytes_per_second=10e9 * cores,  # one DDR4/DDR5 stream per core, a low guess
        compute_capability=None,
        efficiency=efficiency_of(f"{model}, {dtype}", f"cpu, {dtype}"),
        float32_efficiency=efficiency_of(f"{model}, float32", "cpu, float32"),
    )


AMX_FLOPS_PER_CYCLE = 1024
"""bfloat16 FLOP per cycle and core: TDPBF16PS multiplies 16 x 32 by 32 x 16 in 16 cycles (Intel's optimization manual,
chapter on AMX)."""


def flops_per_cycle(info: str) -> dict[str, int]:
    """FLOP per cycle and core by dtype, from the flags of /proc/cpuinfo; bfloat16 where it has instructions for it.

    float32: lanes x two FMA units x two. 512-bit units: 64, but 32 on AMD before family 26 (Zen 5), where they take two
    cycles. AVX2 with FMA: 32. Without, an addition and a multiplication on 4 lanes: 8. bfloat16: AMX, else AVX512-BF16,
    whose VDPBF16PS does two multiplications for each of float32's. Source: Intel's and AMD's optimization manuals.
    """
    flags = re.search(r"^flags\s*:(.*)$", info, re.M)
    names = set(flags[1].split()) if flags else set[str]()
    family = re.search(r"^cpu family\s*:\s*(\d+)", info, re.M)
    rates = {"float32": 32 if {"avx2", "fma"} <= names else 8}
    if "avx512f" in names:
        old_amd = "AuthenticAMD" in info and family is not None and int(family[1]) < 26
        rates["float32"] = 32 if old_amd else 64
    if "amx_bf16" in names:
        rates["bfloat16"] = AMX_FLOPS_PER_CYCLE
    elif "avx512_bf16" in names:
        rates["bfloat16"] = 2 * rates["float32"]
    return rates
