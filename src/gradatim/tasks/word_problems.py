"""Arithmetic word problems over random dependency graphs, with exact truth about every step.

A problem defines quantities by numbers and by each other, in shuffled order and varied words, and asks for one::

    Eve's rings are 3 fewer than Dan's coins. Leo has 5 kites. Dan's coins are 2 times Ann's pens. Ann's pens
    number 7. How many rings does Eve have?
    Dan's coins: Ann's pens 7 * 2 = 14
    Eve's rings: Dan's coins 14 - 3 = 11
    Answer: 11

Some quantities are distractors: the question does not depend on them. A step is wrong if it uses what is not known
yet or not what the problem defines, copies a number wrongly, or calculates wrongly; the oracle tells which. (After
iGSM: Ye et al., *Physics of Language Models: Part 2.1*, 2024.)
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.tasks.base import Verdict, compare
from gradatim.tasks.generated import GeneratedTask
from gradatim.tasks.quantities.generation import draw_graph
from gradatim.tasks.quantities.graph import DependencyGraph
from gradatim.tasks.quantities.language import read_problem, write_problem
from gradatim.tasks.quantities.oracle import StepJudgement, first_error, judge_steps
from gradatim.tasks.quantities.steps import Answer, read_step, right_step
from gradatim.text.solution_end import SolutionEnd
from gradatim.tree import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A problem stays within a hundred quantities and a screen.
Operations = Annotated[int, Field(ge=1, le=8)]
Distractors = Annotated[int, Field(ge=0, le=16)]

_SPLITS = ("test", "validation", *["train"] * 8)  # a tenth each
# Two operations have some sixty structures, a few of them frequent: with this salt, each split has a share of them, of
# their frequency, and of each operator as it should.
_SPLIT_SALT = b"2957"
_DRAWS = 3000  # before a split is believed to have no further problem


def fewest_first(numbers: tuple[int, int]) -> tuple[int, int]:
    """A least and a greatest number, if they are that."""
    if numbers[0] > numbers[1]:
        raise ValueError(f"the fewest come first, got {numbers[0]} and {numbers[1]}")
    return numbers


def _is_answer(line: str) -> bool:
    return isinstance(read_step(line), Answer)


@part
class WordProblems(GeneratedTask):
    """Arithmetic word problems in sentences; problems are generated (after iGSM: Ye et al., 2024, arXiv:2407.20311).

    Splits are disjoint by construction: the structure of what the question depends on (see
    :attr:`~gradatim.tasks.quantities.graph.DependencyGraph.structure`) decides which split a problem belongs to,
    so no test problem is a training problem with other names and numbers. One operation has six structures only, too
    few to share out: there names and numbers decide together, so no test problem is a training problem in other
    words. Of problems of any number of operations, some 80 % are for training and 10 % each for validation and test.
    The first ``count`` problems of a split are the same whatever ``count`` is.
    """

    operations: Annotated[tuple[Operations, Operations], AfterValidator(fewest_first)] = (1, 4)
    """The fewest and the most operations that a question needs; a problem's number is drawn evenly."""
    distractors: Annotated[tuple[Distractors, Distractors], AfterValidator(fewest_first)] = (0, 2)
    """The fewest and the most further quantities that a problem defines and its question does not need."""
    largest_given: Annotated[int, Field(ge=2)] = 20
    """Given numbers and the constants of `+` and `-` are drawn from 2 to this."""
    largest_result: Annotated[int, Field(ge=4, le=999)] = 99
    """No quantity exceeds this (and none is less than 1)."""

    def __post_init__(self) -> None:
        if self.largest_given > self.largest_result:
            raise GradatimError(
                "word problems need a largest_result of at least largest_given; got "
                f"{self.largest_result} and {self.largest_given}"
            )

    @property
    def solution_end(self) -> SolutionEnd:
        return SolutionEnd(line=_is_answer)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        from gradatim.tasks.quantities.tokenizer import make_word_problem_tokenizer

        return make_word_problem_tokenizer(self)

    def ask(self, text: str) -> Problem:
        return make_problem(" ".join(text.split()) + "\n")

    def demonstrations(self, split: str) -> Iterator[tuple[Problem, str]]:
        """An endless stream of different problems of ``split``, each with one right solution that has no needless
        step; where several steps could come next, any of them does.

        Raises:
            GradatimError: for an unknown split, or when no new problem turns up any more.
        """
        if split not in _SPLITS:
            splits = ", ".join(dict.fromkeys(_SPLITS))
            raise GradatimError(f"word problems have the splits {splits}; there is no {split!r}")
        generator = random.Random(f"word problems {self.seed} {split} {self.difficulty}")
        fewest, most = self.operations
        levels = list(range(fewest, most + 1))
        seen: set[str] = set()
        while levels:
            operations = generator.choice(levels)
            found = self._draw(generator, split, operations, seen)
            if found is None:
                levels.remove(operations)
            else:
                yield found
        raise GradatimError(
            f"only {len(seen)} different word problems of this difficulty turned up for {split!r}; "
            "ask for fewer or raise the difficulty"
        )

    def _draw(
        self, generator: random.Random, split: str, operations: int, seen: set[str]
    ) -> tuple[Problem, str] | None:
        """A problem that is not among the ids ``seen``, and a solution; ``None`` if many draws bring none."""
        for _ in range(_DRAWS):
            graph = draw_graph(generator, self, operations)
            if split_of(graph) == split:
                problem = make_problem(write_problem(graph, generator))
                if problem.id not in seen:
                    seen.add(problem.id)
                    return problem, write_solution(graph, generator)
        return None

    def answer(self, problem: Problem, text: str) -> str | None:
        """The number of the last line, if that states an answer."""
        answer = read_step(text.removesuffix("\n").rpartition("\n")[2])
        return str(answer.number) if isinstance(answer, Answer) else None

    def check(self, problem: Problem, text: str) -> Verdict:
        """Reward 1 if the last line gives the right answer, whatever the lines before it say."""
        truth = str(read_problem(problem.prompt).answer)
        return compare(truth, self.answer(problem, text), "no answer: the last line is not 'Answer: NUMBER'")

    def first_error(self, problem: Problem, steps: Sequence[str]) -> int | None:
        """Index of the first step that is not right, or ``None``; a needless step is right."""
        return first_error(judge_steps(problem, steps))

    def judge_steps(self, problem: Problem, steps: Sequence[str]) -> list[StepJudgement]:
        """What kind of step each one is; see :func:`~gradatim.tasks.quantities.oracle.judge_steps`."""
        return judge_steps(problem, steps)


def make_problem(prompt: str) -> Problem:
    """The problem that a prompt describes.

    Raises:
        GradatimError: if the prompt is no word problem.
    """
    graph = read_problem(prompt)
    return Problem(
        id=f"word-problem-{hashlib.blake2b(prompt.encode(), digest_size=8).hexdigest()}",
        prompt=prompt,
        answer=str(graph.answer),
        data={"operations": graph.operations, "structure": graph.structure},
    )


def write_solution(graph: DependencyGraph, generator: random.Random) -> str:
    """A right solution; its last line has no line end, since the end of the text ends it."""
    known = dict(graph.given)
    lines = []
    while graph.asked not in known:
        quantity = generator.choice(list(graph.ready(known)))
        known[quantity] = graph.values[quantity]
        lines.append(str(right_step(graph, quantity)))
    return "\n".join([*lines, str(Answer(graph.answer))])


def split_of(graph: DependencyGraph) -> str:
    """The split of a problem: by the structure of what it asks for, by names and numbers if that is one operation."""
    decisive = graph.content if graph.operations == 1 else graph.structure
    digest = hashlib.blake2b(decisive.encode(), digest_size=8, salt=_SPLIT_SALT).digest()
    return _SPLITS[int.from_bytes(digest, "big") % len(_SPLITS)]
