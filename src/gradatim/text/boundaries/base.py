"""The contract of a boundary: where a step ends, in a whole text and while it is written.

There is one rule for both, :meth:`Boundary.end`. Policies ask it of the step that they write, whenever a token was
added that may tell; a whole text is divided by asking it again and again. So a text has the same steps however it came.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from gradatim.part import name_of

_WINDOW = 1000  # characters of a long text that are looked at for the end of a step, if they do


class Written(Protocol):
    """A step as far as it is written, and perhaps the beginning of the next one.

    Places in it are in the unit of whoever writes it: tokens where tokens are true, characters of text otherwise. A
    boundary gets them from :meth:`at_character` and :meth:`at_token`, and hands them back.
    """

    @property
    def text(self) -> str:
        """Its text."""
        ...

    @property
    def log_probabilities(self) -> Sequence[float] | None:
        """One for each of its tokens, under the model itself; ``None`` where they are not known."""
        ...

    def at_character(self, count: int) -> int:
        """The place behind so many characters; behind the token that holds the last of them, where there are tokens."""
        ...

    def at_token(self, count: int) -> int | None:
        """The place behind so many tokens; ``None`` if fewer are written."""
        ...

    def behind(self, place: int) -> Written:
        """What is written behind a place, where a step ends."""
        ...


class Boundary(ABC):
    """What ends a step; a subclass is a part (:func:`gradatim.part.part`) in a file of its own.

    A boundary has no state: what it says depends on the step alone.
    """

    @abstractmethod
    def end(self, written: Written) -> int | None:
        """The place where the step ends, once that is certain; ``None`` while it goes on.

        It lies behind something, and may lie before the last token that was written: what is behind it begins the next
        step, or is dropped where no next step is wanted. What is said once stays true, whatever else is written.
        """

    def may_end(self, piece: str) -> bool:
        """Whether a step may be known to have ended when a token with this text is written.

        A policy asks :meth:`end` at such tokens alone. Part of a character reads as ``"\\ufffd"``.
        """
        return True

    @property
    def looks_ahead(self) -> bool:
        """Whether a step may be known to have ended only when something is written behind it."""
        return True

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Strings of which one stands at the end of every step, for servers that stop at them; empty where no strings
        tell, so that the answers are cut by whoever asks. Where a step does not end at one of them, it is asked on."""
        return ()

    @property
    def words(self) -> str:
        """What ends a step, in a few words that go on after "each step ends with"."""
        return name_of(self)

    def split(self, text: str) -> list[str]:
        """Divide a whole text into steps; joined again they are ``text``. White space at its end belongs to the last
        step."""
        steps, start, last = [], 0, len(text.rstrip())
        while start < last and (length := self._first_length(text, start)) and start + length < last:
            steps.append(text[start : start + length])
            start += length
        return [*steps, text[start:]] if text else []

    def _first_length(self, text: str, start: int) -> int:
        """The length of the step that begins at ``start``; 0 if it goes on to the end of the text."""
        size = _WINDOW
        while True:
            window = text[start : start + size]
            length = self.end(_WholeText(window)) or 0
            if 0 < length < len(window) or start + size >= len(text):
                return length
            size *= 4


class TextBoundary(Boundary):
    """A boundary that is told by the text alone.

    A step is not blank: where nothing but white space stands before a boundary, the step goes on.
    """

    @abstractmethod
    def ends(self, text: str) -> Iterable[int]:
        """Where steps may end in the text of a step and of what is behind it: characters, from left to right."""

    def end(self, written: Written) -> int | None:
        text = written.text
        first = re.search(r"\S", text)
        place = None if first is None else next((end for end in self.ends(text) if end > first.start()), None)
        return None if place is None else written.at_character(place)


@dataclass(frozen=True, slots=True)
class _WholeText:
    """A text of which no tokens are known; a token is taken to be a word with the white space before it."""

    text: str
    log_probabilities: None = None

    def at_character(self, count: int) -> int:
        return count

    def at_token(self, count: int) -> int | None:
        word = next(islice(re.finditer(r"\S+", self.text), count - 1, None), None)
        return None if word is None else word.end()

    def behind(self, place: int) -> _WholeText:
        return _WholeText(self.text[place:])
