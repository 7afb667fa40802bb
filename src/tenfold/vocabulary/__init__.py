"""Vocabularies on paper: what a text would be shorter with, and what two vocabularies have in common. No torch."""

from tenfold.vocabulary.choose import Choice, break_even, choose_tokens, share_on_new_text
from tenfold.vocabulary.extend import Extension, extend, kind_of, spelled
from tenfold.vocabulary.splits import check_splits
from tenfold.vocabulary.transfer import Transfer, shared_ids, transfer

__all__ = [
    "Choice",
    "Extension",
    "Transfer",
    "break_even",
    "check_splits",
    "choose_tokens",
    "extend",
    "kind_of",
    "share_on_new_text",
    "shared_ids",
    "spelled",
    "transfer",
]
