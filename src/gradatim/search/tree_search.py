"""The loop of every tree search: select, expand, value, back up. What it selects by is a part of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, ClassVar

from pydantic import PositiveInt

from gradatim.part import PartOf, options
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Scorer
from gradatim.search.base import Search
from gradatim.search.choosing import AnswerOf, give_answers
from gradatim.search.decisions import decide
from gradatim.search.ranking import path_score
from gradatim.search.selection.base import Selection
from gradatim.search.tree_state import Backup, TreeState
from gradatim.tree import Node, Tree


@options
class TreeSearch(Search):
    """A search that expands one step after the other, wherever in the tree its ``selection`` says.

    Expansions run in waves: the steps of a wave are selected one after the other, each selection making its path less
    attractive for the next (virtual loss: Chaslot et al., *Parallel Monte-Carlo Tree Search*, 2008); then all are
    expanded and valued at once; then all values are backed up, in the order of selection. So the result does not depend
    on which one is finished first.

    Finished and cut-off steps are valued once, and nothing is selected where nothing is left to expand; the search ends
    early when that is everywhere. A cut-off solution is worth nothing. Children that the budget left without a value
    are not visited. Values and visits live in the tree, so a search over a tree that was searched before goes on where
    that one stopped.

    The scorer's values go from 0 to 1; to grow trees to learn from, it is a
    :class:`gradatim.scorers.rollouts.RolloutScorer`, which gives a finished step the verifier's reward.

    Attributes:
        key: of the values in ``node.scores`` and of the visits in ``node.counts``.
    """

    key: ClassVar[str]
    is_guided: ClassVar[bool] = True
    grows_with: ClassVar[tuple[str, ...]] = ("simulations",)

    selection: Annotated[Selection, PartOf("search/selection")]
    """Which step is expanded next."""
    simulations: PositiveInt = 32
    """Expansions in all."""
    branch: PositiveInt = 4
    """Steps that are proposed at each expansion."""
    wave: PositiveInt = 4
    """Expansions that run at the same time; 1 is the sequential algorithm."""
    backup: Backup = "mean"
    """What a step is worth of the values found at and below it: their `mean`, or the `max`."""
    stop_at: float | None = None
    """The search ends as soon as a finished solution has at least this score; `null` never ends it."""

    async def __call__(
        self,
        tree: Tree,
        policy: Policy,
        scorer: Scorer | None = None,
        *,
        sampling: Sampling | None = None,
        answer: AnswerOf | None = None,
    ) -> None:
        guide = self._guide(scorer)
        state = self._state(tree, guide.name)
        done, ended = 0, self._ended(state, 0, tree.nodes)
        while ended is None:
            selected, ended = self._select_wave(state, min(self.wave, self.simulations - done))
            if selected:
                wave = list(selected)
                try:
                    drawn = list(dict.fromkeys(await policy.extend(wave, self.branch, sampling=sampling)))
                    await guide.score([child for child in drawn if not child.step.end.cuts_off])
                finally:
                    state.release(wave)
                for leaf, children in _by_parent(wave, drawn).items():
                    state.back_up(leaf, children)
                    if leaf in selected:
                        decide([leaf], "expanded", selected[leaf])
                done += len(wave)
                ended = self._ended(state, done, drawn)
        _say_what_was_left(state, ended)
        if answer is not None:
            await give_answers(tree, answer)

    def _state(self, tree: Tree, scorer: str) -> TreeState:
        return TreeState(tree, self.key, scorer, self.aggregate, self.backup, self.selection.patience)

    def _select_wave(self, state: TreeState, count: int) -> tuple[dict[Node, str], str | None]:
        """Up to ``count`` different nodes to expand, with the reasons; and why there are no more, if so."""
        wave: dict[Node, str] = {}
        while len(wave) < count:
            node, why = self.selection.select(state)
            if node is None:
                return wave, why
            state.begin(node)
            wave[node] = why
        return wave, None

    def _ended(self, state: TreeState, done: int, news: Iterable[Node]) -> str | None:
        """Why nothing more is expanded, if so."""
        if self.stop_at is not None:
            scores = [path_score(node, state.scorer, self.aggregate) for node in news if node.finished]
            best = max((score for score in scores if score is not None), default=None)
            if best is not None and best >= self.stop_at:
                return f"a solution with a score of {best:.2f} was enough"
        if state.tree.budget.spent:
            return "the budget was spent"
        return "all expansions were made" if done == self.simulations else None


def _by_parent(wave: Sequence[Node], drawn: Sequence[Node]) -> dict[Node, list[Node]]:
    """The children that were drawn, by their parents, in the order of selection.

    A node without any was expanded in vain; unless a policy around the policy (:mod:`gradatim.search.around`) drew
    elsewhere: then it was not expanded, and others were.
    """
    below: dict[Node, list[Node]] = {leaf: [] for leaf in wave}
    for child in drawn:
        if child.parent is not None:
            below.setdefault(child.parent, []).append(child)
    elsewhere = len(below) > len(wave)
    return {leaf: children for leaf, children in below.items() if children or not elsewhere}


def _say_what_was_left(state: TreeState, ended: str) -> None:
    valued: Sequence[Node] = [node for node in state.tree.nodes if state.is_valued(node)]
    decide((node for node in valued if node.finished), "dropped", "finished")
    decide((node for node in valued if node.step.end.cuts_off), "dropped", "cut off")
    waiting = (node for node in valued if node.open and node not in state.children)
    decide(waiting, "pruned", f"not expanded before {ended}")
