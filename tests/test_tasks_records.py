"""Problems from records: splits, held-out problems, order, bad lines. (Loading itself is tested with GSM8K.)"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.records import MalformedRecordError, Record, text_field
from gradatim.suggestions import suggestion
from gradatim.tasks.base import Verdict
from gradatim.tasks.from_records import RecordTask
from gradatim.tasks.templates import Template, fields_of
from gradatim.text.boundaries.delimiter import Delimiter
from gradatim.tree import Problem


def write_lines(path: Path, texts: Sequence[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


@part
class Mine(RecordTask):
    """Texts."""

    source: str
    template: str = "{text}"
    fields_shown: ClassVar[tuple[str, ...]] = ("text",)

    @property
    def name(self) -> str:
        return "mine"

    def check(self, problem: Problem, text: str) -> Verdict:
        return Verdict(None, "nobody judges texts")

    def read(self, id: str, record: Record) -> Problem:
        text = text_field(record, "text")
        if text == "bad":
            raise MalformedRecordError("is bad")
        return Problem(id, text, None, {"question": text})


def source(path: Path | str, **options: Any) -> Mine:
    return Mine(source=str(path), **options)


def texts(problems: Sequence[Problem]) -> list[str]:
    return [problem.prompt for problem in problems]


NUMBERS = [str(number) for number in range(300)]


def test_a_split_that_the_source_has_is_not_held_out(tmp_path: Path) -> None:
    write_lines(tmp_path / "auxiliary.jsonl", NUMBERS)
    write_lines(tmp_path / "dev.jsonl", ["d1", "d2"])
    named = source(tmp_path, splits={"train": "auxiliary", "validation": "dev"})
    assert texts(named.problems("validation")) == ["d1", "d2"]
    held_out = texts(named.problems("test"))
    assert len(held_out) == 15
    assert sorted(held_out + texts(named.problems("train"))) == sorted(NUMBERS)
    assert named.problems("train")[0].id.startswith("mine/auxiliary/")


def test_a_source_without_train_has_only_what_it_names(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", NUMBERS[:5])
    only_test = source(tmp_path, splits={"test": "train"})
    assert texts(only_test.problems("test")) == NUMBERS[:5]
    with pytest.raises(GradatimError, match="no validation split, since splits names test; name it there"):
        only_test.problems("validation")


@pytest.mark.parametrize(
    ("splits", "complaint"),
    [({"dev": "train"}, "cannot name 'dev'"), ({"train": "train", "test": "train"}, "two splits the same records")],
)
def test_impossible_splits_are_refused(tmp_path: Path, splits: dict[str, str], complaint: str) -> None:
    with pytest.raises(GradatimError, match=complaint):
        source(tmp_path, splits=splits).problems("test")


def test_shuffled_problems_are_the_same_in_another_order(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "sorted.jsonl", NUMBERS)
    ordered, shuffled = source(path).problems("train"), source(path, shuffle=True).problems("train")
    assert ordered != shuffled
    assert sorted(ordered, key=lambda problem: problem.id) == sorted(shuffled, key=lambda problem: problem.id)
    assert shuffled == source(path, shuffle=True).problems("train")
    # Fair: the first half of the order holds about half of the first half of the file.
    first = [int(text) for text in texts(shuffled)[: len(shuffled) // 2]]
    assert 0.35 < sum(number < 150 for number in first) / len(first) < 0.65


@given(
    lines=st.lists(st.text(max_size=5), min_size=3, max_size=30),
    seed=st.integers(0, 5),
    fraction=st.sampled_from([0.01, 0.05, 0.2, 0.3, 0.49]),
    order=st.randoms(use_true_random=False),
)
def test_exact_counts_are_held_out_whatever_the_order_and_equal_texts_are_on_one_side(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], seed: int, fraction: float, order: random.Random
) -> None:
    lines = [line.replace("bad", "") for line in lines]
    distinct = len({line.strip() for line in lines})
    folder = tmp_path_factory.mktemp("cut")
    divisions = []
    for name in ("one", "two"):
        one = source(write_lines(folder / f"{name}.jsonl", lines), seed=seed, validation_fraction=fraction)
        sides: dict[str, str] = {}
        for split in ("train", "validation", "test") if distinct >= 3 else ():
            problems = one.problems(split)
            assert len(problems) == sum(line.strip() in {text.strip() for text in texts(problems)} for line in lines)
            assert not sides.keys() & {text.strip() for text in texts(problems)}
            sides |= {text.strip(): split for text in texts(problems)}
        divisions.append(sides)
        order.shuffle(lines)
    assert divisions[0] == divisions[1]
    if distinct >= 3:
        held_out = min(max(1, round(fraction * distinct)), (distinct - 1) // 2)
        assert Counter(divisions[0].values()) == {
            "train": distinct - 2 * held_out,
            "validation": held_out,
            "test": held_out,
        }


def test_the_members_of_larger_parts_are_those_of_smaller_ones_and_more(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "mine.jsonl", NUMBERS)
    small, large = (set(texts(source(path, validation_fraction=part).problems("validation"))) for part in (0.1, 0.2))
    assert (len(small), len(large)) == (30, 60)
    assert small < large


@pytest.mark.parametrize(("count", "parts"), [(20, [12, 4, 4]), (4, [2, 1, 1]), (3, [1, 1, 1])])
def test_few_problems_are_divided_as_the_fraction_says(tmp_path: Path, count: int, parts: list[int]) -> None:
    one = source(write_lines(tmp_path / "mine.jsonl", NUMBERS[:count]), validation_fraction=0.2)
    assert [len(one.problems(split)) for split in ("train", "validation", "test")] == parts


def test_too_few_problems_to_divide_are_refused_with_the_number_that_is_enough(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "mine.jsonl", ["a", "a", "b"])
    assert len(source(path).problems("train")) == 3
    with pytest.raises(GradatimError, match=r"the test split of .* held out of 2 distinct ones; give .* at least 3"):
        source(path).problems("test")


def test_skipped_lines_are_named_and_the_first_reason_is_told(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "mine.jsonl", ["bad", "bad"])
    with pytest.raises(GradatimError, match=r"line 1 of '.*mine\.jsonl' is bad; mend it"):
        source(path).problems("train")
    with (
        pytest.warns(UserWarning, match=r"skipped 2 bad records of '.*mine\.jsonl': 1, 2"),
        pytest.raises(GradatimError, match=r"every record is malformed \(line 1 of '.*mine\.jsonl' is bad\)"),
    ):
        source(path, on_bad_line="skip").problems("train")


# Steps


ENDS = st.lists(st.sampled_from(["\n", "\n\n", ".", "ab", "b"]), min_size=1, max_size=3, unique=True)


@given(st.text(alphabet="ab.\n "), ENDS)
def test_steps_join_to_the_text_and_each_ends_at_a_boundary(text: str, ends: list[str]) -> None:
    steps = Delimiter(at=tuple(ends)).split(text)
    assert "".join(steps) == text
    assert all(step.endswith(tuple(ends)) for step in steps[:-1])
    assert all(step.strip() for step in steps) or not text.strip()


def test_paragraphs_keep_their_formulas_whole() -> None:
    text = "We have\n\\[\nx = 1.\n\\]\n\nSo\n\n\n\\boxed{1}"
    assert Delimiter(at=("\n\n",)).split(text) == ["We have\n\\[\nx = 1.\n\\]\n\n", "So\n\n", "\n\\boxed{1}"]


@pytest.mark.parametrize("ends", [[], "\n", [""], [3]])
def test_bad_step_ends_are_refused(ends: Any) -> None:
    with pytest.raises(GradatimError, match=r"^Mine: .*boundary.*at"):
        source(".", boundary={"delimiter": {"at": ends}})


# Templates


def test_template_fills_only_its_fields() -> None:
    template = Template("\\boxed{} {{x}} Q: {question}\n{hint}\nA:", ["question", "hint"])
    values = {"question": "what is {hint}?", "hint": "\\1"}
    assert template.fill(values) == "\\boxed{} {{x}} Q: what is {hint}?\n\\1\nA:"
    assert fields_of(template.text) == ["question", "hint"]


def test_a_next_question_is_cut_off_at_the_heading_only() -> None:
    template = Template("Be brief.\nQ: {question}\nA:\n", ["question"])
    problem = Problem("p", template.fill({"question": "what is 1 + 1?"}))
    assert template.first_solution(problem, "1\n#### 2\nQ: and 3?\nA: 4") == "1\n#### 2\n"
    assert template.first_solution(problem, "FAQ: Q: 5") == "FAQ: Q: 5"
    restated = "Q: What  is 1 + 1?\nA: we add\n#### 2"
    assert template.first_solution(problem, restated) == restated
    assert template.first_solution(problem, f"{restated}\nQ: what is 1 + 11?\nA:") == f"{restated}\n"
    assert template.first_solution(problem, "Q: another?") == ""
    assert template.next_problem(problem, "1\nQ:") is None  # nothing behind it yet
    assert Template("{question}\nSolve Q:\n", ["question"]).first_solution(problem, "1\nQ: 2") == "1\nQ: 2"


def test_suggestion_names_the_nearest() -> None:
    assert suggestion("nubmer", ["number", "math"]) == "did you mean 'number'? (valid: math, number)"
    assert suggestion("zzz", ["number", "math"]) == "valid: math, number"
