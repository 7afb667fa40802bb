"""Examples to token ids and the mask of what is learned.

`loss_mask[i] == 1` says that token i is a target, predicted from the tokens before it; so `loss_mask[0]` is always 0.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.data.account import Rejection, place, plain
from tenfold.data.chat import Rendered, TemplateError, TemplateExceeded, assistant_spans
from tenfold.data.examples import Chat, Completion, Example, LabelledText, PlainText
from tenfold.data.tokenizer import Tokenizer, no_chat_template
from tenfold.errors import InputError


@dataclass(frozen=True, slots=True)
class Sample:
    """What one row, or one piece of a split row, teaches."""

    input_ids: Sequence[int]
    loss_mask: bytes | None
    """One byte per token, 1 for a target that bears loss; None for classify."""
    label: int | None
    source: str
    line: int

    @property
    def where(self) -> str:
        """`file:line`."""
        return place(self.source, self.line)


@dataclass(frozen=True, slots=True)
class Draft:
    """A tokenised example before any limit on its length; the label still by name."""

    input_ids: array[int]
    loss_mask: bytes | None
    label: str | None
    source: str
    line: int
    stop_tokens: int = 0
    """Trailing special tokens that a truncated row keeps (classify: [SEP])."""


def tokenize(examples: Sequence[Example], tokenizer: Tokenizer) -> list[Draft | Rejection]:
    """The examples in their order, each as a draft or the reason why not."""
    labelled = [example for example in examples if isinstance(example, LabelledText)]
    texts = [example for example in examples if isinstance(example, PlainText)]
    completions = [example for example in examples if isinstance(example, Completion)]
    chats = [example for example in examples if isinstance(example, Chat)]
    drafts = {
        id(example): draft
        for kind, made in (
            (labelled, _labelled(labelled, tokenizer)),
            (texts, _plain_texts(texts, tokenizer)),
            (completions, _completions(completions, tokenizer)),
            (chats, _chats(chats, tokenizer)),
        )
        for example, draft in zip(kind, made, strict=True)
    }
    return [drafts[id(example)] for example in examples]


def learns_to_stop(draft: Draft | Sample, tokenizer: Tokenizer) -> bool:
    """Whether the last token that bears loss ends a turn or a text, so that the model learns to stop there."""
    last = (draft.loss_mask or b"").rfind(1)
    return last >= 0 and draft.input_ids[last] in tokenizer.stop_ids


def target_bytes(samples: Sequence[Sample], tokenizer: Tokenizer) -> int:
    """UTF-8 bytes of the text that bears loss: what a loss is divided by to compare vocabularies."""
    targets = [[token for token, bears in zip(s.input_ids, s.loss_mask or b"", strict=True) if bears] for s in samples]
    return sum(len(tokenizer.decode(ids, skip_special_tokens=True).encode()) for ids in targets)


def _no_tokens(example: Example, what: str) -> Rejection:
    return Rejection(example.source, example.line, "no_tokens", f"the tokenizer makes no token of the {what}")


def _one_bos(ids: list[int], tokenizer: Tokenizer) -> list[int]:
    """The ids without a second bos, where both the text and the tokenizer begin with one."""
    doubled = tokenizer.bos_id is not None and ids[:2] == [tokenizer.bos_id] * 2
    return ids[1:] if doubled and tokenizer.bos_id in tokenizer.prefix_ids else ids


def _labelled(examples: Sequence[LabelledText], tokenizer: Tokenizer) -> list[Draft | Rejection]:
    encoded = tokenizer.encode_batch([example.text for example in examples], add_special_tokens=True)
    around = len(tokenizer.prefix_ids) + len(tokenizer.suffix_ids)
    behind = len(tokenizer.suffix_ids)
    return [
        Draft(array("I", ids), None, example.label, example.source, example.line, behind)
        if len(ids) > around
        else _no_tokens(example, "text")
        for example, ids in zip(examples, encoded, strict=True)
    ]


def _plain_texts(examples: Sequence[PlainText], tokenizer: Tokenizer) -> list[Draft | Rejection]:
    encoded = tokenizer.encode_batch([example.text for example in examples], add_special_tokens=True)
    around = len(tokenizer.prefix_ids) + len(tokenizer.suffix_ids)
    drafts: list[Draft | Rejection] = []
    for example, ids in zip(examples, encoded, strict=True):
        if len(ids) <= around:
            drafts.append(_no_tokens(example, "text"))
            continue
        ids = _ended(_one_bos(ids, tokenizer), tokenizer)
        mask = b"\0" + b"\1" * (len(ids) - 1)
        drafts.append(Draft(array("I", ids), mask, None, example.source, example.line))
    return drafts


def _ended(ids: list[int], tokenizer: Tokenizer) -> list[int]:
    """The ids with exactly one eos at their end, where the tokenizer has one."""
    eos = tokenizer.eos_id
    return ids if eos is None or ids[-1:] == [eos] else [*ids, eos]


def _completions(examples: Sequence[Completion], tokenizer: Tokenizer) -> list[Draft | Rejection]:
    """Prompt and completion are tokenised apart, so that the prompt's ids are those of inference."""
    if examples and tokenizer.eos_id is None:
        raise InputError(
            f"the tokenizer of {plain(tokenizer.name)} has no eos_token, so a completion could never learn to end; "
            "set eos_token in tokenizer_config.json"
        )
    prompts = tokenizer.encode_batch([example.prompt for example in examples], add_special_tokens=True)
    answers = tokenizer.encode_batch([example.completion for example in examples], add_special_tokens=False)
    behind, around = len(tokenizer.suffix_ids), len(tokenizer.prefix_ids) + len(tokenizer.suffix_ids)
    drafts: list[Draft | Rejection] = []
    for example, prompt, answer in zip(examples, prompts, answers, strict=True):
        if not answer or len(prompt) <= around:
            drafts.append(_no_tokens(example, "completion" if not answer else "prompt"))
            continue
        prompt = _one_bos(prompt[: len(prompt) - behind], tokenizer)
        answer = _ended(answer, tokenizer)
        mask = b"\0" * len(prompt) + b"\1" * len(answer)
        drafts.append(Draft(array("I", [*prompt, *answer]), mask, None, example.source, example.line))
    return drafts


def _chats(examples: Sequence[Chat], tokenizer: Tokenizer) -> list[Draft | Rejection]:
    template = tokenizer.template
    if examples and template is None:
        raise InputError(f"{place(examples[0].source, examples[0].line)}: {no_chat_template(tokenizer.name)}")
    rendered: list[Rendered | TemplateError] = []
    for example in examples:
        assert template is not None
        try:
            rendered.append(assistant_spans(template, example.messages, example.prompt_messages, example.tools))
        except TemplateExceeded as error:
            raise InputError(f"{place(example.source, example.line)}: {error}") from None
        except TemplateError as error:
            rendered.append(error)
    encoded = iter(tokenizer.encode_offsets([chat.text for chat in rendered if isinstance(chat, Rendered)]))
    drafts: list[Draft | Rejection] = []
    for example, chat in zip(examples, rendered, strict=True):
        if isinstance(chat, TemplateError):
            drafts.append(Rejection(example.source, example.line, "template", str(chat)))
            continue
        ids, offsets = next(encoded)
        ids, mask = _mask_turns(chat, ids, offsets, tokenizer)
        drafts.append(Draft(array("I", ids), bytes(mask), None, example.source, example.line))
    return drafts


def _mask_turns(
    chat: Rendered, ids: list[int], offsets: list[tuple[int, int]], tokenizer: Tokenizer
) -> tuple[list[int], bytearray]:
    """The mask of the assistant's turns, each up to and with the token that ends it."""
    mask = bytearray(len(ids))
    first = 0
    for start, end in chat.spans:
        while first < len(ids) and offsets[first][1] <= start:
            first += 1
        last = first
        while last < len(ids) and offsets[last][0] < end:
            last += 1
        last = _turn_end(chat.text, ids, offsets, (first, last), tokenizer)
        mask[first:last] = b"\1" * (last - first)
    ids = list(ids)
    closing = bytes(mask).rfind(1)
    if closing >= 0 and ids[closing] not in tokenizer.stop_ids and _blank(chat.text, offsets, closing + 1, len(ids)):
        if tokenizer.eos_id is None:
            raise InputError(
                f"the chat template of {plain(tokenizer.name)} writes no end-of-turn token and the tokenizer has no "
                "eos_token, so an answer could never learn to end; set eos_token in tokenizer_config.json"
            )
        mask[closing + 1 :] = b"\1" * (len(ids) - closing)  # with the white space that the template leaves behind
        ids.append(tokenizer.eos_id)
    if mask:
        mask[0] = 0
    return ids, mask


def _turn_end(
    text: str, ids: list[int], offsets: list[tuple[int, int]], turn: tuple[int, int], tokenizer: Tokenizer
) -> int:
    """Where the turn of tokens [first, last) ends: behind its end-of-turn token, inside the span or right after it."""
    first, last = turn
    inside = last
    while inside > first and ids[inside - 1] not in tokenizer.stop_ids:
        inside -= 1
    if inside > first and _blank(text, offsets, inside, last):
        return inside  # a newline behind <|im_end|> is the template's, not the assistant's
    if last < len(ids) and first < last and ids[last] in tokenizer.stop_ids:
        return last + 1
    return last


def _blank(text: str, offsets: list[tuple[int, int]], first: int, last: int) -> bool:
    return all(not text[start:end].strip() for start, end in offsets[first:last])
