"""What can be said of a server, without what it needs to be asked."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from gradatim.part import options

Api = Literal["auto", "completions", "chat"]


@options
class ServerOptions:
    """How a server is asked."""

    model: str | None = None
    """The model's name at the server; `null` takes the server's only one."""
    api: Api = "auto"
    """`completions` continues text, `chat` continues a message; `auto` is chat where a chat format is given or the
    server has no completions."""
    concurrency: PositiveInt = 16
    """Requests that are under way at a time."""
    requests_per_minute: PositiveFloat | None = None
    """Requests are spaced so that no more are sent in a minute; `null` for no limit."""
    timeout: PositiveFloat = 120.0
    """The longest silence within an answer, in seconds; a connection is taken sooner."""
    retries: NonNegativeInt = 6
    """How often a request is sent again after a failure that may pass. A server that never answered and takes no
    connection is not tried again."""


def is_server_url(name: str) -> bool:
    """Whether a policy's name is a server's URL, and not a model's."""
    return name.startswith(("http://", "https://"))
