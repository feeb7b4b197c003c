"""A server of which every so many answers are malformed, each in another way, while the others are good."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from zlib import crc32

from failing_server import FailingServer, Handler, Writes, serving

HTML = b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"
OVERLOADED = {"error": {"message": "The engine is overloaded, try again", "type": "overloaded_error", "code": 529}}

Spoil = Callable[["BadHandler", list[bytes]], None]
"""Sends what becomes of an answer: the data of its events, of which a plain answer has one."""


def _events(change: Callable[[list[bytes]], Sequence[bytes]]) -> Spoil:
    """An answer with other data, in as many events."""

    def spoil(handler: BadHandler, data: list[bytes]) -> None:
        handler.send_answer(change(data))

    return spoil


def _body(content: bytes, kind: str) -> Spoil:
    """Something else than an answer, with status 200."""

    def spoil(handler: BadHandler, data: list[bytes]) -> None:
        Handler.send_content(handler, content, 200, {"Content-Type": kind})

    return spoil


def _values(change: Callable[[list[Any]], Any]) -> Spoil:
    """Other log-probabilities in every event, in either API's form."""

    def of_event(data: bytes) -> bytes:
        if data == b"[DONE]":
            return data
        event = json.loads(data)
        for choice in event["choices"]:
            shown = choice.get("logprobs") or {}
            if "token_logprobs" in shown:
                shown["token_logprobs"] = change(shown["token_logprobs"])
            elif "content" in shown:
                new = change([entry["logprob"] for entry in shown["content"]])
                pairs = zip(shown["content"], new or [], strict=False)
                shown["content"] = None if new is None else [{**entry, "logprob": value} for entry, value in pairs]
        return json.dumps(event).encode()

    return _events(lambda data: [of_event(each) for each in data])


def _twice(data: list[bytes]) -> list[bytes]:
    """The second event that has text comes twice, and so do the last one and the usage."""
    place = min(1, len(data) - 1)
    return [*data[: place + 1], *data[place:]] if len(data) > 1 else data


def _whole_text(change: Callable[[str], Any]) -> Spoil:
    """Other text in every choice."""

    def of_event(data: bytes) -> bytes:
        if data == b"[DONE]":
            return data
        event = json.loads(data)
        for choice in event["choices"]:
            if "text" in choice:
                choice["text"] = change(choice["text"])
            else:
                holder = choice.get("delta", choice.get("message"))
                holder["content"] = change(holder["content"])
        return json.dumps(event, ensure_ascii=False).encode("utf-8", "surrogateescape")

    return _events(lambda data: [of_event(each) for each in data])


SPOILS: Mapping[str, Spoil] = {
    "cut JSON": _events(lambda data: [data[0][: len(data[0]) // 2]]),
    "an HTML page": _body(HTML, "text/html"),
    "an HTML page that is called JSON": _body(HTML, "application/json"),
    "an empty body": _body(b"", "application/json"),
    "an empty stream": _body(b"", "text/event-stream"),
    "an overload error inside": _events(lambda data: [*data[:1], json.dumps(OVERLOADED).encode()][-2:]),
    "an overload error alone": _events(lambda data: [json.dumps(OVERLOADED).encode()]),
    "invalid UTF-8": _whole_text(lambda text: f"\udcff{text}"),
    "a number for the text": _whole_text(lambda text: 7),
    "a list": _events(lambda data: [b"[" + data[0] + b"]", *data[1:]]),
    "nothing": _events(lambda data: [b"null", *data[1:]]),
    "a message": _events(lambda data: [b'{"detail": "worker lost"}']),
    "JSON that is nested deeply": _events(lambda data: [b'{"choices":' + b"[" * 100_000]),
    "no choices": _events(lambda data: [b'{"id": 1}', *data[1:]]),
    "an event twice": _events(_twice),
    "null for log-probabilities": _values(lambda values: None),
    "nulls among log-probabilities": _values(lambda values: [None] * len(values)),
    "short log-probabilities": _values(lambda values: values[:-1]),
    "log-probabilities above 0": _values(lambda values: [0.5] * len(values)),
    "log-probabilities that are no numbers": _values(lambda values: [float("nan")] * len(values)),
    "log-probabilities that are texts": _values(lambda values: ["-1"] * len(values)),
}


class BadHandler(Handler):
    """Spoils an answer where its turn has come."""

    server: BadServer
    _spoil: Spoil | None = None
    _data: list[bytes]
    _streams = False

    def do_POST(self) -> None:
        self._spoil = None
        self._data, self._streams = [], False
        super().do_POST()

    def prompt(self, body: dict[str, Any]) -> str:
        with self.server.lock:
            self._spoil = self.server.next_spoil(body)
        return super().prompt(body)

    def begin_stream(self) -> None:
        if self._spoil is None:
            super().begin_stream()
        self._streams = True

    def send_data(self, data: str) -> None:
        if self._spoil is None:
            super().send_data(data)
        else:
            self._data.append(data.encode())

    def end_stream(self) -> None:
        if self._spoil is None:
            super().end_stream()
        else:
            self._spoil(self, self._data)

    def send_content(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        if self._spoil is None or status != 200:
            super().send_content(content, status, headers)
        else:
            self._spoil(self, [content])

    def send_answer(self, data: Sequence[bytes]) -> None:
        """An answer of this data, in the form in which it was to come."""
        if not self._streams:
            super().send_content(data[0], 200, None)
            return
        super().begin_stream()
        for each in data:
            content = b"data: " + each + b"\n\n"
            self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        super().end_stream()


class BadServer(FailingServer):
    """A server that spoils the first answer to one of ``every`` different requests; all answers if that is 1, and none
    if it is 0.

    Attributes:
        every: how many requests there are to a bad answer.
        spoils: the ways in which answers are bad, taken in turn.
        answered: posts so far.
        spoilt: those of them that were.
    """

    every = 10
    spoils: Iterator[Spoil]
    answered = 0

    def __init__(self, writes: Writes, handler: type[Handler] | None = None) -> None:
        super().__init__(writes, handler)
        self.spoilt: list[str] = []

    def next_spoil(self, body: Mapping[str, Any]) -> Spoil | None:
        """How the answer to this request is spoilt."""
        self.answered += 1
        request = json.dumps(body, sort_keys=True)
        if self.every == 1 or (self.every and crc32(request.encode()) % self.every == 0 and request not in self.spoilt):
            self.spoilt.append(request)
            return next(self.spoils)
        return None


@contextmanager
def serving_badly(writes: Writes, every: int = 10, spoils: Mapping[str, Spoil] = SPOILS) -> Iterator[BadServer]:
    """A running bad server, stopped at the end. Its tokens have different log-probabilities, as a model's have."""
    with serving(writes, BadHandler, BadServer) as server:
        assert isinstance(server, BadServer)
        server.every, server.spoils = every, itertools.cycle(spoils.values())
        server.log_probability = lambda place: -0.1 - place / 128
        yield server
