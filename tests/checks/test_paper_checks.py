"""Each check of rows and tokens sees the fault of its kind, and says nothing against rows that are sound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from data_recipes import CHATML, MARKED, byte_tokenizer, lines, make_recipe, write
from tenfold.checks import PAPER_CHECKS, Paper, check_paper, refuse
from tenfold.checks.paper import EXAMPLES
from tenfold.data import Sample, Tokenizer, first_examples, load_dataset
from tenfold.errors import InputError
from tenfold.receipt import Finding, Verdict
from tiny import tiny_tokenizer

SFT = [{"prompt": f"Question {n}?", "completion": f"Answer {n}."} for n in range(20)]
TEXT = [{"text": f"This is the text of row {n}."} for n in range(20)]
LABELLED = [{"text": f"row {n} of some", "label": "ab"[n % 2]} for n in range(40)]
CHATS = [
    {"messages": [{"role": "user", "content": f"Q{n}"}, {"role": "assistant", "content": f"A{n}"}]} for n in range(20)
]

WORDS = Tokenizer("tiny", tiny_tokenizer(), {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"})
"""Knows w0, w1, ... and nothing else."""

TWO_BOS = "{{ bos_token }}{{ bos_token }}" + CHATML
ASKED_OTHERWISE = MARKED.replace("assistant\n{% endif %}", "assistant\nthink: {% endif %}")
OTHER_MARKER = CHATML.replace("<|im_end|>", "<|eot_id|>")


def paper(
    tmp_path: Path,
    task: str,
    rows: list[dict[str, object]],
    tokenizer: Tokenizer | None = None,
    evaluated: list[dict[str, object]] | None = None,
    vocab_size: int = 262,
    **data: object,
) -> Paper:
    if evaluated is not None:
        data["eval"] = [str(write(tmp_path / "eval.jsonl", lines(*evaluated)))]
    recipe = make_recipe(task, write(tmp_path / "train.jsonl", lines(*rows)), **data)
    used = tokenizer or byte_tokenizer(CHATML)
    return Paper(
        recipe.task, load_dataset(recipe, used, 512), used, vocab_size, "tiny", first_examples(recipe, EXAMPLES)
    )


def unmasked(paper: Paper) -> Paper:
    """Every token of every row learned."""
    return with_samples(paper, lambda s: replace(s, loss_mask=b"\0" + b"\1" * (len(s.input_ids) - 1)))


def fully_masked(paper: Paper) -> Paper:
    """One row without a token to learn."""
    first = paper.dataset.train[0]
    return with_samples(paper, lambda s: replace(s, loss_mask=bytes(len(s.input_ids))) if s is first else s)


def without_end(paper: Paper) -> Paper:
    """Every row cut before its stop token."""
    return with_samples(paper, lambda s: replace(s, input_ids=s.input_ids[:-1], loss_mask=(s.loss_mask or b"")[:-1]))


def high_id(paper: Paper) -> Paper:
    """An id without a row in the embedding."""
    return with_samples(paper, lambda s: replace(s, input_ids=[*s.input_ids[:-1], 262]))


def one_label(paper: Paper) -> Paper:
    """What holding out may leave of a rare label: nothing to train on."""
    kept = tuple(sample for sample in paper.dataset.train if sample.label == 0)
    return replace(paper, dataset=replace(paper.dataset, train=kept))


def with_samples(paper: Paper, change: Callable[[Sample], Sample]) -> Paper:
    return replace(paper, dataset=replace(paper.dataset, train=tuple(change(s) for s in paper.dataset.train)))


@dataclass(frozen=True)
class Case:
    """Rows, what is done to them, and what the check of that name must say."""

    check: str
    verdict: Verdict
    says: str
    task: str
    rows: list[dict[str, object]]
    tokenizer: Tokenizer | None = None
    evaluated: list[dict[str, object]] | None = None
    data: tuple[tuple[str, object], ...] = ()
    spoil: Callable[[Paper], Paper] = lambda paper: paper
    vocab_size: int = 262


LONG: list[dict[str, object]] = [{"prompt": "p" * 40, "completion": "c" * 40}]
THREE = [*LABELLED, {"text": "rare one", "label": "c"}]

FAULTS = [
    Case("truncation", "warning", "1 of 21 (4.76 %) rows left out as too long at 60 tokens", "sft", [*SFT, *LONG], data=(("max_length", 60),)),
    Case("truncation", "warning", "20 of 20 (100 %) rows cut, 160 tokens", "sft", SFT, data=(("max_length", 14), ("overlong", "truncate"))),
    Case("truncation", "refusal", "raise data.max_length", "sft", [SFT[0], *LONG * 20], data=(("max_length", 60),)),
    Case("truncation", "warning", "1 of 21 (4.76 %) rows hold nothing to learn", "sft", [*SFT, *LONG], data=(("max_length", 40), ("overlong", "truncate"))),
    Case("learned tokens", "warning", "20 of 20 (100 %) rows are learned whole, prompt included", "sft", SFT, spoil=unmasked),
    Case("learned tokens", "refusal", "hold no token to learn, first train.jsonl:1", "sft", SFT, spoil=fully_masked),
    Case("stop token", "refusal", "0 of 20 (0 %) rows end with a learned stop token: the model would never end", "sft", SFT, spoil=without_end),
    Case("stop token", "warning", "20 of 21 (95.2 %) rows end with", "sft", [*SFT, *LONG], data=(("max_length", 60), ("overlong", "truncate"))),
    Case("stop token", "warning", "0 of 20 (0 %) rows end with", "text", TEXT, tokenizer=byte_tokenizer(eos=False)),
    Case("overlap", "warning", "2 of 2 (100 %) evaluation rows are also training rows, first eval.jsonl:1; quality measures memory alone", "sft", SFT, evaluated=SFT[:2]),
    Case("overlap", "warning", "1 of 2 (50 %) evaluation rows are also training rows", "sft", SFT[1:], evaluated=SFT[:2]),
    Case("labels", "warning", "trained but not evaluated: 'c'", "classify", THREE, evaluated=[{"text": "x", "label": "a"}, {"text": "y", "label": "b"}]),
    Case("labels", "warning", "not trained but evaluated: 'b'", "classify", THREE, evaluated=[{"text": "x", "label": "b"}], spoil=lambda p: with_samples(p, lambda s: replace(s, label=0) if s.label == 1 else s)),
    Case("labels", "refusal", "all 20 training rows have the label 'a'", "classify", LABELLED, spoil=one_label),
    Case("labels", "warning", "199 of 200 (99.5 %) training rows have the label 'a'", "classify", [{"text": f"t{n}", "label": "ba"[n > 0]} for n in range(200)]),
    Case("labels", "warning", "20 labels on 20 training rows", "classify", [{"text": f"t{n}", "label": f"l{n}"} for n in range(20)]),
    Case("vocabulary", "refusal", "train.jsonl:1: token None has the id 262, but tiny knows only 262 ids", "sft", SFT, spoil=high_id),
    Case("vocabulary", "warning", "262 token ids on 261 rows of the embedding; no row of the data holds", "sft", SFT, vocab_size=261),
    Case("vocabulary", "warning", "is it the tokenizer of another model?", "sft", SFT, vocab_size=32_000),
    Case("known text", "refusal", "are unknown to the tokenizer; use a model for this kind of text", "text", TEXT, tokenizer=WORDS, vocab_size=300),
    Case("known text", "warning", "characters of the first 8 rows are unknown", "text", [{"text": "w1 w2 w3 w4 w5 w6 w7 w8 w9 e"}] * 9, tokenizer=WORDS, vocab_size=300),
    Case("template", "warning", "writes <|eot_id|>, which is no token of tiny", "sft", CHATS, tokenizer=byte_tokenizer(OTHER_MARKER)),
    Case("template", "warning", "is not how the trained row begins", "sft", CHATS, tokenizer=byte_tokenizer(ASKED_OTHERWISE)),
    Case("template", "refusal", "begins with two <s>; take one out of the chat template", "sft", CHATS, tokenizer=byte_tokenizer(TWO_BOS)),
]  # fmt: skip
# ruff: noqa: E501 (a case of a table is one line)

SOUND = [
    Case("", "ok", "", "sft", SFT, evaluated=[{"prompt": "another", "completion": "row"}]),
    Case("", "ok", "", "sft", CHATS),
    Case("", "ok", "", "sft", CHATS, tokenizer=byte_tokenizer(MARKED)),
    Case("", "ok", "", "text", TEXT, data=(("eval_fraction", 0.2),)),
    Case("", "ok", "", "text", [{"text": f"w{n} w{n + 1}"} for n in range(9)], tokenizer=WORDS, vocab_size=300),
    Case("", "ok", "", "classify", LABELLED, evaluated=[{"text": "x", "label": "a"}, {"text": "y", "label": "b"}]),
]


def findings(case: Case, tmp_path: Path) -> dict[str, Finding]:
    made = paper(tmp_path, case.task, case.rows, case.tokenizer, case.evaluated, case.vocab_size, **dict(case.data))
    return {finding.check: finding for finding in check_paper(case.spoil(made))}


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: f"{case.check}: {case.says[:30]}")
def test_a_fault_is_found(case: Case, tmp_path: Path) -> None:
    found = findings(case, tmp_path)[case.check]
    assert found.verdict == case.verdict and case.says in found.text, found
    assert "\n" not in found.text and len(found.text) < 400


@pytest.mark.parametrize("case", SOUND, ids=lambda case: f"{case.task}")
def test_sound_rows_pass_every_check(case: Case, tmp_path: Path) -> None:
    found = findings(case, tmp_path)
    assert len(found) == len(PAPER_CHECKS)
    assert {finding.verdict for finding in found.values()} == {"ok"}, found


def test_every_check_is_spoilt_by_some_case() -> None:
    names = {case.check for case in FAULTS}
    assert len(names) == len(PAPER_CHECKS)


def test_refusals_are_one_line_each() -> None:
    said = [Finding(check=name, verdict=verdict, text="x") for name, verdict in (("a", "refusal"), ("b", "warning"), ("c", "refusal"))]  # type: ignore[arg-type]  # fmt: skip
    with pytest.raises(InputError) as caught:
        refuse(said)
    assert str(caught.value).splitlines() == ["check a: x", "check c: x"]
    refuse(said[1:2])
