"""Searches written as texts: what marks leave standing, what is learned of them, and the search that obeys them."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from gradatim.errors import GradatimError
from gradatim.objectives.sft import Sft
from gradatim.part import make
from gradatim.policies.scripted import ScriptedPolicy, ScriptedStep
from gradatim.recipes import Recipe, load_recipe
from gradatim.run import Progress, run_recipe
from gradatim.search import Grow, IndependentSampling
from gradatim.search.decisions import DECISION
from gradatim.search.self_backtracking import SelfBacktrackingSearch
from gradatim.store import TreeStore
from gradatim.supervision import RightSolutions
from gradatim.supervision.self_backtracking import SelfBacktracking
from gradatim.supervision.stream_of_search import StreamOfSearch
from gradatim.tasks.base import grade
from gradatim.tasks.countdown import Countdown
from gradatim.tasks.traces import Traces
from gradatim.text.backtracking import MARK, is_mark, standing
from gradatim.training.rows import build_row
from gradatim.training.text_terms import terms_in_tokens_of
from gradatim.tree import EndReason, Node, Step, Tree
from scripted_countdown import TASK, new_tree, problems, random_policy

BAR = " |\n"  # a mark in the words that countdown's tokenizer knows


def searched(*solutions: str) -> Tree:
    """A tree of solutions whose steps are letters; those that end in a capital are right."""
    tree = new_tree()
    for solution in solutions:
        node = tree.root
        for place, letter in enumerate(solution):
            last = place + 1 == len(solution)
            step = Step((ord(letter),), letter if last else f"{letter}\n")
            node = tree.add(node, Step(step.tokens, step.text, end=EndReason.END_OF_TEXT) if last else step)
        node.reward = float(node.step.text.isupper())
    return tree


def written(term_nodes: tuple[Node, ...]) -> str:
    """The steps of a trace by their letters, a mark as a minus."""
    return "".join("-" if is_mark(node.step.text, MARK) else node.step.text.strip() for node in term_nodes)


def trace(tree: Tree, **options: object) -> str:
    (term,) = StreamOfSearch(**options)(tree)  # type: ignore[arg-type]
    return written(term.groups[0].nodes)


@pytest.mark.parametrize(
    ("steps", "left"),
    [("ab-c", "ac"), ("abc---d", "d"), ("a-b-c", "c"), ("--a", "a"), ("ab", "ab"), ("ab--", ""), ("ab-c-d", "ad")],
)
def test_marks_take_back_the_last_step_that_stands(steps: str, left: str) -> None:
    assert "".join(standing((MARK if step == "-" else step for step in steps), MARK)) == left


def test_a_trace_is_the_depth_first_walk_to_the_first_right_solution() -> None:
    tree = searched("abw", "acw", "dew", "dfR", "dgw", "hw")
    assert trace(tree) == "abw--cw---dew--fR"
    assert trace(tree, wrong=2) == "abw--cw---dfR"
    assert trace(tree, wrong=1) == "abw---dfR"
    assert trace(tree, wrong=0) == "dfR"
    assert trace(tree, depth=1) == "a-de-fR"
    assert trace(tree, depth=2) == "ab-c--dew--fR"
    assert list(StreamOfSearch()(searched("abw", "acw"))) == [], "no right solution"


def test_a_guided_trace_spreads_its_mistakes_over_the_steps_of_the_shortest_solution() -> None:
    tree = searched("abw", "kklR", "deR", "dfw", "dgw", "dew", "hw")
    assert trace(tree, guided=True, wrong=1) == "abw---deR"
    assert trace(tree, guided=True, wrong=2) == "abw---dfw--eR"
    assert trace(tree, guided=True, wrong=3) == "abw---dfw--ew-R"
    assert trace(tree, guided=True, wrong=4) == "abw---hw--dfw--ew-R"
    assert trace(tree, guided=True, wrong=99) == "abw---hw--dfw--gw--ew-R"
    assert trace(tree, wrong=99) == "abw---kklR", "the walk comes to the longer one first"


def test_what_was_not_tried_to_an_end_is_not_called_wrong() -> None:
    tree = searched("bR")
    tree.root.children.insert(
        0, tree.root.children.pop(tree.root.children.index(tree.add(tree.root, Step((1,), "a\n"))))
    )
    assert trace(tree) == "bR"


def test_the_wrong_steps_weigh_nothing_if_they_are_not_to_be_learned() -> None:
    (term,) = StreamOfSearch(learn_wrong=False)(searched("aw", "bR"))
    assert written(term.groups[0].nodes) == "aw--bR"
    assert term.groups[0].weights == (0.0, 0.0, 1.0, 1.0, 1.0, 1.0)
    (term,) = StreamOfSearch()(searched("aw", "bR"))
    assert term.groups[0].weights == ()
    end = term.groups[0].nodes[-1]
    assert end.correct
    assert RightSolutions()(end.tree)[0].groups == term.groups, "right solutions of the trace's tree are the trace"


def test_self_backtracking_learns_beginnings_and_marks_and_no_mistakes() -> None:
    tree = searched("aw", "bcw", "bdR", "bew", "bf")
    terms = [term.groups[0] for term in SelfBacktracking(errors=2)(tree)]
    assert [written(group.nodes) for group in terms] == ["a-", "bc-", "be-"]
    assert [group.weights for group in terms] == [(0.0, 1.0), (1.0, 0.0, 1.0), (1.0, 0.0, 1.0)]
    assert [written(term.groups[0].nodes) for term in SelfBacktracking()(tree)] == ["a-", "bc-"]
    assert all(group.nodes[-1].tree is not tree for group in terms)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 50),
    noise=st.sampled_from([0.0, 0.3]),
    wrong=st.integers(0, 12),
    depth=st.integers(1, 4),
    guided=st.booleans(),
)
def test_the_task_verifies_what_a_trace_leaves_standing(
    seed: int, noise: float, wrong: int, depth: int, guided: bool
) -> None:
    problem = problems(20)[seed % 20]
    tree = new_tree(problem, seed=seed)
    asyncio.run(Grow(branching=(6, 4))(tree, random_policy(noise)))
    grade(tree, TASK)
    construction = StreamOfSearch(mark=BAR, wrong=wrong, depth=depth, guided=guided)
    terms = list(construction(tree))
    assert bool(terms) == any(leaf.correct for leaf in tree.solutions())
    task = Traces(task=TASK, mark=BAR)
    for term in terms:
        (group,) = term.groups
        text = group.nodes[-1].text
        verdict = task.check(problem, text)
        assert verdict.correct
        assert wrong == 0 or TASK.check(problem, text).correct is (BAR not in text)
        solution = standing((node.step.text for node in group.nodes), BAR)
        assert "".join(solution) == task.standing(text)
        assert any(leaf.correct and leaf.text == task.standing(text) for leaf in tree.solutions())
        marks = [is_mark(node.step.text, BAR) for node in group.nodes]
        turns = sum(mark and not before for before, mark in pairwise(marks))
        assert turns <= wrong
        assert len(group.nodes) == len(solution) + 2 * sum(marks)
        assert all(node.open for node in group.nodes[:-1])
        assert construction.rows(terms)[0]["completion"] == text


def test_traces_are_put_in_the_models_tokens_and_unknown_marks_refused() -> None:
    tree = new_tree(problems(20)[4], seed=1)
    asyncio.run(Grow(branching=(6, 4))(tree, random_policy()))
    grade(tree, TASK)
    tokenizer = TASK.tokenizer()
    plain = list(RightSolutions()(tree))
    terms = list(SelfBacktracking(mark=BAR)(tree))
    assert plain
    assert terms
    moved = terms_in_tokens_of([*plain, *terms], tokenizer)
    for term in moved:
        for node in term.groups[0].nodes:
            assert tokenizer.decode(node.step.tokens, skip_special_tokens=True) == node.step.text
        end = term.groups[0].nodes[-1]
        assert (end.step.tokens[-1] == tokenizer.eos_token_id) is end.finished
    row = build_row(moved)
    assert row.step_weight.tolist() == [
        weight for term in moved for weight in term.groups[0].weights or (1.0,) * len(term.groups[0].nodes)
    ]
    assert Sft().groups == 1
    again = terms_in_tokens_of(moved, tokenizer)
    assert all(one.groups == other.groups for one, other in zip(moved, again, strict=True)), "known trees stay"
    with pytest.raises(GradatimError, match=r"does not know all words of the step 'Backtrack\\n'"):
        terms_in_tokens_of(SelfBacktracking()(tree), tokenizer)


def test_the_task_of_traces_is_the_task_within_otherwise() -> None:
    task = make("tasks", {"name": "traces", "task": {"name": "countdown", "numbers": 3}})
    assert [problem.id for problem in task.problems("test", 3)] == [each.id for each in TASK.problems("test", 3)]
    problem = task.ask("make 10 from 2 3 4")
    text = f" 4 + 3 = 7 | 2 7\n{MARK} 3 * 2 = 6 | 4 6\n 6 + 4 = 10 | 10"
    assert task.check(problem, text).correct
    assert asyncio.run(task.verify(problem, text)).correct
    assert task.answer(problem, text) == "3 * 2 = 6; 6 + 4 = 10"
    assert not Countdown(numbers=3).check(problem, text).correct
    assert not task.check(problem, MARK).correct
    assert not task.solution_end, "a wrong solution may be taken back"
    with pytest.raises(GradatimError, match="mark"):
        make("tasks", {"name": "traces", "task": "countdown", "mark": " \n"})


def taught(node: Node) -> list[ScriptedStep]:
    """``a`` is a mistake that is always taken back, ``b`` leads to solutions, of which ``x`` is the likelier one."""
    if node.is_root:
        return [ScriptedStep("a\n", 0.5), ScriptedStep("b\n", 0.5)]
    if node.step.text == "a\n":
        return [ScriptedStep(MARK, 1.0)]
    return [ScriptedStep("x", 0.7, EndReason.END_OF_TEXT), ScriptedStep("y", 0.3, EndReason.END_OF_TEXT)]


def test_what_the_policy_takes_back_is_drawn_again() -> None:
    tree = new_tree()
    search = SelfBacktrackingSearch(n=12, rounds=20)
    asyncio.run(search(tree, ScriptedPolicy(taught), answer=lambda problem, text: text))
    assert sum(leaf.multiplicity for leaf in tree.solutions()) == 12
    assert {leaf.text for leaf in tree.solutions()} == {"b\nx", "b\ny"}
    mistake = next(node for node in tree.nodes if node.step.text == "a\n")
    assert mistake.notes[DECISION] == {"decision": "dropped", "why": "the policy took it back"}
    assert tree.root.draws == 12 + mistake.multiplicity
    chosen = search.choose(tree, None)
    assert chosen is not None
    assert chosen.text == "b\nx"
    voted = SelfBacktrackingSearch(choose_by="majority").choose(tree, None)
    assert voted is not None


def test_after_its_rounds_a_solution_at_a_mark_ends() -> None:
    counts = []
    for rounds in (0, 1):
        tree = new_tree(seed=3)
        asyncio.run(SelfBacktrackingSearch(n=12, rounds=rounds)(tree, ScriptedPolicy(taught)))
        counts.append(sum(leaf.multiplicity for leaf in tree.solutions()))
    assert 0 < counts[0] < counts[1] < 12
    always = ScriptedPolicy(lambda node: [ScriptedStep(MARK, 1.0)])
    tree = new_tree()
    asyncio.run(SelfBacktrackingSearch(n=2, rounds=3)(tree, always))
    assert tree.root.draws == 8, "before the prompt there is nothing to take back"
    assert SelfBacktrackingSearch().choose(tree, None) is None


@pytest.mark.parametrize("limit", [None, 0, 40, 90, 300])
def test_a_policy_that_writes_no_mark_samples_as_ever(limit: int | None) -> None:
    trees = [new_tree(problems(1)[0], seed=2, limit=limit) for _ in range(2)]
    asyncio.run(SelfBacktrackingSearch(n=10)(trees[0], random_policy()))
    asyncio.run(IndependentSampling(n=10)(trees[1], random_policy()))
    assert trees[0].budget.total <= (limit if limit is not None else 10_000)
    if limit is None:
        found = [Counter({leaf.text: leaf.multiplicity for leaf in tree.solutions()}) for tree in trees]
        assert found[0] == found[1]


SMALL = ("problems={train: 8, test: 3}", "evaluation.samples=4", "evaluation.pass_at=[1]")


@pytest.mark.parametrize("name", ["stream-of-search", "self-backtracking"])
def test_the_recipes_train_on_traces(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, SMALL)
    assert isinstance(recipe, Recipe)
    run_recipe(recipe, tmp_path, progress=Progress(Console(file=io.StringIO())))
    assert (tmp_path / "policy" / "model.safetensors").is_file()
    stores = [
        store for store in (tmp_path / "trees").glob("*.jsonl") if "evaluate" in store.name or "search" in store.name
    ]
    assert stores
    assert all(len(list(TreeStore(store))) == 3 for store in stores)
