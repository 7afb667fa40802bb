"""A hub that is slow, broken, or lies: what is cached is used, all else is refused in one line, in the stated time."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

import tenfold
from hub_server import NAME, Server, as_hub, serving
from jobs import make_recipe
from tenfold import hub
from tenfold.api import check
from tenfold.data import Tokenizer, read_tokenizer
from tenfold.errors import InputError
from tenfold.export.adapter import save_tokenizer
from tenfold.export.base_hash import base_sha256, model_folder
from tenfold.rig.rig import Source
from tenfold.shape import read_shape
from tiny import tiny_folder

SECRET = "hf_CanaryCanaryCanaryCanary0123456789"
CONFIG = b'{"model_type": "llama", "hidden_size": 32}'
WEIGHTS = bytes(range(256)) * 1024
WAIT_SECONDS = 1.0
"""Stated time where a server is never done: it is given up after it."""

LONG_SECONDS = 600.0
"""Stated time where a server answers: however busy this computer is, it is not waited for in vain."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving() as made, as_hub(made, tmp_path / "cache", monkeypatch):
        made.files = {"config.json": CONFIG, "model.safetensors": WEIGHTS}
        state_seconds(monkeypatch, LONG_SECONDS)
        yield made


def state_seconds(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """How long a hub is waited for."""
    for name in ("tenfold.shape.read.CONFIG_SECONDS", "tenfold.data.tokenizer.TOKENIZER_SECONDS"):
        monkeypatch.setattr(name, seconds)
    for name in ("tenfold.export.base_hash.CONFIG_SECONDS", "tenfold.hub.TOKENIZER_SECONDS"):
        monkeypatch.setattr(name, seconds)


def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library sleeps some seconds before it asks again."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def cached(tmp_path: Path) -> list[str]:
    """The names of the files in the cache, those that are not whole included."""
    paths = (path for path in (tmp_path / "cache").rglob("*") if not path.is_dir())
    return sorted(path.name for path in paths if {"snapshots", "blobs"} & set(path.parts))


BROKEN = [
    ("404", "nor on the Hugging Face hub or in its cache; check the spelling"),
    ("403", "answers with status 403; try again later"),
    ("429", "no answer within 1 s"),
    ("500", "answers with status 500|no answer within 1 s"),
    ("silent", "no answer within 1 s"),
    ("slow", "no answer within 1 s"),
    ("half", "127.0.0.1 says: |no answer within 1 s"),
    ("other", "sent another config.json than it declared|no answer within 1 s"),
    ("longer", "127.0.0.1 says: |no answer within 1 s"),
    ("elsewhere", "127.0.0.1 says: |no answer within 1 s|answers with status"),
]


@pytest.mark.parametrize(("mode", "says"), BROKEN)
def test_a_broken_hub_is_one_line(mode: str, says: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.mode = mode
    if "no answer" in says:
        state_seconds(monkeypatch, WAIT_SECONDS)
    for read in (read_shape, read_tokenizer):
        with pytest.raises(InputError) as caught:
            read(NAME)
        message = str(caught.value)
        assert "\n" not in message and len(message) < 500
        if read is read_shape:
            assert any(part in message for part in says.split("|")), message


def test_what_takes_longer_than_its_time_is_not_waited_for() -> None:
    """However long it takes: here it ends after it was given up. The control: what ends is waited for."""
    given_up = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        hub._within(0.01, lambda: Path(str(given_up.wait(600))))
    given_up.set()
    assert hub._within(600, lambda: Path(str(given_up.wait(600)))) == Path("True")


def test_what_is_cached_is_used_however_the_hub_behaves(server: Server) -> None:
    assert hub.fetch(NAME, "config.json", None, LONG_SECONDS) is not None
    for mode in ("silent", "429", "500", "other", "half"):
        server.mode = mode
        found = hub.fetch(NAME, "config.json", None, WAIT_SECONDS)
        assert found is not None and found.read_bytes() == CONFIG


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("mode", ["half", "other", "longer"])
def test_another_file_than_declared_is_never_kept(
    mode: str, file: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it, as many other bytes, one too many."""
    without_pauses(monkeypatch)
    server.mode = mode
    with pytest.raises(hub.OutOfReach, match=r"sent another|says: "):
        hub.fetch(NAME, file, None, LONG_SECONDS)
    assert cached(tmp_path) == []
    server.mode = "sound"
    found = hub.fetch(NAME, file, None, LONG_SECONDS)
    assert found is not None and found.read_bytes() == server.files[file]


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_the_library_alone_would_keep_it(file: str, server: Server) -> None:
    """The control: it looks at the size and at nothing else."""
    from huggingface_hub import hf_hub_download

    server.mode = "other"
    assert Path(hf_hub_download(NAME, file)).read_bytes() == server.files[file][::-1]


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_half_a_download_is_gone_on_with(file: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one attempt; after a kill it begins anew. The library counts in chunks, of 10 MB unless told otherwise."""
    without_pauses(monkeypatch)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1)
    server.mode = "half once"
    found = hub.fetch(NAME, file, None, LONG_SECONDS)
    assert found is not None and found.read_bytes() == server.files[file]
    assert server.asked[-1][2] == f"bytes={len(server.files[file]) // 2}-", "only what was missing is asked for"


def test_a_model_on_the_hub_is_trained(server: Server, tmp_path: Path) -> None:
    """Its weights are downloaded, which its plan does without; the next run finds them, with the hub gone."""
    folder = tiny_folder(tmp_path / "model")
    server.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    recipe = {**make_recipe(tmp_path), "model": NAME}
    plan = tenfold.plan(recipe)
    assert "model.safetensors" not in cached(tmp_path)
    assert tenfold.train(plan).base_sha256 == base_sha256(folder)
    asked = len(server.asked)
    assert base_sha256(model_folder(NAME)) == base_sha256(folder)
    assert not any("safetensors" in path for path, _, _ in server.asked[asked:]), "what is there is not asked for again"
    server.mode = "500"
    assert base_sha256(model_folder(NAME)) == base_sha256(folder)


def test_a_run_saves_its_tokenizer_without_the_hub(server: Server, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model")
    server.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    model_folder(NAME)
    save_tokenizer(Source(NAME), tmp_path / "first")
    asked = len(server.asked)
    save_tokenizer(Source(NAME), tmp_path / "second")
    assert len(server.asked) == asked
    Tokenizer.from_transformers(NAME)
    assert len(server.asked) > asked, "the control: to load it otherwise asks"
    saved = [{path.name: path.read_bytes() for path in (tmp_path / one).iterdir()} for one in ("first", "second")]
    assert saved[0] == saved[1] and "tokenizer.json" in saved[0]


def test_a_check_holds_the_weights_to_what_was_declared(server: Server, tmp_path: Path) -> None:
    """It is often the first to download them."""
    folder = tiny_folder(tmp_path / "model")
    server.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    recipe = {**make_recipe(tmp_path), "model": NAME}
    tenfold.plan(recipe)
    server.mode = "other"
    with pytest.raises(InputError, match=r"its weights cannot be had: .* sent another model\.safetensors"):
        check(recipe)
    assert "model.safetensors" not in cached(tmp_path)


def test_weights_in_several_files(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM

    folder = tiny_folder(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    server.files = {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()}
    assert len(server.files) > 4
    assert base_sha256(model_folder(NAME)) == base_sha256(tmp_path / "shards")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert base_sha256(model_folder(NAME)) == base_sha256(tmp_path / "shards")


@pytest.mark.parametrize("index", [b"[]", b"{", b'{"weight_map": {"w": 7}}', b'{"weight_map": {"w": "../../x"}}'])
def test_an_index_that_is_none_is_one_line(index: bytes, server: Server) -> None:
    server.files = {"config.json": CONFIG, hub.INDEX: index}
    with pytest.raises(InputError, match="model: 'nobody/nothing': ") as caught:
        model_folder(NAME)
    assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_had_are_one_line(server: Server) -> None:
    server.mode = "other"
    with pytest.raises(InputError, match=r"sent another config\.json than it declared"):
        model_folder(NAME)
    server.mode = "sound"
    assert hub.fetch(NAME, "config.json", None, LONG_SECONDS)
    server.mode = "other"
    with pytest.raises(InputError, match=r"its weights cannot be had: .* sent another model\.safetensors"):
        model_folder(NAME)


def test_a_proxy_is_asked_and_its_password_is_not_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    utils = pytest.importorskip("huggingface_hub.utils")
    monkeypatch.setenv("http_proxy", f"http://me:{SECRET}@127.0.0.1:{server.server_port}")
    server.mode = "403"
    utils.close_session()  # the library reads the proxies when it opens one
    assert utils.get_session().get("http://hub.example/x").status_code == 403
    assert server.asked[-1][0] == "http://hub.example/x", "the proxy saw the whole address"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(InputError) as caught:
        read_shape(NAME)
    assert "Canary" not in str(caught.value)


@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_a_wrong_proxy_is_one_line_and_need_not_be_asked(variable, server: Server, monkeypatch) -> None:
    without_pauses(monkeypatch)
    for key in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(key, f"http://me:{SECRET}@127.0.0.1:1")
    with pytest.raises(InputError) as caught:
        read_shape(NAME)
    assert "\n" not in str(caught.value) and "Canary" not in str(caught.value)
    assert server.asked == []
    pytest.importorskip("huggingface_hub.utils").close_session()
    monkeypatch.setenv(variable, "localhost,127.0.0.1")
    assert hub.fetch(NAME, "config.json", None, LONG_SECONDS) is not None


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of an authority of one's own, for the loopback address, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl command to make a certificate with")
    folder = tmp_path_factory.mktemp("authority")
    made, key = folder / "cert.pem", folder / "key.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(made)]
    subprocess.run([*request, *names], check=True, capture_output=True)
    return made, key


@pytest.fixture
def secure(certificate: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A hub that speaks https, with a certificate that is trusted by whoever SSL_CERT_FILE tells."""
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)
    with serving(certificate) as made, as_hub(made, tmp_path / "cache", monkeypatch):
        made.files = {"config.json": CONFIG, "model.safetensors": WEIGHTS}
        yield made


def test_an_authority_of_ones_own(secure: Server, certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, with the cure, until it is named. The variable of `requests`, which is not used, changes nothing."""
    without_pauses(monkeypatch)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    with pytest.raises(hub.OutOfReach, match=r"CERTIFICATE_VERIFY_FAILED.*name that in SSL_CERT_FILE"):
        hub.fetch(NAME, "config.json", None, LONG_SECONDS)
    assert secure.asked == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    pytest.importorskip("huggingface_hub.utils").close_session()
    for file in secure.files:
        found = hub.fetch(NAME, file, None, LONG_SECONDS)
        assert found is not None and found.read_bytes() == secure.files[file]


def test_a_redirect_to_http_is_told_no_token_and_believed_no_byte(
    secure: Server, certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was declared by https decides: another content is refused, and the right one is the right one."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with serving() as plain:
        plain.files, secure.elsewhere, plain.mode = secure.files, plain.address, "other"
        with pytest.raises(hub.OutOfReach, match=r"sent another model\.safetensors than it declared \(SHA-256 "):
            hub.fetch(NAME, "model.safetensors", None, LONG_SECONDS)
        assert cached(tmp_path) == []
        plain.mode = "sound"
        found = hub.fetch(NAME, "model.safetensors", None, LONG_SECONDS)
        assert found is not None and found.read_bytes() == WEIGHTS
        assert plain.asked and all(authorization == "" for _, authorization, _ in plain.asked)
    assert any(SECRET in authorization for _, authorization, _ in secure.asked), "the control: the hub was told it"
