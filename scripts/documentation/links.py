"""An mkdocs hook: links from a page to files of the repository that are no pages lead to the repository itself."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)]*)?(\))")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Rewrite relative links that leave the documentation's folder."""
    pages, root = Path(config.docs_dir), Path(config.config_file_path).parent
    folder = pages / Path(page.file.src_uri).parent

    def rewrite(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / match[2]))
        if target.is_relative_to(pages) or not target.exists():
            return match[0]
        return match[1] + str(config.extra["repository"]) + target.relative_to(root).as_posix() + match[4]

    return _LINK.sub(rewrite, markdown)
