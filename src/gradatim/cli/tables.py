"""Sections of a report in the terminal: sentences, and tables that fit its width.

No number and no word is ever cut or broken over two lines: a table that is too wide breaks between words, and one that
is too wide even then is written as a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import TextWrapper

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from gradatim.evaluation.page import HELD, Picture, Section, Table, Verbatim, printable

_FRAME = 3  # characters that the frame takes for each column; one more closes it


def print_sections(sections: Sequence[Section], console: Console) -> None:
    """Print what a report says; pictures are left to its page."""
    shown = [each for each in sections if any(not isinstance(block, Picture) for block in each.blocks)]
    for place, section in enumerate(shown):
        if place:
            console.print()
        if section.title:
            _print_text(section.title, console, style="bold")
        for block in section.blocks:
            if isinstance(block, Table):
                _print_table(block, console)
            elif isinstance(block, Verbatim):
                console.print(Text(printable(block.text)), soft_wrap=True)
            elif not isinstance(block, Picture):
                _print_text(block, console)


def _print_text(text: str, console: Console, style: str = "") -> None:
    console.print(Text("\n".join(broken(text, console.width)), style=style), soft_wrap=True)


def _print_table(table: Table, console: Console) -> None:
    if table.note:
        _print_text(table.note, console)
    header = list(table.header[: table.narrow])
    rows = [list(row[: table.narrow]) for row in table.rows]
    widths = fitting_widths(header, rows, table.words, console.width)
    if widths is None:
        _print_list(header, rows, console)
        return
    shown = RichTable()
    for place, (name, width) in enumerate(zip(header, widths, strict=True)):
        heading = Text("\n".join(broken(name, width)))
        shown.add_column(heading, justify="left" if place < table.words else "right", no_wrap=True, min_width=width)
    for row in rows:
        shown.add_row(*(Text("\n".join(broken(cell, width))) for cell, width in zip(row, widths, strict=True)))
    console.print(shown)


def fitting_widths(header: Sequence[str], rows: Sequence[Sequence[str]], words: int, width: int) -> list[int] | None:
    """How wide each column of a table is within ``width`` characters; ``None`` if it does not fit at all.

    The widest of the columns that can be broken gives way first. Headings and the first ``words`` columns break between
    words, numbers never.
    """
    columns = [[name, *(row[place] for row in rows)] for place, name in enumerate(header)]
    widths = [max(map(len, column)) for column in columns]
    least = [
        max([_longest_word(column[0]), *(_longest_word(cell) if place < words else len(cell) for cell in column[1:])])
        for place, column in enumerate(columns)
    ]
    room = width - _FRAME * len(columns) - 1
    if sum(least) > room:
        return None
    while sum(widths) > room:
        place = max(range(len(widths)), key=lambda index: (widths[index] > least[index], widths[index]))
        widths[place] -= 1
    return widths


def broken(text: str, width: int) -> list[str]:
    """``text`` in lines of ``width`` characters, broken at spaces alone; a longer word is a longer line."""
    wrapper = TextWrapper(width=max(1, width), break_long_words=False, break_on_hyphens=False)
    return [line.replace(HELD, " ") for line in wrapper.wrap(printable(text))] or [""]


def _longest_word(text: str) -> int:
    return max(map(len, text.split(" ")), default=0)


def _print_list(header: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> None:
    """A table's rows one after the other, a line for each cell, for terminals that are too narrow for it."""
    for row in rows:
        for place, (name, cell) in enumerate(zip(header, row, strict=True)):
            if cell:
                _print_text(("  " if place else "") + (f"{name}: {cell}" if name else cell), console)
