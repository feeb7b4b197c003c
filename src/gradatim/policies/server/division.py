"""Text that arrives piece by piece, divided into steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gradatim.tree import EndReason, Step


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an answer.

    Attributes:
        text: what it adds.
        tokens: how many tokens wrote it, as far as the server shows.
        log_probabilities: one for each of them, or ``None`` where the server does not tell.
    """

    text: str
    tokens: int
    log_probabilities: tuple[float, ...] | None


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
        steps: the steps that are complete, with the tokens of each.
        done: whether nothing more is taken.
    """

    step_end: tuple[str, ...]
    longest: int
    room: int
    closing: EndReason
    steps: list[tuple[Step, int]] = field(default_factory=list)
    done: bool = False
    _text: str = ""
    _tokens: int = 0
    _log_probabilities: tuple[float, ...] | None = ()

    def fork(self) -> Division:
        """A copy, for an attempt that may fail."""
        return replace(self, steps=list(self.steps))

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(step.text for step, _ in self.steps) + self._text

    @property
    def tokens(self) -> int:
        """All tokens so far."""
        return sum(tokens for _, tokens in self.steps) + self._tokens

    def add(self, piece: Piece) -> None:
        """Take a further piece; what comes after the last permitted step is dropped."""
        if not self.done and piece.tokens and self._tokens >= self.longest:  # only now is it known that it goes on
            self._complete(EndReason.LENGTH)
            self.done = True
        if self.done:
            return
        self._text += piece.text
        self._tokens += piece.tokens
        self._log_probabilities = _joined(self._log_probabilities, piece.log_probabilities)
        while not self.done and (end := boundary_end(self._text, self.step_end)) is not None:
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
        if end is EndReason.END_OF_TEXT or self._text or self._tokens:
            self._complete(end)
        elif self.steps:
            step, tokens = self.steps[-1]
            self.steps[-1] = replace(step, end=end), tokens

    def _complete(self, end: EndReason) -> None:
        self.steps.append((Step((), self._text, self._log_probabilities or (), end), self._tokens))
        self._text, self._tokens, self._log_probabilities = "", 0, ()


def boundary_end(text: str, step_end: Sequence[str]) -> int | None:
    """Where the boundary ends that is complete first in ``text``; ``None`` if there is none."""
    ends = [place + len(end) for end in step_end if (place := text.find(end)) >= 0]
    return min(ends, default=None)


def _joined(before: tuple[float, ...] | None, more: tuple[float, ...] | None) -> tuple[float, ...] | None:
    return None if before is None or more is None else before + more
