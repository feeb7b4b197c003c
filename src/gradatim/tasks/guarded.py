"""A task of one's own, with errors that name the method, the problem and the line of the file."""

from __future__ import annotations

import copy
import inspect
import traceback
import types
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradatim.errors import GradatimError
from gradatim.part import name_of
from gradatim.tasks.base import Task, Verdict
from gradatim.tree import Problem

_RECORD = "_gradatim_verifier_record"
_judging: ContextVar[bool] = ContextVar("a solution is being judged", default=False)


@dataclass
class VerifierRecord:
    """How often a verifier was asked, and how often it failed.

    Attributes:
        asked: solutions that it was to judge.
        failed: those of them at which it raised an error or gave no verdict.
        first: what went wrong the first time, in an answer or a verdict.
    """

    asked: int = 0
    failed: int = 0
    first: str = ""

    def note(self, reason: str) -> None:
        """Keep and warn of what went wrong, if it is the first time."""
        if not self.first:
            self.first = reason
            warnings.warn(f"{reason}; solutions at which it fails count as wrong", stacklevel=3)

    def sentence(self) -> str | None:
        """What a person should know at the end; ``None`` if nothing failed."""
        if not self.failed:
            return None
        if self.failed == self.asked:
            return (
                f"the verifier failed for every solution ({self.failed:,}), so no figure here says anything: "
                f"{self.first}; mend it and run again in another folder"
            )
        return (
            f"the verifier failed for {self.failed:,} of {self.asked:,} solutions, which count as wrong: {self.first}"
        )


def verifier_record(task: object) -> VerifierRecord:
    """The record of a guarded task; an empty one of any other."""
    record = getattr(task, _RECORD, None)
    return record if isinstance(record, VerifierRecord) else VerifierRecord()


def guarded(task: Task) -> Task:
    """A task of one's own as one whose failures say where they come from; a task of the package's as it is.

    An error in ``problems`` is a :class:`~gradatim.errors.GradatimError` of one sentence. One in
    ``verify`` (or ``check``, which it calls) does not end a run: that solution counts as wrong for the reason ``the
    verifier failed``. The first one is warned of, and :func:`verifier_record` counts them. A solution at which
    ``answer`` fails has no answer.

    Raises:
        GradatimError: if ``task`` is another part than a task, or its ``verify`` is not asynchronous.
    """
    cls = type(task)
    if not isinstance(task, Task):
        raise GradatimError(f"{name_of(task)!r} is no task; derive the class from gradatim.tasks.base.Task")
    if cls.__module__.startswith("gradatim."):
        return task
    if not inspect.iscoroutinefunction(cls.verify):
        raise GradatimError(f"{cls.__name__}.verify is not asynchronous; call it 'check', or write 'async def verify'")
    record = VerifierRecord()
    names = ("problems", "answer", "verify")
    own: dict[str, Callable[..., Any]] = {name: getattr(cls, name) for name in names}
    judge = next(name for name in ("verify", "check", "answer") if getattr(cls, name) is not getattr(Task, name))

    def problems(self: Any, split: str, count: int | None = None) -> list[Problem]:
        try:
            return list(own["problems"](self, split, count))
        except GradatimError:
            raise
        except Exception as error:
            raise GradatimError(f"{_failure(cls, 'problems', f'for the split {split!r}', error)}; mend it") from error

    def answer(self: Any, problem: Problem, text: str) -> str | None:
        try:
            found = own["answer"](self, problem, text)
            if found is None or isinstance(found, str):
                return found
            raise TypeError(f"it gave a {type(found).__name__}, neither text nor None")
        except Exception as error:
            if _judging.get():
                raise
            record.note(_failure(cls, "answer", f"for problem {problem.id!r}", error))
            return None

    async def verify(self: Any, problem: Problem, text: str) -> Verdict:
        record.asked += 1
        judging = _judging.set(True)
        try:
            verdict = await own["verify"](self, problem, text)
            if isinstance(verdict, Verdict):
                return verdict
            reason = f"{cls.__name__}.{judge} gave a {type(verdict).__name__} for problem {problem.id!r}, not a Verdict"
        except Exception as error:
            reason = _failure(cls, judge, f"for problem {problem.id!r}", error)
        finally:
            _judging.reset(judging)
        record.failed += 1
        record.note(reason)
        return Verdict(0.0, f"the verifier failed: {reason}")

    methods = {"problems": problems, "answer": answer, "verify": verify}

    def fill(namespace: dict[str, Any]) -> None:
        # Only methods are added: a class with slots stays as it is.
        namespace |= {"__module__": cls.__module__, "__doc__": cls.__doc__, "__slots__": (), _RECORD: record, **methods}
        namespace["name"] = task.name

    twin = copy.copy(task)
    object.__setattr__(twin, "__class__", types.new_class(cls.__name__, (cls,), {}, fill))
    return twin


def _failure(cls: type, method: str, what: str, error: Exception) -> str:
    """Which method failed, for what, where in its file, and how."""
    return f"{cls.__name__}.{method} failed {what}{_place(cls, error)}: {type(error).__name__}: {error}".rstrip(": ")


def _place(cls: type, error: Exception) -> str:
    """The innermost line of the class's own file that was at work when ``error`` was raised."""
    try:
        file = inspect.getfile(cls)
    except (OSError, TypeError):
        return ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" (line {lines[-1]} of {Path(file).name})" if lines else ""
