"""HTTP to one server: bounded, paced, and tried again where that can help."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing, nullcontext
from typing import Any, TypeVar

import httpx2
from aiolimiter import AsyncLimiter

from gradatim.errors import GradatimError, ProblemError
from gradatim.policies.server.events import END, Events, stream, whole
from gradatim.policies.server.failures import (
    DoubtfulError,
    MalformedError,
    RefusedError,
    TemporaryError,
    UnreachableError,
    failure_of,
    failure_within,
    no_server,
    reports_error,
)
from gradatim.policies.server.options import ServerOptions, is_server_url
from gradatim.policies.server.waiting import LONGEST_RETRY_AFTER, backoff_seconds, retry_after_seconds

# Not ``openai.AsyncOpenAI``: it sends again only what fails before an answer begins, so that answers which are
# malformed or break off need all of this beside it. Its streams end alike with and without ``[DONE]``, by which an
# answer that came whole is known from one that broke off, and refuse characters whose bytes come with two events. It
# takes 3 times as long as this for an event as a dict, and 10 times for one of its own types.

Result = TypeVar("Result")
_log = logging.getLogger(__name__)
_sleep = asyncio.sleep

LONGEST_CONNECT = 10.0  # seconds; a host that is there takes a connection sooner
LONGEST_SILENCE = 3.0  # seconds that are waited without a word before a request is sent again
LOST_IN_A_ROW = 16  # requests that come to nothing, with none between that is answered, before all work ends


class Client:
    """Sends JSON to one server and reads its answers as events.

    At most ``concurrency`` requests are under way at a time. Connection errors, time-outs, answers that are broken off
    or malformed, errors within answers and the statuses of overload (429, 500, 502, 503, 504 and their like) are tried
    again after exponentially growing waits with jitter, or when the server's ``Retry-After`` says; what is waited for
    is logged as a warning before it is long. A server that never answered and takes no connection is an error at once.

    A request that comes to nothing after all retries is a :class:`ProblemError`: the problem that it was for fails. It
    is any other :class:`GradatimError`, which ends the work on all problems, where the server never answered as it
    must, takes no connection any more, or came to nothing for :data:`LOST_IN_A_ROW` requests one after the other (or
    twice its concurrency, if that is more).

    It may be used from several event loops, one after the other.

    Args:
        url: of the server, with its ``/v1``, which is added to a URL without any path.
        options: how it is asked. A connection is taken within :data:`LONGEST_CONNECT`, if the time-out is longer.
        api_key: sent as a bearer token, if any.

    Raises:
        GradatimError: if the URL is none.
    """

    def __init__(
        self,
        url: str,
        options: ServerOptions,
        api_key: str | None,
    ) -> None:
        self._base = _base_url(url)
        self.url = str(self._base.copy_with(username=None, password=None))  # as error messages show it
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._concurrency = options.concurrency
        per_minute = options.requests_per_minute
        self._apart = 60 / per_minute if per_minute else None  # seconds from request to request
        self._timeout = options.timeout
        self._connect = min(options.timeout, LONGEST_CONNECT)
        self._retries = options.retries
        self._answered = False  # ever
        self._served = False  # ever a request that was answered as it must be
        self._lost = 0  # requests in a row that came to nothing
        self._told = float("-inf")  # when a wait was last told of
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: httpx2.AsyncClient | None = None
        self._slots = asyncio.Semaphore(options.concurrency)
        self._limiter: AsyncLimiter | nullcontext[None] = nullcontext()

    async def models(self) -> list[dict[str, Any]] | None:
        """The server's models (``GET /models``), or ``None`` if it does not list them in a form that can be read."""

        async def read(events: Events) -> list[dict[str, Any]] | None:
            records = (await anext(events, END)).get("data")
            return [record for record in records if isinstance(record, dict)] if isinstance(records, list) else None

        try:
            return await self._repeat("GET", "models", None, read)
        except (MalformedError, RefusedError):
            return None
        except TemporaryError as failure:
            raise self.lost(failure) from failure

    async def send(self, path: str, body: dict[str, Any], read: Callable[[Events], Awaitable[Result]]) -> Result:
        """Post ``body`` and have ``read`` make something of the answer.

        Args:
            path: below the server's URL.
            body: the request.
            read: takes the answer's events, one for a plain JSON answer; it is called anew for every attempt, and
                the connection is closed when it returns, wherever the answer is then.

        Raises:
            RefusedError: if the server refuses the request as it is.
            ProblemError: if the server still fails after all retries and may answer other requests.
            GradatimError: if it still fails and no request can be answered.
        """
        try:
            result = await self._repeat("POST", path, body, read)
        except DoubtfulError as doubt:
            result = doubt.result
        except TemporaryError as failure:
            raise self.lost(failure) from failure
        self._served, self._lost = True, 0
        return result

    def lost(self, failure: TemporaryError | GradatimError) -> GradatimError:
        """The error for a request that came to nothing, which is counted: for this problem alone, or for all."""
        self._lost += 1
        text, options = str(failure), failure.options
        unreachable = isinstance(failure, UnreachableError)
        if isinstance(failure, TemporaryError):
            text = f"{text}, so {failure.advice}"
        if self._served and not unreachable:
            if self._lost <= max(LOST_IN_A_ROW, 2 * self._concurrency):
                return ProblemError(text, options=options)
            text = f"{text} (the {self._lost}th request in a row that came to nothing)"
        return GradatimError(text, options=options)

    async def close(self) -> None:
        """Close the connections; the client can be used again."""
        session, self._session, self._loop = self._session, None, None
        if session is not None:
            await session.aclose()

    async def _repeat(
        self, method: str, path: str, body: dict[str, Any] | None, read: Callable[[Events], Awaitable[Result]]
    ) -> Result:
        attempt, began, clock = 1, None, asyncio.get_running_loop().time
        while True:
            try:
                self._open()
                async with self._slots, self._limiter:
                    began = clock() if began is None else began
                    async with aclosing(self._events(method, path, body)) as events:
                        return await read(events)
            except TemporaryError as failure:
                if attempt > self._retries or (failure.retry_after or 0) > LONGEST_RETRY_AFTER:
                    failure.args = (f"{failure}; attempt {attempt} was the last",)
                    raise
                wait = backoff_seconds(attempt - 1, failure.retry_after, random.random())
                if began is not None and clock() + wait - began > LONGEST_SILENCE:
                    self._tell(f"{failure}; attempt {attempt + 1} of {self._retries + 1} in {wait:.0f} s", clock())
                await _sleep(wait)
                attempt += 1

    def _tell(self, what: str, now: float) -> None:
        """Log what is waited for, once for all requests that wait at the same time."""
        if now - self._told > LONGEST_SILENCE:
            self._told = now
            _log.warning("%s", what)

    async def _events(self, method: str, path: str, body: dict[str, Any] | None) -> Events:
        """The events of the answer to one request; whatever ends them before their time is one of this package's
        errors. A list of models that is refused, or makes the server fail, is not there."""
        session, url, model = self._open(), f"{self.url}/{path}", (body or {}).get("model")
        try:
            async with session.stream(method, path, json=body) as response:
                self._answered = True
                if response.status_code >= 300:
                    text = (await response.aread()).decode(errors="replace")
                    retry_after = retry_after_seconds(response.headers.get("retry-after"))
                    failure = failure_of(url, model, response.status_code, text, retry_after)
                    if method == "GET" and (response.status_code == 500 or not isinstance(failure, TemporaryError)):
                        raise RefusedError(str(failure), text)
                    raise failure
                if "event-stream" in response.headers.get("content-type", ""):
                    events = stream(url, response.aiter_bytes())
                else:
                    events = whole(url, await response.aread(), listing=method == "GET")
                async for event in events:
                    if reports_error(event):
                        raise failure_within(url, model, event)
                    yield event
        except httpx2.HTTPError as error:
            raise self._failure(url, error) from error

    def _failure(self, url: str, error: httpx2.HTTPError) -> Exception:
        """What the failure of a connection or of what came through it means."""
        if isinstance(error, httpx2.ConnectError):
            if not self._answered:
                return no_server(self.url, _said(error))
            return UnreachableError(f"{url} cannot be reached any more ({_said(error)})")
        if isinstance(error, httpx2.ConnectTimeout):
            return TemporaryError(f"{url} takes no connection for {self._connect:g} s")
        if isinstance(error, httpx2.TimeoutException):
            return TemporaryError(f"{url} was silent for {self._timeout:g} s")
        return TemporaryError(f"{url} broke off ({_said(error)})")

    def _open(self) -> httpx2.AsyncClient:
        """The connections of the running event loop; those of a loop that ended are of no use."""
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            self._loop = loop
            self._slots = asyncio.Semaphore(self._concurrency)
            self._limiter = AsyncLimiter(1, self._apart) if self._apart else nullcontext()
            self._session = httpx2.AsyncClient(
                base_url=self._base,
                headers=self._headers,
                timeout=httpx2.Timeout(self._timeout, connect=self._connect, pool=None),
                # no bound here: requests wait for a slot, and one that is cancelled may keep its place in the pool
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=self._concurrency),
            )
        return self._session


def _base_url(url: str) -> httpx2.URL:
    try:
        base = httpx2.URL(url.rstrip("/"))
    except httpx2.InvalidURL as error:
        raise GradatimError(f"{url!r} is not a URL ({error}); write one like http://127.0.0.1:8000/v1") from error
    if not is_server_url(url) or not base.host:
        raise GradatimError(f"{url!r} is not a server's URL; write one like http://127.0.0.1:8000/v1")
    return base if base.path.strip("/") else base.copy_with(path="/v1")


def _said(error: BaseException) -> str:
    """What an error says, or the one deepest below it: that of the system, where there is one."""
    below: BaseException | None = error
    while below is not None:
        error = below.exceptions[0] if isinstance(below, BaseExceptionGroup) else below
        below = error.__cause__ or error.__context__
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    return str(error) or type(error).__name__
