"""Mutated recipes, and what must be true of whatever comes of them."""

# ruff: noqa: E501 (tables of what is put in)

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from typing import Any

import yaml

from tenfold.errors import InputError
from tenfold.recipe import Recipe, parse_recipe
from tenfold.recipe.yaml_lines import decode

SEEDS = (
    "model: tiny\ntask: classify\ndata: {train: rows.jsonl, eval_fraction: 0.1, max_length: 64}\n"
    "quality: {metric: accuracy, at_least: 0.9}\nbudget: {usd: 5, hours: 2}\n"
    "train: {epochs: 3, batch_size: 32, micro_batch_size: 8, learning_rate: 2.0e-4, warmup: 0.03, seed: 1}\n",
    "model: {name: tiny, revision: main}\ntask: sft\ndata:\n  train: [a.jsonl, b.jsonl]\n  eval: c.jsonl\n"
    "  columns: {prompt: q, completion: a}\nmachine: {name: [T4, L4], usd_per_hour: 1.2, tier: spot}\n"
    "cuts:\n  lora: {rank: 8, alpha: 16, dropout: 0.1, targets: [q_proj, v_proj]}\n  quantize: nf4\n"
    "  pack: {tokens: 4096}\n  fuse: {loss_rows: 2048}\ntrain: {max_steps: 100, weight_decay: 0.1, beta2: 0.95}\n",
    "base_model: tiny\ntask: text\ndatasets: x.jsonl\nnum_epochs: 2\nlora_r: 16\nlearning_rate: 1.0e-4\nsample_packing: on\n"
    "output: {folder: runs/x, tags: [a, b], trackers: [tensorboard]}\nval_set_size: 0.05\n"
    "train: {eval_every_steps: 10, save_every_steps: 5, keep_checkpoints: 2, epsilon: 1.0e-8, max_grad_norm: 1.0}\n",
)

TOKENS = (
    ":", "\n", "  ", "- ", "[", "]", "{", "}", "'", '"', "&a", "*a", "!!python/name:os.system ", "\t", "#", "null", "true",
    "-1", "1e400", ".nan", ".inf", "\x00", "\x1b[2J", "\u202e", "\ufeff", "é", "9" * 60, "? ", "|", ">", "%", "@", "<<: ",
    "---", "...", "0x10", "0o7", "12:30", "1_000", "no", "~",
)  # fmt: skip

VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2.5, -1e-9, 1e-320, 1e30, 10**30, math.nan, math.inf, -math.inf, "", " ", "nan", "1e-5", "3",
    "x" * 2000, "a\nb", "\x1b[31m", "\u202egpj", "../../etc/passwd", "$(touch x)", "~root/x", [], {}, [1], ["a", None],
    {"a": 1}, [[[[1]]]], 2**32, 2**64, "auto", "on", "off",
)  # fmt: skip
FACTORS = (-1, 0, 0.5, 1.0, 2, 3, 10, 1e-3, 1e3, 1e9, 1e-12)

TIMES = (1, 1, 1, 2, 3)
"""Mutations of one recipe or file: one alone is the likeliest to get past the first check."""


def _between(low: float, high: float, low_in: bool = True, high_in: bool = True) -> Callable[[Any], bool]:
    def holds(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return (low <= value if low_in else low < value) and (value <= high if high_in else value < high)

    return holds


RANGES: dict[str, Callable[[Any], bool]] = {
    "train.epochs": _between(0, 1e4, low_in=False),
    "train.max_steps": _between(1, 1e9),
    "train.batch_size": _between(1, 1e6),
    "train.micro_batch_size": _between(1, 1e6),
    "train.learning_rate": _between(0, 10, low_in=False),
    "train.warmup": _between(0, 1e9),
    "train.weight_decay": _between(0, 10),
    "train.beta1": _between(0, 1, high_in=False),
    "train.beta2": _between(0, 1, high_in=False),
    "train.epsilon": _between(0, 1, low_in=False),
    "train.max_grad_norm": _between(0, 1e6, low_in=False),
    "train.dropout": _between(0, 1, high_in=False),
    "train.seed": _between(0, 2**32 - 1),
    "train.eval_every_steps": _between(1, 1e9),
    "train.save_every_steps": _between(1, 1e9),
    "train.log_every_steps": _between(1, 1e9),
    "train.keep_checkpoints": _between(1, 1000),
    "budget.usd": _between(1e-6, 1e9),
    "budget.hours": _between(0, 87_600, low_in=False),
    "quality.at_least": _between(0, 1),
    "quality.at_most": _between(0, 1e9, low_in=False),
    "machine.usd_per_hour": _between(1e-6, 1e6),
    "data.max_length": _between(1, 1e7),
    "data.max_rows": _between(1, 1e9),
    "data.eval_fraction": _between(0, 1, high_in=False),
    "cuts.lora.rank": _between(1, 4096),
    "cuts.lora.alpha": _between(0, 1e6, low_in=False),
    "cuts.lora.dropout": _between(0, 1, high_in=False),
    "cuts.pack.tokens": _between(1, 1e7),
    "cuts.fuse.loss_rows": _between(1, 1e6),
}
"""What a run can do anything with, written down apart from the schema that is being tried."""


def mutate(draw: random.Random) -> tuple[str, bytes]:
    """The level of a mutation, and a recipe's bytes after one to three of its kind."""
    level = draw.choice(("byte", "token", "key", "value", "structure"))
    text = draw.choice(SEEDS)
    if level == "byte":
        return level, mutated_bytes(text.encode(), draw)
    if level == "token":
        for _ in range(draw.choice(TIMES)):
            at, to = sorted(draw.randrange(len(text) + 1) for _ in range(2))
            text = text[:at] + draw.choice(TOKENS) + text[draw.choice([at, at, min(to, at + 9)]) :]
        return level, text.encode("utf-8", "surrogatepass")
    tree = yaml.safe_load(text)
    for _ in range(draw.choice(TIMES)):
        tree = {"key": _other_key, "value": _other_value, "structure": _other_structure}[level](tree, draw)
    dumped = yaml.safe_dump(tree, allow_unicode=draw.random() < 0.5, sort_keys=False)
    if level == "key" and draw.random() < 0.2:
        dumped += draw.choice(dumped.splitlines() or [""]) + "\n"  # a key twice
    return level, dumped.encode("utf-8", "surrogatepass")


def mutated_bytes(content: bytes, draw: random.Random) -> bytes:
    """One to three bytes flipped, put in, taken out, doubled or cut off."""
    data = bytearray(content)
    for _ in range(draw.choice(TIMES)):
        at = draw.randrange(len(data) + 1)
        match draw.choice(("flip", "insert", "delete", "double", "cut")):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw.randrange(8)
            case "insert":
                data[at:at] = draw.randbytes(draw.randint(1, 4))
            case "delete":
                del data[at : at + draw.randint(1, 8)]
            case "double":
                data[at:at] = data[max(0, at - draw.randint(1, 40)) : at]
            case _:
                if draw.random() < 0.2:
                    del data[at:]
    return bytes(data)


def check(content: bytes) -> tuple[str, str]:
    """What became of a recipe: read or refused; or else what is wrong with that, and the details."""
    try:
        recipe = parse_recipe(decode(content, "recipe.yaml"), "recipe.yaml")
    except InputError as error:
        lines = str(error).splitlines()
        if not lines or not all(line.strip() and line.isprintable() and len(line) < 2000 for line in lines):
            return "bad_message", repr(str(error))[:300]
        if not all(line.startswith(("recipe.yaml", "and ")) for line in lines):
            return "message_without_place", repr(lines[0])[:300]
        return "refused", ""
    except Exception as error:
        return "traceback", repr(error)[:300]
    found = out_of_range(recipe)
    return ("accepted_out_of_range", found) if found else ("read", "")


def out_of_range(recipe: Recipe) -> str:
    """The first value that no run could do anything with; empty if there is none."""
    values = recipe.model_dump()
    for path, holds in RANGES.items():
        value: Any = values
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None and not holds(value):
            return f"{path}: {value!r}"
    return ""


def _places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [found for key, value in items for found in ((*path, key), *_places(value, (*path, key)))]


def _parent(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        tree = tree[key]
    return tree


def _other_value(tree: Any, draw: random.Random) -> Any:
    tree = copy.deepcopy(tree)
    if places := _places(tree):
        path = draw.choice(places)
        section, value = _parent(tree, path), draw.choice(VALUES)
        before = section[path[-1]]
        if isinstance(before, int | float) and not isinstance(before, bool) and draw.random() < 0.7:
            value = before * draw.choice(FACTORS)  # near its range, inside and out
        section[path[-1]] = copy.deepcopy(value)
    return tree


def _other_key(tree: Any, draw: random.Random) -> Any:
    tree = copy.deepcopy(tree)
    named = [path for path in _places(tree) if isinstance(path[-1], str) and path[-1]]
    if not named:
        return tree
    path = draw.choice(named)
    section, key = _parent(tree, path), path[-1]
    value = section.pop(key)
    at = draw.randrange(len(key))
    other = draw.choice(
        (key[:at] + key[at + 1 :], key[::-1], key.upper(), key + "x", draw.choice(named)[-1], "", f" {key}")
    )
    section[other] = value
    return tree


def _other_structure(tree: Any, draw: random.Random) -> Any:
    tree = copy.deepcopy(tree)
    places = _places(tree)
    if not places:
        return tree
    path = draw.choice(places)
    section, key = _parent(tree, path), path[-1]
    match draw.choice(("wrap", "list", "move", "deep", "many", "drop")):
        case "wrap":
            section[key] = {draw.choice(("train", "x", "lora")): section[key]}
        case "list":
            section[key] = [section[key]] * draw.randint(0, 3)
        case "move":
            target = _parent(tree, draw.choice(places))
            if isinstance(target, dict):
                target[str(key)] = copy.deepcopy(section[key])
        case "deep":
            for _ in range(draw.choice((3, 40))):
                section[key] = [section[key]]
        case "many":
            section[key] = {f"k{number}": section[key] for number in range(draw.choice((3, 300)))}
        case _:
            del section[key]
    return tree
