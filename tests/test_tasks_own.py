"""Tasks of one's own: YAML descriptions, Python classes, verifiers by name, and what errors say."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.event_loop import run_to_end
from gradatim.part import make
from gradatim.tasks.base import Task, Verdict, grade
from gradatim.tasks.guarded import guarded, verifier_record
from gradatim.tasks.own import Own
from gradatim.tasks.truth import Reachability
from gradatim.tasks.verifiers import make_verifier
from gradatim.text.boundaries.delimiter import Delimiter
from gradatim.tree import EndReason, Problem, Step, Tree

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "own_task"
RECORDS = [{"question": f"{n} + {n}?", "hint": "add", "answer": 2 * n, "tags": []} for n in range(60)]
DESCRIPTION = {"source": "sums.jsonl", "template": "Q: {question}\nA:\n", "verifier": "number"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return tmp_path


def described(folder: Path, **changes: Any) -> Path:
    path = folder / "sums.yaml"
    path.write_text(yaml.safe_dump({**DESCRIPTION, **changes}))
    return path


def own(path: Path, **options: Any) -> Own:
    return Own(file=str(path), options=options)


# Descriptions


def test_a_description_is_a_task(folder: Path) -> None:
    task = own(described(folder))
    assert isinstance(task, Task)
    parts = {split: task.problems(split) for split in ("train", "validation", "test")}
    assert sum(map(len, parts.values())) == 60
    problem = next(problem for problem in parts["train"] if problem.data["question"] == "7 + 7?")
    assert (problem.id, problem.prompt, problem.answer) == ("sums/sums/8", "Q: 7 + 7?\nA:\n", "14")
    assert task.check(problem, "7 + 7 = 14\n#### 14").reward == 1.0
    assert task.check(problem, "#### 14\nQ: 8 + 8?\nA:\n#### 16").reward == 1.0
    assert task.check(problem, "#### 15").reason == "wrong answer: 15 instead of 14"
    assert task.boundary.split("a\nb") == ["a\n", "b"]


def test_several_fields_make_the_question_the_prompt(folder: Path) -> None:
    paragraphs = {"delimiter": {"at": ["\n\n"]}}
    task = own(described(folder, template="{question} ({hint})\n", boundary=paragraphs, title="hints"))
    problem = task.problems("train", 1)[0]
    assert problem.data["question"] == problem.prompt
    assert problem.data["fields"]["hint"] == "add"
    reworded = own(described(folder, template="Now {question} ({hint})\n", title="hints"))
    assert [p.id for p in reworded.problems("test")] == [p.id for p in task.problems("test")]
    assert problem.prompt.endswith("? (add)\n")
    assert (task.name, task.boundary) == ("hints", Delimiter(at=("\n\n",)))


def test_options_replace_keys_of_the_file(folder: Path) -> None:
    path = described(folder)
    assert own(path, seed=1).problems("test") != own(path).problems("test")
    assert own(path, verifier="exact").check(Problem("p", "", "x"), "X.").reward == 1.0


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"source": "nowhere.jsonl"}, r"there is no file or folder '.*nowhere\.jsonl'"),
        ({"verifier": "nubmer"}, r"no verifier 'nubmer'; did you mean 'number'\?"),
        ({"verifier": {"pattern": "x"}}, "the verifier has no 'name'"),
        ({"verifier": 3}, r"the task file '.*sums\.yaml': verifier must be"),
        ({"verifer": "number"}, r"the task file .*: has no option 'verifer'; did you mean 'verifier'\?"),
        ({"name": "sums"}, r"the task file .*: has no option 'name'"),
        (
            {"boundary": "sentance"},
            "boundary: there is no boundary 'sentance'; did you mean 'sentence'",
        ),
        ({"boundary": {"delimiter": {"at": []}}}, "the task file .*: boundary.at must have at least 1 item"),
        ({"seed": "one"}, "the task file .*: seed must be a valid integer"),
        ({"template": "Q:"}, "shows no field"),
        ({"template": "Q: {question} {answer}"}, "shows the reference answer {answer}"),
        ({"validation_fraction": 0.5}, "validation_fraction must be less than 0.5"),
        ({"on_bad_line": "mend"}, "on_bad_line must be"),
    ],
)
def test_wrong_descriptions_are_refused(folder: Path, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(GradatimError, match=complaint):
        own(described(folder, **changes)).problems("train")


def test_a_missing_key_is_named(folder: Path) -> None:
    path = folder / "task.yaml"
    path.write_text("source: sums.jsonl\nverifier: number\n")
    with pytest.raises(GradatimError, match="needs 'template', which must be given"):
        own(path).problems("train")


@pytest.mark.parametrize("content", ["", "- a\n", "a: [\n"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(content)
    with pytest.raises(GradatimError, match=r"task\.yaml'"):
        own(path).problems("train")


def test_a_missing_description_is_refused() -> None:
    with pytest.raises(GradatimError, match=r"there is no task file 'nowhere\.yaml'"):
        Own(file="nowhere.yaml").problems("train")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"template": "{qestion}"},
            r"line 1 of '.*sums\.jsonl' has no field 'qestion'; did you mean 'question'\? \(valid: answer, hint, quest",
        ),
        ({"answer_field": "result"}, r"has no field 'result'; valid: answer, hint, question, tags"),
        ({"template": "{tags}"}, "has neither text nor a number in the field 'tags'"),
    ],
)
def test_unknown_fields_are_refused_with_those_that_there_are(
    folder: Path, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(GradatimError, match=complaint):
        own(described(folder, **changes)).problems("train")


# Classes

CLASS = """
from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.tasks.base import Task
from gradatim.tree import Problem

@part
class Echo(Task):
    \"\"\"Say a word.\"\"\"

    word: str = "yes"

    def __post_init__(self):
        if self.word == "no":
            raise GradatimError("the word cannot be no")

    def problems(self, split, count=None):
        return [Problem("echo/1", f"Say {self.word}\\n", self.word)][:count]

    def answer(self, problem, text):
        return text

@part
class Unrelated:
    pass

class Plain(Task):
    pass
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "echo_task.py"
    path.write_text(CLASS)
    return path


def test_a_class_in_a_file_or_a_module_is_a_task(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = guarded(make("tasks", {"name": f"{module}:Echo", "word": "ha"}))
    assert isinstance(task, Task)
    assert task.problems("test")[0].answer == "ha"
    monkeypatch.syspath_prepend(str(module.parent))
    assert make("tasks", "echo_task:Echo").check(Problem("p", "", "yes"), "yes").reward == 1.0


@pytest.mark.parametrize(
    ("reference", "options", "complaint"),
    [
        ("nowhere.py:Echo", {}, "there is no file 'nowhere.py'"),
        ("no_such_module:Echo", {}, "cannot import the module 'no_such_module': ModuleNotFoundError.*write its path"),
        ("{file}:Ecco", {}, r"has no class 'Ecco'; did you mean 'Echo'\?"),
        ("{file}:Echo", {"wrod": "x"}, "has no option 'wrod'; did you mean 'word'"),
        ("{file}:Echo", {"word": "no"}, "^the word cannot be no$"),
        ("{file}:Unrelated", {}, "is no task; derive the class from gradatim.tasks.base.Task"),
        ("{file}:Plain", {}, r"is no part; decorate the class with gradatim\.part\.part"),
    ],
)
def test_wrong_classes_are_refused(module: Path, reference: str, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(GradatimError, match=complaint):
        guarded(make("tasks", {"name": reference.replace("{file}", str(module)), **options}))


def test_a_file_that_breaks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("1 / 0\n")
    with pytest.raises(GradatimError, match=r"cannot import '.*broken\.py': ZeroDivisionError: division by zero"):
        make("tasks", f"{path}:Task")


# Verifiers


@pytest.mark.parametrize(
    ("verifier", "options", "reference", "right", "wrong"),
    [
        ("number", {}, "1,200", "so #### 1200.0", "so #### 12"),
        ("math", {}, "\\frac12", "\\boxed{0.5}", "\\boxed{0.25}"),
        ("choice", {}, "B", "The answer is (B).", "The answer is (A)."),
        ("exact", {}, "New York", "The answer is **new  york**.", "The answer is York."),
        ("exact", {}, "New York", "I think:\nNew York.", "New York\nI think."),
        ("regex", {"pattern": r"<a>(.*?)</a>"}, "Yes", "<a>no</a> <a> yes </a>", "<a>yes</a> <a>no</a>"),
        ("regex", {"pattern": r"[A-Z]{3}"}, "ABC", "XYZ ABC", "ABC XYZ"),
    ],
)
def test_verifiers(verifier: str, options: dict[str, Any], reference: str, right: str, wrong: str) -> None:
    made = make_verifier(verifier, options)
    verify = made.check
    assert verify(reference, right).reason == "correct"
    assert verify(reference, right).reward == 1.0
    assert verify(reference, wrong).reward == 0.0
    assert verify(reference, wrong).reason.startswith("wrong answer")
    assert verify(reference, "").reason.startswith("no final answer")
    assert verify(None, right).reason.startswith("the problem has no reference answer")
    assert made.answer(right) == made.answer(right + "\n") not in (None, made.answer(wrong))
    assert made.answer("") is None


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("regex", {}, "needs 'pattern'"),
        ("regex", {"pattern": "("}, "is no regular expression"),
        ("number", {"digits": 3}, "has no options, so 'digits' cannot be given"),
        ("regex", {"pattern": "x", "flags": 1}, "has only pattern, so 'flags'"),
    ],
)
def test_wrong_verifier_options_are_refused(name: str, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(GradatimError, match=complaint):
        make_verifier(name, options)


@given(st.text(), st.text())
def test_no_verifier_raises_on_any_text(reference: str, text: str) -> None:
    for name, options in (("number", {}), ("choice", {}), ("exact", {}), ("regex", {"pattern": "(a)|b+"})):
        made = make_verifier(name, options)
        verdict = made.check(reference, text)
        assert made.answer(text) is None or verdict.reason.startswith(("correct", "wrong answer", "the problem has no"))
        assert (verdict.reward == 1.0) == (verdict.reason == "correct")


# The example of the documentation


def test_the_example_works() -> None:
    task = own(EXAMPLE / "task.yaml")
    problems = [problem for split in ("train", "validation", "test") for problem in task.problems(split)]
    lines = (EXAMPLE / "problems.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted(problem.answer or "" for problem in problems) == sorted(
        str(json.loads(line)["answer"]) for line in lines
    )
    assert all(task.check(problem, f"#### {problem.answer}").reward == 1.0 for problem in problems)


def test_the_example_class_works() -> None:
    task = make("tasks", {"name": f"{EXAMPLE / 'task.py'}:Change", "largest": 50})
    problem = next(problem for problem in task.problems("train") if problem.answer == "36")
    assert task.check(problem, "25\n10\n1\nDone\n").reward == 1.0
    assert task.check(problem, "25\n10\nDone").reason == "wrong answer: 35 instead of 36"
    assert task.answer(problem, "30\n6\nDone") is None
    assert task.check(problem, "30\n6\nDone").reward == 0.0
    assert task.boundary.split("25\n10\n") == ["25\n", "10\n"]


# Classes that fail

FAILING = """
from gradatim.part import part
from gradatim.tasks.base import Task, Verdict
from gradatim.tree import Problem

@part
class Sums(Task):
    pass

    def problems(self, split, count=None):
        return [Problem(f"sums/{n}", "?", str(10 // n)) for n in range(0 if split == "test" else 1, 4)]

    def answer(self, problem, text):
        return str(int(text))

    def check(self, problem, text):
        if text == "nothing":
            return 0.5
        return Verdict(float(self.answer(problem, text) == problem.answer), "")
"""


def verify(task: Task, problem: Problem, text: str) -> Verdict:
    return run_to_end(task.verify(problem, text))


def failing(tmp_path: Path) -> Any:
    (tmp_path / "sums.py").write_text(FAILING)
    return guarded(make("tasks", f"{tmp_path / 'sums.py'}:Sums"))


def test_a_class_that_fails_names_method_line_and_error(tmp_path: Path) -> None:
    task = failing(tmp_path)
    assert isinstance(task, Task)
    with pytest.raises(GradatimError, match=r"Sums.problems failed for the split 'test' \(line 11 of sums.py\): Zero"):
        task.problems("test")


def test_one_failing_verdict_does_not_end_a_run_and_is_counted(tmp_path: Path) -> None:
    task = failing(tmp_path)
    problem = task.problems("train")[0]
    assert verify(task, problem, "10").reward == 1.0
    assert verifier_record(task).sentence() is None
    with pytest.warns(UserWarning, match=r"Sums.check failed for problem 'sums/1' \(line 14 of sums.py\): ValueError"):
        verdict = verify(task, problem, "ten")
    assert verdict.reward == 0.0
    assert verdict.reason.startswith("the verifier failed: Sums.check")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is said twice
        assert "gave a float for problem 'sums/1'" in verify(task, problem, "nothing").reason
    assert "failed for 2 of 3 solutions" in str(verifier_record(task).sentence())


def test_a_verifier_that_always_fails_is_said_plainly(tmp_path: Path) -> None:
    task = failing(tmp_path)
    with pytest.warns(UserWarning, match="count as wrong"):
        verify(task, task.problems("train")[0], "ten")
    assert "failed for every solution (1), so no figure here says anything" in str(verifier_record(task).sentence())


def test_a_guarded_task_is_the_task_in_everything_else(tmp_path: Path) -> None:
    path = tmp_path / "words.py"
    path.write_text(
        "from functools import cached_property\nfrom gradatim.part import part\n"
        "from gradatim.tasks.base import Task\n"
        "from gradatim.text.boundaries.sentence import Sentence\n\n\n@part\nclass Words(Task):\n"
        "    size: int = 3\n\n    @cached_property\n    def made(self):\n"
        "        return [self.size]\n\n    def problems(self, split, count=None):\n        return []\n\n"
        "    @property\n    def boundary(self):\n        return Sentence()\n\n"
        "    def answer(self, problem, text):\n        raise KeyError(text)\n\n"
        "    def reachable(self, problem, text):\n        return True\n"
    )
    plain = make("tasks", {"name": f"{path}:Words", "size": 5})
    task = guarded(plain)
    assert isinstance(task, type(plain))
    assert isinstance(task, Reachability)
    assert task.name == plain.name == f"{path}:Words"
    assert (task.made, task.made is task.made, task.size, task.problems("train")) == ([5], True, 5, [])
    assert task.boundary.split("a. b") == ["a.", " b"]
    assert guarded(Own(file="any.yaml")) == Own(file="any.yaml")
    with pytest.warns(UserWarning, match="KeyError"):
        assert verify(task, Problem("p", "", "1"), "x").reward == 0.0
    assert task.answer(Problem("p", "", "1"), "x") is None


def test_a_failing_answer_is_none_and_said_once(tmp_path: Path) -> None:
    task = failing(tmp_path)
    problem = task.problems("train")[0]
    with pytest.warns(UserWarning, match="Sums.answer failed for problem 'sums/1'"):
        assert task.answer(problem, "ten") is None
    tree = Tree(problem)
    leaf = tree.add(tree.root, Step((), "ten", end=EndReason.END_OF_TEXT))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grade(tree, task)
    assert (leaf.answer, leaf.reward) == (None, 0.0)
    assert leaf.notes["verdict"].startswith("the verifier failed: Sums.check failed")
    assert (verifier_record(task).asked, verifier_record(task).failed) == (1, 1)


SERVICE = """
import asyncio
from gradatim.part import part
from gradatim.tasks.base import Task, Verdict

@part
class Service(Task):
    def problems(self, split, count=None):
        return []

    def answer(self, problem, text):
        return text

    {} verify(self, problem, text):
        {}
        return Verdict(0.25, "asked", correct=True)
"""


def test_a_verifier_may_be_a_service_that_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "service.py"
    path.write_text(SERVICE.format("async def", "await asyncio.sleep(0.2)"))
    task, tree = guarded(make("tasks", f"{path}:Service")), Tree(Problem("p", "?"))
    leaves = [tree.add(tree.root, Step((), str(n), end=EndReason.END_OF_TEXT)) for n in range(20)]
    started = time.perf_counter()
    grade(tree, task)
    assert time.perf_counter() - started < 2, "they wait together"
    assert {(leaf.reward, leaf.correct, leaf.notes["verdict"]) for leaf in leaves} == {(0.25, True, "asked")}
    assert [leaf.answer for leaf in leaves] == [str(n) for n in range(20)]


def test_a_verify_that_is_not_asynchronous_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "service.py"
    path.write_text(SERVICE.format("def", "pass"))
    with pytest.raises(GradatimError, match=r"Service\.verify is not asynchronous; call it 'check'"):
        guarded(make("tasks", f"{path}:Service"))
