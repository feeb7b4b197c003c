"""One command in several processes: the first runs it, and the others help it train.

``torchrun --nproc-per-node 4 -m gradatim run RECIPE`` starts four processes with the same command. Searching,
measuring and writing are the first one's. Whenever it trains a model, it tells the others what it trains and on what,
and all of them train together; in between they wait. What a run finds does not depend on how many there are.
"""

from __future__ import annotations

import functools
import io
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

from gradatim.errors import GradatimError, HelperError
from gradatim.objectives.base import Objective
from gradatim.part import content_of, make
from gradatim.processes import GRACE, is_first, process_count, process_number
from gradatim.supervision.terms import Term
from gradatim.training.collective import connect, has_lost_others, of_first, weights_of_first
from gradatim.training.fit import train
from gradatim.training.settings import TrainingSettings
from gradatim.training.sharding import allocate, without_weights
from gradatim.tree import Node, Tree

Given = ParamSpec("Given")
Result = TypeVar("Result")

_leads = False


def by_first(run: Callable[Given, Result]) -> Callable[Given, Result]:
    """A function that the first process runs, while the others help it train; all of them return its result.

    In one process it is the function itself.
    """

    @functools.wraps(run)
    def together(*args: Given.args, **options: Given.kwargs) -> Result:
        global _leads
        if process_count() == 1 or _leads:
            return run(*args, **options)
        connect()
        if not is_first():
            result: Result = _help()
            return result
        _leads = True
        try:
            found = run(*args, **options)
        except Exception as error:
            raise _first_of_lost(error) from error
        finally:
            _leads = False
        of_first(found)  # an error ends this process, and with it the others
        return found

    return together


@dataclass(frozen=True, slots=True)
class JointTraining:
    """A training that the other processes are asked to help with.

    Attributes:
        model: the model, without its weights.
        objective: the loss, as recipes write it.
        terms: what it is over; each node by its tree's place in ``trees`` and its own in the tree.
        trees: the trees, as they are stored.
        settings: how it is trained.
        reference: where reference log-probabilities come from.
        measured: whether a held-out measure is taken.
    """

    model: nn.Module
    objective: dict[str, Any]
    terms: bytes
    trees: list[dict[str, Any]]
    settings: TrainingSettings
    reference: Any
    measured: bool

    def help(self) -> None:
        """Do one process's part of it."""
        trees = [Tree.from_json(each) for each in self.trees]
        allocate(self.model)
        weights_of_first(self.model)
        train(
            self.model,
            make("objectives", self.objective),
            _TermReader(io.BytesIO(self.terms), trees).load(),
            self.settings,
            reference=self.reference,
            evaluate=_first_measures if self.measured else None,
        )


def ask_for_help(
    model: nn.Module,
    objective: Objective,
    terms: Sequence[Term],
    settings: TrainingSettings,
    *,
    reference: Any,
    measured: bool,
) -> None:
    """Let the other processes train along; the first one trains as it would alone, right after this."""
    if not _leads:
        return
    written, trees = io.BytesIO(), list[Tree]()
    _TermWriter(written, trees).dump(list(terms))
    content = [each.to_json() for each in trees]
    of_first(
        JointTraining(
            without_weights(model), content_of(objective), written.getvalue(), content, settings, reference, measured
        )
    )
    weights_of_first(model)


def _help() -> Any:
    """Train along whenever the first process trains; returns its result."""
    asked: Any = None
    try:
        while isinstance(asked := of_first(asked), JointTraining):
            asked.help()
            asked = None
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return asked
    except GradatimError as error:
        time.sleep(GRACE)
        raise HelperError(f"process {process_number()}: {error}") from error
    except RuntimeError as error:
        if has_lost_others(error):
            raise SystemExit(1) from error
        raise


def _first_of_lost(error: Exception) -> Exception:
    if not has_lost_others(error):
        return error
    return GradatimError(
        "another process ended in the middle of a training; what was finished is kept, the same command goes on from "
        "there"
    )


def _first_measures(model: Any) -> float:
    raise AssertionError("the first process measures for all of them")


class _TermWriter(pickle.Pickler):
    """Writes terms with places in the place of nodes: trees are deep, and are written as they are stored."""

    def __init__(self, file: io.BytesIO, trees: list[Tree]) -> None:
        super().__init__(file)
        self._trees = trees
        self._places: dict[int, int] = {}

    def persistent_id(self, value: Any) -> tuple[int, int] | None:
        if not isinstance(value, Node):
            return None
        if id(value.tree) not in self._places:
            self._places[id(value.tree)] = len(self._trees)
            self._trees.append(value.tree)
        return self._places[id(value.tree)], value.id


class _TermReader(pickle.Unpickler):
    """Reads what :class:`_TermWriter` wrote."""

    def __init__(self, file: io.BytesIO, trees: Sequence[Tree]) -> None:
        super().__init__(file)
        self._trees = trees

    def persistent_load(self, place: Any) -> Node:
        tree, node = place
        found: Node = self._trees[tree].nodes[node]
        return found
