"""A Hugging Face hub on the loopback address, as far as files go, and the ways in which it misbehaves."""

from __future__ import annotations

import hashlib
import http.server
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tenfold import hub

COMMIT, NAME = "b" * 40, "nobody/nothing"


def etag_of(content: bytes, *, large: bool) -> str:
    """What the hub declares: SHA-256 of a large file, git's SHA-1 of a small one."""
    git = hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False)
    return hashlib.sha256(content).hexdigest() if large else git.hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; the model's weights by way of a redirect, as large files are. `mode` says how it misbehaves."""

    daemon_threads = True
    mode = "sound"
    files: Mapping[str, bytes] = {}
    elsewhere = ""
    """Where large files are said to lie; "" is here."""

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, str]] = []
        """Path, authorization and range of each request."""
        self.over = threading.Event()
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.address = f"http{'' if certificate is None else 's'}://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a client that hangs up is what these tests are about."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        mode, name = self.server.mode, self.path.rpartition("/")[2]
        ranged = self.headers.get("range", "")
        self.server.asked.append((self.path, self.headers.get("authorization", ""), ranged))
        content = self.server.files.get(name)
        if mode.isdecimal():
            headers = {"429": {"retry-after": "60"}, "404": {"x-error-code": "RepoNotFound"}}
            self.answer(int(mode), headers.get(mode, {}), b"")
        elif mode == "silent":
            self.server.over.wait(60)
        elif mode == "slow":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not self.server.over.wait(0.1):
                self.wfile.write(b"x-slow: 1\r\n")
        elif mode == "elsewhere":
            self.answer(302, {"location": "http://127.0.0.1:1/config.json"}, b"")
        elif content is None:
            self.answer(404, {"x-error-code": "EntryNotFound", "x-repo-commit": COMMIT}, b"")
        elif name.endswith(".safetensors") and "/large/" not in self.path:
            etag = etag_of(content, large=True)
            linked = {"x-linked-etag": f'"{etag}"', "x-linked-size": str(len(content)), "x-repo-commit": COMMIT}
            self.answer(
                302, {**linked, "location": f"{self.server.elsewhere or self.server.address}/large/{name}"}, b""
            )
        else:
            self.send_file(content, ranged)

    def send_file(self, content: bytes, ranged: str) -> None:
        """As it is; or with other bytes, too many of them, or but half of them, as `mode` says."""
        headers = {"etag": f'"{etag_of(content, large=False)}"', "x-repo-commit": COMMIT}
        mode = self.server.mode
        sent = {"other": content[::-1], "longer": content + b" "}.get(mode, content)
        start = int(ranged.removeprefix("bytes=").rstrip("-") or 0)
        where = {"content-range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        if self.command == "HEAD":
            self.answer(200, headers, content)
        elif ranged:
            self.answer(206, {**headers, **where}, b"" if mode == "half" else content[start:], len(content) - start)
        elif mode in ("half", "half once"):
            self.server.mode = "sound" if mode == "half once" else mode
            self.answer(200, headers, content[: len(content) // 2], len(content))
        else:
            self.answer(200, headers, sent)

    def answer(self, status: int, headers: Mapping[str, str], body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body) if length is None else length)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@contextmanager
def serving(certificate: tuple[Path, Path] | None = None) -> Iterator[Server]:
    """A server that runs meanwhile."""
    made = Server(certificate)
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()
    made.over.set()


@contextmanager
def as_hub(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The hub, for all libraries, is `server`; what it sends is kept in `cache`. No proxy, no token.

    When the server is over, nobody waits any more, and requests that were given up have come to their end.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    for key in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "no_proxy", "NO_PROXY", *hub.PROXIES):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", server.address)  # taken when the module is imported
    monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)  # and this one when first asked for
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(time, "sleep", server.over.wait)
    hub.is_known.cache_clear()
    close_session()  # the library reads proxies and certificates when it opens one
    yield
    server.over.set()
    server.server_close()
    for thread in threading.enumerate():
        if thread.name == hub.THREAD:
            thread.join()
    close_session()
    hub.is_known.cache_clear()
