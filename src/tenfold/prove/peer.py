"""The peer baseline: TRL's SFTTrainer with PEFT's LoraConfig, both at their defaults.

Run as `python -m tenfold.prove.peer request.json result.json`. The defaults are the library's of the day: in TRL 1.16
bf16 autocast, gradient checkpointing, a learning rate of 2e-5, batches of 8, weights loaded in float32; in PEFT 0.21
rank 8, alpha 8, no dropout, and on Llama-like models q_proj and v_proj alone.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tenfold.prove.exchange import BaselineRequest, BaselineResult, Row, read_rows
from tenfold.prove.settings import NOTES, changed_settings


def run(request: BaselineRequest, folder: Path) -> BaselineResult:
    """Load, train, evaluate. The library writes to `folder` if it writes."""
    started = time.perf_counter()
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportPrivateImportUsage]  # documented like this

    from tenfold.prove.measure import Library, Session

    session = Session(request, started)
    settings = changed_settings(request, torch.cuda.is_available())
    notes = [NOTES[name] for name in settings]
    if request.revision is not None:
        settings["model_init_kwargs"] = {"revision": request.revision}
        notes.append("model_init_kwargs: the recipe's revision of the model.")
    rows = read_rows(request.train_rows)
    config = SFTConfig(output_dir=str(folder), **settings)
    trainer = SFTTrainer(
        model=request.model,
        args=config,
        train_dataset=Dataset.from_dict(
            {"input_ids": [row.input_ids for row in rows], "labels": [row.token_labels() for row in rows]}
        ),
        peft_config=LoraConfig(),
    )
    notes += truncation_note(rows, config.max_length)
    packages = ("torch", "transformers", "accelerate", "trl", "peft")
    return session.measure(trainer, Library("trl.SFTTrainer", packages, settings, tuple(notes)))


def truncation_note(rows: list[Row], max_length: int | None) -> list[str]:
    """What TRL's own limit takes away from the rows, if anything."""
    longer = [len(row.input_ids) for row in rows if max_length is not None and len(row.input_ids) > max_length]
    if not longer or max_length is None:
        return []
    lost = sum(longer) - max_length * len(longer)
    return [f"max_length: TRL's default of {max_length} truncates {len(longer)} rows by {lost} tokens in all."]


def main(request_path: Path, result_path: Path) -> None:
    """Read the request, run it, write the result."""
    request = BaselineRequest.model_validate_json(request_path.read_text(encoding="utf-8"))
    result = run(request, result_path.parent / "trainer")
    result_path.write_text(result.model_dump_json(indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
