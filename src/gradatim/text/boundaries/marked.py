"""Steps that a language model marked in a text that is whole.

Where a model marks the steps while it writes them, since it was prompted to, the mark is a string like any other: that
is the boundary ``delimiter``, with ``at: ["<step>"]``. Here a model divides a text that somebody else wrote: it writes
the text again with marks between the steps, and the places of the marks are found in the text itself.
"""

from __future__ import annotations

import re
from itertools import accumulate, pairwise


def marked_steps(text: str, answer: str, mark: str) -> list[str] | str:
    """Divide ``text`` where ``mark`` stands in ``answer``, which has to hold the whole text, letter by letter.

    White space may differ, and what stands before and after the text does not count. Joined again the steps are
    ``text`` exactly, and none of them is blank: the white space between two steps belongs to the first.

    Returns:
        The steps, two or more; or, in a few words, why there are none.
    """
    if mark in text:
        return "the mark is in the text"
    letters = ["".join(piece.split()) for piece in answer.split(mark)]
    whole = "".join(text.split())
    begin = "".join(letters).find(whole)
    if begin < 0:
        return "another text"
    marked = {place - begin for place in accumulate(map(len, letters))}
    inside = sorted(place for place in marked if 0 < place < len(whole))
    if not inside:
        return "no mark"
    places = [letter.start() for letter in re.finditer(r"\S", text)]
    return [text[start:end] for start, end in pairwise([0, *(places[each] for each in inside), len(text)])]
