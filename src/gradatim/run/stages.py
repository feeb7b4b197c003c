"""Which options of a recipe each stage of a run depends on.

What a stage made is used again as long as these are the same: a change of ``evaluation`` regrows no trees, a change of
an objective retrains its model and no more. A stage depends on its own keys and on those of the stages before it whose
outcome it uses.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradatim.part import chosen_options, content_of, models_of, name_of
from gradatim.recipes.recipe import POLICY, Learn, Recipe
from gradatim.search import Search

OWN_SEARCHES = "evaluation.search in files"
"""The key of the content of searches of one's own; the stage of each search is called by its options already."""

NO_RESULT = re.compile(
    r"kind|name|summary|paper"
    r"|(policy|models\.[^.]+)\.(device|device_map|max_branches|cache_gigabytes"
    r"|server\.(concurrency|requests_per_minute|timeout|retries))"
    r"|(trees|evaluation)\.in_flight"
    r"|online(\.save_every)?"
    r"|learn\.\d+\.training\.(save_every|log_every|report_to|gradient_checkpointing|(fsdp|deepspeed)(\..*)?)"
)
"""Keys that change how fast a run is, where it runs or what it is called, and nothing that it finds."""

REPORT_ONLY = (
    "rounds",
    "problems.test",
    "evaluation.greedy",
    "evaluation.pass_at",
    "evaluation.best_of",
    "evaluation.majority",
    "evaluation.search",
    "evaluation.benchmarks",
)
"""Keys that say how much is done, measured and shown: more of it adds stages or trees, less of it leaves some out."""

BASE = "base"
FINE_TUNED = "fine_tuned"
FINE_TUNING = "fine-tuning"
ONLINE = "online"
BENCHMARKS = "benchmarks"
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a run.

    Attributes:
        name: of its record, and of its trees where it makes some.
        keys: of the recipe, or whole sections, that its outcome depends on.
        after: the stages whose outcome it uses.
        uses: the models that it runs or trains, each with the stage that trained it last; ``None`` where none did.
        learns: the trainings that it makes: one, or all of an online training.
        last: whether no later stage trains the same models.
    """

    name: str
    keys: tuple[str, ...]
    after: tuple[str, ...] = ()
    uses: Mapping[str, str | None] | None = None
    learns: tuple[Learn, ...] = ()
    last: bool = False


def stages_of(recipe: Recipe) -> dict[str, Stage]:
    """The stages of a run of ``recipe``, in their order."""
    return {stage.name: stage for stage in _stages(recipe)}


def trainings_of(recipe: Recipe, number: int) -> list[Stage]:
    """The stages of one round that train a model, in their order; of round 0 that on demonstrations. The rounds of an
    online training have none of their own."""
    names = {name for name, _ in _training_names(recipe, number)} if number else {FINE_TUNING}
    return [stage for stage in _stages(recipe) if stage.name in names]


def policies_of(recipe: Recipe) -> dict[str, str | None]:
    """The policies that are measured, by what the report calls them, each with the stage that trained it; none where
    there are no test problems."""
    if not recipe.problems.test:
        return {}
    found: dict[str, str | None] = {BASE: None}
    if recipe.demonstrated is not None:
        found[FINE_TUNED] = FINE_TUNING
    if POLICY in (last := _last_trainings(recipe)):
        learned = [_name(learn.objective) for learn in recipe.learns_from_trees if learn.model == POLICY]
        found["+".join(dict.fromkeys(learned))] = last[POLICY]
    return found


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
    found = {key: value for key, value in values.items() if claims(keys, key) and not NO_RESULT.fullmatch(key)}
    for key, files in (contents or {}).items():
        if claims(keys, key):
            found |= {f"the content of {path}": digest for path, digest in files.items()}
    trained = sorted(each for each in needed[1:] if stages[each].learns)
    if trained:
        found["trained before"] = trained
    if stages[name].learns and name != FINE_TUNING:
        found["the last training of its model"] = stages[name].last  # it decides where the model lies
    return found


def first_difference(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first key in which two sets of dependencies differ, with both values. An empty list and ``null`` are as if
    the key were not there: runs that were made before recipes had it go on."""
    for key in [*now, *earlier]:
        left, right = (_ABSENT if each.get(key) in (None, []) else each[key] for each in (earlier, now))
        if left != right:
            return f"{key} was {_shown(left)} and is now {_shown(right)}"
    return None


def claims(keys: Iterable[str], key: str) -> bool:
    """Whether ``key`` is one of ``keys`` or in a section that is."""
    return any(key == each or key.startswith(f"{each}.") for each in keys)


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The keys of a recipe's content with the values that are no sections: ``policy.sampling.top_k``,
    ``learn.0.model``."""
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        value = dict(enumerate(value))
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from flat(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def search_name(search: Search) -> str:
    """The name of the stage of one search: its own name, and those of its options that are not the defaults."""
    settings = [f"{key} {value}" for key, value in chosen_options(search).items()]
    return "-".join(re.sub(r"\W+", "-", each).strip("-") for each in ["search", name_of(search), *settings])


class _Plan:
    """What is known of the models while the stages are laid down."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.trained: dict[str, str] = {}  # the stage that trained each model last
        if recipe.demonstrated is not None:
            self.trained[POLICY] = FINE_TUNING
        self.first = dict(self.trained)

    def uses(self, names: Sequence[str], trained: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The keys, earlier stages and states of models, as a stage has them that runs the models ``names``."""
        now = self.trained if trained is None else trained
        keys = [POLICY if name == POLICY else f"models.{name}" for name in names]
        after = [now[name] for name in names if name in now]
        if any(self._begins_as_policy(name) and name not in now for name in names):
            keys.append(POLICY)
            after += self.first.values()
        unique = {"keys": tuple(dict.fromkeys(keys)), "after": tuple(dict.fromkeys(after))}
        return {**unique, "uses": {name: now.get(name) for name in names}}

    def _begins_as_policy(self, name: str) -> bool:
        return name != POLICY and self.recipe.models[name].model == POLICY


def _stages(recipe: Recipe) -> Iterator[Stage]:
    plan, counts = _Plan(recipe), ("problems.train", "problems.validation")
    last = _last_trainings(recipe)
    if recipe.demonstrated is not None:
        place = _place(recipe, recipe.demonstrated)
        keys = ("seed", "task", POLICY, f"learn.{place}", *counts)
        yield Stage(FINE_TUNING, keys, (), {POLICY: None}, (recipe.demonstrated,), POLICY not in last)
    grown = [POLICY, *sorted(models_of(recipe.growing))]
    if recipe.online is not None:
        yield _online(recipe, plan, grown)
    for number in range(1, recipe.rounds + 1) if recipe.online is None else ():
        trees: tuple[str, ...] = ()
        if recipe.search is not None or recipe.trees.stored is not None:
            made = plan.uses(grown)
            made["keys"] = ("seed", "task", "search", "scorer", "trees", "regrow", "values", *made["keys"])
            yield Stage(f"round-{number}", **made)
            trees = (f"round-{number}",)
            if measures_loss(recipe, number):
                yield Stage(f"round-{number}-validation", **made)
                trees = (*trees, f"round-{number}-validation")
        for learn, (name, model) in zip(recipe.trained_in(number), _training_names(recipe, number), strict=True):
            used = plan.uses([model], plan.first if learn.begin == "first" else None)
            keys = ("seed", f"learn.{_place(recipe, learn)}", *counts, *used["keys"])
            held_out = trees if learn.measure == "loss" else trees[:1]
            yield Stage(name, keys, (*held_out, *used["after"]), used["uses"], (learn,), last[model] == name)
            plan.trained[model] = name
    yield from _evaluations(recipe, plan)


def _online(recipe: Recipe, plan: _Plan, grown: Sequence[str]) -> Stage:
    """The one stage of all rounds of an online training."""
    learns = tuple(recipe.learns_from_trees)
    used = plan.uses(list(dict.fromkeys([*grown, *(learn.model for learn in learns)])))
    places = [f"learn.{_place(recipe, learn)}" for learn in learns]
    of_rounds = ("rounds", ONLINE, "problems.train", "problems.validation")
    keys = ("seed", "task", "search", "scorer", "trees", "regrow", "values", *of_rounds, *places, *used["keys"])
    plan.trained |= {learn.model: ONLINE for learn in learns}
    return Stage(ONLINE, keys, used["after"], used["uses"], learns, last=True)


def _evaluations(recipe: Recipe, plan: _Plan) -> Iterator[Stage]:
    evaluation = recipe.evaluation
    judges = plan.uses(sorted(models_of(evaluation.scorer)))
    for label, training in policies_of(recipe).items():
        used = plan.uses([POLICY], {} if training is None else {POLICY: training})
        name = f"evaluate-{label.replace('_', '-')}"
        keys = ("seed", "task", "evaluation.samples", "evaluation.scorer", *used["keys"], *judges["keys"])
        yield Stage(name, keys, (*used["after"], *judges["after"]), used["uses"])
        if evaluation.greedy:
            yield Stage(f"{name}-greedy", ("seed", "task", *used["keys"]), used["after"], used["uses"])
    if evaluation.benchmarks:
        yield Stage(BENCHMARKS, ("seed", "evaluation.scorer", *judges["keys"]), judges["after"], judges["uses"])
    if not recipe.problems.test:
        return
    searched = plan.uses([POLICY], plan.first if evaluation.searched == "first" else None)
    own = ("seed", "task", "evaluation.budget", "evaluation.scorer", "evaluation.searched", OWN_SEARCHES)
    for method in evaluation.search:
        keys = (*own, *searched["keys"], *judges["keys"])
        yield Stage(search_name(method), keys, (*searched["after"], *judges["after"]), searched["uses"])


def measures_loss(recipe: Recipe, number: int) -> bool:
    """Whether a round needs trees of the validation problems: something that learns in it is stopped by its loss."""
    needed = recipe.online is None and any(learn.measure == "loss" for learn in recipe.trained_in(number))
    return bool(needed and recipe.problems.validation and recipe.search is not None)


def _training_names(recipe: Recipe, number: int) -> list[tuple[str, str]]:
    """The names of the stages of a round that train, each with its model: ``policy-1``, and ``policy-1-2`` where a
    model learns a second time in the round; none in an online training."""
    if recipe.online is not None:
        return []
    seen: Counter[str] = Counter()
    found = []
    for learn in recipe.trained_in(number):
        seen[learn.model] += 1
        again = f"-{seen[learn.model]}" if seen[learn.model] > 1 else ""
        found.append((f"{learn.model}-{number}{again}", learn.model))
    return found


def _last_trainings(recipe: Recipe) -> dict[str, str]:
    """The last stage that trains each model on trees."""
    if recipe.online is not None:
        return {learn.model: ONLINE for learn in recipe.learns_from_trees}
    return {model: name for number in range(1, recipe.rounds + 1) for name, model in _training_names(recipe, number)}


def _name(chosen: object) -> str:
    name: str = content_of(chosen)["name"]
    return re.sub(r"\W+", "_", name.rpartition(":")[2])


def _shown(value: Any) -> str:
    return "not set" if value is _ABSENT or value is None else str(value)


def _place(recipe: Recipe, learn: Learn) -> int:
    return next(place for place, each in enumerate(recipe.learn) if each is learn)
