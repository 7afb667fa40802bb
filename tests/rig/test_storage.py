"""What is stored comes back as near as its format allows, in the bits it says. Each check has one that must fail."""

from __future__ import annotations

from statistics import NormalDist

import pytest
import torch

from tenfold.errors import InputError
from tenfold.rig.storage import STORAGES, Nf4, Storage, storage_named
from tenfold.rig.storage.nf4 import LEVELS

each_storage = pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES.keys())

TABLES = ("mean", "pairs")
"""Parts of nf4 that do not grow with the weight."""


def normal(rows: int = 96, columns: int = 256, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def loss_of(storage: Storage, weight: torch.Tensor) -> float:
    """||stored - weight|| / ||weight||."""
    return float((storage.load(storage.store(weight), torch.float32) - weight).norm() / weight.norm())


NORMAL_LOSS = {"fp8": 0.026, "int8": 0.0065, "nf4": 0.094}
"""On normal weights: 2^-4 / sqrt(12) x ~1.4 for 3 bits of mantissa, 3 sigma / 127 / sqrt(12), and nf4's own."""


@each_storage
@pytest.mark.parametrize("shape", [(96, 256), (33, 32), (7, 100), (1, 2)])
def test_comes_back_as_near_as_the_format_allows(storage: Storage, shape: tuple[int, int]) -> None:
    weight = normal(*shape)
    found = storage.load(storage.store(weight), torch.float32)
    assert found.shape == weight.shape
    assert found.dtype == torch.float32
    assert loss_of(storage, weight) < 1.25 * NORMAL_LOSS[storage.name]
    assert storage.load(storage.store(weight), torch.bfloat16).dtype == torch.bfloat16


@each_storage
def test_scales_of_the_wrong_place_are_noticed(storage: Storage) -> None:
    """The control: the same codes with the scales of other rows are far off."""
    weight = normal() * torch.logspace(-2, 2, 96)[:, None]
    parts = storage.store(weight)
    assert loss_of(storage, weight) < 1.6 * NORMAL_LOSS[storage.name]
    moved = {name: part.roll(1, 0) if name in ("scale", "absmax") else part for name, part in parts.items()}
    assert float((storage.load(moved, torch.float32) - weight).norm() / weight.norm()) > 0.2


@each_storage
def test_takes_the_bits_it_says(storage: Storage) -> None:
    parts = storage.store(normal(128, 1024))
    bits = sum(8 * part.nbytes for name, part in parts.items() if name not in TABLES) / (128 * 1024)
    assert bits == storage.bits_per_weight(1024)
    assert storage.bits_per_weight(1024) == {"fp8": 8.03125, "int8": 8.03125, "nf4": 4.126953125}[storage.name]


@each_storage
def test_zeros_stay_zeros_and_nothing_else_becomes_one_too_many(storage: Storage) -> None:
    weight = normal(8, 128)
    weight[3] = 0.0
    weight[5, :64] = 0.0
    found = storage.load(storage.store(weight), torch.float32)
    assert not found[3].any()
    assert not found[5, :64].any()
    assert found.isfinite().all()
    assert found[0].any()


@each_storage
def test_a_skeleton_has_the_same_parts(storage: Storage) -> None:
    parts, empty = storage.store(normal(33, 100)), storage.store(normal(33, 100).to("meta"))
    described = {name: (part.shape, part.dtype) for name, part in parts.items()}
    assert {name: (part.shape, part.dtype) for name, part in empty.items()} == described
    assert all(part.is_meta for part in empty.values())


@each_storage
def test_is_a_value(storage: Storage) -> None:
    assert storage == type(storage)()
    assert hash(storage) == hash(type(storage)())
    assert storage_named(storage.name) is storage


def test_nf4_levels_are_quantiles_of_the_normal_distribution() -> None:
    """Appendix E of arXiv 2305.14314: evenly spaced quantiles on either side of zero, one more above than below."""
    offset, quantile = 0.9677083, NormalDist().inv_cdf
    above = [quantile(offset + place / 8 * (0.5 - offset)) for place in range(8)]
    below = [-quantile(offset + place / 7 * (0.5 - offset)) for place in range(7)]
    levels = sorted([*above, 0.0, *below])
    assert [level / max(levels) for level in levels] == pytest.approx(LEVELS, abs=1e-6)


def test_nf4_takes_the_nearest_level() -> None:
    weight = normal(16, 64)
    parts = Nf4().store(weight)
    high, low = parts["codes"] >> 4, parts["codes"] & 15
    codes = torch.stack([high, low], dim=2).view(16, 64).long()
    unit = weight / weight.abs().amax(dim=1, keepdim=True)
    nearest = (unit[..., None] - torch.tensor(LEVELS)).abs().argmin(dim=2)
    assert torch.equal(codes, nearest)
    swapped = torch.stack([low, high], dim=2).view(16, 64).long()
    assert not torch.equal(swapped, nearest), "the control: the halves of a byte have an order"


def test_double_quantization_loses_next_to_nothing() -> None:
    """absmax in 8 bits instead of 32; the control is absmax without its mean's share, in the same 8 bits."""
    weight = normal(128, 1024)
    parts = Nf4().store(weight)
    absmax = weight.view(128, 16, 64).abs().amax(dim=2)
    exact = parts["codes"]
    levels = torch.tensor(LEVELS)[torch.stack([exact >> 4, exact & 15], dim=2).view(128, 16, 64).long()]
    single = float(((levels * absmax[..., None]).view(128, 1024) - weight).norm() / weight.norm())
    assert loss_of(Nf4(), weight) == pytest.approx(single, rel=0.002)
    without = {**parts, "mean": torch.zeros(1)}
    assert float((Nf4().load(without, torch.float32) - weight).norm() / weight.norm()) > 2 * single


def test_nf4_refuses_half_a_byte() -> None:
    with pytest.raises(InputError, match="a row has 33; write int8 or fp8"):
        Nf4().store(normal(4, 33))


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InputError, match="found 'fp4', expected one of fp8, int8, nf4"):
        storage_named("fp4")
