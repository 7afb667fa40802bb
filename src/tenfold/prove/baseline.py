"""Run a baseline in a fresh process and read what it measured. No torch here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from tenfold.errors import InputError, TenfoldError
from tenfold.prove.exchange import BaselineRequest, BaselineResult


def run_naive(request: BaselineRequest) -> BaselineResult:
    """transformers.Trainer at its defaults, a full fine-tune."""
    _need("naive", ("torch", "transformers", "accelerate"), "pip install 'tenfold[train]'")
    if request.task == "classify" and request.labels is None:
        raise InputError("naive baseline: task classify needs the number of labels, found none")
    return _run("naive", request)


def run_peer(request: BaselineRequest) -> BaselineResult:
    """TRL's SFTTrainer with PEFT LoRA at their defaults; they have no counterpart for classify."""
    if request.task == "classify":
        raise InputError("baseline.peer: SFTTrainer does not train classifiers, write off or use task sft or text")
    _need("peer", ("torch", "trl", "peft"), "pip install 'tenfold[peers]'")
    return _run("peer", request)


def _run(kind: str, request: BaselineRequest) -> BaselineResult:
    with TemporaryDirectory(prefix="tenfold-baseline-") as name:
        asked, answered = Path(name) / "request.json", Path(name) / "result.json"
        asked.write_text(request.model_dump_json(), encoding="utf-8")
        command = [sys.executable, "-m", f"tenfold.prove.{kind}", str(asked), str(answered)]
        done = subprocess.run(
            command,
            env=_environment(request.model),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode != 0 or not answered.is_file():
            raise TenfoldError(f"{kind} baseline failed: {_last_line(done.stderr) or f'exit code {done.returncode}'}")
        return BaselineResult.model_validate_json(answered.read_text(encoding="utf-8"))


def _environment(model: str) -> Mapping[str, str]:
    """This process's, with one GPU at most, as tenfold's own run, and no network for a model that lies in a folder."""
    environment = {"CUDA_VISIBLE_DEVICES": "0", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", **os.environ}
    if Path(model).is_dir():
        environment["HF_HUB_OFFLINE"] = "1"
    return environment


def _last_line(stderr: str) -> str:
    """The last line that says something; a traceback ends with the error."""
    lines = [line.strip() for line in stderr.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _need(kind: str, packages: tuple[str, ...], cure: str) -> None:
    if missing := [name for name in packages if find_spec(name) is None]:
        raise InputError(f"{kind} baseline: {missing[0]} is not installed, run: {cure}")
