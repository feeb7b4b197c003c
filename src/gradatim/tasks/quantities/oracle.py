"""What is right and wrong with each step of a solution, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from gradatim.tasks.quantities.graph import DependencyGraph, Quantity, calculate
from gradatim.tasks.quantities.language import read_problem
from gradatim.tasks.quantities.steps import Answer, Derivation, Term, read_step
from gradatim.tree import Problem


class StepKind(StrEnum):
    """What a step is. The first two are right, all others wrong."""

    RIGHT = "right"
    NEEDLESS = "needless"  # right, but the question does not need it, or an earlier step did the same
    MALFORMED = "malformed"  # the line cannot be read
    UNKNOWN_QUANTITY = "unknown quantity"  # it names a quantity that the problem does not define
    WRONG_DEPENDENCY = "wrong dependency"  # not what the problem defines: other operands, operator or constant
    NOT_DERIVED = "not derived"  # it uses, or answers with, a quantity that no step has derived yet
    WRONG_NUMBER = "wrong number"  # a quantity's number is not the one that was given or derived
    WRONG_ARITHMETIC = "wrong arithmetic"  # the result of the operation is another
    WRONG_ANSWER = "wrong answer"  # the answer is not the number that was derived
    INHERITED = "inherited"  # wrong only because it goes on with the wrong result of an earlier step
    AFTER_ANSWER = "after answer"  # the solution had ended

    @property
    def is_right(self) -> bool:
        return self in (StepKind.RIGHT, StepKind.NEEDLESS)


@dataclass(frozen=True, slots=True)
class StepJudgement:
    """What a step is, and why in a few words."""

    kind: StepKind
    reason: str


class SolutionJudge:
    """Judges the steps of one solution in their order.

    Each step is judged by itself: given what the steps before it wrote, right or wrong. A step that would be right
    but goes on with a wrong number is ``INHERITED``.

    Args:
        graph: the problem.

    Attributes:
        known: the number of each quantity that is given or was derived, as the steps wrote it.
        answered: whether the answer was given.
    """

    def __init__(self, graph: DependencyGraph) -> None:
        self.graph = graph
        self.known: dict[Quantity, int] = dict(graph.given)
        self.answered = False

    def judge(self, text: str) -> StepJudgement:
        """Judge the next step and take it into account. Never raises on any text."""
        step = read_step(text)
        if self.answered:
            return StepJudgement(StepKind.AFTER_ANSWER, "the solution ended with its answer")
        if step is None:
            return StepJudgement(
                StepKind.MALFORMED, f"{text.strip()[:80]!r} is neither 'A: B 7 + C 4 = 11' nor 'Answer: 11'"
            )
        if isinstance(step, Answer):
            self.answered = True
            return self._judge_answer(step)
        judgement = self._judge_derivation(step)
        if step.quantity in self.graph.derived:
            self.known[step.quantity] = step.result
        return judgement

    def _judge_answer(self, answer: Answer) -> StepJudgement:
        asked = self.graph.asked
        if asked not in self.known:
            return StepJudgement(StepKind.NOT_DERIVED, f"{asked} are asked for and were not derived")
        if answer.number != self.known[asked]:
            return StepJudgement(StepKind.WRONG_ANSWER, f"{asked} are {self.known[asked]} and not {answer.number}")
        return self._inherited([asked]) or StepJudgement(StepKind.RIGHT, "the answer")

    def _judge_derivation(self, step: Derivation) -> StepJudgement:
        terms = (step.left, step.right)
        judgement = (
            self._wrong_names(step)
            or self._wrong_dependency(step)
            or self._wrong_numbers(terms)
            or self._wrong_arithmetic(step)
            or self._inherited([term.quantity for term in terms if term.quantity is not None])
        )
        if judgement is not None:
            return judgement
        if step.quantity not in self.graph.needed:
            return StepJudgement(StepKind.NEEDLESS, f"the question does not depend on {step.quantity}")
        if self.known.get(step.quantity) == step.result:
            return StepJudgement(StepKind.NEEDLESS, f"{step.quantity} were derived before")
        return StepJudgement(StepKind.RIGHT, "follows")

    def _wrong_names(self, step: Derivation) -> StepJudgement | None:
        for quantity in (step.quantity, step.left.quantity, step.right.quantity):
            if quantity is not None and quantity not in self.graph:
                return StepJudgement(StepKind.UNKNOWN_QUANTITY, f"the problem does not speak of {quantity}")
        return None

    def _wrong_dependency(self, step: Derivation) -> StepJudgement | None:
        definition = self.graph.derived.get(step.quantity)
        if definition is None:
            return StepJudgement(StepKind.WRONG_DEPENDENCY, f"{step.quantity} are given and need no derivation")
        if not definition.matches(step.operator, step.left.operand, step.right.operand):
            return StepJudgement(
                StepKind.WRONG_DEPENDENCY,
                f"{step.quantity} are {definition.left} {definition.operator} {definition.right}",
            )
        return None

    def _wrong_numbers(self, terms: Sequence[Term]) -> StepJudgement | None:
        named = [(term.quantity, term.number) for term in terms if term.quantity is not None]
        for quantity, _ in named:
            if quantity not in self.known:
                return StepJudgement(StepKind.NOT_DERIVED, f"{quantity} were not derived before")
        for quantity, number in named:
            if number != self.known[quantity]:
                return StepJudgement(StepKind.WRONG_NUMBER, f"{quantity} are {self.known[quantity]} and not {number}")
        return None

    def _wrong_arithmetic(self, step: Derivation) -> StepJudgement | None:
        result = calculate(step.left.number, step.operator, step.right.number)
        if result == step.result:
            return None
        return StepJudgement(
            StepKind.WRONG_ARITHMETIC,
            f"{step.left.number} {step.operator} {step.right.number} is {result} and not {step.result}",
        )

    def _inherited(self, quantities: Sequence[Quantity]) -> StepJudgement | None:
        for quantity in quantities:
            if self.known[quantity] != self.graph.values[quantity]:
                return StepJudgement(StepKind.INHERITED, f"{quantity} were derived wrongly before")
        return None


def judge_steps(problem: Problem, steps: Sequence[str]) -> list[StepJudgement]:
    """What each step of a solution is.

    Raises:
        GradatimError: if the problem is no word problem.
    """
    judge = SolutionJudge(read_problem(problem.prompt))
    return [judge.judge(step) for step in steps]


def first_error(judgements: Sequence[StepJudgement]) -> int | None:
    """Index of the first wrong step, or ``None``."""
    return next((index for index, judgement in enumerate(judgements) if not judgement.kind.is_right), None)
