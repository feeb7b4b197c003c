"""Published rows: where a question ends, what a label means, which step goes on; and every row comes back."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim import EndReason, GradatimError, Problem, Step, Tree
from gradatim.part import names
from gradatim.store.published import MathShepherd, StepwiseSupervision, read_published, write_published
from gradatim.store.published.base import KIND
from gradatim.store.published.question_end import FirstTurns


def read(rows: Sequence[Any], **options: Any) -> list[Tree]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return list(read_published(path, **options))


def read_again(trees: Sequence[Tree], format: Any, *, merge: bool = True) -> list[Tree]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_published(trees, path, format)
        return list(read_published(path, merge=merge))


def questions(rows: Sequence[Any], **options: Any) -> list[str]:
    return [tree.problem.data["question"] for tree in read(rows, **options)]


def flow(first: str, *others: str, **fields: Any) -> dict[str, Any]:
    turns = [[{"role": "user", "content": text}, {"role": "assistant", "content": "+"}] for text in (first, *others)]
    return {"conversations": [turn for pair in turns for turn in pair], **fields}


def shepherd(text: str) -> dict[str, Any]:
    return {"input": text, "label": text.replace("ки", "+"), "task": "MATH"}


FIND = "Find the value of $x$ for which $2x = 4$."
PENS = "Tom has 2 pens and buys 1. How many has he?"
DRAWING = '[asy]\ndraw((0,0)--(1,1));\nlabel("A", (0,0));\n[/asy]'


@pytest.mark.parametrize(
    ("question", "steps"),
    [
        (FIND, ["We divide both sides by two.", "We take two from both sides. So."]),
        (PENS, ["What do we know? He has 2.", "He has 2."]),
        (PENS, ["What do we know? He has 2.", "What do we know? He buys 1."]),  # both begin with the same sentence
        (PENS, ["He has 2.", "He has 2. He buys 1.", "He buys 1."]),  # one first step begins another
        ("Simplify $2x+x$. Express your answer as a monomial.", ["Add $2x$. Then $x$.", "First, we add."]),
        ("Compute $1+1$", ["We add.", "The sum is 2."]),
        (f"What is the length of the line? {DRAWING}", ["The line has a length.", "Look at the line."]),
    ],
)
def test_a_question_ends_where_the_rows_that_begin_alike_part(question: str, steps: list[str]) -> None:
    assert questions([flow(f"{question} {step}", "End.") for step in steps]) == [question]
    assert questions([shepherd(f"{question} {step} ки\nEnd. ки") for step in steps]) == [question]


def test_questions_that_begin_alike_stay_apart() -> None:
    asked = ["A box has 3 pens. How many are blue?", "A box has 3 pens. How many are red?"]
    rows = [flow(f"{question} {step}") for question in asked for step in ("All of them.", "None of them.")]
    assert questions(rows) == asked


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("How much is $9-1$? One less than nine.", "How much is $9-1$?"),
        ("Find $x$. We add. Then we stop.", "Find $x$."),
        ("Find $x$. The answer is $2$. It is even.", "Find $x$."),
        ("If $x = 2$, find $y$. Give your answer as a decimal. Since $x = 2$, it is 3.", None),
        ("Tom has 2 pens. How many has he? What do we know? He has 2.", "Tom has 2 pens. How many has he?"),
        ("A recipe says Step 1: break 2 eggs. How many eggs? Step 1: Two. So.", None),
        ("How many eggs? Step 1: The recipe's Step 1: says two.", "How many eggs?"),
    ],
)
def test_a_row_alone_is_divided_behind_its_request(text: str, question: str | None) -> None:
    expected = question or text[: text.index(" Since") if "Since" in text else text.rindex(" Step 1:")]
    assert questions([flow(text, "End.")]) == [expected]
    assert questions([shepherd(f"{text} ки\nStep 2: End. ки")]) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "The box holds 3 pens. They are blue. So all are.",  # nothing is asked
        "How many has he? What is known? He has 2.",  # the second question may be a solver's
        "Solve $2x=4$. Subtract 2 from both sides. So.",  # the second order may be a solver's
        "Step 1: open it. What follows? Step 1: this? Step 1: that.",
    ],
)
def test_a_row_that_can_be_divided_in_several_ways_is_refused_and_never_guessed(text: str) -> None:
    good = flow("Q? Step 1: a")
    for row, other in ((flow(text), good), (shepherd(f"{text} ки"), shepherd("Q? Step 1: a ки"))):
        with pytest.raises(GradatimError, match=r"line 2 .* (question ends?|end its question|'Step 1:' 3 times).*"):
            read([other, row])
        with pytest.warns(UserWarning, match="it is skipped"):
            assert questions([other, row], malformed="skip") == ["Q?"]
        told = "The box" if text.startswith("The box") else text.split()[0]
        assert questions([row | {"question": told}]) == [told]  # who knows the question can say it


def test_the_field_with_the_question_must_be_what_the_text_begins_with() -> None:
    with pytest.raises(GradatimError, match="does not begin with its question"):
        read([flow("How many? Two.", question="How much?")])
    assert FirstTurns().divide("How many? Two.", "How many?") == ("How many?", "Two.")


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ('Q? Step 1: It reads "две чашки". ки\nStep 2: 2 ки', ['Step 1: It reads "две чашки".\n', "Step 2: 2"]),
        ("Q? Step 1: кипяток. ки", ["Step 1: кипяток."]),
        ("Q? Step 1: xки\nStep 2: y киz ки", ["Step 1: x\n", "Step 2: y\n", "z"]),
        ("Q? Step 1: 1+1 = 2ки\nStep 2: 2ки", ["Step 1: 1+1 = 2\n", "Step 2: 2"]),
    ],
)
def test_the_tag_within_a_word_is_text(text: str, steps: list[str]) -> None:
    import re

    row = {"input": text, "label": re.sub(r"(?<![а-я])ки(?![а-я])", "+", text)}
    (tree,) = read([row])
    assert [node.step.text for node in tree.nodes[1:]] == steps
    parts = text.removeprefix("Q? ")
    (tree,) = read([{"question": "Q?", "process": parts, "label": ["+"] * len(steps)}])
    assert [node.step.text.strip() for node in tree.nodes[1:]] == [step.strip() for step in steps]


def test_a_tag_that_the_label_keeps_is_text() -> None:
    row = {"input": "Q? Step 1: the tag ки here. ки", "label": "Q? Step 1: the tag ки here. -"}
    (tree,) = read([row])
    assert [(node.step.text, node.reward) for node in tree.nodes[1:]] == [("Step 1: the tag ки here.", 0.0)]
    (tree,) = read([{"input": "Q? Step 1: a<s> b. <s>", "label": "Q? Step 1: a+ b. -"}], format=MathShepherd(tag="<s>"))
    assert [node.scores["label"] for node in tree.nodes[1:]] == [1.0, 0.0]


def test_a_step_number_in_a_later_step_does_not_swallow_the_steps_before_it() -> None:
    (tree,) = read([shepherd("How many? He has 2. ки\nBy Step 1: 3. ки\nSo 3. ки")])
    assert [node.step.text for node in tree.nodes[1:]] == ["He has 2.\n", "By Step 1: 3.\n", "So 3."]


@pytest.mark.parametrize("labels", [[[0.5, 1], [1, 1], [0, 0]], [[1, 1], [True, False], [0, 0.5]], [[1], [0], [1.0]]])
def test_labels_of_a_source_with_a_fraction_are_values_in_every_row(labels: list[list[Any]]) -> None:
    rows = [
        {"prompt": f"Q{place}", "completions": [f"s{step}" for step in range(len(row))], "labels": row}
        for place, row in enumerate(labels)
    ]
    steps = [node for tree in read(rows) for node in tree.nodes[1:]]
    assert [node.scores for node in steps] == [{"value": float(label)} for row in labels for label in row]
    marked = [
        {
            "question": row["prompt"],
            "process": "".join(f"{step} ки" for step in row["completions"]),
            "label": row["labels"],
        }
        for row in rows
    ]
    assert [node.scores for tree in read(marked) for node in tree.nodes[1:]] == [node.scores for node in steps]
    hard = [node.scores for tree in read(rows, format=StepwiseSupervision(soft=False)) for node in tree.nodes[1:]]
    assert hard == [{"label": float(label)} for row in labels for label in row]


def test_whole_numbers_and_truth_values_are_hard_labels() -> None:
    rows = [{"prompt": "Q", "completions": ["a", "b"], "labels": labels} for labels in ([1, 0], [True, True])]
    (tree,) = read(rows)
    assert [node.scores for node in tree.nodes[1:]] == [{"label": 1.0}, {"label": 0.5}]


def rated(*texts: str, chosen: int | None = None, human: str | None = None) -> dict[str, Any]:
    return {
        "completions": [{"text": text, "rating": 1, "flagged": None} for text in texts],
        "human_completion": None if human is None else {"text": human, "rating": None},
        "chosen_completion": chosen,
    }


def prm800k(*steps: Any, **question: Any) -> dict[str, Any]:
    return {"question": {"problem": "Q?", **question}, "label": {"steps": list(steps), "finish_reason": "give_up"}}


def test_prm800k_goes_on_where_nothing_is_chosen_if_it_can_be_told() -> None:
    (tree,) = read([prm800k(rated("a"), rated("b"), rated("c", "d"))])
    assert [(node.depth, node.step.text) for node in tree.nodes[1:]] == [(1, "a\n"), (2, "b\n"), (3, "c\n"), (3, "d\n")]
    (tree,) = read([prm800k(rated("a", "b"), rated("c"), pre_generated_steps=["b", "c"])])
    assert tree.nodes[3].text == "b\nc\n"
    for steps, message in (
        ([rated("a", "b"), rated("c")], "goes on after step 1, where none of 2 completions is chosen"),
        ([rated("a"), rated(), rated("c")], "goes on after step 2, where none of 0 completions is chosen"),
    ):
        with pytest.raises(GradatimError, match=message):
            read([prm800k(*steps)])


def test_equal_prefixes_of_omegaprm_have_the_mean_of_their_values() -> None:
    states = [
        {"solution_prefix": f"Q? {text}", "mc_value": value} for text, value in (("a", 1.0), ("a", 0.5), ("b", None))
    ]
    (tree,) = read([{"question": "Q?", "reasoning_steps": states}])
    assert [(node.text, node.scores) for node in tree.nodes[1:]] == [("a", {"value": 0.75}), ("b", {})]


WORDS = st.text("xyé\n 2$", max_size=5)
SHARES = st.sampled_from([0.0, 0.25, 1.0])
OTHER = st.fixed_dictionaries({}, optional={"question_id": st.integers(0, 3), "source": st.none() | st.just("ours")})
ENDINGS = st.sampled_from(["", " The answer is: 7", "\n\n# Answer\n\n8"])
QUESTIONS = st.sampled_from(["What is $1+1$?", "Find $x$. Give your answer as a decimal.", "A box has 2 pens. It is"])


@st.composite
def texts(draw: st.DrawFn) -> list[str]:
    marks = draw(st.booleans())
    found = [f"{draw(st.sampled_from('ab'))}{draw(WORDS)}".strip() for _ in range(draw(st.integers(1, 3)))]
    found[-1] += draw(ENDINGS)
    return [f"Step {number}: {text}" if marks else text for number, text in enumerate(found, 1)]


@st.composite
def prm800k_rows(draw: st.DrawFn) -> dict[str, Any]:
    proposal = st.fixed_dictionaries(
        {"text": st.sampled_from(["a", "b", "c\n\n# Answer\n\n4"]), "rating": st.sampled_from([-1, 0, 1, None])},
        optional={"flagged": st.none() | st.booleans(), "source": st.just("s")},
    )
    steps = []
    for _ in range(draw(st.integers(0, 3))):
        completions = draw(st.lists(proposal, max_size=3))
        human = draw(st.none() | proposal)
        chosen = draw(st.none() | st.integers(0, len(completions) - 1)) if completions else None
        steps.append({"completions": completions or None, "human_completion": human, "chosen_completion": chosen})
    label = {"steps": steps, "finish_reason": draw(st.sampled_from(["solution", "give_up", None])), "total_time": 3}
    question = {"problem": draw(QUESTIONS), "ground_truth_answer": draw(st.none() | st.just("4")), "unique_id": "u"}
    return {"labeler": "l", "question": question, "label": label, **draw(OTHER)}


@st.composite
def shepherd_rows(draw: st.DrawFn) -> dict[str, Any]:
    steps = draw(texts())
    marks = [draw(st.sampled_from("+-")) for _ in steps]
    rest = draw(st.sampled_from(["", "\nand so on"]))
    question = draw(QUESTIONS)
    row: dict[str, Any] = {
        "input": f"{question} " + "\n".join(f"{step} ки" for step in steps) + rest,
        "label": f"{question} " + "\n".join(f"{step} {mark}" for step, mark in zip(steps, marks, strict=True)) + rest,
    }
    return {**row, **draw(st.sampled_from([{}, {"task": "MATH"}, {"task": "GSM8K"}])), **draw(OTHER)}


@st.composite
def math_aps_rows(draw: st.DrawFn) -> dict[str, Any]:
    mark = draw(st.sampled_from([SHARES, st.sampled_from("+-"), st.integers(0, 1)]))
    steps = draw(texts())
    marks = [draw(mark) for _ in steps]
    tag = draw(st.sampled_from([" ки ", "\n\n\n\n\n"]))
    return {
        "question": draw(QUESTIONS),
        "process": "".join(step + tag for step in steps),
        "label": marks,
        **draw(OTHER),
    }


@st.composite
def omegaprm_rows(draw: st.DrawFn) -> dict[str, Any]:
    question, values = draw(QUESTIONS), st.none() | SHARES
    prefixes = st.lists(
        st.tuples(st.sampled_from(["", "a", "a b", "a b\n\nc \\boxed{4}"]), values), min_size=1, max_size=5
    )
    layout = draw(st.sampled_from(["nested", "prefixes", "states"]))
    if layout == "states":
        states = [{"state": text, "mcs": value, "rollout": "r"} for text, value in draw(prefixes)]
        return {"q": question, "states": states, **draw(OTHER)}
    row = {"question": question, "final_answer": draw(st.none() | st.just("4")), **draw(OTHER)}
    if layout == "prefixes":
        found = [{"solution_prefix": f"{question} {text}", "mc_value": value} for text, value in draw(prefixes)]
        return {**row, "reasoning_steps": found}

    def step(depth: int) -> dict[str, Any]:
        children = [step(depth - 1) for _ in range(draw(st.integers(0, 2)))] if depth else []
        text = draw(st.sampled_from(["a", "b\n", "", "c \\boxed{4}"]))
        return {"text": text, "mc_value": draw(values), "children": children}

    return {**row, "reasoning_steps": step(3)}


@st.composite
def stepwise_rows(draw: st.DrawFn) -> dict[str, Any]:
    mark = draw(st.sampled_from([SHARES, st.booleans(), st.integers(0, 1)]))
    end = draw(st.sampled_from(["", "\n", "\n\n"]))
    steps = [f"{text}{end}" for text in draw(texts())]
    if draw(st.booleans()):
        steps[-1] = steps[-1].rstrip()
    prompt = draw(QUESTIONS) + draw(st.sampled_from(["", "\n"]))
    return {"prompt": prompt, "completions": steps, "labels": [draw(mark) for _ in steps], **draw(OTHER)}


@st.composite
def rlhflow_rows(draw: st.DrawFn) -> dict[str, Any]:
    steps = draw(texts())
    row = flow(f"{draw(QUESTIONS)} {steps[0]}", *steps[1:])
    for turn in row["conversations"][1::2]:
        turn["content"] = draw(st.sampled_from("+-"))
    return {**row, **draw(OTHER)}


@st.composite
def completion_rows(draw: st.DrawFn, *columns: str) -> dict[str, Any]:
    """Texts with and without line ends, or a conversation of one question."""
    ends = st.sampled_from(["", "\n", "\n\n"])
    prompt = draw(QUESTIONS) + draw(ends)
    row = {name: draw(st.sampled_from("abc")) + draw(WORDS) + draw(ends) for name in columns}
    row |= {"label": draw(st.booleans())} if columns == ("completion",) and draw(st.booleans()) else {}
    if draw(st.booleans()):
        return {"prompt": prompt, **row, **draw(OTHER)}
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": prompt}]
    asked = draw(st.booleans())
    said = {name: [*(turns if asked else []), {"role": "assistant", "content": row[name]}] for name in columns}
    return {**row, **said, **({} if asked else {"prompt": turns}), **draw(OTHER)}


ROWS = {
    "preference": completion_rows("chosen", "rejected"),
    "unpaired_preference": completion_rows("completion").map(lambda row: {"label": True, **row}),
    "prompt_completion": completion_rows("completion").map(
        lambda row: {key: value for key, value in row.items() if key != "label"}
    ),
    "prm800k": prm800k_rows(),
    "math_shepherd": shepherd_rows(),
    "math_aps": math_aps_rows(),
    "omegaprm": omegaprm_rows(),
    "stepwise": stepwise_rows(),
    "rlhflow": rlhflow_rows(),
}


@pytest.mark.parametrize("format", names(KIND))
@settings(max_examples=35, deadline=None)
@given(data=st.data(), merge=st.booleans())
def test_imported_trees_come_back_the_same_from_their_export(format: str, data: st.DataObject, merge: bool) -> None:
    rows = data.draw(st.lists(ROWS[format], min_size=1, max_size=5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            trees = read(rows, merge=merge, malformed="skip")
        except GradatimError:
            return  # every row is malformed
    if not any(node.scores for tree in trees for node in tree.nodes[1:]):
        return  # nothing is labelled, and an export says so
    again = read_again(trees, format, merge=merge)
    assert [tree.to_json() for tree in again] == [tree.to_json() for tree in trees]


def test_a_tree_whose_labels_were_changed_is_written_by_its_labels() -> None:
    (tree,) = read([{"prompt": "Q", "completions": ["a", "b"], "labels": [1, 0]}] * 2)
    assert [node.multiplicity for node in tree.nodes[1:]] == [2, 2]
    tree.nodes[2].scores["label"] = 1.0
    (again,) = read_again([tree], "stepwise")
    assert [(node.scores, node.multiplicity) for node in again.nodes[1:]] == [({"label": 1.0}, 1)] * 2
    (rows,) = [read([prm800k(rated("a"))])]
    rows[0].add(rows[0].root, Step((), "another\n")).scores["label"] = 0.0
    assert len(read_again(rows, "prm800k")[0]) == 3


def test_disagreeing_rows_are_written_as_they_disagreed_in_any_format_of_solutions() -> None:
    (tree,) = read([{"prompt": "Q?", "completions": ["a"], "labels": labels} for labels in ([1], [0], [0])])
    for format in ("math_shepherd", "math_aps", "rlhflow", "stepwise"):
        (again,) = read_again([tree], format)
        assert again.nodes[1].scores["label"] == pytest.approx(1 / 3), format


def test_a_value_is_found_where_none_is_named() -> None:
    tree = Tree(Problem("p", "Q?\n"))
    tree.add(tree.root, Step((), "a\n")).scores["value"] = 0.75
    tree.add(tree.root, Step((), "b\n")).scores["value"] = 0.25
    right = tree.add(tree.root, Step((), "c", end=EndReason.END_OF_TEXT))
    right.reward = 1.0
    for format in names(KIND):
        again = read_again([tree], format)[0]
        assert again.nodes[1].scores in ({"label": 1.0}, {"label": 1.0, "rating": 1.0}, {"value": 0.75}), format
