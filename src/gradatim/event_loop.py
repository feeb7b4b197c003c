"""Asynchronous work from synchronous functions, and blocking work from asynchronous ones.

Notebooks and servers run an event loop of their own, in which ``asyncio.run`` refuses to start another.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Generic, ParamSpec, TypeVar

Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")
_LONGEST_DEAF = 0.1  # seconds until an interrupt that is no signal of the system is noticed


_BLOCKING = "gradatim-blocking"


def _one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix=_BLOCKING)


_one_by_one = _one_thread()


def _forget_thread() -> None:
    """A forked program has none of the threads of the one that it came from."""
    global _one_by_one
    _one_by_one = _one_thread()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_thread)


def run_to_end(work: Coroutine[Any, Any, Result]) -> Result:
    """The result of a coroutine, for a function that is not asynchronous itself.

    It runs in an event loop of its own: in this thread where none is running, else in a thread beside, for which this
    one waits. So a synchronous function can be called from a notebook's cell; like any function that takes long, it
    holds up the loop that called it. Ctrl-C cancels the work and waits until it has ended.

    Raises:
        BaseException: whatever ``work`` raises.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    beside = _Beside(work)
    thread = threading.Thread(target=contextvars.copy_context().run, args=(beside.run,), name="gradatim-event-loop")
    thread.start()
    try:
        while not beside.ended(_LONGEST_DEAF):
            pass
    except BaseException:
        beside.cancel()
        beside.ended()
        raise
    finally:
        thread.join()
    return beside.result()


class _Beside(Generic[Result]):
    """A coroutine and the loop that runs it in another thread."""

    def __init__(self, work: Coroutine[Any, Any, Result]) -> None:
        self._work = work
        self._cancelled = False
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Result] | None = None
        self._outcome: Future[Result] = Future()

    def run(self) -> None:
        try:
            self._outcome.set_result(asyncio.run(self._main()))
        except BaseException as error:
            self._outcome.set_exception(error)

    async def _main(self) -> Result:
        with self._lock:
            self._loop = asyncio.get_running_loop()
            self._task = self._loop.create_task(self._work)
            if self._cancelled:
                self._task.cancel()
        return await self._task

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            if self._loop is not None and self._task is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._task.cancel)

    def ended(self, seconds: float | None = None) -> bool:
        """Wait until it has ended, or for so many seconds; returns whether it has."""
        return bool(wait([self._outcome], seconds).done)

    def result(self) -> Result:
        return self._outcome.result()


async def without_blocking(
    function: Callable[Parameters, Result], *arguments: Parameters.args, **keywords: Parameters.kwargs
) -> Result:
    """The result of a function that may take long and computes nothing in this process, such as a verification that
    waits for a sandbox; the event loop goes on meanwhile.

    Such functions run one after the other in one thread for the whole program, since those of a user's own need not
    know of threads. One that such a function waits for runs at once.

    Raises:
        Exception: whatever ``function`` raises.
    """
    if threading.current_thread().name.startswith(_BLOCKING):
        return function(*arguments, **keywords)
    context = contextvars.copy_context()
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_one_by_one, lambda: context.run(function, *arguments, **keywords))
