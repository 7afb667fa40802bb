"""A saved state is used if every byte is as written, else named and the one before it used."""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from saved_states import FILES, rewrite, save, steps_in
from tenfold.errors import InputError
from tenfold.run import checkpoint
from tenfold.run.checkpoint import load_tensors, newest_state, restore_rng, rng_state, save_state


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    for step in (40, 80, 120):
        save(folder, step)
    return folder


@pytest.fixture
def states(template: Path, tmp_path: Path) -> Path:
    """Good states of steps 40, 80 and 120."""
    return Path(shutil.copytree(template, tmp_path / "checkpoints"))


def test_undamaged_the_newest_is_used(states: Path) -> None:
    saved = newest_state(states)
    assert saved is not None
    assert (saved.step, saved.folder, saved.skipped) == (120, states / "step-00000120", ())
    assert saved.state == {"progress": {"step": 120}}
    tensors = load_tensors(saved, "cpu")
    assert tensors["weights/a"].tolist() == [[120.0, 120.0]] * 3
    assert sorted(tensors) == ["optimizer/0/step", "rng/torch", "weights/a"]
    assert sorted(path.name for path in saved.folder.iterdir()) == sorted(FILES)


def test_nothing_saved(tmp_path: Path) -> None:
    assert newest_state(tmp_path / "checkpoints") is None
    (tmp_path / "checkpoints" / ".tmp-step-00000040-4194305").mkdir(parents=True)  # killed in its first save
    (tmp_path / "checkpoints" / "notes").mkdir()
    assert newest_state(tmp_path / "checkpoints") is None
    assert steps_in(tmp_path / "checkpoints") == ["notes"]


def test_tensors_come_back_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_SHARD_BYTES", 64)
    whole = torch.arange(40, dtype=torch.float32)
    tensors = {
        "float32": torch.tensor([math.pi, -0.0, math.inf, math.nan, 1e-45]),
        "bfloat16": torch.tensor([1.0, 2.5], dtype=torch.bfloat16),
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "transposed": torch.arange(6.0).view(2, 3).T,
        "shared/a": whole,
        "shared/b": whole,
        "shared/part": whole[4:8],
        "learns": torch.nn.Parameter(torch.ones(2)),
        "bytes": torch.tensor([0, 255], dtype=torch.uint8),
        "flags": torch.tensor([True, False]),
    }
    state = {"loss": math.inf, "curve": [1, 0.1, None, True, "ü"], "nested": {"big": 2**80}}
    folder = save_state(tmp_path, 1, tensors, state, 1)
    assert len(list(folder.glob("tensors-*"))) > 3, "more than a shard each"
    saved = newest_state(tmp_path)
    assert saved is not None
    assert saved.state == state
    loaded = load_tensors(saved, "cpu")
    shutil.rmtree(tmp_path)  # loaded tensors do not lean on the files
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype, name
        assert loaded[name].shape == tensor.shape, name
        assert as_bytes(loaded[name]) == as_bytes(tensor), name


def as_bytes(tensor: torch.Tensor) -> list[int]:
    return tensor.detach().contiguous().view(-1).view(torch.uint8).tolist()


def seal(manifest: dict[str, Any]) -> bytes:
    """A manifest that agrees with its own hash, as an attacker or a later version would write it."""
    manifest.pop("manifest_sha256", None)
    return checkpoint._render(manifest)


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    change(manifest)
    (folder / "manifest.json").write_bytes(seal(manifest))


CUTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "one byte": lambda content: content[:1],
    "half": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "one byte more": lambda content: content + b"\n",
}


def damages() -> dict[str, tuple[Callable[[Path], object], str]]:
    """Ways to damage the folder of a state, and what is then said of it."""
    found: dict[str, tuple[Callable[[Path], object], str]] = {}
    for name in FILES:
        said = (
            "manifest.json: differs from its own hash" if name == "manifest.json" else f"{name}: [0-9,]+ bytes instead"
        )
        for how, cut in CUTS.items():
            found[f"{name} {how}"] = (lambda f, n=name, c=cut: rewrite(f / n, c), said)
        found[f"{name} missing"] = (lambda f, n=name: (f / n).unlink(), f"{name}: missing")
        found[f"{name} a folder"] = (
            lambda f, n=name: ((f / n).unlink(), (f / n).mkdir()),
            f"{name}: (missing|not a file)",
        )
        swapped = {"manifest.json": "manifest.json: belongs to step 80", "state.json": "state.json: [0-9]+ bytes"}
        found[f"{name} of another step"] = (
            lambda f, n=name: shutil.copy(f.parent / "step-00000080" / n, f / n),
            swapped.get(name, f"{name}: SHA-256 differs"),
        )
    return found | {
        "file added": (lambda f: (f / "extra.bin").touch(), r"extra\.bin: not in the manifest"),
        "not a folder": (lambda f: (shutil.rmtree(f), f.touch()), "not a folder"),
        "empty folder": (lambda f: (shutil.rmtree(f), f.mkdir()), "manifest.json: missing"),
        "a link to nowhere": (lambda f: (shutil.rmtree(f), f.symlink_to("nowhere")), "not a folder"),
        "whole folder of another step": (
            lambda f: (shutil.rmtree(f), shutil.copytree(f.parent / "step-00000080", f)),
            "manifest.json: belongs to step 80",
        ),
        "manifest edited": (
            lambda f: rewrite(f / "manifest.json", lambda content: content.replace(b'"step": 120', b'"step": 121')),
            "manifest.json: differs from its own hash",
        ),
        "manifest edited and sealed": (lambda f: edit_manifest(f, lambda m: m.update(step=121)), "belongs to step 121"),
        "manifest without files": (lambda f: edit_manifest(f, lambda m: m.update(files={})), "not in the manifest"),
        "manifest of another kind": (lambda f: edit_manifest(f, lambda m: m.update(files=7)), "manifest.json"),
        "manifest with a path outside": (
            lambda f: edit_manifest(f, lambda m: m["files"].update({"../x": m["files"]["state.json"]})),
            r"\.\./x: missing",
        ),
        "manifest a list": (lambda f: (f / "manifest.json").write_text("[]"), "manifest.json: differs"),
        "manifest nested deep": (lambda f: (f / "manifest.json").write_text("[" * 100_000), "manifest.json: differs"),
        "manifest not text": (lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe\x00"), "manifest.json: differs"),
    }


@pytest.mark.parametrize("name", damages())
def test_damage_is_named_and_the_state_before_used(states: Path, name: str) -> None:
    damage, said = damages()[name]
    damage(states / "step-00000120")
    saved = newest_state(states)
    assert saved is not None
    assert saved.step == 80
    assert saved.state == {"progress": {"step": 80}}
    assert {float(value.flatten()[0]) for value in load_tensors(saved, "cpu").values()} == {80.0}
    (line,) = saved.skipped
    assert re.fullmatch(f"checkpoints/step-00000120: .*{said}.*; using step-00000080", line), line


def test_every_flipped_bit_is_found(states: Path) -> None:
    """One bit in every byte of every file; which bit goes round."""
    found = 0
    for name in FILES:
        path = states / "step-00000120" / name
        good = path.read_bytes()
        for position in range(len(good)):
            bad = bytearray(good)
            bad[position] ^= 1 << position % 8
            path.write_bytes(bad)
            with pytest.raises(checkpoint._DamagedError, match=name):
                checkpoint._verify(path.parent, 120)
            found += 1
        path.write_bytes(good)
    assert found == sum((states / "step-00000120" / name).stat().st_size for name in FILES)
    checkpoint._verify(states / "step-00000120", 120)


def test_without_the_check_a_flipped_bit_would_load(states: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: safetensors itself sees nothing."""
    path = states / "step-00000120" / FILES[0]
    rewrite(path, lambda content: content[:-20] + bytes([content[-20] ^ 0x40]) + content[-19:])
    saved = newest_state(states)
    assert saved is not None
    assert saved.step == 80
    monkeypatch.setattr(checkpoint, "_verify_file", lambda path, expected, *, contents: None)
    saved = newest_state(states)
    assert saved is not None
    assert saved.step == 120
    values = torch.cat([value.flatten().double() for value in load_tensors(saved, "cpu").values()])
    assert not torch.equal(values, torch.full_like(values, 120.0))


def test_an_attacker_who_rewrites_all_hashes_is_not_found(states: Path) -> None:
    """The stated limit: hashes find accidents. Such a state still runs no code."""
    folder = states / "step-00000120"
    rewrite(folder / "state.json", lambda content: content.replace(b"120", b"666"))
    digest = hashlib.sha256((folder / "state.json").read_bytes()).hexdigest()
    edit_manifest(folder, lambda manifest: manifest["files"]["state.json"].update(sha256=digest))
    saved = newest_state(states)
    assert saved is not None
    assert saved.state == {"progress": {"step": 666}}


def test_two_damaged_the_third_is_used(states: Path) -> None:
    rewrite(states / "step-00000120" / "state.json", CUTS["half"])
    (states / "step-00000080" / "manifest.json").unlink()
    saved = newest_state(states)
    assert saved is not None
    assert saved.step == 40
    assert [line.partition(":")[0] for line in saved.skipped] == [
        "checkpoints/step-00000120",
        "checkpoints/step-00000080",
    ]
    assert all(line.endswith("; using step-00000040") for line in saved.skipped)


def test_all_damaged_is_refused(states: Path) -> None:
    for folder in states.iterdir():
        rewrite(folder / FILES[0], CUTS["half"])
    with pytest.raises(InputError) as caught:
        newest_state(states)
    message = str(caught.value)
    for named in (str(states), "step-00000120", "step-00000080", "step-00000040", FILES[0], "start over"):
        assert named in message
    assert "\n" not in message


@pytest.mark.parametrize("also", [{}, {"files": 7}, {"unheard_of": [1]}])
def test_a_newer_schema_is_refused(states: Path, also: dict[str, Any]) -> None:
    news = {"schema_version": 2, "created_by": "tenfold 9.0.0", **also}
    edit_manifest(states / "step-00000120", lambda manifest: manifest.update(news))
    with pytest.raises(InputError, match=r"step-00000120: saved by tenfold 9\.0\.0 in format 2, .* upgrade tenfold"):
        newest_state(states)


def draws() -> list[float]:
    """One draw of each generator."""
    import numpy

    return [
        random.random(),
        random.gauss(0, 1),
        float(numpy.random.random()),
        float(numpy.random.normal()),
        float(torch.rand(())),
    ]


def test_random_generators_continue(tmp_path: Path) -> None:
    draws()  # leaves half a pair of normal numbers in Python's and NumPy's cache
    state, tensors = rng_state()
    save_state(tmp_path, 1, tensors, state, 1)
    expected = [draws() for _ in range(3)]
    other = [draws() for _ in range(3)]
    assert all(
        one != two for row, line in zip(expected, other, strict=True) for one, two in zip(row, line, strict=True)
    )
    saved = newest_state(tmp_path)
    assert saved is not None
    assert restore_rng(saved.state, load_tensors(saved, "cpu")) == ()
    assert [draws() for _ in range(3)] == expected


def test_a_generator_that_is_absent_here_is_named() -> None:
    state, tensors = rng_state()
    assert restore_rng(state, {**tensors, "cuda-99": tensors["torch"]}) == ("cuda-99",)
