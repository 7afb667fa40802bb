"""How many fewer tokens documents have that nobody chose by, beside what is foretold: no training, a minute in all.

    python bench/vocabulary_saving.py [--seeds 0 1 2]

The texts are those of bench/warm_start.py. "dealt" is the control: the same forecast with the rows of each document
dealt out, so that every stretch that is left out has seen the documents it is judged by.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from measure import interval, write_result
from tenfold.data import read_tokenizer
from tenfold.shape import read_shape
from tenfold.vocabulary import choose_tokens, extend, share_on_new_text
from tenfold.vocabulary.choose import STRETCHES
from warm_start import CLASSICS, packaged_model, prepare_sections, prepare_texts


def texts_of(path: str) -> list[str]:
    """The texts of a file of JSON lines."""
    return [json.loads(line)["text"] for line in Path(path).read_text().splitlines()]


def row_of(part: str, seed: int, work: Path) -> dict[str, Any]:
    """Shares of tokens saved, foretold and measured, special tokens counted in the latter."""
    model = str(CLASSICS if part == "classics" else packaged_model())
    data = (prepare_texts if part == "classics" else prepare_sections)(seed, work)
    train, held_out = texts_of(data["train"]), texts_of(data["eval"])
    tokenizer = read_tokenizer(model)
    tokens = choose_tokens(train, tokenizer, read_shape(model)).tokens
    dealt = [text for start in range(STRETCHES) for text in train[start::STRETCHES]]
    foretold, control = (share_on_new_text(texts, tokenizer, len(tokens)) for texts in (train, dealt))
    shorter, longer = (
        sum(len(one.encode(text, True)) for text in held_out) for one in (extend(tokenizer, tokens), tokenizer)
    )
    assert foretold is not None
    assert control is not None
    return {
        "part": part,
        "seed": seed,
        "new_tokens": len(tokens),
        "foretold": 1 - foretold,
        "dealt": 1 - control,
        "measured": 1 - shorter / longer,
    }


def main() -> None:
    """All rows, and how far the forecast is off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rows = [row_of(part, seed, Path(temporary)) for part in ("classics", "minilm") for seed in arguments.seeds]
    summary = {
        f"{part}: {name}": interval([row[name] for row in rows if row["part"] == part])
        for part in ("classics", "minilm")
        for name in ("measured", "foretold", "dealt")
    }
    print(json.dumps(rows, indent=1))
    print(write_result("vocabulary_saving", {"stretches": STRETCHES}, rows, summary))


if __name__ == "__main__":
    main()
