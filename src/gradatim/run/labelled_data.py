"""Labelled trees as what a reward model learns from: in its tokens, checked, counted, some questions held out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradatim.errors import GradatimError
from gradatim.supervision.rows import labelled_paths
from gradatim.supervision.terms import Term
from gradatim.text.prompts import ChatFormat, question_of
from gradatim.text.transcript import in_tokens_of
from gradatim.tree import Node, Tree


@dataclass(slots=True)
class LabelledData:
    """The labelled steps of many questions.

    Attributes:
        by_question: the labels of each question, in the order in which the questions first came.
        trees: how many trees were read.
        too_long: solutions that were cut short or left out, since they have more tokens than there is room for; those
            that share the first step that is too long count as one.
        unreadable: trees that were left out since the tokenizer cannot write their problem.
        reason: why the first of these cannot be written.
        digest: changes with any question, step or label.
    """

    by_question: dict[str, list[Term]] = field(default_factory=dict)
    trees: int = 0
    too_long: int = 0
    unreadable: int = 0
    reason: str = ""
    digest: str = ""

    @property
    def labels(self) -> list[Term]:
        return [label for labels in self.by_question.values() for label in labels]

    def check(self) -> None:
        """Refuse labels that nothing can be learned from.

        Raises:
            GradatimError: if there are none, or all are alike.
        """
        if not self.trees:
            raise GradatimError("the rows hold no tree at all; check that they are the right ones")
        kinds = {label.targets[0] for label in self.labels}
        if not kinds:
            raise GradatimError(f"none of the {self.trees:,} trees has a labelled step to learn from{self._why_none()}")
        if len(kinds) == 1:
            raise GradatimError(
                f"all {len(self.labels):,} labels are {kinds.pop():g}, so there is nothing to tell apart; give rows "
                "with right and wrong steps"
            )

    def _why_none(self) -> str:
        if self.unreadable:
            return f": {self.reason}"
        if self.too_long:
            return ": all are too long; raise the tokens of a batch, or take a model that reads more"
        return "; choose the score that their labels stand in, or check that they are the right rows"


def collect(
    trees: Iterable[Tree],
    labels_of: Callable[[Tree], list[Term]],
    tokenizer: Any,
    chat: ChatFormat | None,
    *,
    longest: int,
    on_tree: Callable[[int], None] | None = None,
) -> LabelledData:
    """Write trees in a model's tokens and take their labels.

    Args:
        trees: in any tokens, or none.
        labels_of: the labels of a tree.
        tokenizer, chat: how the model reads.
        longest: a step that ends behind so many tokens of its path is left out.
        on_tree: called with the number of trees so far.
    """
    data, digest = LabelledData(), hashlib.sha256()
    for tree in trees:
        data.trees += 1
        if on_tree is not None:
            on_tree(data.trees)
        try:
            written = in_tokens_of(tree, tokenizer, chat)
        except GradatimError as error:
            data.unreadable, data.reason = data.unreadable + 1, data.reason or str(error)
            continue
        labels = labels_of(written)
        kept, cut = _that_fit(labels, longest)
        data.too_long += cut
        if kept:
            data.by_question.setdefault(question_key(tree), []).extend(kept)
            facts = [
                question_key(tree),
                [[len(each.ends[0].tokens), each.ends[0].text, each.targets[0]] for each in kept],
            ]
            digest.update(json.dumps(facts).encode())
    data.digest = digest.hexdigest()[:16]
    return data


def question_key(tree: Tree) -> str:
    """Equal for trees that ask the same, whatever spaces and capitals they ask it with."""
    return " ".join(question_of(tree.problem).split()).casefold()


def held_out_questions(questions: Collection[str], share: float, seed: int) -> set[str]:
    """The questions to be held out: ``share`` of them, but one at least if any, and never all.

    Which ones depends on the seed and their texts alone, not on their order.
    """
    if not share or len(questions) < 2:
        return set()
    ranked = sorted(questions, key=lambda text: (hashlib.sha256(f"{seed}:{text}".encode()).digest(), text))
    return set(ranked[: min(max(1, round(share * len(ranked))), len(ranked) - 1)])


def judged_paths(labels: Sequence[Term]) -> list[list[Node]]:
    """The labelled solutions of which it is known where they first go wrong, or that they are right to their end.

    A beginning of a solution in which nothing is wrong yet is none of these.
    """
    wrong = {label.ends[0] for label in labels if label.targets[0] <= 0.5}
    return [path for path in labelled_paths(labels) if path[-1].finished or not wrong.isdisjoint(path)]


def _that_fit(labels: Sequence[Term], longest: int) -> tuple[list[Term], int]:
    """The labels of steps that end within ``longest`` tokens, and how many paths of steps were cut."""
    if not labels:
        return [], 0
    long = {label.ends[0] for label in labels if len(label.ends[0].tokens_before_observation) > longest}
    cut = sum(node.parent not in long for node in long)
    return [label for label in labels if label.ends[0] not in long], cut
