"""Labels of steps that are merged with those before them."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field

from gradatim.part import part
from gradatim.supervision.step_labels import StepLabels
from gradatim.supervision.terms import Group, Term
from gradatim.tree import Tree


@part
class MergedStepLabels(StepLabels):
    """Adjacent steps as one, with the last one's value (hierarchical node compression, 2025, arXiv:2503.13551).

    Beside `step_labels`, these are the further data of a hierarchical reward model (Wang et al.), which learns to judge
    a step together with the one before it: a mistake that the next step mends is forgiven, one that is carried on is
    not. A merged step is a term whose group has several nodes; as a row, it is one completion.

    A model that is trained here reads a tree's tokens as they are. There the merged step ends at the same token as its
    last one, after the same tokens, so that its label counts that token once more and teaches nothing else. What
    differs are rows, for trainers that mark the end of each step.
    """

    what: ClassVar[str] = "labels of merged steps"

    count: Annotated[int, Field(ge=2)] = 2
    """How many steps are one; a path with fewer has none."""

    def __call__(self, tree: Tree) -> list[Term]:
        return [
            replace(term, groups=(Group(tuple(term.ends[0].path()[-self.count :])),))
            for term in super().__call__(tree)
            if term.ends[0].depth >= self.count
        ]
