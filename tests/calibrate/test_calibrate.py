"""Measuring this computer: probes that really train, rates that meet them, a file that plans read."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tenfold.calibrate import calibrate as module
from tenfold.calibrate.calibrate import calibrate, calibrated_efficiency, render_calibration
from tenfold.calibrate.probe import Probe, Timed, build_probe, run_probe
from tenfold.calibrate.probes import decoder, encoder, probes_of
from tenfold.cuts import Fuse, LoRA, Pack, Quantize
from tenfold.errors import InputError
from tenfold.job import Work, training_work, work_seconds
from tenfold.job.fit import Observation
from tenfold.machine import Machine, calibration_file, gpu_named, local_machine

LORA = LoRA(rank=4, alpha=8.0)
AMPLE_SECONDS = 1e6
"""However busy this computer is."""

TINY = (
    Probe("decoder", decoder(64, 2, 256, 16), "text", (24,) * 4, (LORA, Fuse(64))),
    Probe("encoder", encoder(64, 2), "classify", (20, 12, 8, 5), (LORA, Pack(64))),
    Probe("stored", decoder(64, 2, 256, 16), "text", (24,) * 2, (Quantize("nf4"), LORA, Fuse(64))),
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """This computer's CPU, its measurements kept apart from the user's."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(module, "probes_of", lambda machine: TINY)
    monkeypatch.setattr(module, "ENOUGH_SECONDS", 0.05)
    return local_machine()


@pytest.mark.parametrize("probe", TINY, ids=lambda probe: probe.name)
def test_a_probe_trains_what_it_counts(probe: Probe, here: Machine) -> None:
    found = run_probe(probe, here, 0.02)
    assert len(found.step_seconds) >= 3
    assert found.seconds > 0
    job = probe.job(here)
    assert job.steps == 1
    assert job.tokens_trained == sum(probe.lengths)
    learns = sum(weight.numel() for _, weight in build_probe(probe, here).trainable)
    assert job.trained_parameters == pytest.approx(learns, rel=0.3)


@pytest.mark.parametrize("machine", ["cpu", "H200 SXM", "A100 80GB", "T4"])
def test_every_probe_counts_and_together_they_speak_of_every_kind_of_work(machine: str, here: Machine) -> None:
    on = here if machine == "cpu" else gpu_named(machine)
    work = [training_work(probe.job(on)) for probe in probes_of(on)]
    total = sum(work[1:], work[0])
    silent = {name for name, value in vars(total).items() if value == 0}
    of_cpus = {"noise", "searches", "paged_bytes"}
    expected = {
        "cpu": {"fp8_products", "ragged_attention", "masked_attention", "kernels"},
        "T4": {"fp8_products", "ragged_attention", "attention_tiles", "kernels", *of_cpus},
        "A100 80GB": {"fp8_products", *of_cpus},
        "H200 SXM": of_cpus,
    }
    assert silent == expected[machine]


def test_what_was_measured_is_kept_and_read_by_the_next_plan(here: Machine) -> None:
    told: list[str] = []
    found = calibrate(here, AMPLE_SECONDS, told.append)
    assert [probe["name"] for probe in found.probes] == [probe.name for probe in TINY]
    assert len(told) == len(TINY)
    path = found.write()
    assert path == calibration_file(here.device)
    again = local_machine()
    assert again.efficiency == found.efficiency
    assert again.overheads == found.overheads
    assert not again.efficiency.guessed
    assert "tenfold calibrate" in again.efficiency.source
    assert again.efficiency != here.efficiency, "the control: it was another before"
    assert all(probe.name in render_calibration(found, path) for probe in TINY)


@pytest.mark.parametrize(
    ("slower", "met"),
    [({"products": 0.7, "launch_seconds": 1.4}, 0.1), ({}, 1.0)],
    ids=["another machine than the known", "the known one"],
)
def test_the_rates_meet_the_probes_better_than_what_was_known(
    slower: dict[str, float], met: float, here: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps last as a machine of known rates would have them, so that it does not matter how busy this one is."""
    truth = replace(here.efficiency, **{name: getattr(here.efficiency, name) * of for name, of in slower.items()})

    def timed(probe: Probe, machine: Machine, *_: object, **__: object) -> Timed:
        seconds = work_seconds(training_work(probe.job(machine)), machine, truth)
        return Timed((seconds,) * 3, seconds, 0.0, None, None)

    monkeypatch.setattr(module, "run_probe", timed)
    found = calibrate(here, AMPLE_SECONDS)
    works = [training_work(probe.job(here)) for probe in TINY]
    before = [
        abs(work_seconds(work, here) / probe["seconds"] - 1) for work, probe in zip(works, found.probes, strict=True)
    ]
    misses = [abs(probe["error"]) for probe in found.probes]
    assert sum(misses) <= met * sum(before) + 1e-9
    assert found.efficiency.error >= module.LEAST_ERROR
    assert (sum(before) > 0.1) == bool(slower), "the control: only another machine is to be learned"


def test_without_time_a_probe_is_left_out_and_named(here: Machine) -> None:
    with pytest.raises(InputError, match="no time was left"):
        calibrate(here, 0.1)


def test_a_probe_that_fails_is_left_out_and_named(here: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(probe: Probe, *_: object, **__: object) -> None:
        raise RuntimeError(f"no memory for {probe.name}")

    whole = module.run_probe
    monkeypatch.setattr(
        module,
        "run_probe",
        lambda probe, *rest, **more: (fail if probe.name == "encoder" else whole)(probe, *rest, **more),
    )
    found = calibrate(here, AMPLE_SECONDS)
    assert found.left_out == ("encoder: no memory for encoder",)


def test_another_computer_cannot_be_measured_from_here() -> None:
    with pytest.raises(InputError, match="run tenfold calibrate there"):
        calibrate(gpu_named("H200 SXM"))


@pytest.mark.parametrize("text", ["", "[]", '{"products": 1}', "\x00"])
def test_a_spoilt_file_is_named_with_what_to_do(text: str, here: Machine) -> None:
    path = calibration_file(here.device)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(f"{path}: not a calibration of this version; remove it")):
        local_machine()


def test_a_gpus_file_serves_the_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    known = gpu_named("L4")
    path = calibration_file(known.device)
    path.parent.mkdir(parents=True)
    row = {**vars(known.efficiency), "products": 0.5, "guessed": False, "source": "here"}
    path.write_text(json.dumps({**row, "overheads": vars(known.overheads)}))
    assert gpu_named("L4").efficiency == replace(known.efficiency, products=0.5, guessed=False, source="here")


@pytest.mark.parametrize(
    ("device", "what", "rate", "moves"),
    [
        ("H200 SXM", Work(launches=1e4), "launch_seconds", True),
        ("H200 SXM", Work(products=1e15), "products", False),
        ("A100 80GB", Work(launches=1e4), "launch_seconds", True),
        ("A100 80GB", Work(products=1e15), "products", True),
    ],
)
def test_of_a_card_that_was_measured_elsewhere_only_the_host_is_unknown(
    device: str, what: Work, rate: str, moves: bool
) -> None:
    """A probe that took a fifth longer than the shipped rates say. The controls: a kind of card without a row."""
    known = gpu_named(device)
    assert known.efficiency.guessed == (device == "A100 80GB")
    seen = [Observation(what, 1.2 * work_seconds(what, known))]
    found = calibrated_efficiency(known, seen)
    moved = abs(getattr(found, rate) / getattr(known.efficiency, rate) - 1)
    assert (moved > 0.1) == moves
