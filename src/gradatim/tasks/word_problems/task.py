"""Word problems: the task."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from gradatim.errors import GradatimError
from gradatim.tasks.base import Verdict
from gradatim.tasks.generated import first_problems
from gradatim.tasks.solution_end import SolutionEnd
from gradatim.tasks.word_problems.generation import Difficulty, draw_graph
from gradatim.tasks.word_problems.graph import DependencyGraph
from gradatim.tasks.word_problems.language import read_problem, write_problem
from gradatim.tasks.word_problems.oracle import StepJudgement, first_error, judge_steps
from gradatim.tasks.word_problems.steps import Answer, read_step, right_step
from gradatim.tree import Problem

_SPLIT_SHARES = {"test": (0, 10), "validation": (10, 20), "train": (20, 100)}
_DRAWS = 3000  # before a split is believed to have no further problem


def _is_answer(line: str) -> bool:
    return isinstance(read_step(line), Answer)


class WordProblems:
    """Arithmetic word problems and their exact oracle.

    Splits are disjoint by construction: the structure of what the question depends on (see
    :attr:`~gradatim.tasks.word_problems.graph.DependencyGraph.structure`) decides which split a problem belongs to,
    so no test problem is a training problem with other names and numbers. The first ``count`` problems of a split
    are the same whatever ``count`` is.

    Args:
        seed: which stream of problems is generated; the split of a problem does not depend on it.
        operations, distractors, largest_given, largest_result: see
            :class:`~gradatim.tasks.word_problems.generation.Difficulty`.
    """

    name = "word_problems"
    step_end: tuple[str, ...] = ("\n",)
    solution_end = SolutionEnd(line=_is_answer)

    def __init__(
        self,
        *,
        operations: tuple[int, int] = (1, 4),
        distractors: tuple[int, int] = (0, 2),
        largest_given: int = 20,
        largest_result: int = 99,
        seed: int = 0,
    ) -> None:
        self.difficulty = Difficulty(operations, distractors, largest_given, largest_result)
        self.seed = seed

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        """The first ``count`` problems of ``split``.

        Raises:
            GradatimError: for an unknown split, no count, or more problems than the difficulty has.
        """
        return first_problems(self.demonstrations(split), count, self.name)

    def demonstrations(self, split: str) -> Iterator[tuple[Problem, str]]:
        """An endless stream of different problems of ``split``, each with one right solution that has no needless
        step; where several steps could come next, any of them does.

        Numbers of operations that ``split`` has no structure for (1, perhaps) do not occur.

        Raises:
            GradatimError: for an unknown split, or when no new problem turns up any more.
        """
        if split not in _SPLIT_SHARES:
            raise GradatimError(f"word problems have the splits {', '.join(_SPLIT_SHARES)}; there is no {split!r}")
        generator = random.Random(f"word problems {self.seed} {split} {asdict(self.difficulty)}")
        fewest, most = self.difficulty.operations
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
        low, high = _SPLIT_SHARES[split]
        for _ in range(_DRAWS):
            graph = draw_graph(generator, self.difficulty, operations)
            if low <= _split_share(graph.structure) < high:
                problem = make_problem(write_problem(graph, generator))
                if problem.id not in seen:
                    seen.add(problem.id)
                    return problem, write_solution(graph, generator)
        return None

    def split_steps(self, text: str) -> list[str]:
        """The lines of ``text``, line ends kept."""
        return re.findall(r"[^\n]*\n|[^\n]+", text)

    def verify(self, problem: Problem, text: str) -> Verdict:
        """Reward 1 if the last line gives the right answer, whatever the lines before it say."""
        truth = read_problem(problem.prompt).answer
        lines = self.split_steps(text)
        answer = read_step(lines[-1]) if lines else None
        if not isinstance(answer, Answer):
            return Verdict(0.0, None, "no answer: the last line is not 'Answer: NUMBER'")
        if answer.number != truth:
            return Verdict(0.0, str(answer.number), f"wrong answer: {answer.number} instead of {truth}")
        return Verdict(1.0, str(answer.number), "correct")

    def first_error(self, problem: Problem, steps: Sequence[str]) -> int | None:
        """Index of the first step that is not right, or ``None``; a needless step is right."""
        return first_error(judge_steps(problem, steps))

    def judge_steps(self, problem: Problem, steps: Sequence[str]) -> list[StepJudgement]:
        """What kind of step each one is; see :func:`~gradatim.tasks.word_problems.oracle.judge_steps`."""
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


def _split_share(structure: str) -> int:
    """A number from 0 to 99 that decides the split of a problem."""
    digest = hashlib.blake2b(structure.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 100
