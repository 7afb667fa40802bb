"""A chat template in a process of its own, run as a script: it imports nothing of tenfold, and knows nothing of a run.

Templates come with models from strangers. Jinja's immutable sandbox keeps them from Python's internals, and does not
bound what they compute: so the process that renders has limits on memory and processor time, set by the kernel, and no
environment to read a secret from. Extensions and globals are those that transformers gives to templates
(transformers.utils.chat_template_utils).

Each line of standard input is a JSON object, and so is its answer on standard output. The first holds `source` and
`special_tokens`; every other `messages`, `tools` and `renders`: pairs of how many messages, and whether the prompt for
an answer follows them. An answer holds `rendered` (texts, with the spans inside the template's generation marks), or
`refused`, or `exceeded`.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn, cast

sys.path.extend(sys.argv[1:])  # where jinja2 is: the interpreter was started without its site packages

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
import jinja2.utils

CPU_SECONDS = 1.0
"""For all renderings of one row, of which each takes a millisecond or less."""

MEMORY_BYTES = 2**30
"""Address space of the process: a row may have 32 MiB, and Python takes up to four bytes for a character."""

LONGEST_CHARACTERS = 2**26
"""Of one rendering: twice the longest row that is read."""

FAULTS = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""What a template's own expressions can raise on a row they were not written for."""

REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
"""Names a message's reasoning goes by; templates read the first two (transformers' _REASONING_FIELDS)."""


class _ExceededError(Exception):
    """More than a template may take; one line."""


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


def _with_reasoning(message: Mapping[str, object]) -> dict[str, object]:
    """A copy of the message with its reasoning under the names that templates read."""
    found = next((message[key] for key in REASONING_KEYS if message.get(key) is not None), None)
    return dict(message) if found is None else {"thinking": found, **message, "reasoning_content": found}


class Template:
    """A template compiled once; rendering keeps no state between calls."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
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
        self._template = environment.from_string(source)

    def render(self, messages: Sequence[Mapping[str, object]], asks: bool, tools: object) -> tuple[str, list[Any]]:
        """Text and spans of a conversation."""
        self._generation.spans, self._generation.written = [], 0
        values = {
            **self._special_tokens,
            "messages": [_with_reasoning(message) for message in messages],
            "tools": tools,
            "documents": None,
            "add_generation_prompt": asks,
        }
        blocks: list[str] = []
        for block in self._template.generate(values):
            blocks.append(block)
            self._generation.written += len(block)
            if self._generation.written > LONGEST_CHARACTERS:
                raise _ExceededError(f"writes more than {LONGEST_CHARACTERS:,} characters")
        return "".join(blocks), list(self._generation.spans)


def _answer(ask: Callable[[], dict[str, object]]) -> dict[str, object]:
    """What `ask` gives, within the limits: past the processor time the kernel ends the process (SIGPROF's default)."""
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        return ask()
    except _ExceededError as error:
        return {"exceeded": str(error)}
    except MemoryError:
        return {"exceeded": f"takes more than {MEMORY_BYTES // 2**20:,} MiB"}
    except (jinja2.exceptions.TemplateError, *FAULTS) as error:
        return {"refused": str(error).strip() or type(error).__name__}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def main() -> None:
    """Answer every line until there are no more."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    template: Template | None = None

    def compiled() -> dict[str, object]:
        nonlocal template
        template = Template(request["source"], request["special_tokens"])
        return {"rendered": []}

    def rendered() -> dict[str, object]:
        assert template is not None
        messages, tools = request["messages"], request["tools"]
        return {"rendered": [template.render(messages[:count], asks, tools) for count, asks in request["renders"]]}

    for line in sys.stdin.buffer:
        request: dict[str, Any] = json.loads(line)
        answer = _answer(compiled if "source" in request else rendered)
        sys.stdout.buffer.write(json.dumps(answer).encode("ascii") + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
