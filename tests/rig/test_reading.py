"""What threads read in pieces is what the files hold, and no more memory is held than is said. Each has a control."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import enumerate as threads

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.profiler import profile

from held_bytes import highest_held_bytes
from tenfold.cuts import FineTune, Quantize, on_rig
from tenfold.rig import reading
from tenfold.rig.model import build_rig
from tenfold.rig.reading import BUFFERS_A_READER, READERS, Extent, read_tensors
from tenfold.rig.rig import Source
from tenfold.rig.storage.storage import ENCODING_BYTES, WEIGHTS_AT_ONCE
from tenfold.rig.stream import DTYPES
from tenfold.shape.headers import stored_tensors

CPU = torch.device("cpu")


@pytest.fixture
def extents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Extent]:
    """Tensors of all sorts, in two files; read in pieces of 64 bytes by three threads."""
    monkeypatch.setattr(reading, "CHUNK_BYTES", 64)
    monkeypatch.setattr(reading, "READERS", {"cpu": 3})
    torch.manual_seed(0)
    wide = {
        "matrix": torch.randn(31, 77),
        "one piece": torch.randn(16),
        "one and a number": torch.randn(17),
        "scalar": torch.randn(()),
        "nothing": torch.randn(0, 4),
        "half": torch.randn(9, 5).half(),
    }
    narrow = {"brain": torch.randn(33, 3).bfloat16(), "eight": torch.randn(99).to(torch.float8_e4m3fn)}
    whole = {"numbers": torch.arange(50), "bytes": torch.arange(70, dtype=torch.uint8), "truth": torch.ones(3) > 0}
    save_file(wide, tmp_path / "a.safetensors")
    save_file({**narrow, **whole}, tmp_path / "b.safetensors")
    return {
        name: Extent(path, stored.start, stored.shape, DTYPES[stored.dtype])
        for path in sorted(tmp_path.glob("*.safetensors"))
        for name, stored in stored_tensors(path).items()
    }


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gives_what_the_library_gives(extents: dict[str, Extent], dtype: torch.dtype) -> None:
    expected = {name: tensor for file in {e.file for e in extents.values()} for name, tensor in load_file(file).items()}
    found = dict(zip(extents, read_tensors(list(extents.values()), CPU, dtype), strict=True))
    for name, tensor in expected.items():
        wanted = tensor.to(dtype) if tensor.is_floating_point() else tensor
        assert (found[name].dtype, found[name].shape) == (wanted.dtype, wanted.shape)
        assert bits(found[name]) == bits(wanted), name
    late = replace(extents["matrix"], start=extents["matrix"].start + 4, shape=(30, 77))
    (moved,) = read_tensors([late], CPU, dtype)
    assert bits(moved) != bits(expected["matrix"][:30].to(dtype)), "the control: a number too late"


def test_a_file_that_ends_too_early_is_an_error_and_leaves_no_thread(extents: dict[str, Extent]) -> None:
    file = extents["matrix"].file
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(OSError, match=r"a\.safetensors: ends within a tensor"):
        list(read_tensors(list(extents.values()), CPU, torch.float32))
    assert not [thread for thread in threads() if thread.name.startswith("tenfold weights")]


def test_readers_end_where_nobody_reads_on(extents: dict[str, Extent]) -> None:
    tensors = read_tensors(list(extents.values()), CPU, torch.float32)
    next(tensors)
    assert [thread for thread in threads() if thread.name.startswith("tenfold weights")]
    tensors.close()
    assert not [thread for thread in threads() if thread.name.startswith("tenfold weights")]


@pytest.mark.parametrize("storage", [None, "fp8", "nf4"])
def test_loading_holds_what_it_says(storage: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The formula at the head of stream.py, counted by torch's allocator, and that the bound is near what is held. The
    control: weights that are stored once all are read take more."""
    monkeypatch.setattr(reading, "CHUNK_BYTES", 2**16)
    monkeypatch.setitem(WEIGHTS_AT_ONCE, "cpu", 2**14)
    config = transformers.LlamaConfig(
        vocab_size=128, hidden_size=256, intermediate_size=1024, num_hidden_layers=2, num_attention_heads=4,
        bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)  # type: ignore[arg-type]
    model.save_pretrained(tmp_path, max_shard_size="1MB")
    largest = 4 * max(weight.numel() for weight in model.parameters())
    cuts = (FineTune(), *([Quantize(storage)] if storage else []))  # type: ignore[arg-type]
    skeleton = build_rig(Source(str(tmp_path)), "sft")
    with profile(profile_memory=True) as found:
        rig = on_rig(cuts, skeleton)
    own = sum(tensor.nbytes for tensor in rig.model.state_dict().values())
    encoding = ENCODING_BYTES * WEIGHTS_AT_ONCE["cpu"] if storage else 0
    staging = READERS["cpu"] * BUFFERS_A_READER * reading.CHUNK_BYTES
    allowed = own + staging + largest + encoding
    held = highest_held_bytes(found)
    assert own < held <= allowed
    if storage:
        skeleton = build_rig(Source(str(tmp_path)), "sft")
        with profile(profile_memory=True) as found:
            FineTune().apply(skeleton)
        assert highest_held_bytes(found) > allowed
