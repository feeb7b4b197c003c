"""What is grown on in graded trees: corrections of first errors, and errors from chosen steps on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clean_task import Clean, CountingPolicy, Given, ending, write
from gradatim.budget import Budget
from gradatim.counts import total_counts
from gradatim.errors import GradatimError
from gradatim.policies.scripted import ScriptedPolicy, ScriptedStep
from gradatim.search.regrowth import ControlledErrors, Corrections, Regrowth
from gradatim.search.regrowth.base import REGROWN
from gradatim.supervision import ControlledPairs, FirstErrorPairs
from gradatim.tasks.base import grade
from gradatim.tree import EndReason, Node, Problem, Tree
from gradatim.values.backup import Backup
from gradatim.values.imported import Imported
from gradatim.values.oracle import Oracle
from scripted_countdown import TASK, new_tree, problems, random_policy

KEY = "corrections"


def sampled(seed: int, count: int = 4, noise: float = 0.3) -> Tree:
    tree = new_tree(problems(3)[seed % 3], seed=seed)
    asyncio.run(random_policy(noise).extend([tree.root], count, steps=None))
    grade(tree, TASK)
    return tree


def regrown(tree: Tree, regrowth: Regrowth, *, limit: int | None = None, noise: float = 0.3) -> Tree:
    """A copy of a tree that was grown on in, with ``limit`` more tokens."""
    copy = Tree.from_json(tree.to_json())
    copy.budget = Budget(None if limit is None else tree.budget.total + limit, copy.budget.accounts)
    asyncio.run(regrowth(copy, Given({"policy": random_policy(noise)}, TASK)))
    return copy


def holds(node: Node) -> bool:
    return TASK.reachable(node.tree.problem, node.text)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 30), limit=st.none() | st.integers(0, 120), attempts=st.integers(1, 12))
def test_first_errors_are_corrected_by_steps_that_come_right(seed: int, limit: int | None, attempts: int) -> None:
    before = sampled(seed)
    part = Corrections(values=Oracle(), limit=attempts)
    tree = regrown(before, part, limit=limit)
    assert tree.to_json() == regrown(before, part, limit=limit).to_json(), "it depends on the tree's seed alone"
    assert limit is None or tree.budget.total <= before.budget.total + limit
    wrong = [leaf for leaf in before.solutions() if leaf.correct is False]
    firsts = {next(node.id for node in leaf.path()[1:] if not holds(node)) for leaf in wrong}
    pairs = FirstErrorPairs(value=KEY)(tree)
    for chosen, rejected in (term.ends for term in pairs):
        assert chosen.parent is rejected.parent
        assert rejected.id in firsts
        assert holds(chosen)
    counts = total_counts([tree])[KEY]
    prefixes = {tree.nodes[place].parent for place in firsts}
    assert counts["first errors"] == len(prefixes)
    came_right = {node.parent for node in tree.nodes[1:] if holds(node) and any(leaf.correct for leaf in node.leaves())}
    assert counts["corrected"] == len(prefixes & came_right)
    assert prefixes & came_right <= {term.ends[0].parent for term in FirstErrorPairs(value=KEY)(tree)} <= prefixes
    assert counts["solutions written"] <= attempts * len(prefixes)
    assert all("first wrong step" in prefix.notes["search"]["why"] for prefix in prefixes if prefix)
    for node in tree.nodes[len(before) :]:
        assert node.scores.get(KEY, 1.0) == 1.0
        assert node.children or (node.notes[REGROWN] == KEY and (node.open or node.reward is not None))
    if limit is None and attempts == 12:
        assert counts["corrected"] >= counts["first errors"] - 1, "a prefix that can come right mostly does"


def test_a_right_solution_that_is_there_serves_and_nothing_is_sampled() -> None:
    tree = Tree(Problem("p", "go "))
    right, wrong = write(tree, "a\n", "b\n", "done"), write(tree, "a\n", "x\n", "end")
    grade(tree, Clean())
    policy = CountingPolicy(ending())
    asyncio.run(Corrections(values=Backup())(tree, Given({"policy": policy})))
    assert policy.asked == 0
    assert [term.ends for term in FirstErrorPairs(value=KEY)(tree)] == [(right.path()[2], wrong.path()[2])]


def test_a_scorer_may_say_what_is_wrong_and_steps_that_nobody_judged_are_left() -> None:
    tree = Tree(Problem("p", "go "))
    judged, unjudged = write(tree, "a\n", "b\n", "x"), write(tree, "c\n", "x")
    grade(tree, Clean())
    for node, value in zip(judged.path()[1:], (0.9, 0.3, 0.8), strict=True):
        node.scores["given"] = value

    part = Corrections(values=Imported(label="given"), threshold=0.5)
    asyncio.run(part(tree, Given({"policy": ScriptedPolicy(ending())})))
    (term,) = FirstErrorPairs(value=KEY, threshold=0.5)(tree)
    chosen, rejected = term.ends
    assert rejected is judged.path()[2]
    assert (chosen.text, chosen.notes[REGROWN]) == ("a\ndone", KEY)
    assert len(tree.root.children) == 2
    assert KEY not in unjudged.scores


def stepping(chance_of_x: float) -> Any:
    """Three steps, each wrong with a chance, as a distribution."""

    def steps(node: Node) -> list[ScriptedStep]:
        end = EndReason.END_OF_TEXT if node.depth == 2 else EndReason.BOUNDARY
        texts = {"a": 1 - chance_of_x, "x": chance_of_x}
        return [ScriptedStep(text + ("" if node.depth == 2 else "\n"), chance, end) for text, chance in texts.items()]

    return steps


class Thermometer(ScriptedPolicy):
    """Remembers at which temperature a step of each depth was written."""

    seen: Mapping[int, set[float]] = {}

    async def extend(self, nodes: Any, n: Any = 1, *, sampling: Any = None, **options: Any) -> list[Node]:
        for node in nodes:
            self.seen = {**self.seen, node.depth: self.seen.get(node.depth, set()) | {sampling.temperature}}
        return await super().extend(nodes, n, sampling=sampling, **options)


def test_a_solution_is_written_on_hotter_with_each_step() -> None:
    tree = Tree(Problem("p", "go "))
    write(tree, "a\n", "a\n", "a")
    grade(tree, Clean())
    policy = Thermometer(stepping(0.001))
    part = ControlledErrors(steps=1, limit=3, temperature=2.0, increase=0.5, hottest=2.75)
    for _ in range(12):  # other trees choose other steps
        tree = Tree(tree.problem, seed=tree.seed + 1)
        write(tree, "a\n", "a\n", "a")
        grade(tree, Clean())
        asyncio.run(part(tree, Given({"policy": policy})))
    assert policy.seen == {0: {2.0}, 1: {2.0, 2.5}, 2: {2.0, 2.5, 2.75}}
    with pytest.raises(GradatimError, match=r"hottest \(1\) is below temperature \(1.1\); raise it"):
        ControlledErrors(hottest=1.0)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 30), limit=st.none() | st.integers(0, 120), steps=st.integers(1, 3))
def test_controlled_errors_share_a_right_beginning_with_a_right_solution(
    seed: int, limit: int | None, steps: int
) -> None:
    before = sampled(seed, 8)
    part = ControlledErrors(solutions=2, steps=steps, limit=4)
    tree = regrown(before, part, limit=limit)
    assert tree.to_json() == regrown(before, part, limit=limit).to_json()
    assert limit is None or tree.budget.total <= before.budget.total + limit
    terms = list(ControlledPairs()(tree))
    for term in terms:
        (right, wrong), (chosen, rejected) = term.ends, term.groups
        assert (right.correct, wrong.correct, term.targets) == (True, False, (1.0, 0.0))
        assert right.id < len(before), "the search drew it"
        assert chosen.nodes[0].parent is rejected.nodes[0].parent
        assert (chosen.nodes[-1], rejected.nodes[-1]) == (right, wrong)
    right = [leaf for leaf in before.solutions() if leaf.correct]
    counts = total_counts([tree])["controlled_errors"]
    assert counts["steps to err from"] <= min(2, len(right)) * steps
    assert counts["errors made"] <= counts["steps to err from"]
    assert len(terms) <= min(2, len(right)) * steps
    assert bool(terms) == bool(counts["errors made"])
    rows = ControlledPairs.rows(terms)
    assert [row["prompt"] + row["rejected"] for row in rows] == [
        tree.problem.prompt + term.ends[1].text for term in terms
    ]


def test_a_task_without_truth_about_steps_says_so() -> None:
    with pytest.raises(GradatimError, match="the task clean_task knows no truth about single steps"):
        asyncio.run(Oracle()(Tree(Problem("p", "go ")), Given({})))
