"""Chat templates: a conversation as text, and which stretches of it the assistant wrote.

Templates come with models from strangers, so they run in Jinja's immutable sandbox, with the same extensions and
globals as transformers gives them (transformers.utils.chat_template_utils).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn, cast

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
import jinja2.utils

from tenfold.data.account import plain

REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
"""Names a message's reasoning goes by; templates read the first two (transformers' _REASONING_FIELDS)."""

TEMPLATE_FAULTS = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""What a template's own expressions can raise on a row they were not written for."""

GENERATION_MARK = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")


class TemplateError(Exception):
    """The template refuses a conversation, or cannot be run; one line."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model sees it."""

    text: str
    spans: tuple[tuple[int, int], ...]
    """Characters [start, end) inside the template's generation marks; empty if it has none."""


class _Generation(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}` notes where its content lands in the rendered text."""

    tags = {"generation"}  # noqa: RUF012  # jinja2 declares it as a plain set

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self.written = 0
        self.spans: list[tuple[int, int]] = []

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_note")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _note(self, caller: Callable[[], str]) -> str:
        text = caller()
        self.spans.append((self.written, self.written + len(text)))
        return text


class _PlainNamespace(jinja2.utils.Namespace):
    """`namespace()` without names that begin with an underscore, which could reach Python's internals."""

    def __init__(*args: object, **values: object) -> None:  # pyright: ignore[reportSelfClsParameterName]
        self, *positional = args
        attributes: dict[str, object] = dict(*positional, **values)  # pyright: ignore[reportCallIssue, reportArgumentType]
        for name in attributes:
            _refuse_private(name)
        jinja2.utils.Namespace.__init__(self, attributes)  # pyright: ignore[reportArgumentType]

    def __setitem__(self, name: str, value: object) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


class _PlainDict:
    """`dict()` and `dict.fromkeys()`, and nothing else of the class."""

    def __call__(self, *args: object, **values: object) -> dict[str, object]:
        return dict(*args, **values)  # pyright: ignore[reportCallIssue, reportArgumentType, reportUnknownVariableType]

    def fromkeys(self, keys: Sequence[str], value: object = None) -> dict[str, object]:
        return dict.fromkeys(keys, value)


def _with_reasoning(message: Mapping[str, object]) -> dict[str, object]:
    """A copy of the message with its reasoning under the names that templates read."""
    found = next((message[key] for key in REASONING_KEYS if message.get(key) is not None), None)
    return dict(message) if found is None else {"thinking": found, **message, "reasoning_content": found}


def _refuse_private(name: str) -> None:
    if name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"chat templates cannot store the name {name!r} on a namespace")


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without Jinja's HTML escapes."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> NoReturn:
    raise jinja2.exceptions.TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


class ChatTemplate:
    """A template compiled once; rendering keeps no state between calls."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """`special_tokens`: the tokenizer's named tokens ("eos_token": "</s>"), which templates read as variables."""
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        cast(dict[str, object], environment.globals).update(
            raise_exception=_raise, strftime_now=_now, dict=_PlainDict(), namespace=_PlainNamespace
        )
        generation = environment.extensions[_Generation.identifier]
        assert isinstance(generation, _Generation)
        self._generation = generation
        self._special_tokens = dict(special_tokens)
        self.has_generation_marks = GENERATION_MARK.search(source) is not None
        try:
            self._template = environment.from_string(source)
        except jinja2.exceptions.TemplateError as error:
            raise TemplateError(f"the chat template does not compile: {_first_line(error)}") from None

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        add_generation_prompt: bool = False,
        tools: Sequence[object] | None = None,
    ) -> Rendered:
        """The text of a conversation; TemplateError if the template refuses it."""
        self._generation.spans, self._generation.written = [], 0
        values = {
            **self._special_tokens,
            "messages": [_with_reasoning(message) for message in messages],
            "tools": None if tools is None else list(tools),
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        blocks: list[str] = []
        try:
            for block in self._template.generate(values):
                blocks.append(block)
                self._generation.written += len(block)
        except (jinja2.exceptions.TemplateError, *TEMPLATE_FAULTS) as error:
            raise TemplateError(f"the chat template refuses the row: {_first_line(error)}") from None
        return Rendered("".join(blocks), tuple(self._generation.spans))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return plain(lines[0].strip())[:200] if lines else type(error).__name__


def assistant_spans(
    template: ChatTemplate,
    messages: Sequence[Mapping[str, object]],
    prompt_messages: int = 0,
    tools: Sequence[object] | None = None,
) -> Rendered:
    """The whole text and the spans that bear loss: the assistant's turns from message `prompt_messages` on.

    With generation marks the spans are the template's own. Without, turn i is what messages[:i + 1] adds to
    messages[:i] with the generation prompt; TemplateError where a template rewrites earlier turns, so that no such
    prefix exists.
    """
    whole = template.render(messages, tools=tools)
    if not template.has_generation_marks:
        spans = [
            _turn_span(template, messages, number, tools, whole.text)
            for number in range(prompt_messages, len(messages))
            if messages[number]["role"] == "assistant"
        ]
        return Rendered(whole.text, tuple(spans))
    if prompt_messages == 0:
        return whole
    prompt = template.render(messages[:prompt_messages], add_generation_prompt=True, tools=tools).text
    if not whole.text.startswith(prompt):
        raise TemplateError(_no_prefix(prompt_messages))
    return Rendered(whole.text, tuple(span for span in whole.spans if span[1] > len(prompt)))


def _turn_span(
    template: ChatTemplate,
    messages: Sequence[Mapping[str, object]],
    number: int,
    tools: Sequence[object] | None,
    whole: str,
) -> tuple[int, int]:
    before = template.render(messages[:number], add_generation_prompt=True, tools=tools).text
    after = template.render(messages[: number + 1], tools=tools).text
    if not (after.startswith(before) and whole.startswith(after)):
        raise TemplateError(_no_prefix(number))
    return len(before), len(after)


def _no_prefix(number: int) -> str:
    return (
        f"the chat template writes the turns before message {number} differently once it follows, so the assistant's "
        "text cannot be told apart; use a template with {% generation %} marks, or one assistant turn per row"
    )
