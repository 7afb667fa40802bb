"""Computers on paper: the shipped tables, the choice among them, and this computer."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import pytest

from tenfold.errors import InputError
from tenfold.machine import (
    catalogue,
    efficiency_of,
    evidence,
    find_compiler,
    find_machines,
    flops_per_cycle,
    local_machine,
)
from tenfold.machine import local as module
from tenfold.recipe import MachineWish


def rows_of(name: str) -> list[dict[str, str]]:
    text = files("tenfold").joinpath("catalogue", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines(), strict=True))


def test_every_source_is_read_whole() -> None:
    """Commas and quotes inside a cell: what is read, written again by a CSV writer, is the file."""
    for name in ("gpus.csv", "prices.csv"):
        rows, text = rows_of(name), io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        assert text.getvalue() == files("tenfold").joinpath("catalogue", name).read_text(encoding="utf-8")
    written = {row["source"] for row in rows_of("prices.csv") if row["gpu_count"] == "1"}
    assert {machine.price_source for machine in catalogue()} == written
    assert any("," in source for source in written)


def test_no_row_has_a_cell_too_many_or_too_few() -> None:
    for row in (*rows_of("gpus.csv"), *rows_of("prices.csv")):
        assert None not in row
        assert None not in row.values()


def test_every_gpu_has_a_source_and_sane_numbers() -> None:
    for row in rows_of("gpus.csv"):
        assert row["source"]
        assert 10 < float(row["memory_gib"]) < 300
        assert 100 < float(row["bandwidth_gb_per_second"]) < 10_000
        bfloat16 = float(row["bfloat16_tflops"] or 0)
        assert bfloat16 == 0 or bfloat16 > float(row["float32_tflops"])


@pytest.mark.parametrize(("dtype", "capability"), [("bfloat16_tflops", 8.0), ("float8_tflops", 8.9)])
def test_number_formats_follow_compute_capability(dtype: str, capability: float) -> None:
    for row in rows_of("gpus.csv"):
        assert bool(row[dtype]) == (float(row["compute_capability"]) >= capability), row["gpu"]


def test_every_price_has_a_gpu_a_source_and_a_date_or_says_why_not() -> None:
    gpus = {row["gpu"] for row in rows_of("gpus.csv")}
    for row in rows_of("prices.csv"):
        assert row["gpu"] in gpus
        assert row["tier"] in ("on_demand", "spot", "community")
        assert 0.05 < float(row["usd_per_gpu_hour"]) < 15
        if row["checked_at"]:
            assert date(2026, 1, 1) <= date.fromisoformat(row["checked_at"]) <= date(2026, 11, 23)
        else:
            assert re.search(r"undated|2026", row["source"]), row


def test_one_gpu_is_not_offered_at_the_price_of_an_eighth_of_eight() -> None:
    several = {(row["gpu"], row["provider"], row["tier"]) for row in rows_of("prices.csv") if row["gpu_count"] != "1"}
    assert several
    assert not several & {(machine.name, machine.provider, machine.tier) for machine in catalogue()}


def test_a_gpu_without_bfloat16_computes_in_float32() -> None:
    dtypes = {machine.name: machine.dtype for machine in catalogue()}
    assert dtypes["T4"] == dtypes["V100 16GB"] == "float32"
    assert dtypes["A100 80GB"] == dtypes["L4"] == "bfloat16"


def test_what_a_machine_can_multiply_follows_its_compute_capability() -> None:
    machines = {
        row["gpu"]: find_machines(MachineWish(name=row["gpu"], usd_per_hour=1.0))[0] for row in rows_of("gpus.csv")
    }
    for machine in machines.values():
        assert machine.compute_capability is not None
        assert machine.supports_bf16 == (machine.compute_capability >= 8.0) == (machine.dtype == "bfloat16")
        assert machine.supports_fp8 == (machine.compute_capability >= 8.9) == ("float8" in machine.flops)
    assert {name for name, machine in machines.items() if not machine.supports_bf16} == {"T4", "V100 16GB", "V100 32GB"}
    old = {"RTX 3090", "A10G", "A40", "RTX A6000", "A100 40GB", "A100 80GB"}
    assert {name for name, machine in machines.items() if machine.supports_bf16 and not machine.supports_fp8} == old


def test_a_cpu_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_driver_gpu", lambda: None)
    here = replace(local_machine(), flops={"float32": 1e11})
    assert not here.supports_bf16
    assert not here.supports_fp8


def put_programs(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="programs are found by their ending there")
@pytest.mark.parametrize(
    ("kind", "there", "variables", "found"),
    [
        ("cuda", (), {}, None),
        ("cuda", ("gcc", "clang"), {}, "gcc"),
        ("cuda", ("clang", "g++"), {}, "clang"),
        ("cuda", ("cl",), {}, "cl"),
        ("cuda", ("g++",), {}, None),
        ("cuda", ("gcc", "mycc"), {"CC": "mycc"}, "mycc"),
        ("cuda", ("gcc",), {"CC": "mycc"}, None),
        ("cuda", ("gcc",), {"CXX": "mycc"}, "gcc"),
        ("cpu", (), {}, None),
        ("cpu", ("gcc",), {}, None),
        ("cpu", ("g++", "clang++"), {}, "clang++" if sys.platform == "darwin" else "g++"),
        ("cpu", ("mycc",), {"CXX": "mycc"}, "mycc"),
        ("cpu", ("g++",), {"CXX": "mycc"}, None),
    ],
)
def test_the_compiler_is_the_one_that_torch_would_call(
    kind: Literal["cpu", "cuda"],
    there: tuple[str, ...],
    variables: dict[str, str],
    found: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_programs(tmp_path, *there)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert find_compiler(kind) == (None if found is None else str(tmp_path / found))


def test_inductor_names_the_same_compiler() -> None:
    """Its setting, as torch was imported; this test alone here needs torch."""
    config = pytest.importorskip("torch._inductor.config")
    assert config.cpp.cxx[-1] == os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")


@pytest.mark.parametrize(
    ("flags", "rate"),
    [
        ("avx512f avx512_bf16 amx_bf16 amx_tile", 1024),
        ("avx512f avx512_bf16 amx_int8 amx_tile", 128),
        ("avx512f amx_int8", None),
        ("avx2 fma", None),
        ("", None),
    ],
)
def test_a_cpu_computes_in_bfloat16_if_it_has_instructions_for_it(flags: str, rate: int | None) -> None:
    assert flops_per_cycle(f"flags\t: fpu {flags}\n").get("bfloat16") == rate


def test_a_machine_is_held_to_the_number_format_that_is_wished_for() -> None:
    h200, t4 = (next(machine for machine in catalogue() if machine.name == name) for name in ("H200 SXM", "T4"))
    assert h200.computing_in("auto") is h200.computing_in("bfloat16") is h200
    assert h200.computing_in("float32").dtype == "float32"
    assert t4.computing_in("float32") is t4
    with pytest.raises(InputError, match=r"train\.dtype: T4"):
        t4.computing_in("bfloat16")


def test_only_machines_with_hardware_for_the_number_format_are_found() -> None:
    found = {machine.name for machine in find_machines(MachineWish(name="auto"), "bfloat16")}
    assert "T4" not in found
    assert "T4" in {machine.name for machine in find_machines(MachineWish(name="auto"))}
    assert {machine.dtype for machine in find_machines(MachineWish(name="auto"), "float32")} == {"float32"}
    with pytest.raises(InputError, match="T4"):
        find_machines(MachineWish(name="T4"), "bfloat16")


@pytest.mark.parametrize(
    ("wish", "names", "tiers"),
    [
        ({"name": "H200 SXM"}, {"H200 SXM"}, {"on_demand"}),
        ({"name": "h200"}, {"H200 SXM"}, {"on_demand"}),
        ({"name": "nvidia-h100-pcie"}, {"H100 PCIe"}, {"on_demand"}),
        ({"name": "H200 SXM", "provider": "Akash"}, {"H200 SXM"}, {"on_demand"}),
        ({"name": ["L4", "L40S"]}, {"L4", "L40S"}, {"on_demand"}),
        ({"name": "B200", "tier": "spot"}, {"B200"}, {"spot"}),
    ],
)
def test_finds_what_is_allowed(wish: dict[str, Any], names: set[str], tiers: set[str]) -> None:
    found = find_machines(MachineWish(**wish))
    assert {machine.name for machine in found} == names
    assert {machine.tier for machine in found} == tiers
    assert all(wish.get("provider") in (None, machine.provider) for machine in found)


def test_auto_is_every_gpu_with_a_price() -> None:
    priced = {row["gpu"] for row in rows_of("prices.csv") if row["tier"] == "on_demand" and row["gpu_count"] == "1"}
    assert {machine.name for machine in find_machines(MachineWish(name="auto"))} == priced


def test_your_own_price_replaces_the_catalogues() -> None:
    (machine,) = find_machines(MachineWish(name="H200 SXM", usd_per_hour=2.5))
    assert (machine.usd_per_hour, machine.price_source, machine.price_date) == (2.5, "the recipe", None)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"name": "H100"}, "did you mean 'H100 PCIe' or 'H100 NVL' or 'H100 SXM'?"),
        ({"name": "H20O SXM"}, "did you mean 'H200 SXM'?"),
        ({"name": "abacus"}, "which the catalogue does not know"),
        ({"name": "H200 SXM", "provider": "Nobody"}, "no on_demand price is known for H200 SXM at Nobody"),
        ({"name": "L40", "tier": "spot"}, "set machine.usd_per_hour to your own"),
    ],
)
def test_refuses_what_it_does_not_have(wish: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        find_machines(MachineWish(**wish))


INTEL = "vendor_id : GenuineIntel\ncpu family : 6\nflags : fpu avx avx2 fma avx512f avx512bw\n"
ZEN4 = "vendor_id : AuthenticAMD\ncpu family : 25\nflags : fpu avx2 fma avx512f\n"
ZEN5 = "vendor_id : AuthenticAMD\ncpu family : 26\nflags : fpu avx2 fma avx512f\n"


@pytest.mark.parametrize(
    ("info", "flops"),
    [
        (INTEL, 64),
        (ZEN4, 32),
        (ZEN5, 64),
        ("flags : fpu avx2 fma\n", 32),
        ("flags : fpu avx2\n", 8),
        ("flags : fpu sse2\n", 8),
        ("", 8),
    ],
)
def test_flops_per_cycle_follow_the_flags(info: str, flops: int) -> None:
    assert flops_per_cycle(info)["float32"] == flops


def test_this_computer_has_no_price_unless_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    here = local_machine()
    assert here.vendor_kind == "cpu"
    assert here.usd_per_hour is None
    assert here.computing_in("float32").dtype == "float32"
    assert here.flops["float32"] > 1e9
    assert here.memory_bytes > 2**28
    assert local_machine(0.4).usd_per_hour == 0.4


def show_gpu(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, stdout=line)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(module.subprocess, "run", run)


def test_this_computers_gpu_is_found_by_its_drivers_name(monkeypatch: pytest.MonkeyPatch) -> None:
    show_gpu(monkeypatch, "NVIDIA H200, 143771\nNVIDIA H200, 143771\n")
    here = local_machine()
    assert (here.name, here.vendor_kind, here.dtype) == ("H200 SXM", "cuda", "bfloat16")
    assert not here.efficiency.guessed


def test_a_gpu_that_nobody_knows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    show_gpu(monkeypatch, "NVIDIA Unheard-Of, 24576\n")
    with pytest.raises(InputError, match=re.escape("'NVIDIA Unheard-Of' (24 GiB)")):
        local_machine()


def test_a_driver_without_gpus_leaves_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    show_gpu(monkeypatch, "No devices were found\n")
    assert local_machine().vendor_kind == "cpu"


def test_what_was_not_measured_is_a_guess_with_a_wider_interval() -> None:
    measured, guessed = efficiency_of("NVIDIA H200", "cuda"), efficiency_of("NVIDIA A40", "cuda")
    assert (measured.guessed, guessed.guessed) == (False, True)
    assert guessed.error > measured.error
    for row in evidence()["machines"]:
        assert row["source"].startswith("guess") == row["guessed"]
