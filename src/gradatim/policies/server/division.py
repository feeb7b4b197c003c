"""Text that arrives piece by piece, divided into steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain
from typing import NamedTuple

from gradatim.text.boundaries.base import Boundary
from gradatim.text.solution_end import Ending
from gradatim.tree import EndReason, Step

Look = Callable[[str, str | None], Ending | None]
"""Where a solution has ended within all text so far; also told what was added last, or ``None`` if it was cut off."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an answer.

    Attributes:
        text: what it adds.
        tokens: how many tokens wrote it, as far as the server shows.
        log_probabilities: one for each of them, or ``None`` where the server does not tell.
        spelled: characters of the tokens' own texts, if the server shows those; they may come earlier than the text.
    """

    text: str
    tokens: int
    log_probabilities: tuple[float, ...] | None
    spelled: int | None = None


class _Place(NamedTuple):
    """Where a piece begins in its step's text, with its tokens and their log-probabilities."""

    begin: int
    tokens: int
    log_probabilities: tuple[float, ...] | None


@dataclass(slots=True)
class Division:
    """Divides text into text steps. A boundary belongs to the step that it ends, and nothing after it does, however
    the text is cut into pieces.

    A step has log-probabilities if they are known for all of its tokens. A token whose text goes past a boundary
    counts to the step that it ends; where a piece of several tokens does, it is not known which token belongs to which
    step, and neither step has any. Tokens behind a boundary, which showed that it is one, begin the next step.

    Attributes:
        boundary: what ends a step.
        longest: tokens after which a step without a boundary is cut off.
        room: how many more steps may be written.
        closing: why the last of those steps ends, if it ends at a boundary.
        look: finds the end of the solution within the text so far; ``None`` where only the policy ends it.
        steps: the steps that are complete, with the tokens of each.
        done: whether nothing more is taken.
        dropped: whether text beyond the end of the solution came and was not taken.
        behind: tokens that came behind the end of the last permitted step, showed it, and were not taken.
    """

    boundary: Boundary
    longest: int
    room: int
    closing: EndReason
    look: Look | None = None
    steps: list[tuple[Step, int]] = field(default_factory=list)
    done: bool = False
    dropped: bool = False
    behind: int = 0
    _text: str = ""
    _tokens: int = 0
    _pieces: list[_Place] = field(default_factory=list)  # of the step that is being written

    def fork(self) -> Division:
        """A copy, for an attempt that may fail."""
        return replace(self, steps=list(self.steps), _pieces=list(self._pieces))

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(step.text for step, _ in self.steps) + self._text

    @property
    def tokens(self) -> int:
        """All tokens so far."""
        return sum(tokens for _, tokens in self.steps) + self._tokens

    @property
    def full(self) -> bool:
        """Whether the step that is being written is as long as a step may be."""
        return self._tokens >= self.longest

    def add(self, piece: Piece) -> None:
        """Take a further piece; what comes after the last permitted step is dropped."""
        if not self.done and piece.tokens and self.full:  # only now is it known that it goes on
            self.finish(EndReason.LENGTH)
        if self.done:
            return
        self._pieces.append(_Place(len(self._text), piece.tokens, piece.log_probabilities))
        self._text += piece.text
        self._tokens += piece.tokens
        ending = self.look(self.text, piece.text) if self.look is not None else None
        if ending is None:
            self._divide()
        else:
            self._end(ending)

    def _end(self, ending: Ending) -> None:
        """End the solution within the text so far, and drop what comes behind it."""
        before = sum(len(step.text) for step, _ in self.steps)
        seen = max(1, ending.seen - before)
        if seen < len(self._text):
            self.dropped = True
            self._pieces = [piece for piece in self._pieces if piece.begin < seen]
            self._tokens = sum(piece.tokens for piece in self._pieces)
        self._text = self._text[: max(0, ending.length - before)]
        self._divide(to_the_end=ending.reason is EndReason.STOP)
        if not self.done:
            self.done = True
            self._complete(ending.reason)

    def _divide(self, *, to_the_end: bool = True) -> None:
        """Complete the steps whose boundaries are there; one with nothing but white space behind it counts if
        ``to_the_end``."""
        while not self.done:
            end = self.boundary.end(_WrittenText(self._text, self._pieces))
            if not end or not (to_the_end or self._text[end:].strip()):
                return
            self._end_step(end)

    def _end_step(self, end: int) -> None:
        """Complete the step that ends at a place in the text; what is behind it begins the next one."""
        rest = self._text[end:]
        pieces, behind = _divided(self._pieces, end, len(self._text))
        self._text, self._pieces, self._tokens = self._text[:end], pieces, sum(piece.tokens for piece in pieces)
        self.room -= 1
        self.done = self.room <= 0
        self._complete(self._reason(self.closing) if self.done else EndReason.BOUNDARY)
        if self.done:
            self.behind = sum(piece.tokens for piece in behind)
        else:
            self._text, self._pieces, self._tokens = rest, behind, sum(piece.tokens for piece in behind)

    def finish(self, end: EndReason) -> None:
        """The text ends here for the reason ``end``.

        A policy that ends the solution right after a boundary wrote one more step, without text. One that is cut off
        there cuts off the step before.
        """
        if self.done:
            return
        self.done = True
        end = self._reason(end)
        if end is EndReason.END_OF_TEXT or self._text or self._tokens:
            self._complete(end)
        elif self.steps:
            step, tokens = self.steps[-1]
            self.steps[-1] = replace(step, end=end), tokens

    def _reason(self, end: EndReason) -> EndReason:
        """Why the text ends where ``end`` would cut it off: it may be a whole solution."""
        ending = self.look(self.text, None) if end.cuts_off and self.look is not None else None
        return end if ending is None else ending.reason

    def _complete(self, end: EndReason) -> None:
        self.steps.append((Step((), self._text, _joined(self._pieces) or (), end), self._tokens))
        self._text, self._tokens, self._pieces = "", 0, []


@dataclass(frozen=True, slots=True)
class _WrittenText:
    """A step in characters; see :class:`gradatim.text.boundaries.base.Written`."""

    text: str
    pieces: Sequence[_Place]

    @property
    def log_probabilities(self) -> tuple[float, ...] | None:
        return _joined(self.pieces)

    def at_character(self, count: int) -> int:
        return count

    def at_token(self, count: int) -> int | None:
        ends = [*(piece.begin for piece in self.pieces[1:]), len(self.text)]
        written = accumulate(piece.tokens for piece in self.pieces)
        return next((end for end, tokens in zip(ends, written, strict=False) if tokens >= count), None)

    def behind(self, place: int) -> _WrittenText:
        return _WrittenText(self.text[place:], _divided(self.pieces, place, len(self.text))[1])


def _divided(pieces: Sequence[_Place], end: int, length: int) -> tuple[list[_Place], list[_Place]]:
    """The pieces of a text of a length before and behind a place in it, these with places counted from there."""
    before = [piece for piece in pieces if piece.begin < end]
    behind = [piece._replace(begin=piece.begin - end) for piece in pieces[len(before) :]]
    if (behind[0].begin if behind else length - end) > 0:  # the last piece lies on both sides
        last = before[-1]
        if last.tokens > 1:
            before[-1] = last = last._replace(log_probabilities=None)
        behind.insert(0, _Place(0, 0, () if last.tokens == 1 else last.log_probabilities))
    return before, behind


def _joined(pieces: Sequence[_Place]) -> tuple[float, ...] | None:
    values = [piece.log_probabilities for piece in pieces]
    known = [each for each in values if each is not None]
    return tuple(chain.from_iterable(known)) if len(known) == len(values) else None
