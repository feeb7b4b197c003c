"""Phi-decoding against its formulas by hand: advantage, alignment, and pruning in width and in depth."""

from __future__ import annotations

import asyncio
import math
import random
from typing import Any

import pytest

from gradatim.errors import GradatimError
from gradatim.policies.base import Sampling
from gradatim.policies.scripted import ScriptedPolicy, ScriptedStep
from gradatim.scorers.confidence import future_likelihood
from gradatim.search import PhiDecoding
from gradatim.search.decisions import DECISION, SIMULATED
from gradatim.search.phi_decoding import clustered
from gradatim.tree import EndReason, Node, Problem, Step, Tree
from scripted_countdown import TASK, arbitrary_scorer, new_tree, random_policy


def child(parent: Node, text: str, *log_probabilities: float, end: EndReason = EndReason.BOUNDARY) -> Node:
    return parent.tree.add(parent, Step(tuple(map(ord, text)), text, log_probabilities, end))


def test_a_future_is_as_likely_as_its_tokens_on_the_mean() -> None:
    tree = Tree(Problem("letters", "?"))
    candidate = child(tree.root, "ab", -1.0, -3.0)
    middle = child(candidate, "c", -0.5)
    end = child(middle, "de", -0.1, -0.3, end=EndReason.END_OF_TEXT)
    assert future_likelihood(candidate, end) == pytest.approx(-0.3)
    assert future_likelihood(middle, end) == pytest.approx(-0.2)
    assert future_likelihood(end, end) == pytest.approx(-0.2)  # it is its own future


def test_futures_are_clustered_by_answers_and_where_there_are_none_by_words() -> None:
    tree = Tree(Problem("words", "?"))
    futures = {}
    for number, (text, answer) in enumerate(
        [("one two three", "7"), ("four five", "7"), ("x y z", None), ("x y w", None), ("a b", None), ("one", "8")]
    ):
        candidate = child(tree.root, str(number), -1.0)
        end = child(candidate, text, *[-1.0] * len(text), end=EndReason.END_OF_TEXT)
        end.answer = answer
        futures[candidate] = end
    found = [[int(node.step.text) for node in cluster] for cluster in clustered(futures)]
    assert found == [[0, 1], [5], [2, 3], [4]]


def test_candidates_are_drawn_by_the_mean_of_both_softmaxes() -> None:
    tree = Tree(Problem("letters", "?"))
    futures = {}
    for text, likely in (("a", -0.5), ("b", -0.4), ("c", -0.9)):
        candidate = child(tree.root, text, -1.0)
        futures[candidate] = child(candidate, "!", likely, end=EndReason.END_OF_TEXT)
    first, second, third = futures
    clusters = [[first, third], [second]]
    advantages = [math.exp((value + 0.6) / 0.1) for value in (-0.5, -0.4, -0.9)]
    alignments = [math.exp(value) for value in (2 / 3, 1 / 3, 2 / 3)]
    expected = [
        (advantage / sum(advantages) + alignment / sum(alignments)) / 2
        for advantage, alignment in zip(advantages, alignments, strict=True)
    ]
    runs, generator = 4000, random.Random(0)
    search = PhiDecoding(width=1)
    drawn = [search._chosen(futures, clusters, {tree.root: -0.6}, generator)[0] for _ in range(runs)]
    for node, share in zip(futures, expected, strict=True):
        assert drawn.count(node) / runs == pytest.approx(share, abs=4 * math.sqrt(share / runs))
    assert set(PhiDecoding(width=3)._chosen(futures, clusters, {tree.root: 0.0}, generator)) == set(futures)


def test_unlikely_candidates_get_no_future() -> None:
    tree = Tree(Problem("letters", "?"))
    candidates = [child(tree.root, letter, likely) for letter, likely in zip("abcd", (-1, -1.2, -1.1, -4), strict=True)]
    kept = PhiDecoding(width=1)._pruned_in_width(candidates)  # mean -1.825, standard deviation 1.257
    assert kept == candidates[:3]
    assert candidates[3].notes[DECISION] == {"decision": "pruned", "why": "unlikely: not simulated"}
    assert PhiDecoding(width=1, prune_below=2.0)._pruned_in_width(candidates) == candidates
    assert PhiDecoding(width=1, prune_below=None)._pruned_in_width(candidates) == candidates
    assert PhiDecoding(width=4)._pruned_in_width(candidates) == candidates  # no fewer than the width


def grown(search: PhiDecoding, **options: Any) -> Tree:
    tree = new_tree(**options)
    asyncio.run(search(tree, random_policy(noise=0.2), answer=TASK.answer, sampling=Sampling(max_steps=4)))
    return tree


def test_simulated_futures_stay_as_solutions_and_say_what_they_are() -> None:
    tree = grown(PhiDecoding(width=2, branch=3, agree=None))
    simulated = [node for node in tree.nodes if node.notes.get(SIMULATED)]
    assert any(node.finished for node in simulated)
    assert all(DECISION not in node.notes for node in simulated)
    for node in tree.nodes[1:]:
        assert SIMULATED in node.notes or DECISION in node.notes
    chosen = PhiDecoding().choose(tree, None)
    assert chosen is not None
    assert chosen.answer is not None


def test_the_search_ends_when_futures_agree() -> None:
    def always(node: Node) -> list[ScriptedStep]:
        if node.depth == 3:
            return [ScriptedStep("answer 7", 1.0, EndReason.END_OF_TEXT)]
        return [ScriptedStep(f"{letter}\n", 0.2) for letter in "abcde"]

    policy = ScriptedPolicy(always)
    depths = []
    for agree in (0.7, None):
        for foresight in (None, 1):
            tree = Tree(Problem("same", "?"))
            search = PhiDecoding(width=2, branch=3, agree=agree, foresight=foresight)
            asyncio.run(search(tree, policy, answer=lambda problem, text: text.rpartition(" ")[2]))
            notes = [node.notes.get(DECISION, {}).get("decision") for node in tree.nodes]
            assert ("dropped" in notes) == (agree is not None)
            assert {leaf.answer for leaf in tree.solutions()} == {"7"}
            depths.append(max(node.depth for node in tree.nodes if "decision" in node.notes.get(DECISION, {})))
    assert depths == [1, 3, 4, 4]  # futures of one step show the answer from the third step on


def test_futures_of_a_few_steps_are_completed_when_they_agree() -> None:
    def one_way(node: Node) -> list[ScriptedStep]:
        texts = ["a\n", "b\n"] if node.is_root else ["go on\n"]
        return [
            ScriptedStep(text, 1.0, EndReason.END_OF_TEXT if node.depth == 4 else EndReason.BOUNDARY) for text in texts
        ]

    tree = Tree(Problem("same", "?"))
    asyncio.run(PhiDecoding(width=2, branch=4, foresight=2)(tree, ScriptedPolicy(one_way)))
    assert len(tree.solutions()) == 2
    assert {node.depth for node in tree.nodes if DECISION in node.notes} == {1}


def test_a_scorer_scores_what_was_found_and_none_is_needed() -> None:
    tree = new_tree()
    asyncio.run(PhiDecoding(width=2, branch=2)(tree, random_policy(), arbitrary_scorer()))
    assert {node for node in tree.nodes if node.scores} == set(tree.solutions())


def test_steps_without_log_probabilities_are_refused() -> None:
    class Silent(ScriptedPolicy):
        async def extend(self, nodes: Any, n: Any = 1, **options: Any) -> list[Node]:
            return [node.tree.add(node, Step((), f"step {number}\n")) for node in nodes for number in range(n)]

    with pytest.raises(GradatimError, match=r"the step 'step 0' has no log-probabilities .* take a policy that"):
        asyncio.run(PhiDecoding()(new_tree(), Silent(lambda node: [])))
    for options in ({"width": 0}, {"branch": 0}, {"foresight": 0}, {"agree": 0}, {"agree": 1.1}, {"temperature": 0}):
        with pytest.raises(GradatimError, match=f"^PhiDecoding: {next(iter(options))}"):
            PhiDecoding(**options)  # type: ignore[arg-type]
