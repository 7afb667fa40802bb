"""How a frozen weight is kept: fp8, int8 or nf4. One file per format, in plain torch operations: the reference."""

from __future__ import annotations

from collections.abc import Mapping

from tenfold.errors import InputError
from tenfold.rig.storage.fp8 import Fp8
from tenfold.rig.storage.int8 import Int8
from tenfold.rig.storage.nf4 import Nf4
from tenfold.rig.storage.storage import Storage

STORAGES: Mapping[str, Storage] = {storage.name: storage for storage in (Fp8(), Int8(), Nf4())}


def storage_named(name: str) -> Storage:
    """The format of this name. Raises InputError if there is none."""
    if name not in STORAGES:
        raise InputError(f"cuts.quantize.storage: found {name!r}, expected one of {', '.join(STORAGES)}")
    return STORAGES[name]


__all__ = ["STORAGES", "Fp8", "Int8", "Nf4", "Storage", "storage_named"]
