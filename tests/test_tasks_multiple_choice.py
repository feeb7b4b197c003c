"""Multiple-choice questions: layouts, shuffled options, and finding the option that a solution names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.tasks.base import Task
from gradatim.tasks.choice_answers import LETTERS, extract_choice, verify_choice
from gradatim.tasks.multiple_choice import MultipleChoice
from gradatim.tree import Problem
from json_lines import write_lines

COLOURS = ["red", "blue", "dark green", "$\\text{x} = 1$"]


def only(tmp_path: Path, record: dict[str, Any], **options: Any) -> Problem:
    write_lines(tmp_path / "test.jsonl", [record])
    (problem,) = MultipleChoice(source=str(tmp_path), splits={"test": "test"}, **options).problems("test")
    return problem


# Layouts


@pytest.mark.parametrize(
    "record",
    [
        {"question": "Q?", "choices": COLOURS, "answer": 2},
        {"question": "Q?", "choices": COLOURS, "answer": "C"},
        {"question": "Q?", "options": COLOURS, "answer": "C", "answer_index": 2},
        {"question": "Q?", "choices": COLOURS, "answer": "dark green"},
        {"question": "Q?", "choices": {"text": COLOURS, "label": ["A", "B", "C", "D"]}, "answerKey": "C"},
        {"question": "Q?", "choices": {"text": COLOURS, "label": ["1", "2", "3", "4"]}, "answerKey": "3"},
    ],
)
def test_all_layouts_are_the_same_problem(tmp_path: Path, record: dict[str, Any]) -> None:
    problem = only(tmp_path, record)
    lettered = "(A) red\n(B) blue\n(C) dark green\n(D) $\\text{x} = 1$"
    assert problem.answer == "C"
    assert problem.prompt == f"Question: Q?\n{lettered}\nAnswer:\n"
    assert problem.data == {"question": f"Q?\n{lettered}", "choices": COLOURS}


def test_gpqa_options_are_shuffled_by_seed_and_question(tmp_path: Path) -> None:
    def records() -> list[dict[str, Any]]:
        wrong = {f"Incorrect Answer {number}": f"wrong {number}" for number in (1, 2, 3)}
        return [{"Question": f"Q{n}?", "Correct Answer": "right", **wrong} for n in range(80)]

    write_lines(tmp_path / "train.jsonl", records())
    task = MultipleChoice(source=str(tmp_path), splits={"test": "train"})
    assert isinstance(task, Task)
    problems = task.problems("test")
    for problem in problems:
        assert sorted(problem.data["choices"]) == ["right", "wrong 1", "wrong 2", "wrong 3"]
        assert problem.data["choices"][LETTERS.index(problem.answer or "")] == "right"
    counts = [sum(problem.answer == letter for problem in problems) for letter in "ABCD"]
    assert min(counts) >= 8  # each letter is right for about a quarter
    assert problems == MultipleChoice(source=str(tmp_path), splits={"test": "train"}).problems("test")
    assert problems != MultipleChoice(source=str(tmp_path), splits={"test": "train"}, seed=1).problems("test")


def test_choices_keep_their_order_unless_shuffled(tmp_path: Path) -> None:
    records = [{"question": f"Q{n}?", "choices": ["w", "x", "y", "z"], "answer": 3} for n in range(40)]
    path = write_lines(tmp_path / "mine.jsonl", records)
    assert {problem.answer for problem in MultipleChoice(source=str(path)).problems("train")} == {"D"}
    shuffled = MultipleChoice(source=str(path), shuffle_choices=True).problems("train")
    assert {problem.answer for problem in shuffled} == {"A", "B", "C", "D"}
    assert all(problem.data["choices"][LETTERS.index(problem.answer or "")] == "z" for problem in shuffled)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"choices": COLOURS, "answer": 4}, "has the answer 4, but its choices count from 0 to 3"),
        ({"choices": COLOURS, "answer": -1}, "has the answer -1"),
        ({"choices": COLOURS, "answer": "E"}, "has the answer 'E', which is none of its choices"),
        ({"choices": COLOURS, "answer": True}, "has the answer True"),
        ({"choices": COLOURS}, "has the answer None"),
        ({"choices": ["one"], "answer": 0}, "has 1 choices, not 2 to 26"),
        ({"choices": "ABCD", "answer": 0}, "has no list of texts in the field 'choices'"),
        ({"choices": {"text": COLOURS, "label": ["A"]}, "answerKey": "A"}, "has choices without a label"),
        ({"choices": {"text": COLOURS, "label": 4}, "answerKey": "A"}, "has choices without a label"),
        ({"choices": {"label": ["A"]}, "answerKey": "A"}, "has no list of texts"),
        ({"choices": COLOURS, "answer": 10**100}, "has the answer 1000"),
        ({"choices": COLOURS, "answer": 1e300}, "has the answer 1e"),
    ],
)
def test_bad_records_are_refused(tmp_path: Path, fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(GradatimError, match=f"line 1 of '.*test.jsonl' {complaint}"):
        only(tmp_path, {"question": "Q?", **fields})


def test_template_must_show_question_and_choices() -> None:
    with pytest.raises(GradatimError, match=r"\{choices\} exactly once"):
        MultipleChoice(source=".", template="{question}")


# Answers


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is (C).", "C"),
        ("The answer is C.", "C"),
        ("the correct answer is: **(C) dark green**", "C"),
        ("Answer: C", "C"),
        ("**Answer:** C", "C"),
        ("**Final answer**: $C$", "C"),
        ("Answer:\n\nC", "C"),
        ("#### C", "C"),
        ("So \\boxed{C}.", "C"),
        ("So $\\boxed{\\text{(C)}}$.", "C"),
        ("So \\boxed{C) dark green}", "C"),
        ("So \\boxed{dark green}", "C"),
        ("The answer is option (c)", "C"),
        ("The correct option is C", "C"),
        ("The best choice is (C).", "C"),
        ("The answer is (A). No, wait: the answer is (C).", "C"),
        ("The answer is (C), not (A).", "C"),
        ("The answer is (C). (A) is wrong.", "C"),
        ("The answer is not (A).\n(C)", "C"),
        ("(A) is too bright. Therefore (C) is correct.", "C"),
        ("It is dark.\nC", "C"),
        ("It is dark.\n(C)", "C"),
        ("It is dark.\nC.", "C"),
        ("It is dark.\n**C**\n", "C"),
        ("It is dark.\n(C) dark green", "C"),
        ("It is dark.\nC) dark green", "C"),
        ("It is dark.\ndark green", "C"),
        ('The answer is "Dark Green".', "C"),
        ("The answer is $\\text{x} = 1$.", "D"),
        ("The answer is a mystery.", None),
        ("The answer is A or B.", None),
        ("The answer is (F).", None),
        ("\\boxed{F}", None),
        ("A nice thought", None),
        ("I like Cs", None),
        ("It is a\nb", None),
        ("", None),
    ],
)
def test_final_answer(text: str, answer: str | None) -> None:
    assert extract_choice(text, COLOURS) == answer


def test_without_the_choices_any_letter_is_an_answer() -> None:
    assert extract_choice("The answer is (F).") == "F"
    assert verify_choice(" (f) ", "Answer: F").reward == 1.0


def test_equal_choices_are_told_apart_by_letter_only() -> None:
    assert extract_choice("The answer is red.", ["red", "red", "blue"]) is None
    assert extract_choice("The answer is (B) red.", ["red", "red", "blue"]) == "B"


def test_verdict_reasons(tmp_path: Path) -> None:
    problem = only(tmp_path, {"question": "Q?", "choices": COLOURS, "answer": 2})
    task = MultipleChoice(source=str(tmp_path))
    assert task.check(problem, "The answer is (C).").reason == "correct"
    wrong = task.check(problem, "The answer is (A).")
    assert task.answer(problem, "The answer is (A).") == "A"
    assert (wrong.reward, wrong.reason) == (0.0, "wrong answer: A instead of C")
    assert task.check(problem, "Hard to say.").reason.startswith("no final answer")
    assert task.check(Problem("p", ""), "Answer: A").reason == "the problem has no reference answer"
    assert task.check(problem, "Answer: C\n\nQuestion: More?\nAnswer: A").reward == 1.0


@given(
    st.text()
    | st.lists(st.sampled_from(["A", "(", ")", "answer", " is ", ":", "\n", "\\boxed{", "}", "*", "b"])).map("".join),
    st.lists(st.text(max_size=3), max_size=4),
)
def test_nothing_raises_on_any_text(text: str, choices: list[str]) -> None:
    verdict = verify_choice("A", text, choices)
    answer = extract_choice(text, choices)
    assert (verdict.reward == 1.0) == (answer == "A") == (verdict.reason == "correct")
    assert answer is None or answer in LETTERS[: len(choices) or 26]


@pytest.mark.parametrize("piece", ["answer ", " ", "*", "(A", "\\text{", "\\boxed{", "answer is ", "\n", "A "])
def test_long_hostile_text_is_judged(piece: str) -> None:
    assert verify_choice("D", piece * 100_000, COLOURS).reward == 0.0
