"""Why trees have nothing to learn from, told by the trees themselves, with the key of the recipe to change."""

from __future__ import annotations

from collections.abc import Sequence

from gradatim.errors import GradatimError
from gradatim.recipes.schema import Recipe, SftOptions, StepDpoOptions
from gradatim.run.growing import VALUE
from gradatim.run.outcomes import BUDGET, CONTEXT, STEP_LENGTH, STEPS, Outcomes, outcomes_of
from gradatim.supervision.values import has_value
from gradatim.tree import Tree

_CUT_OFF = {
    STEP_LENGTH: ("at the longest step", "raise policy.sampling.max_step_tokens"),
    STEPS: ("at the most steps", "raise policy.sampling.max_steps"),
    CONTEXT: ("at the end of the model's context", "take shorter prompts, or a model with a longer context"),
    BUDGET: ("by the budget", "raise trees.budget"),
}


def no_labels(recipe: Recipe, trees: Sequence[Tree]) -> GradatimError:
    """The error of a scorer for which ``trees`` have no step label."""
    assert recipe.scorer is not None, "there is a scorer to train"
    needed = recipe.scorer.labels.min_count
    reason = _nothing_finished(recipe, trees) or (
        f"no value of an open step rests on scorer.labels.min_count ({needed}) solutions, the most are "
        f"{_most_evidence(trees)}; lower it, or have more solutions completed ({_more_solutions(recipe)})"
    )
    return GradatimError(f"no step has a value to learn from: {reason}")


def same_labels(recipe: Recipe, trees: Sequence[Tree], label: float) -> GradatimError:
    """The error of a scorer for which every step label of ``trees`` is ``label``."""
    return GradatimError(
        f"every step label is {label:g}, so that the scorer has nothing to tell apart: "
        f"{_why_same(recipe, trees, label)}"
    )


def no_examples(recipe: Recipe, trees: Sequence[Tree], what: str) -> GradatimError:
    """The error of an objective for which ``trees`` hold no ``what``."""
    reason = _nothing_finished(recipe, trees) or _all_alike(recipe, trees) or _no_pair(recipe, trees)
    return GradatimError(f"the trees hold no {what} to learn from: {reason}")


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


def _all_alike(recipe: Recipe, trees: Sequence[Tree]) -> str | None:
    """What is to be said where no problem has solutions that differ in whether they are right."""
    verdicts = [{bool(leaf.correct) for leaf in tree.leaves() if leaf.finished} for tree in trees]
    if not any(True in found for found in verdicts):
        return "no solution is right; take problems that the policy sometimes solves, or a policy that solves some"
    if isinstance(recipe.objective, SftOptions) or any(len(found) == 2 for found in verdicts):
        return None
    return (
        "no problem has both a right and a wrong solution; take problems that the policy solves sometimes, or draw "
        f"more solutions of each ({_more_solutions(recipe)})"
    )


def _no_pair(recipe: Recipe, trees: Sequence[Tree]) -> str:
    """Why there is no pair although some problem has right and wrong solutions."""
    more = f"draw more solutions of each problem ({_more_solutions(recipe)})"
    if not isinstance(recipe.objective, StepDpoOptions):
        return more
    pairs = recipe.supervision.pairs
    gaps = [
        max(values) - min(values)
        for tree in trees
        for node in tree.nodes
        if len(values := [c.scores[VALUE] for c in node.children if has_value(c, VALUE, pairs.min_count)]) > 1
    ]
    if not gaps:
        return (
            f"no two siblings have values that rest on supervision.pairs.min_count ({pairs.min_count}) solutions, the "
            f"most are {_most_evidence(trees)}; lower it, or {more}"
        )
    if max(gaps) < pairs.min_gap:
        return (
            f"no two siblings' values differ by supervision.pairs.min_gap ({pairs.min_gap:g}), the widest gap is "
            f"{max(gaps):.3g}; lower it, or {more}"
        )
    return f"supervision.pairs.mode {pairs.mode} finds none; set it to all, or {more}"


def _outcomes(recipe: Recipe, trees: Sequence[Tree]) -> Outcomes:
    sampling = recipe.policy.sampling
    return outcomes_of(
        trees, asked=len(trees), max_step_tokens=sampling.max_step_tokens, max_steps=sampling.max_steps, value=VALUE
    )


def _most_evidence(trees: Sequence[Tree]) -> int:
    """The most solutions that the value of an open step rests on."""
    return max((node.counts.get(VALUE, 0) for tree in trees for node in tree.nodes[1:] if node.open), default=0)


def _completion(recipe: Recipe) -> str:
    """How solutions come to their end."""
    if recipe.trees.stored is not None:
        return "name trees with finished solutions as trees.stored"
    if hasattr(recipe.search, "rollouts"):
        return "raise search.rollouts, which completes them"
    return "set values.name to rollouts, or search.name to grow with search.rollouts, which completes them"


def _more_solutions(recipe: Recipe) -> str:
    """The keys by which a search makes more solutions."""
    if recipe.search is None:
        return "trees.stored"
    return ", ".join(f"search.{name}" for name in recipe.search.grows_with) or "search"


def _has_budget(recipe: Recipe) -> bool:
    return recipe.trees.budget is not None
