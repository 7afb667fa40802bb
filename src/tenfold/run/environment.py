"""What this process runs on and with."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

import torch

from tenfold.receipt import Hardware

PACKAGES = ("tenfold", "torch", "transformers", "tokenizers", "safetensors")


def package_versions() -> dict[str, str]:
    """Python's and the libraries' versions."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def environment(device: torch.device) -> dict[str, str]:
    """What decides how sums are rounded: the same values give the same bits."""
    on_gpu = device.type == "cuda"
    return {
        **package_versions(),
        "device": torch.cuda.get_device_name(device) if on_gpu else f"{_cpu_name()} ({_cpu_kernels()})",
        "threads": str(torch.get_num_threads()),
    }


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """Each value that is another one now: "threads 2 (was 1)"."""
    names = [name for name in now if before.get(name) != now[name]]
    return tuple(f"{name} {now[name]} (was {before.get(name, 'not recorded')})" for name in names)


def this_hardware(machine: str, device: torch.device) -> Hardware:
    """The computer this process runs on."""
    on_gpu = device.type == "cuda"
    total = torch.cuda.get_device_properties(device).total_memory if on_gpu else _ram_bytes()
    return Hardware(
        machine=machine,
        cpu=_cpu_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        gpu=torch.cuda.get_device_name(device) if on_gpu else "",
        gpu_count=1 if on_gpu else 0,
        memory_bytes=total,
        os=platform.platform(),
    )


def _cpu_kernels() -> str:
    """The widest vector instructions that torch's kernels use here."""
    return torch.backends.cpu.get_cpu_capability()


def _ram_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
