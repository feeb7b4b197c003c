"""Models that ship with the package, one folder each, and how recipes name models."""

from __future__ import annotations

import difflib
from pathlib import Path

from gradatim.errors import GradatimError

_FOLDER = Path(__file__).parent
SHIPPED = "shipped:"


def shipped_models() -> list[str]:
    """The names of the models in this package, without ``shipped:``."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/config.json"))


def resolve_model(name: str) -> str:
    """The folder of ``shipped:NAME``; a hub id or a path is returned as it is, ``~`` expanded.

    Raises:
        GradatimError: if no such model ships.
    """
    if not name.startswith(SHIPPED):
        return str(Path(name).expanduser()) if name.startswith("~") else name
    shipped, wanted = shipped_models(), name.removeprefix(SHIPPED)
    if wanted in shipped:
        return str(_FOLDER / wanted)
    near = difflib.get_close_matches(wanted, shipped, n=1)
    hint = f"did you mean {SHIPPED}{near[0]}?" if near else f"there are: {', '.join(shipped) or 'none'}"
    raise GradatimError(f"no model ships under the name {wanted!r}; {hint}")
