"""Tasks are parts: a file is all that one needs, and all of them keep the same promises."""

from __future__ import annotations

import json
import pickle
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from typer.testing import CliRunner

from gradatim.cli.main import app
from gradatim.errors import GradatimError
from gradatim.part import content_of, find, make, names, pages
from gradatim.recipes import PretrainRecipe, Recipe, parse_recipe
from gradatim.tasks import Countdown, Gsm8k, Math, Records, Task, WordProblems
from gradatim.tasks.from_records import RecordTask
from gradatim.tasks.generated import GeneratedTask
from gradatim.tree import Problem
from small_runs import small_content

DESCRIBED = {
    "judgements": {"trees": "runs/labelled"},
    "traces": {"task": "countdown"},
    "length_told": {"task": "countdown", "lengths": [20, 40]},
    "own": {"file": "task.yaml"},
    "records": {"source": "rows.jsonl", "template": "{question}\n", "verifier": "number"},
}
REACH = '''
"""A task in one file that nothing else knows of."""

from __future__ import annotations

import re
from functools import cached_property

from pydantic import PositiveInt

from gradatim.part import part
from gradatim.tasks.base import Task, Verdict
from gradatim.tasks.countdown import make_problem
from gradatim.tree import Problem


@part
class Reach(Task):
    """Reach a number, however it is done."""

    target: PositiveInt = 12
    """The number."""

    @cached_property
    def every(self) -> list[Problem]:
        return [make_problem([first, 3, 5, 7], self.target) for first in range(1, 16)]

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        return self.every[{"train": 0, "validation": 1, "test": 2}[split] :: 3][:count]

    def answer(self, problem: Problem, text: str) -> str:
        return text.rstrip().rpartition(" ")[2]

    def check(self, problem: Problem, text: str) -> Verdict:
        number = self.answer(problem, text)
        return Verdict(float(number == str(problem.data["target"])), "reached " + number)

    def ask(self, text: str) -> Problem:
        return make_problem([int(number) for number in re.findall("[0-9]+", text)], self.target)
'''


@pytest.fixture
def reach(tmp_path: Path) -> str:
    (tmp_path / "reach.py").write_text(REACH)
    return f"{tmp_path / 'reach.py'}:Reach"


def test_a_task_in_one_file_runs_by_recipe(reach: str, tmp_path: Path) -> None:
    recipe = {
        **{key: value for key, value in small_content().items() if key in {"name", "policy"}},
        "task": {"name": reach, "target": 15},
        "problems": {"test": 2},
        "evaluation": {"samples": 2, "pass_at": [1], "best_of": [1], "majority": [], "greedy": False},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    folder = tmp_path / "run"
    arguments = ["run", str(tmp_path / "mine.yaml"), "--output", str(folder)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads((folder / "report.json").read_text())
    assert report["recipe"]["task"] == {"name": reach, "target": 15}
    assert all("reached" in shown["verifier"] or shown["kind"] == "cut off" for shown in report["solutions"])
    (tmp_path / "reach.py").write_text(REACH.replace('"reached "', '"came to "'))
    again = CliRunner().invoke(app, arguments)
    assert f"the content of {tmp_path / 'reach.py'} was" in again.output, "another verifier is another outcome"


def test_a_task_in_one_file_is_solved(reach: str) -> None:
    given = ["--policy", "shipped:countdown", "--task", reach, "--device", "cpu", "--set", "n=2"]
    result = CliRunner().invoke(app, ["solve", "1 3 5 7", *given])
    assert result.exit_code == 0, result.output
    assert "Make 12 from 1 3 5 7" in result.output
    assert "(reached " in result.output


def test_every_task_is_listed_with_the_options_that_it_shares() -> None:
    known = names("tasks")
    assert set(known) == {
        "code",
        "countdown",
        "gsm8k",
        "length_told",
        "judgements",
        "math",
        "multiple_choice",
        "own",
        "records",
        "traces",
        "word_problems",
    }
    for page in pages("tasks"):
        assert page.options, page.name
        assert all(option.meaning.endswith(".") for option in page.options), page.name
        shared = RecordTask if issubclass(find("tasks", page.name), RecordTask) else GeneratedTask
        if issubclass(find("tasks", page.name), shared):
            assert {each.name for each in fields(shared)} <= {option.name for option in page.options}
    result = CliRunner().invoke(app, ["parts", "tasks"])
    assert "Share of the training problems that is held out" in " ".join(result.output.split())


@pytest.mark.parametrize("name", sorted(names("tasks")))
def test_every_task_is_written_as_it_is_read_and_made_without_its_files(name: str) -> None:
    task = make("tasks", {name: DESCRIBED.get(name, {})})
    assert isinstance(task, Task)
    assert make("tasks", json.loads(json.dumps(content_of(task)))) == task
    assert pickle.loads(pickle.dumps(task)) == task
    if name != "own":
        assert task.name == name
        assert "".join(task.boundary.split("a\n\nb")) == "a\n\nb"
        assert task.solution_end.may_end("\n")


def test_what_a_task_has_read_is_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"question": f"{n} + 1?", "answer": f"#### {n + 1}"}) + "\n" for n in range(9)))
    task, other = Gsm8k(source=str(path)), Gsm8k(source=str(path))
    read = task.problems("train")
    path.unlink()
    assert task.problems("train") == read, "read once"
    assert task == other
    assert repr(task) == repr(other)
    with pytest.raises(AttributeError):
        task.seed = 1  # type: ignore[misc]


def test_problems_as_people_type_them() -> None:
    assert Countdown().ask("make 50 from 3, 5 7 8").prompt == "Make 50 from 3 5 7 8\n"
    assert Gsm8k(template="Q: {question}\n").ask("1 + {1}?").prompt == "Q: 1 + {1}?\n"
    assert Math().ask("x?") == Problem("question", "Problem: x?\nSolution:\n", None, {"question": "x?"})
    assert make("tasks", "multiple_choice").ask("a or b?").prompt == "a or b?"
    with pytest.raises(GradatimError, match="needs some: put it into the task's source"):
        make("tasks", "code").ask("sort a list")
    several = Records(source="a.jsonl", template="{a} {b}", verifier="number")
    with pytest.raises(GradatimError, match="has several parts"):
        several.ask("a")


def test_only_a_task_with_demonstrations_is_trained_from_scratch() -> None:
    given = {"kind": "pretrain", "name": "mine", "task": {"word_problems": {"operations": [1, 2]}}}
    recipe = parse_recipe(given, "mine")
    assert isinstance(recipe, PretrainRecipe)
    assert recipe.task == WordProblems(operations=(1, 2))
    with pytest.raises(GradatimError, match="'task': 'gsm8k' is no Teacher"):
        parse_recipe(given | {"task": "gsm8k"}, "mine")
    with pytest.raises(ValidationError, match="'beam' is no Task"):
        Recipe.model_validate(small_content() | {"task": make("search", "beam")})
