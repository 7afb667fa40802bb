"""Which tokens bear loss: only what the assistant wrote, and always the token that ends it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from data_recipes import CHATML, MARKED, byte_tokenizer, lines, load, write
from tenfold.data import Sample, Tokenizer, learns_to_stop, preview, read_tokenizer
from tenfold.errors import InputError

TALK: list[dict[str, object]] = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "Q1"},
    {"role": "assistant", "content": "A1 ends in 🙂"},
    {"role": "user", "content": " Q2\n"},
    {"role": "assistant", "content": "A2"},
]

NO_END = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
END_OUTSIDE = MARKED.replace("<|im_end|>{% endgeneration %}", "{% endgeneration %}<|im_end|>")
MARKED_NO_END = NO_END.replace(
    "{{ m['content'] }}",
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}{% endgeneration %}"
    "{% else %}{{ m['content'] }}{% endif %}{{ '' }}",
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}<<{{ m['content'] }}>>{% elif m['role'] == "
    "'user' %}[INST] {{ m['content'] | trim }} [/INST]{% else %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}"
    "{% endif %}{% endfor %}"
)

HEAD = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\n"
CHATML_SEEN = (
    f"{HEAD}⟦A1 ends in 🙂<|im_end|>⟧\n<|im_start|>user\n Q2\n<|im_end|>\n<|im_start|>assistant\n⟦A2<|im_end|>⟧\n"
)

TEMPLATES: dict[str, tuple[str, str]] = {
    "generation marks": (MARKED, CHATML_SEEN),
    "no marks, by prefixes": (CHATML, CHATML_SEEN),
    "end of turn outside the marks is taken in": (END_OUTSIDE, CHATML_SEEN),
    "trimming marks": (MARKED.replace("{% generation %}", "{%- generation -%}"), CHATML_SEEN),
    "no end of turn: eos appended": (
        NO_END, "system: S\nuser: Q1\nassistant: ⟦A1 ends in 🙂\n⟧user:  Q2\n\nassistant: ⟦A2\n</s>⟧",
    ),
    "marks, no end of turn: eos appended": (
        MARKED_NO_END, "system: S\nuser: Q1\nassistant: ⟦A1 ends in 🙂⟧\nuser:  Q2\n\nassistant: ⟦A2\n</s>⟧",
    ),
    "bos and eos by the template": (
        LLAMA, "<s><<S>>[INST] Q1 [/INST]⟦ A1 ends in 🙂 </s>⟧[INST] Q2 [/INST]⟦ A2 </s>⟧",
    ),
}  # fmt: skip


def one(path: Path, tokenizer: Tokenizer, *rows: object, task: str = "sft", **data: object) -> Sample:
    (sample,) = load(task, write(path / "x.jsonl", lines(*rows)), tokenizer, **data).train
    return sample


@pytest.mark.parametrize("case", TEMPLATES, ids=str)
def test_only_the_assistant_is_learned(case: str, tmp_path: Path) -> None:
    template, seen = TEMPLATES[case]
    tokenizer = byte_tokenizer(template, bos=True)
    sample = one(tmp_path, tokenizer, {"messages": TALK})
    assert preview(sample, tokenizer) == seen
    assert learns_to_stop(sample, tokenizer)
    assert list(sample.input_ids).count(tokenizer.bos_id or -1) <= 1


def test_losing_the_end_of_turn_is_noticed(tmp_path: Path) -> None:
    """The control of `learns_to_stop`: the same row cut before its last token."""
    tokenizer = byte_tokenizer(CHATML)
    sample = one(tmp_path, tokenizer, {"messages": TALK})
    end = (sample.loss_mask or b"").rfind(1)
    cut = replace(sample, input_ids=sample.input_ids[:end], loss_mask=(sample.loss_mask or b"")[:end])
    assert learns_to_stop(sample, tokenizer) and not learns_to_stop(cut, tokenizer)
    unmasked = replace(sample, loss_mask=(sample.loss_mask or b"")[:end] + b"\0" * (len(sample.input_ids) - end))
    assert not learns_to_stop(unmasked, tokenizer)
    dataset = load(
        "sft", write(tmp_path / "y.jsonl", lines({"messages": TALK})), tokenizer, max_length=end, overlong="truncate"
    )
    assert "1 of 1 rows do not end with a stop token" in dataset.account.notes[0]


def test_an_unknown_last_token_is_no_end(tmp_path: Path) -> None:
    """<unk> is special too, but does not end anything."""
    tokenizer = byte_tokenizer(NO_END)
    sample = one(tmp_path, tokenizer, {"messages": [TALK[1], {"role": "assistant", "content": "A <unk>"}]})
    assert preview(sample, tokenizer) == "user: Q1\nassistant: ⟦A <unk>\n</s>⟧"


REFUSALS: dict[str, tuple[str, bool, str]] = {
    "rewrites earlier turns": (
        "{% for m in messages %}{% if m['role'] != 'assistant' or loop.last %}{{ m['content'] }}</s>{% endif %}"
        "{% endfor %}", True, "{% generation %} marks, or one assistant turn per row",
    ),
    "raises": ("{{ raise_exception('no system\nrole here') }}", True, "refuses the row: no system"),
    "reads what is not there": ("{{ messages[0].name.first }}", True, "the chat template refuses the row"),
    "reaches for Python": ("{{ messages.__class__.__mro__ }}", True, "the chat template refuses the row"),
    "changes the messages": ("{% set _ = messages.append(1) %}", True, "the chat template refuses the row"),
    "stores a private name": ("{% set n = namespace(__init__=1) %}", True, "underscore|private|cannot store"),
    "does not compile": ("{% for m in messages %}", True, "does not compile"),
    "no end of turn and no eos": (NO_END, False, "could never learn to end; set eos_token"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS, ids=str)
def test_templates_that_are_refused(case: str, tmp_path: Path) -> None:
    template, eos, says = REFUSALS[case]
    with pytest.raises(InputError) as caught:
        one(tmp_path, byte_tokenizer(template, eos=eos), {"messages": TALK})
    message = str(caught.value)
    assert any(part in message for part in says.split("|")) and "\n" not in message


def test_messages_need_a_template(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^x\.jsonl:1: the tokenizer of tiny has no chat template.*put a chat_templ"):
        one(tmp_path, byte_tokenizer(), {"messages": TALK})


def test_marks_without_a_span_leave_nothing_to_learn(tmp_path: Path) -> None:
    template = MARKED.replace("m['role'] == 'assistant'", "m['role'] == 'model'")
    path = write(tmp_path / "x.jsonl", lines({"messages": TALK}))
    with pytest.raises(InputError, match=r"nothing to use; 1 rows read: 1 no_loss_tokens \(x\.jsonl:1: no token that"):
        load("sft", path, byte_tokenizer(template))


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_prompt_and_completion_as_messages(template: str, tmp_path: Path) -> None:
    """The assistant's turns inside the prompt bear no loss."""
    tokenizer = byte_tokenizer(template)
    sample = one(tmp_path, tokenizer, {"prompt": TALK[:4], "completion": TALK[4:]})
    seen = CHATML_SEEN.replace("⟦A1 ends in 🙂<|im_end|>⟧", "A1 ends in 🙂<|im_end|>")
    assert preview(sample, tokenizer) == seen


def test_tools_reach_the_template(tmp_path: Path) -> None:
    template = "{% if tools %}{{ tools | tojson }}{% endif %}" + CHATML
    tokenizer = byte_tokenizer(template)
    row = {"messages": TALK[1:3], "tools": [{"name": "f<"}]}
    assert preview(one(tmp_path, tokenizer, row), tokenizer).startswith('[{"name": "f<"}]<|im_start|>')


COMPLETIONS: dict[str, tuple[Tokenizer, str, str, str]] = {
    "plain": (byte_tokenizer(), "Q:", " A", "Q:⟦ A</s>⟧"),
    "bos": (byte_tokenizer(bos=True), "Q: ", "A", "<s>Q: ⟦A</s>⟧"),
    "bos in the text too": (byte_tokenizer(bos=True), "<s>Q", "A", "<s>Q⟦A</s>⟧"),
    "eos added by the tokenizer": (byte_tokenizer(bos=True, suffix="</s>"), "Q", "A", "<s>Q⟦A</s>⟧"),
    "eos in the text too": (byte_tokenizer(), "Q", "A</s>", "Q⟦A</s>⟧"),
    "a template is there but not asked for": (byte_tokenizer(CHATML), "Q", "A", "Q⟦A</s>⟧"),
}


@pytest.mark.parametrize("case", COMPLETIONS, ids=str)
def test_completions(case: str, tmp_path: Path) -> None:
    tokenizer, prompt, completion, seen = COMPLETIONS[case]
    sample = one(tmp_path, tokenizer, {"prompt": prompt, "completion": completion})
    assert preview(sample, tokenizer) == seen
    length = (sample.loss_mask or b"").index(1)
    assert not any((sample.loss_mask or b"")[:length]) and all((sample.loss_mask or b"")[length:])
    asked = tokenizer.encode(prompt.removeprefix("<s>") if tokenizer.prefix_ids else prompt, add_special_tokens=True)
    assert list(sample.input_ids[:length]) == asked[: len(asked) - len(tokenizer.suffix_ids)]


def test_a_completion_needs_an_eos(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no eos_token, so a completion could never learn to end"):
        one(tmp_path, byte_tokenizer(eos=False), {"prompt": "Q", "completion": "A"})


TEXTS: dict[str, tuple[Tokenizer, str, str]] = {
    "plain": (byte_tokenizer(), "abc", "a⟦bc</s>⟧"),
    "bos": (byte_tokenizer(bos=True), "abc", "<s>⟦abc</s>⟧"),
    "bos and eos by the tokenizer": (byte_tokenizer(bos=True, suffix="</s>"), "abc", "<s>⟦abc</s>⟧"),
    "bos in the text too": (byte_tokenizer(bos=True), "<s>abc", "<s>⟦abc</s>⟧"),
    "no eos": (byte_tokenizer(eos=False), "abc", "a⟦bc⟧"),
}


@pytest.mark.parametrize("case", TEXTS, ids=str)
def test_texts(case: str, tmp_path: Path) -> None:
    tokenizer, text, seen = TEXTS[case]
    sample = one(tmp_path, tokenizer, {"text": text}, task="text")
    assert preview(sample, tokenizer) == seen and sample.loss_mask is not None and sample.loss_mask[0] == 0


def test_labelled_texts_have_no_mask(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", lines({"text": "a", "label": 1}, {"text": "b", "label": 0}))
    tokenizer = byte_tokenizer(bos=True, suffix="</s>")
    dataset = load("classify", path, tokenizer)
    assert [sample.loss_mask for sample in dataset.train] == [None, None]
    assert preview(dataset.train[0], tokenizer) == "<s>a</s> -> label 1"
    assert dataset.account.loss_tokens == 2


TALKS: dict[str, list[dict[str, object]]] = {
    "one turn": TALK[1:3],
    "two turns": TALK,
    "unicode": [{"role": "user", "content": "é\u2028漢"}, {"role": "assistant", "content": "👩‍👩‍👧 漢字 🙂"}],
    "ends with the user": TALK[:4],
    "begins with the assistant": TALK[2:],
    "spaces kept, a null key left out": [TALK[1], {"role": "assistant", "content": "  spaced  ", "name": None}],
}


@pytest.mark.parametrize("case", TALKS, ids=str)
def test_masks_are_those_of_transformers(case: str, shared_model: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(shared_model)
    wanted = theirs.apply_chat_template(TALKS[case], return_dict=True, return_assistant_tokens_mask=True)
    tokenizer = read_tokenizer(shared_model)
    sample = one(tmp_path, tokenizer, {"messages": TALKS[case]})
    assert list(sample.input_ids) == wanted["input_ids"]
    assert list(sample.loss_mask or b"") == wanted["assistant_masks"]
    unmarked = (tokenizer.chat_template or "").replace("{% generation %}", "").replace("{% endgeneration %}", "")
    again = one(tmp_path, replace(tokenizer, chat_template=unmarked), {"messages": TALKS[case]})
    assert (again.input_ids, again.loss_mask) == (sample.input_ids, sample.loss_mask)
    everything = theirs.apply_chat_template(TALKS[case], return_dict=True)
    assert everything["input_ids"] == wanted["input_ids"] and 0 in wanted["assistant_masks"]
