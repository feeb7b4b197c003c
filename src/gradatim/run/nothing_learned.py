"""Why trees have nothing to learn from, told by the trees themselves, with the key of the recipe to change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, cast

from gradatim.errors import GradatimError
from gradatim.recipes.recipe import Learn, Recipe
from gradatim.run.outcomes import BUDGET, CONTEXT, STEP_LENGTH, STEPS, Outcomes, outcomes_of
from gradatim.supervision.chosen import chosen_terms
from gradatim.supervision.terms import Term
from gradatim.tree import Tree

_CUT_OFF = {
    STEP_LENGTH: ("at the longest step", "raise policy.sampling.max_step_tokens"),
    STEPS: ("at the most steps", "raise policy.sampling.max_steps"),
    CONTEXT: ("at the end of the model's context", "take shorter prompts, or a model with a longer context"),
    BUDGET: ("by the budget", "raise trees.budget"),
}


def no_terms(recipe: Recipe, learn: Learn, trees: Sequence[Tree]) -> GradatimError:
    """The error of a training for which ``trees`` hold nothing that its constructions take."""
    what = " and no ".join(dict.fromkeys(part.what for part in learn.data))
    if emptied := _filter_that(recipe, learn, trees, lambda left: not left):
        return GradatimError(f"{emptied} leaves no {what} to learn from; loosen it")
    reason = (
        _nothing_finished(recipe, trees)
        or _wrong_as_written(recipe, learn, trees)
        or _too_strict(recipe, learn, trees)
        or _all_alike(recipe, trees, contrast=any(part.groups != 1 or part.signed for part in learn.data))
        or _asked(learn, f"draw more solutions of each problem ({_more_solutions(recipe)})")
    )
    return GradatimError(f"the trees hold no {what} to learn from: {reason}")


def same_targets(recipe: Recipe, learn: Learn, terms: Sequence[Term], trees: Sequence[Tree]) -> GradatimError | None:
    """The error of a model that is to judge steps, if every step is aimed at the same. Of advantages, what solutions
    came to may be the same: these learn from what their steps are beside others."""
    if any(part.signed for part in learn.data) or not learn.objective.heads or not _has_one_target(terms):
        return None
    label = terms[0].targets[0]
    if narrowed := _filter_that(recipe, learn, trees, _has_one_target):
        return GradatimError(
            f"{narrowed} leaves step labels of {label:g} alone, so that the {learn.model} has nothing to tell apart; "
            "loosen it"
        )
    return GradatimError(
        f"every step label is {label:g}, so that the {learn.model} has nothing to tell apart: "
        f"{_why_same(recipe, trees, label)}"
    )


def _has_one_target(terms: Sequence[Term]) -> bool:
    """Whether all terms are of one group, and aimed at the same."""
    return len({target for term in terms for target in term.targets}) == 1 and all(
        len(term.groups) == 1 for term in terms
    )


def _filter_that(
    recipe: Recipe, learn: Learn, trees: Sequence[Tree], spoiled: Callable[[Sequence[Term]], bool]
) -> str | None:
    """The filter that left terms of which something is true that was not true before it, in words."""
    for count in range(len(learn.filters) + 1):
        if spoiled(chosen_terms(trees, learn.data, learn.filters[:count], recipe.task)[0]):
            place = f"learn.{_place(recipe, learn)}.filters.{count - 1}"
            return f"the filter {place} (drops: {learn.filters[count - 1].drops})" if count else None
    return None


def _wrong_as_written(recipe: Recipe, learn: Learn, trees: Sequence[Tree]) -> str | None:
    """That solutions were written, and none is right, if so."""
    _, table = chosen_terms(trees, learn.data, (), recipe.task)
    wrong = sum(each.dropped for each in table)
    asked = " and ".join(dict.fromkeys(part.asks for part in learn.data if part.asks))
    return f"none of {wrong:,} that were written is right; {asked or 'take another task'}" if wrong else None


def _too_strict(recipe: Recipe, learn: Learn, trees: Sequence[Tree]) -> str | None:
    """The option of a construction that leaves nothing, if one alone does."""
    for number, part in enumerate(learn.data):
        for field in fields(cast(Any, part)):
            given = getattr(part, field.name)
            if field.name.startswith("min_"):
                looser: Any = replace(cast(Any, part), **{field.name: 1 if isinstance(given, int) else 0.0})
                if any(next(iter(looser(tree)), None) is not None for tree in trees):
                    key = f"learn.{_place(recipe, learn)}.data.{number}.{field.name}"
                    return (
                        f"{key} ({given:g}) leaves none; lower it, or draw more solutions of each problem "
                        f"({_more_solutions(recipe)})"
                    )
    return None


def _asked(learn: Learn, advice: str) -> str:
    """What the constructions ask of a tree, where they say it, and what to do."""
    asked = " and ".join(dict.fromkeys(part.asks for part in learn.data if part.asks))
    return f"{asked}; {advice}" if asked else advice


def _place(recipe: Recipe, learn: Learn) -> int:
    return next(place for place, each in enumerate(recipe.learn) if each is learn)


def _nothing_finished(recipe: Recipe, trees: Sequence[Tree]) -> str | None:
    """What kept every solution from its end, if none was finished."""
    outcomes = _outcomes(recipe, trees)
    if sum(outcomes.finished.values()):
        return None
    if not outcomes.solutions:
        return f"no step was written; {'raise trees.budget' if _has_budget(recipe) else 'give more problems'}"
    ends = {name: count for name, count in outcomes.cut_off.items() if count}
    if outcomes.open >= max(ends.values(), default=0):
        return (
            f"none of {outcomes.solutions:,} solutions is finished, since {outcomes.open:,} were left open; "
            f"{_completion(recipe)}"
        )
    where, advice = _CUT_OFF[max(ends, key=lambda name: ends[name])]
    return (
        f"none of {outcomes.solutions:,} solutions is finished, since {max(ends.values()):,} were cut off {where}; "
        f"{advice}"
    )


def _why_same(recipe: Recipe, trees: Sequence[Tree], label: float) -> str:
    """Why no step label differs from ``label``."""
    if recipe.trees.stored is not None:
        return "name trees with right and wrong steps as trees.stored"
    if label >= 1.0:
        return "every solution is right; take problems that the policy does not always solve"
    why = _nothing_finished(recipe, trees) or _all_alike(recipe, trees)
    return why or f"no step is better than another; draw more solutions of each problem ({_more_solutions(recipe)})"


def _all_alike(recipe: Recipe, trees: Sequence[Tree], *, contrast: bool = True) -> str | None:
    """What is to be said where no problem has solutions that differ in whether they are right, or none is right."""
    verdicts = [{bool(leaf.correct) for leaf in tree.leaves() if leaf.finished} for tree in trees]
    if not any(True in found for found in verdicts):
        return "no solution is right; take problems that the policy sometimes solves, or a policy that solves some"
    if not contrast or any(len(found) == 2 for found in verdicts):
        return None
    return (
        "no problem has both a right and a wrong solution; take problems that the policy solves sometimes, or draw "
        f"more solutions of each ({_more_solutions(recipe)})"
    )


def _outcomes(recipe: Recipe, trees: Sequence[Tree]) -> Outcomes:
    sampling = recipe.policy.sampling
    return outcomes_of(trees, asked=len(trees), max_step_tokens=sampling.max_step_tokens, max_steps=sampling.max_steps)


def _completion(recipe: Recipe) -> str:
    """How solutions come to their end."""
    if recipe.trees.stored is not None:
        return "name trees with finished solutions as trees.stored"
    if hasattr(recipe.search, "rollouts"):
        return "raise search.rollouts, which completes them"
    completed = "take values: [{name: scored, scorer: rollouts}]"
    return f"{completed}, or the search grow with search.rollouts, which completes them"


def _more_solutions(recipe: Recipe) -> str:
    """The keys by which a search makes more solutions."""
    if recipe.search is None:
        return "trees.stored"
    return ", ".join(f"search.{name}" for name in recipe.search.grows_with) or "search"


def _has_budget(recipe: Recipe) -> bool:
    return recipe.trees.budget is not None
