"""Word problems in English: one sentence per quantity, in several forms, and a question."""

from __future__ import annotations

import random
import re
from functools import lru_cache
from typing import Literal

from gradatim.errors import GradatimError
from gradatim.tasks.quantities.graph import Definition, DependencyGraph, Operator, Quantity

Kind = tuple[Literal["given", "constant", "quantity"], Operator | None]

SENTENCES: dict[Kind, tuple[str, ...]] = {
    ("given", None): (
        "{owner} has {n} {thing}.",
        "{quantity} number {n}.",
    ),
    ("constant", "+"): (
        "{quantity} are {n} more than {left}.",
        "{quantity} exceed {left} by {n}.",
    ),
    ("constant", "-"): (
        "{quantity} are {n} fewer than {left}.",
        "{quantity} fall short of {left} by {n}.",
    ),
    ("constant", "*"): (
        "{quantity} are {n} times {left}.",
        "{quantity} are {n} times as many as {left}.",
    ),
    ("quantity", "+"): (
        "{quantity} are {left} plus {right}.",
        "{quantity} are as many as {left} and {right} together.",
    ),
    ("quantity", "-"): (
        "{quantity} are {left} minus {right}.",
        "{quantity} are as many as {left} less {right}.",
    ),
    ("quantity", "*"): (
        "{quantity} are {left} times {right}.",
        "{quantity} are as many as {left} multiplied by {right}.",
    ),
}
QUESTIONS = ("How many {thing} does {owner} have?", "What is the number of {quantity}?")

_OWNER, _THING = "[A-Z][a-z]{0,30}", "[a-z]{1,30}"
_FIELDS = {"owner": _OWNER, "thing": _THING, "n": "[1-9][0-9]{0,8}"} | dict.fromkeys(
    ("quantity", "left", "right"), f"{_OWNER}'s {_THING}"
)


def _pattern(template: str) -> re.Pattern[str]:
    """The regular expression that reads what ``template`` writes."""
    return re.compile(re.sub(r"\\{(\w+)\\}", lambda field: f"(?P<{field[1]}>{_FIELDS[field[1]]})", re.escape(template)))


_SENTENCE_PATTERNS = [(kind, _pattern(template)) for kind, templates in SENTENCES.items() for template in templates]
_QUESTION_PATTERNS = [_pattern(template) for template in QUESTIONS]


def write_problem(graph: DependencyGraph, generator: random.Random) -> str:
    """The prompt: a sentence for each quantity in random order, then the question, then a line end."""
    sentences = [_write_sentence(quantity, number, generator) for quantity, number in graph.given.items()]
    sentences += [_write_sentence(quantity, definition, generator) for quantity, definition in graph.derived.items()]
    generator.shuffle(sentences)
    question = _fill(generator.choice(QUESTIONS), graph.asked)
    return " ".join([*sentences, question]) + "\n"


@lru_cache(maxsize=1 << 12)
def read_problem(prompt: str) -> DependencyGraph:
    """The graph that a prompt describes.

    Raises:
        GradatimError: if a sentence cannot be read, or the sentences make no graph.
    """
    *sentences, question = re.split(r"(?<=[.?]) ", prompt.removesuffix("\n"))
    given: dict[Quantity, int] = {}
    derived: dict[Quantity, Definition] = {}
    for sentence in sentences:
        quantity, content = _read_sentence(sentence)
        if quantity in given or quantity in derived:
            raise GradatimError(f"the problem defines {quantity} twice; define every quantity once")
        if isinstance(content, int):
            given[quantity] = content
        else:
            derived[quantity] = content
    return DependencyGraph(given, derived, _read_question(question))


def _write_sentence(quantity: Quantity, content: Definition | int, generator: random.Random) -> str:
    if isinstance(content, int):
        return _fill(generator.choice(SENTENCES["given", None]), quantity, n=content)
    if isinstance(content.right, int):
        template = generator.choice(SENTENCES["constant", content.operator])
        return _fill(template, quantity, left=content.left, n=content.right)
    template = generator.choice(SENTENCES["quantity", content.operator])
    return _fill(template, quantity, left=content.left, right=content.right)


def _fill(template: str, quantity: Quantity, **fields: Quantity | int) -> str:
    return template.format(quantity=quantity, owner=quantity.owner, thing=quantity.thing, **fields)


def _read_sentence(sentence: str) -> tuple[Quantity, Definition | int]:
    for (form, operator), pattern in _SENTENCE_PATTERNS:
        if found := pattern.fullmatch(sentence):
            if operator is None:
                return _defined(found), int(found["n"])
            right = int(found["n"]) if form == "constant" else Quantity.parse(found["right"])
            return _defined(found), Definition(operator, Quantity.parse(found["left"]), right)
    raise GradatimError(f"{sentence[:80]!r} is no sentence of a word problem; write one like 'Ann has 7 apples.'")


def _read_question(question: str) -> Quantity:
    for pattern in _QUESTION_PATTERNS:
        if found := pattern.fullmatch(question):
            return _defined(found)
    raise GradatimError(
        f"{question[:80]!r} is no question of a word problem; end with one like 'How many apples does Ann have?'"
    )


def _defined(found: re.Match[str]) -> Quantity:
    """What a sentence defines or a question asks for."""
    fields = found.groupdict()
    return Quantity.parse(fields["quantity"]) if "quantity" in fields else Quantity(fields["owner"], fields["thing"])
