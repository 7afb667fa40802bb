"""What is measured on one GPU: seven shapes from 0.5B to 8B, lengths 256 to 8192, every cut.

The order is that of telling most first: a session that runs out of time has measured something of everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rows import lengths_of

from shapes import config_of
from tenfold.calibrate.probe import Probe
from tenfold.cuts import Checkpoint, Cut, Fuse, LoRA, Pack, Quantize

LORA = LoRA(rank=16, alpha=32.0)
FUSE, COMPILE = Fuse(), Fuse(compile=True)


@dataclass(frozen=True)
class OnGpu:
    """One configuration: a shape, the rows of one step, cuts."""

    shape: str
    lengths: str
    rows: int
    cuts: tuple[Cut, ...]
    micro_rows: int = 1_000_000
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    changes: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """All that distinguishes it."""
        cuts = " ".join(_short(cut) for cut in self.cuts)
        micro = f" by {self.micro_rows}" if self.micro_rows < self.rows else ""
        eight = " 8bit" if self.optimizer == "adamw_8bit" else ""
        return f"{self.shape} {self.rows} x {self.lengths}{micro} {cuts}{eight}"

    @property
    def recipe(self) -> str:
        """Configurations of one recipe are alternatives."""
        return f"{self.shape} {self.rows} x {self.lengths}"

    @property
    def probe(self) -> Probe:
        """What `tenfold calibrate` would time."""
        task = "classify" if self.shape.startswith("bert") else "text"
        lengths = tuple(sorted(lengths_of(self.lengths, self.rows), reverse=True))
        config = config_of(self.shape, dict(self.changes))
        return Probe(self.name, config, task, lengths, self.cuts, self.micro_rows, self.optimizer)


def _short(cut: Cut) -> str:
    if isinstance(cut, Quantize):
        return f"{cut.storage}{'-fp8' if cut.compute == 'fp8' else ''}{'-kept' if cut.keep else ''}"
    if isinstance(cut, Pack):
        return f"pack{cut.tokens}"
    if isinstance(cut, Checkpoint):
        return f"repeat{cut.layers}"
    if isinstance(cut, Fuse):
        return "compile" if cut.compile else "fuse"
    return cut.name


def _packed(tokens: int, *more: Cut) -> tuple[Cut, ...]:
    return (LORA, Pack(tokens), COMPILE, *more)


def _stored(storage: Any, compute: Any, keep: bool, tokens: int, *more: Cut) -> tuple[Cut, ...]:
    return (Quantize(storage, compute, keep), *_packed(tokens, *more))


FP8, FP8_KEPT = ("fp8", "fp8", False), ("fp8", "fp8", True)
NF4, NF4_FP8 = ("nf4", "bf16", False), ("nf4", "fp8", False)

GPU = (
    OnGpu("llama-1b", "fixed:1024", 16, _packed(8192)),
    OnGpu("llama-1b", "fixed:1024", 16, (LORA, FUSE), 8),
    OnGpu("llama-8b", "fixed:2048", 8, _packed(8192)),
    OnGpu("llama-8b", "fixed:2048", 8, (LORA, FUSE), 4),
    OnGpu("smollm2-360m", "mixed:180", 128, _packed(8192)),
    OnGpu("smollm2-360m", "mixed:180", 128, (LORA, FUSE), 16),
    OnGpu("qwen3-1.7b", "fixed:512", 32, _packed(8192)),
    OnGpu("llama-3b", "fixed:4096", 4, (LORA, FUSE), 2),
    OnGpu("bert-large", "mixed:96", 64, (LORA,), 32),
    OnGpu("llama-8b", "fixed:2048", 8, _stored(*FP8, 8192)),
    OnGpu("qwen3-1.7b", "mixed:400", 32, _packed(8192)),
    OnGpu("llama-1b", "fixed:1024", 16, (FUSE,), 4),
    OnGpu("qwen3-0.6b", "fixed:256", 64, (LORA, FUSE), 32),
    OnGpu("bert-large", "mixed:96", 64, (LORA, Pack(4096))),
    OnGpu("llama-3b", "fixed:4096", 4, _packed(8192)),
    OnGpu("llama-8b", "fixed:2048", 8, _stored(*NF4, 4096)),
    OnGpu("llama-1b", "fixed:1024", 16, (LORA,), 2),
    OnGpu("smollm2-360m", "mixed:180", 128, (LORA, Pack(4096), FUSE)),
    OnGpu("qwen3-1.7b", "fixed:512", 32, (LORA, FUSE, Checkpoint(28)), 32),
    OnGpu("llama-3b", "fixed:8192", 2, (LORA, FUSE, Checkpoint(14)), 1),
    OnGpu("llama-1b", "fixed:8192", 2, _packed(8192)),
    OnGpu("bert-large", "mixed:96", 64, (), 16),
    OnGpu("qwen3-0.6b", "fixed:256", 64, _packed(4096)),
    OnGpu("llama-8b", "fixed:2048", 8, _stored(*FP8_KEPT, 8192)),
    OnGpu("qwen3-1.7b", "mixed:400", 32, (LORA, FUSE), 4),
    OnGpu("llama-1b", "fixed:1024", 16, (FUSE,), 8, "adamw_8bit"),
    OnGpu("smollm2-360m", "mixed:180", 128, (FUSE,), 16),
    OnGpu("llama-3b", "fixed:4096", 4, (Quantize("nf4"), LORA, FUSE), 1),
    OnGpu("llama-1b", "fixed:1024", 16, (LORA, FUSE), 2),
    OnGpu("qwen3-1.7b", "fixed:512", 32, (LORA, FUSE), 16),
    OnGpu("llama-8b", "fixed:2048", 8, (LORA, FUSE, Checkpoint(32)), 8),
    OnGpu("bert-large", "fixed:512", 16, (LORA,), 16),
    OnGpu("smollm2-360m", "fixed:2048", 8, (LORA,), 2),
    OnGpu("llama-3b", "fixed:8192", 2, _packed(8192)),
    OnGpu("llama-1b", "fixed:1024", 16, _packed(2048)),
    OnGpu("qwen3-0.6b", "fixed:256", 64, (LORA,), 8),
    OnGpu("qwen3-1.7b", "fixed:512", 32, (FUSE,), 8),
    OnGpu("llama-8b", "fixed:2048", 8, _stored(*NF4_FP8, 2048, Checkpoint(16))),
    OnGpu("smollm2-360m", "mixed:180", 128, _packed(2048)),
    OnGpu("llama-3b", "fixed:4096", 4, (LORA, FUSE, Checkpoint(28)), 4),
    OnGpu("llama-1b", "fixed:8192", 2, (LORA, FUSE), 1),
    OnGpu("bert-large", "fixed:512", 16, (LORA, Checkpoint(24)), 16),
    OnGpu("qwen3-0.6b", "mixed:400", 32, (LORA, Pack(8192), FUSE)),
    OnGpu("qwen3-1.7b", "mixed:400", 32, (Quantize("int8"), LORA, FUSE), 4),
    OnGpu("llama-8b", "fixed:2048", 8, (Quantize("fp8"), LORA, FUSE), 2),
    OnGpu("llama-3b", "fixed:4096", 4, (FUSE, Checkpoint(28)), 1, "adamw_8bit"),
    OnGpu("smollm2-360m", "fixed:2048", 8, _packed(16384)),
    OnGpu("llama-1b", "fixed:1024", 16, (LORA, FUSE, Checkpoint(8)), 16),
    OnGpu("qwen3-0.6b", "mixed:400", 32, (FUSE,), 8),
    OnGpu("qwen3-0.6b", "mixed:400", 32, _packed(8192)),
)
