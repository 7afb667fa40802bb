"""What is measured beside its prediction: shapes, rows and cuts, each under a name that never changes its meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

LORA: dict[str, Any] = {"rank": 16, "alpha": 32}
OFF: dict[str, Any] = {"fine_tune": True, "quantize": False, "checkpoint": False, "pack": False, "fuse": False}


@dataclass(frozen=True)
class Configuration:
    """One run: everything that its recipe forces."""

    name: str
    shape: str
    task: str
    lengths: str
    """As rows.lengths_of reads it; "own" are the rows that belong to the model."""
    batch_rows: int
    cuts: dict[str, Any]
    train: dict[str, Any] = field(default_factory=dict[str, Any])
    changes: dict[str, Any] = field(default_factory=dict[str, Any])
    """Of the shape's config.json."""
    steps: int = 12

    @property
    def group(self) -> str:
        """What is left out together when coefficients are fitted: all configurations of one shape."""
        return self.shape

    @property
    def recipe(self) -> str:
        """Configurations of one recipe differ in cuts alone: they are alternatives to choose from."""
        fixed = {name: value for name, value in self.train.items() if name not in ("optimizer", "micro_batch_size")}
        return f"{self.shape} {self.changes.get('num_hidden_layers', '')} {self.lengths} {self.batch_rows} {fixed}"

    def sections(self) -> dict[str, Any]:
        """The sections cuts and train of the recipe."""
        micro = {"micro_batch_size": self.batch_rows} if not self.cuts.get("pack") else {}
        train = {"max_steps": self.steps, "batch_size": self.batch_rows, "log_every_steps": 1, **micro, **self.train}
        return {"cuts": {**OFF, "lora": False, **self.cuts}, "train": train}


def pack(tokens: int) -> dict[str, Any]:
    """The cut pack at one size."""
    return {"pack": {"tokens": tokens}}


FUSE: dict[str, Any] = {"fuse": {"compile": False}}
COMPILE: dict[str, Any] = {"fuse": {"compile": True}}
TUNE: dict[str, Any] = {"lora": LORA}
FULL: dict[str, Any] = {"lora": False}
HALF: dict[str, Any] = {"checkpoint": "full"}


def small(layers: int, vocabulary: int = 32768) -> dict[str, Any]:
    """A real shape's width with few layers and a smaller vocabulary, for two cores."""
    return {"num_hidden_layers": layers, "vocab_size": vocabulary}


MINI, BANK = "minilm", "own"
CPU = (
    Configuration("minilm lora pack 512", MINI, "classify", BANK, 32, {**TUNE, **pack(512)}, steps=24),
    Configuration("minilm lora padded 8", MINI, "classify", BANK, 32, TUNE, {"micro_batch_size": 8}, steps=24),
    Configuration("minilm lora padded 32 repeated", MINI, "classify", BANK, 32, {**TUNE, **HALF}, steps=24),
    Configuration("minilm lora pack 2048", MINI, "classify", BANK, 32, {**TUNE, **pack(2048)}, steps=24),
    Configuration("minilm full padded 32", MINI, "classify", BANK, 32, FULL, steps=24),
    Configuration("minilm full pack 1024", MINI, "classify", BANK, 32, {**FULL, **pack(1024)}, steps=24),
    Configuration("minilm lora pack 512 f32", MINI, "classify", BANK, 32, {**TUNE, **pack(512)}, {"dtype": "float32"},
                  steps=24),
    Configuration("classics lora pack 1024 fuse", "classics", "sft", "own", 8, {**TUNE, **FUSE, **pack(1024)}),
    Configuration("classics lora padded 4", "classics", "sft", "own", 8, TUNE, {"micro_batch_size": 4}),
    Configuration("classics lora padded 8 fuse", "classics", "sft", "own", 8, {**TUNE, **FUSE}),
    Configuration("classics full pack 2048 fuse", "classics", "sft", "own", 8, {**FULL, **FUSE, **pack(2048)}),
    Configuration("classics full padded 4 fuse 8bit", "classics", "sft", "own", 8, {**FULL, **FUSE},
                  {"micro_batch_size": 4, "optimizer": "adamw_8bit"}),
    Configuration("classics lora pack 512 fuse f32", "classics", "sft", "own", 8, {**TUNE, **FUSE, **pack(512)},
                  {"dtype": "float32"}),
    Configuration("classics lora padded 8 fuse f32", "classics", "sft", "own", 8, {**TUNE, **FUSE},
                  {"dtype": "float32"}),
    Configuration("classics lora pack 2048 fuse repeated", "classics", "sft", "own", 8,
                  {**TUNE, **FUSE, **HALF, **pack(2048)}),
    Configuration("classics nf4 lora pack 1024 fuse", "classics", "sft", "own", 8,
                  {**TUNE, **FUSE, **pack(1024), "quantize": "nf4"}),
    Configuration("bert lora pack 1024", "bert-base", "classify", "mixed:64", 16, {**TUNE, **pack(1024)},
                  changes=small(4, 30522), steps=8),
    Configuration("bert full padded 8", "bert-base", "classify", "mixed:64", 16, FULL, {"micro_batch_size": 8},
                  changes=small(4, 30522), steps=8),
    Configuration("bert lora padded 16 f32", "bert-base", "classify", "mixed:64", 16, TUNE, {"dtype": "float32"},
                  changes=small(4, 30522), steps=8),
    Configuration("llama lora pack 1024 fuse", "llama-1b", "text", "mixed:180", 8, {**TUNE, **FUSE, **pack(1024)},
                  changes=small(2), steps=6),
    Configuration("llama lora padded 2", "llama-1b", "text", "mixed:180", 8, TUNE, {"micro_batch_size": 2},
                  changes=small(2), steps=6),
    Configuration("llama full pack 1024 fuse", "llama-1b", "text", "mixed:180", 8, {**FULL, **FUSE, **pack(1024)},
                  changes=small(2), steps=5),
    Configuration("llama nf4 lora pack 1024 fuse", "llama-1b", "text", "mixed:180", 8,
                  {**TUNE, **FUSE, **pack(1024), "quantize": "nf4"}, changes=small(2), steps=5),
    Configuration("smollm2 lora mixed pack 1024 fuse", "smollm2-360m", "text", "mixed:256", 8,
                  {**TUNE, **FUSE, **pack(1024)}, changes=small(6, 49152), steps=6),
    Configuration("smollm2 lora padded 4", "smollm2-360m", "text", "fixed:256", 8, TUNE, {"micro_batch_size": 4},
                  changes=small(6, 49152), steps=6),
    Configuration("smollm2 lora padded 4 fuse f32", "smollm2-360m", "text", "fixed:256", 8, {**TUNE, **FUSE},
                  {"micro_batch_size": 4, "dtype": "float32"}, changes=small(6, 49152), steps=5),
)  # fmt: skip
"""On two cores: two real small models on their own data, and real shapes with few layers. The constants of memory on a
CPU were fitted to these (memory_fit.py)."""

HELD_OUT = (
    Configuration("qwen3 lora pack 2048 fuse repeated", "qwen3-0.6b", "text", "mixed:400", 4,
                  {**TUNE, **FUSE, **HALF, **pack(2048)}, changes=small(3, 32768), steps=6),
    Configuration("qwen3 lora pack 2048 fuse", "qwen3-0.6b", "text", "mixed:400", 4, {**TUNE, **FUSE, **pack(2048)},
                  changes=small(3, 32768), steps=6),
    Configuration("qwen3 full padded 2 fuse", "qwen3-0.6b", "text", "mixed:400", 4, {**FULL, **FUSE},
                  {"micro_batch_size": 2}, changes=small(3, 32768), steps=5),
    Configuration("gpt2 lora padded 4", "gpt2", "text", "fixed:384", 4, TUNE, changes={"n_layer": 4}, steps=6),
    Configuration("gpt2 full padded 2 fuse", "gpt2", "text", "fixed:384", 4, {**FULL, **FUSE}, {"micro_batch_size": 2},
                  changes={"n_layer": 4}, steps=6),
    Configuration("gpt2 lora mixed pack 1024 fuse", "gpt2", "text", "mixed:200", 8, {**TUNE, **FUSE, **pack(1024)},
                  changes={"n_layer": 4}, steps=6),
    Configuration("gpt2 lora mixed padded 8 fuse", "gpt2", "text", "mixed:200", 8, {**TUNE, **FUSE},
                  changes={"n_layer": 4}, steps=6),
    Configuration("gpt2 full mixed pack 1024 fuse", "gpt2", "text", "mixed:200", 8, {**FULL, **FUSE, **pack(1024)},
                  changes={"n_layer": 4}, steps=6),
    Configuration("smollm2 small lora pack 1024 fuse", "smollm2-135m", "text", "mixed:220", 8,
                  {**TUNE, **FUSE, **pack(1024)}, changes=small(10), steps=8),
    Configuration("smollm2 small lora padded 4 fuse", "smollm2-135m", "text", "mixed:220", 8, {**TUNE, **FUSE},
                  {"micro_batch_size": 4}, changes=small(10), steps=6),
    Configuration("smollm2 small lora padded 8 fuse repeated", "smollm2-135m", "text", "mixed:220", 8,
                  {**TUNE, **FUSE, **HALF}, changes=small(10), steps=6),
    Configuration("smollm2 small full pack 2048 fuse", "smollm2-135m", "text", "mixed:220", 8,
                  {**FULL, **FUSE, **pack(2048)}, changes=small(10), steps=6),
    Configuration("qwen3 two lora pack 1024 fuse", "qwen3-0.6b", "text", "mixed:150", 8, {**TUNE, **FUSE, **pack(1024)},
                  changes=small(2), steps=8),
    Configuration("qwen3 two lora padded 4", "qwen3-0.6b", "text", "mixed:150", 8, TUNE, {"micro_batch_size": 4},
                  changes=small(2), steps=6),
    Configuration("qwen3 two nf4 lora pack 1024 fuse", "qwen3-0.6b", "text", "mixed:150", 8,
                  {**TUNE, **FUSE, **pack(1024), "quantize": "nf4"}, changes=small(2), steps=6),
    Configuration("bert three lora pack 2048", "bert-base", "classify", "mixed:100", 16, {**TUNE, **pack(2048)},
                  changes=small(3, 30522), steps=12),
    Configuration("bert three lora padded 4", "bert-base", "classify", "mixed:100", 16, TUNE, {"micro_batch_size": 4},
                  changes=small(3, 30522), steps=8),
    Configuration("bert three full pack 1024", "bert-base", "classify", "mixed:100", 16, {**FULL, **pack(1024)},
                  changes=small(3, 30522), steps=8),
    Configuration("minilm lora sixteen pack 1024", MINI, "classify", BANK, 16, {**TUNE, **pack(1024)}, steps=48),
    Configuration("minilm lora sixteen padded 16", MINI, "classify", BANK, 16, TUNE, steps=48),
    Configuration("minilm full sixteen padded 16", MINI, "classify", BANK, 16, FULL, steps=48),
    Configuration("classics lora sixteen pack 2048 fuse", "classics", "sft", "own", 16, {**TUNE, **FUSE, **pack(2048)},
                  steps=8),
    Configuration("classics lora sixteen padded 4 fuse", "classics", "sft", "own", 16, {**TUNE, **FUSE},
                  {"micro_batch_size": 4}, steps=8),
    Configuration("classics full sixteen pack 1024 fuse", "classics", "sft", "own", 16, {**FULL, **FUSE, **pack(1024)},
                  steps=8),
    Configuration("llama one lora pack 2048 fuse", "llama-1b", "text", "mixed:300", 4, {**TUNE, **FUSE, **pack(2048)},
                  changes=small(1), steps=8),
    Configuration("llama one lora padded 1", "llama-1b", "text", "mixed:300", 4, TUNE, {"micro_batch_size": 1},
                  changes=small(1), steps=6),
    Configuration("llama one full pack 2048 fuse", "llama-1b", "text", "mixed:300", 4, {**FULL, **FUSE, **pack(2048)},
                  changes=small(1), steps=6),
    Configuration("bert-large two lora padded 8", "bert-large", "classify", "mixed:110", 16, TUNE,
                  {"micro_batch_size": 8}, changes=small(2, 30522), steps=8),
    Configuration("bert-large two lora pack 1024", "bert-large", "classify", "mixed:110", 16, {**TUNE, **pack(1024)},
                  changes=small(2, 30522), steps=8),
)  # fmt: skip
"""Others, ten recipes: no constant and no rate was fitted to them. But the form of the formula of a CPU's memory was
chosen with their errors in view."""

UNSEEN = (
    Configuration("qwen3 four lora pack 1024 fuse", "qwen3-0.6b", "text", "mixed:250", 8,
                  {**TUNE, **FUSE, **pack(1024)}, changes=small(4, 16384), steps=5),
    Configuration("qwen3 four lora padded 4 fuse", "qwen3-0.6b", "text", "mixed:250", 8, {**TUNE, **FUSE},
                  {"micro_batch_size": 4}, changes=small(4, 16384), steps=5),
    Configuration("qwen3 four full pack 1024 fuse", "qwen3-0.6b", "text", "mixed:250", 8,
                  {**FULL, **FUSE, **pack(1024)}, changes=small(4, 16384), steps=5),
    Configuration("smollm2 four lora pack 1024 fuse", "smollm2-360m", "text", "mixed:120", 16,
                  {**TUNE, **FUSE, **pack(1024)}, changes=small(4), steps=6),
    Configuration("smollm2 four lora padded 8", "smollm2-360m", "text", "mixed:120", 16, TUNE, {"micro_batch_size": 8},
                  changes=small(4), steps=5),
    Configuration("smollm2 four lora pack 1024 fuse repeated", "smollm2-360m", "text", "mixed:120", 16,
                  {**TUNE, **FUSE, **HALF, **pack(1024)}, changes=small(4), steps=6),
    Configuration("gpt2 three lora pack 1024 fuse", "gpt2", "text", "mixed:150", 8, {**TUNE, **FUSE, **pack(1024)},
                  changes={"n_layer": 3}, steps=6),
    Configuration("gpt2 three lora padded 4 fuse", "gpt2", "text", "mixed:150", 8, {**TUNE, **FUSE},
                  {"micro_batch_size": 4}, changes={"n_layer": 3}, steps=6),
    Configuration("bert five lora pack 1024", "bert-base", "classify", "mixed:80", 16, {**TUNE, **pack(1024)},
                  changes=small(5, 8192), steps=10),
    Configuration("bert five lora padded 8", "bert-base", "classify", "mixed:80", 16, TUNE, {"micro_batch_size": 8},
                  changes=small(5, 8192), steps=8),
    Configuration("bert-large one full pack 1024", "bert-large", "classify", "mixed:160", 8, {**FULL, **pack(1024)},
                  changes=small(1, 16384), steps=10),
    Configuration("bert-large one full padded 4", "bert-large", "classify", "mixed:160", 8, FULL,
                  {"micro_batch_size": 4}, changes=small(1, 16384), steps=10),
    Configuration("llama wide lora pack 1024 fuse", "llama-1b", "text", "mixed:220", 8, {**TUNE, **FUSE, **pack(1024)},
                  changes=small(1, 16384), steps=6),
    Configuration("llama wide nf4 lora pack 1024 fuse", "llama-1b", "text", "mixed:220", 8,
                  {**TUNE, **FUSE, **pack(1024), "quantize": "nf4"}, changes=small(1, 16384), steps=6),
    Configuration("qwen3 large lora pack 1024 fuse", "qwen3-1.7b", "text", "mixed:200", 4,
                  {**TUNE, **FUSE, **pack(1024)}, changes=small(1, 16384), steps=8),
    Configuration("qwen3 large lora padded 4 fuse", "qwen3-1.7b", "text", "mixed:200", 4, {**TUNE, **FUSE},
                  changes=small(1, 16384), steps=8),
    Configuration("smollm2 six lora padded 4 fuse", "smollm2-135m", "text", "fixed:512", 4, {**TUNE, **FUSE},
                  changes=small(6), steps=6),
    Configuration("smollm2 six full padded 2 fuse", "smollm2-135m", "text", "fixed:512", 4, {**FULL, **FUSE},
                  {"micro_batch_size": 2}, changes=small(6), steps=6),
    Configuration("classics lora twelve padded 6 fuse", "classics", "sft", "own", 12, {**TUNE, **FUSE},
                  {"micro_batch_size": 6}, steps=8),
    Configuration("classics lora twelve pack 1024 fuse repeated", "classics", "sft", "own", 12,
                  {**TUNE, **FUSE, **HALF, **pack(1024)}, steps=8),
    Configuration("llama three lora pack 512 fuse", "llama-3b", "text", "mixed:150", 4, {**TUNE, **FUSE, **pack(512)},
                  changes=small(1, 8192), steps=5),
    Configuration("llama three int8 lora pack 512 fuse", "llama-3b", "text", "mixed:150", 4,
                  {**TUNE, **FUSE, **pack(512), "quantize": "int8"}, changes=small(1, 8192), steps=5),
)  # fmt: skip
"""Eleven recipes more, first measured when that form was done; it was changed once more with their errors in view."""

FRESH = (
    Configuration("qwen3 three lora pack 1024 fuse", "qwen3-0.6b", "text", "mixed:180", 8,
                  {**TUNE, **FUSE, **pack(1024)}, changes=small(3, 16384), steps=6),
    Configuration("qwen3 three full padded 4 fuse", "qwen3-0.6b", "text", "mixed:180", 8, {**FULL, **FUSE},
                  {"micro_batch_size": 4}, changes=small(3, 16384), steps=5),
    Configuration("smollm2 eight lora pack 2048 fuse", "smollm2-135m", "text", "mixed:200", 16,
                  {**TUNE, **FUSE, **pack(2048)}, changes=small(8), steps=6),
    Configuration("smollm2 eight lora padded 4", "smollm2-135m", "text", "mixed:200", 8, TUNE,
                  {"micro_batch_size": 4}, changes=small(8), steps=6),
    Configuration("llama two lora pack 1024 fuse", "llama-1b", "text", "mixed:260", 8, {**TUNE, **FUSE, **pack(1024)},
                  changes=small(2, 16384), steps=5),
    Configuration("llama two int8 lora pack 1024 fuse", "llama-1b", "text", "mixed:260", 8,
                  {**TUNE, **FUSE, **pack(1024), "quantize": "int8"}, changes=small(2, 16384), steps=5),
    Configuration("gpt2 five lora pack 2048 fuse", "gpt2", "text", "mixed:220", 16, {**TUNE, **FUSE, **pack(2048)},
                  changes={"n_layer": 5}, steps=5),
    Configuration("gpt2 five full padded 4 fuse", "gpt2", "text", "mixed:220", 8, {**FULL, **FUSE},
                  {"micro_batch_size": 4}, changes={"n_layer": 5}, steps=5),
    Configuration("bert four lora padded 16", "bert-base", "classify", "mixed:60", 32, TUNE, {"micro_batch_size": 16},
                  changes=small(4, 16384), steps=8),
    Configuration("bert four full pack 2048", "bert-base", "classify", "mixed:60", 32, {**FULL, **pack(2048)},
                  changes=small(4, 16384), steps=8),
    Configuration("classics lora ten pack 512 fuse", "classics", "sft", "own", 10, {**TUNE, **FUSE, **pack(512)},
                  steps=10),
    Configuration("bert-large three lora pack 2048", "bert-large", "classify", "mixed:130", 16, {**TUNE, **pack(2048)},
                  changes=small(3, 16384), steps=6),
)  # fmt: skip
"""Twelve more, named and measured when nothing of memory was to be changed any more."""

GPU_RUNS = (
    Configuration("gpu smollm2 lora pack 8192 compile", "smollm2-360m", "text", "mixed:180", 64,
                  {**TUNE, **COMPILE, **pack(8192)}, steps=60),
    Configuration("gpu llama lora padded 8 fuse", "llama-1b", "text", "fixed:1024", 16, {**TUNE, **FUSE},
                  {"micro_batch_size": 8}, steps=30),
    Configuration("gpu llama lora pack 8192 compile", "llama-1b", "text", "fixed:1024", 16,
                  {**TUNE, **COMPILE, **pack(8192)}, steps=40),
    Configuration("gpu bert lora padded 32", "bert-large", "classify", "mixed:96", 64, TUNE, {"micro_batch_size": 32},
                  steps=60),
    Configuration("gpu qwen3 full padded 8 fuse", "qwen3-0.6b", "text", "mixed:400", 32, {**FULL, **FUSE},
                  {"micro_batch_size": 8}, steps=30),
    Configuration("gpu llama fp8 lora pack 8192 compile", "llama-1b", "text", "fixed:1024", 16,
                  {**TUNE, **COMPILE, **pack(8192), "quantize": {"storage": "fp8", "compute": "fp8"}}, steps=40),
    Configuration("gpu smollm2 lora padded 16 fuse", "smollm2-360m", "text", "mixed:180", 64, {**TUNE, **FUSE},
                  {"micro_batch_size": 16}, steps=40),
)  # fmt: skip
"""Whole runs on one GPU, weights random: what a run pays beside its steps."""

EVERY = (*CPU, *HELD_OUT, *UNSEEN, *FRESH, *GPU_RUNS)
