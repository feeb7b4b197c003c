"""What a server's answer holds: the JSON objects of a plain answer or of a stream of server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

from gradatim.policies.server.failures import MalformedError

Event = dict[str, Any]
Events = AsyncGenerator[Event, None]

END: Final[Event] = {}
"""The last of an answer's events, compared by identity: the answer came whole, and was not broken off."""

_QUOTED = 80  # bytes of an answer that an error shows


def object_of(url: str, content: bytes) -> Event:
    """A JSON object of an answer.

    Bytes that are no UTF-8 become lone surrogates (``surrogateescape``): a character whose bytes are divided between
    two events is put together where their texts are (:mod:`gradatim.policies.server.characters`).

    Raises:
        MalformedError: if it is none.
    """
    try:
        value = json.loads(content.decode("utf-8-sig", "surrogateescape"))
    except RecursionError as error:
        raise MalformedError(f"{url} answers in JSON that is nested too deeply to be an answer") from error
    except ValueError as error:
        begin = content[:_QUOTED].decode(errors="replace")
        raise MalformedError(f"{url} does not answer in JSON ({begin!r})") from error
    if not isinstance(value, dict):
        raise MalformedError(f"{url} answers with a {type(value).__name__}")
    return value


async def whole(url: str, content: bytes, *, listing: bool) -> Events:
    """The event of a plain answer. Some servers leave out the object around a list of models."""
    if listing and content.lstrip().startswith(b"["):
        content = b'{"data": %s}' % content
    yield object_of(url, content)
    yield END


async def stream(url: str, chunks: AsyncIterator[bytes]) -> Events:
    """The events of a server-sent event stream, up to ``[DONE]`` or its end.

    Lines end at line feeds only: other characters that end a line in Python stand unescaped in JSON strings. An event
    that the protocol calls ``error`` holds the server's error, whatever its form.
    """
    name = b""
    async for line in _lines(chunks):
        field, _, text = (part.strip() for part in line.partition(b":"))
        if not field and not text:
            name = b""
        elif field == b"event":
            name = text
        elif field == b"data" and text == b"[DONE]":
            yield END
            return
        elif field == b"data" and text:
            event = object_of(url, text)
            yield {"error": event} if name == b"error" and "error" not in event else event


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
    yield rest
