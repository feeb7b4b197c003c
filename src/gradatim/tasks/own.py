"""Tasks of one's own from a YAML file that holds the options of :class:`gradatim.tasks.records.Records`::

source: problems.jsonl
template: "Question: {question}\\nAnswer:\\n"
verifier: number
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.tasks.base import Task, Verdict
from gradatim.tasks.records import Records
from gradatim.text.boundaries.base import Boundary
from gradatim.text.solution_end import SolutionEnd
from gradatim.tree import Problem


@part
class Own(Task):
    """A task of one's own from a YAML file that describes it.

    The file is read when the task is first used.
    """

    file: str
    """The file; its keys are the options of the task `records`. A source that lies beside it is found from anywhere."""
    options: dict[str, Any] | None = None
    """Keys that replace or add to those of the file."""

    @property
    def name(self) -> str:
        return self.described.name

    @property
    def boundary(self) -> Boundary:
        return self.described.boundary

    @property
    def solution_end(self) -> SolutionEnd:
        return self.described.solution_end

    @property
    def on_command_line(self) -> str:
        return self.file

    @property
    def files(self) -> tuple[Path, ...]:
        return (Path(self.file).expanduser(), *self.described.files)

    @cached_property
    def described(self) -> Records:
        """What the file describes.

        Raises:
            GradatimError: if the file is missing or no such description; says which key is wrong.
        """
        path = Path(self.file).expanduser()
        content = _read_yaml(path)
        if "source" in content:
            content["source"] = _beside(path, content["source"])
        content = {"title": path.stem} | content | (self.options or {})
        try:
            return Records(**{str(key): value for key, value in content.items()})
        except GradatimError as error:
            reason = str(error).removeprefix(f"{Records.__name__}: ")
            raise GradatimError(f"the task file {self.file!r}: {reason}") from error

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        """See :meth:`gradatim.tasks.records.Records.problems`.

        Raises:
            GradatimError: if the file or its source is missing or wrong, or the split is unknown or empty.
        """
        return self.described.problems(split, count)

    def answer(self, problem: Problem, text: str) -> str | None:
        return self.described.answer(problem, text)

    def check(self, problem: Problem, text: str) -> Verdict:
        """Judge a solution by the verifier that the file names. Never raises."""
        return self.described.check(problem, text)

    def ask(self, text: str) -> Problem:
        return self.described.ask(text)


def _beside(path: Path, source: Any) -> Any:
    """A source that lies beside its task's file, as a path from here; any other as it is."""
    if not isinstance(source, str):
        return source
    beside = path.parent / source
    local = beside.exists() or (source.endswith(".jsonl") and not beside.is_absolute())
    return str(beside) if local else source


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise GradatimError(f"there is no task file {str(path)!r}; give the path of an existing one") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).partition("\n")[0]
        raise GradatimError(f"the task file {str(path)!r} cannot be read as YAML: {reason}; mend it") from error
    if not isinstance(content, dict):
        raise GradatimError(f"the task file {str(path)!r} is empty or no mapping; begin it with 'source:'")
    return content
