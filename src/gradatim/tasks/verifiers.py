"""Ways to judge a final answer, by name. Tasks of one's own choose among them."""

from __future__ import annotations

import inspect
import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from gradatim.errors import GradatimError
from gradatim.suggestions import suggestion
from gradatim.tasks.base import Verdict, compare
from gradatim.tasks.choice_answers import extract_choice, is_choice_line, verify_choice
from gradatim.tasks.math_answers import first_box_end, is_math_answer_line, math_answer, verify_math
from gradatim.tasks.number_answers import extract_answer, is_answer_line, verify_number
from gradatim.text.solution_end import NEVER, SolutionEnd

_MARK = re.compile(r"(?:####|\banswer[ \t*_]{0,8}(?:is|:|=))[ \t*_:]{0,8}(?P<answer>[^\n]+)", re.IGNORECASE)

# A line whose end is the answer: not "Answer: We add both numbers, and ..." but a few words.
_ANSWER_LINE = re.compile(
    r"(?:.*####|(?:.*[.!?]\s+)?[\s*_#]*(?:(?:so|thus|hence|therefore),?\s+)?(?:the\s+)?(?:final\s+)?"
    r"answer[ \t*_]{0,8}(?:is|:|=))[ \t*_:]{0,8}[^.!?;\n]{1,60}[.!?]?",
    re.IGNORECASE,
)
# "#### Step 2", "#### Solution:", "#### 2. Comparison": what a solution is divided by.
_HEADING = re.compile(
    r"####[\s*_]*(?:(?:step|case|part|method|approach|solution|analysis|explanation|reasoning|conclusion|"
    r"(?:final\s+)?answer)\b|\d+[.)]\s|.*:[\s*_]*$)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Verifier:
    """Judges solutions by a reference answer. Deterministic, and never raises on any text.

    Attributes:
        answer: the final answer of a solution's text, in the form that equal answers share; ``None`` without any.
        check: the verdict on a reference answer and a solution's text.
        solution_end: how a complete final answer looks.
    """

    answer: Callable[[str], str | None]
    check: Callable[[str | None, str], Verdict]
    solution_end: SolutionEnd = NEVER


def exact_verifier() -> Verifier:
    """A verifier by the words of the final answer; capitals, spaces and a full stop do not count.

    The final answer is what follows the last "answer is", "Answer:" or ``####`` on its line, else the last line.
    """

    def answer(text: str) -> str | None:
        marked = deque(_MARK.finditer(text), 1)
        return _words(marked[0]["answer"] if marked else text.rstrip().rpartition("\n")[2])

    check = partial(_check_words, answer, "no final answer: the last line is empty")
    return Verifier(answer, check, SolutionEnd(_states_words))


def regex_verifier(pattern: str) -> Verifier:
    """A verifier by what a regular expression finds last: its first group, or all of it where it has none.

    What is found is compared as in :func:`exact_verifier`. Long texts take as long as the expression makes them take.
    Nobody knows whether its first match is the final one, so no match ends a solution.

    Raises:
        GradatimError: if the pattern is no regular expression.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise GradatimError(f"the pattern {pattern!r} is no regular expression: {error}; mend it") from error

    def answer(text: str) -> str | None:
        found = deque(compiled.finditer(text), 1)
        return _words(found[0][1 if compiled.groups else 0] or "") if found else None

    return Verifier(answer, partial(_check_words, answer, f"no final answer: nothing matches {pattern!r}"))


def _states_mathematics(line: str) -> bool:
    """Whether a line states a final answer: ``#### $x = 2$``, but not the heading ``#### Step 2: solve for $x$``."""
    before, mark, answer = line.rpartition("####")
    return is_math_answer_line(f"Answer: {answer}" if mark else before + answer)


def _states_words(line: str) -> bool:
    """Whether a line states a final answer of a few words, and is no heading."""
    line = line.rstrip()
    return _ANSWER_LINE.fullmatch(line) is not None and _HEADING.search(line) is None


_FACTORIES: Mapping[str, Callable[..., Verifier]] = {
    "number": lambda: Verifier(extract_answer, verify_number, SolutionEnd(is_answer_line, first_box_end)),
    "math": lambda: Verifier(math_answer, verify_math, SolutionEnd(_states_mathematics, first_box_end)),
    "choice": lambda: Verifier(extract_choice, verify_choice, SolutionEnd(is_choice_line, first_box_end)),
    "exact": exact_verifier,
    "regex": regex_verifier,
}


def make_verifier(name: str, options: Mapping[str, Any] | None = None) -> Verifier:
    """The verifier of a name.

    Args:
        name: ``number`` (the last number, exactly), ``math`` (mathematics in ``\\boxed{}``, by value), ``choice`` (an
            option's letter), ``exact`` (the same words) or ``regex`` (what a ``pattern`` finds).
        options: the verifier's options.

    Raises:
        GradatimError: if there is no such verifier or it has other options.
    """
    if name not in _FACTORIES:
        raise GradatimError(f"there is no verifier {name!r}; {suggestion(name, list(_FACTORIES))}")
    factory = _FACTORIES[name]
    wanted = list(inspect.signature(factory).parameters)
    if unknown := set(options or ()) - set(wanted):
        has = f"has only {', '.join(wanted)}" if wanted else "has no options"
        raise GradatimError(f"the verifier {name!r} {has}, so {sorted(unknown)[0]!r} cannot be given")
    if missing := set(wanted) - set(options or ()):
        raise GradatimError(f"the verifier {name!r} needs {sorted(missing)[0]!r}; write {{name: {name}, ...: ...}}")
    return factory(**(options or {}))


def _check_words(answer: Callable[[str], str | None], nothing: str, reference: str | None, text: str) -> Verdict:
    return compare(_words(reference or ""), answer(text), nothing)


def _words(text: str) -> str | None:
    return " ".join(text.casefold().split()).strip(" .*_\"'`") or None
