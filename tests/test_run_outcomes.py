"""What became of solutions, what a run warns of, and the solutions that its report shows."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from gradatim import EndReason, Problem, Step, Tree
from gradatim.part import part
from gradatim.policies.base import SamplingOptions
from gradatim.run import Progress, run_recipe
from gradatim.run.outcomes import Outcomes, nothing_solved, outcomes_of, says_what_ends, warnings_of
from gradatim.run.shown_solutions import shown_solutions
from gradatim.tasks.base import Task, Verdict, compare, grade
from gradatim.tasks.countdown import Countdown
from small_runs import small_recipe


@part
class Sixes(Task):
    """A task whose right answer is always 6."""

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        return [Problem(f"p{place}", "Six?") for place in range(count or 1)]

    def answer(self, problem: Problem, text: str) -> str | None:
        last = text.split()[-1] if text.split() else ""
        return last if last.isdigit() else None

    def check(self, problem: Problem, text: str) -> Verdict:
        return compare("6", self.answer(problem, text), "no final answer: no number at the end")


Leaf = tuple[str, EndReason] | tuple[str, EndReason, int]


def tree_of(leaves: Sequence[Leaf], problem: str = "p") -> Tree:
    """One step for each leaf, with so many tokens (3 by default), graded."""
    tree = Tree(Problem(problem, "Six?\n"))
    for place, (text, end, *rest) in enumerate(leaves):
        tree.add(tree.root, Step(tuple(range(place, place + (rest[0] if rest else 3))), text, end=end))
    grade(tree, Sixes())
    return tree


def counted(trees: Sequence[Tree], asked: int = 1, value: str | None = None) -> Outcomes:
    return outcomes_of(trees, asked=asked, max_step_tokens=8, max_steps=1, value=value)


def test_every_end_is_told_apart() -> None:
    tree = tree_of(
        [
            ("6", EndReason.END_OF_TEXT),
            ("5", EndReason.ANSWER),
            ("4", EndReason.STOP),
            ("a", EndReason.LENGTH, 8),
            ("b", EndReason.STEPS),
            ("c", EndReason.BUDGET),
            ("d", EndReason.BOUNDARY),
        ]
    )
    again = tree.add(tree.root, tree.nodes[1].step)
    assert again.multiplicity == 2
    deep = tree.add(tree.nodes[-1], Step((1, 2, 3), "e", end=EndReason.BOUNDARY))
    tree.add(deep, Step((1, 2), "f", end=EndReason.LENGTH))
    outcomes = outcomes_of([tree], asked=3, max_step_tokens=8, max_steps=9, value="value")
    assert outcomes.finished == {"end token": 2, "complete answer": 1, "next problem": 1}
    assert outcomes.cut_off == {"step length": 1, "steps": 1, "context": 1, "budget": 1}
    assert (outcomes.solutions, outcomes.right, outcomes.open, outcomes.without_value) == (8, 2, 0, 8)
    assert (outcomes.problems, outcomes.asked, outcomes.repeated, outcomes.identical) == (1, 3, 1, 0)
    old = outcomes_of([tree], asked=3, max_step_tokens=8, max_steps=3)
    assert old.cut_off["steps"] == 2, "of trees that had no reason of its own for it"


def test_limit_of_a_text_step_is_its_length() -> None:
    tree = Tree(Problem("p", "Six?"))
    tree.add(tree.root, Step((), "long", end=EndReason.LENGTH))
    assert outcomes_of([tree], asked=1, max_step_tokens=8, max_steps=9).cut_off["step length"] == 1


@pytest.mark.parametrize(
    ("end", "tokens", "key"),
    [
        (EndReason.LENGTH, 8, "raise policy.sampling.max_step_tokens"),
        (EndReason.STEPS, 3, "raise policy.sampling.max_steps"),
        (EndReason.BUDGET, 3, "raise evaluation.budget"),
    ],
)
def test_cut_off_solutions_are_warned_of_with_the_key_to_raise(end: EndReason, tokens: int, key: str) -> None:
    few = [tree_of([(str(place), EndReason.ANSWER) for place in range(40)] + [("x", end, tokens)])]
    assert warnings_of(counted(few), "evaluation.budget", varied=True) == []
    many = [tree_of([("6", EndReason.ANSWER), ("x", end, tokens)])]
    (warning,) = warnings_of(counted(many), "evaluation.budget", varied=True)
    assert warning.startswith("1 of 2 (50.0 %) of the solutions were cut off")
    assert warning.endswith(key)


def test_a_task_that_says_no_end_is_told_so_where_solutions_run_on() -> None:
    assert not says_what_ends(Sixes())
    assert says_what_ends(Countdown())
    trees = [tree_of([("6\n", EndReason.STEPS)])]
    (warning,) = warnings_of(counted(trees), "", varied=False, ends=False)
    assert "raise policy.sampling.max_steps, or say what ends a solution" in warning
    assert "solution_end" in warning


def test_leaves_without_a_value_and_identical_draws() -> None:
    grown = tree_of([("6", EndReason.ANSWER), ("go on\n", EndReason.BOUNDARY)])
    grown.nodes[1].scores["value"] = 1.0
    (warning,) = warnings_of(counted([grown], value="value"), "trees.budget", varied=True)
    assert warning.startswith("1 of 2 (50.0 %) of the leaves have no value")
    assert "search.rollouts" in warning
    same = [tree_of([("6", EndReason.ANSWER)] * 2, f"p{place}") for place in range(3)]
    for tree in same:
        tree.nodes[1].multiplicity = 2
        tree.nodes.pop()
        tree.root.children.pop()
    (warning,) = warnings_of(counted(same), "", varied=True)
    assert warning.startswith("all draws of each of 3 problems are identical although the temperature is above 0")
    assert warnings_of(counted(same), "", varied=False) == [], "the likeliest solution is the same every time"
    assert (
        warnings_of(counted([*same, tree_of([("5", EndReason.ANSWER), ("6", EndReason.ANSWER)])]), "", varied=True)
        == []
    )


def test_why_nothing_was_solved() -> None:
    trees = [tree_of([("x", EndReason.STOP), ("y", EndReason.STOP), ("7", EndReason.ANSWER)])]
    assert nothing_solved(counted(trees), trees) == (
        "nothing was solved, none of 3 solutions is right; the verifier says: no final answer (2), wrong answer (1); "
        "for instance p: no final answer: no number at the end"
    )
    cut = [tree_of([("x", EndReason.BUDGET)])]
    assert nothing_solved(counted(cut), cut).endswith("and none was finished")


def test_solutions_of_different_problems_are_shown() -> None:
    trees = [
        tree_of([("6", EndReason.ANSWER), ("6 6", EndReason.END_OF_TEXT), ("7", EndReason.STOP)], f"p{place}")
        for place in range(4)
    ]
    trees.append(tree_of([("x" * 9000, EndReason.LENGTH, 8)], "long"))
    shown = shown_solutions(trees, SamplingOptions(max_step_tokens=8, max_steps=2))
    assert [(entry["problem"], entry["kind"], entry["ended_by"]) for entry in shown] == [
        ("p0", "right", "complete answer"),
        ("p1", "right", "complete answer"),
        ("p0", "wrong", "next problem"),
        ("p1", "wrong", "next problem"),
        ("long", "cut off", "step length"),
    ]
    assert shown[2]["verifier"] == "wrong answer: 7 instead of 6"
    assert shown[-1]["verifier"].startswith("not asked"), "what counts as wrong is not called right"
    assert "[... 5,000 characters ...]" in shown[-1]["text"]


def test_a_policy_that_is_sure_of_its_answers_is_not_blamed_on_a_server(tmp_path: Path) -> None:
    recipe = small_recipe(
        policy={"model": "shipped:countdown", "device": "cpu", "sampling": {"top_k": 1, "max_steps": 4}},
        problems={"test": 2},
        search=None,
        judge=None,
        objective=None,
        evaluation={"samples": 4},
    )
    report = run_recipe(recipe, tmp_path, progress=Progress(Console(file=io.StringIO())))
    assert report["outcomes"]["evaluate-base"]["identical"] == 2
    assert not any("identical" in text for text in report["warnings"])


def test_a_run_warns_and_reports(tmp_path: Path) -> None:
    recipe = small_recipe(
        policy={"model": "shipped:countdown", "device": "cpu", "sampling": {"max_step_tokens": 16, "max_steps": 2}},
        problems={"train": 2, "test": 3},
        search={"name": "grow", "branching": [2], "rollouts": 0},
        judge=None,
        objective=None,
        evaluation={"samples": 8, "in_flight": 1},
    )
    outputs = []
    for _ in range(2):
        console = Console(file=io.StringIO(), width=400)
        report = run_recipe(recipe, tmp_path, progress=Progress(console))
        assert isinstance(console.file, io.StringIO)
        outputs.append([line for line in console.file.getvalue().splitlines() if line.startswith("warning: ")])
    lines = "\n".join(outputs[0])
    assert "Growing trees, round 1: 4 of 4 (100.0 %) of the leaves have no value" in lines
    assert "Evaluating base by sampling: 24 of 24 (100.0 %) of the solutions were cut off at the most steps" in lines
    assert "nothing was solved, none of 24 solutions is right" in lines
    assert outputs[1] == outputs[0], "a run that was done says it again"
    assert [f"warning: {text}" for text in report["warnings"]] == outputs[0]
    assert report["finding"] == ["Nothing was solved: none of 24 solutions of 3 held-out problems is right."]
    assert report["outcomes"]["evaluate-base"]["cut_off"]["steps"] == 24
    assert [entry["kind"] for entry in report["solutions"]] == ["cut off"]
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert page.splitlines()[2].startswith("Nothing was solved")
    assert page.index("none of 24") < page.index("## Warnings") < page.index("| policy |") < page.index("## Policies")
    assert "## What became of the solutions" in page
    assert "inf" not in json.dumps(report["base"])
    assert "| data | countdown; problems used: train 2, test 3 |" in page
    assert f"gradatim show {tmp_path}" in page
