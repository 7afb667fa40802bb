"""Rows to examples: the text a task learns from, checked value by value, with a reason for each row that is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from tenfold.data.account import Rejection, shown
from tenfold.data.lines import Row, kind
from tenfold.data.read import missing_column

if TYPE_CHECKING:
    from tenfold.recipe import Columns, Task

Message = dict[str, object]
"""One turn of a chat: role, content, and whatever else the chat template reads."""

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
"""Roles that chat templates know; a misspelt "assistant" would be trained on without loss."""

ROLE_CURES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
"""ShareGPT's and Gemini's names for roles, refused with the name to write."""


DEEPEST = 64
"""Nesting of a message beyond which no real one goes; Python itself gives up somewhere below 1,000."""


@dataclass(frozen=True, slots=True)
class PlainText:
    """A text of which all tokens are learned."""

    source: str
    line: int
    text: str

    @property
    def content(self) -> str:
        """What decides on which side of the held-out split the row falls."""
        return self.text


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text and its class."""

    source: str
    line: int
    text: str
    label: str

    @property
    def content(self) -> str:
        """The text alone, so that one text under two labels stays on one side."""
        return self.text


@dataclass(frozen=True, slots=True)
class Completion:
    """A prompt, and the completion that is learned."""

    source: str
    line: int
    prompt: str
    completion: str

    @property
    def content(self) -> str:
        """Both texts."""
        return f"{self.prompt}\0{self.completion}"


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages of which the assistant's are learned, from number `prompt_messages` on."""

    source: str
    line: int
    messages: tuple[Message, ...]
    prompt_messages: int = 0
    tools: tuple[object, ...] | None = None

    @property
    def content(self) -> str:
        """All messages."""
        return repr((self.messages, self.tools))


Example = PlainText | LabelledText | Completion | Chat


def texts_of(example: Example) -> tuple[str, ...]:
    """All that an example says, prompts and answers apart."""
    if isinstance(example, PlainText | LabelledText):
        return (example.text,)
    if isinstance(example, Completion):
        return (example.prompt, example.completion)
    contents = (message.get("content") for message in example.messages)
    return tuple(content for content in contents if isinstance(content, str) and content)


class _BadValueError(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def make_example(row: Row, task: Task, columns: Columns) -> Example | Rejection:
    """The example in a row, or why there is none."""
    try:
        if task == "sft":
            return _conversation(row, columns)
        text = _text(_value(row, columns.text, "text"), columns.text)
        if task == "text":
            return PlainText(row.source, row.line, text)
        label = _label(_value(row, columns.label, "label"), columns.label)
        return LabelledText(row.source, row.line, text, label)
    except _BadValueError as bad:
        return Rejection(row.source, row.line, bad.reason, bad.detail)


def used_columns(row: Row, task: Task, columns: Columns) -> tuple[str, ...]:
    """The columns `make_example` reads of this row."""
    if task == "text":
        return (columns.text,)
    if task == "classify":
        return (columns.text, columns.label)
    return (
        (columns.messages, "tools") if columns.messages in row.values else (columns.prompt, columns.completion, "tools")
    )


def _value(row: Row, column: str, key: str) -> object:
    if column not in row.values:
        raise _BadValueError("missing_column", missing_column(column, key, list(row.values)))
    return row.values[column]


def _text(value: object, column: str) -> str:
    name = shown(column)
    if value is None:
        raise _BadValueError("null", f"{name} is null")
    if not isinstance(value, str):
        raise _BadValueError("wrong_type", f"{name} is {kind(value)} ({shown(value)}), not a string")
    _check_characters(value, name)
    if not value.strip():
        raise _BadValueError("empty", f"{name} is empty")
    return value


def _check_characters(text: str, name: str) -> None:
    if "\0" in text:
        raise _BadValueError("nul_character", f"{name} holds a NUL character")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise _BadValueError("lone_surrogate", f"{name} holds half a character (\\u{code:04x} alone)") from None


def _label(value: object, column: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        if abs(value) >= 10**60:
            raise _BadValueError("wrong_type", f"{shown(column)} is a number of more than 60 digits, not a label")
        return str(value)
    if isinstance(value, float):
        if math.isnan(value):
            raise _BadValueError("not_a_number", f"{shown(column)} is NaN")
        raise _BadValueError(
            "wrong_type", f"{shown(column)} is the fraction {value!r}; a label is a string or a whole number"
        )
    return _text(value, column)


def _conversation(row: Row, columns: Columns) -> Example:
    tools = _tools(row.values.get("tools"))
    if columns.messages in row.values:
        messages = _messages(row.values[columns.messages], columns.messages)
        return Chat(row.source, row.line, messages, tools=tools)
    present = [column in row.values for column in (columns.prompt, columns.completion)]
    if not any(present):
        found = ", ".join(shown(column) for column in list(row.values)[:12]) or "none"
        raise _BadValueError(
            "missing_column",
            f"no column {shown(columns.messages)}, nor {shown(columns.prompt)} and {shown(columns.completion)}; "
            f"found {found}; set data.columns.messages, or data.columns.prompt and data.columns.completion",
        )
    prompt = _value(row, columns.prompt, "prompt")
    completion = _value(row, columns.completion, "completion")
    if isinstance(prompt, list) and isinstance(completion, list):
        before, after = _messages(prompt, columns.prompt, answered=False), _messages(completion, columns.completion)
        return Chat(row.source, row.line, (*before, *after), len(before), tools)
    return Completion(row.source, row.line, _text(prompt, columns.prompt), _text(completion, columns.completion))


def _messages(value: object, column: str, answered: bool = True) -> tuple[Message, ...]:
    if value is None:
        raise _BadValueError("null", f"{shown(column)} is null")
    if not isinstance(value, list):
        raise _BadValueError("wrong_type", f"{shown(column)} is {kind(value)}, not a list of messages")
    items = cast(list[object], value)
    if not items:
        raise _BadValueError("empty", f"{shown(column)} is an empty list")
    messages = tuple(_message(item, f"{column}[{number}]") for number, item in enumerate(items))
    if answered and not any(message["role"] == "assistant" for message in messages):
        raise _BadValueError("no_assistant", f"{shown(column)} has no message of the role 'assistant' to learn from")
    return messages


def _message(value: object, name: str) -> Message:
    if not isinstance(value, dict):
        raise _BadValueError("bad_message", f"{name} is {kind(value)}, not an object with role and content")
    # As transformers does: a null key is a missing key, or templates write "None".
    message = {str(k): v for k, v in cast(dict[object, object], value).items() if v is not None}
    role = message.get("role")
    if not isinstance(role, str):
        keys = ", ".join(shown(key) for key in message) or "nothing"
        cure = "; write role and content" if "from" in message else ""
        raise _BadValueError("bad_message", f"{name} has no role but {keys}{cure}")
    if role not in ROLES:
        cure = ROLE_CURES.get(role.lower()) or (role.lower() if role.lower() in ROLES else None)
        known = f"write {cure!r}" if cure else f"the roles are {', '.join(ROLES)}"
        raise _BadValueError("bad_message", f"{name} has the role {shown(role)}; {known}")
    if "content" not in message:
        if "tool_calls" not in message:
            raise _BadValueError("bad_message", f"{name} has no content")
    elif not isinstance(message["content"], str | list):
        raise _BadValueError("bad_message", f"the content of {name} is {kind(message['content'])}, not a string")
    elif role == "assistant" and not message["content"] and "tool_calls" not in message:
        raise _BadValueError("empty", f"the content of {name} is empty")
    _check_plain(message, name)
    return message


def _check_plain(value: object, name: str, depth: int = 0) -> None:
    """Only JSON's types reach a template: other objects carry methods that the sandbox does not know."""
    if depth > DEEPEST:
        raise _BadValueError("bad_message", f"{name} is nested more than {DEEPEST} deep")
    if isinstance(value, str):
        _check_characters(value, name)
    elif isinstance(value, dict):
        for key, item in cast(dict[object, object], value).items():
            _check_plain(key, name, depth + 1)
            _check_plain(item, name, depth + 1)
    elif isinstance(value, list):
        for item in cast(list[object], value):
            _check_plain(item, name, depth + 1)
    elif not (value is None or isinstance(value, bool | int | float)):
        raise _BadValueError("bad_message", f"{name} holds a value {kind(value)}")


def _tools(value: object) -> tuple[object, ...] | None:
    if value is None or value == []:
        return None
    if not isinstance(value, list):
        raise _BadValueError("wrong_type", f"'tools' is {kind(value)}, not a list of function descriptions")
    _check_plain(value, "'tools'")
    return tuple(cast(Sequence[object], value))
