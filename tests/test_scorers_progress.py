"""Progress by a prover, and what several interns make of a step: by hand, against exact values, and where the budget
ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clean_task import Given, ending, write
from gradatim.budget import Budget
from gradatim.errors import GradatimError
from gradatim.part import make, models_of
from gradatim.policies.scripted import ScriptedPolicy
from gradatim.recipes import apply_override, parse_recipe
from gradatim.scorers.base import StepScorer
from gradatim.scorers.collaborative import CollaborativePart
from gradatim.scorers.progress import ProgressPart, ProgressScorer
from gradatim.scorers.rollouts import RolloutScorer, RolloutsPart
from gradatim.search import Beam
from gradatim.supervision import SiblingPairs, StepLabels
from gradatim.tree import Node, Problem, Step, Tree
from gradatim.values.scored import Scored
from scripted_countdown import TASK, exact_values, new_tree, problems, random_moves, random_policy
from small_runs import small_content


class Known(StepScorer):
    """Scores that a test wrote down, by the text of a path."""

    def __init__(self, name: str, score: Callable[[str], float | None]) -> None:
        super().__init__(name)
        self.score_of = score

    async def judged(self, nodes: Sequence[Node]) -> list[float | None]:
        return [self.score_of(node.text) for node in nodes]


def fork() -> Tree:
    """Below the prompt a step "a", after which "b" goes on and "c" ends the solution."""
    tree = Tree(Problem("p", "go "))
    write(tree, "a", "c")
    tree.add(tree.nodes[1], Step((1,), "b"))
    return tree


CHANCES = {"": 0.5, "a": 0.25, "ab": 0.75, "ac": 1.0}
VALUES = {"a": 0.4, "ab": 0.3, "ac": 0.9}


def scored(scorer: ProgressScorer) -> dict[str, float]:
    tree = fork()
    asyncio.run(scorer.score(tree.nodes[1:]))
    return {node.text: node.scores[scorer.name] for node in tree.nodes[1:]}


def test_progress_is_the_change_of_the_provers_chance() -> None:
    found = scored(ProgressScorer("progress", Known("prover", CHANCES.get)))
    assert found == {"a": -0.25, "ab": 0.5, "ac": 0.75}
    known_start = scored(ProgressScorer("progress", Known("prover", {**CHANCES, "": None}.get), start=0.125))
    assert known_start == {"a": 0.125, "ab": 0.5, "ac": 0.75}


def test_a_search_is_guided_by_the_value_and_weighted_progress() -> None:
    """0.4 - 0.5 * 0.25 = 0.275, and 0.3 + 0.5 * 0.5 = 0.55; what is finished is judged by its value alone."""
    found = scored(ProgressScorer("progress", Known("prover", CHANCES.get), Known("value", VALUES.get), alpha=0.5))
    assert found == {"a": pytest.approx(0.275), "ab": pytest.approx(0.55), "ac": 0.9}


def test_what_is_finished_is_judged_by_its_value_without_a_prover() -> None:
    asked: list[str] = []
    prover = Known("prover", lambda text: asked.append(text) or CHANCES[text] if text != "ac" else asked.append(text))
    assert scored(ProgressScorer("progress", prover, Known("value", VALUES.get)))["ac"] == 0.9
    assert asked == ["", "a", "ab"]


def test_a_step_is_missing_without_the_step_before() -> None:
    tree = fork()
    scorer = ProgressScorer("progress", Known("prover", {**CHANCES, "a": None}.get))
    asyncio.run(scorer.score(tree.nodes[1:]))
    assert all("progress" not in node.scores for node in tree.nodes)
    assert scorer.missing == 3


def test_progress_adds_up_to_what_the_whole_solution_gained() -> None:
    tree = new_tree(problems(1)[0])
    policy = random_policy()
    asyncio.run(policy.extend([tree.root], 3, steps=None))
    prover = RolloutScorer(random_policy(), TASK, 16, "prover", apart=True, best_of=4)
    asyncio.run(ProgressScorer("progress", prover).score(tree.nodes[1:]))
    for leaf in tree.solutions():
        gained = sum(node.scores["progress"] for node in leaf.path()[1:])
        assert gained == pytest.approx(leaf.scores["prover"] - tree.root.scores["prover"])
        assert leaf.scores["prover"] == float(TASK.reachable(tree.problem, leaf.text)), "the verifier's reward"


def test_the_best_of_k_prover_approaches_its_exact_progress() -> None:
    problem = problems(1)[0]
    exact = exact_values(problem, random_moves())
    tree = new_tree(problem)
    (step,) = asyncio.run(random_policy().extend([tree.root]))
    prover = RolloutScorer(random_policy(), TASK, 3000, "prover", apart=True, best_of=3)
    asyncio.run(ProgressScorer("progress", prover).score([step]))
    truth = (1 - (1 - exact[step.text]) ** 3) - (1 - (1 - exact[""]) ** 3)
    assert step.scores["progress"] == pytest.approx(truth, abs=0.04)


def test_a_prover_has_trees_and_an_account_of_its_own() -> None:
    policy, prover = ScriptedPolicy(ending(0.5)), ScriptedPolicy(ending())
    part = make(
        "scorers",
        {
            "name": "progress",
            "prover": {"name": "rollouts", "model": "prover", "rollouts": 4, "best_of": 2, "key": "p"},
        },
    )
    assert isinstance(part, ProgressPart)
    assert models_of(part) == {"prover"}
    tree = Tree(Problem("p", "go "))
    leaf = write(tree, "a\n", "x\n", "done")
    scorer = part.open(Given({"policy": policy, "prover": prover}))
    asyncio.run(scorer.score(tree.nodes[1:]))
    scorer.release(tree)
    assert len(tree) == 4
    assert list(tree.budget.accounts) == ["prover"]
    assert [node.scores["progress"] for node in leaf.path()[1:]] == [0.0, -1.0, 0.0]


def test_what_knows_the_truth_within_is_told() -> None:
    assert make("scorers", {"name": "progress", "prover": "rollouts"}).knows_truth
    assert not make("scorers", {"name": "progress", "prover": "process_reward"}).knows_truth
    content = small_content()
    apply_override(content, "evaluation.scorer={name: progress, prover: process_reward, value: rollouts}")
    with pytest.raises(GradatimError, match=r"evaluation\.scorer knows the truth"):
        parse_recipe(content, "small")
    with pytest.raises(GradatimError, match="two scorers within 'progress'"):
        make("scorers", {"name": "progress", "prover": "rollouts", "value": {"name": "rollouts", "rollouts": 4}})


def test_signs_are_labels_and_siblings_are_ordered_by_progress() -> None:
    tree = fork()
    asyncio.run(ProgressScorer("progress", Known("prover", CHANCES.get)).score(tree.nodes[1:]))
    labels = StepLabels(value="progress", kind="hard")(tree)
    assert [(term.ends[0].text, term.targets[0]) for term in labels] == [("a", 0.0), ("ac", 1.0), ("ab", 1.0)]
    (pair,) = SiblingPairs(value="progress")(tree)
    assert [end.text for end in pair.ends] == ["ac", "ab"]
    assert pair.targets == (0.75, 0.5)


def test_values_by_progress_are_checked_by_their_keys() -> None:
    progress = ProgressPart(prover=RolloutsPart(rollouts=2, key="chance"))
    assert Scored(scorer=progress).written == {"value", "chance"}
    with pytest.raises(GradatimError, match="two scorers within 'chance'"):
        Scored(scorer=progress, key="chance")
    tree = Tree(Problem("p", "go "))
    leaf = write(tree, "a\n", "x")
    asyncio.run(Scored(scorer=progress)(tree, Given({"policy": ScriptedPolicy(ending())})))
    assert [node.scores["value"] for node in leaf.path()[1:]] == [0.0, -0.5]


def test_interns_are_asked_alike_and_charged_apart() -> None:
    interns = {"able": ScriptedPolicy(ending()), "unable": ScriptedPolicy(lambda node: ending(0.5)(node)[1:])}
    tree = Tree(Problem("p", "go "))
    leaf = write(tree, "a\n", "done")
    scorer = CollaborativePart(interns=("able", "unable"), rollouts=3).open(Given(interns))
    asyncio.run(scorer.score([tree.root, *leaf.path()[1:]]))
    assert [node.scores["collaborative"] for node in leaf.path()] == [0.5, 0.5, 1.0]
    assert [node.counts["collaborative"] for node in leaf.path()] == [6, 6, 2]
    assert len(tree) == 3
    assert list(tree.budget.accounts) == ["able", "unable"]
    assert models_of(CollaborativePart(interns=("able", "unable"))) == {"able", "unable"}
    with pytest.raises(GradatimError, match="interns"):
        make("scorers", {"name": "collaborative", "interns": []})


@settings(max_examples=40, deadline=None)
@given(limit=st.integers(0, 1500), which=st.sampled_from(["progress", "collaborative"]))
def test_a_search_ends_with_the_budget(limit: int, which: str) -> None:
    policy, other = random_policy(), random_policy()
    content = {
        "progress": {
            "name": "progress",
            "prover": {"name": "rollouts", "model": "prover", "rollouts": 3, "best_of": 2},
            "value": {"name": "rollouts", "rollouts": 2, "key": "own"},
        },
        "collaborative": {"name": "collaborative", "interns": ["prover"], "rollouts": 2},
    }
    scorer = make("scorers", content[which]).open(Given({"policy": policy, "prover": other}, TASK))
    tree = Tree(problems(1)[0], budget=Budget(limit))
    asyncio.run(Beam(width=2, branch=2)(tree, policy, scorer))
    assert tree.budget.total <= limit
    assert limit < 1200 or any(which in node.scores for node in tree.nodes)
