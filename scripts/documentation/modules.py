"""An mkdocs hook: a reference page holds every module of its room, whether the page names it or not.

A page says ``<!-- modules of gradatim.search -->`` where the modules go that it does not name itself, so that a new
module is documented without anybody having to remember it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_MARKER = re.compile(r"<!-- modules of (gradatim(?:\.\w+)*) -->")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Put one mkdocstrings block for each module that is left in the place of the marker."""
    source = Path(config.config_file_path).parent / "src"
    return _MARKER.sub(lambda match: "\n\n".join(f"::: {name}" for name in _left(match[1], markdown, source)), markdown)


def _left(room: str, markdown: str, source: Path) -> list[str]:
    """The modules of ``room``, folders below it included, that ``markdown`` does not name; private ones never."""
    folder = source.joinpath(*room.split("."))
    names = []
    for path in sorted(folder.rglob("*.py")):
        if path.stem.startswith("_"):
            continue
        name = ".".join(path.relative_to(source).with_suffix("").parts)
        if not re.search(rf"^::: {re.escape(name)}$", markdown, re.MULTILINE):
            names.append(name)
    return names
