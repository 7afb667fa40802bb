"""Activations that wait in host memory between the forward and the backward pass of a block.

What autograd keeps of an offloaded block goes to pinned host memory on a stream of its own while later blocks compute,
and comes back while the blocks above it run backward. One offloaded block is on its way at any time: when the next one
begins, in either direction, its copies are waited for. On a CPU the same code makes plain copies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from tenfold.rig.tensors import tensors_of

SMALLEST_BYTES = 2**16
"""Smaller storages stay: a copy has a fixed cost of some microseconds, in which the link moves more than this."""


class HostLink:
    """Copies between a device and host memory, in the order in which they are asked for, beside what is computed."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def to_host(self, values: torch.Tensor) -> torch.Tensor:
        """A copy of `values` [bytes] in host memory; they must live until `wait_for` has seen a later `mark`."""
        if self._stream is None:
            return values.clone()
        host = torch.empty_like(values, device="cpu", pin_memory=True)
        self._copy(values, host)
        return host

    def to_device(self, host: torch.Tensor) -> torch.Tensor:
        """The way back; to be read after `wait_for`."""
        if self._stream is None:
            return host.clone()
        values = torch.empty_like(host, device=self.device)
        self._copy(host, values)
        return values

    def _copy(self, source: torch.Tensor, target: torch.Tensor) -> None:
        assert self._stream is not None
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)

    def mark(self) -> torch.cuda.Event | None:
        """The moment when all copies so far are done."""
        if self._stream is None:
            return None
        moment = torch.cuda.Event()
        moment.record(self._stream)
        return moment

    def wait_for(self, moment: torch.cuda.Event | None) -> None:
        """Let what is computed from here on wait for that moment; the host does not wait."""
        if moment is not None:
            torch.cuda.current_stream(self.device).wait_event(moment)


@dataclass(frozen=True)
class Waiting:
    """What autograd holds instead of a tensor: where it is, and how it looks into its storage."""

    call: OffloadedCall
    storage: int
    dtype: torch.dtype
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class OffloadedCall:
    """The storages that autograd keeps of one call of a block."""

    def __init__(self, link: HostLink, staying: Iterable[torch.Tensor]) -> None:
        self._link = link
        self._staying = {tensor.untyped_storage().data_ptr() for tensor in staying}
        self._on_device: dict[int, torch.Tensor] = {}
        self._on_host: dict[int, torch.Tensor] = {}
        self._wanted: Counter[int] = Counter()
        """How often each storage is still to be asked for."""
        self._arrived: torch.cuda.Event | None = None
        self._fetched = False

    @property
    def host_bytes(self) -> int:
        """What waits in host memory now."""
        return sum(held.nbytes for held in self._on_host.values())

    @property
    def device_bytes(self) -> int:
        """What this call holds on the device: on its way out, or back."""
        return sum(held.nbytes for held in self._on_device.values())

    def leave(self, tensor: torch.Tensor) -> torch.Tensor | Waiting:
        """For saved_tensors_hooks: send a tensor's storage to the host, once for all that look into it."""
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        if key in self._staying or storage.nbytes() < SMALLEST_BYTES or tensor.device.type != self._link.device.type:
            return tensor
        if key not in self._on_device:
            held = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)
            self._on_device[key] = held
            self._on_host[key] = self._link.to_host(held)
        self._wanted[key] += 1
        return Waiting(self, key, tensor.dtype, tensor.size(), tensor.stride(), int(tensor.storage_offset()))

    def settle(self) -> None:
        """The forward pass is past this block: wait until all has left, and let go of it on the device."""
        self._link.wait_for(self._link.mark())
        self._on_device.clear()

    def fetch(self) -> None:
        """Begin to bring everything back."""
        if self._fetched:
            return
        self._fetched = True
        self._on_device = {key: self._link.to_device(held) for key, held in self._on_host.items()}
        self._arrived = self._link.mark()

    def come_back(self, waiting: torch.Tensor | Waiting) -> torch.Tensor:
        """For saved_tensors_hooks: the tensor as it was. A storage that all have asked for is theirs alone; who asks
        again gets another copy."""
        if isinstance(waiting, torch.Tensor):
            return waiting
        self.fetch()
        key = waiting.storage
        if key not in self._on_device:
            self._on_device[key] = self._link.to_device(self._on_host[key])
            self._arrived = self._link.mark()
        self._link.wait_for(self._arrived)
        self._wanted[key] -= 1
        held = self._on_device[key] if self._wanted[key] > 0 else self._on_device.pop(key)
        empty = torch.empty(0, dtype=waiting.dtype, device=self._link.device)
        return empty.set_(held.untyped_storage(), waiting.offset, waiting.size, waiting.stride)


class Offloading:
    """What the offloaded blocks of a model share: the link, and the call before."""

    def __init__(self, device: torch.device) -> None:
        self.link = HostLink(device)
        self.last: OffloadedCall | None = None


class OffloadedBlock:
    """How one block is run: (function, *inputs) to its result.

    The block after the last offloaded one is called so too, though it keeps everything: it waits for the copies of the
    one below, and when its own backward pass begins, it lets them come back.
    """

    def __init__(
        self,
        shared: Offloading,
        weights: Callable[[], Iterable[torch.Tensor]],
        *,
        first: bool,
        offloaded: bool,
        recomputed: bool,
    ) -> None:
        """`weights`: what the block computes with and autograd keeps too, but nobody has to copy."""
        self._shared, self._weights = shared, weights
        self._first, self._offloaded, self._recomputed = first, offloaded, recomputed

    def __call__(self, function: partial[torch.Tensor], /, *inputs: Any) -> torch.Tensor:
        """As `function(*inputs)`."""
        below = None if self._first else self._shared.last
        if below is not None:
            below.settle()
        run = partial(checkpoint, function, use_reentrant=False) if self._recomputed else function
        if self._offloaded:
            common = tensors_of([*inputs[1:], *function.keywords.values()])  # masks, positions: all blocks keep them
            call = OffloadedCall(self._shared.link, [*self._weights(), *common])
            with saved_tensors_hooks(call.leave, call.come_back):
                output = run(*inputs)
            self._shared.last = call
        else:
            output = run(*inputs)
            self._shared.last = None
        if below is not None and output.requires_grad:
            output.register_hook(lambda gradient: below.fetch())
        return output
