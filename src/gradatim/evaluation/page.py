"""What a report says, once: sections of sentences and tables that are written as Markdown or shown in a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

HELD = "\u00a0"
"""A space at which no line is broken, as between a number and its interval."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        header: the columns' names.
        rows: a cell for each column.
        note: what the numbers are, above the table.
        words: so many columns, from the left, hold words; all others numbers, which stand to the right.
        narrow: so many columns, from the left, are what a terminal has room for; ``None`` for all.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    words: int = 1
    narrow: int | None = None


@dataclass(frozen=True, slots=True)
class Verbatim:
    """Text that is shown as it is: commands, or what a model wrote."""

    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture with the path of its file from the report's folder."""

    caption: str
    path: str


Block = str | Table | Verbatim | Picture


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report.

    Attributes:
        title: its heading; none for what the report begins with.
        blocks: its content; a string is a paragraph. Without any, the section is left out.
    """

    title: str
    blocks: Sequence[Block]


def held(text: str) -> str:
    """``text`` as one piece, which is never broken over two lines."""
    return text.replace(" ", HELD)


def markdown_page(title: str, sections: Sequence[Section]) -> str:
    """A page in GitHub's Markdown. No text of a problem or a model can leave its place in it."""
    parts = [f"# {_escaped(title)}"]
    for section in sections:
        if section.blocks:
            parts += [f"## {_escaped(section.title)}"] if section.title else []
            parts += [_markdown(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> str:
    """A GitHub table: the first ``words`` columns to the left, all others (numbers) to the right."""
    ruler = ["---" if place < words else "---:" for place in range(len(header))]
    lines = [[_cell(name) for name in header], ruler, *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def fenced(text: str) -> str:
    """``text`` in a fence longer than any run of backticks in it; control characters are written as escapes."""
    shown = printable(text)
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{shown.rstrip()}\n{fence}"


def printable(text: str) -> str:
    """``text`` with control characters, other than line breaks and tabs, and broken characters written as escapes."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(
        character if character in "\n\t" or not _unprintable(character) else f"\\x{ord(character):02x}"
        for character in lines
    )


def _unprintable(character: str) -> bool:
    code = ord(character)
    # control characters, those that change the direction of what follows, and halves of surrogate pairs
    return (
        code < 0x20
        or 0x7F <= code < 0xA0
        or 0x202A <= code <= 0x202E
        or 0x2066 <= code <= 0x2069
        or 0xD800 <= code <= 0xDFFF
        or code in (0x2028, 0x2029)
    )


def _markdown(block: Block) -> str:
    if isinstance(block, Table):
        table = markdown_table(block.header, block.rows, words=block.words)
        return f"{_escaped(block.note)}\n\n{table}" if block.note else table
    if isinstance(block, Verbatim):
        return fenced(block.text)
    if isinstance(block, Picture):
        return f"![{_escaped(block.caption)}]({block.path})"
    return _escaped(block)


def _cell(text: str) -> str:
    return _escaped(text).replace("|", "\\|")


# what would begin markup inside a sentence; an underscore within a word and a bracket that no link follows do not
_MARKUP = re.compile(r"[\\`*<&~]|\](?=[(\[:])|(?<!\w)_|_(?!\w)")


def _escaped(text: str) -> str:
    plain = " ".join(printable(text).replace(HELD, " ").split())
    return _MARKUP.sub(lambda match: "\\" + match[0], plain)
