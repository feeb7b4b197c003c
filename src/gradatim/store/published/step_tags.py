"""Tags that end a step inside one text, told from the same letters in a word."""

from __future__ import annotations

import unicodedata


def split_at_tags(text: str, tag: str) -> list[str]:
    """The parts of ``text`` between tags; a tag of letters is none where a letter of its own alphabet touches it.

    So Math-Shepherd's tag is not found within a longer word of the language that it was taken from.
    """
    parts = [""]
    place = 0
    while (found := text.find(tag, place)) >= 0:
        end = found + len(tag)
        parts[-1] += text[place:found]
        if _one_word(text[found - 1 : found], tag[0]) or _one_word(tag[-1], text[end : end + 1]):
            parts[-1] += tag
        else:
            parts.append("")
        place = end
    parts[-1] += text[place:]
    return parts


def has_tag(text: str, tag: str) -> bool:
    """Whether a tag stands in ``text``."""
    return len(split_at_tags(text, tag)) > 1


def _one_word(first: str, second: str) -> bool:
    """Whether two characters are letters of one alphabet."""
    return first.isalpha() and second.isalpha() and _alphabet(first) == _alphabet(second)


def _alphabet(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]
