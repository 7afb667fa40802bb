"""The naive baseline: transformers.Trainer, a full fine-tune at its documented defaults, for the recipe's epochs.

Run as `python -m tenfold.prove.naive request.json result.json`, so that nothing of tenfold's run is in its memory.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path

from tenfold.prove.exchange import BaselineRequest, BaselineResult, read_rows
from tenfold.prove.settings import NOTES, changed_settings


def run(request: BaselineRequest, folder: Path) -> BaselineResult:
    """Load, train, evaluate. The library writes to `folder` if it writes."""
    started = time.perf_counter()
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    from tenfold.prove.measure import Library, Session, collate

    session = Session(request, started)
    set_seed(request.seed)  # as Trainer does, but before the new head is drawn
    revision = request.revision or "main"
    if request.task == "classify":
        model = AutoModelForSequenceClassification.from_pretrained(
            request.model, revision=revision, num_labels=request.labels, trust_remote_code=False
        )
        if model.config.pad_token_id is None:  # decoders find the last token of a row by it
            model.config.pad_token_id = request.pad_id
    else:
        model = AutoModelForCausalLM.from_pretrained(request.model, revision=revision, trust_remote_code=False)
    settings = changed_settings(request, torch.cuda.is_available())
    trainer = Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(folder), **settings),
        data_collator=partial(collate, pad_id=request.pad_id),
        train_dataset=read_rows(request.train_rows),  # type: ignore[arg-type]  # a list is a map-style data set
    )
    notes = tuple(NOTES[name] for name in settings)
    library = Library("transformers.Trainer", ("torch", "transformers", "accelerate"), settings, notes)
    return session.measure(trainer, library)


def main(request_path: Path, result_path: Path) -> None:
    """Read the request, run it, write the result."""
    request = BaselineRequest.model_validate_json(request_path.read_text(encoding="utf-8"))
    result = run(request, result_path.parent / "trainer")
    result_path.write_text(result.model_dump_json(indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
