"""The command line: what every command prints, and that bad input is one sentence and a status that is not 0."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer
from typer.testing import CliRunner

import gradatim
from failing_server import serving
from gradatim.cli.main import app
from gradatim.models import resolve_model
from gradatim.part import names
from gradatim.search.regrowth.controlled_errors import CONTROLLED
from gradatim.store import trees
from small_runs import write_small_recipe

SHORT: dict[str, Any] = {
    "problems": {"train": 3, "test": 2},
    "judge": None,
    "objective": None,
    "evaluation": {"samples": 8, "greedy": False},
}


def call(*arguments: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def refused(*arguments: str) -> str:
    """The sentence with which a command fails."""
    result = call(*arguments)
    assert result.exit_code == 1, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return str(lines[0])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    result = call("run", str(write_small_recipe(folder, **SHORT)), "--output", str(folder / "run"))
    assert result.exit_code == 0, result.output
    assert "Policies on 2 held-out problems" in result.stdout
    assert "Growing trees, round 1: 3 of 3 problems" in result.stdout
    return folder / "run"


def test_version_and_recipes() -> None:
    assert call("--version").stdout.strip() == f"gradatim {gradatim.__version__}"
    assert "quickstart" in call("recipes").stdout


def test_help_loads_no_torch() -> None:
    code = (
        "import sys; from gradatim.cli.main import app; from typer.testing import CliRunner; "
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'matplotlib', 'datasets')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_run_says_when_everything_was_done_before(finished: Path) -> None:
    result = call("run", str(finished.parent / "small.yaml"), "--output", str(finished))
    assert result.exit_code == 0
    assert "all done before" in result.stdout


def test_show_tree_and_figure(finished: Path, tmp_path: Path) -> None:
    result = call("show", str(finished))
    assert result.exit_code == 0
    assert "Make" in result.stdout
    assert "nodes" in result.stdout
    problem = trees.TreeStore(finished / "trees" / "round-1.jsonl").ids()[1]
    picture = tmp_path / "tree.png"
    assert call("show", str(finished), "--problem", problem, "--figure", str(picture)).exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "there is no tree of problem" in refused("show", str(finished), "--problem", "nothing")
    assert "no trees called 'round-9'; did you mean 'round-1'" in refused("show", str(finished), "--trees", "round-9")
    assert "there is no run folder or file" in refused("show", str(tmp_path / "nowhere"))
    assert "has no trees" in refused("show", str(tmp_path))


@pytest.mark.parametrize(
    ("chosen", "columns"),
    [
        ("--format stepwise", {"prompt", "completions", "labels"}),
        ("--data sibling_pairs --set min_gap=0.05", {"prompt", "chosen", "rejected"}),
        ("--data step_labels", {"prompt", "completion", "label"}),
        ("--data right_solutions", {"prompt", "completion"}),
    ],
)
def test_export_of_a_run(chosen: str, columns: set[str], finished: Path, tmp_path: Path) -> None:
    target = tmp_path / "rows.jsonl"
    result = call("export", str(finished), *chosen.split(), "--output", str(target))
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert rows
    assert all(set(row) == columns for row in rows)
    told = yaml.safe_load((tmp_path / "rows.provenance.yaml").read_text(encoding="utf-8"))
    _, name, *options = chosen.replace("--set", "").split()
    assert told["rows"] == {"file": "rows.jsonl", "count": len(rows)}
    assert told["made_by"]["name"] == name
    assert [f"{key}={value}" for key, value in told["made_by"].items() if key == "min_gap"] == options
    assert told["made_by"].get("value") in ("value", None)
    assert (told["task"]["name"], told["policy"], told["recipe"]) == ("countdown", "shipped:countdown", "small")
    assert told["trees"]["file"] == str(finished / "trees" / "round-1.jsonl")
    assert told["trees"]["count"] == 3
    assert told["trees"]["steps_written_by"]


GOLDEN = Path(__file__).parent / "golden" / "published"


@pytest.mark.parametrize(
    "name",
    [file.stem for file in sorted(GOLDEN.glob("*.jsonl"))],
)
def test_published_data_is_imported_and_exported(name: str, tmp_path: Path) -> None:
    source, output, rows = GOLDEN / f"{name}.jsonl", tmp_path / "trees.jsonl", tmp_path / "rows.jsonl"
    result = call("import", str(source), "--output", str(output))
    assert result.exit_code == 0, result.output
    store = trees.TreeStore(output)
    steps = sum(len(tree) - 1 for tree in store)
    assert f"{len(store)} trees with {steps} steps" in result.stdout.replace("\n", " ")
    result = call("export", str(output), "--format", name.removesuffix("_soft"), "--output", str(rows))
    assert result.exit_code == 0, result.output
    again = tmp_path / "again.jsonl"
    assert call("import", str(rows), "--output", str(again)).exit_code == 0
    assert [tree.to_json() for tree in trees.TreeStore(again)] == [tree.to_json() for tree in store]


@pytest.fixture
def valued(tmp_path: Path) -> str:
    """One tree: a first step of value 0.25 with a right and a wrong end."""
    tree = gradatim.Tree(gradatim.Problem("p", "Q?\n"))
    first = tree.add(tree.root, gradatim.Step((), "a\n"))
    for text, reward in (("b", 1.0), ("c", 0.0)):
        leaf = tree.add(first, gradatim.Step((), text, end=gradatim.EndReason.END_OF_TEXT))
        leaf.reward = leaf.scores["value"] = reward
    first.scores["value"] = 0.25
    right, wrong = first.children
    wrong.notes[CONTROLLED] = [right.id]
    with trees.TreeStore(tmp_path / "trees.jsonl") as store:
        store.append(tree)
    return str(store.path)


def exported(source: str, *options: str) -> list[dict[str, Any]]:
    target = Path(source).with_name("rows.jsonl")
    result = call("export", source, *options, "--output", str(target))
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in target.read_text().splitlines()]


@pytest.mark.parametrize(("threshold", "first"), [("0.5", False), ("0", True)])
def test_every_export_of_labels_says_the_same_of_a_step(threshold: str, first: bool, valued: str) -> None:
    def rows(format: str) -> list[dict[str, Any]]:
        return exported(valued, "--format", format, "--set", f"threshold={threshold}")

    assert [row["labels"] for row in rows("stepwise")] == [[first, True], [first, False]]
    assert rows("math_aps")[1]["label"] == ["+" if first else "-", "-"]
    assert rows("prm800k")[0]["label"]["steps"][0]["completions"][0]["rating"] == (1 if first else -1)
    hard = ("--set", "kind=hard", "--set", f"threshold={threshold}")
    assert [row["label"] for row in exported(valued, "--data", "step_labels", *hard)] == [first, True, False]


def test_values_are_exported_as_they_are_in_formats_that_have_numbers(valued: str) -> None:
    soft = ("--set", "soft=true", "--set", "value=value")
    assert [row["labels"] for row in exported(valued, *soft)] == [[0.25, 1.0], [0.25, 0.0]]
    assert [row["label"] for row in exported(valued, "--format", "math_aps", *soft)] == [[0.25, 1.0], [0.25, 0.0]]


@pytest.mark.parametrize("data", [name for name in names("supervision") if name.endswith("_pairs")])
def test_preferences_of_steps_and_of_whole_solutions(data: str, valued: str) -> None:
    assert exported(valued, "--data", data) == [{"prompt": "Q?\na\n", "chosen": "b", "rejected": "c"}]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--format", "prm80k"], "there is no published format 'prm80k'; did you mean 'prm800k'?"),
        (["--data", "siblings_pairs"], "there is no construction 'siblings_pairs'; did you mean 'sibling_pairs'?"),
        (["--data", "step_labels", "--set", "threshhold=0"], "has no option 'threshhold'; did you mean 'threshold'?"),
        (["--format", "prm800k", "--set", "soft=true"], "the published format 'prm800k': has no option 'soft'"),
        (["--format", "stepwise", "--data", "step_labels"], "leave one out"),
        (
            ["--data", "step_labels", "--set", "value=label"],
            "no step has the score 'label'; choose --set value= from value",
        ),
        (["--set", "value=label"], "no step has the score 'label'; choose from value"),
    ],
)
def test_export_refuses(options: list[str], said: str, valued: str, tmp_path: Path) -> None:
    assert said in refused("export", valued, *options, "--output", str(tmp_path / "no"))


def test_import_options(tmp_path: Path) -> None:
    output = tmp_path / "trees.jsonl"
    source = str(GOLDEN / "prm800k.jsonl")
    neutral = ("--format", "prm800k", "--set", "neutral=bad")
    assert call("import", source, *neutral, "--limit", "1", "--output", str(output)).exit_code == 0
    (tree,) = trees.TreeStore(output)
    assert [node.scores["label"] for node in tree.nodes if node.scores.get("rating") == 0] == [0.0, 0.0]
    assert "exists already" in refused("import", source, "--output", str(output))
    other = str(tmp_path / "other.jsonl")
    assert "did you mean 'neutral'" in refused("import", source, *neutral[:3], "netural=bad", "--output", other)
    assert "--set needs --format" in refused("import", source, *neutral[2:], "--output", other)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n" + (GOLDEN / "rlhflow.jsonl").read_text())
    assert "of no known format" in refused("import", str(rows), "--output", other)
    assert "has no list in the field" in refused("import", str(rows), "--format", "rlhflow", "--output", other)
    assert list(tmp_path.glob("*other*")) == []
    result = call("import", str(rows), "--format", "rlhflow", "--skip-malformed", "--separate", "--output", other)
    assert result.exit_code == 0, result.output
    assert len(trees.TreeStore(other)) == 3


def test_solve_shows_tree_and_answer() -> None:
    result = call("solve", "Make 44 from 3 5 7 8", "--policy", "shipped:countdown", "--set", "n=4")
    assert result.exit_code == 0, result.output
    assert "Make 44 from 3 5 7 8" in result.stdout
    assert "tokens" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--max-steps", "1"], "4 of 4 solutions were cut off after 1 steps; raise --max-steps."),
        (["--max-step-tokens", "3"], "4 of 4 solutions were cut off within a step, at 3 tokens; raise --max-step-tok"),
        (["--budget", "20"], "solutions were cut off by the budget; raise --budget."),
        (["--budget", "1"], "Nothing was written, since the budget was too small; raise --budget."),
    ],
)
def test_solve_says_what_cut_its_solutions_off(arguments: list[str], expected: str) -> None:
    result = call("solve", "Make 44 from 3 5 7 8", "--policy", "shipped:countdown", "--set", "n=4", *arguments)
    assert result.exit_code == 0, result.output
    assert expected in result.output
    assert "more samples" not in result.output, "these would be cut off too"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--task", "countdwn"], "there is no task 'countdwn'; did you mean 'countdown'?"),
        (["--budget", "0"], "a budget of 0 tokens pays for nothing"),
        (["--search", "beam"], "beam search needs a scorer"),
        (["--policy", "shipped:countdwn"], "did you mean shipped:countdown?"),
        (["--device", "abacus"], "the device 'abacus' cannot be used here"),
    ],
)
def test_solve_refuses(arguments: list[str], expected: str) -> None:
    assert expected in refused("solve", "Make 44 from 3 5 7 8", "--policy", "shipped:countdown", *arguments)


def test_solve_asks_a_server_that_lists_no_models_for_the_one_that_is_named() -> None:
    with serving(lambda text, seed: ["3 + 4 = 7 | 7", "\n"]) as server:
        server.names = None
        arguments = ("solve", "Make 7 from 3 4", "--policy", server.url, "--set", "n=1")
        assert refused(*arguments).endswith("does not list its models; name one with --model NAME")
        result = call(*arguments, "--model", "mine")
    assert result.exit_code == 0, result.output
    assert {request["model"] for request in server.requests} == {"mine"}
    assert "3 + 4 = 7 | 7 ✓" in result.output


def test_solve_refuses_what_is_no_problem() -> None:
    assert "is no countdown problem" in refused("solve", "Make tea", "--policy", "shipped:countdown")
    assert "the problem is empty" in refused("solve", " ", "--policy", "shipped:countdown", "--task", "gsm8k")


def run_small(tmp_path: Path, *arguments: str, **changes: Any) -> list[str]:
    recipe = write_small_recipe(tmp_path, **{**SHORT, **changes})
    return ["run", str(recipe), "--output", str(tmp_path / "run"), *arguments]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--set", "trees.budget=0"], "trees.budget must be greater than 0"),
        (["--set", "task.name=chess"], "there is no task 'chess'"),
        (["--set", "problems.trian=3"], "unknown key 'trian' in 'problems'; did you mean 'train'?"),
        (["--set", "policy.model=./nowhere"], "there is no folder './nowhere'"),
    ],
)
def test_run_refuses_bad_recipes(arguments: list[str], expected: str, tmp_path: Path) -> None:
    assert expected in refused(*run_small(tmp_path, *arguments))


def test_run_refuses_a_folder_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    sentence = refused(*run_small(tmp_path, "--set", f"policy.model={tmp_path / 'empty'}"))
    assert "does not hold a model" in sentence


def test_run_refuses_a_tokenizer_without_end_token(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(resolve_model("shipped:countdown"), model)
    (model / "generation_config.json").unlink()
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "eos_token_id": None}))
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(model)
    assert "no end token" in refused(*run_small(tmp_path, "--set", f"policy.model={model}"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "problems.jsonl' has no problems: it is empty"),
        ('{"question": "1+1?", "answer": "#### 2"}\n{"question": \n', "problems.jsonl' is not valid JSON"),
    ],
)
def test_run_refuses_bad_problem_files(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "problems.jsonl").write_text(text)
    task = {"name": "gsm8k", "source": str(tmp_path / "problems.jsonl")}
    assert expected in refused(*run_small(tmp_path, task=task))


def test_run_refuses_a_recipe_for_a_missing_task(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "name: mine\npolicy: {model: shipped:countdown}\nproblems: {train: 1, test: 1}\nsearch: {name: grow}\n"
    )
    assert "the key 'task' is missing in the recipe" in refused("run", str(path))


def test_full_disk_is_one_sentence_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = trees._write_all
    calls = 0

    def full(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        written(*arguments)

    arguments = run_small(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(trees, "_write_all", full)
        sentence = refused(*arguments)
    assert "there is no space left" in sentence
    assert "what was finished is kept" in sentence
    assert len(trees.TreeStore(tmp_path / "run" / "trees" / "round-1.jsonl")) == 1
    assert call(*arguments).exit_code == 0
    assert len((tmp_path / "run" / "trees" / "round-1.jsonl").read_bytes().splitlines()) == 3


def test_unwritable_output_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    recipe = write_small_recipe(tmp_path, **SHORT)
    assert "cannot be" in refused("run", str(recipe), "--output", str(tmp_path / "file" / "run"))


def test_kinds_of_recipes_go_to_their_own_command(tmp_path: Path) -> None:
    assert "use 'gradatim pretrain countdown-policy'" in refused("run", "countdown-policy")
    assert "use 'gradatim run quickstart'" in refused("pretrain", "quickstart", "--output", str(tmp_path))


def test_pretrain_makes_a_policy_that_can_be_used(tmp_path: Path) -> None:
    settings = ["size.hidden=16", "size.layers=1", "size.heads=2", "size.feed_forward=16", "training.demonstrations=64"]
    settings += ["training.batch_size=16", "task.largest_target=20", "task.largest_result=40"]
    overrides = [part for setting in settings for part in ("--set", setting)]
    result = call("pretrain", "countdown-policy", "--output", str(tmp_path / "model"), *overrides)
    assert result.exit_code == 0, result.output
    solved = call("solve", "Make 12 from 3 4 5 5", "--policy", str(tmp_path / "model"), "--set", "n=2")
    assert solved.exit_code == 0, solved.output


def test_a_bug_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(trees, "_write_all", broken)
    result = call(*run_small(tmp_path))
    assert isinstance(result.exception, RuntimeError)


def test_errors_advise_in_words_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "problems.jsonl").write_text('{"question": "1+1?", "answer": "#### 2"}\n{"question": \n')
    task = {"name": "gsm8k", "source": str(tmp_path / "problems.jsonl")}
    assert refused(*run_small(tmp_path, task=task)).endswith("skip such records with --set task.on_bad_line=skip")
    rows = tmp_path / "rows.jsonl"
    rows.write_text((GOLDEN / "rlhflow.jsonl").read_text() + "{}\n")
    sentence = refused("import", str(rows), "--output", str(tmp_path / "trees.jsonl"))
    assert sentence.endswith("pass over such rows with --skip-malformed")


def test_a_run_whose_verifier_always_fails_says_so_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(
        "from gradatim.part import part\nfrom gradatim.tasks.countdown import Countdown\n\n\n"
        "@part\nclass Broken(Countdown):\n"
        "    def check(self, problem, text):\n        return undefined\n"
    )
    arguments = run_small(tmp_path, task={"name": f"{path}:Broken"})
    with pytest.warns(UserWarning, match=r"failed for every solution .*Broken.check .*line 8 of broken.py"):
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"name: mine\ntask: {name: countdown}\n", "is no file of trees but YAML"),
        (b'{"prompt": "1", "completions": []}\n', "is no file of trees but other JSON"),
        (b'{"prompt": "1"', "is no file of trees but other JSON"),
        (b"\x80\x02\xff\x00binary", "is no file of trees but binary data"),
        (b"a letter\n", "is no file of trees but other text"),
        (b"", "is empty"),
    ],
)
def test_show_and_export_refuse_what_is_no_file_of_trees(content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert what in refused("show", str(path))
    assert what in refused("export", str(path), "--output", str(tmp_path / "rows.jsonl"))
    assert path.read_bytes() == content


def test_show_refuses_unknown_scores(finished: Path) -> None:
    assert "has the score 'valeu'; did you mean 'value'" in refused("show", str(finished), "--by", "valeu")


def test_show_in_an_ascii_terminal(finished: Path) -> None:
    command = [sys.executable, "-m", "gradatim", "show", str(finished)]
    shown = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, timeout=60)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.isascii()
    assert b"|-- " in shown.stdout or b"+-- " in shown.stdout or b"`-- " in shown.stdout
    assert b"?" not in shown.stdout


def test_damaged_lines_are_passed_over_when_asked_for(finished: Path, tmp_path: Path) -> None:
    lines = (finished / "trees" / "round-1.jsonl").read_bytes().splitlines(keepends=True)
    path = tmp_path / "trees.jsonl"
    path.write_bytes(lines[0] + lines[1].replace(b"1", b"2") + lines[2])
    assert "read the rest with --skip-damaged" in refused("show", str(path))
    assert "one of 2 in" in call("show", str(path), "--skip-damaged").stdout


def test_a_command_that_trains_nothing_makes_no_use_of_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    result = call("check", "quickstart")
    assert result.exit_code == 1
    assert "'gradatim check' makes no use of 2 processes; start it alone, without torchrun" in result.output
