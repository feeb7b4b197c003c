"""What can go wrong with a server, each in one sentence that says what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from gradatim.errors import GradatimError, ProblemError

TEMPORARY_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_LONGEST_QUOTE = 300
_CONTEXT = re.compile(
    r"context (length|size|window)|max_model_len|maximum (model|input|sequence) length", re.IGNORECASE
)


class TemporaryError(Exception):
    """A request that failed and may succeed when it is sent again.

    Attributes:
        retry_after: seconds that the server asks to wait, if it does.
        advice: what to do where it never succeeds.
        options: arguments that the advice names, as in :class:`gradatim.errors.GradatimError`.
    """

    advice = "check that the server runs and is not overloaded, lower concurrency or set requests_per_minute"
    options: tuple[str, ...] = ("concurrency", "requests_per_minute")

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class UnreachableError(TemporaryError):
    """A server that answered before takes no connection any more."""


class MalformedError(TemporaryError):
    """An answer that is not what it should be: no JSON, an error within it, or another form than OpenAI's."""

    advice = "check that it is an OpenAI API, and look into the server's log"
    options = ()


class DoubtfulError(TemporaryError):
    """An answer that can be read and seems flawed. Where it cannot be asked for again, it is taken as it is.

    Attributes:
        result: what was read.
    """

    def __init__(self, reason: str, result: Any) -> None:
        super().__init__(reason)
        self.result = result


class UnwantedError(GradatimError):
    """Nobody wants the answer any more; nothing is wrong."""


class RefusedError(GradatimError):
    """The server refuses the request as it is; ``detail`` is its own explanation."""

    def __init__(self, message: str, detail: str, *, options: tuple[str, ...] = ()) -> None:
        super().__init__(message, options=options)
        self.detail = detail


class ContextError(RefusedError, ProblemError):
    """The prompt and the tokens asked for do not fit the model's context."""


class NotFoundError(RefusedError):
    """The server knows no such route or model."""


def no_server(url: str, reason: str) -> GradatimError:
    """The error for a server that never answered and takes no connection."""
    return GradatimError(f"there is no server at {url} ({reason}); start it, or check the host and the port")


def reports_error(event: Mapping[str, Any]) -> bool:
    """Whether a JSON object of an answer reports an error, in one of the forms that there are."""
    if event.get("error") or event.get("object") == "error":  # the latter as vLLM had it
        return True
    holds_something = any(name in event for name in ("choices", "data", "usage"))
    return not holds_something and any(event.get(name) for name in ("message", "detail", "msg"))


def failure_within(url: str, model: str | None, event: Mapping[str, Any]) -> Exception:
    """The exception for an error that a server reports within an answer whose status is 200.

    Where it names the status that it should have had, the error is what it would be with that status.

    Args:
        url: of the request.
        model: that was asked for.
        event: the JSON object that reports it.
    """
    text = json.dumps(event)
    error = event.get("error")
    named = error.get("code", error.get("status")) if isinstance(error, Mapping) else event.get("code")
    status = int(named) if isinstance(named, int | str) and str(named).isdecimal() and len(str(named)) == 3 else 0
    if 400 <= status < 500 and status not in TEMPORARY_STATUSES:
        return failure_of(url, model, status, text, None)
    return MalformedError(f"{url} reports an error within its answer ({explanation(text)})")


def failure_of(url: str, model: str | None, status: int, text: str, retry_after: float | None) -> Exception:
    """The exception for an answer with an error status.

    Args:
        url: of the request.
        model: that was asked for.
        status: of the answer.
        text: its body.
        retry_after: seconds that it asks to wait.
    """
    detail = explanation(text)
    says = f"{url} answers {status}" + (f" ({detail})" if detail else "")
    if status in (401, 403):
        advice = f"{says}; put a key that the server accepts into the environment's OPENAI_API_KEY"
        return GradatimError(advice) if status == 401 else RefusedError(advice, detail)  # 403 may be of one prompt
    if status in TEMPORARY_STATUSES:
        return TemporaryError(says, retry_after)
    if status in (400, 413, 422) and (status == 413 or _CONTEXT.search(detail)):
        return ContextError(
            f"{says}; use a shorter prompt, a lower max_step_tokens or a model with a longer context",
            detail,
            options=("max_step_tokens",),
        )
    if status in (404, 405):
        return NotFoundError(f"{says}; check the URL (it usually ends in /v1) and the model's name {model!r}", detail)
    return RefusedError(f"{says}; change the setting that it names or use another server", detail)


def explanation(text: str) -> str:
    """The explanation in the body of an error, in the shapes that servers give it, on one line."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    while isinstance(value, dict):
        inner = next((value[key] for key in ("error", "message", "detail", "msg") if value.get(key)), None)
        value = json.dumps(value) if inner is None else inner
    line = " ".join((value if isinstance(value, str) else json.dumps(value)).split()).rstrip(".")
    line = line.encode("utf-8", "replace").decode()  # halves of characters cannot be printed
    return line if len(line) <= _LONGEST_QUOTE else line[:_LONGEST_QUOTE] + "…"
