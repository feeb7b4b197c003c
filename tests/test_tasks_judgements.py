"""Labels of steps by relative outcomes, and the task whose problems are such steps: what is asked, what is right, who
learns from it."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from gradatim.errors import GradatimError
from gradatim.objectives import PolicyGradient
from gradatim.part import make
from gradatim.policies.base import Sampling
from gradatim.recipes import Recipe, load_recipe
from gradatim.run import Progress, run_recipe
from gradatim.scorers.judge import JudgePart
from gradatim.search import IndependentSampling
from gradatim.store import TreeStore
from gradatim.supervision import TrajectoryAdvantages
from gradatim.tasks.base import Task, grade
from gradatim.tasks.demonstrations import worked_solutions
from gradatim.tree import EndReason, Problem, Step, Tree
from gradatim.values.relative_labels import RelativeLabels
from scripted_judge import scripted_judge

CONTEXT: Any = None  # labels need neither task nor models


def labelled(number: int, *, label: str = "label") -> Tree:
    """Two steps after one prompt, one good and one bad, and what follows the good one."""
    tree = Tree(Problem(f"p{number}", f"What is {number} + 1?\n"))
    good = tree.add(tree.root, Step((), f"I add 1 to {number}.\n"))
    bad = tree.add(tree.root, Step((), f"I take 1 from {number}.\n"))
    last = tree.add(good, Step((), f"It is {number + 1}.", end=EndReason.END_OF_TEXT))
    cut = tree.add(bad, Step((), "It is", end=EndReason.BUDGET))
    silent = tree.add(bad, Step((), "\n"))
    for node, value in ((good, 1.0), (bad, 0.0), (last, 1.0), (cut, 0.0), (silent, 0.0)):
        node.scores[label] = value
    return tree


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    path = tmp_path / "trees.jsonl"
    with TreeStore(path) as store:
        for number in range(20):
            store.append(labelled(number))
    return path


def judgements(trees: Path, **options: Any) -> Task:
    task: Task = make("tasks", {"name": "judgements", "trees": str(trees), **options})
    return task


def valued(*values: float) -> Tree:
    """A path of steps with these chances of success; the prompt's is the first."""
    tree = Tree(Problem("p", "prompt\n"))
    node = tree.root
    node.scores["value"] = values[0]
    for place, value in enumerate(values[1:]):
        node = tree.add(node, Step((), f"step {place}\n"))
        node.scores["value"], node.counts["value"] = value, 8
    return tree


def labels(tree: Tree, **options: Any) -> list[float | None]:
    asyncio.run(RelativeLabels(**options)(tree, CONTEXT))
    return [node.scores.get("label") for node in tree.nodes[1:]]


def test_a_step_is_good_by_what_it_does_to_the_chance_of_success() -> None:
    """The paper's example: from 10 % to 50 % is progress, and from 60 % to 55 % hardly a loss; absolute values see no
    difference between them."""
    path = [0.1, 0.5, 0.1, 0.6, 0.55, 0.0, 0.0, 0.25]
    assert labels(valued(*path), rule="ratio", ratio=0.8) == [1, 0, 1, 1, 0, 0, 1]
    assert labels(valued(*path), rule="ratio", ratio=0.95) == [1, 0, 1, 0, 0, 0, 1]
    assert labels(valued(*path), alpha=0.0) == [1, 1, 1, 1, 0, 0, 1]
    assert labels(valued(*path)) == [1, 0, 1, 1, 0, 0, 1]


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 4), st.integers(1, 8))
def test_the_effective_reward_is_its_formula(before: float, value: float, alpha: float, best_of: int) -> None:
    best = [1 - (1 - each) ** best_of for each in (before, value)]
    reward = value + alpha * (best[1] - best[0])
    found = RelativeLabels(alpha=alpha, best_of=best_of).is_good(value, before)
    assert found == (reward > 0) or abs(reward) < 1e-9
    if value >= before:
        assert found == (value > 0), "what does not lower the chance is good if anything succeeds"
    assert RelativeLabels(rule="ratio", ratio=1.0).is_good(value, before) == (value > before)


def test_a_step_without_a_chance_before_or_behind_it_has_no_label() -> None:
    tree = valued(0.5, 0.4, 0.3)
    del tree.nodes[1].scores["value"]
    assert labels(tree) == [None, None]
    assert tree.nodes[2].counts == {"value": 8}


def test_every_labelled_step_is_a_problem_whose_answer_is_its_label(trees: Path) -> None:
    task = judgements(trees, balance=False)
    problems = [problem for split in ("train", "validation", "test") for problem in task.problems(split)]
    assert len(problems) == 20 * 3, "fragments and steps without words are not asked about"
    tree = labelled(7)
    asked = {problem.id: problem for problem in problems if problem.id.startswith("p7,")}
    for node, answer in ((tree.nodes[1], "good"), (tree.nodes[2], "bad"), (tree.nodes[3], "good")):
        problem = asked[f"p7, step {node.id}"]
        assert problem.prompt == JudgePart().question(node)
        assert problem.answer == answer


def test_splits_share_no_tree_and_begin_alike_whatever_is_asked(trees: Path) -> None:
    task = judgements(trees)
    found = {split: task.problems(split) for split in ("train", "validation", "test")}
    of = {split: {problem.id.partition(",")[0] for problem in each} for split, each in found.items()}
    assert len(of["test"]) == len(of["validation"]) == 2
    assert len(of["train"] | of["validation"] | of["test"]) == sum(map(len, of.values()))
    assert [each.answer for each in found["train"]] == ["good", "bad"] * 16, "as many of either kind, in turn"
    assert task.problems("train", 5) == found["train"][:5]
    assert judgements(trees).problems("test") == found["test"]


@pytest.mark.parametrize(
    ("text", "answer", "reward"),
    [
        ("I check it.\nVerdict: correct", "good", 1.0),
        ("Verdict: incorrect", "bad", 0.0),
        ("<think>Verdict: incorrect</think>\nVerdict: correct", "good", 1.0),
        ("It looks fine.", None, 0.0),
        ("Verdict: correct\nVerdict: incorrect", None, 0.0),
    ],
)
def test_a_verdict_is_right_if_it_is_the_label(trees: Path, text: str, answer: str | None, reward: float) -> None:
    task = judgements(trees)
    problem = next(each for each in task.problems("train") if each.answer == "good")
    assert task.answer(problem, text) == answer
    assert task.check(problem, text).reward == reward


def test_a_worked_solution_is_the_verdict_alone(trees: Path) -> None:
    task = judgements(trees)
    shown = worked_solutions(task, "train", 8)
    assert len(shown) == 8
    assert {text for _, text in shown} == {"Verdict: correct", "Verdict: incorrect"}
    scaled = JudgePart(verdict=r"score: (\d+)", scale=(0, 10))
    numbers = judgements(trees, judge=scaled, shown="Score: {verdict}")
    assert {text for _, text in worked_solutions(numbers, "train", 8)} == {"Score: 0", "Score: 10"}
    assert numbers.answer(numbers.problems("train", 1)[0], "score: 6") == "good"


def test_verdicts_earn_what_they_are_beside_others_on_the_same_step(trees: Path) -> None:
    """A judge that guesses: of the answers to one question, those that agree with the label are made likelier."""
    task = judgements(trees)
    sampling = Sampling(boundary=task.boundary, solution_end=task.solution_end)
    judge = scripted_judge(lambda prompt: [("Verdict: correct", 1.0), ("Verdict: incorrect", 1.0)], sampling)
    objective, seen = PolicyGradient(), set()
    for problem in task.problems("train", 6):
        tree = Tree(problem, seed=3)
        asyncio.run(IndependentSampling(n=8)(tree, judge, None, answer=task.answer))
        grade(tree, task)
        for term in TrajectoryAdvantages()(tree):
            objective.prepared(term)
            agrees = ("incorrect" in term.ends[0].text) == (problem.answer == "bad")
            assert (term.groups[0].targets[0] > 0) == agrees
            seen.add((problem.answer, agrees))
    assert seen == {("good", True), ("good", False), ("bad", True), ("bad", False)}


def test_what_cannot_be_is_said(trees: Path, tmp_path: Path) -> None:
    for options, said in (
        ({"judge": "process_reward"}, "'process_reward' asks nothing that a policy could learn to answer; name judge"),
        ({"shown": "It is {verdict}."}, "for a good step, which the judge does not read as that"),
        ({"held_out": 0.5}, "held_out"),
    ):
        with pytest.raises(GradatimError, match=said):
            judgements(trees, **options)
    with pytest.raises(GradatimError, match=r"task\.trees names '.*nowhere', which is not there"):
        judgements(tmp_path / "nowhere").problems("train")
    with pytest.raises(GradatimError, match="hold no two differently labelled steps for train"):
        judgements(trees, label="other").problems("train")
    with pytest.raises(GradatimError, match="no 'dev'"):
        judgements(trees).problems("dev")


def test_the_recipe_teaches_a_judge_from_labelled_trees(trees: Path, tmp_path: Path) -> None:
    """At its smallest: a judge learns the form of a verdict, then from its own verdicts, and is measured."""
    overrides = [
        f"task.trees={trees}", "problems={train: 6, test: 2}", "rounds=1", "search.n=4", "learn.0.demonstrations=16",
        "learn.0.training={learning_rate: 5.0e-3, epochs: 3, tokens_per_batch: 256}",
        "evaluation={samples: 1, greedy: false, pass_at: [1]}",
    ]  # fmt: skip
    recipe = load_recipe("stepwiser", overrides)
    assert isinstance(recipe, Recipe)
    report = run_recipe(recipe, tmp_path / "run", progress=Progress(Console(file=io.StringIO())))
    assert report.keys() >= {"base", "fine_tuned", "policy_gradient"}
    assert (tmp_path / "run" / "policy" / "config.json").is_file()
