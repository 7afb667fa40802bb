"""What the host spends on an operation beside what it computes: tiny models and layers, CPU seconds of one thread.

    OMP_NUM_THREADS=1 python bench/accuracy/host_seconds.py

Where src/tenfold/job/launches.py has its shares from: a launch of a backward pass beside one of a forward pass, a view
beside a launch, and what Python does around a layer of tenfold's own beyond what that layer launches. A minute; other
work on the machine disturbs it little, since the least of many repetitions counts.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils._pytree import tree_map_only

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from launch_counter import LaunchCounter  # noqa: E402

from measure import RESULTS, machine  # noqa: E402
from shapes import SHAPES  # noqa: E402
from tenfold.cuts import LoRA  # noqa: E402
from tenfold.rig.linear import AdaptedLinear  # noqa: E402
from tenfold.rig.storage import STORAGES, Storage  # noqa: E402
from tenfold.rig.stored_linear import StoredLinear  # noqa: E402

WIDTH, TOKENS, LAYERS, REPETITIONS = 64, 2, 40, 300
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
        "num_hidden_layers": 8, "n_embd": 32, "n_head": 2, "n_layer": 8, "vocab_size": 256}  # fmt: skip


NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def passes(forward: Callable[[], torch.Tensor], weights: Sequence[torch.Tensor]) -> dict[str, float]:
    """Launches and least CPU microseconds of a forward and of a backward pass."""
    with LaunchCounter() as ahead:
        loss = forward().sum()
    with LaunchCounter() as back:
        loss.backward()
    times: list[tuple[float, float]] = []
    for _ in range(REPETITIONS):
        for weight in weights:
            weight.grad = None
        began = time.process_time()
        found = forward()
        ended = time.process_time()
        loss = found.sum()
        again = time.process_time()
        loss.backward()
        times.append((ended - began, time.process_time() - again))
    ahead_seconds, back_seconds = (min(column) for column in zip(*times, strict=True))
    return {
        "forward_launches": ahead.count - 1,
        "forward_us": 1e6 * ahead_seconds,
        "backward_launches": back.count,
        "backward_us": 1e6 * back_seconds,
    }


def of_layer(make: Callable[[], Callable[[torch.Tensor], torch.Tensor]]) -> dict[str, float]:
    """Of one of many equal layers, float32."""
    layers = [make() for _ in range(LAYERS)]
    x = torch.randn(TOKENS, WIDTH, requires_grad=True)

    def forward() -> torch.Tensor:
        y = x
        for layer in layers:
            y = layer(y)
        return y

    weights = [x, *(w for layer in layers if isinstance(layer, torch.nn.Module) for w in layer.parameters())]
    return {name: value / LAYERS for name, value in passes(forward, weights).items()}


def of_model(name: str) -> dict[str, float]:
    """Of a tiny model of a family, float32."""
    config: Any = SHAPES[name] | {key: value for key, value in TINY.items() if key in SHAPES[name]}
    kind = transformers.AutoModel if name.startswith("bert") else transformers.AutoModelForCausalLM
    model = kind.from_config(transformers.AutoConfig.for_model(**config)).train()
    ids = torch.randint(1, 200, (2, TOKENS))
    return passes(lambda: model(input_ids=ids, use_cache=False)[0], list(model.parameters()))


def of_attention(name: str, module: str) -> dict[str, float]:
    """Of the first block's attention in a tiny model of a family, called as its block calls it."""
    config: Any = SHAPES[name] | {key: value for key, value in TINY.items() if key in SHAPES[name]}
    kind = transformers.AutoModel if name.startswith("bert") else transformers.AutoModelForCausalLM
    model = kind.from_config(transformers.AutoConfig.for_model(**(config | NO_DROPOUT))).train()
    attention = model.get_submodule(module)
    called: list[tuple[Any, Any]] = []
    hook = attention.register_forward_pre_hook(lambda _, args, kwargs: called.append((args, kwargs)), with_kwargs=True)
    model(input_ids=torch.randint(1, 200, (2, TOKENS)), use_cache=False)
    hook.remove()
    args, kwargs = tree_map_only(torch.Tensor, torch.Tensor.detach, called[0])
    hidden = args[0] if args else kwargs["hidden_states"]
    hidden.requires_grad_()
    return passes(lambda: attention(*args, **kwargs)[0], list(attention.parameters()))


def frozen() -> torch.nn.Linear:
    """A linear layer that does not learn."""
    return torch.nn.Linear(WIDTH, WIDTH).requires_grad_(False)


def stored(storage: Storage) -> StoredLinear:
    """The same, kept in few bits."""
    return StoredLinear.of(frozen(), storage)


def main() -> None:
    """Measure, print, keep."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    lora = LoRA(rank=8, alpha=16.0)
    product = of_layer(lambda: lambda x: x * 1.5)
    launch = product["forward_us"]
    views = of_layer(lambda: lambda x: x.unsqueeze(0).transpose(0, 1).transpose(0, 1).squeeze(0))
    models = {name: of_model(name) for name in ("llama-1b", "qwen3-0.6b", "bert-base", "gpt2")}
    shares = {
        name: (one["backward_us"] / one["backward_launches"]) / (one["forward_us"] / one["forward_launches"])
        for name, one in models.items()
    }
    layers = {
        "attention of llama": of_attention("llama-1b", "model.layers.0.self_attn"),
        "attention of bert": of_attention("bert-base", "encoder.layer.0.attention.self"),
    }
    layers |= {
        "linear": of_layer(lambda: torch.nn.Linear(WIDTH, WIDTH)),
        "adapter": of_layer(lambda: AdaptedLinear(frozen(), lora)),
    }
    for name in ("nf4", "int8"):
        layers[f"adapter on {name}"] = of_layer(lambda kept=STORAGES[name]: AdaptedLinear(stored(kept), lora))
    beyond = {
        name: {way: one[f"{way}_us"] / product[f"{way}_us"] - one[f"{way}_launches"] for way in ("forward", "backward")}
        for name, one in layers.items()
    }
    summary = {
        "launch_us": launch,
        "backward_share": statistics.mean(shares.values()),
        "backward_shares": shares,
        "view_share": views["forward_us"] / 4 / launch,
        "launches_beyond": beyond,
    }
    body = {"benchmark": "host-seconds", "machine": machine(), "layers": layers, "models": models, **summary}
    (RESULTS / "host_seconds.json").write_text(json.dumps(body, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
