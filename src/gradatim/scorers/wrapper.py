"""What scorers share that make their scores of those of other scorers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import fields

from gradatim.errors import GradatimError
from gradatim.part import options
from gradatim.scorers.base import Scorer, ScorerPart, StepScorer
from gradatim.tree import Node, Tree


@options
class WrapperPart(ScorerPart):
    """A scorer's options that hold other scorers; these write their scores to trees under their own names.

    Raises:
        GradatimError: if two scorers of one name would write over each other's scores.
    """

    def __post_init__(self) -> None:
        known: dict[str, ScorerPart] = {self.name: self}
        beside = [each.name for field in fields(self) for each in _listed(getattr(self, field.name))]
        for each in self.within:
            if known.setdefault(each.name, each) != each or beside.count(each.name) > 1:
                raise GradatimError(
                    f"two scorers within {self.name!r} write scores of the name {each.name!r}, or it has that name "
                    "itself; give one of them another name as its key"
                )


class Wrapper(StepScorer):
    """Scores a step by what other scorers say of it.

    They are asked one after another, each for those steps that the ones before could score; a step that any of them
    left unscored is counted as missing here, too.

    Args:
        name: the key in ``node.scores``.
        inner: the other scorers, of different names.
    """

    def __init__(self, name: str, inner: Sequence[Scorer]) -> None:
        super().__init__(name)
        self.inner = tuple(inner)

    @abstractmethod
    def combined(self, node: Node, scores: Sequence[float]) -> float | None:
        """The score of a node that has these ``scores`` of the scorers within, in their order."""

    def needed(self, nodes: Sequence[Node]) -> Iterable[Node]:
        """The nodes that the scorers within are asked for to score ``nodes``."""
        return nodes

    async def judged(self, nodes: Sequence[Node]) -> list[float | None]:
        asked = list(dict.fromkeys(self.needed(nodes)))
        for scorer in self.inner:
            await scorer.score(asked)
            asked = [node for node in asked if scorer.name in node.scores]
        scored = set(asked)
        return [
            self.combined(node, [node.scores[each.name] for each in self.inner]) if node in scored else None
            for node in nodes
        ]

    def release(self, tree: Tree) -> None:
        """Forget what the scorers within keep of a tree that is done."""
        for scorer in self.inner:
            scorer.release(tree)


def _listed(value: object) -> list[ScorerPart]:
    """The scorers in an option that is a list of them."""
    return [each for each in value if isinstance(each, ScorerPart)] if isinstance(value, list | tuple) else []
