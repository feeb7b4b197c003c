"""What a step is worth by how much surer it makes a model of the answer."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import takewhile
from typing import Any, Literal

from gradatim.engine.distributions import entropy
from gradatim.engine.reader import Reader
from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.scorers.base import Context, ModelName, ScorerPart, StepScorer
from gradatim.tasks.base import Task
from gradatim.text.prompts import continuation_tokens, known_tokens
from gradatim.tree import Node, Tree

AnswerSource = Literal["majority", "reference"]
UncertaintyMeasure = Literal["entropy", "log_probability"]
TEMPLATE = "\nThe answer is {answer}"


@part
class ConditionalEntropyPart(ScorerPart):
    """How much a step lowers a model's uncertainty about the answer, in nats (Guo, 2025, arXiv:2508.20395).

    The answer is put behind the path up to the step and behind the path before it; the score is how much less uncertain
    the model is of it. Nothing is written for it, and neither text becomes part of the tree.
    """

    model: ModelName = "policy"
    """The model that is asked; the paper has another one than the policy."""
    answer: AnswerSource = "majority"
    """The answer: the one that most solutions of the tree have by then, or the problem's own (`reference`), which is
    for labelling and never for evaluation."""
    measure: UncertaintyMeasure = "entropy"
    """The mean `entropy` of what the model expects at the answer's tokens, or the answer's `log_probability`."""
    template: str = TEMPLATE
    """How the answer is put behind the steps. What stands behind `{answer}` is not read."""

    def __post_init__(self) -> None:
        if self.template.count("{answer}") != 1:
            raise GradatimError(f"template says once where the answer stands, as {TEMPLATE!r} does: {self.template!r}")

    @property
    def verifies(self) -> bool:  # type: ignore[override]  # it depends on an option
        return self.answer == "reference"

    def open(self, context: Context) -> ConditionalEntropyScorer:
        reader = context.reader(self.model)
        return ConditionalEntropyScorer(
            reader, context.task, self.name, answer=self.answer, measure=self.measure, template=self.template
        )


class ConditionalEntropyScorer(StepScorer):
    """Scores a step by how much surer a model is of the answer behind it; see :class:`ConditionalEntropyPart`.

    A prompt has no score, and neither has a step while the answer is not known: before a first solution is finished,
    where the problem has no reference answer, or where the tokenizer does not know its letters. A score stays as it was
    written when the tree favours another answer later.

    Args:
        reader: reads the model.
        task: says what solutions answer.
        name: the key in ``node.scores``.
        answer, measure, template: as in :class:`ConditionalEntropyPart`.

    Raises:
        GradatimError: if the reader has no tokenizer, or it does not know the template.
    """

    def __init__(
        self,
        reader: Reader,
        task: Task,
        name: str = "conditional_entropy",
        *,
        answer: AnswerSource = "majority",
        measure: UncertaintyMeasure = "entropy",
        template: str = TEMPLATE,
    ) -> None:
        super().__init__(name)
        self.reader, self.task = reader, task
        self._answer, self._measure = answer, measure
        self._before = template.partition("{answer}")[0]
        known_tokens(reader.tokenizer, self._before.rstrip())
        self._known: weakref.WeakKeyDictionary[Tree, dict[tuple[int, str], float]] = weakref.WeakKeyDictionary()

    async def judged(self, nodes: Sequence[Node]) -> list[float | None]:
        answers = {tree: await self._answer_of(tree) for tree in dict.fromkeys(node.tree for node in nodes)}
        steps = [(node.parent, node) for node in nodes if node.parent is not None and answers[node.tree]]
        await self._read(dict.fromkeys(each for step in steps for each in step), answers)
        scores: dict[Node, float | None] = {}
        for before, after in steps:
            known = self._known.get(after.tree, {})
            was, now = (known.get((each.id, str(answers[after.tree]))) for each in (before, after))
            scores[after] = None if was is None or now is None else was - now
        return [scores.get(node) for node in nodes]

    async def _answer_of(self, tree: Tree) -> str | None:
        if self._answer == "reference":
            return tree.problem.answer
        from gradatim.search.choosing import give_answers, majority  # a vote is no search, but lies with them

        await give_answers(tree, self.task.answer)
        leaf = majority(tree)
        return None if leaf is None else leaf.answer

    async def _read(self, nodes: Iterable[Node], answers: dict[Tree, str | None]) -> None:
        """Find out how unsure the model is of the answer behind each node, in nats, where it is not known yet."""
        asked: list[tuple[Node, str]] = []
        asides: list[Node] = []
        lengths: list[int] = []
        for node in nodes:
            answer = str(answers[node.tree])
            tokens, length = _answer_tokens(self.reader.tokenizer, self._before, answer)
            if length and (node.id, answer) not in self._known.get(node.tree, {}):
                asked.append((node, answer))
                asides.append(self.reader.aside(node, tokens))
                lengths.append(length)
        of_answer = self._measure == "log_probability"
        measures = () if of_answer else (entropy,)
        readings = await self.reader.read(asides, log_probabilities=of_answer, measures=measures)
        for (node, answer), length, reading in zip(asked, lengths, readings, strict=True):
            if reading is not None:
                values = (reading.log_probabilities or ()) if of_answer else reading.measures[0]
                total = math.fsum(values[-length:])
                unsure = -total if of_answer else total / length
                self._known.setdefault(node.tree, {})[node.id, answer] = unsure

    def release(self, tree: Tree) -> None:
        """Drop what is kept of a tree that is done."""
        self._known.pop(tree, None)
        self.reader.release(tree)


@lru_cache
def _answer_tokens(tokenizer: Any, before: str, answer: str) -> tuple[tuple[int, ...], int]:
    """The tokens of an answer behind the words before it, and how many of them are the answer's: those that hold any of
    it; 0 where the tokenizer does not know it."""
    alone, whole = (tuple(continuation_tokens(tokenizer, text)) for text in (before, before + answer))
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(alone, whole, strict=False)))
    return whole, 0 if tokenizer.unk_token_id in whole[shared:] else len(whole) - shared
