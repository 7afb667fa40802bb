"""How many rows of filler make the shapes of matrix products repeat, where new shapes cost time and memory."""

from __future__ import annotations

import torch

from tenfold.workload import FEWEST, filling_step


def filled_multiple(device: torch.device, dtype: torch.dtype, largest: int) -> int:
    """To a multiple of how many rows to fill products that have at most `largest`; 1 where filler saves nothing.

    On CPUs PyTorch multiplies bfloat16 matrices by oneDNN, which compiles a kernel for each new shape and keeps 1,024
    of them (its primitive cache). Measured on a Xeon with AMX, torch 2.13: 0.6 to 1 MB a shape over 100 shapes, and by
    oneDNN's own account 0.4 ms on average over 372; on an EPYC without AMX 0.3 ms over 673, and 300 MB less of a run
    whose last block had seen 45 numbers of rows. float32 goes to MKL, which compiles nothing.
    """
    if device.type != "cpu" or dtype != torch.bfloat16:
        return 1
    return filling_step(largest, FEWEST)
