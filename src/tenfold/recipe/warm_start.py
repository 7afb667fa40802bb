"""What a recipe may say of the cut warm_start."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from tenfold.recipe.values import Count, Layer, Share, Text, Tokens, Wish, as_list


class WarmStartWish(Wish):
    """Settings of the cut warm_start."""

    tokens: Literal["auto"] | Count | Text | None = Field(
        default=None,
        description="Tokens to add: auto (as many as pay), a number, or a file: one word a line, or .json, a list of"
        " tokens; null is auto unless tokenizer or layers are named.",
        examples=["auto"],
    )
    tokenizer: Text | None = Field(
        default=None, description="Another whole vocabulary: a folder, or a Hugging Face id, with its tokenizer."
    )
    initialise: Literal["random", "mean", "subtokens", "compose", "focus", "transplant", "donor", "distil"] = Field(
        default="distil", description="What new rows start as; transplant and donor need a donor."
    )
    donor: Text | None = Field(
        default=None, description="A model that gives rows (transplant, donor) or blocks (take_layers)."
    )
    rows_first: Share = Field(
        default=0.0, description="Share of the steps in which what is new learns alone, at the beginning."
    )
    rows_learning_rate: float = Field(
        default=2e-3, strict=True, gt=0, le=10, description="Peak learning rate of new rows."
    )
    keep_layers: tuple[Layer, ...] = Field(default=(), description="Blocks to keep, counted from 0; none named is all.")
    take_layers: tuple[Layer, ...] = Field(default=(), description="Blocks of the donor to put behind them.")
    grow_layers: int = Field(
        default=0, strict=True, ge=0, le=1000, description="New blocks that change nothing at first."
    )
    intermediate_size: Tokens | None = Field(
        default=None, description="Width of the feed-forward parts: the strongest neurons are kept."
    )
    hidden_size: Tokens | None = Field(
        default=None, description="Channels of the stream: those with the largest weights are kept."
    )
    num_attention_heads: Tokens | None = Field(
        default=None, description="Attention heads, as wide as before: the strongest are kept, in whole groups."
    )
    old_text: Annotated[tuple[Text, ...], BeforeValidator(as_list, json_schema_input_type=Text | tuple[Text, ...])] = (
        Field(
            default=(),
            description="Files or data sets of the old domain, whose loss is measured before and after; without any, a"
            " language model is measured on what it writes itself.",
        )
    )

    @property
    def changes_layers(self) -> bool:
        """Whether anything but the vocabulary is to change."""
        layers = self.keep_layers or self.take_layers or self.grow_layers
        return bool(layers or self.intermediate_size or self.hidden_size or self.num_attention_heads)
