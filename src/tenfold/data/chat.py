"""Chat templates: a conversation as text, and which stretches of it the assistant wrote.

Templates come with models from strangers, so they are rendered by a process of their own, with limits on memory and
processor time (`template_process.py`).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from tenfold.data.account import plain

GENERATION_MARK = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")

SCRIPT = Path(__file__).with_name("template_process.py")

LIBRARIES = str(Path(jinja2.__file__).parents[1])
"""Where the process finds jinja2, since it starts without site packages, and nothing else is in its reach."""


class TemplateError(Exception):
    """The template refuses a conversation, or cannot be run; one line."""


class TemplateExceeded(TemplateError):
    """The template takes more time or memory, or writes more, than any real one; no row is at fault."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model sees it."""

    text: str
    spans: tuple[tuple[int, int], ...]
    """Characters [start, end) inside the template's generation marks; empty if it has none."""


class ChatTemplate:
    """A template compiled once, in its own process; rendering keeps no state between calls."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """`special_tokens`: the tokenizer's named tokens ("eos_token": "</s>"), which templates read as variables.

        Raises TemplateError if the template does not compile.
        """
        self.has_generation_marks = GENERATION_MARK.search(source) is not None
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(SCRIPT), LIBRARIES],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            start_new_session=True,  # a Ctrl-C in the terminal is for the run, which decides what becomes of it
        )
        self._end = weakref.finalize(self, _end, self._process)
        try:
            self._ask({"source": source, "special_tokens": dict(special_tokens)})
        except TemplateExceeded:
            raise
        except TemplateError as error:
            raise TemplateError(f"the chat template does not compile: {error}") from None

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        add_generation_prompt: bool = False,
        tools: Sequence[object] | None = None,
    ) -> Rendered:
        """The text of a conversation; TemplateError if the template refuses it."""
        return self.render_first(messages, [(len(messages), add_generation_prompt)], tools)[0]

    def render_first(
        self,
        messages: Sequence[Mapping[str, object]],
        renders: Sequence[tuple[int, bool]],
        tools: Sequence[object] | None = None,
    ) -> list[Rendered]:
        """The text of the first so many messages, with the prompt for an answer behind them or not; in one go."""
        request = {"messages": list(messages), "tools": None if tools is None else list(tools), "renders": renders}
        try:
            answer = self._ask(request)
        except TemplateExceeded:
            raise
        except TemplateError as error:
            raise TemplateError(f"the chat template refuses the row: {error}") from None
        return [Rendered(text, tuple((start, end) for start, end in spans)) for text, spans in answer["rendered"]]

    def _ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        answer = b""
        with suppress(OSError, ValueError):  # the process has ended, of this request or of the one before
            self._process.stdin.write(json.dumps(request).encode("ascii") + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        if not answer.endswith(b"\n"):
            self._end()
            raise TemplateExceeded(_exceeded("takes more than a second of processor time, or too much memory"))
        found: dict[str, Any] = json.loads(answer)
        if "exceeded" in found:
            raise TemplateExceeded(_exceeded(found["exceeded"]))
        if "refused" in found:
            raise TemplateError(plain(found["refused"].splitlines()[0].strip())[:200])
        return found


def _exceeded(what: str) -> str:
    return f"the chat template {what}; use the template that the model's own authors publish"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was left to write has no reader any more
                pipe.close()


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
    everything = (len(messages), False)
    if not template.has_generation_marks:
        turns = [n for n in range(prompt_messages, len(messages)) if messages[n]["role"] == "assistant"]
        wanted = [everything, *(part for n in turns for part in ((n, True), (n + 1, False)))]
        whole, *parts = template.render_first(messages, wanted, tools)
        spans = [
            _turn_span(number, before.text, after.text, whole.text)
            for number, before, after in zip(turns, parts[::2], parts[1::2], strict=True)
        ]
        return Rendered(whole.text, tuple(spans))
    if prompt_messages == 0:
        return template.render(messages, tools=tools)
    whole, prompt = template.render_first(messages, [everything, (prompt_messages, True)], tools)
    if not whole.text.startswith(prompt.text):
        raise TemplateError(_no_prefix(prompt_messages))
    return Rendered(whole.text, tuple(span for span in whole.spans if span[1] > len(prompt.text)))


def _turn_span(number: int, before: str, after: str, whole: str) -> tuple[int, int]:
    if not (after.startswith(before) and whole.startswith(after)):
        raise TemplateError(_no_prefix(number))
    return len(before), len(after)


def _no_prefix(number: int) -> str:
    return (
        f"the chat template writes the turns before message {number} differently once it follows, so the assistant's "
        "text cannot be told apart; use a template with {% generation %} marks, or one assistant turn per row"
    )
