"""How many processes a launcher has started: tenfold trains in one."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tenfold.errors import InputError

COUNTS = {
    "WORLD_SIZE": "RANK",
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
    "PMI_SIZE": "PMI_RANK",
}
"""How many there are, and which one this is: by torchrun and `accelerate launch`, srun, Open MPI, MPICH and Intel MPI.

Not SLURM_NTASKS, which is set in a batch script too, whose commands run once.
"""


def check_alone(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse to be one of several processes that would each do the same, into one folder. Raises InputError."""
    for count, rank in COUNTS.items():
        found = environment.get(count, "")
        if found.isdecimal() and int(found) > 1:
            this = environment.get(rank, "")
            which = f", of which this is number {int(this)}," if this.isdecimal() else ""
            raise InputError(
                f"{count} is {int(found)}: a launcher has started {int(found)} processes{which} but a run is one"
                " process on one device; start it once, without torchrun, accelerate launch, srun or mpirun"
            )
