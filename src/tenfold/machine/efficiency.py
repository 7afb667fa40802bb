"""What one unit of each kind of work costs a machine: measured rows as data, guesses where there is none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from tenfold.errors import InputError
from tenfold.folders import data_folder


@dataclass(frozen=True)
class Efficiency:
    """How near to its data sheet a machine comes in training, and what it pays per operation, micro-batch and step.

    Shares are of the machine's peak FLOP/s in the number format at hand, or of its peak bandwidth.
    """

    products: float
    """Share of peak of dense matrix products."""
    fp8_products: float
    """Share of the fp8 peak."""
    last_wave: float
    """Of a wave of tiles over all multiprocessors, how much each product wastes at its end."""
    attention: float
    """Share of peak of attention by the dense kernels, without a mask."""
    ragged_attention: float
    """The same where packed rows go to the variable-length kernel."""
    masked_attention: float
    """The same under a padding mask."""
    tile_seconds: float
    """Of a tile of attention, beside its FLOPs: on a CPU, and of mixed rows on a GPU."""
    noise_seconds: float
    """Of a random number for dropout on a CPU."""
    search_seconds: float
    """Of a number that a CPU seeks in a table."""
    bandwidth: float
    """Share of bandwidth of fused passes: compiled layers, the optimizer, the loss."""
    operands: float
    """Share of bandwidth of what products read and write; above 1 where their arithmetic or caches hide it."""
    adapters: float
    """Share of bandwidth of the thin products of adapters."""
    dequantize: float
    """Share of bandwidth of making stored weights dense."""
    paging: float
    """Share of bandwidth at which memory is got from the system, page by page."""
    touches: float
    """How often an eager layer moves each byte that it keeps, at `bandwidth`."""
    launch_seconds: float
    """Of one operation, for the host; on a GPU in the shadow of what it computes."""
    kernel_seconds: float
    """Of a kernel in a recorded pass, beside what it computes: its start, its end, the gap to the next."""
    micro_batch_seconds: float
    """Of a micro-batch, beside all that is counted."""
    step_seconds: float
    """Of an optimizer step, beside all that is counted."""
    token_seconds: float
    """Of laying out one token on the host."""
    error: float
    """Relative half-width of what the time of training may be off by."""
    guessed: bool
    source: str


RATES = tuple(field.name for field in fields(Efficiency) if field.name not in ("error", "guessed", "source"))
"""The numbers that can be fitted."""


@dataclass(frozen=True)
class Overheads:
    """What a run pays besides its steps."""

    import_seconds: float
    """Python, torch and transformers, until there is a skeleton of the model."""
    tokens_per_second: float
    """Tokenised, laid out, counted."""
    load_seconds: float
    load_bytes_per_second: float
    """Of weight files: read, hashed, put in place."""
    compiler_seconds: float
    """Of the compiler, where layers are compiled: imported and its processes started while weights are loaded."""
    first_pass_seconds: float
    """Of the first pass: a GPU's kernels are loaded when they are first used (CUDA's lazy loading)."""
    stored_weights_per_second: float
    """Weights made fp8, int8 or nf4 while they are loaded."""
    compile_seconds: float
    """Of a kind of compiled graph, both passes, where all rows are equally long."""
    save_seconds: float
    saved_bytes_per_second: float
    """Of a saved state: written, forced to disk, read back and hashed."""
    download_bytes_per_second: float
    """From the hub to a rented machine."""
    library_bytes: float
    """What the process holds before there is a model: libraries on a CPU, context and workspaces on a GPU."""
    fragmentation: float
    """What a CPU's heap holds beyond the most that was alive in it, as a share, where padded micro-batches have many
    shapes."""
    holes: float
    """What stays free in it between what is alive, as a share of what comes and goes beside that (job/heap)."""
    kernel_bytes: float
    """Of a kernel that a CPU's library compiles for a shape of a bfloat16 product, and keeps."""
    compiled_kept: float
    """What compiled layers keep, as a share of what the formulas count."""
    compiled_widths: float
    """How many times the width of the feed-forward part their backward pass holds at once."""
    source: str


@lru_cache(maxsize=1)
def evidence() -> dict[str, Any]:
    """evidence/efficiency.json: what was measured, and what is guessed."""
    return json.loads(files("tenfold").joinpath("evidence", "efficiency.json").read_text(encoding="utf-8"))


def efficiency_of(device: str, *names: str) -> Efficiency:
    """The row of a device: as measured on this user's machine; else the shipped one of the first name that has one."""
    shipped = {row["match"]: row for row in evidence()["machines"]}
    return efficiency_from(calibrated(device) or next(shipped[name] for name in (device, *names) if name in shipped))


def efficiency_from(row: Mapping[str, Any]) -> Efficiency:
    """An efficiency as it stands in a file, whatever else stands beside it."""
    return Efficiency(**{field.name: row[field.name] for field in fields(Efficiency)})


def overheads_of(device: str, kind: str) -> Overheads:
    """As measured on this user's machine; else the shipped row for "cpu" or "cuda"."""
    own = calibrated(device)
    return Overheads(**(evidence()["runs"][kind] if own is None else own["overheads"]))


def calibration_file(device: str) -> Path:
    """Where `tenfold calibrate` keeps what it measured of a device."""
    plain = "".join(letter if letter.isalnum() else "-" for letter in device.lower())
    return data_folder() / "machines" / f"{plain}.json"


def calibrated(device: str) -> Mapping[str, Any] | None:
    """What was measured of a device on this user's machine; None if nothing was.

    Raises InputError on a file that is not such a measurement.
    """
    path = calibration_file(device)
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        efficiency_from(row)
        Overheads(**row["overheads"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a calibration of this version; remove it, or run tenfold calibrate") from error
    return row
