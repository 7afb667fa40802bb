"""Recipes as YAML, as a hash, and their schema for editors."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import yaml

from tenfold.recipe.aliases import NEEDLESS, aliases_in, home_of
from tenfold.recipe.canonical import SHORTHANDS
from tenfold.recipe.schema import Recipe

_WIDTH = 120


def recipe_to_yaml(recipe: Recipe) -> str:
    """All settings in canonical form; reading it back gives the same recipe."""
    return yaml.dump(recipe.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)


def recipe_sha256(recipe: Recipe) -> str:
    """SHA-256 of all settings as canonical JSON: sorted keys, no spaces."""
    return _sha256(recipe.model_dump(mode="json"))


def training_sha256(recipe: Recipe) -> str:
    """SHA-256 of the settings that decide the weights: a run may go on at another price, with another budget, output,
    way of being watched, or answer to a spike of its loss, which its receipt then names."""
    settings = recipe.model_dump(mode="json", exclude={"budget", "output"})
    settings["machine"] = settings["machine"]["name"]
    for name in ("keep_checkpoints", "log_every_steps", "on_loss_spike", "save_every_steps"):
        settings["train"].pop(name, None)
    return _sha256(settings)


def _sha256(settings: dict[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def recipe_json_schema() -> dict[str, Any]:
    """The JSON schema of recipes, with the aliases and shorthands that a file may use."""
    schema = Recipe.model_json_schema()
    for (section,), key in SHORTHANDS.items():
        full = schema["properties"][section]
        short = [{"type": "string"}, {"type": "array", "items": {"type": "string"}}][: 1 if section == "model" else 2]
        kept = {name: full.pop(name) for name in ("description", "default") if name in full}
        schema["properties"][section] = {**kept, "anyOf": [full, *short], "title": f"{section} ({key})"}
    cuts = schema["properties"]["cuts"]
    kept = {name: cuts.pop(name) for name in ("description", "default") if name in cuts}
    schema["properties"]["cuts"] = {**kept, "anyOf": [cuts, {"const": "auto"}]}
    for alias in aliases_in(""):
        schema["properties"].setdefault(alias, {"description": f"The same as {home_of(alias)}."})
    for alias, needless in NEEDLESS.items():
        schema["properties"].setdefault(alias, {"description": f"Not needed: {needless.advice}."})
    # model and data may also be given by an alias.
    schema["required"] = ["task"]
    return schema


class _Dumper(yaml.SafeDumper):
    """Quotes every text that could be taken for something else, here or in YAML 1.1."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    from tenfold.recipe.yaml_lines import plain_scalar

    safe = text.isascii() and text.isprintable() and isinstance(plain_scalar(text), str)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if safe else '"')


_Dumper.add_representer(str, _represent_text)
