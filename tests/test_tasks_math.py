"""Mathematical answers and the MATH task: finding answers, comparing them by value, never raising, never hanging."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.tasks import math_process
from gradatim.tasks.base import Task
from gradatim.tasks.math import Math
from gradatim.tasks.math_answers import extract_math_answer, last_boxed, math_answer, verify_math
from gradatim.tasks.math_equality import LONGEST_ANSWER, equal_answers, normal_form
from gradatim.tree import Problem
from json_lines import write_lines

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("GRADATIM_DATA") or ROOT.parent / "shared" / "data") / "math500"
needs_data = pytest.mark.skipif(
    not (DATA / "test.jsonl").is_file(),
    reason="needs math500/test.jsonl; set GRADATIM_DATA to the folder that holds math500/",
)

# Equality


EQUAL = r"""
\frac12 | \dfrac{1}{2}
\frac{1}{2} | 0.5
\frac12 | {1\over2}
\frac 34 | \tfrac{3}{4}
\frac{1}{3} | 0.333333
21/2 | \frac{21}{2}
2\frac{1}{2} | \frac52
2 1/2 | 2.5
-2\frac12 | -\frac{5}{2}
\frac{-1}{2} | -\frac12
10,\!080 | 10080
11,\! 111,\! 111 | 11111111
1{,}000 | 1,000
\$18.90 | 18.9
5 \text{ cm} | 5
5 | 5\,\text{cm}^2
5 | 5 dollars
\text{6 dollars} | 6
17 | 17^{\text{th}}
90^\circ | 90
90 | 90^{\circ}
50\% | 50
12.5\% | \frac18
0.1 | 10\%
(0,1] | \left( 0, 1 \right]
[0,1] | 0 \le x \le 1
x<2 | (-\infty,2)
(-\infty,2)\cup(3,\infty) | (3,\infty) \cup (-\infty,2)
\{1,2\} | \{2,1\}
\{1,2\} | 2, 1
1,-2 | -2,1
1,2 | 1 \text{ and } 2
(1,2) | 1,2
\left( 3, \frac{\pi}{2} \right) | (3, \pi/2)
\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} | \begin{bmatrix}1&2\\3&4\end{bmatrix}
2\sqrt{3} | \sqrt{12}
\frac{\sqrt{2}}{2} | \frac{1}{\sqrt2}
3 \pm 2\sqrt{2} | 3-2\sqrt{2}, 3+2\sqrt{2}
6 - 5i | -5i + 6
x^2+2x+1 | (x+1)^2
y = 2x + 3 | 2x+3
x=5 | 5
5 | x=5
x \in [-2,7] | [-2,7]
1.2 \times 10^{5} | 120000
\binom{5}{2} | 10
\text{Evelyn} | Evelyn
\text{(C)} | C
\text{no solution} | \text{No solution.}
\text{6:00 p.m.} | 6:00
\emptyset | \varnothing
2516_8 | 2516_{8}
"""

DIFFERENT = r"""
\frac12 | \frac13
\frac{1}{3} | 0.33
\pi | 3.14
12345678901234567890 | 12345678901234567891
0.0000001 | 0.0000002
0.001 | 0.0010004
50\% | 5
(0,1] | [0,1]
(0,1] | (0,1)
(1,2) | (2,1)
(1,2) | 2,1
(1,2) | \{1,2\}
\{1,2\} | \{1,2,3\}
\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} | \begin{pmatrix} 1 & 2 \\ 3 & 5 \end{pmatrix}
x^2+2x+1 | x^2+2x+2
5 | 5x
5 | 5xyz
5 | 5 \sin x
5 | 3 or 5
x=1 | y=1
\infty | -\infty
\text{east} | \text{seat}
\text{even} | \text{odd}
\text{(C)} | B
6:30 | 7:30
6:00 \text{ a.m.} | 6:00 \text{ p.m.}
2516_8 | 2516_7
5 | \frac{1}{0}
5 | \text{five}
5 | }{
"""


def pairs(table: str) -> list[tuple[str, str]]:
    return [
        (left.strip(), right.strip()) for left, _, right in (line.partition(" | ") for line in table.split("\n")[1:-1])
    ]


@pytest.mark.parametrize(("reference", "answer"), pairs(EQUAL))
def test_equal_answers(reference: str, answer: str) -> None:
    assert equal_answers(reference, answer)
    assert verify_math(reference, f"So it is $\\boxed{{{answer}}}$.").reward == 1.0


@pytest.mark.parametrize(("reference", "answer"), pairs(DIFFERENT))
def test_different_answers(reference: str, answer: str) -> None:
    assert not equal_answers(reference, answer)


@given(st.fractions(max_denominator=10**4), st.fractions(max_denominator=10**4))
def test_plain_numbers_are_compared_exactly(left: Any, right: Any) -> None:
    sign = "-" if left < 0 else ""
    latex = f"{sign}\\frac{{{abs(left.numerator)}}}{{{left.denominator}}}"
    assert equal_answers(str(right), latex) is (left == right)
    assert normal_form(latex) == str(left)


@pytest.mark.parametrize(
    ("form", "spellings"),
    [
        ("1/2", [r"\frac12", "0.5", r"\frac{1}{2}", "0.50", ".5"]),
        ("80", ["80", r"80^\circ", r"\$80", "80 apples", r"80\text{ cm}^2"]),
        ("2*sqrt(3)", [r"2\sqrt3", r"\sqrt{12}", r"\frac{6}{\sqrt{3}}"]),
        ("3*pi/4", [r"\frac{3\pi}{4}", r"0.75\pi"]),
        ("{1, 2}", ["1,2", r"\{2, 1\}"]),
        ("(0, 1]", ["(0,1]", r"\left(0,1\right]"]),
        ("evelyn", [r"\text{Evelyn}", "Evelyn"]),
        ("c", [r"\text{(C)}", "(C)", "C"]),
    ],
)
def test_answers_of_equal_value_share_one_normal_form(form: str, spellings: list[str]) -> None:
    assert {normal_form(spelling) for spelling in spellings} == {form}


# Finding the answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\fbox{3}", "3"),
        (r"$\boxed 5$.", "5"),
        (r"\boxed{7} and then \boxed{8", "7"),
        (r"\boxed{} \boxed{ }", None),
        (r"\boxed{4} is not what the answer is: 5", "4"),
        ("The answer is 5.", "5"),
        ("The final answer is $\\frac{1}{2}$. I hope it is correct.", r"\frac{1}{2}"),
        ("**Answer:** 3.5 km. Good luck.", "3.5 km"),
        ("Final Answer:\n\\[ x = 2 \\]", "x = 2"),
        ("The answers are $1$ and $2$, since $x=3$.", "1, 2"),
        ("the answer is therefore $6$", "6"),
        ("the answer is\n$$\\frac{1}{3}$$", r"\frac{1}{3}"),
        ("The answer is $\\$5.50$, not $\\$6$.", r"\$5.50"),
        ("The answer is 5 $\\text{cm}$", r"5 \text{cm}"),
        ("### Answer\n\n$42$", "42"),
        ("The answer\n is hard to find", None),
        ("#### 72\n", "72"),
        ("The answer is not 5", None),
        ("so we get 2 + 3 = 5", None),
        ("", None),
    ],
)
def test_final_answer(text: str, answer: str | None) -> None:
    assert extract_math_answer(text) == answer


@given(
    st.recursive(st.sampled_from(["1", "x", r"\{", r"\}", r"\\"]), lambda inner: inner.map(lambda text: f"a{{{text}}}"))
)
def test_a_box_gives_back_what_was_put_in(content: str) -> None:
    assert last_boxed(f"so {{\\boxed{{{content}}}}} }}") == content


def test_verdict_reasons() -> None:
    assert verify_math("5", r"\boxed{6}").reason == "wrong answer: 6 instead of 5"
    assert verify_math("5", "maybe").reason.startswith("no final answer")
    assert verify_math(None, r"\boxed{6}").reason == "the problem has no reference answer"
    right = verify_math(r"\frac12", r"\boxed{0.5}")
    assert (right.reward, right.reason) == (1.0, "correct")
    assert math_answer(r"\boxed{0.5}") == "1/2"


# Robustness


MACROS = ["\\frac", "\\sqrt", "\\boxed{", "\\text{", "\\left", "\\{", "\\cup", "\\infty", "\\pm", "\\over", "^\\circ"]
PIECES = [
    *r"0123456789xyi.,$%(){}[]+-*/^_=<>|!&:\ ",
    *MACROS,
    "\\begin{pmatrix}",
    "\\end{pmatrix}",
    "\\\\",
    "\n",
    "answer is ",
    "\u0663",
    "\ud800",
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=30))
def test_nothing_raises_on_any_text(text: str) -> None:
    for solution in (text, f"\\boxed{{{text}}}", f"The answer is {text}"):
        verdict = verify_math("x^2", solution)
        assert (verdict.reward == 1.0) == (verdict.reason == "correct")
        assert verdict == verify_math("x^2", solution)


@pytest.mark.parametrize(
    "piece",
    [
        "\\boxed{",
        "\\boxed{1",
        "answer is ",
        "answer is    ",
        "answer    ",
        "$",
        "####",
        "\\text{",
        " ",
        "1,111",
        "{",
        "(",
    ],
)
def test_long_hostile_text_is_judged(piece: str) -> None:
    text = piece * 50_000
    assert verify_math("x^2", text).reward == 0.0
    assert verify_math("x^2", f"\\boxed{{{text}}}").reward == 0.0
    assert not equal_answers("x^2", text)
    assert not equal_answers(text, "x^2")
    assert len(normal_form(text)) <= 4 * LONGEST_ANSWER


def test_endless_algebra_is_given_up_and_the_next_answer_is_judged() -> None:
    verdict = verify_math("5", "\\boxed{9^{9^{9^9}}}")
    assert (verdict.reward, math_answer("\\boxed{9^{9^{9^9}}}")) == (0.0, "9^{9^{9^9}}")
    assert equal_answers("x(x+1)", "x^2+x")


def test_answers_are_compared_in_any_thread() -> None:
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(equal_answers(f"(x+{n})^2", f"x^2+{2 * n}x+{n * n}")))
        for n in range(2, 8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 6


def test_a_worker_that_died_is_replaced() -> None:
    process = math_process.MathProcess()
    try:
        assert process.ask(answer="x+x")["form"] == "2*x"
        assert process._process is not None
        process._process.kill()
        process._process.wait()
        assert process.ask(answer="x")["form"] == "x"
    finally:
        process.close()


def test_an_interrupted_request_leaves_no_reply_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(process: Any, request: bytes) -> None:
        process.stdin.write(request)
        process.stdin.flush()
        raise KeyboardInterrupt

    process = math_process.MathProcess()
    try:
        process.ask(answer="x")
        with monkeypatch.context() as patch:
            patch.setattr(math_process.MathProcess, "_exchange", staticmethod(interrupt))
            with pytest.raises(KeyboardInterrupt):
                process.ask(answer="y+y")
        assert process.ask(answer="x+x")["form"] == "2*x"
    finally:
        process.close()


def test_a_missing_library_is_one_clear_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text("import no_such_library\n")
    monkeypatch.setattr(math_process, "_WORKER", worker)
    with pytest.raises(GradatimError, match="pip install math-verify"):
        math_process.MathProcess().ask(answer="1")


# The task


def record(number: int, **fields: Any) -> dict[str, Any]:
    return {"problem": f"What is {number}?", "solution": f"It is\n\n$\\boxed{{{number}}}$.", **fields}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    subjects = ("Number Theory", "Counting & Probability")
    train = [record(n, level=f"Level {n % 5 + 1}", type=subjects[n % 2]) for n in range(100)]
    write_lines(tmp_path / "train.jsonl", train)
    write_lines(tmp_path / "test.jsonl", [record(n, answer=f"{n}.0", level=2, subject="Algebra") for n in range(5)])
    return tmp_path


def test_both_layouts_are_read(folder: Path) -> None:
    task = Math(source=str(folder))
    assert isinstance(task, Task)
    train, test = task.problems("train"), task.problems("test", 3)
    assert len(train) + len(task.problems("validation")) == 100
    assert len(test) == 3
    problem = next(problem for problem in train if problem.data["question"] == "What is 7?")
    assert problem.prompt == "Problem: What is 7?\nSolution:\n"
    assert problem.answer == "7"
    assert problem.data["level"] == 3
    assert problem.data["subject"] == "Counting & Probability"
    assert {problem.answer for problem in task.problems("test")} == {f"{n}.0" for n in range(5)}
    assert task.boundary.split(problem.data["solution"]) == ["It is\n\n", "$\\boxed{7}$."]
    assert task.check(problem, problem.data["solution"]).reward == 1.0
    assert task.check(problem, "$\\boxed{7}$\n\nProblem: What is 8?\nSolution:\n$\\boxed{8}$").reward == 1.0


def test_levels_and_subjects_choose(folder: Path) -> None:
    chosen = Math(source=str(folder), levels=(1, 2), subjects=("counting_and_probability",)).problems("train")
    assert chosen
    assert {(problem.data["level"], problem.data["subject"]) for problem in chosen} == {
        (1, "Counting & Probability"),
        (2, "Counting & Probability"),
    }
    again = Math(source=str(folder), levels=(1, 2), subjects=("counting_and_probability",))
    assert again.problems("train", 2) == chosen[:2]
    with pytest.raises(GradatimError, match="no subject 'Number Theorie'; did you mean 'Number Theory'"):
        Math(source=str(folder), subjects=("Number Theorie",)).problems("train")
    with pytest.raises(GradatimError, match=r"no test problem .* has the chosen levels"):
        Math(source=str(folder), levels=(5,)).problems("test")
    with pytest.raises(GradatimError, match=r"levels\.0 must be less than or equal to 5, got 6"):
        Math(source=str(folder), levels=(6,))


def test_by_default_training_and_test_problems_come_from_their_own_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load(source: str, config: str | None, split: str) -> list[dict[str, Any]]:
        asked.append((source, config, split))
        return [record(number) for number in range(50)]

    monkeypatch.setattr(datasets, "load_dataset", load)
    task = Math()
    assert len(task.problems("train")) + len(task.problems("validation")) == 50
    assert len(task.problems("test")) == 50
    assert asked == [("DigitalLearningGmbH/MATH-lighteval", None, "train"), ("HuggingFaceH4/MATH-500", None, "test")]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"problem": "?", "solution": "no box"}, "has neither an answer nor a solution with one"),
        ({"problem": "?", "answer": [3]}, "has neither text nor a number in the field 'answer'"),
        ({"solution": "\\boxed{1}"}, "has no text in the field 'problem'"),
    ],
)
def test_bad_records_are_refused(tmp_path: Path, fields: dict[str, Any], complaint: str) -> None:
    path = write_lines(tmp_path / "bad.jsonl", [record(1), fields])
    with pytest.raises(GradatimError, match=f"line 2 of '.*bad.jsonl' {complaint}"):
        Math(source=str(path)).problems("train")


@needs_data
def test_every_reference_solution_of_math_500_is_right_and_answers_of_others_are_not() -> None:
    task = Math(source=str(DATA), shuffle=False)
    problems = task.problems("test")
    assert len(problems) == 500
    verdicts = [task.check(problem, problem.data["solution"]) for problem in problems]
    assert [problem.id for problem, verdict in zip(problems, verdicts, strict=True) if verdict.reward != 1.0] == []
    same = [
        (problem.answer, other.answer)
        for problem, other in zip(problems[::12], problems[5::12], strict=False)
        if task.check(problem, f"\\boxed{{{other.answer}}}").reward == 1.0
    ]
    assert all(normal_form(str(left)) == normal_form(str(right)) for left, right in same)


def test_a_problem_without_reference_is_neither_right_nor_wrong() -> None:
    task, problem = Math(source="."), Problem("p", "")
    assert task.check(problem, "\\boxed{1}").reward is None
    assert task.answer(problem, "\\boxed{1}") == "1"
