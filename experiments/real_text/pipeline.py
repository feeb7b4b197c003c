"""The experiment from text to numbers, stage by stage; what a stage made stays on disk (see :func:`stage`)."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from experiments.real_text.documents import Solution, language_documents
from experiments.real_text.evaluation import unscored_selection
from experiments.real_text.evaluation_data import EvaluationData, Scored, judge, score_everything
from experiments.real_text.language_model import perplexity, train_language_model
from experiments.real_text.reward_models import train_reward_model
from experiments.real_text.scoring import StepScores, likelihood_scores, reward_scores
from experiments.real_text.settings import LanguageModelSettings, RewardModelSettings, Settings
from experiments.real_text.stages import stage
from experiments.real_text.tables import WITHOUT_STEP_SCORES
from experiments.real_text.tokenizer import train_tokenizer
from gradatim.store.files import write_json
from gradatim.training import load_process_reward_model


def run(data: Path, output: Path, settings: Settings) -> dict[str, Any]:
    """Everything; also written to ``output / "results.json"``.

    Raises:
        GradatimError: if a file is missing or malformed, or ``output`` holds a run with other settings.
    """
    language_model = language_model_stage(data, output, settings.language_model)
    held_out = EvaluationData.read(data, settings.real_problems, settings.synthetic_problems)
    tokenizer = AutoTokenizer.from_pretrained(output / "language_model")
    results: dict[str, Any] = {
        "settings": asdict(settings),
        "language_model": {**language_model, **perplexity_stage(data, output)},
        "without_scores": unscored_selection(held_out.problems),
        "baselines": {
            "language model likelihood": _likelihood(output, tokenizer, held_out, settings),
            "random scores": _evaluation(output / "baselines" / "random", held_out, _at_random, settings),
            WITHOUT_STEP_SCORES: _evaluation(output / "baselines" / "fewer-steps", held_out, _by_length, settings),
        },
        "runs": [],
    }
    for name, variant in settings.runs():
        folder = output / "reward_models" / f"{name.replace(',', '').replace(' ', '-').lower()}-{variant.seed}"
        training = _training(data, output, tokenizer, variant, folder)
        model = partial(load_process_reward_model, folder / "model")
        judged = _evaluation(folder / "evaluation", held_out, _scorer(model, tokenizer, reward_scores), settings)
        results["runs"].append({"name": name, "seed": variant.seed, "training": training, **judged})
        write_json(output / "results.json", results)
    return results


def language_model_stage(data: Path, output: Path, settings: LanguageModelSettings) -> dict[str, Any]:
    """The tokenizer and the language model, saved together in ``output / "language_model"``."""

    def make(folder: Path) -> dict[str, Any]:
        start = time.monotonic()
        documents = language_documents(data, "train")
        tokenizer = train_tokenizer([document.text for document in documents], settings.vocabulary)
        tokenizer.save_pretrained(folder)
        model = train_language_model(tokenizer, documents, settings, folder / "checkpoints")
        model.save_pretrained(folder)
        return {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "documents": len(documents),
            "minutes": (time.monotonic() - start) / 60,
        }

    return stage(output / "language_model", asdict(settings), make)


def perplexity_stage(data: Path, output: Path) -> dict[str, Any]:
    """The language model's perplexity on the reference solutions of the test problems."""

    def make(folder: Path) -> dict[str, Any]:
        model = AutoModelForCausalLM.from_pretrained(output / "language_model")
        tokenizer = AutoTokenizer.from_pretrained(output / "language_model")
        return perplexity(model, tokenizer, language_documents(data, "test"))

    return stage(output / "perplexity", {}, make)


def _training(
    data: Path, output: Path, tokenizer: PreTrainedTokenizerBase, settings: RewardModelSettings, folder: Path
) -> dict[str, Any]:
    def make(place: Path) -> dict[str, Any]:
        start = time.monotonic()
        language_model = output / "language_model"
        result, record = train_reward_model(
            data, language_model, tokenizer, settings, place / "checkpoints", folder.name
        )
        result.model.save_pretrained(place)
        return {**record, "minutes": (time.monotonic() - start) / 60}

    return stage(folder / "model", asdict(settings), make)


def _likelihood(
    output: Path, tokenizer: PreTrainedTokenizerBase, held_out: EvaluationData, settings: Settings
) -> dict[str, Any]:
    model = partial(AutoModelForCausalLM.from_pretrained, output / "language_model")
    scored = _scorer(model, tokenizer, likelihood_scores)
    return _evaluation(output / "baselines" / "likelihood", held_out, scored, settings)


def _evaluation(folder: Path, held_out: EvaluationData, scored: Scored, settings: Settings) -> dict[str, Any]:
    """Score and judge; the scores are kept, so that other numbers can be made of them."""

    def score(place: Path) -> dict[str, Any]:
        write_json(place / "scores.json", score_everything(held_out, scored))
        return {}

    def numbers(place: Path) -> dict[str, Any]:
        scores = json.loads((folder / "scores" / "scores.json").read_text(encoding="utf-8"))
        result: dict[str, Any] = _rounded(judge(held_out, scores, settings.resamples))
        return result

    sizes = {"real_problems": settings.real_problems, "synthetic_problems": settings.synthetic_problems}
    stage(folder / "scores", sizes, score)
    return stage(folder / "numbers", {"resamples": settings.resamples}, numbers)


def _scorer(load: Any, tokenizer: PreTrainedTokenizerBase, measure: Any) -> Scored:
    """A function from solutions to step scores; the model is loaded when it is first needed."""
    loaded: list[Any] = []

    def scored(solutions: Sequence[Solution]) -> StepScores:
        if not loaded:
            loaded.append(load())
        scores: StepScores = measure(loaded[0], tokenizer, solutions)
        return [[round(score, 6) for score in part] for part in scores]

    return scored


def _at_random(solutions: Sequence[Solution]) -> StepScores:
    random = Random(0)
    return [[random.random() for _ in solution.steps] for solution in solutions]


def _rounded(value: Any) -> Any:
    """The numbers to five places, so that results are small files."""
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return value


def _by_length(solutions: Sequence[Solution]) -> StepScores:
    """Short solutions are trusted: every step has the same score, lower the more steps there are."""
    return [[1 / (1 + len(solution.steps))] * len(solution.steps) for solution in solutions]
