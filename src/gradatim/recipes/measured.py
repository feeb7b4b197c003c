"""What was measured last of the systems that ship, by recipe: a file that comes with the package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradatim.recipes.comparison import Comparison
    from gradatim.recipes.study import Study

MEASURED = Path(__file__).parent / "measured.json"
"""A sentence for each recipe of which a study has a result."""


def measured_results() -> dict[str, str]:
    """By recipe, what was measured last."""
    found: dict[str, str] = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.is_file() else {}
    return found


def trained_by(study: Study, comparison: Comparison, claim: Mapping[str, Any]) -> list[str]:
    """The recipes whose models a claim is about: what is claimed to be better was trained by them.

    Args:
        study: the study.
        comparison: on one testbed, its models named by ``prepared:NAME/MODEL``.
        claim: one of its claims.
    """
    from gradatim.part import models_of
    from gradatim.recipes.study import PREPARED

    name, by = claim["first"], claim["by"]
    if by == "accuracy":
        method = next(each for each in comparison.methods if each.name == name)
        models = {method.policy} | (set() if method.scorer is None else models_of(comparison.scorers[method.scorer]))
    else:
        models = models_of(comparison.scorers[name]) if by == "auc" else {name}
    places = [comparison.model(each).model for each in sorted(models)]
    prepared = [place.removeprefix(PREPARED).split("/")[0] for place in places if place.startswith(PREPARED)]
    return list(dict.fromkeys(study.prepare[each].recipe for each in prepared))
