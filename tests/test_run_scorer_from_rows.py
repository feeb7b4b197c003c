"""A process reward model from rows in one call: every format, held out by question, stopped anywhere, bad input."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load_file
from typer.testing import CliRunner

from gradatim.cli.main import app
from gradatim.cli.train_scorer import print_trained
from gradatim.errors import GradatimError
from gradatim.evaluation.label_quality import JudgedQuestion, LabelQuality, constant_quality, label_quality
from gradatim.run.labelled_data import held_out_questions
from gradatim.run.labelled_rows import RowOptions, read_labelled_trees
from gradatim.run.progress import Progress
from gradatim.run.scorer_from_rows import ScorerOptions, TrainedScorer, train_scorer_from_rows
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.store import TreeStore
from gradatim.store.published import read_published
from json_lines import write_lines
from tiny_models import byte_pair_tokenizer, tiny_causal, tiny_classifier

GOLDEN = Path(__file__).parent / "golden" / "published"
FAST = ScorerOptions(validation=0.25, epochs=2, learning_rate=1e-2, tokens_per_batch=512, device="cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tiny_causal(vocabulary=300, positions=600).save_pretrained(folder)
    byte_pair_tokenizer(["a step"], 300).save_pretrained(folder)
    return str(folder)


def example_rows(questions: int = 12) -> list[dict[str, Any]]:
    """Two solutions to each question: one right, one that is wrong in its second step."""
    rows: list[dict[str, Any]] = []
    for number in range(questions):
        prompt = f"What is {number} and 1?\n"
        for right in (True, False):
            end = f"good: #### {number + 1}" if right else f"bad: #### {number + 2}"
            rows.append({"prompt": prompt, "completions": ["count\n", end], "labels": [True, right]})
    return rows


def train(rows: Any, init: str, output: Path, said: io.StringIO | None = None, **options: Any) -> TrainedScorer:
    sources = rows if isinstance(rows, list) else [rows]
    console = Console(file=io.StringIO() if said is None else said, width=80)
    return train_scorer_from_rows(sources, init, output, progress=Progress(console), **{"options": FAST, **options})


LABELLED = sorted(
    path.name for path in GOLDEN.glob("*.jsonl") if path.stem != "prompt_completion"
)  # all of it is right


@pytest.mark.parametrize("name", LABELLED)
def test_rows_of_every_format_become_a_model(name: str, model: str, tmp_path: Path) -> None:
    options = ScorerOptions(validation=0, epochs=1, device="cpu")
    result = train(GOLDEN / name, model, tmp_path / "prm", options=options)
    assert result.trained is None
    scorer = ProcessRewardScorer.from_pretrained(tmp_path / "prm")
    assert scorer.layout is not None
    assert scorer.layout.name == "own"
    assert "process-reward-model" in (tmp_path / "prm" / "README.md").read_text()
    assert not (tmp_path / "prm.training").exists()


def test_a_model_is_measured_on_held_out_questions_and_told_again(model: str, tmp_path: Path) -> None:
    rows, said = write_lines(tmp_path / "rows.jsonl", example_rows()), io.StringIO()
    first = train(rows, model, tmp_path / "prm", said)
    assert first.trained is not None
    assert first.constant is not None
    assert (first.trained.questions, first.trained.steps, first.trained.solutions) == (3, 9, (6, 3))
    assert first.constant.auc is not None
    assert first.constant.auc.value == 0.5
    assert "held out: 9 steps of 3 questions" in said.getvalue()
    assert "12 questions, 36 labelled steps: 24 right, 12 wrong" in said.getvalue()
    again = train(rows, model, tmp_path / "prm")
    assert again.before
    assert again.trained == first.trained
    with pytest.raises(GradatimError, match=r"other options \(epochs was 2\.0 and is now 3\.0\)"):
        train(rows, model, tmp_path / "prm", options=ScorerOptions(validation=0.25, epochs=3, learning_rate=1e-2,
              tokens_per_batch=512))  # fmt: skip
    write_lines(rows, example_rows(13))
    with pytest.raises(GradatimError, match="the rows are not those"):
        train(rows, model, tmp_path / "prm")
    assert not train(rows, model, tmp_path / "prm", fresh=True).before


def test_trees_folders_and_patterns_are_sources(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("train_a", "train_b", "test_a"):
        write_lines(data / f"{name}.jsonl", example_rows(2))
    for source in (data, data / "train_*.jsonl"):
        assert len(list(read_labelled_trees([source], RowOptions()))) == 4
    run = tmp_path / "run"
    with TreeStore(run / "trees" / "round-1.jsonl") as store:
        for tree in read_published(data / "train_a.jsonl"):
            store.append(tree)
    assert len(list(read_labelled_trees([run, run / "trees" / "round-1.jsonl"], RowOptions()))) == 4
    assert len(list(read_labelled_trees([run, data], RowOptions(limit=3)))) == 3
    for neutral, kept in (("good", 1.0), ("drop", None)):
        options = RowOptions(format={"prm800k": {"neutral": neutral}}, limit=1)
        (tree,) = read_labelled_trees([GOLDEN / "prm800k.jsonl"], options)
        assert {node.scores.get("label") for node in tree.nodes if node.scores.get("rating") == 0} == {kept}
    with pytest.raises(GradatimError, match="has no option 'netural'; did you mean 'neutral'"):
        RowOptions(format={"prm800k": {"netural": "drop"}})
    with pytest.raises(GradatimError, match="no trees called 'round-2'"):
        list(read_labelled_trees([run], RowOptions(trees="round-2")))
    with pytest.raises(GradatimError, match="no file matches"):
        list(read_labelled_trees([tmp_path / "none*.jsonl"], RowOptions()))


@given(st.sets(st.text(max_size=5)), st.floats(0, 0.99), st.integers(0, 5))
def test_some_questions_are_held_out_never_all_whatever_their_order(
    questions: set[str], share: float, seed: int
) -> None:
    held_out = held_out_questions(questions, share, seed)
    assert held_out == held_out_questions(sorted(questions, reverse=True), share, seed)
    assert held_out <= questions
    if len(questions) > 1 and share:
        assert len(held_out) == min(max(1, round(share * len(questions))), len(questions) - 1)
    else:
        assert not held_out


def test_one_question_is_on_one_side_however_it_is_written(model: str, tmp_path: Path) -> None:
    """Rows of one question in two files, one of them with other spaces and capitals, count as one question."""
    first = write_lines(tmp_path / "first.jsonl", example_rows(4))
    other = [{**row, "prompt": row["prompt"].upper().replace(" ", "  ")} for row in example_rows(4)]
    said = io.StringIO()
    result = train([first, write_lines(tmp_path / "second.jsonl", other)], model, tmp_path / "prm", said)
    assert "4 questions" in said.getvalue()
    assert result.trained is not None
    assert (result.trained.questions, result.trained.steps) == (1, 6)


KILLED = """
import os, signal, sys
from gradatim.run.scorer_from_rows import ScorerOptions, train_scorer_from_rows
from gradatim.training.trainer import TreeTrainer
step, calls = TreeTrainer.training_step, []
def training_step(self, *args, **options):
    calls.append(1)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *args, **options)
TreeTrainer.training_step = training_step
rows, model, output = sys.argv[1:]
options = ScorerOptions(validation=0.25, epochs=2, learning_rate=1e-2, tokens_per_batch=128, device="cpu")
train_scorer_from_rows([rows], model, output, options=options)
"""


def test_a_killed_training_ends_with_the_same_model(model: str, tmp_path: Path) -> None:
    rows, output = write_lines(tmp_path / "rows.jsonl", example_rows()), tmp_path / "killed"
    options = ScorerOptions(validation=0.25, epochs=2, learning_rate=1e-2, tokens_per_batch=128, device="cpu")
    whole = train(rows, model, tmp_path / "whole", options=options)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(rows), model, str(output)], timeout=300, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not output.exists()
    assert (tmp_path / "killed.training" / "checkpoints" / "checkpoint-3").is_dir()
    said = io.StringIO()
    resumed = train(rows, model, output, said, options=options)
    assert "going on with" in said.getvalue()
    assert resumed.trained == whole.trained
    expected, found = (load_file(folder / "model.safetensors") for folder in (tmp_path / "whole", output))
    assert expected.keys() == found.keys()
    assert all(bool((found[name] == value).all()) for name, value in expected.items())


def test_long_solutions_are_cut_and_told(model: str, tmp_path: Path) -> None:
    rows = example_rows(4)
    rows[0]["completions"][1] = "long " * 200
    said = io.StringIO()
    train(write_lines(tmp_path / "rows.jsonl", rows), model, tmp_path / "prm", said)
    assert "1 solutions are longer than the 512 tokens" in said.getvalue()


def test_bad_input_is_one_sentence(model: str, tmp_path: Path) -> None:
    rows = write_lines(tmp_path / "rows.jsonl", example_rows(2))
    alike = write_lines(tmp_path / "alike.jsonl", [row for row in example_rows(3) if row["labels"][1]])
    one = write_lines(tmp_path / "one.jsonl", example_rows(1))
    nothing = tmp_path / "trees.jsonl"
    with TreeStore(nothing) as store:
        for tree in read_published(rows):
            for node in tree.nodes:
                node.scores.clear()
            store.append(tree)
    many = tmp_path / "many"
    tiny_classifier(labels=5, vocabulary=300).save_pretrained(many)
    byte_pair_tokenizer(["a step"], 300).save_pretrained(many)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    prm = tmp_path / "prm"
    cases: list[tuple[Any, str, Path, str]] = [
        (nothing, model, prm, "none of the 2 trees has a labelled step"),
        (alike, model, prm, "all 6 labels are 1, so there is nothing to tell apart"),
        (one, model, prm, "all rows ask one question"),
        (rows, str(tmp_path / "other"), prm, "does not hold a model"),
        (rows, str(many), prm, "classifier of 5"),
        (rows, model, tmp_path / "other", "holds something else"),
        (rows, model, tmp_path / "file", "is a file"),
        (rows, model, tmp_path / "file" / "prm", "cannot be read or written"),
        (tmp_path / "none.jsonl", model, prm, "there is no file or folder"),
    ]
    for source, init, output, message in cases:
        with pytest.raises(GradatimError, match=message):
            train(source, init, output)
        assert not prm.exists()
        assert not (tmp_path / "prm.training").exists(), message
    assert (tmp_path / "other" / "notes.txt").read_text() == "mine"
    with pytest.raises(GradatimError, match=r"validation must be less than 1, got 1\.0"):
        ScorerOptions(validation=1.0)


def test_the_command_prints_figures_and_what_comes_next(model: str, tmp_path: Path) -> None:
    rows = write_lines(tmp_path / "rows.jsonl", example_rows())
    arguments = ["train-scorer", str(rows), "--init", model, "--output", str(tmp_path / "prm"), "--validation", "0.3",
                 "--learning-rate", "0.01", "--device", "cpu"]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for part in ("first-error F1", "AUC", "one score for all", "gradatim evaluate-scorer", "models.scorer.model="):
        assert part in result.stdout
    assert "trained before" in CliRunner().invoke(app, arguments).stdout
    changed = CliRunner().invoke(app, [*arguments, "--seed", "1"])
    assert changed.exit_code == 1
    assert "seed was 0 and is now 1" in changed.stderr
    assert "--fresh" in changed.stderr


@pytest.mark.parametrize(
    ("questions", "said"), [(1, "1 question; few questions, no intervals"), (24, "95 % intervals")]
)
def test_figures_of_few_questions_have_no_intervals(
    questions: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a single one there is none, at which the command broke off."""
    judged = [JudgedQuestion((1.0, 1.0, 0.0), (0.2, 0.3, 0.4), ((0, 1), (0, 2)))] * questions
    result = TrainedScorer(Path("prm"), label_quality(judged), constant_quality(judged, 2 / 3), "3 updates")
    print_trained(result, Console(width=100))
    shown = capsys.readouterr().out
    assert said in shown
    assert (" to " in shown.partition("no better")[0]) == (questions == 24)
    assert "no better than one score for all steps" in shown


def test_quality_by_hand() -> None:
    """A scorer that is right about all, on questions of one right and one wrong solution."""
    question = JudgedQuestion((1.0, 1.0, 0.0), (0.9, 0.8, 0.1), ((0, 1), (0, 2)))
    best = label_quality([question] * 4)
    assert best.auc is not None
    assert best.first_error_f1 is not None
    assert (best.auc.value, best.accuracy.value, best.first_error_f1.value) == (1.0, 1.0, 1.0)
    assert (best.threshold, best.first_error_threshold) == (0.8, 0.8)
    assert LabelQuality.from_json(json.loads(json.dumps(best.to_json()))) == best
    constant = constant_quality([question] * 4, 2 / 3)
    assert constant.accuracy.value == pytest.approx(2 / 3)
    assert constant.first_error_f1 is not None
    assert constant.first_error_f1.value == 0.0
    assert constant.threshold is None
    assert constant.loss.value == pytest.approx(0.6365, abs=1e-4)  # the entropy of 2/3
