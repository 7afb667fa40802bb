"""Hostile chat templates: refused within two seconds, with the host as it was; the same attacks work without the sandbox."""

from __future__ import annotations

import gc
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import jinja2
import pytest

from data_recipes import CHATML, byte_tokenizer, lines, load, write
from tenfold.data.chat import ChatTemplate, TemplateError, TemplateExceeded
from tenfold.errors import InputError

TALK = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}

LIMIT_SECONDS = 3.0
"""Of processors, however busy they are: a second is the template's, and starting its process takes some more."""

LIMIT_BYTES = 50 * 2**20
"""Of this process's memory, at any moment. What it holds by the system's count says less: its heap may have room."""

BOMBS = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "nested loops that write": "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "200 MB in one expression": "{{ messages[0].content * 200000000 }}",
    "200 MB as a constant": "{{ 'A' * 200000000 }}",
    "2 GB in one expression": "{{ messages[0].content * 2000000000 }}",
    "doubling": "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
    "doubling a list": "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "a wide field": "{{ '%2000000000d' % 1 }}",
    "a centred word": "{{ 'x' | center(2000000000) }}",
    "much lorem ipsum": "{{ lipsum(n=9999999) }}",
    "a tower of powers": "{{ 7 ** (9 ** 9) }}",
}  # fmt: skip

SSTI = {
    "by a string": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "by the messages": "{{ messages.__class__.__base__.__subclasses__() }}",
    "by a global": "{{ cycler.__init__.__globals__.os.system('touch MARKER') }}",
    "by lipsum": "{{ lipsum.__globals__['os'].system('touch MARKER') }}",
    "by joiner": "{{ joiner.__init__.__globals__.os.system('touch MARKER') }}",
    "by namespace": "{{ namespace.__init__.__globals__.os.system('touch MARKER') }}",
    "by a filter": "{{ ''|attr('__class__')|attr('__mro__') }}",
    "by a name in pieces": "{{ ''['__cl' ~ 'ass__']['__mro__'] }}",
    "by format": "{{ '{0.__class__.__mro__}'.format('') }}",
    "by format_map": "{{ '{a.__class__.__init__.__globals__}'.format_map({'a': cycler}) }}",
    "by map": "{{ ['']|map(attribute='__class__')|list }}",
    "by the template itself": "{{ self.__init__.__globals__ }}",
    "by the request": "{{ self._TemplateReference__context.environment }}",
    "by raise_exception": "{{ raise_exception.__globals__ }}",
    "by strftime_now": "{{ strftime_now.__globals__['json'] }}",
    "by dict": "{{ dict.__call__.__globals__ }}",
    "by import": "{% import 'os' as os %}{{ os.system('touch MARKER') }}",
    "by include": "{% include '/etc/passwd' %}",
    "by extends": "{% extends '/etc/passwd' %}",
    "by a private namespace": "{% set n = namespace() %}{% set n.__class__ = 1 %}",
    "by changing the messages": "{{ messages.append(1) }}",
    "by a generator's frame": "{{ (messages|map('upper')).gi_frame }}",
}
"""Ways into Python that have worked against template engines, each written to fail loudly if it gets anywhere."""

HARMLESS = ("[]", "[, ]", "", "<class 'str'>", "Undefined", "[Undefined]")
"""What a way in may leave that led nowhere."""


def processor_seconds() -> float:
    """What this process and those that it has started and seen end have had of the processors."""
    return sum(os.times()[:4])


@pytest.mark.parametrize("case", BOMBS, ids=str)
def test_a_template_that_never_ends_is_refused_soon(case: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", lines(TALK, TALK))
    gc.collect()  # with templates that are left over their processes end, whose time would be counted here
    began = processor_seconds()

    def refused() -> str:
        with pytest.raises(
            InputError, match=r"the chat template .*(takes more|writes more|refuses the row|does not)"
        ) as caught:
            load("sft", path, byte_tokenizer(BOMBS[case]), bad_rows="refuse")
        return str(caught.value)

    message, peak_bytes = with_peak(refused)
    assert processor_seconds() - began < LIMIT_SECONDS
    assert peak_bytes < LIMIT_BYTES
    assert "\n" not in message and len(message) < 500


def with_peak(call: Callable[[], str]) -> tuple[str, int]:
    """What a call returns, and the most bytes that Python's objects here took meanwhile."""
    tracemalloc.start()
    try:
        return call(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_template_in_this_process_would_take_its_memory() -> None:
    """The control."""
    template = jinja2.Environment().from_string(BOMBS["200 MB in one expression"])
    text, peak_bytes = with_peak(lambda: template.render(messages=TALK["messages"]))
    assert len(text) == 200_000_000 and peak_bytes > LIMIT_BYTES


def test_a_template_that_works_hard_but_ends_is_not_refused(tmp_path: Path) -> None:
    """The control: some hundred thousand operations, and an answer of a megabyte."""
    busy = "{% for a in range(300) %}{% for b in range(300) %}{% endfor %}{% endfor %}" + CHATML
    content = "x" * 2**20
    talk = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": content}]}
    dataset = load("sft", write(tmp_path / "x.jsonl", lines(talk)), byte_tokenizer(busy), 2**22)
    assert dataset.account.tokens > 2**20


def test_a_row_after_a_bomb_is_refused_too() -> None:
    template = ChatTemplate("{% if messages[0].content == 'bomb' %}" + BOMBS["nested loops"] + "{% endif %}ok", {})
    assert template.render([{"role": "user", "content": "x"}]).text == "ok"
    for content in ("bomb", "x"):
        with pytest.raises(TemplateExceeded):
            template.render([{"role": "user", "content": content}])


@pytest.mark.parametrize("case", SSTI, ids=str)
def test_no_way_leads_into_python(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    try:
        text = ChatTemplate(SSTI[case].replace("MARKER", str(tmp_path / "marker")), {}).render(TALK["messages"]).text
    except TemplateError as error:
        text = ""
        assert "hf_canary" not in str(error)
    assert text in HARMLESS, text
    assert not (tmp_path / "marker").exists()


def test_the_same_ways_lead_into_python_without_the_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the corpus is sharp."""
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    for case in ("by a global", "by lipsum", "by joiner", "by namespace"):
        marker = tmp_path / case.replace(" ", "-")
        jinja2.Environment().from_string(SSTI[case].replace("MARKER", str(marker))).render(messages=TALK["messages"])
        assert marker.exists(), case
    leak = "{{ lipsum.__globals__['os'].environ['HF_TOKEN'] }}"
    assert jinja2.Environment().from_string(leak).render() == "hf_canary"


def test_the_process_holds_no_environment_and_ends_with_its_template() -> None:
    template = ChatTemplate("x", {})
    pid = template._process.pid  # pyright: ignore[reportPrivateUsage]
    environment = Path(f"/proc/{pid}/environ")
    if environment.exists():
        assert environment.read_bytes() == b""
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert "Max address space         1073741824" in limits
    del template
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_numbers_and_odd_characters_pass_the_pipe_unchanged() -> None:
    message = {
        "role": "user",
        "content": '\u2028 é 🙂 \\ " {{ x }}',
        "n": 2**70,
        "f": 1e-300,
        "b": None,
        "l": [True, {}],
    }
    template = ChatTemplate("{{ messages | tojson }}", {})
    assert json.loads(template.render([message]).text) == [message]


# ruff: noqa: E501 (a case of a table is one line)
