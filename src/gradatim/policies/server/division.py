"""Text that arrives piece by piece, divided into steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

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


@dataclass(slots=True)
class Division:
    """Divides text into text steps. A boundary belongs to the step that it ends, and nothing after it does, however
    the text is cut into pieces.

    A step has log-probabilities if they are known for all of its tokens. A token whose text goes past a boundary
    counts to the step that it ends; where a piece of several tokens does, it is not known which token belongs to which
    step, and neither step has any.

    Attributes:
        step_end: the strings that end a step.
        longest: tokens after which a step without a boundary is cut off.
        room: how many more steps may be written.
        closing: why the last of those steps ends, if it ends at a boundary.
        look: finds the end of the solution within the text so far; ``None`` where only the policy ends it.
        steps: the steps that are complete, with the tokens of each.
        done: whether nothing more is taken.
        dropped: whether text beyond the end of the solution came and was not taken.
    """

    step_end: tuple[str, ...]
    longest: int
    room: int
    closing: EndReason
    look: Look | None = None
    steps: list[tuple[Step, int]] = field(default_factory=list)
    done: bool = False
    dropped: bool = False
    _text: str = ""
    _tokens: int = 0
    _pieces: list[tuple[int, int]] = field(default_factory=list)  # where each began in the step's text, and its tokens
    _log_probabilities: tuple[float, ...] | None = ()

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
        self._pieces.append((len(self._text), piece.tokens))
        self._text += piece.text
        self._tokens += piece.tokens
        self._log_probabilities = _joined(self._log_probabilities, piece.log_probabilities)
        ending = self.look(self.text, piece.text) if self.look is not None else None
        if ending is None:
            self._divide(piece)
        else:
            self._end(ending, piece)

    def _end(self, ending: Ending, piece: Piece) -> None:
        """End the solution within the text so far, and drop what comes behind it."""
        before = sum(len(step.text) for step, _ in self.steps)
        seen = max(1, ending.seen - before)
        behind = sum(tokens for begin, tokens in self._pieces if begin >= seen)
        if behind and self._log_probabilities is not None:
            self._log_probabilities = self._log_probabilities[: len(self._log_probabilities) - behind]
        if seen < len(self._text):
            self.dropped = True
            self._tokens -= behind
        self._text = self._text[: max(0, ending.length - before)]
        self._divide(piece, to_the_end=ending.reason is EndReason.STOP)
        if not self.done:
            self.done = True
            self._complete(ending.reason)

    def _divide(self, piece: Piece, *, to_the_end: bool = True) -> None:
        """Complete the steps whose boundaries are there; a boundary at the very end counts if ``to_the_end``."""
        while not self.done and (end := boundary_end(self._text, self.step_end)) is not None:
            if end == len(self._text) and not to_the_end:
                return
            rest = self._text[end:]
            self._text = self._text[:end]
            shared = bool(rest) and piece.tokens > 1
            if shared:
                self._log_probabilities = None
            self.room -= 1
            self.done = self.room <= 0
            self._complete(self.closing if self.done else EndReason.BOUNDARY)
            self._text = "" if self.done else rest
            self._log_probabilities = None if shared else ()

    def finish(self, end: EndReason) -> None:
        """The text ends here for the reason ``end``.

        A policy that ends the solution right after a boundary wrote one more step, without text. One that is cut off
        there cuts off the step before.
        """
        if self.done:
            return
        self.done = True
        if end.cuts_off and self.look is not None and (ending := self.look(self.text, None)) is not None:
            end = ending.reason
        if end is EndReason.END_OF_TEXT or self._text or self._tokens:
            self._complete(end)
        elif self.steps:
            step, tokens = self.steps[-1]
            self.steps[-1] = replace(step, end=end), tokens

    def _complete(self, end: EndReason) -> None:
        self.steps.append((Step((), self._text, self._log_probabilities or (), end), self._tokens))
        self._text, self._tokens, self._log_probabilities, self._pieces = "", 0, (), []


def boundary_end(text: str, step_end: Sequence[str]) -> int | None:
    """Where the boundary ends that is complete first in ``text``; ``None`` if there is none."""
    ends = [place + len(end) for end in step_end if (place := text.find(end)) >= 0]
    return min(ends, default=None)


def _joined(before: tuple[float, ...] | None, more: tuple[float, ...] | None) -> tuple[float, ...] | None:
    return None if before is None or more is None else before + more
