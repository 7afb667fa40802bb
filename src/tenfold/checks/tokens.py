"""Whether tokenizer, chat template and model belong together."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tenfold.checks.paper import Paper, share
from tenfold.data import Tokenizer, check_vocabulary
from tenfold.data.chat import TemplateError
from tenfold.data.examples import Chat, Message, texts_of
from tenfold.errors import InputError
from tenfold.receipt import Finding

MOST_LOST = 0.01
"""Of the characters of the first rows: a tokenizer that belongs to the text knows nearly all of them."""

ALL_BUT_LOST = 0.5
"""Half of the text unknown: the tokenizer is for another language or another kind of data."""

MARKER = re.compile(r"<\|[\w ]{1,40}\|>")
"""How ChatML and its kin write the tokens that part turns; plain words in angle brackets may be text."""


def vocabulary(paper: Paper) -> Finding:
    """Whether the embedding has a row for every id of the tokenizer, and not far more than it needs."""
    rows, ids = paper.vocab_size, paper.tokenizer.next_id
    try:
        check_vocabulary((*paper.dataset.train, *paper.dataset.evaluation), paper.tokenizer, rows, paper.model)
    except InputError as error:
        return Finding(check="vocabulary", verdict="refusal", text=str(error))
    text = f"{ids:,} token ids on {rows:,} rows of the embedding"
    if ids > rows:
        text += "; no row of the data holds one of those that are too high"
        return Finding(check="vocabulary", verdict="warning", text=text)
    if 2 * ids < rows:
        return Finding(check="vocabulary", verdict="warning", text=f"{text}; is it the tokenizer of another model?")
    return Finding(check="vocabulary", verdict="ok", text=text)


def known_text(paper: Paper) -> Finding:
    """Whether the tokenizer can write what the first rows say."""
    texts = [text for example in paper.examples for text in texts_of(example)]
    lost = sum(lost_characters(text, paper.tokenizer) for text in texts)
    written = sum(len("".join(text.split())) for text in texts)
    text = f"{share(lost, written)} characters of the first {len(paper.examples)} rows are unknown to the tokenizer"
    if lost > ALL_BUT_LOST * written:
        return Finding(check="known text", verdict="refusal", text=f"{text}; use a model for this kind of text")
    return Finding(check="known text", verdict="warning" if lost > MOST_LOST * written else "ok", text=text)


def lost_characters(text: str, tokenizer: Tokenizer) -> int:
    """Characters that are no space and that no token but the unknown one stands for."""
    ((ids, offsets),) = tokenizer.encode_offsets([text])
    unknown = tokenizer.special_tokens.get("unk_token")
    unknown_id = None if unknown is None else tokenizer.backend.token_to_id(unknown)
    known = bytearray(len(text))
    for token, (start, end) in zip(ids, offsets, strict=True):
        if token != unknown_id:
            known[start:end] = b"\1" * (end - start)
    return sum(not seen and not character.isspace() for seen, character in zip(known, text, strict=True))


def template(paper: Paper) -> Finding:
    """Whether conversations come back from the template and the tokenizer as they will be asked for."""
    chats = [example for example in paper.examples if isinstance(example, Chat)]
    if not chats:
        return Finding(check="template", verdict="ok", text="no conversations")
    apart = [marker for marker in _markers(paper.tokenizer) if paper.tokenizer.backend.token_to_id(marker) is None]
    if apart:
        text = f"the chat template writes {apart[0]}, which is no token of {paper.model}; is it another model's?"
        return Finding(check="template", verdict="warning", text=text)
    bos = paper.tokenizer.bos_id
    for chat in chats:
        whole, asked = _rendered(chat, paper.tokenizer)
        where = f"{chat.source}:{chat.line}"
        if bos is not None and whole[:2] == [bos, bos]:
            token = paper.tokenizer.special_tokens.get("bos_token")
            text = f"{where} begins with two {token}; take one out of the chat template"
            return Finding(check="template", verdict="refusal", text=text)
        if whole[: len(asked)] != asked:
            text = f"{where}: what the model is asked with is not how the trained row begins, by the chat template"
            return Finding(check="template", verdict="warning", text=text)
    text = f"the first {len(chats)} conversations begin as the model will be asked"
    return Finding(check="template", verdict="ok", text=text)


def _markers(tokenizer: Tokenizer) -> list[str]:
    return list(dict.fromkeys(MARKER.findall(tokenizer.chat_template or "")))


def _rendered(chat: Chat, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The ids of the conversation, and of what comes before its last answer as a server would ask for it."""
    last = max(number for number, message in enumerate(chat.messages) if message["role"] == "assistant")
    before: Sequence[Message] = chat.messages[:last]
    compiled = tokenizer.template
    assert compiled is not None
    try:
        whole = compiled.render(chat.messages, tools=chat.tools).text
        asked = compiled.render(before, add_generation_prompt=True, tools=chat.tools).text
    except TemplateError:  # a template may refuse a conversation without an answer
        return [], []
    return tokenizer.encode(whole, False), tokenizer.encode(asked, False)
