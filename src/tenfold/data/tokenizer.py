"""A tokenizer as training needs it: the fast backend, the named special tokens and the chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import tokenizers

from tenfold.data.account import plain, shown
from tenfold.data.chat import ChatTemplate, Rendered, TemplateError
from tenfold.errors import InputError
from tenfold.hub import TOKENIZER_SECONDS, OutOfReach, fetch

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""transformers' names for special tokens (PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES)."""

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "config.json")

LONGEST_SANE_TOKENS = 2**31
"""transformers writes 10**30 as `model_max_length` where there is no limit."""


@dataclass(frozen=True)
class Tokenizer:
    """Text to token ids and back. Never pads and never truncates: what is cut is cut, and counted, elsewhere."""

    name: str
    backend: tokenizers.Tokenizer
    special_tokens: Mapping[str, str] = field(default_factory=dict[str, str])
    """"eos_token": "</s>" and so on; also the variables a chat template sees."""
    chat_template: str | None = None
    max_length: int | None = None
    """The tokenizer's own `model_max_length`, None where it sets no limit."""

    def __post_init__(self) -> None:
        """Some files carry a fixed length: all-MiniLM's cuts and pads everything to 128 tokens."""
        self.backend.no_truncation()
        self.backend.no_padding()

    @property
    def vocab_size(self) -> int:
        """Ids known, added tokens included. The model's embedding may have more rows, never fewer."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    @property
    def next_id(self) -> int:
        """The first id that no token has."""
        return 1 + max(self.backend.get_vocab(with_added_tokens=True).values())

    @cached_property
    def bos_id(self) -> int | None:
        """The id that begins a text, if there is one."""
        return self._id("bos_token")

    @cached_property
    def eos_id(self) -> int | None:
        """The id that ends a text, if there is one."""
        return self._id("eos_token")

    @cached_property
    def pad_id(self) -> int | None:
        """The id that fills up batches, if there is one."""
        return self._id("pad_token")

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of all tokens that are marked as special."""
        added: dict[int, Any] = self.backend.get_added_tokens_decoder()
        named = [number for name in self.special_tokens if (number := self._id(name)) is not None]
        return frozenset([*named, *(number for number, token in added.items() if token.special)])

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Special ids that can end a turn or a text: not unk, mask, nor bos and pad unless one of them is the eos."""
        never = {self._id(name) for name in ("unk_token", "mask_token", "bos_token", "pad_token")} - {self.eos_id}
        return frozenset(self.special_ids - never)

    @cached_property
    def prefix_ids(self) -> tuple[int, ...]:
        """What `add_special_tokens` puts before a text."""
        return self._around[0]

    @cached_property
    def suffix_ids(self) -> tuple[int, ...]:
        """What `add_special_tokens` puts behind a text."""
        return self._around[1]

    @cached_property
    def _around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        encoding = self.backend.encode("a", add_special_tokens=True)
        ids, special = encoding.ids, encoding.special_tokens_mask
        first = special.index(0) if 0 in special else len(ids)
        last = len(ids) - (special[::-1].index(0) if 0 in special else 0)
        return tuple(ids[:first]), tuple(ids[last:])

    def _id(self, name: str) -> int | None:
        token = self.special_tokens.get(name)
        return None if token is None else self.backend.token_to_id(token)

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        """The ids of one text."""
        return self.backend.encode(text, add_special_tokens=add_special_tokens).ids

    def encode_batch(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
        """The ids of many texts; several times as fast as one by one."""
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        return [encoding.ids for encoding in encodings]

    def encode_offsets(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Ids, and for each id the characters [start, end) it stands for; no special tokens added."""
        encodings = self.backend.encode_batch(list(texts), add_special_tokens=False)
        return [(encoding.ids, encoding.offsets) for encoding in encodings]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of ids."""
        return self.backend.decode(list(ids), skip_special_tokens=skip_special_tokens)

    @cached_property
    def template(self) -> ChatTemplate | None:
        """The compiled chat template; InputError if it does not compile."""
        try:
            return None if self.chat_template is None else ChatTemplate(self.chat_template, self.special_tokens)
        except TemplateError as error:
            raise InputError(f"the tokenizer of {plain(self.name)}: {error}; mend chat_template.jinja") from None

    def render_chat(
        self,
        messages: Sequence[Mapping[str, object]],
        add_generation_prompt: bool = False,
        tools: Sequence[object] | None = None,
    ) -> Rendered:
        """A conversation through the tokenizer's own template; InputError where there is none or it refuses."""
        if self.template is None:
            raise InputError(no_chat_template(self.name))
        try:
            return self.template.render(messages, add_generation_prompt, tools)
        except TemplateError as error:
            raise InputError(str(error)) from None

    @classmethod
    def from_transformers(cls, name: str | Path, revision: str | None = None) -> Tokenizer:
        """The tokenizer as transformers loads it, so that training sees what its users will see. Imports torch."""
        from transformers import AutoTokenizer

        try:
            loaded: Any = AutoTokenizer.from_pretrained(str(name), revision=revision or "main", trust_remote_code=False)
        except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
            detail = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise InputError(f"no tokenizer can be loaded from {plain(str(name))}: {plain(detail)[:200]}") from None
        backend: object = getattr(loaded, "backend_tokenizer", None)
        if not isinstance(backend, tokenizers.Tokenizer):
            raise InputError(
                f"the tokenizer of {plain(str(name))} has no fast version (tokenizer.json); convert it first"
            )
        tokens = {
            key: str(loaded.special_tokens_map[key]) for key in NAMED_TOKENS if loaded.special_tokens_map.get(key)
        }
        return cls(str(name), backend, tokens, _default_template(loaded.chat_template), _sane(loaded.model_max_length))


def no_chat_template(name: str) -> str:
    """What to do about messages without a template."""
    return (
        f"the tokenizer of {plain(name)} has no chat template, which 'messages' need; use an instruct model, put a "
        "chat_template.jinja into the model's folder, or write the rows as prompt and completion"
    )


def read_tokenizer(name: str | Path, revision: str | None = None) -> Tokenizer:
    """The tokenizer of a model folder or hub id from its files alone, without transformers and torch.

    As in transformers, the post-processor in tokenizer.json decides on bos and eos, whatever `add_bos_token` says.
    """
    files = _files(name, revision)
    if "tokenizer.json" not in files:
        raise InputError(f"{plain(str(name))} has no tokenizer.json; name a folder with a fast tokenizer")
    config, model = _json(files.get("tokenizer_config.json")), _json(files.get("config.json"))
    try:
        backend = tokenizers.Tokenizer.from_file(str(files["tokenizer.json"]))
    except Exception as error:  # the library raises bare Exception
        raise InputError(
            f"{plain(str(files['tokenizer.json']))} is not a tokenizer: {plain(str(error))[:200]}"
        ) from None
    tokens = _named_tokens(config, _json(files.get("special_tokens_map.json")), model, backend)
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    try:
        extra, template = _extra_tokens(config), _default_template(config.get("chat_template"))
    except (KeyError, TypeError) as error:
        where = plain(str(files["tokenizer_config.json"]))
        raise InputError(f"{where}: its lists of tokens or templates are damaged ({plain(str(error))[:200]})") from None
    backend.add_special_tokens([token for token in (*tokens.values(), *extra) if token not in known])
    if "chat_template.jinja" in files:
        template = _text(files["chat_template.jinja"])
    return Tokenizer(str(name), backend, tokens, template, _sane(config.get("model_max_length")))


def _files(name: str | Path, revision: str | None) -> dict[str, Path]:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return {file: folder / file for file in FILES if (folder / file).is_file()}
    found: dict[str, Path] = {}
    for file in FILES:
        try:
            path = fetch(str(name), file, revision, TOKENIZER_SECONDS)
        except OutOfReach as error:
            if file == FILES[0]:
                missing = f"{shown(str(name))} is neither a folder nor in the cache"
                raise InputError(f"{missing}, and the hub is out of reach: it {plain(str(error))}") from None
            continue  # the cache has the tokenizer, and this file may not exist at all
        if path is not None:
            found[file] = path
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{plain(str(path))} is not UTF-8: {plain(str(error))[:200]}; save it as UTF-8") from None


def _json(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        value: object = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{plain(str(path))} is not JSON: {plain(str(error))[:200]}") from None
    if not isinstance(value, dict):
        raise InputError(f"{plain(str(path))} is not a JSON object")
    return cast(dict[str, Any], value)


def _named_tokens(
    config: dict[str, Any], special: dict[str, Any], model: dict[str, Any], backend: tokenizers.Tokenizer
) -> dict[str, str]:
    tokens: dict[str, str] = {}
    for name in NAMED_TOKENS:
        value = config.get(name) or special.get(name)
        value = cast(dict[str, Any], value).get("content") if isinstance(value, dict) else value
        if value is None and name in ("bos_token", "eos_token"):  # older folders name them in config.json only
            number = model.get(f"{name}_id")
            number = cast(list[int], number)[0] if isinstance(number, list) and number else number
            value = backend.id_to_token(number) if isinstance(number, int) and 0 <= number < 2**32 else None
        if isinstance(value, str):
            tokens[name] = value
    return tokens


def _extra_tokens(config: dict[str, Any]) -> list[str]:
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    values = list(cast(dict[str, Any], extra).values()) if isinstance(extra, dict) else cast(list[Any], extra)
    return [str(cast(dict[str, Any], value)["content"]) if isinstance(value, dict) else str(value) for value in values]


def _default_template(template: object) -> str | None:
    """One template, or the default of several, as a mapping or in the older form of a list of name and template."""
    if isinstance(template, list):
        template = {item["name"]: item["template"] for item in cast(list[dict[str, str]], template)}
    if isinstance(template, dict):
        template = cast(dict[str, str], template).get("default")
    return template if isinstance(template, str) else None


def _sane(length: object) -> int | None:
    return int(length) if isinstance(length, int | float) and 0 < length < LONGEST_SANE_TOKENS else None
