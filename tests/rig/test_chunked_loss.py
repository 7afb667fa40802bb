"""What is alive while the chunked loss is computed: one chunk's logits and gradient, however many chunks there are."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch.profiler import ProfilerActivity, profile  # noqa: E402

from held_bytes import highest_held_bytes  # noqa: E402
from tenfold.rig.chunked_loss import ChunkLoss, chunked_cross_entropy, loss_in_one_pass, loss_in_place  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*Profiler clears events")  # torch 2.11's

VOCABULARY, HIDDEN, ROWS = 4096, 8, 64
CELLS = ROWS * VOCABULARY
"""Of one chunk, which no filler makes longer (rig/filler). What is not as wide as the vocabulary is small beside it."""


def live_bytes(chunks: int, dtype: torch.dtype, chunk_loss: ChunkLoss = loss_in_place) -> float:
    """The most bytes for each cell of a chunk that the loss and its backward pass held at once, by the allocator's own
    account. The head is frozen, so that only chunks are wide."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(chunks * ROWS, HIDDEN, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator).to(dtype)
    targets = torch.randint(0, VOCABULARY, (len(hidden),), generator=generator)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        chunked_cross_entropy(hidden, weight, None, targets, ROWS, chunk_loss).backward()
    return highest_held_bytes(found) / CELLS


def keeping_the_last(chunk_loss: ChunkLoss) -> ChunkLoss:
    """The same, but the gradient of a chunk is held while the next is made."""
    held: list[torch.Tensor] = []

    def keep(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss, grad = chunk_loss(logits, targets)
        held[:] = [grad]
        return loss, grad

    return keep


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("chunk_loss", [loss_in_place, loss_in_one_pass])
def test_many_chunks_hold_no_more_than_one(chunk_loss: ChunkLoss, dtype: torch.dtype) -> None:
    one, many = (live_bytes(chunks, dtype, chunk_loss) for chunks in (1, 4))
    assert many == pytest.approx(one, abs=0.1)
    # The oracle sees what it looks for: the gradient of the chunk before, in the logits' number format.
    assert live_bytes(4, dtype, keeping_the_last(chunk_loss)) == pytest.approx(one + dtype.itemsize, abs=0.1)


@pytest.mark.parametrize(("dtype", "cell_bytes"), [(torch.bfloat16, 2 + 4 + 4), (torch.float32, 4 + 4)])
def test_a_chunk_is_what_the_planner_counts(dtype: torch.dtype, cell_bytes: int) -> None:
    """job/transients.loss_bytes: a chunk in its number format, in float32, and its exponentials."""
    assert live_bytes(3, dtype) == pytest.approx(cell_bytes, abs=0.1)
