"""What a shell offers when Tab is pressed; nothing here loads a model or a large library."""

from __future__ import annotations

from pathlib import Path


def complete_recipe(incomplete: str) -> list[str]:
    """Shipped recipes, and YAML files and folders that begin like this."""
    from gradatim.recipes import shipped_recipes

    return [name for name in shipped_recipes() if name.startswith(incomplete)] + _paths(incomplete, (".yaml", ".yml"))


def complete_model(incomplete: str) -> list[str]:
    """Shipped models, and folders that begin like this."""
    from gradatim.models import shipped_models

    names = [f"shipped:{name}" for name in shipped_models()]
    return [name for name in names if name.startswith(incomplete)] + _paths(incomplete, ())


def complete_search(incomplete: str) -> list[str]:
    """The searches that begin like this."""
    from gradatim.part import names

    return [name for name in names("search") if name.startswith(incomplete)]


def complete_task(incomplete: str) -> list[str]:
    """The tasks that begin like this, and files of one's own."""
    from gradatim.part import names

    known = [name for name in names("tasks") if name.startswith(incomplete)]
    return known + _paths(incomplete, (".yaml", ".yml", ".py"))


def complete_kind(incomplete: str) -> list[str]:
    """The kinds of parts that begin like this."""
    from gradatim.part import kinds

    return [kind for kind in kinds() if kind.startswith(incomplete)]


def _paths(incomplete: str, suffixes: tuple[str, ...]) -> list[str]:
    folder = Path(incomplete if incomplete.endswith("/") else Path(incomplete).parent)
    if not folder.expanduser().is_dir():
        return []
    found = []
    for path in sorted(folder.expanduser().iterdir()):
        shown = (Path() if str(folder) == "." else folder) / path.name
        if str(shown).startswith(incomplete) and (path.is_dir() or path.suffix in suffixes):
            found.append(f"{shown}/" if path.is_dir() else str(shown))
    return found
