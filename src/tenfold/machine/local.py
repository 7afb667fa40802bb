"""The computer that this runs on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import Literal

from tenfold.errors import InputError
from tenfold.machine.catalogue import gpus
from tenfold.machine.efficiency import efficiency_of, overheads_of
from tenfold.machine.energy import Power, energy_evidence, power_at_the_plug
from tenfold.machine.machine import Machine
from tenfold.machine.terms import PLAIN


def local_machine(usd_per_hour: float | None = None) -> Machine:
    """The computer this runs on: its first GPU if the driver shows one, else its CPU. Without a price unless given.

    Raises InputError if its GPU is not in the catalogue.
    """
    gpu = _driver_gpu()
    machine = _cpu() if gpu is None else _gpu_by_driver_name(*gpu)
    if usd_per_hour is None:
        return machine
    return replace(machine, rent_usd_per_hour=usd_per_hour, price_source="the recipe")


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
    known = next((machine for machine in gpus().values() if machine.device == name), None)
    if known is not None:
        power = known.power
        if power is not None and power.watts is not None:
            power = replace(power, watts=power.watts / energy_evidence()["pue"]["value"])
        return replace(known, terms=PLAIN, here=True, power=power)
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
    devices = {dtype: f"{cores} x {model}, {dtype}" for dtype in ("float32", "bfloat16")}
    return Machine(
        name=f"local: {cores} x {model}",
        vendor_kind="cpu",
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        flops=flops,
        bandwidth_bytes_per_second=10e9 * cores,  # one DDR4/DDR5 stream per core, a low guess
        compute_capability=None,
        efficiency=efficiency_of(devices[dtype], f"{model}, {dtype}", f"cpu, {dtype}"),
        float32_efficiency=efficiency_of(devices["float32"], f"{model}, float32", "cpu, float32"),
        overheads=overheads_of(devices[dtype], "cpu"),
        device=devices[dtype],
        power=Power(power_at_the_plug(None, rented=False), energy_evidence()["grams_co2e_per_kwh"]["value"]),
        terms=PLAIN,
        here=True,
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
