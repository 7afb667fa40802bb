"""The values that recipes are made of, and what is taken for them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool

Text = Annotated[
    str,
    Field(strict=True, min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$"),
]
"""One line with something in it: names and paths, which end up in messages and file names."""
Texts = Annotated[tuple[Text, ...], Field(min_length=1)]
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000_000)]
Rows = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Tokens = Annotated[int, Field(strict=True, ge=1, le=10_000_000)]
Layer = Annotated[int, Field(strict=True, ge=0, le=10_000)]
Share = Annotated[float, Field(strict=True, ge=0, lt=1)]
Switch = Literal["auto"] | StrictBool

LEAST_USD = 1e-6
"""The unit of the ledger, a millionth of a dollar."""


def as_list(value: object) -> object:
    """A text alone is a list of one."""
    return (value,) if isinstance(value, str) else value


def as_switch(value: object) -> object:
    """`on` and `off` are booleans to most readers of YAML, and the obvious words for a cut."""
    return {"on": True, "off": False}.get(value, value) if isinstance(value, str) else value


class Wish(BaseModel):
    """Base of all parts of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
