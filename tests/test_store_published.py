"""Published data sets become the trees that they describe, and trees come back from every format that can hold them."""

from __future__ import annotations

import json
import math
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim import EndReason, GradatimError, Node, Problem, Step, Tree
from gradatim.part import make, names
from gradatim.store.published import (
    MathAps,
    MathShepherd,
    Prm800k,
    PublishedFormat,
    StepwiseSupervision,
    final_answer,
    read_published,
    write_published,
)
from gradatim.store.published.base import KIND
from gradatim.store.published.completions import CompletionFormat
from gradatim.supervision import StepLabels

GOLDEN = Path(__file__).parent / "golden" / "published"
FORMATS: dict[str, PublishedFormat] = {name: make(KIND, name) for name in names(KIND)}


def golden(name: str, **options: Any) -> list[Tree]:
    return list(read_published(GOLDEN / f"{name}.jsonl", **options))


def golden_rows(format: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / f"{format}.jsonl").read_text(encoding="utf-8").splitlines()]


def by_text(tree: Tree) -> dict[str, Node]:
    return {node.step.text: node for node in tree.nodes[1:]}


def written(trees: list[Tree], format: Any) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        count = write_published(trees, path, format)
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert count == len(rows)
    return rows


def write_rows(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("format", FORMATS)
def test_every_golden_file_is_told_by_its_first_row_and_has_labels(format: str) -> None:
    trees = golden(format)
    named = golden(format, format=format)
    assert [tree.to_json() for tree in trees] == [tree.to_json() for tree in named]
    matching = [name for name, layout in FORMATS.items() if any(map(layout.matches, golden_rows(format)))]
    assert matching == [format]
    labels = [label for tree in trees for label in StepLabels(value=FORMATS[format].score)(tree)]
    assert labels
    assert all(0 <= label.targets[0] <= 1 for label in labels)
    assert all(not node.step.tokens for tree in trees for node in tree.nodes)
    assert all(node.step.text.endswith("\n") for tree in trees for node in tree.nodes[:1])


def test_prm800k_proposals_are_siblings_and_the_chosen_one_goes_on() -> None:
    solved, wrong, given_up, empty = golden("prm800k")
    nodes = by_text(solved)
    first = solved.root.children
    assert [node.scores.get("label") for node in first] == [0.0, 1.0, 1.0, None]
    assert [node.scores.get("rating") for node in first] == [-1, 0, 1, None]
    assert [bool(node.children) for node in first] == [False, False, True, False]
    human = nodes["He eats 2, so 12 - 2 = 10.\n"]
    assert human.scores == {"label": 1.0}
    assert [child.reward for child in human.children] == [1.0, 0.0, None]
    assert [child.answer for child in human.children] == ["10", "14", None]
    assert [child.finished for child in human.children] == [True, True, False]
    assert solved.problem.answer == "10"
    assert solved.problem.data["question"] + "\n" == solved.problem.prompt
    assert [node.scores["label"] for node in wrong.nodes[1:]] == [1.0, 0.0, 1.0]
    assert all(node.open for node in wrong.nodes)
    assert wrong.metadata["prm800k"]["rows"][0]["question"]["pre_generated_answer"] == "7"
    assert len(given_up) == 2
    assert given_up.problem.answer is None
    assert len(empty) == 1


@pytest.mark.parametrize(("neutral", "label"), [("good", 1.0), ("bad", 0.0), ("drop", None)])
def test_prm800k_neutral_steps_are_what_the_caller_says(neutral: Any, label: float | None) -> None:
    node = by_text(golden("prm800k", format=Prm800k(neutral=neutral))[0])["Nuts are healthy.\n"]
    assert node.scores.get("label") == label
    assert node.scores["rating"] == 0


def test_math_shepherd_solutions_of_a_question_share_a_tree() -> None:
    first, second, stray, unnumbered, untagged_question, truncated = golden("math_shepherd")
    (shared,) = first.root.children
    assert shared.multiplicity == 2
    assert shared.scores == {"label": 0.5}  # judged "+" and "-"
    assert [child.reward for child in shared.children] == [1.0, 0.0]
    assert [child.answer for child in shared.children] == ["8", "2"]
    assert first.problem.data["task"] == "GSM8K"
    assert second.nodes[1].step.text == "Step 1: One and one.\nThat is easy.\n"
    assert stray.problem.data["question"] == "Find the mean  of 2 and 4."
    assert [node.scores["label"] for node in stray.nodes[1:]] == [1.0]
    assert unnumbered.problem.data["question"] == "How many legs has a dog?"
    assert [node.step.text for node in unnumbered.nodes[1:]] == ["Four, of course.\n", "The answer is: 4"]
    assert untagged_question.problem.data["question"] == "Simplify $2x+x$."
    assert [node.scores["label"] for node in untagged_question.nodes[1:]] == [1.0]
    assert truncated.nodes[-1].scores == {}
    assert truncated.nodes[-1].finished


def test_math_aps_rows_take_either_tag_and_soft_marks() -> None:
    (first,) = golden("math_aps")
    (second,) = read_published(GOLDEN / "math_aps_soft.jsonl")
    assert [node.scores for node in first.nodes[1:]] == [{"label": 1.0}, {"label": 0.0}, {"label": 1.0}]
    assert [node.finished for node in first.nodes[1:]] == [False, False, True]
    assert [node.scores for node in second.nodes[1:]] == [{"value": 1.0}, {"value": 0.25}]
    with pytest.raises(GradatimError, match=r"line 1 .* has no step tag \('ки'\)"):
        golden("math_aps", format=MathAps(tag="ки"))


def test_omegaprm_reads_its_three_layouts() -> None:
    nested, prefixes, states = golden("omegaprm")
    assert nested.root.scores == {"value": 0.5}
    assert [node.scores.get("value") for node in nested.nodes[1:]] == [0.75, 1.0, 0.0, 0.0, None]
    assert [node.depth for node in nested.nodes] == [0, 1, 2, 2, 1, 1]
    assert [(node.answer, node.reward) for node in nested.solutions()] == [("3", 1.0), ("4", 0.0)]
    assert nested.problem.answer == "3"
    assert prefixes.root.scores == {"value": 0.5}
    assert [node.scores["value"] for node in prefixes.nodes[1:]] == [0.75, 1.0]
    assert prefixes.nodes[2].text == "Take two\n\nto get 5, that is \\boxed{\\frac{10}{2}}"
    assert prefixes.nodes[2].answer == "\\frac{10}{2}"
    assert states.root.scores == {"value": 0.625}
    assert [(node.text, node.scores["value"]) for node in states.nodes[1:]] == [("One and", 0.9), ("One and two", 0.95)]
    assert not any(node.counts for tree in (nested, prefixes, states) for node in tree.nodes)


def test_omegaprm_folder_of_indented_files_and_one_array(tmp_path: Path) -> None:
    rows = golden_rows("omegaprm")
    for number, row in enumerate(rows):
        (tmp_path / f"question_{number + 9}.json").write_text(json.dumps(row, indent=4))
    (tmp_path / "array.txt").write_text(json.dumps(rows, indent=4))
    expected = [tree.to_json() for tree in golden("omegaprm")]
    assert [tree.to_json() for tree in read_published(tmp_path)] == expected
    assert [tree.to_json() for tree in read_published(tmp_path / "array.txt")] == expected
    (alone,) = read_published(tmp_path / "question_10.json")
    assert alone.to_json() == expected[1]


def test_stepwise_reads_both_kinds_of_labels() -> None:
    (hard,) = golden("stepwise")
    (soft,) = read_published(GOLDEN / "stepwise_soft.jsonl")
    assert [node.scores for node in hard.nodes[1:]] == [{"label": 1.0}, {"label": 1.0}, {"label": 0.0}]
    assert hard.solutions()[0].answer == "10"
    assert [node.scores for node in soft.nodes[1:]] == [{"value": 0.75}, {"value": 0.5}]
    assert soft.problem.prompt == "What is $8-1$?\n"


@pytest.mark.parametrize(
    ("prompt", "steps", "finished"),
    [
        ("p\n", ["a\n", "b"], True),  # the last step alone has no line end
        ("p", ["a\n", "b"], True),
        ("p\n", ["a\n", "b\n"], False),
        ("p\n", ["a", "b"], False),  # none has one: nothing is known
        ("p\n", ["b"], True),
        ("p", ["b"], False),
        ("p", ["b\n"], False),
    ],
)
def test_stepwise_steps_that_keep_their_boundaries_show_where_a_solution_ends(
    tmp_path: Path, prompt: str, steps: list[str], finished: bool
) -> None:
    row = {"prompt": prompt, "completions": steps, "labels": [True] * len(steps)}
    (tree,) = read_published(write_rows(tmp_path / "rows.jsonl", row))
    leaf = tree.nodes[-1]
    assert leaf.finished is finished
    assert leaf.reward == (1.0 if finished else None)
    assert leaf.step.text == ("b" if finished else "b\n")


@pytest.mark.parametrize(
    ("file", "rows"),
    [
        ("prm800k", [0, 1, 2, 3]),
        ("math_shepherd", [0, 1, 2, 6]),
        ("math_aps", [0, 1]),
        ("omegaprm", [0]),
        ("rlhflow", [0, 1]),
        ("stepwise_soft", [0]),
        ("preference", [0, 1, 2]),
        ("unpaired_preference", [0, 1, 2]),
        ("prompt_completion", [0, 1]),
    ],
)
@pytest.mark.parametrize("merge", [True, False])
def test_what_was_read_is_written_again_word_for_word(file: str, rows: list[int], merge: bool, tmp_path: Path) -> None:
    lines = (GOLDEN / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()
    source = write_rows(tmp_path / "rows.jsonl", *(lines[place] for place in rows))
    original = [json.loads(lines[place]) for place in rows]
    again = written(
        list(read_published(source, merge=merge)),
        file.removesuffix("_soft"),
    )
    assert sorted(again, key=json.dumps) == sorted(original, key=json.dumps)


def test_rows_stay_apart_without_merging_and_ids_stay_the_same() -> None:
    merged, apart = golden("math_shepherd"), golden("math_shepherd", merge=False)
    assert len(apart) == len(golden_rows("math_shepherd"))
    assert [tree.problem.id for tree in apart[:3]] == [
        merged[0].problem.id, merged[1].problem.id, f"{merged[0].problem.id}-2",
    ]  # fmt: skip
    assert len({tree.problem.id for tree in apart}) == len(apart)
    assert [tree.problem.id for tree in golden("math_shepherd", limit=2)] == [tree.problem.id for tree in merged[:2]]


def scored_by(name: str) -> Tree:
    tree = Tree(Problem("p", "Q?\n"))
    tree.add(tree.root, Step((), "a\n")).scores[name] = 1.0
    return tree


ANSWERS = st.integers(0, 9)


@st.composite
def labelled_trees(draw: st.DrawFn, *, whole: bool, score: str = "label") -> Tree:
    """A tree of numbered text steps. If it is ``whole``, all steps are labelled and all leaves are finished."""
    question = f"What is {draw(st.text('ab 1é', max_size=6)).strip()}?"
    tree = Tree(Problem("p", question + "\n", draw(st.none() | st.just("7")), {"question": question}))
    for number in range(draw(st.integers(1, 8))):
        parent = draw(st.sampled_from([node for node in tree.nodes if node.open]))
        words = draw(st.text("xyé\n", max_size=4)).strip()
        text = f"Step {parent.depth + 1}: {words}{number}"
        if draw(st.booleans()):
            text += f".\n\n# Answer\n\n{draw(ANSWERS)}"
            tree.add(parent, Step((), text, end=EndReason.END_OF_TEXT))
        else:
            tree.add(parent, Step((), text + "\n"))
    for node in [node for node in tree.nodes if whole and node.is_leaf and node.open and not node.is_root]:
        text = f"Step {node.depth + 1}: done.\n\n# Answer\n\n{draw(ANSWERS)}"
        tree.add(node, Step((), text, end=EndReason.END_OF_TEXT))
    for node in tree.nodes[1:]:
        if whole or draw(st.integers(0, 4)):
            node.scores[score] = float(draw(st.integers(0, 1)))
        if node.finished:
            node.reward, node.answer = node.scores.get(score), final_answer(node.step.text)
    return tree


def outline(tree: Tree, score: str, *, labelled_only: bool) -> list[Any]:
    """What a tree says, whatever the order of its steps."""
    nodes = [node for node in tree.nodes[1:] if not labelled_only or all(score in n.scores for n in node.path()[1:])]
    return [
        tree.problem.prompt,
        sorted(
            (node.text, node.step.end.value, node.scores.get(score), node.reward, node.answer)
            if score in node.scores
            else (node.text, node.step.end.value)
            for node in nodes
        ),
    ]


def read_again(trees: list[Tree], format: Any) -> list[Tree]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_published(trees, path, format)
        return list(read_published(path))


@pytest.mark.parametrize("format", [name for name in FORMATS if not isinstance(FORMATS[name], CompletionFormat)])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_whole_trees_come_back_from_every_format(format: str, data: st.DataObject) -> None:
    score = FORMATS[format].score
    tree = data.draw(labelled_trees(whole=True, score=score))
    (again,) = read_again([tree], format)
    assert outline(again, score, labelled_only=False) == outline(tree, score, labelled_only=False)


@pytest.mark.parametrize("format", ["prm800k", "math_aps", "omegaprm", "stepwise"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_labelled_steps_come_back(format: str, data: st.DataObject) -> None:
    score = FORMATS[format].score
    tree = data.draw(labelled_trees(whole=False, score=score))
    only_paths = format in {"math_aps", "stepwise"}
    if not outline(tree, score, labelled_only=True)[1]:
        return
    (again,) = read_again([tree], format)
    assert outline(again, score, labelled_only=only_paths) == outline(tree, score, labelled_only=only_paths)


def test_reading_back_needs_no_more_than_one_tree_of_a_question() -> None:
    trees = golden("rlhflow")
    again = read_again(trees, "math_shepherd")
    for tree, other in zip(trees, again, strict=True):
        assert tree.problem.id == other.problem.id
        assert len(tree) == len(other)


def test_soft_values_become_hard_labels_above_the_threshold() -> None:
    tree = golden("omegaprm")[0]
    for threshold, mark in ((0.5, "+"), (0.8, "-")):
        rows = written([tree], MathAps(value="value", threshold=threshold))
        assert [row["label"] for row in rows] == [[mark, "+"], [mark, "-"], ["-"]]
    hard, *_ = written([tree], StepwiseSupervision(value="value"))
    soft, *_ = written([tree], StepwiseSupervision(soft=True, value="value"))
    assert (hard["labels"], soft["labels"]) == ([True, True], [0.75, 1.0])


def test_a_question_that_no_step_number_ends_is_written_apart_too() -> None:
    row, *_ = written(golden("stepwise")[:1], "math_shepherd")
    assert row["input"] == ("What is $5+5$? Add five and five. ки\nIt is 10. The answer is: 10 ки")
    assert row["label"].endswith("The answer is: 10 +")
    assert row["question"] == "What is $5+5$?"


def test_prm800k_of_a_tree_that_was_read_from_nowhere() -> None:
    tree = golden("math_aps")[0]
    (row,) = written([tree], "prm800k")
    first, last = row["label"]["steps"]
    assert first == {
        "completions": [{"text": "Three threes.", "rating": 1, "flagged": False}],
        "human_completion": None,
        "chosen_completion": 0,
    }
    assert [each["rating"] for each in last["completions"]] == [-1, 1]
    assert last["chosen_completion"] == 1
    assert row["label"]["finish_reason"] == "solution"
    assert row["labeler"] is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So it is.\n\n# Answer\n\n\\frac{1}{2}", "\\frac{1}{2}"),
        ("# Answer\n\n5\n", "5"),
        ("That makes 5.\n#### 5", "5"),
        ("The answer is: 3,000", "3,000"),
        ("Thus the final answer is 7", "7"),
        ("Hence \\boxed{\\frac{1}{x^{2}}} is right.", "\\frac{1}{x^{2}}"),
        ("The answer is $\\boxed{4}$.", "4"),
        ("cut off in \\boxed{1", None),
        ("The answer is: 5, or so.\nBut let me check.", None),
        ("I will answer soon", None),
        ("", None),
    ],
)
def test_final_answers(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


PRM_STEP = {"completions": [{"text": "a", "rating": 1, "flagged": None}], "chosen_completion": 0}
MALFORMED: list[tuple[str, Any, str]] = [
    ("prm800k", "{torn", "is not valid JSON"),
    ("prm800k", "[]", "is not a JSON object"),
    ("prm800k", {"question": {}, "label": {"steps": []}}, "has no text in the field 'problem'"),
    ("prm800k", {"question": {"problem": "p"}, "label": {}}, "has no list in the field 'steps'"),
    ("prm800k", {"question": {"problem": "p"}, "label": {"steps": [3]}}, "has a step 1 that is not an object"),
    (
        "prm800k",
        {"question": {"problem": "p"}, "label": {"steps": [PRM_STEP, PRM_STEP | {"chosen_completion": 1}]}},
        "chooses completion 1 of the 1 of step 2",
    ),
    (
        "prm800k",
        {"question": {"problem": "p"}, "label": {"steps": [PRM_STEP | {"completions": 3}]}},
        "has completions of step 1 that are not a list",
    ),
    (
        "prm800k",
        {"question": {"problem": "p"}, "label": {"steps": [{"completions": [{"text": "a", "rating": 2}]}]}},
        "has the rating 2 in step 1",
    ),
    ("math_shepherd", {"input": "Q? Step 1: a", "label": "Q? Step 1: a"}, "has no step tag 'ки' in its input"),
    ("math_shepherd", {"input": "Q? Step 1: a ки b ки", "label": "Q? Step 1: a +"}, "2 step tags .* only 1 labels"),
    ("math_shepherd", {"input": "Q? Step 1: a ки", "label": "Q? Step 1: a x"}, "has the label 'x'"),
    (
        "math_shepherd",
        {"input": "Q? 1 step ки", "label": "Q? 1 more +"},
        "not its input with a mark in place of each tag",
    ),
    ("math_shepherd", {"input": "Q? a ки", "label": "Q? a + b -"}, "not its input with a mark in place of each tag"),
    ("math_shepherd", {"input": "Q? 1+1 is ки", "label": "2"}, "has 1 step tags in its input but only 0 labels"),
    ("math_shepherd", {"input": "Q ки", "label": "Q +"}, "has a question but no steps"),
    ("math_shepherd", {"input": "Q? a ки", "task": "MATH"}, "has no text in the field 'label'"),
    ("math_aps", {"question": "Q", "process": "a", "label": []}, "has no step tag"),
    ("math_aps", {"question": "Q", "process": "a ки b ки", "label": ["+"]}, "has 2 steps but 1 labels"),
    ("math_aps", {"question": "Q", "process": "a ки b", "label": ["+"]}, "has text after its last step tag"),
    ("math_aps", {"question": "Q", "process": "a ки", "label": [2]}, "has the label 2, which is not between 0 and 1"),
    ("omegaprm", {"question": "Q", "reasoning_steps": {"children": [{"mc_value": 1}]}}, "no text in the field 'text'"),
    ("omegaprm", {"question": "Q", "reasoning_steps": {"children": 3}}, "children are not a list"),
    (
        "omegaprm",
        {"question": "Q", "reasoning_steps": [{"solution_prefix": "R", "mc_value": 1.0}]},
        "does not begin with the question",
    ),
    ("omegaprm", {"q": "Q", "states": [{"state": "a", "mcs": 1.5}]}, "has the mcs 1.5"),
    ("omegaprm", {"q": "Q", "states": [{"state": "a", "mcs": float("nan")}]}, "has the mcs nan"),
    ("omegaprm", {"q": "Q", "states": [{"state": "a", "mcs": 10**400}]}, "has the mcs 1000"),
    ("stepwise", {"prompt": "p", "completions": ["a", "b"], "labels": [True]}, "has 2 completions but 1 labels"),
    ("stepwise", {"prompt": "p", "completions": [], "labels": []}, "has no completions"),
    ("stepwise", {"prompt": "p", "completions": [1], "labels": [True]}, "has a completion that is not text"),
    ("stepwise", {"prompt": "p", "completions": ["a"], "labels": [None]}, "has the label None"),
    ("stepwise", {"completions": ["a"], "labels": [True]}, "has no text in the field 'prompt'"),
    (
        "rlhflow",
        {"conversations": [{"role": "user", "content": "Q? a"}, {"role": "user", "content": "b"}]},
        "has 2 steps and 0 labels that do not take turns",
    ),
    (
        "rlhflow",
        {"conversations": [{"role": "user", "content": "Q a"}, {"role": "assistant", "content": "+"}]},
        "does not show where the question ends",
    ),
    ("rlhflow", {"conversations": [{"role": "user"}]}, "has a turn of the conversation without text"),
    ("preference", {"prompt": "p", "chosen": "a", "rejected": "a"}, "prefers a completion to itself"),
    ("preference", {"prompt": "p", "chosen": "a", "rejected": ""}, "has no text in the field 'rejected'"),
    ("preference", {"chosen": "a", "rejected": "b"}, "has no text in the field 'prompt'"),
    ("preference", {"prompt": "p", "chosen": 3, "rejected": "b"}, "has no text in the field 'chosen'"),
    (
        "preference",
        {"prompt": [{"role": "user", "content": "p"}] * 2, "chosen": "a", "rejected": "b"},
        "has a conversation in the field 'prompt' that is no single question and answer",
    ),
    ("unpaired_preference", {"prompt": "p", "completion": "a", "label": "+"}, "has the label '\\+', which is not"),
    ("prompt_completion", {"prompt": "p", "completion": None}, "has no text in the field 'completion'"),
]


def with_score(format: str, value: float) -> list[Any]:
    """Rows of a format, one for each place where it has a score, with this value there."""
    nested = {"text": "Q", "children": [{"text": "a", "mc_value": value}]}
    return {
        "prm800k": [
            {"question": {"problem": "p"}, "label": {"steps": [PRM_STEP | {"completions": [completion]}]}}
            for completion in [{"text": "a", "rating": value}]
        ],
        "math_shepherd": [{"input": "Q? Step 1: a ки", "label": f"Q? Step 1: a {value}"}],
        "math_aps": [{"question": "Q", "process": "a ки b ки", "label": [0.5, value]}],
        "omegaprm": [
            {"question": "Q", "reasoning_steps": nested},
            {"question": "Q", "reasoning_steps": {"text": "Q", "mc_value": value, "children": [{"text": "a"}]}},
            {"question": "Q", "reasoning_steps": [{"solution_prefix": "Q\n\na", "mc_value": value}]},
            {"q": "Q", "states": [{"state": "a", "mcs": value}]},
        ],
        "stepwise": [{"prompt": "p", "completions": ["a", "b"], "labels": [0.5, value]}],
        "rlhflow": [
            {
                "conversations": [
                    {"role": "user", "content": "Q? Step 1: a"},
                    {"role": "assistant", "content": str(value)},
                ]
            }
        ],
        "unpaired_preference": [{"prompt": "p", "completion": "a", "label": value}],
    }.get(format, [])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("format", FORMATS)
def test_scores_that_are_no_numbers_are_refused_where_their_row_is_read(
    format: str, value: float, tmp_path: Path
) -> None:
    good, *_ = golden_rows(format)
    for row in with_score(format, value):
        path = write_rows(tmp_path / "rows.jsonl", good, row)
        with pytest.raises(GradatimError, match=r"^line 2 of '.*rows\.jsonl' has .*(nan|inf|label).*; mend it"):
            list(read_published(path, format))
        with pytest.warns(UserWarning, match=r"^line 2 of .*; it is skipped$"):
            (tree,) = read_published(path, format, malformed="skip")
        assert Tree.from_json(tree.to_json()).to_json() == tree.to_json()


@pytest.mark.parametrize(("format", "row", "message"), MALFORMED)
def test_malformed_rows_are_refused_by_their_line_or_skipped(
    format: str, row: Any, message: str, tmp_path: Path
) -> None:
    good, *_ = golden_rows(format)
    path = write_rows(tmp_path / "rows.jsonl", good, "", row, good)
    with pytest.raises(GradatimError, match=rf"^line 3 of '.*rows\.jsonl' .*{message}.*; mend it"):
        list(read_published(path))
    with pytest.warns(UserWarning, match=rf"^line 3 of .*{message}.*; it is skipped$") as caught:
        trees = list(read_published(path, malformed="skip"))
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = list(read_published(write_rows(tmp_path / "good.jsonl", good, good)))
    assert [tree.to_json() for tree in trees] == [tree.to_json() for tree in alone]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", {}, "has no rows"),
        ("\n\n", {}, "has no rows"),
        ("no json\n", {}, "line 1 of .* is not valid JSON .*, so the format cannot be told"),
        ('{"a": 1, "b": 2}\n', {}, r"has the fields \['a', 'b'\], which are of no known format"),
        ("[1,", {}, "is not one whole JSON array"),
        ("{}\n", {"format": "prm900k"}, "there is no published format 'prm900k'; did you mean 'prm800k'"),
        ("{}\n", {"malformed": "ignore"}, "malformed must be"),
        ("{}\n", {"limit": 0}, "the limit must be 1 tree or more"),
    ],
)
def test_sources_that_cannot_be_read_are_refused_at_once(
    content: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(GradatimError, match=message):
        read_published(path, **options)


def test_the_format_is_told_by_the_first_row_that_is_not_skipped(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", "{torn", *golden_rows("stepwise"))
    with pytest.warns(UserWarning, match="line 1 of .* is not valid JSON .*; it is skipped"):
        assert [tree.to_json() for tree in read_published(path, malformed="skip")] == [
            tree.to_json() for tree in golden("stepwise")
        ]


def test_prm800k_goes_on_from_what_a_person_wrote_where_nothing_was_chosen(tmp_path: Path) -> None:
    human = {"completions": [], "human_completion": {"text": "by hand", "rating": None}, "chosen_completion": None}
    wrong = {"completions": [{"text": "astray", "rating": -1}], "human_completion": None, "chosen_completion": None}
    row = {"question": {"problem": "p"}, "label": {"steps": [human, wrong], "finish_reason": "found_error"}}
    (tree,) = read_published(write_rows(tmp_path / "rows.jsonl", row))
    assert [(node.depth, node.step.text, node.scores["label"]) for node in tree.nodes[1:]] == [
        (1, "by hand\n", 1.0), (2, "astray\n", 0.0),
    ]  # fmt: skip
    assert not tree.solutions()


def test_missing_files_and_folders_without_rows(tmp_path: Path) -> None:
    with pytest.raises(GradatimError, match=r"there is no file or folder .*nowhere\.jsonl"):
        read_published(tmp_path / "nowhere.jsonl")
    with pytest.raises(GradatimError, match=r"has no \.json files"):
        read_published(tmp_path)


@pytest.mark.filterwarnings("ignore:line")
def test_nothing_but_malformed_rows_is_an_error(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", {"prompt": "p", "completions": [], "labels": []})
    for merge in (True, False):
        with pytest.raises(GradatimError, match="every row is malformed as stepwise"):
            list(read_published(path, malformed="skip", merge=merge))


def test_hub_data_sets_are_read_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    rows = golden_rows("stepwise")[:2]
    asked = []

    def load_dataset(name: str, config: None, *, split: str) -> Any:
        asked.append((name, split))
        if name == "nobody/nothing":
            raise datasets.exceptions.DatasetNotFoundError("it does not exist\nsecond line")
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    (tree,) = read_published("trl-lib/prm800k", split="test")
    assert tree.to_json() == golden("stepwise")[0].to_json()
    assert asked == [("trl-lib/prm800k", "test")]
    with pytest.raises(
        GradatimError,
        match=r"cannot load the train split of 'nobody/nothing': there is no such file or folder, and the hub",
    ):
        read_published("nobody/nothing")


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("old")
    tree = golden("math_aps")[0]
    with pytest.raises(GradatimError, match="no step has the score 'value'; choose from label"):
        write_published([tree], path, {"omegaprm": {"value": "value"}})
    with pytest.raises(GradatimError, match="no step has the score 'value'; choose from length"):
        write_published([scored_by("length")], path, "omegaprm")
    with pytest.raises(GradatimError, match="these trees were not scored"):
        write_published([], path, "omegaprm")
    with pytest.raises(GradatimError, match="has the tag 'threes' in its text"):
        write_published([tree], path, MathShepherd(tag="threes"))
    with pytest.raises(GradatimError, match="has the tag 'threes' in a step"):
        write_published([tree], path, MathAps(tag="threes"))
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["rows.jsonl"]


def test_any_text_survives(tmp_path: Path) -> None:
    tree = Tree(Problem("p", "\ud800 what\u2028?\n"))
    tree.add(tree.root, Step((), "\u0085 step\n")).scores["label"] = 1.0
    write_published([tree], tmp_path / "rows.jsonl", "stepwise")
    (again,) = read_published(tmp_path / "rows.jsonl")
    assert (again.problem.prompt, again.nodes[1].step.text) == (tree.problem.prompt, "\u0085 step\n")
