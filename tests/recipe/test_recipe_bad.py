"""Every mistake in a recipe is one line: where, which key, what was found, what to write instead."""

# ruff: noqa: E501 (a case of a table is one line)

from __future__ import annotations

import random
import time
import tracemalloc
from pathlib import Path

import pytest

from tenfold.errors import InputError
from tenfold.recipe import load_recipe, parse_recipe, recipe_from_dict, recipe_to_yaml

HEAD = "model: tiny\ntask: classify\ndata: rows.jsonl\n"
"""Three lines that are right; what is tried stands on line 4."""

BAD = [
    # unknown keys
    ("trian: {}", "recipe.yaml:4: trian: unknown key; did you mean train?"),
    ("train: {epoch: 3}", "recipe.yaml:4: train.epoch: unknown key; did you mean train.epochs?"),
    ("Learning-Rate: 1e-4", "recipe.yaml:4: Learning-Rate: unknown key; did you mean train.learning_rate?"),
    ("rank: 8", "recipe.yaml:4: rank: unknown key; did you mean cuts.lora.rank?"),
    ("r: 8", "recipe.yaml:4: r: unknown key; did you mean cuts.lora.rank?"),
    ("lora_rr: 8", "recipe.yaml:4: lora_rr: unknown key; did you mean lora_r?"),
    ("budget: {lora_r: 8}", "recipe.yaml:4: budget.lora_r: unknown key; did you mean cuts.lora.rank?"),
    ("train: {seed: 1, xyzzy: 2}", "recipe.yaml:4: train.xyzzy: unknown key; expected epochs, max_steps, batch_size"),
    ("<<: {a: 1}", "recipe.yaml:4: <<: unknown key; expected model, task, data"),
    # wrong kinds and ranges
    (
        "train:\n  learning_rate: abc",
        "recipe.yaml:5: train.learning_rate: found 'abc' (text), expected a number greater than 0 and at most 10 or null, e.g. 2e-4",
    ),
    ("train: {learning_rate: '2e-4'}", "recipe.yaml:4: train.learning_rate: found '2e-4' (text), expected a number"),
    ("learning_rate: 11", "recipe.yaml:4: learning_rate (train.learning_rate): found 11 (number), expected a number greater"),
    ("train: {learning_rate: 0}", "train.learning_rate: found 0 (number), expected a number greater than 0"),
    ("train: {learning_rate: -1e-4}", "train.learning_rate: found -0.0001 (number), expected a number greater than 0"),
    ("train: {epochs: .nan}", "train.epochs: found nan (not a finite number), expected a number greater than 0"),
    ("train: {epochs: .inf}", "train.epochs: found inf (not a finite number), expected a number greater than 0"),
    ("train: {epochs: nan}", "train.epochs: found 'nan' (text), expected a number greater than 0"),
    ("train: {epochs: 1e999}", "train.epochs: found inf (not a finite number), expected a number greater than 0"),
    ("train: {epochs: 1e30}", "train.epochs: found 1e+30 (number), expected a number greater than 0 and at most 10000"),
    ("train: {epochs: 0123}", "train.epochs: found '0123' (text), expected a number"),
    ("train: {epochs: 12:30}", "train.epochs: found '12:30' (text), expected a number"),
    ("train: {seed: true}", "train.seed: found true (true or false), expected a whole number of at least 0"),
    ("train: {batch_size: 8.0}", "train.batch_size: found 8.0 (number), expected a whole number of at least 1"),
    ("train: {batch_size: 0}", "train.batch_size: found 0 (number), expected a whole number of at least 1"),
    ("train: {batch_size: 1" + "0" * 50 + "}", "train.batch_size: found '1000"),
    ("train: {shuffle: no}", "train.shuffle: found 'no' (text), expected true or false"),
    ("train: {shuffle: 1}", "train.shuffle: found 1 (number), expected true or false"),
    ("train: {schedule: cosin}", "train.schedule: found 'cosin' (text), expected linear, cosine or constant"),
    ("train: {on_loss_spike: rollback}", "train.on_loss_spike: found 'rollback' (text), expected record, stop or skip"),
    ("loss_watchdog_threshold: 5.0", "found 5.0 (number); a loss is held against those before it; write train.on_loss_sp"),
    ("train: {beta2: 1}", "train.beta2: found 1 (number), expected a number of at least 0 and below 1"),
    ("train: {dtype: float16}", "train.dtype: found 'float16' (text), expected auto, float32 or bfloat16"),
    ("train: 5", "recipe.yaml:4: train: found 5 (number), expected a section with keys such as epochs, max_steps"),
    ("train: [1, 2]", "recipe.yaml:4: train: found a list, expected a section with keys such as epochs"),
    ("budget: {usd: -1}", "budget.usd: found -1 (number), expected a number of at least 1e-06"),
    ("budget: {hours: five}", "budget.hours: found 'five' (text), expected a number greater than 0"),
    ("budget: {usd: 1e-310}", "budget.usd: found 1e-310 (number), expected a number of at least 1e-06"),
    ("machine: {usd_per_hour: 0}", "machine.usd_per_hour: found 0 (number), expected a number of at least 1e-06"),
    ("machine: {usd_per_hour: 1e-310}", "machine.usd_per_hour: found 1e-310 (number), expected a number of at least 1e-06"),
    ("machine: []", "recipe.yaml:4: machine (machine.name): found an empty list, expected a text"),
    ("machine: {tier: reserved}", "machine.tier: found 'reserved' (text), expected on_demand, spot, community or owned"),
    ("output: {tags: one}", "output.tags: found 'one' (text), expected a list of texts"),
    ("output: {tags: [a, 5]}", "recipe.yaml:4: output.tags[1]: found 5 (number), expected a text"),
    ("output:\n  trackers:\n  - wandb\n  - excel", "recipe.yaml:7: output.trackers[1]: found 'excel' (text), expected tensorboard"),
    ("output: {folder: ''}", "output.folder: found '' (text), expected a text"),
    ('output: {folder: "a\\nb"}', "output.folder: found 'a b' (text with odd characters), expected a text of one line"),
    (f"output: {{folder: {'x' * 4096}}}", "expected a text of one line and at most 1024 characters"),
    ("cuts: maybe", "recipe.yaml:4: cuts: found 'maybe' (text), expected a section with keys such as fine_tune, warm_start, lora"),
    ("cuts: {fuse: yes}", "cuts.fuse: found 'yes' (text), expected auto, true, false or its settings (loss_rows, compile)"),
    ("cuts: {checkpoint: {mlp_tiles: 1}}", "cuts.checkpoint.mlp_tiles: found 1 (number), expected a whole number of at least 2"),
    ("cuts: {checkpoint: some}", "cuts.checkpoint: found 'some' (text), expected auto, true, false, off, selective, full"),
    ("cuts: {lora: {rank: 0}}", "recipe.yaml:4: cuts.lora.rank: found 0 (number), expected a whole number of at least 1"),
    ("cuts: {lora: {targets: [1]}}", "cuts.lora.targets[0]: found 1 (number), expected a text"),
    ("quality: high", "recipe.yaml:4: quality: found 'high' (text), expected its settings (metric, at_least, at_most) or null"),
    ("quality: {at_least: 0.9}", "recipe.yaml:4: quality.metric: is missing, expected loss, perplexity, accuracy or macro_f1"),
    ("quality: {metric: accuracy, at_least: 90}", "quality.at_least: found 90 (number), expected a number of at least 0"),
    # aliases
    ("lora_r: 8\ncuts: {lora: {rank: 4}}", "recipe.yaml:5: cuts.lora.rank: is also set by lora_r on line 4; keep one"),
    ("num_epochs: 2\nnum_train_epochs: 2", "recipe.yaml:5: num_train_epochs (train.epochs): is also set by num_epochs on line 4"),
    ("base_model: other", "recipe.yaml:4: base_model (model.name): is also set by model on line 1; keep one"),
    ("adapter: dora", "recipe.yaml:4: adapter: found 'dora' (text), expected lora, qlora or none"),
    ("adapter: none\nlora_r: 8", "adapter (cuts.lora): found false (true or false), but lora_r on line 5 sets its settings"),
    ("load_in_4bit: 4", "recipe.yaml:4: load_in_4bit: found 4 (number), expected true or false"),
    ("load_in_4bit: true\nload_in_8bit: true", "recipe.yaml:5: load_in_8bit (cuts.quantize.storage): is also set by load_in_4bit on line 4"),
    ("bnb_4bit_quant_type: fp4", "recipe.yaml:4: bnb_4bit_quant_type: found 'fp4' (text); tenfold has no other 4-bit format than nf4"),
    ("cuts: {quantize: nf5}", "cuts.quantize: found 'nf5' (text), expected auto, true, false, off, nf4, int8, fp8 or its settings (storage, compute, keep)"),
    ("cuts: {quantize: {storage: fp4}}", "cuts.quantize.storage: found 'fp4' (text), expected nf4, int8, fp8 or auto"),
    ("cuts: {quantize: nf4, lora: false}", "recipe.yaml:4: cuts.quantize: quantized weights are frozen, so that only adapters can learn"),
    ("adapter: none\nload_in_8bit: true", "quantized weights are frozen, so that only adapters can learn; write cuts.lora: true"),
    ("optim: sgd", "recipe.yaml:4: optim: found 'sgd' (text), expected adamw, adamw_torch"),
    ("optimizer: paged_adamw_8bit", "found 'paged_adamw_8bit' (text); tenfold does not page an optimizer to the host, write adamw_8bit"),
    ("optim: adamw_torch\noptimizer: adamw_torch", "recipe.yaml:5: optimizer (train.optimizer): is also set by optim on line 4; keep one"),
    ("train: {optimizer: adam}", "train.optimizer: found 'adam' (text), expected adamw, adamw_8bit, adamw_8bit_split or auto"),
    ("optimizer: flash_adamw\nadapter: lora", "recipe.yaml:4: optimizer (train.optimizer): found adamw_8bit_split, which splits weights that all learn; write"),
    ("train: {optimizer: adamw_8bit_split, dtype: float32}", "train.optimizer: found adamw_8bit_split, whose weights are bfloat16; write adamw_8bit, or"),
    ("gradient_accumulation_steps: 4", "recipe.yaml:4: gradient_accumulation_steps: needs micro_batch_size beside it"),
    (
        "micro_batch_size: 2\ngradient_accumulation_steps: 4\ntrain: {batch_size: 32}",
        "recipe.yaml:5: gradient_accumulation_steps: train.batch_size is 2 rows x 4 steps, but train.batch_size on line 6 says 32",
    ),
    ("micro_batch_size: 2\ngradient_accumulation_steps: two", "gradient_accumulation_steps: found 'two' (text), expected a whole"),
    ("warmup_ratio: 100", "recipe.yaml:4: warmup_ratio: found 100 (number), expected a number of at least 0 and below 1"),
    ("test_datasets: [{type: alpaca, path: x.jsonl}]", "recipe.yaml:4: test_datasets: found type 'alpaca' (text); remove it"),
    ("gradient_checkpointing: offload", "gradient_checkpointing: found 'offload' (text), expected true or false"),
    # contradictions
    ("train:\n  epochs: 3\n  max_steps: 9", "recipe.yaml:6: train.max_steps: 9 steps and 3 epochs are both asked for; keep one"),
    ("train: {micro_batch_size: 64}", "recipe.yaml:4: train.micro_batch_size: found 64, more than train.batch_size (32)"),
    ("train: {warmup: 1.5}", "recipe.yaml:4: train.warmup: found 1.5, expected a share of all steps below 1 or a whole number"),
    ("train: {warmup: 9, max_steps: 9}", "train.warmup: found 9 steps of warmup in a run of 9; write fewer"),
    ("quality: {metric: perplexity}", "recipe.yaml:4: quality.metric: found perplexity, which task classify does not have"),
    ("quality: {metric: accuracy, at_most: 1}", "quality.at_most: more accuracy is better, so a ceiling cannot be a goal"),
    ("quality: {metric: loss, at_least: 1}", "quality.at_least: less loss is better, so a floor cannot be a goal"),
    ("quality: {metric: loss}\nval_set_size: 0", "val_set_size (data.eval_fraction): data.eval_fraction is 0 and there is no"),
    ("cuts: {fine_tune: false, lora: true}", "cuts.lora: adapters on frozen noise learn nothing; with cuts.fine_tune false write"),
    ("cuts: {pack: {tokens: 8}}\nmax_length: 9", "recipe.yaml:4: cuts.pack.tokens: found 8, but one row may have 9 tokens"),
    ("val_set_size: 0.1\nvalidation_file: x.csv", "data.eval_fraction): rows to evaluate on are named in data.eval"),
    # YAML
    ("train: {epochs: 1}\ntrain: {epochs: 2}", "recipe.yaml:5: train: stands here and on line 4; keep one"),
    ("1: x", "recipe.yaml:4: found 1 as a key; keys are words"),
    ("? [a]\n: x", "recipe.yaml:4: found a list or section as a key; keys are words"),
    ("budget:\n\tusd: 1", "recipe.yaml:5: found a tab; indent with spaces"),
    ("a: &x 1\nb: *x", "recipe.yaml:4: found &x; anchors and aliases are not read"),
    ("b: *x", "recipe.yaml:4: found *x; anchors and aliases are not read"),
    ("a: !!python/object/apply:os.system [id]", "recipe.yaml:4: found the tag tag:yaml.org,2002:python/object/apply:os.system"),
    ("a: [", "is not YAML: while parsing a flow node"),
    ("a: 'x", "is not YAML: while scanning a quoted scalar"),
    ("---\nmodel: y", "found a second document; a recipe is one"),
    ("a: b: c", "recipe.yaml:4: is not YAML: mapping values are not allowed here"),
    ("a: " + "[" * 40, "recipe.yaml:4: is nested more than 32 levels deep"),
    ("a: \x07", "recipe.yaml:4: found a control character; remove it"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), BAD, ids=lambda value: value[:40])
def test_one_line_says_where_what_and_what_instead(text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_recipe(HEAD + text, "recipe.yaml")
    message = str(caught.value)
    assert says in message
    assert "\n" not in message
    assert message.startswith("recipe.yaml:")
    assert "pydantic" not in message and len(message) < 400
    assert caught.value.exit_code == 2


def test_a_good_recipe_passes_where_the_bad_ones_fail() -> None:
    assert parse_recipe(HEAD + "train: {epochs: 1e-1}").train.epochs == 0.1


WHOLE = [
    ("", "recipe.yaml:1: the recipe is empty; write at least model, task and data"),
    ("# nothing yet\n", "recipe.yaml:1: the recipe is empty"),
    ("just words", "recipe.yaml:1: found 'just words' (text), expected keys and values, e.g. task: classify"),
    ("\n- model: x", "recipe.yaml:2: found a list, expected keys and values"),
    ("model: x\ndata: y.csv", "recipe.yaml: task: is missing, expected classify, sft or text"),
    ("task: sft\ndata: y.csv", "recipe.yaml: model: is missing, expected a text of one line and at most 1024 characters, e.g. Q"),
    ("task: sft\nmodel: x", "recipe.yaml: data: is missing, expected a text of one line and at most 1024 characters or a list"),
    ("task: sft\nmodel: x\ndata: {}", "recipe.yaml:3: data.train: is missing"),
    ("task: sft\nmodel: {revision: main}\ndata: x", "recipe.yaml:2: model.name: is missing"),
    ("task: sft\nmodel: x\ndata: [a.csv, '']", "recipe.yaml:3: data (data.train)[1]: found '' (text)"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), WHOLE, ids=lambda value: value[:20])
def test_recipes_that_lack_something(text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_recipe(text, "recipe.yaml")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


OVERRIDES = [
    ("train.epochs=abc", "--set train.epochs=abc: train.epochs: found 'abc' (text), expected a number greater than 0"),
    ("lora_r=0", "--set lora_r=0: lora_r (cuts.lora.rank): found 0 (number), expected a whole number"),
    ("train.epoch=1", "--set train.epoch=1: train.epoch: unknown key; did you mean train.epochs?"),
    ("train.epochs", "--set train.epochs: expected key=value, e.g. --set train.epochs=2"),
    ("=1", "--set =1: expected key=value"),
    ("train..epochs=1", "--set train..epochs=1: expected key=value"),
    ("a." * 5000 + "b=1", "expected key=value"),
    ("train.epochs=[1", "--set train.epochs=[1: is not YAML"),
    ("train.epochs=!!int 3", "--set train.epochs=!!int 3: found the tag"),
    ("cuts.lora.rank.x=3", "--set cuts.lora.rank.x=3: cuts.lora.rank: found a section, expected a whole number"),
    ("task=", "--set task=: task: found nothing (null), expected classify, sft or text"),
]


@pytest.mark.parametrize(("override", "says"), OVERRIDES, ids=lambda value: value[:30])
def test_overrides_name_themselves(override: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_recipe(HEAD, "recipe.yaml", [override])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_problems_are_told_at_once_in_the_order_of_lines() -> None:
    text = HEAD + "train: {epochs: -1, epoch: 3}\nbudget: 5\nlora_r: a\nlora_dropout: 2\n"
    with pytest.raises(InputError) as caught:
        parse_recipe(text, "recipe.yaml", ["train.seed=-1"])
    starts = [line.split(": ")[0:2] for line in str(caught.value).splitlines()]
    assert starts == [
        ["--set train.seed=-1", "train.seed"],
        ["recipe.yaml:4", "train.epoch"],
        ["recipe.yaml:4", "train.epochs"],
        ["recipe.yaml:5", "budget"],
        ["recipe.yaml:6", "lora_r (cuts.lora.rank)"],
        ["recipe.yaml:7", "lora_dropout (cuts.lora.dropout)"],
    ]


BYTES = [
    (HEAD.encode("utf-16"), ":1: is encoded as UTF-16; save it as UTF-8"),
    (HEAD.encode("utf-32"), ":1: is encoded as UTF-32; save it as UTF-8"),
    (HEAD.encode("utf-16-le"), ":1: found a null character, perhaps from UTF-16"),
    (HEAD.encode() + b"output: caf\xe9", ":4: found byte 0xe9, which is not UTF-8"),
    (b"#" * 1_000_001, ": is larger than 1,000,000 bytes"),
]


@pytest.mark.parametrize(("content", "says"), BYTES, ids=["utf16", "utf32", "utf16le", "latin1", "large"])
def test_bytes_that_are_no_recipe(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    assert f"{path}{says}" in str(caught.value)


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    for path, says in (
        (tmp_path, "is not a file"),
        (tmp_path / "x", "no such file"),
        (Path("a\0b"), "no such file|cannot be read"),
    ):
        with pytest.raises(InputError, match=says):
            load_recipe(path)


HOSTILE = [
    "[" * 100_000,
    "{a: " * 50_000,
    "a:\n" + "".join(" " * n + "a:\n" for n in range(1, 900)),
    "x: &a [1]\n" + "".join(f"y{n}: [*a, *a]\n" for n in range(1000)),
    "x: [" + "1," * 300_000,
    "x: " + "9" * 900_000,
    "".join(f"key{n}: 1\n" for n in range(4_900)),
    "data: [" + "5, " * 9_000 + "5]",
    "a" * 900_000 + ": 1",
    "? " * 100_000,
    "- " * 100_000,
    "'" * 900_001,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12])
def test_hostile_texts_are_refused_in_a_second(text: str) -> None:
    began = time.process_time()
    with pytest.raises(InputError) as caught:
        parse_recipe(text)
    assert time.process_time() - began < 5  # a second of an idle computer; where they work, such texts take minutes
    assert len(str(caught.value)) < 20_000


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model": "x", "task": "sft", "data": "x", "train": {"epochs": "3"}}, "recipe: train.epochs: found '3' (text)"),
        ({"model": "x", "task": "sft", "data": "x", "seed": object()}, "recipe: seed (train.seed): found a value of type object"),
        ({"model": "x", "task": "sft", "data": "x", "lr": 1, "learning_rate": 1}, "is also set by lr; keep one"),
        ({"model": "\ud800", "task": "sft", "data": "x"}, "recipe: model (model.name): found '' (text with odd characters)"),
        ({1: 2}, "recipe: found 1 (number) as a key"),
    ],
)  # fmt: skip
def test_mappings_are_checked_alike(settings: dict[object, object], says: str) -> None:
    with pytest.raises(InputError) as caught:
        recipe_from_dict(settings)  # type: ignore[arg-type]
    assert says in str(caught.value)
    loop: dict[str, object] = {}
    loop["train"] = loop
    with pytest.raises(InputError, match="nested more than 32"):
        recipe_from_dict(loop)


def test_mutations_are_refused_or_read_but_never_crash() -> None:
    chance = random.Random(11)
    base = HEAD + "lora_r: 8\nquality: {metric: accuracy}\n"
    texts = [recipe_to_yaml(parse_recipe(base)), base]
    pieces = [":", "\n", "  ", "- ", "[", "]", "{", "}", "'", '"', "&a", "*a", "!!x", "\t", "#", "null", "true", "-1"]
    pieces += ["1e400", ".nan", "\x00", "\x1b[2J", "\u202e", "\ufeff", "é", "9" * 60, "? ", "|", ">", "%", "@", "<<: "]
    outcomes = {"read": 0, "refused": 0}
    for number in range(600):
        text = texts[number % 2]
        for _ in range(chance.randint(1, 3)):
            at, to = sorted(chance.randrange(len(text) + 1) for _ in range(2))
            text = text[:at] + chance.choice(pieces) + text[chance.choice([at, at, min(to, at + 9)]) :]
        try:
            parse_recipe(text)
            outcomes["read"] += 1
        except InputError as error:
            outcomes["refused"] += 1
            assert str(error)
            assert str(error).replace("\n", "").isprintable()
    assert min(outcomes.values()) > 20


def test_a_file_of_100_megabytes_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    with path.open("wb") as file:
        file.write(HEAD.encode())
        file.truncate(100_000_000)
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(InputError, match="is larger than 1,000,000 bytes; a recipe holds settings, not data"):
            load_recipe(path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 1


@pytest.mark.parametrize("text", [HOSTILE[0], HOSTILE[1], HOSTILE[3]], ids=["lists", "mappings", "aliases"])
def test_nesting_and_aliases_take_little_memory(text: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            parse_recipe(text)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
