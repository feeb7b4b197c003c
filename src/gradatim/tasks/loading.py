"""Loading a task of one's own: from a YAML file, or from a Python class with the members of a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradatim.errors import GradatimError
from gradatim.own_code import import_own
from gradatim.suggestions import suggestion
from gradatim.tasks.base import Task
from gradatim.tasks.guarded import guarded
from gradatim.tasks.own import OwnTask

_VALUES = ("name", "step_end")
_METHODS = ("problems", "split_steps", "verify")


def load_own_task(reference: str, options: Mapping[str, Any] | None = None) -> Task:
    """The task of a YAML file (``tasks/sums.yaml``) or a Python class (``tasks/sums.py:Sums``, ``package.sums:Sums``).

    Raises:
        GradatimError: if there is none; see :meth:`OwnTask.from_yaml` and :func:`load_task_class`.
    """
    if reference.endswith((".yaml", ".yml")):
        return OwnTask.from_yaml(reference, options)
    return load_task_class(reference, options)


def load_task_class(reference: str, options: Mapping[str, Any] | None = None) -> Task:
    """An instance of a task class, with errors that name its method, problem and line (:mod:`gradatim.tasks.guarded`).

    Args:
        reference: ``module:Class``, or ``path/to/file.py:Class``.
        options: the arguments of the class.

    Raises:
        GradatimError: if the file, module or class is missing, cannot be imported or made with these options, or lacks
            a member of :class:`gradatim.tasks.base.Task`.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name.isidentifier():
        raise GradatimError(
            f"cannot understand the task {reference!r}; write 'task.yaml', 'path/to/file.py:Class' or 'module:Class'"
        )
    module = import_own(place)
    found = getattr(module, name, None)
    if not isinstance(found, type):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise GradatimError(f"{place!r} has no class {name!r}; {suggestion(name, classes)}")
    if missing := [member for member in _METHODS if not callable(getattr(found, member, None))]:
        raise _no_task(reference, missing)
    try:
        task = guarded(found)(**(options or {}))
    except GradatimError:
        raise
    except Exception as error:
        raise GradatimError(
            f"cannot make the task {reference!r} with the options {dict(options or {})}: {error}"
        ) from error
    if missing := [member for member in _VALUES if not hasattr(task, member)]:
        raise _no_task(reference, missing)
    assert isinstance(task, Task)  # it has all members
    return task


def _no_task(reference: str, missing: list[str]) -> GradatimError:
    return GradatimError(
        f"the class {reference!r} is no task, since it has no {' and no '.join(missing)}; "
        "give it the members of gradatim.tasks.base.Task"
    )
