"""Problems that say how long their solutions should be, and rewards by it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gradatim.errors import GradatimError
from gradatim.part import make
from gradatim.tasks import WordProblems
from gradatim.tasks.base import Task, grade
from gradatim.tree import EndReason, Step, Tree
from gradatim.values.length_budget import LengthBudget


def told(**options: Any) -> Task:
    made: Task = make("tasks", {"name": "length_told", "task": "word_problems", "lengths": [1, 2, 3], **options})
    return made


def test_each_problem_has_a_length_of_its_own_and_is_judged_as_before() -> None:
    problems, own = told().problems("train", 60), WordProblems().problems("train", 60)
    lengths = [problem.data["length"] for problem in problems]
    assert set(lengths) == {1, 2, 3}
    assert lengths[:9] == [problem.data["length"] for problem in told().problems("train", 9)]
    for problem, before, length in zip(problems, own, lengths, strict=True):
        assert problem.prompt == f"{before.prompt}Think for {length} tokens.\n"
        assert (problem.id, problem.answer) == (before.id, before.answer)
        assert told().check(problem, f"Answer: {before.answer}").correct
        assert asyncio.run(told().verify(problem, "Answer: 0")).correct is False
        assert told().answer(problem, "Answer: 7") == "7"
    asked = told(lengths=[4], instruction="At most {length} steps.\n").ask(own[0].prompt)
    assert asked.prompt.endswith("At most 4 steps.\n")
    with pytest.raises(GradatimError, match="instruction"):
        told(instruction="Be brief.\n")


def test_solutions_are_rewarded_by_the_length_that_was_told() -> None:
    task = told(lengths=[2])
    (problem,) = task.problems("train", 1)
    tree = Tree.from_json(Tree(problem).to_json())
    for before in ([], ["so\n"], ["so\n", "and so\n", "on\n"]):
        node = tree.root
        for line in before:
            node = tree.add(node, Step((), line))
        tree.add(node, Step((), f"Answer: {problem.answer}", end=EndReason.END_OF_TEXT))
    grade(tree, task)
    nobody: Any = None  # it runs no model
    asyncio.run(LengthBudget(form="exact", alpha=0.1, unit="steps")(tree, nobody))
    rewards = {leaf.depth: leaf.scores["within_budget"] for leaf in tree.solutions()}
    assert rewards == pytest.approx({1: 0.9, 2: 1.0, 4: 0.8})
