"""Verdicts that a language model writes about steps: how they are asked for, read, kept and counted."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, NonNegativeInt, PositiveInt

from gradatim.budget import POLICY, Account
from gradatim.errors import GradatimError
from gradatim.part import options
from gradatim.policies.aside import Answer, Aside, Question
from gradatim.policies.base import Policy
from gradatim.scorers.base import ModelName, ScorerPart, StepScorer
from gradatim.suggestions import suggestion
from gradatim.tasks.templates import Template
from gradatim.text.solution_end import SolutionEnd, after_thought
from gradatim.tree import Node, Tree

JUDGEMENTS = "judgements"
"""The key of judges' words in a node's notes: by the scorer's name, a list of what each sample said. Each has its text,
and either a ``verdict`` from 0 to 1 or how it is ``off_format``."""
_FIELD = re.compile(r"(?<![\w\\{}])\{([A-Za-z_]\w*)\}")  # a brace behind a word is LaTeX's: \boxed{correct}
Words = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]


@options
class VerdictOptions(ScorerPart):
    """What judges that write have in common: who judges, how the verdict is read, and how many are asked for."""

    placeholders: ClassVar[tuple[str, ...]] = ()

    model: ModelName = "judge"
    """The model that judges: any policy of the recipe, be it behind a server, or the policy itself."""
    template: str
    """The prompt, with placeholders in braces."""
    verdict: str = r"verdict\W+(?:(?:boxed|text|is)\W+)*(correct|incorrect)\b"
    """The regular expression of a verdict, whose one group is the verdict; capitals do not matter. The first line that
    holds one ends the answer, so it must not match what the judge writes on the way."""
    right: Words = ("correct",)
    """Verdicts that are worth 1."""
    wrong: Words = ("incorrect",)
    """Verdicts that are worth 0."""
    scale: tuple[float, float] | None = None
    """The verdict is a number between these two instead, the first worth 0 and the second worth 1."""
    samples: PositiveInt = 1
    """Verdicts that are drawn on each step."""
    votes: Literal["mean", "majority"] = "mean"
    """The score is the `mean` of the verdicts, or whether the `majority` of them finds the step right: 1 or 0."""
    max_tokens: PositiveInt = 1024
    """The longest answer of the judge; a longer one is off-format."""
    kept_characters: NonNegativeInt = 2000
    """How much of each answer is kept on the node, from its end."""

    def __post_init__(self) -> None:
        try:
            groups = compiled(self.verdict).groups
        except re.error as error:
            raise GradatimError(f"verdict is no regular expression ({error}): {self.verdict!r}; mend it") from error
        if groups != 1:
            raise GradatimError(f"verdict must have one group, which is the verdict, but {self.verdict!r} has {groups}")
        if both := {word.casefold() for word in self.right} & {word.casefold() for word in self.wrong}:
            raise GradatimError(f"{min(both)!r} is both a right and a wrong verdict; leave it in one of them")
        if self.scale is not None and not self.scale[0] < self.scale[1]:
            raise GradatimError(f"scale must go from a lower to a higher number, got {self.scale}")
        self._check_template()

    def _check_template(self) -> None:
        for field in _FIELD.findall(self.template):
            if field not in self.placeholders:
                known = list(self.placeholders)
                raise GradatimError(f"template has no placeholder {{{field}}}; {suggestion(field, known)}")
        if "{step}" not in self.template:
            raise GradatimError("template has no {step}, so the judge would not see what it judges; put it in")
        self.filled({})

    def filled(self, values: Mapping[str, str]) -> str:
        """The prompt with ``values`` in the placeholders' places; those without a value are empty."""
        used = [name for name in self.placeholders if f"{{{name}}}" in self.template]
        return Template(self.template, used).fill({name: values.get(name, "") for name in used})

    @property
    def account(self) -> Account:
        """What judging is charged to: the model's own account, and not the policy's where the policy judges itself."""
        return Account("judge" if self.model == POLICY.name else self.model)

    @property
    def solution_end(self) -> SolutionEnd:
        """What ends an answer beside the model's end token: the line with the verdict."""
        pattern = compiled(self.verdict)
        return SolutionEnd(line=lambda line: pattern.search(line) is not None)

    def said(self, answer: str) -> float | OffFormat:
        """The verdict of a whole answer, from 0 to 1, or why it has none."""
        begin = after_thought(answer)
        if begin is None:
            return OffFormat("cut off")
        found = {self.worth(match[1]) for match in compiled(self.verdict).finditer(answer, begin)}
        if len(found) != 1:
            return OffFormat("several verdicts" if found else "no verdict")
        (verdict,) = found
        return OffFormat(verdict) if isinstance(verdict, str) else verdict

    def word(self, good: bool) -> str:
        """How a verdict is written that finds a step good, or bad."""
        if self.scale is not None:
            return f"{self.scale[good]:g}"
        return (self.right if good else self.wrong)[0]

    def worth(self, verdict: str) -> float | str:
        """What a verdict is worth, or why it is none."""
        if self.scale is None:
            words = {word.casefold(): 1.0 for word in self.right} | {word.casefold(): 0.0 for word in self.wrong}
            return words.get(verdict.casefold(), "unknown verdict")
        try:
            number = float(verdict)
        except ValueError:
            return "unknown verdict"
        low, high = self.scale
        return (number - low) / (high - low) if low <= number <= high else "out of scale"


class OffFormat(NamedTuple):
    """A judgement that could not be had, and of which kind it is."""

    kind: str


class VerdictScorer(StepScorer):
    """Scores a step by the verdicts that a language model writes about it.

    The judge writes in trees of its own (:class:`gradatim.policies.aside.Aside`). Its words stay on the node
    (:data:`JUDGEMENTS`); a step that it was asked for is not judged again. A step without words, such as an end token
    alone, is worth what the step before it is. Where the budget ends before all verdicts on a step are there, the step
    stays unscored. So does one of whose verdicts none can be read; the others of a step of which some can be read still
    count. ``node.counts[name]`` is the number of verdicts behind the score.

    Args:
        policy: the judge.
        options: of the part.
        account: what is charged; by default what the options say.

    Attributes:
        off_format: answers that could not be read, by kind.
    """

    def __init__(self, policy: Policy, options: VerdictOptions, account: Account | None = None) -> None:
        super().__init__(options.name)
        self.options = options
        self.off_format: Counter[str] = Counter()
        self._aside = Aside(
            policy,
            account=account or options.account,
            samples=options.samples,
            max_tokens=options.max_tokens,
            end=options.solution_end,
            purpose=self.name,
        )

    @abstractmethod
    def question(self, node: Node) -> str | OffFormat:
        """What the judge is asked about a step, or why it cannot be."""

    async def judged(self, nodes: Sequence[Node]) -> list[float | None]:
        """The mean of the verdicts on each step, or what their majority says."""
        spoken = {node: _with_words(node) for node in nodes}
        steps = dict.fromkeys(step for step in spoken.values() if step is not None)
        await self._judge([step for step in steps if self.name not in step.notes.get(JUDGEMENTS, {})])
        return [self._score(node, step) for node, step in spoken.items()]

    async def _judge(self, steps: Sequence[Node]) -> None:
        """Write the judge's words on steps, as far as the budget goes."""
        asked = {step: self.question(step) for step in steps}
        questions = [Question(step, text) for step, text in asked.items() if isinstance(text, str)]
        answers = await self._aside.answers(questions)
        for question, said in zip(questions, answers, strict=True):
            if said is not None:
                self._note(question.about, [(answer.text, self._verdict(answer)) for answer in said])
        for step, refused in asked.items():
            if isinstance(refused, OffFormat):
                self._note(step, [("", refused)])

    def _verdict(self, answer: Answer) -> float | OffFormat:
        """What an answer says of the step, from 0 to 1."""
        return self.options.said(answer.text) if answer.whole else OffFormat("cut off")

    def _note(self, step: Node, said: Sequence[tuple[str, float | OffFormat]]) -> None:
        notes: list[dict[str, Any]] = []
        for text, verdict in said:
            kept = text[-self.options.kept_characters :] if self.options.kept_characters else ""
            if isinstance(verdict, OffFormat):
                self.off_format[verdict.kind] += 1
                notes.append({"off_format": verdict.kind, "text": kept})
            else:
                notes.append({"verdict": verdict, "text": kept})
        step.notes.setdefault(JUDGEMENTS, {})[self.name] = notes

    def _score(self, node: Node, step: Node | None) -> float | None:
        """The score of a node, whose last words are those of ``step``."""
        said = [] if step is None else step.notes.get(JUDGEMENTS, {}).get(self.name, [])
        verdicts = [each["verdict"] for each in said if "verdict" in each]
        if not verdicts:
            return None
        node.counts[self.name] = len(verdicts)
        mean = float(sum(verdicts) / len(verdicts))
        return mean if self.options.votes == "mean" else float(mean > 0.5)


def off_format_counts(trees: Iterable[Tree]) -> dict[str, tuple[Counter[str], int]]:
    """What judges said off-format in trees, by scorer: how many answers by kind, and how many answers there are."""
    found: dict[str, tuple[Counter[str], int]] = {}
    for node in (node for tree in trees for node in tree.nodes):
        for name, said in node.notes.get(JUDGEMENTS, {}).items():
            kinds, total = found.get(name, (Counter(), 0))
            kinds.update(each["off_format"] for each in said if "off_format" in each)
            found[name] = kinds, total + len(said)
    return found


def _with_words(node: Node) -> Node | None:
    """The last step on the path to a node that says anything; ``None`` if there is none."""
    said = (each for each in reversed(node.path()[1:]) if each.step.text.strip())
    return next(said, None)


@lru_cache
def compiled(pattern: str) -> re.Pattern[str]:
    """A verdict's regular expression."""
    return re.compile(pattern, re.IGNORECASE)
