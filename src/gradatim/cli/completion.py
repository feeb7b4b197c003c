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
    return _parts("search", incomplete)


def complete_format(incomplete: str) -> list[str]:
    """The published formats that begin like this."""
    return _parts("store/published", incomplete)


def complete_construction(incomplete: str) -> list[str]:
    """The constructions that begin like this."""
    return _parts("supervision", incomplete)


def complete_benchmark(incomplete: str) -> list[str]:
    """The benchmarks of step scorers that begin like this."""
    from gradatim.part import names

    return [name for name in names("evaluation/benchmarks") if name.startswith(incomplete)]


def complete_task(incomplete: str) -> list[str]:
    """The tasks that begin like this, and files of one's own."""
    return _parts("tasks", incomplete) + _paths(incomplete, (".yaml", ".yml", ".py"))


def complete_kind(incomplete: str) -> list[str]:
    """The kinds of parts that begin like this."""
    from gradatim.part import kinds

    return [kind for kind in kinds() if kind.startswith(incomplete)]


def _parts(kind: str, incomplete: str) -> list[str]:
    from gradatim.part import names

    return [name for name in names(kind) if name.startswith(incomplete)]


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
