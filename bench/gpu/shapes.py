"""Published model shapes with random bf16 weights: right for speed and memory, useless for loss.

    python bench/gpu/shapes.py --shape llama-8b [--layers 4] [--folder DIR] [--device cuda]

Prints the model's folder. Weights are normal with standard deviation 0.02, norms are 1, every tensor from its own seed,
so that two machines write the same model. Never zeros or constants: operands that do not toggle run faster.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "mlp_bias": False,
    "hidden_act": "silu", "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "vocab_size": 128256,
    "max_position_embeddings": 131072,
}  # fmt: skip
ROPE: dict[str, Any] = {
    "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip

SHAPES: dict[str, dict[str, Any]] = {
    "llama-8b": LLAMA | {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": False, "rope_scaling": ROPE | {"factor": 8.0},
    },
    "llama-1b": LLAMA | {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": True, "rope_scaling": ROPE | {"factor": 32.0},
    },
    "qwen3-1.7b": {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": False, "hidden_act": "silu",
        "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True, "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0, "rope_scaling": None, "vocab_size": 151936, "max_position_embeddings": 40960,
        "max_window_layers": 28, "sliding_window": None, "use_sliding_window": False,
    },
    "tiny": LLAMA | {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": False, "vocab_size": 1024,
        "rope_scaling": ROPE | {"factor": 8.0},
    },
}  # fmt: skip
"""Llama-3.1-8B, Llama-3.2-1B and Qwen3-1.7B from their published config.json; `tiny` is for trying the scripts."""

OWN_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
"""Not the published ids: these exist in the little tokenizer that is written beside the weights."""

WORDS = 512
SPARE_BYTES = 8 * 2**30
"""What a disk must have left beside the weights."""


def model_folder(shape: str, layers: int | None = None) -> Path:
    """Where a model goes: memory if it has room for the weights, else /tmp."""
    name = f"tenfold-bench/{shape}" + (f"-{layers}layers" if layers else "")
    config = SHAPES[shape] | ({"num_hidden_layers": layers} if layers else {})
    memory = Path("/dev/shm")
    if (memory / name / "written.json").exists():
        return memory / name
    room = shutil.disk_usage(memory).free if memory.is_dir() else 0
    return (memory if room > 2 * sum(parameters(config)) + SPARE_BYTES else Path("/tmp")) / name


def parameters(config: dict[str, Any]) -> tuple[int, int]:
    """How many weights the linear layers of all blocks have, and how many the embeddings and the head have."""
    width, head = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    block = width * (2 * queries + 2 * keys) + 3 * width * config["intermediate_size"]
    tables = 1 if config["tie_word_embeddings"] else 2
    return block * config["num_hidden_layers"], tables * config["vocab_size"] * width


def flops_per_token(shape: str, length: float, loss_share: float, trains: str, rank: int = 16) -> float:
    """Useful FLOPs of one token's forward and backward pass, nothing recomputed, causal attention over `length` tokens.

    `loss_share` of the tokens need the head. `trains` is "lora" or "full". The same numerator for every system.
    """
    config = SHAPES[shape]
    width, head, layers = config["hidden_size"], config["head_dim"], config["num_hidden_layers"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    linears = parameters(config)[0]
    top = config["vocab_size"] * width
    sums = 2 * (width + queries) + 2 * (width + keys) + 3 * (width + config["intermediate_size"])
    attention = 7 * length * queries * layers
    if trains == "full":
        return 6 * linears + attention + 6 * top * loss_share
    return 4 * linears + 6 * layers * rank * sums + attention + 4 * top * loss_share


def make_model(folder: Path, shape: str, layers: int | None = None, device: str = "cuda") -> Path:
    """A Hugging Face folder with a shape's random weights, written once: a second call finds it done."""
    import torch
    import transformers

    if (folder / "written.json").exists():
        return folder
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    config = SHAPES[shape] | OWN_IDS | {"torch_dtype": "bfloat16", "use_cache": True, "initializer_range": 0.02}
    if layers:
        config["num_hidden_layers"] = layers
        if "max_window_layers" in config:
            config["max_window_layers"] = layers
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(folder))
    sizes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}  # tied ones appear once
    shards = list(_shards(sizes))
    files = [f"model-{n + 1:05}-of-{len(shards):05}.safetensors" for n in range(len(shards))]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda job: _write_shard(folder / job[0], job[1], device), zip(files, shards, strict=True)))
    index = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
    total = 2 * sum(math.prod(size) for size in sizes.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=1)
    )
    _write_tokenizer(folder)
    report = {"seconds": round(time.perf_counter() - started, 1), "bytes": total, "shards": len(shards)}
    (folder / "written.json").write_text(json.dumps(report))
    return folder


def _shards(sizes: dict[str, tuple[int, ...]]) -> Iterator[dict[str, tuple[int, ...]]]:
    """One shard for each block, and one for each tensor outside the blocks."""
    shards: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, size in sizes.items():
        key = ".".join(name.split(".")[:3]) if ".layers." in name else name
        shards.setdefault(key, {})[name] = size
    yield from shards.values()


def _write_shard(path: Path, sizes: dict[str, tuple[int, ...]], device: str) -> None:
    """Draw the tensors of one file on the device and write them."""
    import torch
    from safetensors.torch import save_file

    tensors = {}
    for name, size in sizes.items():
        if len(size) == 1:
            tensors[name] = torch.ones(size, dtype=torch.bfloat16, device=device)
            continue
        generator = torch.Generator(device).manual_seed(zlib.crc32(name.encode()))
        tensors[name] = torch.empty(size, dtype=torch.bfloat16, device=device).normal_(0.0, 0.02, generator=generator)
    save_file(tensors, path, metadata={"format": "pt"})


def _write_tokenizer(folder: Path) -> None:
    """Whole words w4, w5, ...; nobody tokenises here, but some loaders insist on a tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    special = ["<pad>", "<s>", "</s>", "<unk>"]
    words = {word: number for number, word in enumerate([*special, *(f"w{n}" for n in range(len(special), WORDS))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>",
        "unk_token": "<unk>", "padding_side": "right", "model_max_length": 131072,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def main() -> None:
    """Write one model and print its folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    folder = arguments.folder or model_folder(arguments.shape, arguments.layers)
    print(make_model(folder, arguments.shape, arguments.layers, arguments.device))


if __name__ == "__main__":
    main()
