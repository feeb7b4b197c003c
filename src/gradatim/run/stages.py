"""Which options of a recipe each stage of a run depends on.

What a stage made is used again as long as these are the same: a change of ``evaluation`` regrows no trees, a change of
an objective retrains the policy and no more. A stage depends on its own keys and on those of the stages before it
whose outcome it uses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gradatim.part import content_of
from gradatim.recipes.schema import Recipe
from gradatim.search import Search

NO_RESULT = (
    "kind",
    "name",
    "summary",
    "policy.device",
    "policy.device_map",
    "policy.max_branches",
    "policy.cache_gigabytes",
    "policy.server.concurrency",
    "policy.server.requests_per_minute",
    "policy.server.timeout",
    "policy.server.retries",
    "trees.in_flight",
    "evaluation.in_flight",
    "fine_tuning.training.save_every",
    "fine_tuning.training.log_every",
    "scorer.training.save_every",
    "scorer.training.log_every",
    "objective.training.save_every",
    "objective.training.log_every",
)
"""Keys that change how fast a run is, where it runs or what it is called, and nothing that it finds."""

REPORT_ONLY = (
    "problems.test",
    "evaluation.greedy",
    "evaluation.pass_at",
    "evaluation.best_of",
    "evaluation.majority",
    "evaluation.search",
)
"""Keys that say what is measured and shown: more of it adds stages or trees, less of it leaves some out."""

_SOLUTIONS = ("seed", "task", "policy")
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a run.

    Attributes:
        name: of its record, and of its trees where it makes some.
        keys: of the recipe, or whole sections, that its outcome depends on.
        after: the stages whose outcome it uses.
    """

    name: str
    keys: tuple[str, ...]
    after: tuple[str, ...] = ()


def stages_of(recipe: Recipe) -> dict[str, Stage]:
    """The stages of a run of ``recipe``, in their order."""
    return {stage.name: stage for stage in _stages(recipe)}


def dependencies(recipe: Recipe, name: str, contents: Mapping[str, Mapping[str, str]] | None = None) -> dict[str, Any]:
    """The keys that a stage depends on, those of the stages before it included, each with its value.

    Args:
        recipe: the recipe.
        name: of the stage.
        contents: what the files hold that some keys name; see :func:`gradatim.run.contents.contents`.
    """
    stages = stages_of(recipe)
    values = dict(flat(recipe.model_dump(mode="json")))
    needed = [name]
    keys: list[str] = []
    for each in needed:  # grows on the way
        keys += stages[each].keys
        needed += [before for before in stages[each].after if before not in needed]
    found = {key: value for key, value in values.items() if claims(keys, key) and not claims(NO_RESULT, key)}
    for key, files in (contents or {}).items():
        if claims(keys, key):
            found |= {f"the content of {path}": digest for path, digest in files.items()}
    trained = [int(each.removeprefix("policy-")) for each in needed if each.startswith("policy-")]
    if trained:
        goes_on = name != f"policy-{recipe.rounds}" and name.startswith("policy-")
        found["rounds"] = f"more than {max(trained)}" if goes_on else max(trained)  # the last policy lies elsewhere
    return found


def first_difference(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first key in which two sets of dependencies differ, with both values."""
    for key in [*now, *earlier]:
        left, right = earlier.get(key, _ABSENT), now.get(key, _ABSENT)
        if left != right:
            return f"{key} was {_shown(left)} and is now {_shown(right)}"
    return None


def claims(keys: Iterable[str], key: str) -> bool:
    """Whether ``key`` is one of ``keys`` or in a section that is."""
    return any(key == each or key.startswith(f"{each}.") for each in keys)


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The keys of a recipe's content with the values that are no sections: ``policy.sampling.top_k``."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from flat(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def search_name(search: Search) -> str:
    """The name of the stage of one search: its own name and its options."""
    content = content_of(search)
    settings = (re.sub(r"\W+", "x", str(value)).strip("x") for key, value in content.items() if key != "name")
    return "-".join(["search", re.sub(r"\W+", "x", content["name"]), *settings])


def _stages(recipe: Recipe) -> Iterator[Stage]:
    first: tuple[str, ...] = ()
    if recipe.fine_tuning is not None:
        yield Stage("fine-tuning", (*_SOLUTIONS, "fine_tuning", "problems.train", "problems.validation"))
        first = ("fine-tuning",)
    scored: tuple[str, ...] = ()
    policy = first
    for number in range(1, recipe.rounds + 1):
        if recipe.search is not None or recipe.trees.stored is not None:
            yield Stage(f"round-{number}", (*_SOLUTIONS, "search", "trees", "values"), policy)
        if number == 1 and recipe.scorer is not None:
            if recipe.scorer.train:
                grown: tuple[str, ...] = ("round-1",)
                if recipe.problems.validation:
                    yield Stage("round-1-validation", (*_SOLUTIONS, "search", "trees", "values"), first)
                    grown = ("round-1", "round-1-validation")
                yield Stage("scorer", ("seed", "scorer", "problems.train", "problems.validation"), grown)
            else:
                yield Stage("scorer", ("scorer.name", "scorer.init", "scorer.train", "scorer.layout"))
            scored = ("scorer",)
        if recipe.objective is not None:
            keys = ("seed", "objective", "supervision", "problems.train", "problems.validation")
            yield Stage(f"policy-{number}", keys, (f"round-{number}", *policy))
            policy = (f"policy-{number}",)
    labels: dict[str, tuple[str, ...]] = {"base": ()}
    if recipe.fine_tuning is not None:
        labels["fine-tuned"] = first
    if recipe.objective is not None:
        labels[recipe.objective.name.replace("_", "-")] = policy
    for label, model in labels.items():
        yield Stage(f"evaluate-{label}", (*_SOLUTIONS, "evaluation.samples"), (*model, *scored))
        if recipe.evaluation.greedy:
            yield Stage(f"evaluate-{label}-greedy", _SOLUTIONS, model)
    for method in recipe.evaluation.search:
        yield Stage(search_name(method), (*_SOLUTIONS, "evaluation.budget"), (*first, *scored))


def _shown(value: Any) -> str:
    return "not set" if value is _ABSENT or value is None else str(value)
