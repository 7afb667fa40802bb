"""What a run is on paper. With no cut: all weights, from noise, padded, all logits alive, nothing recomputed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from typing import Literal

from tenfold.machine import Machine
from tenfold.recipe.schema import OptimizerName
from tenfold.shape import Shape
from tenfold.workload import FEWEST, NARROWED_SHARE, Epoch, MicroBatch, Workload, filling_step

CHINCHILLA_TOKENS_PER_PARAMETER = 20
"""Tokens that training from scratch takes for each parameter: arXiv 2203.15556, table 3, about 20 at every size."""


STEPS_OF_LENGTH = 8
"""Packed micro-batches are so many eighths of their budget long where shapes repeat: rig/packing, rig/filler."""


@dataclass(frozen=True)
class Blocks:
    """What becomes of activations, as numbers of blocks; rig/checkpointing says which."""

    kept: int
    """All stays on the device."""
    recomputed: int
    """The input stays on the device."""
    offloaded: int
    """All waits in host memory."""
    offloaded_inputs: int
    """The input waits in host memory, and the block is recomputed."""

    @classmethod
    def of(cls, layers: int, recomputed: int, offloaded: int) -> Blocks:
        """Of so many layers; some are both once all are one or the other."""
        both = max(0, recomputed + offloaded - layers)
        return cls(layers - recomputed - offloaded + both, recomputed - both, offloaded - both, both)

    @property
    def all_are_kept(self) -> bool:
        """Nothing is recomputed or offloaded."""
        return not (self.recomputed or self.offloaded or self.offloaded_inputs)

    @property
    def last_is_recomputed(self) -> bool:
        """Also the last block: it is the last to be recomputed, and is not offloaded."""
        return not self.kept and bool(self.recomputed)


@dataclass(frozen=True)
class Footprint:
    """What one micro-batch keeps, by what becomes of each block."""

    block: float
    """A block keeps all."""
    input: float
    """A recomputed block keeps its input."""
    first_saving: float
    """The first block keeps less, if it keeps all."""
    last_saving: float
    """The last block keeps less, if it keeps all."""
    last_extra: float
    """The last block keeps more, if it is recomputed."""
    end: float
    """Embeddings, final norm and head."""

    def on_device(self, blocks: Blocks) -> float:
        """When the backward pass begins."""
        kept = blocks.kept * self.block + blocks.recomputed * self.input + self.end
        last = self.last_extra if blocks.last_is_recomputed else -self.last_saving
        return kept + last - (self.first_saving if blocks.all_are_kept else 0.0)

    def on_host(self, blocks: Blocks) -> float:
        """What waits in host memory."""
        return blocks.offloaded * self.block + blocks.offloaded_inputs * self.input

    def coming(self, blocks: Blocks) -> float:
        """Of the offloaded block that is on its way back, one at any time."""
        return self.block if blocks.offloaded else self.input if blocks.offloaded_inputs else 0.0


@dataclass(frozen=True)
class Job:
    """Shape x workload x machine x settings. Every cut returns a changed one."""

    shape: Shape
    workload: Workload
    machine: Machine
    task: Literal["classify", "sft", "text"]
    batch_size: int
    """Rows per optimizer step."""
    micro_rows: int
    """Rows per micro-batch of the padded layout."""
    steps_wanted: int | None
    epochs: float
    labels: int = 0
    optimizer: OptimizerName = "adamw"
    evaluations: int = 0
    save_every_steps: int | None = None
    """As the recipe states it."""

    checked: bool = True
    """The checks before the first step are made, as tenfold does and others do not."""
    pretrained: bool = False
    original: tuple[Shape, Workload] | None = None
    """Shape and workload before a warm start changed them."""
    row_parameters: int = 0
    """Weights of embedding rows that learn apart, beside frozen ones where there are adapters."""
    full_block_parameters: int = 0
    """Weights of new blocks, which learn in full where the others learn by adapters."""
    preparation_flops: float = 0.0
    """Before the first step: what new rows take to start from more than a mean."""
    preparation_bytes: float = 0.0
    """On the device then: the model that a warm start changes, dense, and what it makes of it."""
    stored_as: Literal["fp8", "int8", "nf4"] | None = None
    """How the linear layers of the blocks are kept once they are frozen; None: in the computing dtype."""
    stored_bytes: float = 0.0
    """What all of them take so."""
    fp8_products: bool = False
    """Where layers are compiled, products with frozen weights run at the machine's fp8 rate."""
    ready_bytes: float = 0.0
    """Where layers are compiled: what all of them take ready for their products, beside `stored_bytes`."""
    adapter_rank: int = 0
    adapter_dropout: float = 0.0
    adapter_parameters: int = 0
    adapted: tuple[str, ...] = ()
    """Names of the block's linear layers that carry an adapter; empty: all weights learn."""
    packed_tokens: int | None = None
    loss_rows: int | None = None
    compiled: bool = False
    """Layers are compiled one by one, their adapted products merged, and steady micro-batches recorded."""
    recomputed_layers: int = 0
    offloaded_layers: int = 0
    """Of these blocks what would be kept on the device waits in host memory."""
    mlp_tiles: int = 1
    """The feed-forward parts of recomputed blocks run in so many tiles."""

    def uncut(self) -> Job:
        """The same run with no cut: all weights, from noise."""
        shape, workload = self.original or (self.shape, self.workload)
        return replace(
            self,
            shape=shape,
            workload=workload,
            pretrained=False,
            original=None,
            row_parameters=0,
            full_block_parameters=0,
            preparation_flops=0.0,
            preparation_bytes=0.0,
            stored_as=None,
            stored_bytes=0.0,
            fp8_products=False,
            ready_bytes=0.0,
            adapter_rank=0,
            adapter_dropout=0.0,
            adapter_parameters=0,
            adapted=(),
            packed_tokens=None,
            loss_rows=None,
            compiled=False,
            recomputed_layers=0,
            offloaded_layers=0,
            mlp_tiles=1,
        )

    @property
    def dtype_bytes(self) -> int:
        """Bytes of a number in the forward pass."""
        return 2 if self.machine.dtype == "bfloat16" else 4

    @property
    def loaded_bytes(self) -> int:
        """Bytes of a weight as it is read: float32 on the CPU, as stored on a GPU."""
        wide = self.machine.vendor_kind == "cpu" or self.shape.dtype_on_disk in ("float32", "float64")
        return 4 if wide else 2

    @property
    def task_parameters(self) -> int:
        """Weights of a new classification head: hidden x labels, beside one dense layer at most."""
        return self.labels * (self.shape.hidden_size + 1)

    @property
    def parameters(self) -> int:
        """All weights without adapters."""
        return self.shape.parameters + self.task_parameters

    @property
    def trained_parameters(self) -> int:
        """Weights that carry gradients and optimizer state."""
        if not self.adapted:
            return self.parameters
        return self.adapter_parameters + self.task_parameters + self.row_parameters + self.full_block_parameters

    @property
    def splits_weights(self) -> bool:
        """Weights that learn are bfloat16 with eight bits more beside them, and so are gradients (run/split_master)."""
        return self.optimizer == "adamw_8bit_split" and not self.adapted

    @property
    def learned_bytes(self) -> int:
        """Bytes of a weight that learns as the forward pass reads it, and of its gradient."""
        return 2 if self.splits_weights else 4

    @property
    def master_bytes(self) -> int:
        """Bytes of a weight that learns, all of its bits."""
        return 3 if self.splits_weights else 4

    @property
    def grown_layers(self) -> int:
        """New blocks, which learn in full and get no adapters."""
        return round(self.full_block_parameters / self.shape.parameters_per_block)

    @property
    def learned_head_parameters(self) -> int:
        """Of `row_parameters` those that the output head has, tied or its own."""
        if self.task == "classify":
            return 0
        return self.row_parameters if self.shape.tied_embeddings else self.row_parameters // 2

    @property
    def quantized(self) -> bool:
        """Frozen weights are stored in few bits: only where adapters learn, for else nothing is frozen."""
        return self.stored_as is not None and bool(self.adapted)

    @property
    def passes_below_blocks(self) -> bool:
        """The gradient of what the first block reads is computed: for embeddings that learn, or because all layers are
        compiled as one."""
        return not self.adapted or self.row_parameters > 0 or self.compiled

    @property
    def computes_fp8(self) -> bool:
        """Products with stored weights are computed in fp8: by the merged products of compiled layers alone."""
        return self.quantized and self.compiled and self.fp8_products

    @property
    def keeps_ready(self) -> bool:
        """Stored weights are also kept as their products take them."""
        return self.quantized and self.compiled and self.ready_bytes > 0

    @property
    def steady(self) -> bool:
        """Packed micro-batches have one of few lengths."""
        return self.compiled and self.packed_tokens is not None and self.machine.vendor_kind == "cuda"

    @property
    def records(self) -> bool:
        """Their passes are recorded as CUDA graphs; copies to host memory are not, and tiles are not."""
        return self.steady and not self.offloaded_layers and self.mlp_tiles == 1

    @property
    def filled_multiple(self) -> int:
        """Packed micro-batches are filled up to a multiple of so many tokens, rows of unlike length padded on to one:
        rig/packing, rig/batch, rig/filler."""
        compiles = self.compiles_products
        if self.packed_tokens is None:
            rows = min(self.micro_rows, self.batch_size)
            return ceil(FEWEST / rows) if compiles and rows > 1 and len(self.workload.lengths) > 1 else 1
        if self.steady and self.task != "classify":
            return max(1, self.packed_tokens // STEPS_OF_LENGTH)
        return filling_step(self.packed_tokens, FEWEST) if compiles else 1

    @cached_property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        if not self.pretrained:
            tokens = CHINCHILLA_TOKENS_PER_PARAMETER * self.shape.parameters
            return ceil(tokens / (self.batch_size * self.workload.mean))
        per_epoch = ceil(self.workload.rows / self.batch_size)
        return self.steps_wanted or max(1, ceil(self.epochs * per_epoch))

    @cached_property
    def rows_trained(self) -> float:
        """Rows over the whole run."""
        per_epoch = ceil(self.workload.rows / self.batch_size)
        return self.steps / per_epoch * self.workload.rows

    @property
    def tokens_trained(self) -> float:
        """Tokens over the whole run, padding left out."""
        return self.rows_trained * self.workload.mean

    @property
    def epochs_trained(self) -> float:
        """Passes over the data, broken ones in part."""
        return self.rows_trained / self.workload.rows

    @cached_property
    def epoch(self) -> Epoch:
        """What one pass over the data computes."""
        if self.packed_tokens is not None:
            return self.workload.packed_epoch(
                self.batch_size, self.packed_tokens, self.filled_multiple, ragged=self.steady
            )
        rows = min(self.micro_rows, self.batch_size)
        return self.workload.padded_epoch(self.batch_size, rows, self.filled_multiple)

    @cached_property
    def largest(self) -> MicroBatch:
        """The micro-batch that needs most memory."""
        if self.packed_tokens is not None:
            return self.workload.largest_packed(self.batch_size, self.packed_tokens, self.filled_multiple)
        largest = self.workload.largest_padded(min(self.micro_rows, self.batch_size), self.filled_multiple)
        return largest if self.shape.kind == "encoder" else replace(largest, masked=False)

    @property
    def computed_tokens(self) -> float:
        """Tokens over the whole run, padding included."""
        return self.epochs_trained * self.epoch.tokens

    @property
    def attended_pairs(self) -> float:
        """Query-key pairs over the whole run, padding included."""
        return self.epochs_trained * self.epoch.pairs

    @property
    def micro_batches(self) -> float:
        """Micro-batches over the whole run."""
        return self.epochs_trained * self.epoch.micro_batches

    @property
    def accumulates(self) -> bool:
        """Gradients are held while activations are: a step takes more than one micro-batch, or its recorded passes
        write to the same gradients every time (rig/graphs)."""
        return self.steady or self.epoch.micro_batches > 1.01 * ceil(self.workload.rows / self.batch_size)

    @property
    def loss_share(self) -> float:
        """Share of tokens that bear loss; for labels, rows over tokens."""
        return self.workload.loss_tokens / self.workload.tokens

    @property
    def head_rows(self) -> float:
        """Rows of logits computed over the whole run: all tokens, or only those that bear loss once fused."""
        if self.task == "classify":
            return 0.0
        return self.tokens_trained * self.loss_share if self.loss_rows is not None else self.computed_tokens

    @property
    def head_share(self) -> float:
        """Rows of logits over tokens computed, padding included."""
        return self.head_rows / self.computed_tokens

    @property
    def last_block_share(self) -> float:
        """Share of its tokens that the last block computes beyond keys and values: once fused, and where it is not
        compiled, those that bear loss."""
        return self.computed_last(self.head_share)

    def computed_last(self, bearing: float) -> float:
        """The same of a micro-batch in which this share of the tokens bears loss."""
        fused = self.loss_rows is not None and not self.compiled and self.shape.kind == "decoder"
        return bearing if fused and bearing <= NARROWED_SHARE else 1.0

    @property
    def compiles_products(self) -> bool:
        """A kernel for each new shape: rig/filler."""
        return self.machine.vendor_kind == "cpu" and self.dtype_bytes < 4

    def keeping(self, recomputed: int, offloaded: int, mlp_tiles: int = 1) -> Job:
        """The same with so many blocks recomputed, in so many tiles, and so many offloaded."""
        return self._with(recomputed_layers=recomputed, offloaded_layers=offloaded, mlp_tiles=mlp_tiles)

    def on(self, machine: Machine) -> Job:
        """The same on another machine of its kind."""
        return self._with(machine=machine)

    def _with(self, **changes: object) -> Job:
        """As `replace`; what was counted of this one holds for the other: it depends on rows, layout and the machine's
        kind alone."""
        self.footprints  # noqa: B018  # made before it is shared
        other = object.__new__(Job)
        other.__dict__.update(self.__dict__, **changes)
        return other

    @cached_property
    def footprints(self) -> dict[MicroBatch, Footprint]:
        """Of micro-batches, once they are counted (job/activations): the same however many blocks are recomputed or
        offloaded, and on every machine of the kind."""
        return {}

    @property
    def blocks(self) -> Blocks:
        """What becomes of the activations of each block."""
        return Blocks.of(self.shape.layers, self.recomputed_layers, self.offloaded_layers)
