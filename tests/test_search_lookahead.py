"""Lookahead search: what is kept is what leads to the best, as a plain writing of it and a beam confirm."""

from __future__ import annotations

import asyncio
import random

import pytest

from gradatim.policies.scripted import ScriptedPolicy, ScriptedStep
from gradatim.search import Beam, Lookahead
from gradatim.search.decisions import DECISION, SIMULATED
from gradatim.tree import EndReason, Node, Tree
from scripted_countdown import DEEP_PROBLEM, TASK, FunctionScorer, arbitrary_scorer, arbitrary_value, new_tree

DEPTH = 4


def unequal_steps(node: Node) -> list[ScriptedStep]:
    """Three steps, none as likely as another; four make a solution."""
    end = EndReason.END_OF_TEXT if node.depth + 1 == DEPTH else EndReason.BOUNDARY
    chance = random.Random(f"likely? {node.text}")
    return [ScriptedStep(f"{name}\n", 0.2 + chance.random(), end) for name in "abc"]


def policy() -> ScriptedPolicy:
    return ScriptedPolicy(unequal_steps)


def likeliest_text(tree: Tree, text: str, steps: int) -> str:
    """A partial solution continued by its likeliest steps."""
    for _ in range(steps):
        if text.count("\n") == DEPTH:
            break
        node = tree.root
        for line in text.splitlines(keepends=True):
            node = next(child for child in node.children if child.step.text == line)
        text += max(unequal_steps(node), key=lambda step: step.probability).text
    return text


@pytest.mark.parametrize("seed", range(3))
def test_without_a_step_ahead_it_is_beam_search(seed: int) -> None:
    for aggregate in ("last", "mean"):
        beam, ahead = new_tree(DEEP_PROBLEM, seed=seed), new_tree(DEEP_PROBLEM, seed=seed)
        asyncio.run(Beam(width=(3, 2), branch=4, aggregate=aggregate)(beam, policy(), arbitrary_scorer()))
        search = Lookahead(width=(3, 2), branch=4, steps=0, aggregate=aggregate)
        asyncio.run(search(ahead, policy(), arbitrary_scorer()))
        assert ahead.to_json() == beam.to_json()


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_what_leads_to_the_best_is_kept(seed: int, steps: int) -> None:
    tree = new_tree(seed=seed)
    asyncio.run(Lookahead(width=2, branch=3, steps=steps)(tree, policy(), arbitrary_scorer()))

    def promise(node: Node) -> float:
        return random.Random(likeliest_text(tree, node.text, steps)).random()

    for depth in range(1, DEPTH):
        candidates = [node for node in tree.nodes if node.depth == depth and DECISION in node.notes]
        kept = {node for node in candidates if node.notes[DECISION]["decision"] == "expanded"}
        assert kept == set(sorted(candidates, key=promise, reverse=True)[:2])
        assert all(SIMULATED not in node.notes for node in candidates)
    simulated = [node for node in tree.nodes if SIMULATED in node.notes]
    assert simulated
    for node in simulated:
        likeliest = max(unequal_steps(node.parent), key=lambda step: step.probability) if node.parent else None
        assert likeliest is not None
        assert node.step.text == likeliest.text
        assert DECISION not in node.notes


def test_it_sees_what_a_beam_does_not() -> None:
    """A first step that looks bad and leads to the best, beside one that looks good and leads nowhere."""
    scores = {"a\n": 0.9, "b\n": 0.1, "a\nx\n": 0.2, "b\nx\n": 0.8}

    def steps(node: Node) -> list[ScriptedStep]:
        if node.is_root:
            return [ScriptedStep("a\n", 0.5), ScriptedStep("b\n", 0.5)]
        return [ScriptedStep("x\n", 1.0, EndReason.BOUNDARY if node.depth < 2 else EndReason.END_OF_TEXT)]

    def kept(search: Beam | Lookahead) -> str:
        tree = new_tree()
        scorer = FunctionScorer(lambda node: scores.get(node.text, 0.5))
        asyncio.run(search(tree, ScriptedPolicy(steps), scorer))
        assert len(tree.root.children) == 2
        return next(child.text for child in tree.root.children if child.notes[DECISION]["decision"] == "expanded")

    assert kept(Beam(width=1, branch=8)) == "a\n"
    assert kept(Lookahead(width=1, branch=8, steps=1)) == "b\n"


def test_simulated_solutions_may_be_chosen() -> None:
    tree = new_tree()
    search = Lookahead(width=1, branch=3, steps=DEPTH, choose_by="majority")
    asyncio.run(search(tree, policy(), FunctionScorer(arbitrary_value), answer=TASK.answer))
    finished = [leaf for leaf in tree.solutions() if SIMULATED in leaf.notes]
    assert finished
    assert all("function" in leaf.scores and leaf.answered for leaf in finished)
    best = Lookahead().choose(tree, "function")
    assert best is not None
    assert best.scores["function"] == max(leaf.scores["function"] for leaf in tree.solutions())


@pytest.mark.parametrize("limit", range(0, 200, 7))
def test_a_budget_that_ends_in_a_simulation_ends_the_search(limit: int) -> None:
    tree = new_tree(limit=limit)
    asyncio.run(Lookahead(width=2, branch=2)(tree, policy(), arbitrary_scorer()))
    assert tree.budget.total <= limit
    assert sum(len(node.step.tokens) * node.multiplicity for node in tree.nodes[1:]) == tree.budget.written("policy")
