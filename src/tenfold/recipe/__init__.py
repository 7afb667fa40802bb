"""What is wanted: strict wishes, read from YAML with the line of every mistake."""

from tenfold.recipe.load import load_recipe, parse_recipe, recipe_from_dict
from tenfold.recipe.machines import ElectricityWish, MachineWish, Tier
from tenfold.recipe.schema import (
    Budget,
    CheckpointWish,
    Columns,
    Cuts,
    DataWish,
    FuseWish,
    LoraWish,
    Metric,
    ModelWish,
    Output,
    PackWish,
    QualityWish,
    Recipe,
    Task,
    Tracker,
    TrainWish,
    WarmStartWish,
)
from tenfold.recipe.write import recipe_json_schema, recipe_sha256, recipe_to_yaml, training_sha256

__all__ = [
    "Budget",
    "CheckpointWish",
    "Columns",
    "Cuts",
    "DataWish",
    "ElectricityWish",
    "FuseWish",
    "LoraWish",
    "MachineWish",
    "Metric",
    "ModelWish",
    "Output",
    "PackWish",
    "QualityWish",
    "Recipe",
    "Task",
    "Tier",
    "Tracker",
    "TrainWish",
    "WarmStartWish",
    "load_recipe",
    "parse_recipe",
    "recipe_from_dict",
    "recipe_json_schema",
    "recipe_sha256",
    "recipe_to_yaml",
    "training_sha256",
]
