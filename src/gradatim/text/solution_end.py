"""Where a solution ends, where the policy does not say so itself.

A model that was trained to answer writes its end token after the answer. A base model goes on: it asks itself a next
problem under the heading of its prompt and answers that. So a solution ends at the first of these: the end token, the
end of the line that completes the final answer by the task's own rule, the beginning of a next problem, or a limit.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from gradatim.tree import EndReason, Problem

_THOUGHT = re.compile(r"<think>|</think>")
_LAST_WORD = re.compile(r"\S*\Z")
_LONGEST_LINE = 500  # characters at a line's end that are looked at: a looping model writes long lines


class NextProblem(NamedTuple):
    """Where a policy turned to a next problem: its text begins at ``start``, and ``seen`` is what told of it."""

    start: int
    seen: int


class Ending(NamedTuple):
    """The end of a solution.

    Attributes:
        reason: ``ANSWER`` or ``STOP``.
        length: characters of the text that are the solution.
        seen: characters up to what told that it had ended: those of the heading of a next problem, for example.
    """

    reason: EndReason
    length: int
    seen: int


LineRule = Callable[[str], bool]
BoxRule = Callable[[str], int | None]
NextProblemRule = Callable[[Problem, str], NextProblem | None]


@dataclass(frozen=True, slots=True)
class SolutionEnd:
    r"""How the text of a solution shows that it has ended.

    What stands in a ``<think>`` block is no part of the answer, so nothing there ends a solution.

    Attributes:
        line: whether a whole line, without its line break, is a complete final answer (``#### 18``).
        box: the place in a text after the first complete answer that may be followed by more on its line (a closed
            ``\boxed{18}``); the solution ends with that line.
        next_problem: where a text turns to a next problem.
        stop: texts that end a solution wherever they stand; they are no part of it.
    """

    line: LineRule | None = None
    box: BoxRule | None = None
    next_problem: NextProblemRule | None = None
    stop: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is any rule."""
        return bool(self.line or self.box or self.next_problem or self.stop)

    def may_end(self, added: str) -> bool:
        """Whether text that was added to a solution may have ended it: it holds a line's end, or completes a stop."""
        return any(character in added for character in self.telling)

    @property
    def telling(self) -> frozenset[str]:
        """The characters that complete what ends a solution."""
        return frozenset({"\n", *(stop[-1] for stop in self.stop)})

    def find(self, problem: Problem, text: str, *, cut_off: bool = False, thinking: bool = False) -> Ending | None:
        """The end of the solution that ``text`` holds or begins, ``None`` if it may go on.

        A rule is about whole lines, so a text that is still being written need be looked at only when a line or one of
        :attr:`stop` is complete.

        Args:
            problem: what is solved.
            text: everything that was written of the solution.
            cut_off: whether the text was cut off by a limit, so that its last line is all that there will be. A last
                word that may be torn does not count.
            thinking: whether the prompt itself opened a ``<think>`` block, as some chat templates do.
        """
        begin = after_thought(text, thinking)
        if begin is None:
            return None
        found = [self._answer(text, begin, cut_off), self._next(problem, text, begin)]
        return min((ending for ending in found if ending), key=lambda ending: ending.length, default=None)

    def _answer(self, text: str, begin: int, cut_off: bool) -> Ending | None:
        """The end of the first line that completes the final answer."""
        ends = []
        if self.box is not None and (closed := self.box(text[begin:])) is not None:
            ends.append(_line_end(text, begin + closed, cut_off))
        if self.line is not None:
            ends.append(self._answer_line(text, begin, cut_off))
        known = [end for end in ends if end is not None]
        return Ending(EndReason.ANSWER, min(known), min(known)) if known else None

    def _answer_line(self, text: str, begin: int, cut_off: bool) -> int | None:
        assert self.line is not None
        while (end := text.find("\n", begin)) >= 0:
            if self.line(text[max(begin, end - _LONGEST_LINE) : end]):
                return end + 1
            begin = end + 1
        rest = _LAST_WORD.sub("", text[begin:][-_LONGEST_LINE:]) if cut_off else ""
        return len(text) if rest and self.line(rest) else None

    def _next(self, problem: Problem, text: str, begin: int) -> Ending | None:
        """The beginning of a next problem, or of a text that ends every solution."""
        found = [NextProblem(place, place + len(stop)) for stop in self.stop if (place := text.find(stop, begin)) >= 0]
        if self.next_problem is not None and (turned := self.next_problem(problem, text[begin:])) is not None:
            found.append(NextProblem(begin + turned.start, begin + turned.seen))
        return Ending(EndReason.STOP, *min(found)) if found else None


NEVER = SolutionEnd()
"""Solutions that end with the end token or at a limit only."""


def opens_thought(prompt: str) -> bool:
    """Whether a prompt ends by opening a ``<think>`` block, as some chat templates do."""
    return prompt.rstrip().endswith("<think>")


def after_thought(text: str, thinking: bool = False) -> int | None:
    """Where the answer begins after the last ``<think>`` block; ``None`` within one.

    Args:
        text: of a solution.
        thinking: whether the prompt itself opened a block.
    """
    begin: int | None = None if thinking else 0
    for mark in _THOUGHT.finditer(text):
        begin = None if mark[0] == "<think>" else mark.end()
    return begin


def _line_end(text: str, place: int, cut_off: bool) -> int | None:
    """The end of the line of ``place``, its line break included; of a line that will not end, the end of the text."""
    end = text.find("\n", place)
    if end >= 0:
        return end + 1
    return len(text) if cut_off else None
