"""Files to rows to samples of token ids, every row accounted for. Imports no torch."""

from tenfold.data.account import DataAccount, RejectedRows, Rejection
from tenfold.data.dataset import Dataset, check_vocabulary, first_examples, load_dataset, training_texts
from tenfold.data.lines import Row
from tenfold.data.preview import preview
from tenfold.data.tokenize import Sample, learns_to_stop
from tenfold.data.tokenizer import Tokenizer, read_tokenizer

__all__ = [
    "DataAccount",
    "Dataset",
    "RejectedRows",
    "Rejection",
    "Row",
    "Sample",
    "Tokenizer",
    "check_vocabulary",
    "first_examples",
    "learns_to_stop",
    "load_dataset",
    "preview",
    "read_tokenizer",
    "training_texts",
]
