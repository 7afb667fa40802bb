"""A model on paper: sizes from config.json and safetensors headers, without torch and without reading a weight."""

from tenfold.shape.families import LinearShape
from tenfold.shape.read import read_shape
from tenfold.shape.shape import Shape, Stored, shape_from_config

__all__ = ["LinearShape", "Shape", "Stored", "read_shape", "shape_from_config"]
