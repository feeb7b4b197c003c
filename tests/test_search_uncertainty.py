"""Compute where the policy is unsure: momentum-gated draws and DeepConf against what they say, computed by hand."""

from __future__ import annotations

import asyncio
import math
from collections import Counter

import pytest

from gradatim.errors import GradatimError
from gradatim.policies.scripted import ScriptedPolicy, ScriptedStep
from gradatim.scorers.confidence import lowest_window, mean, path_log_probabilities
from gradatim.search import Beam, IndependentSampling, Mcts, by_answer
from gradatim.search.decisions import DECISION
from gradatim.search.deepconf import KEY, DeepConf, agreement, percentile
from gradatim.search.momentum import Momentum
from gradatim.tree import EndReason, Node, Tree
from scripted_countdown import (
    TASK,
    ListingPolicy,
    arbitrary_scorer,
    new_tree,
    problems,
    random_moves,
    random_policy,
)


def uncertain_at(*choices: int) -> ScriptedPolicy:
    """At each depth as many equally likely steps of two characters as are given, the first of which tells them apart;
    then the end. The uncertainty of one of ``k`` steps is ``log(k) / 2``."""

    def steps(node: Node) -> list[ScriptedStep]:
        count = choices[node.depth]
        end = EndReason.END_OF_TEXT if node.depth + 1 == len(choices) else EndReason.BOUNDARY
        last = "" if end is EndReason.END_OF_TEXT else "\n"  # the end token is its second one
        return [ScriptedStep(chr(ord("a") + place) + last, 1.0, end) for place in range(count)]

    return ScriptedPolicy(steps)


def draws_by_depth(tree: Tree) -> list[int]:
    found: Counter[int] = Counter()
    for node in tree.nodes:
        found[node.depth] += node.draws
    return [found[depth] for depth in range(max(found))]


def test_only_steps_that_stand_out_from_the_momentum_are_drawn_and_scored_several_times() -> None:
    # The momentum before each step: -, .1 log(4)/2 = .07, .062, .126, .113; the gate: each of them - log .9 = .105.
    tree = new_tree()
    search = Momentum(search=Beam(width=1, branch=5))
    asyncio.run(search(tree, uncertain_at(4, 1, 4, 1, 3), arbitrary_scorer()))
    assert draws_by_depth(tree) == [1, 1, 5, 1, 5]
    scored = [node for node in tree.nodes if node.scores]
    assert {node.depth for node in scored} == {3, 5}, "a lone open step has nothing to be compared with"
    assert search.choose(tree, "arbitrary") is not None
    said = [node.notes[DECISION]["why"] for node in tree.nodes if node.children]
    assert [why.rpartition(" ")[0].rpartition(" ")[2] for why in said] == ["1", "1", "5", "1", "5"]


@pytest.mark.parametrize(
    ("momentum", "gamma", "drawn"),
    [
        (0.9, 0.9, [1, 3, 3]),  # log(2)/2 = .347 is above .069 + .105 and .1 + .105
        (0.9, 0.7, [1, 1, 1]),  # but not .069 + .357 and .1 + .357
        (0.0, 0.9, [1, 1, 1]),  # nor, against the step before alone, .693 + .105 and .347 + .105
        (0.0, 1.0, [1, 1, 1]),  # equal uncertainty does not stand out
    ],
)
def test_momentum_and_gamma_set_the_gate(momentum: float, gamma: float, drawn: list[int]) -> None:
    tree = new_tree()
    search = Momentum(search=Beam(width=1, branch=3), momentum=momentum, gamma=gamma)
    asyncio.run(search(tree, uncertain_at(4, 2, 2), arbitrary_scorer()))
    assert draws_by_depth(tree) == drawn


def test_an_open_gate_draws_what_the_inner_search_would() -> None:
    alone, gated = new_tree(seed=5), new_tree(seed=5)
    policy = uncertain_at(1, 9, 9)
    asyncio.run(policy.extend(asyncio.run(policy.extend([alone.root], 1)), 6))
    asyncio.run(Momentum(search=Beam(width=1, branch=6))(gated, policy, arbitrary_scorer()))
    first, second = alone.nodes[1], gated.nodes[1]
    assert [node.step for node in first.children] == [node.step for node in second.children]
    assert [node.multiplicity for node in first.children] == [node.multiplicity for node in second.children]


def test_every_step_is_scored_where_the_inner_search_needs_it() -> None:
    tree = new_tree()
    search = Momentum(search=Mcts(simulations=6, branch=3, wave=1), verify="all")
    asyncio.run(search(tree, uncertain_at(4, 1, 4, 3), arbitrary_scorer()))
    assert all(node.scores for node in tree.nodes[1:])
    assert tree.solutions()


def test_uncertainty_needs_log_probabilities() -> None:
    silent = ListingPolicy(random_moves())
    with pytest.raises(GradatimError, match="has no log-probabilities"):
        asyncio.run(Momentum()(new_tree(), silent, arbitrary_scorer()))
    for options in ({"gamma": 0}, {"momentum": 1}, {"verify": "none"}):
        with pytest.raises(GradatimError, match=f"^Momentum: {next(iter(options))}"):
            Momentum(**options)  # type: ignore[arg-type]


def test_the_lowest_window_is_the_least_mean_of_consecutive_tokens() -> None:
    values = [-1.0, -3.0, -2.0, 0.0, -5.0]
    assert lowest_window(values, 1) == -5
    assert lowest_window(values, 2) == -2.5
    assert lowest_window(values, 3) == pytest.approx(-7 / 3)
    assert lowest_window(values, 5) == lowest_window(values, 99) == mean(values) == -2.2
    assert lowest_window([], 4) == mean([]) == 0.0


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (1.0, 4.0), (0.5, 2.5), (0.9, 3.7), (1 / 3, 2.0), (0.1, 1.3)]
)
def test_percentiles_are_interpolated(share: float, expected: float) -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], share) == pytest.approx(expected)
    assert percentile([0.3] * 7, share) == 0.3


@pytest.mark.parametrize(("keep", "consensus"), [(0.9, 0.25), (0.1, 0.95), (0.5, 0.6), (1.0, 1.0)])
def test_deepconf_votes_by_confidence_until_it_agrees(keep: float, consensus: float) -> None:
    """With a window that no solution fills, nothing is stopped early, so all follows from the sequence of solutions."""
    ends = set()
    for seed in range(8):
        problem = problems(8)[seed]
        tree = new_tree(problem, seed=seed)
        leaves = asyncio.run(random_policy().extend([tree.root], 20, steps=None))
        confidences = [math.exp(mean(path_log_probabilities(leaf))) for leaf in leaves]
        answers = [TASK.answer(problem, leaf.text) for leaf in leaves]
        threshold = percentile(confidences[:6], 1 - keep)
        weights: Counter[str] = Counter()
        end = 0
        for done, (answer, confidence) in enumerate(zip(answers, confidences, strict=True), 1):
            if confidence >= threshold and answer is not None:
                weights[answer] += confidence  # type: ignore[assignment]
            share = max(weights.values(), default=0) / (sum(weights.values()) or 1)
            if done >= 6 and (share >= consensus or done == 20):
                end = done
                break
        search = DeepConf(n=20, warmup=6, keep=keep, consensus=consensus, window=10_000, wave=1)
        searched = new_tree(problem, seed=seed)
        asyncio.run(search(searched, random_policy(), answer=TASK.answer))
        assert searched.root.draws == end
        assert agreement(searched) == pytest.approx(share)
        chosen = search.choose(searched, None)
        assert chosen is not None
        votes = {group[0].answer: sum(leaf.scores.get(KEY, 0) * leaf.multiplicity for leaf in group)
                 for group in by_answer(searched)}  # fmt: skip
        assert votes[chosen.answer] == pytest.approx(max(weights.values()))
        ends.add(end)
    assert keep == 1.0 or len(ends) > 1


def test_deepconf_stops_solutions_in_the_step_in_which_a_window_falls_below() -> None:
    stopped = 0
    for seed, problem in enumerate(problems(8)):
        search = DeepConf(n=30, warmup=6, keep=0.3, window=8, consensus=1.0)
        tree, whole = new_tree(problem, seed=seed), new_tree(problem, seed=seed)
        asyncio.run(search(tree, random_policy(noise=0.2), answer=TASK.answer))
        asyncio.run(IndependentSampling(n=30)(whole, random_policy(noise=0.2)))
        dropped = {node for node in tree.nodes if node.notes.get(DECISION, {}).get("decision") == "dropped"}
        voting = [leaf for leaf in tree.solutions() if KEY in leaf.scores]
        least = min(leaf.scores[KEY] for leaf in voting)
        assert all(search.confidence(node) < least for node in dropped)
        assert all("is below" in node.notes[DECISION]["why"] for node in dropped)
        assert not dropped & set(voting)
        assert set(tree.solutions()) == set(voting) | {node for node in dropped if node.finished}
        within = [node for node in dropped if node.open]
        stopped += len(within)
        if within:
            assert tree.budget.total < whole.budget.total
    assert stopped


def test_deepconf_needs_answers_and_log_probabilities_and_bears_a_warmup_without_solutions() -> None:
    with pytest.raises(GradatimError, match="needs to know what solutions answer"):
        asyncio.run(DeepConf()(new_tree(), random_policy()))
    tree = new_tree(limit=60)
    asyncio.run(DeepConf()(tree, random_policy(), answer=lambda problem, text: None))
    assert DeepConf().choose(tree, None) is None
    for options in ({"keep": 0}, {"consensus": 1.5}, {"window": 0}, {"warmup": 0}):
        with pytest.raises(GradatimError, match=f"^DeepConf: {next(iter(options))}"):
            DeepConf(**options)  # type: ignore[arg-type]


def test_deepconf_scores_only_what_its_rule_asks_for() -> None:
    for rule, scored in ((None, False), ("majority", False), ("score", True)):
        tree = new_tree()
        search = DeepConf(n=6, warmup=3, choose_by=rule)  # type: ignore[arg-type]
        asyncio.run(search(tree, random_policy(), arbitrary_scorer(), answer=TASK.answer))
        assert any("arbitrary" in node.scores for node in tree.nodes) is scored
