"""One GPU: does a LoRA run of a published shape do what its plan foretold? Random weights, so speed and memory only.

    python bench/gpu.py [--shape 1b 8b] [--steps 10]

Each run is a fresh `tenfold train`; the result holds prediction and measurement side by side. Also checked: bf16 losses
of packed, fused and checkpointed steps against padded plain ones on the same weights.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers

from measure import fresh, machine, tenfold_command

SHAPES: dict[str, dict[str, Any]] = {
    "1b": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": True,
    },
    "8b": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": False,
    },
}  # fmt: skip
"""Llama-3.2-1B and Llama-3.1-8B, from their published config.json."""

VOCABULARY = 128256


def make_model(folder: Path, shape: str) -> None:
    """Random bf16 weights, made on the GPU, and a tokenizer of whole words."""
    config = transformers.LlamaConfig(
        **SHAPES[shape], vocab_size=VOCABULARY, max_position_embeddings=8192, rms_norm_eps=1e-5, rope_theta=500000.0,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        model = transformers.LlamaForCausalLM(config)
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()
    words = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3} | {f"w{n}": n for n in range(4, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "bos_token": "<s>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def make_rows(path: Path, lengths: list[int]) -> Path:
    """Text rows of so many random words; the tokenizer adds the end."""
    draw = random.Random(0)
    rows = ({"text": " ".join(f"w{draw.randrange(4, VOCABULARY)}" for _ in range(length - 1))} for length in lengths)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(folder: Path, name: str, steps: int, lengths: list[int], cuts: dict[str, Any]) -> dict[str, Any]:
    """One run; its receipt in short."""
    recipe = {
        "model": str(folder / "model"),
        "task": "text",
        "data": {"train": str(make_rows(folder / f"{name}.jsonl", lengths)), "eval_fraction": 0.0},
        "machine": "local",
        "cuts": cuts,
        "train": {"max_steps": steps, "batch_size": 8, "log_every_steps": 1},
        "output": {"folder": str(folder / name), "ledger": str(folder / "ledger.sqlite")},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    receipt = json.loads(fresh(tenfold_command("train", str(path), "--json")))
    speeds = sorted(point["tokens_per_second"] for point in receipt["curve"][3:])
    return {
        "run": name,
        "cuts": [cut["facts"] for cut in receipt["cuts"]],
        "median_tokens_per_second": speeds[len(speeds) // 2],
        "losses": [round(point["loss"], 4) for point in receipt["curve"]],
        "measurements": {row["name"]: (row["predicted"], row["measured"]) for row in receipt["measurements"]},
        "seconds_by_part": receipt["seconds_by_part"],
    }


def main() -> None:
    """Run every shape with the planner's cuts and with each exact cut turned off."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", nargs="+", default=["1b", "8b"])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for shape in arguments.shape:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_model(folder / "model", shape)
            draw = random.Random(1)
            fixed, mixed = [2048] * 64, [draw.choice((64, 128, 256, 512, 2048)) for _ in range(64)]
            legs: list[tuple[str, list[int], dict[str, Any]]] = [
                (f"{shape}-fixed", fixed, {"lora": True, "fuse": True}),
                (f"{shape}-mixed", mixed, {"lora": True, "pack": True, "fuse": True}),
                (f"{shape}-mixed-padded", mixed, {"lora": True, "pack": False, "fuse": False}),
                (f"{shape}-mixed-checkpoint", mixed, {"lora": True, "pack": True, "fuse": True, "checkpoint": "full"}),
            ]
            for leg in legs:
                rows.append({"shape": shape, **train(folder, leg[0], arguments.steps, leg[1], leg[2])})
                print(json.dumps(rows[-1]), flush=True)
                arguments.out.write_text(
                    json.dumps({"gpu": torch.cuda.get_device_name(), "machine": machine(), "rows": rows}, indent=1)
                )


if __name__ == "__main__":
    main()
