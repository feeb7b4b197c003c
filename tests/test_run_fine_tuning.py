"""Fine-tuning on worked solutions: which, in which tokens, and what comes out in a run."""

from __future__ import annotations

import io
import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safetensors.torch import load_file

from gradatim.engine.loading import load_tokenizer
from gradatim.errors import GradatimError
from gradatim.models import resolve_model
from gradatim.recipes import Recipe, load_recipe
from gradatim.run import Progress, learning, run_recipe
from gradatim.run.learning import solution_nodes
from gradatim.tasks import Countdown, Gsm8k, Records
from gradatim.tasks.demonstrations import worked_solutions
from gradatim.text.prompts import ChatFormat, prompt_tokens
from gradatim.tree import Problem
from small_runs import small_content, small_recipe
from tiny_models import byte_pair_tokenizer

TRAINING = {"learning_rate": 1.0e-3, "tokens_per_batch": 256, "save_every": 2, "evaluate_every": 2}
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def run(recipe: Recipe, folder: Path) -> tuple[dict[str, Any], str]:
    shown = io.StringIO()
    report = run_recipe(recipe, folder, progress=Progress(Console(file=shown, width=200)))
    return report, shown.getvalue()


def gsm8k_source(folder: Path, count: int) -> str:
    path = folder / "problems.jsonl"
    rows = [{"question": f"What is {n} + 1?", "answer": f"{n} + 1 = {n + 1}\n#### {n + 1}"} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_generated_demonstrations_are_of_the_problems_behind_those_that_are_grown() -> None:
    task = Countdown()
    found = worked_solutions(task, "train", 3, behind=4)
    assert [problem.id for problem, _ in found] == [problem.id for problem in task.problems("train", 7)[4:]]
    assert all(task.check(problem, solution).reward == 1.0 for problem, solution in found)


def test_records_give_their_solutions_and_share_problems_only_where_there_are_too_few(tmp_path: Path) -> None:
    task = Gsm8k(source=gsm8k_source(tmp_path, 20), validation_fraction=0.1)
    problems = task.problems("train")
    assert [problem for problem, _ in worked_solutions(task, "train", 4, behind=6)] == problems[6:10]
    shared = worked_solutions(task, "train", 8, behind=len(problems) - 5)
    assert [problem for problem, _ in shared] == [*problems[-5:], *reversed(problems[-8:-5])]
    assert shared[0][1] == problems[-5].data["solution"]


def test_a_solution_that_the_verifier_refuses_is_not_taught(tmp_path: Path) -> None:
    rows = [
        {"question": "1 + 1?", "answer": "2", "solution": "1 + 1 = 2\n#### 2"},
        {"question": "1 + 2?", "answer": "3", "solution": "1 + 2 = 4\n#### 4"},
        {"question": "1 + 3?", "answer": "4"},
    ]
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = {"train": "train", "validation": "none", "test": "test"}
    task = Records(source=str(tmp_path), template="Q: {question}\n", verifier="number", splits=splits)
    assert [solution for _, solution in worked_solutions(task, "train", 3)] == ["1 + 1 = 2\n#### 2"]


@pytest.mark.parametrize("plain", [True, False])
def test_a_demonstration_reads_as_the_policy_sees_it(plain: bool) -> None:
    """The tokens are those of the whole document; in a conversation the turn's own end closes it."""
    question, solution = "What is 4 + 4?", "4 + 4 = 8\n#### 8"
    tokenizer = byte_pair_tokenizer([question, solution, TEMPLATE])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end>"]})
    tokenizer.chat_template = TEMPLATE
    problem = Problem("p", f"Q: {question}\n", "8", {"question": question})
    chat = None if plain else ChatFormat()
    [node] = solution_nodes([(problem, solution)], tokenizer, chat)
    assert (node.text, node.finished) == (solution, True)
    assert list(node.tree.root.step.tokens) == prompt_tokens(tokenizer, problem, chat)
    document = f"Q: {question}\n{solution}<eos>" if plain else f"<user>{question}<end>\n<assistant>{solution}<end>"
    assert tokenizer.decode(node.tokens) == document
    assert node.step.tokens[-1] == tokenizer.convert_tokens_to_ids("<eos>" if plain else "<end>")


def fine_tuned_recipe() -> Recipe:
    """Without validation problems, so that the last state of every training is the one that is kept."""
    problems = {"train": 6, "test": 4}
    return small_recipe(demonstrations={"demonstrations": 12, "training": TRAINING}, problems=problems)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("fine-tuned")
    return folder, *run(fine_tuned_recipe(), folder)


def test_the_report_measures_the_policy_before_and_after(whole: tuple[Path, dict[str, Any], str]) -> None:
    folder, report, shown = whole
    assert list(report["policies"]) == ["base", "fine_tuned", "step_dpo"]
    assert report["compared_with"] == {"fine_tuned": "base", "step_dpo": "fine_tuned"}
    assert report["stages"]["fine-tuning"]["examples"] == 12
    before, after = (report[name]["pass_at_1"] for name in ("base", "fine_tuned"))
    assert report["comparison"]["fine_tuned"]["pass@1"]["value"] == pytest.approx(after - before)
    assert "12 worked solutions" in report["about"]["fine-tuning"]
    assert "Fine-tuning the policy, on 12 worked solutions" in shown
    assert "worked solutions of the task countdown" in (folder / "fine-tuned" / "README.md").read_text()


def test_everything_behind_builds_on_the_fine_tuned_policy(whole: tuple[Path, dict[str, Any], str]) -> None:
    folder, report, _ = whole
    base = load_file(Path(resolve_model("shipped:countdown")) / "model.safetensors")
    tuned = load_file(folder / "fine-tuned" / "model.safetensors")
    assert any((tuned[name].float() != base[name].float()).any() for name in base)
    assert report["searched"] == "fine_tuned"
    sampled = (folder / "trees" / "evaluate-fine-tuned.jsonl").read_text()
    assert sampled != (folder / "trees" / "evaluate-base.jsonl").read_text()
    single = next(row for row in report["search"] if row["method"] == "sampling")
    assert single["accuracy"] == pytest.approx(report["fine_tuned"]["pass_at_1"])


def test_a_run_that_was_stopped_in_fine_tuning_goes_on(
    whole: tuple[Path, dict[str, Any], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, report, _ = whole
    recipe = fine_tuned_recipe()

    def stop(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("gradatim.run.one_training.save_model", stop)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, tmp_path)
    assert not (tmp_path / "fine-tuned").exists()
    again, _ = run(recipe, tmp_path)
    for name in ("base", "fine_tuned", "step_dpo", "comparison"):
        assert again[name] == report[name]
    _, shown = run(recipe, tmp_path)
    assert "Fine-tuning the policy: done before" in shown


def test_adapters_are_merged_into_the_fine_tuned_policy(tmp_path: Path) -> None:
    content = small_content(
        judge=None,
        objective=None,
        demonstrations={"demonstrations": 8, "training": {**TRAINING, "lora": {"rank": 4}}},
        evaluation={"samples": 2, "pass_at": [1], "majority": [2], "best_of": [], "greedy": False},
    )
    (tmp_path / "r.yaml").write_text(json.dumps(content))
    recipe = load_recipe(tmp_path / "r.yaml")
    assert isinstance(recipe, Recipe)
    report, _ = run(recipe, tmp_path / "run")
    assert list(report["policies"]) == ["base", "fine_tuned"]
    base = load_file(Path(resolve_model("shipped:countdown")) / "model.safetensors")
    tuned = load_file(tmp_path / "run" / "fine-tuned" / "model.safetensors")
    assert base.keys() == tuned.keys()
    solve = next(command for command in report["next"] if command.startswith("gradatim solve"))
    assert str(tmp_path / "run" / "fine-tuned") in solve
    assert load_tokenizer(tmp_path / "run" / "fine-tuned").eos_token_id is not None


def test_a_task_without_solutions_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    for split in ("train", "test"):
        rows = [{"question": f"Is {n} odd?", "answer": str(n)} for n in range(9)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "name": "records",
        "source": str(tmp_path),
        "template": "Q: {question}\n",
        "verifier": "number",
        "splits": {"train": "train", "validation": "none", "test": "test"},
    }
    recipe = small_recipe(demonstrations={"demonstrations": 4}, task=task)
    with pytest.raises(GradatimError, match=r"task records has none that its verifier accepts; give its records"):
        run(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "trees").exists()


def test_fewer_solutions_than_asked_for_are_an_error_with_their_number(tmp_path: Path) -> None:
    recipe = small_recipe(
        demonstrations={"demonstrations": 50},
        task={"name": "gsm8k", "source": gsm8k_source(tmp_path, 20), "validation_fraction": 0.1},
    )
    with pytest.raises(GradatimError, match=r"has 16 worked solutions .* lower demonstrations in learn to 16"):
        run(recipe, tmp_path / "run")


def test_problems_that_are_grown_too_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small_recipe(demonstrations={"demonstrations": 12, "training": TRAINING})
    shown = list(islice(Countdown().demonstrations("train"), 12))
    monkeypatch.setattr(learning, "worked_solutions", lambda *args, **options: shown)

    def stop(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(learning, "fit", stop)
    output = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path, progress=Progress(Console(file=output, width=200)))
    assert "6 of the problems to fine-tune on are grown too: train has too few others" in output.getvalue()


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ({"model": "http://127.0.0.1:1/v1"}, "learn.0 trains policy, but policy.model is a server's"),
        ({"model": "shipped:countdown", "quantization": "8bit"}, "learn.0 trains policy, but policy.quant"),
    ],
)
def test_a_policy_that_cannot_be_trained_cannot_be_fine_tuned(policy: dict[str, Any], reason: str) -> None:
    with pytest.raises(GradatimError, match=reason):
        small_recipe(demonstrations={"demonstrations": 4}, objective=None, judge=None, evaluation={}, policy=policy)
