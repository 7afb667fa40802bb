"""tenfold's own row: a rig built from a list of cuts, then the timed loop of every other system.

    python bench/gpu/ours.py --model DIR --setting fp8 --micro-tokens 16384 --out FILE.json \
        --cuts '[{"cut": "fine_tune"}, {"cut": "lora", "rank": 16, "alpha": 32}, {"cut": "fuse"}]'

Cuts are applied in the product's order, whatever their order here. `cuts.json` holds those of each setting.
"""

from __future__ import annotations

import argparse
import json
import time
from array import array
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from program import LEARNING_RATE, arguments_of, go_offline, run

CUTS_FILE = Path(__file__).with_name("cuts.json")


def build(arguments: argparse.Namespace, folder: Path) -> Any:
    """The rig, with its cuts, and the product's optimizer, or a plain fused AdamW over weights as they are."""
    import torch
    from protocol import System
    from rows import Row

    from tenfold.cuts import CUTS, cut_from_dict, on_rig
    from tenfold.data.tokenize import Sample
    from tenfold.recipe import TrainWish
    from tenfold.rig.model import build_rig
    from tenfold.rig.precision import default_dtype
    from tenfold.rig.rig import Source
    from tenfold.run.optimizer import make_optimizer

    given = json.loads(arguments.cuts) if arguments.cuts else json.loads(CUTS_FILE.read_text())[arguments.setting]
    kinds = [kind.name for kind in CUTS]
    cuts = sorted((cut_from_dict(_sized(item, arguments)) for item in given), key=lambda cut: kinds.index(cut.name))
    micro_rows = max(1, arguments.micro_tokens // arguments.length)
    source = Source(str(folder))
    device = torch.device(arguments.device)
    skeleton = build_rig(
        source, "text", device=device, micro_batch_rows=micro_rows, pad_id=0, dtype=default_dtype(device)
    )
    rig = on_rig(cuts, skeleton)
    rig.model.train()
    learns = dict(rig.trainable)
    if arguments.bf16_weights:
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(learns.values(), fused=True)
    else:
        optimizer = make_optimizer(rig, TrainWish(optimizer=arguments.optimizer))
    for group in optimizer.param_groups:
        group["lr"] = LEARNING_RATE
    whole = getattr(rig, "backward", None)
    cuda = arguments.device != "cpu"

    def prepare(rows: Sequence[Row]) -> list[Any]:
        samples = [
            Sample(array("q", row.input_ids), bytes(label != -100 for label in row.labels), None, "bench", number)
            for number, row in enumerate(rows)
        ]
        return [batch.to(rig.device) for batch in rig.layout(samples)]

    def backward(batches: list[Any]) -> torch.Tensor:
        loss_tokens = sum(batch.loss_count for batch in batches)
        total = torch.zeros((), device=rig.device)
        for batch in batches:
            if whole is not None:
                total += whole(batch, loss_tokens)
                continue
            with torch.autocast("cuda", torch.bfloat16) if cuda else nullcontext():
                loss = rig.loss(rig.model, batch)
            (loss / loss_tokens).backward()
            total += loss.detach()
        return total / loss_tokens

    loop = "rig.backward" if whole is not None else "rig.loss, then backward"
    return System(
        name="tenfold",
        parameters=learns,
        optimizer=optimizer,
        prepare=prepare,
        backward=backward,
        precision=next((name for name in ("fp8", "nf4") if arguments.setting.startswith(name)), "bf16"),
        facts=[
            *rig.facts,
            f"{loop}, micro-batches of at most {arguments.micro_tokens} tokens",
            f"cuts: {json.dumps([cut.to_dict() for cut in cuts], default=str)}",
            "optimizer: " + ("adamw, all in bf16" if arguments.bf16_weights else arguments.optimizer),
        ],
    )


def _sized(cut: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """A pack cut without a size of its own packs up to a micro-batch."""
    return {"tokens": arguments.micro_tokens, **cut} if cut["cut"] == "pack" else cut


def main() -> None:
    """Measure one row."""
    go_offline()
    arguments = arguments_of(
        __doc__,
        cuts={"default": "", "help": "JSON list of cuts; without it those of the setting in cuts.json"},
        micro_tokens={"type": int, "default": 16384},
        optimizer={"default": "adamw", "help": "as in a recipe"},
        bf16_weights={"action": "store_true", "help": "what learns stays as it is, without float32 masters"},
    )
    started = time.perf_counter()
    import tenfold.cuts
    import tenfold.rig.model  # noqa: F401

    run(arguments, build, time.perf_counter() - started)


if __name__ == "__main__":
    main()
