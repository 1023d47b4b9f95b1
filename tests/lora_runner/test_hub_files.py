"""What is said of a hub id that cannot be loaded: with a hub on this machine, and without one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from huggingface_hub import constants

from lora_runner.base.load_model import BaseSpec, check_weights
from lora_runner.errors import ModelError
from lora_runner.hub_files import hub_problem, offline_problem

ANSWERS = {
    "/acme/base-7b/resolve/main/config.json": (200, ""),
    "/acme/gguf/resolve/main/config.json": (404, "EntryNotFound"),
    "/acme/base-7b/resolve/v2/config.json": (404, "RevisionNotFound"),
    "/acme/secret/resolve/main/config.json": (403, "GatedRepo"),
    "/datasets/acme/pairs/resolve/main/README.md": (404, "EntryNotFound"),
}


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does, by its header `X-Error-Code`."""

    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        type(self).asked.append(self.path)
        status, code = ANSWERS.get(self.path, (401, "RepoNotFound"))
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", '"an-etag"')
        self.send_header("Content-Length", "2")
        self.end_headers()

    def do_GET(self) -> None:
        body = json.dumps([{"id": "acme/base-7b"}, {"id": "acme/other"}]).encode()
        self.send_response(200 if self.path.startswith("/api/models?author=acme&") else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """As without HF_HUB_OFFLINE, with an empty cache and no token."""
    for name, value in (("HF_HUB_OFFLINE", False), ("HF_HUB_CACHE", str(tmp_path / "hub"))):
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN_PATH", "AGENT_HARNESSES_PATH"):  # the second is written by the library
        monkeypatch.setattr(constants, name, str(tmp_path / name))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "SWEEPS_HUB_GIVEN_UP"):
        monkeypatch.setenv(name, "")
    hub_problem.cache_clear()
    yield
    hub_problem.cache_clear()


@pytest.fixture
def hub(online: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a hub on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    use(monkeypatch, url)
    yield url
    server.shutdown()
    thread.join()
    server.server_close()


def use(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )


def test_what_the_hub_has_is_no_problem_and_is_asked_for_once(hub: str) -> None:
    Hub.asked.clear()
    assert hub_problem("acme/base-7b", "model") is None
    assert hub_problem("acme/base-7b", "model") is None
    assert hub_problem("acme/pairs", "dataset") is None
    assert len(Hub.asked) == 2


@pytest.mark.parametrize(
    ("name", "revision", "what", "to_do"),
    [
        ("acme/base-7B-typo", None, "is not on {hub}, or it is private and needs HF_TOKEN", "'acme/base-7b'"),
        ("acme/base-7b", "v2", "has no revision 'v2' on the hub", "give a branch, tag or commit"),
        ("acme/secret", None, "is gated, and no token is set", "accept its terms at {hub}/acme/secret"),
        ("acme/gguf", None, "has no config.json on the hub", "give the base model"),
        ("a/b/c", None, "is no hub id", "give owner/name, or a path"),
    ],
)
def test_what_is_missing_and_what_to_do_are_two_lines(
    hub: str, name: str, revision: str | None, what: str, to_do: str
) -> None:
    problem = hub_problem(name, "model", revision)
    assert problem is not None
    first, second = problem.splitlines()
    assert first.startswith(f"model {name!r} ")
    assert first.endswith(":")
    assert what.format(hub=hub) in first
    assert to_do.format(hub=hub) in second
    with pytest.raises(ModelError) as caught:
        check_weights(BaseSpec(model=name, revision=revision))
    assert str(caught.value) == problem


def test_a_hub_that_does_not_answer_is_given_up_at_once_and_for_all(
    online: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, "http://127.0.0.1:9")
    started = time.monotonic()
    problem = hub_problem("acme/base-7b", "model")
    assert time.monotonic() - started < 10  # the library alone takes 40 s
    assert problem is not None
    assert "is not in this machine's cache, and http://127.0.0.1:9 does not answer (" in problem
    assert "run `hf download acme/base-7b` where there is a network" in problem
    assert constants.is_offline_mode()
    assert hub_problem("acme/pairs", "dataset") is None  # `datasets` looks into its cache
    assert "http://127.0.0.1:9 does not answer" in offline_problem("acme/pairs", "dataset")


def test_a_cached_model_is_used_though_the_hub_does_not_answer(
    online: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(monkeypatch, "http://127.0.0.1:9")
    repo = tmp_path / "hub" / "models--acme--base-7b"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0" * 40)
    (repo / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (repo / "snapshots" / ("0" * 40) / "config.json").write_text("{}")
    assert hub_problem("acme/base-7b", "model") is None
    assert "Did you mean 'acme/base-7b'?" in str(hub_problem("acme/base-7", "model"))
