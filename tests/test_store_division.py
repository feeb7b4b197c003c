"""Solutions that a model divides anew are the same solutions, to the letter, or keep their steps and are counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from failing_server import serving
from gradatim import Budget, GradatimError, Tree
from gradatim.cli.main import app
from gradatim.store import TreeStore
from gradatim.store.division import Division
from gradatim.tasks.base import grade
from gradatim.text.boundaries.marked import marked_steps
from gradatim.tree import EndReason, Problem, Step
from scripted_countdown import TASK, new_tree, problems, random_policy
from scripted_judge import scripted_judge


def test_marks_divide_the_text_itself() -> None:
    text = "First, 2 + 3 = 5.\nThen  5 * 2 = 10.  \nSo 10.\n"
    answer = "Sure:\nFirst, 2 + 3 = 5.<step>Then 5 * 2 = 10.\n<step>\nSo 10.\nIs that what you want?"
    assert marked_steps(text, answer, "<step>") == ["First, 2 + 3 = 5.\n", "Then  5 * 2 = 10.  \n", "So 10.\n"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("a b", "no mark"),
        ("<step> a b <step>", "no mark"),
        ("a <step> c", "another text"),
        ("a", "another text"),
        ("", "another text"),
    ],
)
def test_another_text_and_no_marks_divide_nothing(answer: str, why: str) -> None:
    assert marked_steps("a b", answer, "<step>") == why


def test_a_mark_that_is_in_the_text_cannot_mark() -> None:
    assert marked_steps("a | b", "a | b", "|") == "the mark is in the text"


@given(st.text(alphabet="ab \n", max_size=30), st.data())
def test_steps_join_to_the_text_wherever_the_marks_stand(text: str, data: st.DataObject) -> None:
    places = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=5)))
    answer, last = "", 0
    for place in places:
        answer, last = f"{answer}{text[last:place]} |", place
    steps = marked_steps(text, f"{answer}\n{text[last:]}", "|")
    if isinstance(steps, str):
        assert steps == "no mark"
    else:
        assert "".join(steps) == text
        assert all(step.strip() for step in steps)
        assert {len("".join(text[:place].split())) for place in places} >= {
            len("".join("".join(steps[:count]).split())) for count in range(1, len(steps))
        }


def solved(*, limit: int | None = None) -> Tree:
    tree = new_tree(limit=limit)
    asyncio.run(random_policy().extend([tree.root], 6, steps=None))
    grade(tree, TASK)
    return tree


def divided(tree: Tree, says: Callable[[str], str]) -> tuple[Tree, Division]:
    """The tree as a model divides it that says something of each solution."""
    prompts = lambda prompt: says(prompt.split("Solution:\n")[1].split("\n\nSolution with")[0])  # noqa: E731
    division = Division(scripted_judge(prompts))
    return asyncio.run(division(tree)), division


def test_a_tree_is_divided_and_its_solutions_stay_what_they_are() -> None:
    tree = solved()
    new, division = divided(tree, lambda text: text.replace("=", "=<step>"))
    old = sorted((leaf.text, leaf.reward, leaf.multiplicity, leaf.step.end, leaf.step.source) for leaf in tree.leaves())
    assert old == sorted(
        (leaf.text, leaf.reward, leaf.multiplicity, leaf.step.end, leaf.step.source) for leaf in new.leaves()
    )
    assert all(node.step.text.rstrip().endswith("=") for node in new.nodes[1:] if node.children)
    assert all(not node.scores and not node.step.tokens for node in new.nodes)
    assert (division.divided, division.kept) == (len(list(tree.leaves())), {})
    assert new.budget is tree.budget
    assert new.budget.written("divider") > sum(len(leaf.text) for leaf in tree.leaves())
    assert Tree.from_json(new.to_json()).to_json() == new.to_json()


def test_what_is_not_the_same_text_keeps_its_steps_and_is_counted() -> None:
    tree = solved()
    new, division = divided(tree, lambda text: text.replace("1", "7") + "<step>")
    changed = sum("1" in leaf.text for leaf in tree.leaves())
    assert division.kept == {"another text": changed, "no mark": len(list(tree.leaves())) - changed}
    assert sorted(leaf.text for leaf in new.leaves()) == sorted(leaf.text for leaf in tree.leaves())
    assert sorted(node.step.text for node in new.nodes[1:]) == sorted(node.step.text for node in tree.nodes[1:])


@given(st.integers(0, 3000))
def test_the_budget_may_end_anywhere(limit: int) -> None:
    tree = solved()
    tree.budget.limit = tree.budget.total + limit
    new, division = divided(tree, lambda text: text.replace("=", "=<step>"))
    assert tree.budget.total <= tree.budget.limit
    assert division.divided + division.kept.total() == len(list(tree.leaves()))
    assert set(division.kept) <= {"not written"}
    assert sorted(leaf.text for leaf in new.leaves()) == sorted(leaf.text for leaf in tree.leaves())


def test_steps_with_observations_are_actions_and_stay() -> None:
    tree = Tree(Problem("p", "Q\n"), budget=Budget())
    node = tree.add(tree.root, Step((), "look\n", observation_text="a door\n"))
    tree.add(node, Step((), "open", end=EndReason.END_OF_TEXT))
    new, division = divided(tree, lambda text: "<step>")
    assert [each.step for each in new.nodes] == [each.step for each in tree.nodes]
    assert (division.kept, tree.budget.total) == ({"has observations": 1}, 0)


@pytest.mark.parametrize("options", [{"template": "Mark {solution}"}, {"template": "<step>"}, {"mark": " "}])
def test_a_prompt_that_cannot_work_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(GradatimError):
        Division(random_policy(), **options)  # type: ignore[arg-type]


def marks(text: str, seed: int) -> list[str]:
    """A server's model that marks each line, but of every solution with a 7 writes another."""
    solution = text.split("Solution:\n")[1].split("\n\nSolution with")[0]
    return list(solution.replace("7", "8").replace("\n", "\n<step>"))


def test_a_file_of_trees_is_divided_and_gone_on_with(tmp_path: Path) -> None:
    source, output = tmp_path / "trees.jsonl", tmp_path / "divided.jsonl"
    with TreeStore(source) as store:
        for number, problem in enumerate(problems(3)):
            tree = Tree(problem, budget=Budget(1))
            for text in ("a\nb\n", "a\n7\n", f"{number}"):
                tree.add(tree.root, Step((), text, end=EndReason.END_OF_TEXT))
            store.append(tree)

    def divided_by(url: str, *more: str) -> str:
        words = ["divide", str(source), "--policy", url, "--output", str(output), *more]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        return " ".join(result.stdout.split())

    with serving(marks) as server:
        said = divided_by(server.url)
        assert said.endswith("3 trees; 3 solutions have new steps, others keep theirs: another text (3), no mark (3)")
        asked = len(server.requests)
        assert divided_by(server.url).endswith("3 trees; 0 solutions have new steps")
        assert len(server.requests) == asked, "all was done before"
    for tree in TreeStore(output):
        assert sorted(node.step.text for node in tree.nodes[1:4]) == ["a\n", "a\n7\n", "b\n"]
    result = CliRunner().invoke(app, ["divide", str(source), "--policy", "x", "--output", str(source)])
    assert (result.exit_code, "choose another --output" in result.stderr) == (1, True)
