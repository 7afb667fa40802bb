"""A hub that is slow, broken, or lies: what is cached is used, all else is refused in one line, in the stated time."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tenfold import hub
from tenfold.data import read_tokenizer
from tenfold.errors import InputError
from tenfold.shape import read_shape

constants = pytest.importorskip("huggingface_hub.constants")

COMMIT, SECRET = "b" * 40, "hf_CanaryCanaryCanaryCanary0123456789"
CONFIG = b'{"model_type": "llama", "hidden_size": 32}'
WAIT_SECONDS = 1.0
"""Stated time in these tests; a server that is never done is given up after it."""


class Server(http.server.ThreadingHTTPServer):
    """A hub on the loopback address that behaves as `mode` says."""

    daemon_threads = True
    mode = "sound"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str]] = []
        self.over = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        mode = self.server.mode
        self.server.asked.append((self.path, self.headers.get("authorization", "")))
        if mode.isdecimal():
            headers = {"429": {"retry-after": "60"}, "404": {"x-error-code": "RepoNotFound"}}
            self.answer(int(mode), headers.get(mode, {}), b"")
        elif mode == "silent":
            self.server.over.wait(30)
        elif mode == "slow":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not self.server.over.wait(0.1):
                self.wfile.write(b"x-slow: 1\r\n")
        elif mode == "elsewhere":
            self.answer(302, {"location": "http://127.0.0.1:1/config.json"}, b"")
        else:
            named = {"etag": f'"{"a" * 40}"', "x-repo-commit": COMMIT}
            self.answer(200, named, CONFIG[:10] if mode == "half" else CONFIG, len(CONFIG))

    def answer(self, status: int, headers: dict[str, str], body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body) if length is None else length)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Server]:
    made = Server()
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    address = f"http://127.0.0.1:{made.server_port}"
    for key in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", *hub.PROXIES):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tenfold.shape.read.CONFIG_SECONDS", WAIT_SECONDS)
    monkeypatch.setattr("tenfold.data.tokenizer.TOKENIZER_SECONDS", WAIT_SECONDS)
    hub.is_known.cache_clear()
    yield made
    hub.is_known.cache_clear()
    made.over.set()
    made.shutdown()
    made.server_close()


BROKEN = [
    ("404", "nor on the Hugging Face hub or in its cache; check the spelling"),
    ("403", "answers with status 403; try again later"),
    ("429", "no answer within 1 s"),
    ("500", "answers with status 500|no answer within 1 s"),
    ("silent", "no answer within 1 s"),
    ("slow", "no answer within 1 s"),
    ("half", "127.0.0.1 says: |no answer within 1 s"),
    ("elsewhere", "127.0.0.1 says: |no answer within 1 s|answers with status"),
]


@pytest.mark.parametrize(("mode", "says"), BROKEN)
def test_a_broken_hub_is_one_line_in_time(mode: str, says: str, server: Server) -> None:
    server.mode = mode
    for read in (read_shape, read_tokenizer):
        began = time.monotonic()
        with pytest.raises(InputError) as caught:
            read("nobody/nothing")
        assert time.monotonic() - began < 5 * WAIT_SECONDS
        message = str(caught.value)
        assert "\n" not in message and len(message) < 500
        if read is read_shape:
            assert any(part in message for part in says.split("|")), message


def test_what_is_cached_is_used_however_the_hub_behaves(server: Server) -> None:
    assert hub.fetch("nobody/nothing", "config.json", None, 10.0) is not None
    for mode in ("silent", "429", "500"):
        server.mode = mode
        found = hub.fetch("nobody/nothing", "config.json", None, WAIT_SECONDS)
        assert found is not None and found.read_bytes() == CONFIG


def test_half_a_file_never_counts_as_the_file(server: Server, tmp_path: Path) -> None:
    server.mode = "half"
    with pytest.raises(hub.OutOfReach):
        hub.fetch("nobody/nothing", "config.json", None, WAIT_SECONDS)
    assert not list((tmp_path / "cache").rglob("config.json"))
    server.mode = "sound"
    found = hub.fetch("nobody/nothing", "config.json", None, 10.0)
    assert found is not None and found.read_bytes() == CONFIG


def test_a_proxy_is_asked_and_its_password_is_not_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    utils = pytest.importorskip("huggingface_hub.utils")
    monkeypatch.setenv("http_proxy", f"http://me:{SECRET}@127.0.0.1:{server.server_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    server.mode = "403"
    utils.close_session()  # the library reads the proxies when it opens one
    assert utils.get_session().get("http://hub.example/x").status_code == 403
    assert server.asked[-1][0] == "http://hub.example/x", "the proxy saw the whole address"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(InputError) as caught:
        read_shape("nobody/nothing")
    utils.close_session()
    assert "Canary" not in str(caught.value)


def test_a_wrong_proxy_is_one_line(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(key, f"http://me:{SECRET}@127.0.0.1:1")
    with pytest.raises(InputError) as caught:
        read_shape("nobody/other")
    assert "\n" not in str(caught.value) and "Canary" not in str(caught.value)
