"""A computer on paper: specifications, efficiency, dated price and its terms."""

from tenfold.machine.catalogue import catalogue, gpu_named, gpus
from tenfold.machine.efficiency import (
    RATES,
    Efficiency,
    Overheads,
    calibration_file,
    efficiency_from,
    efficiency_of,
    evidence,
    overheads_of,
)
from tenfold.machine.energy import Power
from tenfold.machine.find import find_machines, fresh_prices
from tenfold.machine.local import find_compiler, flops_per_cycle, local_machine
from tenfold.machine.machine import MEMORY_MARGIN, STALE_DAYS, Machine
from tenfold.machine.prices import user_price_file
from tenfold.machine.terms import Terms

__all__ = [
    "MEMORY_MARGIN",
    "RATES",
    "STALE_DAYS",
    "Efficiency",
    "Machine",
    "Overheads",
    "Power",
    "Terms",
    "calibration_file",
    "catalogue",
    "efficiency_from",
    "efficiency_of",
    "evidence",
    "find_compiler",
    "find_machines",
    "flops_per_cycle",
    "fresh_prices",
    "gpu_named",
    "gpus",
    "local_machine",
    "overheads_of",
    "user_price_file",
]
