"""A task whose problems are steps of stored trees, and whose answers are verdicts on them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

from pydantic import Field

from gradatim.errors import GradatimError
from gradatim.part import PartOf, make, name_of, part
from gradatim.tasks.base import Task
from gradatim.text.solution_end import SolutionEnd
from gradatim.tree import EndReason, Node, Problem, Tree

_GOOD, _BAD = "good", "bad"
_SPLITS = ("test", "validation", "train")


@runtime_checkable
class Judge(Protocol):
    """What asks about steps and reads verdicts: the part of the scorer `judge`."""

    @property
    def solution_end(self) -> SolutionEnd:
        """What ends an answer beside the model's end token."""
        ...

    def question(self, node: Node) -> str:
        """What is asked about a step."""
        ...

    def said(self, answer: str) -> object:
        """The verdict of a whole answer, a number from 0 to 1; anything else where it has none."""
        ...

    def word(self, good: bool) -> str:
        """How a verdict is written that finds a step good, or bad."""
        ...


@part
class Judgements(Task):
    """Judge steps of trees as rollouts found them (StepWiser, Xiong et al., 2025, arXiv:2508.19229).

    Each problem asks about one labelled step what the scorer `judge` asks; the solution is the judge's words, and it is
    right if its verdict is the step's label. A policy that learns to solve this task is a judge:
    `trajectory_advantages` and `policy_gradient` train it by what its answers to one question earned beside each other,
    as in the paper, and the accuracy of an evaluation is how often it agrees with the labels. The labels are a score of
    the trees, such as `relative_labels` writes.

    Problems are divided by the trees that their steps are of, in an order that depends on the trees' problems alone.
    """

    trees: str
    """Where the labelled trees lie: a run folder, of which the first round's are meant, or a file."""
    label: str = Field(default="label", min_length=1)
    """The score that labels steps."""
    threshold: float = 0.5
    """Above which a label is good."""
    judge: Annotated[Any, PartOf("scorers")] | None = None
    """The scorer whose questions are asked and whose verdicts are read; `null` for `judge` as it is."""
    balance: bool = True
    """Ask about as many good steps as bad ones, in turn, so that agreeing with either says nothing."""
    held_out: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Which share of the trees is for the test, and which for validation."""
    shown: str = "Verdict: {verdict}"
    """A worked solution, without reasons, for a policy that is to learn the form of an answer first."""

    def __post_init__(self) -> None:
        if not isinstance(self.asking, Judge):
            raise GradatimError(
                f"the scorer {name_of(self.asking)!r} asks nothing that a policy could learn to answer; name judge"
            )
        for good in (True, False):
            if self.asking.said(self._shown(good)) != float(good):
                raise GradatimError(
                    f"shown gives {self._shown(good)!r} for a {_GOOD if good else _BAD} step, which the judge does not "
                    "read as that; write it as its option verdict has it, with {verdict} in its place"
                )

    @cached_property
    def asking(self) -> Any:
        """What asks about steps and reads verdicts."""
        return make("scorers", "judge") if self.judge is None else self.judge

    @property
    def solution_end(self) -> SolutionEnd:
        end: SolutionEnd = self.asking.solution_end
        return end

    @property
    def files(self) -> tuple[Path, ...]:
        from gradatim.store.trees import grown_trees  # a room above, which knows of tasks itself

        return (grown_trees(Path(self.trees).expanduser()),)

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        """The first ``count`` labelled steps of a split, each as a problem.

        Raises:
            GradatimError: if the trees are not there or damaged, there is no such split, or no step has a label.
        """
        if split not in _SPLITS:
            raise GradatimError(f"judgements have the splits {', '.join(sorted(_SPLITS))}; there is no {split!r}")
        found = self._divided[split]
        if not found:
            raise GradatimError(
                f"the trees of {self.trees!r} hold no {'two differently ' if self.balance else ''}labelled steps for "
                f"{split}; write labels to them (values: relative_labels, and label names its key), or give more trees"
            )
        return found[:count]

    def answer(self, problem: Problem, text: str) -> str | None:
        """What the verdict finds the step to be."""
        verdict = self.asking.said(text)
        return (_GOOD if verdict > 0.5 else _BAD) if isinstance(verdict, float) else None

    @cached_property
    def _divided(self) -> dict[str, list[Problem]]:
        """The problems of each split."""
        from gradatim.store.trees import TreeStore, trees_file

        with TreeStore(trees_file(self.trees, "task.trees")) as store:
            problems = {tree.problem.id: list(self._asked(tree)) for tree in store}
        ids = sorted((id for id, asked in problems.items() if asked), key=_digest)
        size = max(1, round(self.held_out * len(ids)))
        parts = {"test": ids[:size], "validation": ids[size : 2 * size], "train": ids[2 * size :]}
        return {split: self._ordered(chain.from_iterable(problems[id] for id in part)) for split, part in parts.items()}

    def _asked(self, tree: Tree) -> Iterator[Problem]:
        """The labelled steps of a tree that say anything, as problems."""
        for node in tree.nodes[1:]:
            if self.label in node.scores and node.step.text.strip() and node.step.end is not EndReason.BUDGET:
                good = node.scores[self.label] > self.threshold
                yield Problem(
                    f"{tree.problem.id}, step {node.id}",
                    self.asking.question(node),
                    _GOOD if good else _BAD,
                    {"label": node.scores[self.label], "solution": self._shown(good)},
                )

    def _ordered(self, problems: Iterator[Problem]) -> list[Problem]:
        """The problems in the order in which they are asked, good and bad in turn where they are balanced."""
        mixed = sorted(problems, key=lambda problem: _digest(problem.id))
        if not self.balance:
            return mixed
        good, bad = ([each for each in mixed if each.answer == answer] for answer in (_GOOD, _BAD))
        return list(chain.from_iterable(zip(good, bad, strict=False)))

    def _shown(self, good: bool) -> str:
        return self.shown.replace("{verdict}", self.asking.word(good))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
