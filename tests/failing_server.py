"""An HTTP server with OpenAI's API and a model that is a function, which can be told to fail in any way."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from gradatim.policies.server import ServerOptions, ServerPolicy

Writes = Callable[[str, int], list[str]]
Fault = Callable[["Handler", dict[str, Any]], None]

LOG_PROBABILITY = -0.25


class FailingServer(ThreadingHTTPServer):
    """A server on 127.0.0.1 whose model is ``writes``: the tokens, as texts, that follow a text under a seed. The end
    of the list ends the text. A token counts one, the end counts one, and so does each character of a prompt.

    Attributes:
        requests: the bodies of all posts, in the order of arrival.
        faults: the next posts fail so, one after the other; ``None`` lets a post through.
        owner: ``owned_by`` of the model.
        names: of the models listed; ``None`` lists none (404).
        bare_list: whether they are listed as a JSON array, without the object around it.
        key: that is demanded, if any.
        completions: whether there is ``/completions``.
        refuses: fields that are answered with 422.
        shows: which of ``logprobs``, ``usage``, ``stream`` and ``stop`` are honoured, as far as asked for.
        listing: the body of the list of models, if not a proper one.
        listing_status: its status then.
        answers_as: the name of the model in answers, if not the one that was asked for.
        trims: whether the chat template takes blank characters off the ends of a message.
        continues: whether a partial assistant message is continued; else the answer begins anew with it.
        context: tokens of the model's context.
        tokens_a_chunk: tokens in one event of a stream.
        log_probability: of the token at a place of an answer.
    """

    daemon_threads = True

    def __init__(self, writes: Writes, handler: type[Handler] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), handler or Handler)
        self.writes = writes
        self.requests: list[dict[str, Any]] = []
        self.faults: list[Fault | None] = []
        self.owner = "somebody"
        self.names: list[str] | None = ["model"]
        self.bare_list = False
        self.listing: bytes | None = None
        self.listing_status = 200
        self.answers_as: str | None = None
        self.trims = False
        self.key: str | None = None
        self.completions = True
        self.refuses: frozenset[str] = frozenset()
        self.shows = frozenset({"logprobs", "usage", "stream", "stop"})
        self.continues = True
        self.context = 1 << 20
        self.tokens_a_chunk = 1
        self.log_probability: Callable[[int], float] = lambda place: LOG_PROBABILITY
        self.released = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def generations(self) -> list[dict[str, Any]]:
        """The requests that were for text, not for the length of a prompt."""
        return [body for body in self.requests if body.get("stream")]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up in the middle are what is tested here."""


@contextmanager
def serving(
    writes: Writes, handler: type[Handler] | None = None, kind: type[FailingServer] | None = None
) -> Iterator[FailingServer]:
    """A running server, stopped at the end."""
    server = (kind or FailingServer)(writes, handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are sent apart, and the second would wait for the first
    server: FailingServer

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        if self.path != "/v1/models" or self.server.names is None:
            return self.send_object({"detail": "Not Found"}, 404)
        if self.server.listing is not None:
            return self.send_content(self.server.listing, self.server.listing_status)
        records = [{"id": name, "object": "model", "owned_by": self.server.owner} for name in self.server.names]
        return self.send_object(records if self.server.bare_list else {"object": "list", "data": records})

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append(body)
            fault = server.faults.pop(0) if server.faults else None
        if fault is not None:
            return fault(self, body)
        if server.key is not None and self.headers.get("Authorization") != f"Bearer {server.key}":
            return self.send_error_object(401, "Incorrect API key provided.")
        if not self.path.startswith("/v1/") or (self.path == "/v1/completions" and not server.completions):
            return self.send_object({"detail": "Not Found"}, 404)
        if server.names is not None and body["model"] not in server.names:
            return self.send_error_object(404, f"The model `{body['model']}` does not exist.")
        if refused := server.refuses & set(body):
            return self.send_object({"detail": f"Unexpected fields in the request: {', '.join(refused)}"}, 422)
        prompt = self.prompt(body)
        limit = body.get("max_completion_tokens", body.get("max_tokens", 16))
        if len(prompt) + limit > server.context:
            return self.send_error_object(
                400, f"This model's maximum context length is {server.context} tokens; you asked for more."
            )
        choices = [self.choice(body, prompt, limit, index) for index in range(body.get("n", 1))]
        usage = {"prompt_tokens": len(prompt), "completion_tokens": sum(choice["tokens"] for choice in choices)}
        if body.get("stream") and "stream" in server.shows:
            return self.send_stream(body, choices, usage)
        return self.send_whole(body, choices, usage)

    def prompt(self, body: dict[str, Any]) -> str:
        if "prompt" in body:
            return str(body["prompt"])
        contents = [str(message["content"]) for message in body["messages"]]
        if self.server.trims and body.get("continue_final_message"):
            contents[-1] = contents[-1].strip()
        return "".join(contents)

    def choice(self, body: dict[str, Any], prompt: str, limit: int, index: int) -> dict[str, Any]:
        """What one choice says: token texts, why it ends, and how many tokens it took."""
        server = self.server
        tokens = server.writes(prompt, body.get("seed", 0) + index)
        if body.get("continue_final_message") and not server.continues:
            tokens = [*body["messages"][-1]["content"], *tokens]
        finish, matched = ("stop", None) if len(tokens) < limit else ("length", None)
        tokens = [*tokens, ""][:limit]
        for end in body.get("stop", []) if "stop" in server.shows else []:
            text, count = "", 0
            while count < len(tokens) and end not in text:
                text, count = text + tokens[count], count + 1
            if end in text:
                finish, matched = "stop", end
                kept = text.index(end)
                places = [sum(map(len, tokens[:place])) for place in range(count)]
                tokens = [token[: max(0, kept - at)] for token, at in zip(tokens, places, strict=False)]
        return {
            "index": index,
            "texts": tokens,
            "finish": finish,
            "matched": matched,
            "tokens": len(tokens),
            "shown": 0,
        }

    def part(self, body: dict[str, Any], choice: dict[str, Any], texts: list[str], last: bool) -> dict[str, Any]:
        """One choice of an event."""
        text, chat = "".join(texts), "messages" in body
        place = "delta" if body.get("stream") and "stream" in self.server.shows else "message"
        part: dict[str, Any] = {"index": choice["index"], "finish_reason": choice["finish"] if last else None}
        part |= {place: {"content": text}} if chat else {"text": text}
        if last and self.server.owner == "vllm" and "stop" in self.server.shows:
            part["stop_reason"] = choice["matched"]
        if body.get("logprobs") and "logprobs" in self.server.shows:
            first = choice["shown"]
            choice["shown"] += len(texts)
            values = [self.server.log_probability(place) for place in range(first, choice["shown"])]
            part["logprobs"] = (
                {"content": [{"token": token, "logprob": value} for token, value in zip(texts, values, strict=True)]}
                if chat
                else {"tokens": texts, "token_logprobs": values}
            )
        return part

    def event(self, body: dict[str, Any], choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": "1", "model": self.server.answers_as or body["model"], "choices": choices}

    def send_whole(self, body: dict[str, Any], choices: list[dict[str, Any]], usage: dict[str, int]) -> None:
        event = self.event(body, [self.part(body, choice, choice["texts"], True) for choice in choices])
        self.send_object(event | ({"usage": usage} if "usage" in self.server.shows else {}))

    def send_stream(self, body: dict[str, Any], choices: list[dict[str, Any]], usage: dict[str, int]) -> None:
        size = self.server.tokens_a_chunk
        self.begin_stream()
        for start in range(0, max(len(choice["texts"]) for choice in choices), size):
            for choice in choices:
                texts = choice["texts"][start : start + size]
                if texts:
                    last = start + size >= len(choice["texts"])
                    self.send_data(json.dumps(self.event(body, [self.part(body, choice, texts, last)])))
        if "usage" in self.server.shows and body.get("stream_options"):
            self.send_data(json.dumps(self.event(body, []) | {"usage": usage}))
        self.send_data("[DONE]")
        self.end_stream()

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send_data(self, data: str) -> None:
        content = f"data: {data}\n\n".encode()
        self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        self.wfile.flush()

    def end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def send_object(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_content(json.dumps(value).encode(), status, headers)

    def send_content(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def send_error_object(self, status: int, message: str) -> None:
        self.send_object({"error": {"message": message, "type": "error", "code": status}}, status)


def status(code: int, message: str = "no", headers: dict[str, str] | None = None) -> Fault:
    """An answer with an error status."""
    return lambda handler, body: handler.send_object({"error": {"message": message}}, code, headers)


def content(data: bytes) -> Fault:
    """An answer with this body."""
    return lambda handler, body: handler.send_content(data)


def events(*data: str) -> Fault:
    """A stream of these events, which ends properly."""

    def fault(handler: Handler, body: dict[str, Any]) -> None:
        handler.begin_stream()
        for each in data:
            handler.send_data(each)
        handler.end_stream()

    return fault


def named_event(name: str, data: str) -> Fault:
    """A stream of one event that has a name."""

    def fault(handler: Handler, body: dict[str, Any]) -> None:
        content = f"event: {name}\ndata: {data}\n\n".encode()
        handler.begin_stream()
        handler.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        handler.end_stream()

    return fault


def hang_up_after(data: str) -> Fault:
    """A stream that breaks off behind this event."""

    def fault(handler: Handler, body: dict[str, Any]) -> None:
        handler.begin_stream()
        handler.send_data(data)
        handler.close_connection = True

    return fault


def hang_up(handler: Handler, body: dict[str, Any]) -> None:
    """No answer at all."""
    handler.close_connection = True


def hang_up_within(handler: Handler, body: dict[str, Any]) -> None:
    """Half a stream, then nothing."""
    handler.begin_stream()
    handler.send_data(json.dumps({"choices": [{"index": 0, "text": "1", "finish_reason": None}]}))
    handler.close_connection = True


def silence(handler: Handler, body: dict[str, Any]) -> None:
    """Nothing until the test is over."""
    handler.server.released.wait(30)
    handler.close_connection = True


def asking(url: str, **settings: Any) -> ServerPolicy:
    """A policy behind the server at ``url``; what is no option of a server is the policy's own."""
    asked = {name: settings.pop(name) for name in ServerOptions.__pydantic_fields__ if name in settings}
    return ServerPolicy(url, ServerOptions(**asked), **settings)
