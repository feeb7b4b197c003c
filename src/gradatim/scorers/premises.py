"""Deductive verification: a step names what it follows from, and a judge sees nothing else of the solution."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from gradatim.errors import GradatimError
from gradatim.part import PartOf, part
from gradatim.scorers.base import Context
from gradatim.scorers.verdicts import OffFormat, VerdictOptions, VerdictScorer
from gradatim.text.boundaries.base import Boundary
from gradatim.text.boundaries.sentence import Sentence
from gradatim.text.prompts import question_of
from gradatim.tree import Node

_FACTS = Sentence()


@part
class PremisesPart(VerdictOptions):
    """A judge checks a step against the premises alone that it cites (Ling et al., 2023, arXiv:2306.03872).

    A chain passes if all of its steps do: let the search take the `min` or `product` of a path's scores (`aggregate`).
    """

    placeholders: ClassVar[tuple[str, ...]] = ("premises", "step", "problem")

    template: str = """\
Here is some information:
{premises}

Does the following step of reasoning follow from this information alone, and is its calculation right? Check it, and \
end with one line that says either "Verdict: correct" or "Verdict: incorrect".

Step:
{step}

Check:
"""
    """The prompt: the `{premises}` that the `{step}` cites, a line each with its number, and the `{problem}` whole."""
    votes: Literal["mean", "majority"] = "majority"
    """Whether the `majority` of the verdicts finds the step right, or the `mean` of the verdicts."""
    cites: str = r"\(by ([^)]*)\)|\[([\d\s,]+)\]"
    """The regular expression of a citation, such as `(by #1 #3)` or `[1, 3]`: all numbers in its groups are cited."""
    label: str = r"#(\d+)"
    """The regular expression of the number that a step gives itself at its beginning, in a group; a step without one
    has the number after the last."""
    facts: Annotated[Boundary, PartOf("text/boundaries")] | None = _FACTS
    """How the question is divided into facts, which have the numbers before the first step's; `null` where it has none:
    then steps count from 1, and the question is always given whole."""
    uncited: Literal["all", "off_format"] = "all"
    """A step that cites nothing, or what is not before it, is given `all` premises, or counts as `off_format`."""

    def __post_init__(self) -> None:
        VerdictOptions.__post_init__(self)
        for name, pattern in {"cites": self.cites, "label": self.label}.items():
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise GradatimError(f"{name} is no regular expression ({error}): {pattern!r}; mend it") from error
            if not groups:
                raise GradatimError(f"{name} needs a group around its numbers, but {pattern!r} has none; add one")

    def open(self, context: Context) -> PremisesScorer:
        return PremisesScorer(context.policy(self.model), self)


class PremisesScorer(VerdictScorer):
    """Scores a step by what a judge says of it, who sees what the step cites and nothing else.

    Args:
        policy: the judge.
        options: how it is asked and read.
        account: what is charged; by default what the options say.
    """

    options: PremisesPart

    def question(self, node: Node) -> str | OffFormat:
        premises = self._premises(node)
        cited = self.cited(node)
        if not cited or not cited <= premises.keys():
            if self.options.uncited == "off_format":
                return OffFormat("cites what is not there" if cited else "cites nothing")
            cited = set(premises)
        question = question_of(node.tree.problem).strip()
        given = [f"#{number} {premises[number]}" for number in sorted(cited)]
        return self.options.filled(
            {
                "premises": "\n".join([question, *given] if self.options.facts is None else given),
                "step": node.step.text.strip(),
                "problem": question,
            }
        )

    def cited(self, node: Node) -> set[int]:
        """The numbers of what a step cites."""
        citations = re.finditer(self.options.cites, node.step.text)
        return {int(number) for each in citations for group in each.groups("") for number in re.findall(r"\d+", group)}

    def _premises(self, node: Node) -> dict[int, str]:
        """What a step may cite, by number: the facts of the question and the steps before it."""
        found = dict(enumerate(self._facts(node), 1))
        last = len(found)
        for each in node.path()[1:-1]:
            own = re.match(self.options.label, each.step.text.strip())
            last = last + 1 if own is None else int(own[1])
            text = each.step.text_with_observation.strip()
            found[last] = text if own is None else text[own.end() :].lstrip(" .:")
        return found

    def _facts(self, node: Node) -> Iterator[str]:
        if self.options.facts is not None:
            yield from map(str.strip, self.options.facts.split(question_of(node.tree.problem).strip()))
