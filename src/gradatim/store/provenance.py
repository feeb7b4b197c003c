"""Where exported rows are from: a file beside them, which trainers that read the rows do not look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import gradatim
from gradatim.part import content_of
from gradatim.store.files import write_text
from gradatim.tree import Tree


@dataclass(slots=True)
class Seen:
    """What was seen of trees while rows were made of them.

    Attributes:
        trees: how many there were.
        sources: who wrote their steps, as these call themselves.
    """

    trees: int = 0
    sources: set[str] = field(default_factory=set)

    def through(self, trees: Iterable[Tree]) -> Iterator[Tree]:
        """The same trees, each noted when it is taken."""
        for tree in trees:
            self.trees += 1
            self.sources |= {node.step.source for node in tree.nodes[1:] if node.step.source}
            yield tree


def provenance_file(rows: Path) -> Path:
    """The file that says where the rows of a file are from."""
    return rows.with_name(f"{rows.stem}.provenance.yaml")


def write_provenance(rows: Path, count: int, made_by: Any, store: Path, seen: Seen) -> None:
    """Write where the rows of a file are from: their task, policy and recipe where a run folder tells them, the trees,
    and what made rows of them, with all its options (its ``value`` is the score that was read).

    Args:
        rows: the file.
        count: how many there are.
        made_by: the construction or published format.
        store: the file of the trees, in its run folder or by itself.
        seen: what was seen of these.

    Raises:
        GradatimError: if the file cannot be written.
    """
    recipe = _recipe_of(store)
    policy = recipe.get("policy")
    content = {
        "rows": {"file": rows.name, "count": count},
        "made_by": content_of(made_by),
        "trees": {"file": str(store), "count": seen.trees, "steps_written_by": sorted(seen.sources)},
        "recipe": recipe.get("name"),
        "task": recipe.get("task"),
        "policy": policy.get("model") if isinstance(policy, Mapping) else None,
        "gradatim": gradatim.__version__,
    }
    write_text(provenance_file(rows), yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110))


def _recipe_of(store: Path) -> Mapping[str, Any]:
    """The recipe of the run whose trees a file holds; empty where it is of none."""
    path = store.parent.parent / "recipe.yaml"
    if store.parent.name != "trees" or not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, Mapping) else {}
