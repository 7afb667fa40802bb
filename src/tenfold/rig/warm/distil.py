"""New rows fitted so that the model, unchanged, does with a new token what it did with the tokens before.

Both sides of a row are fitted to a teacher, which is the model itself reading the same text in its old vocabulary. The
input row: after the first blocks the state at a new token is to be the state that stood at the last of its old tokens
(arXiv 2505.20133 matches the last block's; the first ones see a token's own meaning, and cost a fraction). The output row:
in the states of the teacher it is to win where the text goes on with its token, and nowhere else; what the old tokens
win there is one number a position, so that a row is learned at the price of a row. Tied rows are fitted to both at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from tenfold.rig.warm.means import subtoken_rows
from tenfold.rig.warm.request import Request, Rows

BLOCKS = 2
"""After which states are compared."""

WINDOW = 64
"""New tokens that are read at once, without what stood before them."""

WINDOWS_AT_ONCE = 32

OCCURRENCES = 8
"""Of each token that are looked for; then windows that hold only such tokens are left out."""

EPOCHS = 4
RATE = 5e-3
"""Of Adam, falling to 0."""


@dataclass(frozen=True)
class Window:
    """A stretch of text in both vocabularies."""

    old: list[int]
    new: list[int]
    ends: list[int]
    """For each new token the place of the old token that ends with it; -1 where none does."""


def distilled_rows(request: Request) -> Rows:
    """To be."""
    return subtoken_rows(request)
