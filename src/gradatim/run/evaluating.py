"""The stages that measure on the test problems: policies by sampling, and searches guided by the scorer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gradatim.budget import POLICY
from gradatim.evaluation import (
    Cost,
    MethodResult,
    PolicyResult,
    best_of_n,
    majority,
    method_result,
    policy_result,
    samples_of,
    spending_of,
    weighted_majority,
)
from gradatim.evaluation.policies import can_weigh
from gradatim.evaluation.sample_costs import policy_tokens, scoring_of, subset_spending
from gradatim.part import chosen_options, content_of
from gradatim.run.context import Lent, Run
from gradatim.run.outcomes import note_outcomes
from gradatim.run.searching import Searcher, only
from gradatim.run.stages import search_name
from gradatim.search import IndependentSampling, Search
from gradatim.tree import Tree


def sample_solutions(run: Run, key: str, training: str | None) -> tuple[list[Tree], list[Tree]]:
    """Sampled and greedy solutions of the test problems by the policy that the report calls ``key``, as the stage
    ``training`` left it.

    All steps of the sampled solutions are scored where there is a scorer. Both policies of a comparison draw with the
    same seeds, which makes paired differences sharper. The greedy trees are empty where the recipe wants none.
    """
    options = run.recipe.evaluation
    problems = run.problems("test")

    def sampler() -> Searcher:
        policy, scorer = Lent(run, {POLICY.name: training}).policy(), run.judge()
        sample = IndependentSampling(n=options.samples, score="steps")
        return Searcher(lambda tree: sample(tree, policy, scorer), policy, only(scorer))

    def greedy() -> Searcher:
        policy = Lent(run, {POLICY.name: training}).policy()
        likeliest = replace(policy.sampling, temperature=0.0)
        once = IndependentSampling(n=1)
        return Searcher(lambda tree: once(tree, policy, sampling=likeliest), policy)

    label = key.replace("_", "-")
    name, title = f"evaluate-{label}", f"Evaluating {label} by sampling"
    seed, in_flight = run.seed("evaluation"), options.in_flight
    sampled = run.search_trees(name, title, problems, sampler, seed=seed, in_flight=in_flight)
    note_outcomes(run, name, title, sampled, "test", scored_by=scorer_name(run))
    if not options.greedy:
        return sampled, []
    name, title, seed = f"evaluate-{label}-greedy", f"Evaluating {label} greedily", run.seed("greedy")
    likeliest = run.search_trees(name, title, problems, greedy, seed=seed, in_flight=in_flight)
    note_outcomes(run, name, title, likeliest, "test", temperature=0.0)
    return sampled, likeliest


def measure_policy(run: Run, sampled: Sequence[Tree], greedy: Sequence[Tree]) -> PolicyResult:
    """A policy's accuracy by its sampled and greedy solutions, at the counts that the recipe names."""
    options = run.recipe.evaluation
    scorer = scorer_name(run)
    result = policy_result(
        [samples_of(tree, scorer) for tree in sampled],
        [policy_tokens(tree) for tree in sampled],
        counts=sorted({*options.pass_at, *options.best_of, *options.majority}),
        scored=scorer is not None,
        greedy=[float(any(leaf.correct for leaf in tree.leaves())) for tree in greedy] or None,
        seed=run.recipe.seed,
    )
    return replace(
        result,
        pass_at_k={n: value for n, value in result.pass_at_k.items() if n in options.pass_at},
        best_of_n={n: value for n, value in result.best_of_n.items() if n in options.best_of},
        majority={n: value for n, value in result.majority.items() if n in options.majority},
        weighted_majority={n: value for n, value in result.weighted_majority.items() if n in options.majority},
    )


def sampling_methods(run: Run, sampled: Sequence[Tree]) -> list[MethodResult]:
    """What choosing among independent samples reaches: a single one, best-of-n by the scorer, and votes.

    Accuracies and tokens are exact expectations over all subsets of the samples, so all counts share one set.
    """
    options = run.recipe.evaluation
    scorer = scorer_name(run)
    groups = [samples_of(tree, scorer) for tree in sampled]
    seed = run.recipe.seed
    rules: list[tuple[str, bool, Sequence[int], Callable[[Any, int], float]]] = [
        ("sampling", False, [1], best_of_n),
        ("majority", False, [n for n in options.majority if n > 1], lambda group, n: majority(group, n, seed=seed)),
    ]
    if scorer is not None:
        rules.append(("best of n", True, [n for n in options.best_of if n > 1], best_of_n))
        voters = [n for n in options.majority if n > 1]
        if can_weigh(groups):
            rules.append(("weighted majority", True, voters, lambda group, n: weighted_majority(group, n, seed=seed)))
        elif voters:
            run.warn(f"votes weighted by {scorer!r} are left out, since it gave scores below 0")
    return [
        _result(
            run,
            method,
            scorer if scored else None,
            [rule(group, n) for group in groups],
            [subset_spending(tree, n, options.samples, scoring_of(tree) if scored else {}) for tree in sampled],
            {"n": n},
        )
        for method, scored, counts, rule in rules
        for n in counts
    ]


def searched(run: Run, search: Search) -> MethodResult:
    """One search over the test problems; its own rule chooses the solution, without the truth."""
    name = scorer_name(run)

    def make_searcher() -> Searcher:
        trained = run.stages[stage].uses or {}
        policy, scorer = Lent(run, trained).policy(), run.judge()
        return Searcher(lambda tree: search(tree, policy, scorer, answer=run.task.answer), policy, only(scorer))

    stage, label = search_name(search), search.title
    title = f"Searching by {label} ({', '.join(f'{key} {value}' for key, value in _telling(search).items())})"
    trees = run.search_trees(
        stage,
        title,
        run.problems("test"),
        make_searcher,
        seed=run.seed("search"),
        budget=run.recipe.evaluation.budget,
        in_flight=run.recipe.evaluation.in_flight,
    )
    note_outcomes(run, stage, title, trees, "test")
    chosen = [search.choose(tree, name) for tree in trees]
    return _result(
        run,
        label,
        name,
        [float(leaf is not None and leaf.correct is True) for leaf in chosen],
        [spending_of(tree.budget) for tree in trees],
        _telling(search),
    )


def _telling(search: Search) -> dict[str, Any]:
    """The options of a search that are worth showing: those that were chosen, and its numbers."""
    numbers = {key: value for key, value in content_of(search).items() if not isinstance(value, str | Mapping | None)}
    told = numbers | chosen_options(search)
    return {key: _in_words(value) if isinstance(value, Mapping) else value for key, value in told.items()}


def _in_words(part: Mapping[str, Any]) -> str:
    """A part within another as a table shows it: its name and its options."""
    return " ".join([str(part["name"]), *(f"{key} {value}" for key, value in part.items() if key != "name")])


def scorer_name(run: Run) -> str | None:
    """The key of the scorer's scores in trees."""
    part = run.recipe.evaluation.scorer
    return None if part is None else part.name


def _result(
    run: Run,
    method: str,
    scorer: str | None,
    rewards: Sequence[float],
    spending: Sequence[dict[str, Cost]],
    settings: dict[str, Any],
) -> MethodResult:
    return method_result(
        method,
        scorer or "none",
        rewards,
        spending,
        settings=settings,
        seed=run.recipe.seed,
    )
