"""The answers to one request, read from its events."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradatim.errors import GradatimError
from gradatim.policies.server.characters import Characters
from gradatim.policies.server.division import Division, Piece
from gradatim.policies.server.doubts import Doubt
from gradatim.policies.server.events import END
from gradatim.policies.server.failures import MalformedError, TemporaryError, explanation
from gradatim.policies.server.formats import Format

CUT_OFF = frozenset({"length", "max_tokens", "model_length", "content_filter"})
"""The reasons for which a server ends a text before its end."""

_BROKEN_OFF = frozenset({"abort", "cancelled", "error"})
_LIKELY = -1e-3  # above this log-probability equal neighbours are nothing special


@dataclass(slots=True)
class Answer:
    """What the server wrote for one choice.

    Attributes:
        division: its steps.
        unlike: the solution so far, until the answer is known to differ from it; ``None`` where nobody looks.
        stop_field: the field that says what ended it, if the server was given stop strings.
        finish: why the server ended it; ``None`` if it did not, or was not let.
        ended_by: the stop string that ended it, or something else where the end of the text did.
        tells: whether the server says ``ended_by``.
        begun: whether anything of it came.
        text: all that came, what is no part of any step included.
        tokens: that came, as far as the server shows them.
        known: whether each of them came with its log-probability.
        shown: whether any of them did.
        flawed: whether tokens came with something else than log-probabilities.
    """

    division: Division
    unlike: str | None = None
    stop_field: str | None = None
    finish: str | None = None
    ended_by: Any = None
    tells: bool = False
    begun: bool = False
    text: str = ""
    tokens: int = 0
    known: bool = True
    shown: bool = False
    flawed: bool = False
    _held: list[Piece] = field(default_factory=list)
    _characters: Characters = field(default_factory=Characters)
    _ahead: int = 0  # characters of tokens that were shown, and whose text did not come yet

    @property
    def closed(self) -> bool:
        """Whether nothing more is to come or wanted."""
        return self.finish is not None or self.division.done

    def add(self, piece: Piece) -> None:
        """Take a further piece.

        Raises:
            GradatimError: if the answer begins with the whole solution so far.
            ValueError: if its text is none.
        """
        values = piece.log_probabilities
        self._ahead += (piece.spelled or 0) - len(piece.text)
        if piece.spelled is not None and self._ahead < 0:  # some tokens are not shown
            values = None
        self._ahead = max(0, self._ahead)
        self.tokens += piece.tokens
        self.known = self.known and values is not None
        self.shown = self.shown or bool(values)
        self.flawed = self.flawed or (piece.spelled is not None and values is None)
        piece = Piece(self._characters.add(piece.text), piece.tokens, values)
        self.text += piece.text
        if self.unlike is None:
            self.division.add(piece)
            return
        self._held.append(piece)
        text = "".join(each.text for each in self._held)
        if text.startswith(self.unlike):
            raise GradatimError(
                "the server repeats the solution so far instead of continuing it: it does not know "
                "continue_final_message; use api='completions' or a server that knows it (vLLM, SGLang, llama.cpp)",
                options=("api='completions'",),
            )
        if not self.unlike.startswith(text):
            self._release()

    def end(self) -> None:
        """Nothing more comes: take what was held back.

        Raises:
            ValueError: if the text ends within a character and was not cut off there.
        """
        rest = self._characters.finish()
        if rest and not self.division.done:
            if self.finish not in CUT_OFF:
                raise ValueError("its text ends within a character")
            self._held.append(Piece(rest, 0, ()))
        self._release()

    def _release(self) -> None:
        held, self._held, self.unlike = self._held, [], None
        for piece in held:
            self.division.add(piece)


class Reading:
    """Reads the answers to one request, each of which goes on with one of ``divisions``.

    Args:
        url: of the server, for errors.
        form: the API's form.
        divisions: what is continued; they stay as they are.
        most_tokens: that each answer was permitted.
        unlike: as :attr:`Answer.unlike`.
        stop_field: as :attr:`Answer.stop_field`.

    Attributes:
        answers: one for each of ``divisions``.
        usage: what the server says that it counted, in its own form.
        doubts: what seems flawed in what was read so far.
    """

    def __init__(
        self,
        url: str,
        form: Format,
        divisions: Sequence[Division],
        *,
        most_tokens: int,
        unlike: str | None = None,
        stop_field: str | None = None,
    ) -> None:
        self.answers = [Answer(division.fork(), unlike, stop_field) for division in divisions]
        self.usage: Any = None
        self.doubts: set[Doubt] = set()
        self._url = url
        self._form = form
        self._most_tokens = most_tokens
        self._ended = False
        self._last: Mapping[str, Any] | None = None
        self._values: set[float] = set()  # the log-probabilities so far

    @property
    def finished(self) -> bool:
        """Whether the server ended every answer, so that nothing that may follow is needed."""
        return all(answer.finish is not None for answer in self.answers)

    @property
    def enough(self) -> bool:
        """Whether all that is wanted came, and the server may still be writing."""
        return all(answer.closed for answer in self.answers) and not self.finished

    @property
    def known_tokens(self) -> int:
        """The tokens that came; 0 where the server does not show each of them."""
        known = all(answer.known for answer in self.answers)
        return sum(answer.tokens for answer in self.answers) if known else 0

    @property
    def lacks_log_probabilities(self) -> bool:
        """Whether there is text without."""
        return any(answer.text and not answer.known for answer in self.answers)

    def take(self, event: Mapping[str, Any]) -> None:
        """Add what an event brings to the answers.

        Raises:
            TemporaryError: if it has not the form that it should have, or reports that the answer failed.
        """
        if event is END:
            self._ended = True
            return
        self.usage = event.get("usage") or self.usage
        again, self._last = event == self._last, event
        try:
            for choice in self._choices(event):
                if choice.get("error") or choice.get("finish_reason") in _BROKEN_OFF:
                    said = explanation(json.dumps(choice.get("error") or event))
                    raise MalformedError(f"{self._url} broke its answer off ({said})")
                self._take_choice(choice, again=again)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise self._not_openai(f"{type(error).__name__} {error}") from error

    def end(self) -> None:
        """The last event came.

        Raises:
            TemporaryError: if an answer is broken off, or none came.
        """
        for answer in self.answers:
            if self._ended and answer.begun and not answer.closed:
                answer.finish = "length" if answer.tokens >= self._most_tokens else "stop"
                self.doubts.add(Doubt.END)
        if not any(answer.closed for answer in self.answers) or any(
            answer.begun and not answer.closed for answer in self.answers
        ):
            raise TemporaryError(f"{self._url} ended its answer in the middle")
        try:
            for answer in self.answers:
                answer.end()
        except ValueError as error:
            raise self._not_openai(str(error)) from error
        if any(answer.flawed or (answer.shown and not answer.known) for answer in self.answers):
            self.doubts.add(Doubt.LOG_PROBABILITIES)

    def _choices(self, event: Mapping[str, Any]) -> Sequence[Any]:
        """The choices of an event; none of one that only brings something that nobody here needs."""
        choices = event.get("choices")
        if choices is None:
            if "usage" not in event:
                raise KeyError("choices")
            return ()
        if not isinstance(choices, list):
            raise TypeError(f"choices are a {type(choices).__name__}")
        return choices

    def _take_choice(self, choice: Mapping[str, Any], *, again: bool) -> None:
        index = choice.get("index") or 0
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(self.answers):
            raise IndexError(f"{index!r} is no choice's index")
        answer, pieces = self.answers[index], self._form.pieces(choice)
        if again and answer.finish is not None:
            return  # its end was sent twice
        values = [value for piece in pieces for value in piece.log_probabilities or ()]
        if again and len(self._values) > 1 and any(value < _LIKELY for value in values):
            # no model gives two tokens one after the other the same probability to the last digit
            self.doubts.add(Doubt.REPEATED)
        self._values.update(values)
        answer.begun = True
        for piece in pieces:
            answer.add(piece)
        finish = choice.get("finish_reason")
        if finish is not None and not isinstance(finish, str):
            raise TypeError(f"finish_reason is a {type(finish).__name__}")
        answer.finish = finish or answer.finish
        if answer.stop_field is not None and answer.stop_field in choice:
            answer.tells, answer.ended_by = True, choice[answer.stop_field]

    def _not_openai(self, what: str) -> MalformedError:
        return MalformedError(f"{self._url} answers in a form that is not OpenAI's ({what})")
