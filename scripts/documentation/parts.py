"""An mkdocs hook: every part with its one line, its paper and its options, as ``gradatim parts`` lists them.

The marker ``<!-- parts -->`` becomes a section for each kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_MARKER = "<!-- parts -->"
_PAPER = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_REFERENCE = re.compile(r":(?:class|func|mod|data):`~?([\w.]*?)(\w+)`")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Put the parts in the place of the marker."""
    return markdown.replace(_MARKER, "\n\n".join(_kinds())) if _MARKER in markdown else markdown


def _kinds() -> Iterator[str]:
    from gradatim.part import find, kinds, pages

    for kind, summary in kinds().items():
        yield f"## `{kind}`\n\n{_text(summary)}."
        for page in pages(kind):
            found = find(kind, page.name)
            yield f"### `{page.name}`\n\n{_text(page.summary)} ([more][{found.__module__}.{found.__name__}])."
            rows = [(f"`{each.name}`", f"`{each.type}`", _default(each), _text(each.meaning)) for each in page.options]
            lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
            if rows:
                yield "\n".join(["| option | type | default | |", "|---|---|---|---|", *lines])


def _default(option: Any) -> str:
    return "**required**" if option.default is None else f"`{option.default}`"


def _text(text: str) -> str:
    linked = _PAPER.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
    return _REFERENCE.sub(r"[`\2`][\1\2]", linked).replace("``", "`")
