"""Characters whose parts come in different events of a stream."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Characters:
    """Puts together the text of one answer.

    A server may send half of a character with one event and the rest with the next: its bytes, which stand in the text
    as lone surrogates (``surrogateescape``), or one of the two surrogates that JSON's escapes write it as.

    Attributes:
        held: the part of a character that ended the text so far.
    """

    held: str = ""

    def add(self, text: str) -> str:
        """The whole characters of what was held and ``text``; the rest is held.

        Raises:
            ValueError: if it is no text, whatever follows.
        """
        if not self.held and text.isascii():
            return text
        paired = (self.held + text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        self.held = ""
        if paired and "\ud800" <= paired[-1] <= "\udbff":
            paired, self.held = paired[:-1], paired[-1]
        content = paired.encode("utf-8", "surrogateescape")
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            if self.held or error.reason != "unexpected end of data":
                raise
            self.held = content[error.start :].decode("utf-8", "surrogateescape")
            return content[: error.start].decode()

    def finish(self) -> str:
        """What stands for a character whose other part never came."""
        held, self.held = self.held, ""
        return "\ufffd" if held else ""
