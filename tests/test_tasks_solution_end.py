"""Where a solution ends by its task's own rule, in text alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.part import part
from gradatim.tasks.base import Task
from gradatim.tasks.code import Code
from gradatim.tasks.countdown import Countdown, make_problem
from gradatim.tasks.gsm8k import Gsm8k
from gradatim.tasks.math import Math
from gradatim.tasks.multiple_choice import MultipleChoice
from gradatim.tasks.records import Records
from gradatim.tasks.verifiers import make_verifier
from gradatim.tasks.word_problems import WordProblems
from gradatim.text.solution_end import NEVER, Ending, SolutionEnd, opens_thought
from gradatim.tree import EndReason, Problem

PROBLEM = Problem("p", "Question: How many?\nAnswer:\n", "18")
NUMBER, MATH, CHOICE, EXACT = (make_verifier(name).solution_end for name in ("number", "math", "choice", "exact"))


def ends(rules: SolutionEnd, text: str, *, cut_off: bool = False) -> bool:
    return rules.find(PROBLEM, text, cut_off=cut_off) is not None


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        (NUMBER, "#### 18"),
        (NUMBER, "So she has 18. #### 18"),
        (NUMBER, "#### $1,234.50"),
        (NUMBER, "#### **18** apples"),
        (NUMBER, "#### 5 more apples"),
        (NUMBER, "A: 18"),
        (NUMBER, "The answer is 18."),
        (NUMBER, "So the final answer is: $18 dollars."),
        (NUMBER, "That makes 9 * 2. **The answer is 18.**"),
        (NUMBER, r"The answer is \boxed{18} apples."),
        (MATH, r"So $x = \boxed{\frac{1}{2}}$. I hope it is correct."),
        (MATH, r"\[\boxed{\{1, 2\}}\]"),
        (MATH, "Answer: $18$"),
        (MATH, r"**Final Answer:** \(x = 3\)"),
        (MATH, "The final answer is 3/4."),
        (MATH, "#### 18"),
        (MATH, "So it is. #### $x = 2$"),
        (CHOICE, "Answer: C"),
        (CHOICE, "The answer is (C)."),
        (CHOICE, "So the correct answer is **(B) 12 apples**"),
        (CHOICE, "(C)"),
        (CHOICE, r"\boxed{A}"),
        (EXACT, "Answer: the blue one"),
        (EXACT, "#### blue"),
    ],
)
def test_a_complete_answer_ends_a_solution_with_its_line(rules: SolutionEnd, line: str) -> None:
    before = "We think first.\n"
    assert not ends(rules, before)
    assert not ends(rules, before + line)  # the line may go on
    whole = f"{before}{line}\n"
    expected = Ending(EndReason.ANSWER, len(whole), len(whole))
    assert rules.find(PROBLEM, whole) == expected
    assert rules.find(PROBLEM, f"{whole}And more.\n#### 20\n") == expected


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        (NUMBER, "#### 2. Multiply the result"),
        (NUMBER, "#### Step 2: multiply by 5"),
        (NUMBER, "####"),
        (NUMBER, "The answer is 2 times the number of dogs."),
        (NUMBER, "So the answer is 12 eggs, and she sells them."),
        (NUMBER, "The answer is the number of apples times 2."),
        (NUMBER, "To find the answer: we add 2 and 3."),
        (NUMBER, "The answer is 5 + 3 = 8"),
        (NUMBER, "The answer is 5 more than the 3 of Ann."),
        (NUMBER, "A: She has 5 apples, so 5 + 3 = 8."),
        (NUMBER, r"\boxed{"),
        (MATH, "Answer: We add both sides and get $5$."),
        (MATH, "Answer: $n$ must be even because $n^2$ is."),
        (MATH, "The answer is not $5$."),
        (MATH, "#### Step 1: solve for $x$"),
        (MATH, "#### Solution"),
        (MATH, "#### Final Answer"),
        (MATH, "#### 2. Add both"),
        (MATH, r"\boxed{}"),
        (MATH, r"\boxed{\frac{1}{2}"),
        (CHOICE, "Answer: A triangle has three sides."),
        (CHOICE, "(A) 12 apples"),
        (CHOICE, "The answer is A or B"),
        (EXACT, "#### Step 1"),
        (EXACT, "#### 2. Compare"),
        (EXACT, "#### **Colours:**"),
        (EXACT, "Answer: We add both. Then we have it."),
        (EXACT, "The answer is here, as we shall see; it is blue."),
    ],
)
def test_what_is_no_complete_answer_ends_nothing(rules: SolutionEnd, line: str) -> None:
    assert not ends(rules, f"{line}\nand so on\n")


def test_a_cut_off_solution_counts_only_with_what_cannot_be_torn() -> None:
    for torn in ("#### 18", "#### 1", "The answer is 18"):
        assert not ends(NUMBER, torn, cut_off=True)
    for whole in ("#### 18 ", "#### 18 app", r"so \boxed{18}", r"so $\boxed{18}$ and then we"):
        assert ends(NUMBER, whole, cut_off=True), whole
        assert not ends(NUMBER, whole)
    assert not ends(MATH, r"so \boxed{1", cut_off=True)


def test_a_box_over_several_lines() -> None:
    text = "\\[\n\\boxed{\n18\n}\n"
    assert not ends(MATH, text[:-2])
    assert MATH.find(PROBLEM, f"{text}\\]\n") == Ending(EndReason.ANSWER, len(text), len(text))


def test_nothing_in_a_thought_ends_a_solution() -> None:
    thought = "<think>\nMaybe \\boxed{17}?\nQuestion: or what?\n"
    assert not ends(MATH, thought)
    assert not ends(MATH, thought, cut_off=True)
    text = f"{thought}</think>\nSo \\boxed{{18}}.\n"
    assert MATH.find(PROBLEM, text) == Ending(EndReason.ANSWER, len(text), len(text))
    opened = text.removeprefix("<think>\n")
    assert MATH.find(PROBLEM, opened, thinking=True) == Ending(EndReason.ANSWER, len(opened), len(opened))
    assert MATH.find(PROBLEM, opened[:25], thinking=True) is None
    assert opens_thought("<|im_start|>assistant\n<think>\n")
    assert not opens_thought("<|im_start|>assistant\n")


def write(path: Path, record: dict[str, object]) -> str:
    """Twenty records that differ in their first field."""
    name, value = next(iter(record.items()))
    rows = [record, *({**record, name: f"{value} ({number})"} for number in range(19))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_next_problem_ends_a_solution_and_a_restated_one_does_not(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", {"question": "What is 9 + 9?", "answer": "#### 18"})
    task = Gsm8k(source=source)
    problem = Problem("p", "Question: What is 9 + 9?\nAnswer:\n", "18", {"question": "What is 9 + 9?"})
    solution = "We add them.\nIt is many.\n"
    text = f"{solution}Question: What is 7 + 7?\nAnswer:\n"
    ending = task.solution_end.find(problem, text)
    assert ending == Ending(EndReason.STOP, len(solution), len(f"{solution}Question:"))
    assert task.solution_end.find(problem, f"{solution}Question:") is None  # not decided before something follows
    restated = "Question: What is 9 + 9?\nAnswer: we add.\n"
    assert task.solution_end.find(problem, restated) is None
    assert task.solution_end.find(problem, f"{restated}#### 18\n") is not None
    # A limit that comes after the heading of a next problem leaves what came before it.
    torn = f"{solution}Question: What is"
    assert task.solution_end.find(problem, f"{torn} 7 + 7", cut_off=True) == ending


@part
class Silent(Task):
    """A task that says nothing of where solutions end."""

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        return []

    def answer(self, problem: Problem, text: str) -> None:
        return None


def test_tasks_have_rules_of_their_own(tmp_path: Path) -> None:
    countdown = Countdown().solution_end
    problem = make_problem([3, 5, 7], 15)
    assert countdown.find(problem, " 7 + 5 = 12 | 3 12\n") is None
    assert countdown.find(problem, " 7 + 5 = 12 | 3 12\n 12 + 3 = 15 | 15\n") is not None
    words = WordProblems().solution_end
    assert words.find(PROBLEM, "Ann's apples: 3 + 4 = 7\n") is None
    assert words.find(PROBLEM, "Ann's apples: 3 + 4 = 7\nAnswer: 7\n") is not None
    rows = write(tmp_path / "own.jsonl", {"question": "2 + 2?", "answer": "4"})
    own = Records(
        source=rows, template="Q: {question}\nA:", verifier={"name": "regex", "pattern": "([0-9]+)$"}, stop=("\n\n",)
    )
    assert own.solution_end.find(PROBLEM, "2 and 2 is 4\n") is None
    assert own.solution_end.find(PROBLEM, "2 and 2 is 4\n\nNext") == Ending(EndReason.STOP, 12, 14)
    assert Silent().solution_end is NEVER
    assert not NEVER
    choice = write(tmp_path / "choice.jsonl", {"question": "2 + 2?", "choices": ["3", "4"], "answer": 1})
    assert MultipleChoice(source=choice).solution_end.find(PROBLEM, "Answer: B\n") is not None
    assert Math(source=".").solution_end.find(PROBLEM, "\\boxed{1}\n") is not None


def test_programs_end_where_the_file_would_go_on() -> None:
    rules = Code(source=".").solution_end
    function = Problem("f", "def add(a, b):\n", data={"layout": "function", "question": "def add(a, b):\n"})
    body = "    return a + b\n"
    assert rules.find(function, body) is None
    assert rules.find(function, f"{body}\ndef other():\n") == Ending(EndReason.STOP, len(body) + 1, len(body) + 5)
    assert rules.find(function, "Here it is:\n```python\ndef add(a, b):\n    return a + b\n") is None
    block = "```python\ndef add(a, b):\n    return a + b\n```\n"
    assert rules.find(function, f"{block}It adds.\n") == Ending(EndReason.ANSWER, len(block), len(block))
    program = Problem("i", '"""\nadd\n"""\n', data={"layout": "inputs"})
    code = 'def f():\n    """Doc."""\nprint(3)\n'
    assert rules.find(program, code) is None
    assert rules.find(program, f'{code}"""\nNext\n') == Ending(EndReason.STOP, len(code), len(code) + 3)


@given(st.lists(st.sampled_from(["#### 18\n", "a\n", "Question: b?\n", r"\boxed{1} ", "\n", "x"]), max_size=8))
def test_a_text_that_is_read_line_by_line_ends_where_the_whole_does(parts: list[str]) -> None:
    template_end = Gsm8k(source=".").solution_end
    text = "".join(parts)
    first = None
    for length in range(1, len(text) + 1):
        if text[length - 1] == "\n" and first is None:
            first = template_end.find(PROBLEM, text[:length])
    assert first == template_end.find(PROBLEM, text)
