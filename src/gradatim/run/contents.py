"""What the files that a recipe names hold: their content is part of what a stage depends on, as their names are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gradatim.part import files_of, name_of, parts_within
from gradatim.recipes.comparison import Comparison
from gradatim.recipes.recipe import POLICY, Recipe
from gradatim.run.stages import OWN_SEARCHES
from gradatim.store.trees import grown_trees

_IN_MODELS = {".bin", ".gguf", ".jinja", ".json", ".model", ".safetensors", ".txt"}
_IN_DATA = {".jsonl", ".json", ".parquet", ".arrow", ".csv"}
_PIECES = 64  # of a large file so many are read, from its first bytes to its last
_PIECE = 2**16  # bytes


def contents(recipe: Recipe | Comparison) -> dict[str, dict[str, str]]:
    """A digest of each local file and folder that ``recipe`` names, under the key that names it and the file's path.

    What lies on the hub, at a server or in the package is known by its name alone.
    """
    found: dict[str, dict[str, str]] = {}
    for key, path, kinds in _of_comparison(recipe) if isinstance(recipe, Comparison) else _of_recipe(recipe):
        files = sorted(_files(path, kinds))
        if files:
            whole = hashlib.sha256(repr([(str(file.relative_to(path)), _digest(file)) for file in files]).encode())
            found.setdefault(key, {})[str(path)] = whole.hexdigest()[:12]
    return found


def _of_recipe(recipe: Recipe) -> Iterator[tuple[str, Path, set[str]]]:
    """The keys that name something local, with it and with the kinds of files that matter in a folder."""
    yield from _of_task_and_models(recipe)
    parts: dict[str, list[Any]] = {
        "search": [recipe.search],
        "scorer": [recipe.scorer],
        "regrow": list(recipe.regrow),
        "values": list(recipe.values),
        "evaluation.scorer": [recipe.evaluation.scorer],
        OWN_SEARCHES: list(recipe.evaluation.search),
        **{f"learn.{place}": [each.objective, *each.data, *each.filters] for place, each in enumerate(recipe.learn)},
    }
    yield from _of_parts(parts)
    if recipe.trees.stored is not None:
        yield "trees.stored", grown_trees(Path(recipe.trees.stored).expanduser()), _IN_DATA


def _of_comparison(comparison: Comparison) -> Iterator[tuple[str, Path, set[str]]]:
    yield from _of_task_and_models(comparison)
    yield from _of_parts({f"scorers.{name}": [part] for name, part in comparison.scorers.items()})
    yield from _of_parts({f"methods.{method.name}": [method.search] for method in comparison.methods})


def _of_task_and_models(recipe: Recipe | Comparison) -> Iterator[tuple[str, Path, set[str]]]:
    for path in (*_of_part(recipe.task), *recipe.task.files):
        yield "task", path, _IN_DATA
    models = {POLICY: recipe.policy, **{f"models.{name}": each for name, each in recipe.models.items()}}
    for place, options in models.items():
        for key, name in {"model": options.model, "adapter": options.adapter}.items():
            if name is not None and name != POLICY:
                yield f"{place}.{key}", Path(name).expanduser(), _IN_MODELS
    yield from _of_parts(
        {
            "task": [recipe.task.boundary],
            **{f"{place}.sampling.boundary": [options.sampling.boundary] for place, options in models.items()},
        }
    )


def _of_parts(parts: Mapping[str, Sequence[Any]]) -> Iterator[tuple[str, Path, set[str]]]:
    for key, chosen in parts.items():
        yield from ((key, path, _IN_DATA) for each in chosen if each is not None for path in _of_part(each))


def _of_part(chosen: object) -> Iterator[Path]:
    """The files that a part and those within it are written in, where they are not the package's own, and those that
    their options name."""
    own = (place for part in parts_within(chosen) for place, colon, _ in [name_of(part).rpartition(":")] if colon)
    for place in {*own, *files_of(chosen)}:
        yield Path(place).expanduser()


def _files(path: Path, kinds: set[str]) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (file for file in path.rglob("*") if file.suffix in kinds and file.is_file())


def _digest(path: Path) -> str:
    """Of a file's content: all of it, or its size and pieces from everywhere where it is large, as weights are."""
    size = path.stat().st_size
    found = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= _PIECES * _PIECE:
            found.update(file.read())
        else:
            for index in range(_PIECES):
                file.seek((size - _PIECE) * index // (_PIECES - 1))
                found.update(file.read(_PIECE))
    return found.hexdigest()
