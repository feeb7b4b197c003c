"""Judges without a model: what they say of a prompt is written down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from gradatim.policies.base import Sampling
from gradatim.policies.scripted import ScriptedPolicy, ScriptedStep
from gradatim.tree import EndReason, Node

Says = Callable[[str], Sequence[tuple[str, float]] | str]


def scripted_judge(says: Says, sampling: Sampling | None = None) -> ScriptedPolicy:
    """A judge that answers a prompt with one of some texts, each with its weight, or always with the same."""

    def steps(node: Node) -> list[ScriptedStep]:
        answers = says(node.tree.problem.prompt)
        weighted = [(answers, 1.0)] if isinstance(answers, str) else answers
        return [ScriptedStep(text, weight, EndReason.END_OF_TEXT) for text, weight in weighted]

    return ScriptedPolicy(steps, sampling, source="judge")


def countdown_step(prompt: str) -> str:
    """The line of a countdown solution that a prompt asks about: the last one that calculates anything."""
    return next(line for line in reversed(prompt.splitlines()) if "=" in line)


def calculates_right(line: str) -> bool:
    """Whether the calculation of a countdown line (``2*3=6|4 6``) is right."""
    left, _, right = line.partition("|")[0].partition("=")
    for sign in "+-*/":
        one, found, other = left.partition(sign)
        if found:
            a, b = Fraction(one), Fraction(other)
            return Fraction(right) == {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[sign]
    return False


def arithmetic_judge() -> ScriptedPolicy:
    """A judge that calculates again, and never errs."""

    def says(prompt: str) -> str:
        right = calculates_right(countdown_step(prompt))
        return f"I calculate it again.\nVerdict: {'correct' if right else 'incorrect'}"

    return scripted_judge(says)
