"""The solutions that rejection sampling keeps."""

from __future__ import annotations

from typing import ClassVar

from gradatim.part import part
from gradatim.supervision.base import Construction
from gradatim.supervision.rows import prompt_completion_rows
from gradatim.supervision.terms import Term, path_term
from gradatim.tree import Tree


@part
class RightSolutions(Construction):
    """The finished right solutions, each once, from the prompt to the end (Yuan et al., 2023, arXiv:2308.01825)."""

    what: ClassVar[str] = "right solutions"
    groups: ClassVar[int] = 1
    has_targets: ClassVar[bool] = False
    rows = staticmethod(prompt_completion_rows)

    def __call__(self, tree: Tree) -> list[Term]:
        return [path_term(leaf) for leaf in tree.solutions() if leaf.correct]
