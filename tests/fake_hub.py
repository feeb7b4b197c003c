"""A model hub on the loopback interface, which can be told to give, refuse, fail and be silent."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import gradatim.hub as hub

COMMIT = "0" * 40
REFUSALS = {
    "missing": (401, "RepoNotFound"),  # as the hub says it to whom is not logged in
    "gone": (404, "RepoNotFound"),
    "gated": (401, "GatedRepo"),
    "not allowed": (403, "GatedRepo"),
    "token": (401, ""),
    "overloaded": (503, ""),
}


class FakeHub(ThreadingHTTPServer):
    """The hub.

    Attributes:
        folders: what it has, by id.
        answers: how it answers for an id: a key of :data:`REFUSALS`, or ``silence``.
        requests: the method and path of each about a model or a data set.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folders: dict[str, Path] = {}
        self.answers: dict[str, str] = {}
        self.requests: list[str] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        if not self.path.startswith("/api/agent"):  # which the library asks once in its life, for itself
            self.server.requests.append(f"{self.command} {self.path}")
        parts = self.path.removeprefix("/api/models").removeprefix("/datasets").strip("/").split("/")
        name, rest = "/".join(parts[:2]), parts[2:]
        answer = self.server.answers.get(name, "missing" if name not in self.server.folders else "")
        if answer == "silence":
            self.server.released.wait(60)
        elif answer:
            status, code = REFUSALS[answer]
            self.send(
                status, b"", {"X-Error-Code": code, "X-Error-Message": "Invalid credentials in Authorization header"}
            )
        elif rest[:1] != ["resolve"]:
            found: object = [] if rest[:1] == ["tree"] else {"id": name, "sha": COMMIT, "siblings": []}
            self.send(200, json.dumps(found).encode(), {})
        elif (path := self.server.folders[name] / "/".join(rest[2:])).is_file():
            content = path.read_bytes()
            etag = hashlib.sha256(content).hexdigest()
            self.send(200, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'})
        else:
            self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})

    def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, text in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def use_hub(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have everything in this process use the hub at ``url`` and keep what it gives in ``cache``."""
    import datasets

    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", url)
    monkeypatch.setattr("transformers.utils.hub._hf_api", None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", url)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache / "datasets")
    monkeypatch.setattr(hub, "_seen", {})
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@contextmanager
def serving() -> Iterator[FakeHub]:
    """A running hub, stopped at the end."""
    server = FakeHub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


def refusing_url() -> str:
    """The URL of a port on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"
