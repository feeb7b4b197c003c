"""A process reward model from rows of labelled steps, in one call: checked, trained, measured and saved."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from transformers import set_seed

from gradatim.engine.loading import load_config, load_tokenizer
from gradatim.engine.path_length import longest_path
from gradatim.engine.self_check import TRAINED, check_configuration
from gradatim.errors import GradatimError
from gradatim.evaluation.label_quality import JudgedQuestion, LabelQuality, constant_quality, label_quality
from gradatim.models import resolve_model
from gradatim.objectives import ProcessReward
from gradatim.part import options
from gradatim.run.fitting import curve, fit, outcome
from gradatim.run.held_out import HeldOutLoss, step_scores
from gradatim.run.labelled_data import LabelledData, collect, held_out_questions, judged_paths
from gradatim.run.labelled_rows import RowOptions, read_labelled_trees, tree_labels
from gradatim.run.models import pick_device
from gradatim.run.progress import Progress
from gradatim.run.together import by_first
from gradatim.run.training_folder import TrainingFolder
from gradatim.scorers.loading import LAYOUT_FILE, read_layout_file
from gradatim.store.published.base import STEP_END
from gradatim.supervision.terms import Term
from gradatim.text.boundaries.delimiter import Delimiter
from gradatim.text.prompts import ChatFormat
from gradatim.training import LoraSettings, TrainingResult, TrainingSettings, plan_rows
from gradatim.training.model_card import write_model_card
from gradatim.training.process_reward_model import load_process_reward_model
from gradatim.training.saving import save_process_reward_model
from gradatim.training.settings import Share

_MEASUREMENTS = 10  # of the held-out loss in one training, where it is not said how often
_MEASURE = ("held-out loss", -1.0)  # higher is better
_FEW_UPDATES = 20
_FEW_QUESTIONS = 20  # held out
_LEARNING_RATES = ((50_000_000, 1e-3), (400_000_000, 5e-5))  # for models of fewer parameters than the first number
_LORA_RATE, _RATE = 1e-4, 1e-5


@options
class ScorerOptions:
    """How a process reward model is trained from rows."""

    labels: Literal["soft", "hard"] = "soft"
    """`soft` learns labels as they are, `hard` makes them 1 above `threshold` and 0 elsewhere."""
    threshold: Share = 0.0
    """Of hard labels."""
    validation: Share = 0.05
    """The share of questions that are held out to measure by and to keep the best state by."""
    epochs: PositiveFloat = 2.0
    """Passes over the labels."""
    learning_rate: PositiveFloat | None = None
    """`None` for 1e-4 with adapters; without, 1e-3 for a model of fewer than 50 million parameters, 5e-5 for one of
    fewer than 400 million, else 1e-5."""
    tokens_per_batch: PositiveInt = 4096
    """Packed tokens in one forward pass; a solution that is longer is left out."""
    gradient_accumulation: PositiveInt = 1
    """Forward passes per update."""
    lora: bool = False
    """Train low-rank adapters, which are merged into the weights in the end."""
    bf16: bool | None = None
    """Compute in bfloat16 mixed precision; `None` does so on an accelerator that can."""
    chat: bool | None = None
    """Put problems as conversations in the model's chat template; `None` does as the model was trained where it is a
    reward model of ours, else does so if it has a template."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, ..."""
    seed: int = 0
    """Of the new head, the order of the rows and what is held out."""
    evaluate_every: PositiveInt | None = None
    """Updates between two measurements of the held-out loss; `None` measures ten times in all."""
    save_every: PositiveInt | None = None
    """Updates between two checkpoints; `None` saves as often as is measured."""
    patience: PositiveInt | None = None
    """Stop after so many measurements without a better one; `None` never stops early."""


@dataclass(frozen=True, slots=True)
class TrainedScorer:
    """What was trained.

    Attributes:
        folder: the model's.
        trained: how well it agrees with held-out labels; ``None`` where none were held out.
        constant: the same of one score for every step.
        summary: what training did, in a few words.
        before: whether all this was finished by an earlier call.
    """

    folder: Path
    trained: LabelQuality | None
    constant: LabelQuality | None
    summary: str
    before: bool = False

    @classmethod
    def from_record(cls, folder: Path, record: Mapping[str, Any], *, before: bool) -> TrainedScorer:
        measured = record["measured"]
        trained, constant = (
            (None, None) if measured is None else (LabelQuality.from_json(measured[key]) for key in _COLUMNS)
        )
        return cls(folder, trained, constant, record["summary"], before)


_COLUMNS = ("trained", "constant")


@by_first
def train_scorer_from_rows(
    sources: Sequence[str | os.PathLike[str]],
    init: str,
    output: str | os.PathLike[str],
    *,
    rows: RowOptions = RowOptions(),  # noqa: B008 (frozen)
    options: ScorerOptions = ScorerOptions(),  # noqa: B008 (frozen)
    fresh: bool = False,
    progress: Progress | None = None,
) -> TrainedScorer:
    """Train a process reward model on labelled steps, or go on with a training that was stopped.

    The same call goes on from the last checkpoint, in ``OUTPUT.training``; of a finished one it only tells the figures.

    Args:
        sources: see :func:`gradatim.run.labelled_rows.read_labelled_trees`.
        init: the decoder or reward model to start from: a hub id, a folder or ``shipped:NAME``.
        output: the folder for the model; it appears whole or not at all.
        rows: how the sources are read.
        options: how the model is trained.
        fresh: delete an earlier training of this output first.
        progress: shows what is going on; ``None`` shows it on standard output.

    Raises:
        GradatimError: if the output cannot be used, the model or the rows cannot be read, there is nothing to learn,
            or what was begun in ``output`` was begun with other options or rows.
    """
    progress = Progress() if progress is None else progress
    settings = {
        "rows": [os.fspath(source) for source in sources],
        "init": init,
        **asdict(rows),
        **{name: value for name, value in asdict(options).items() if name != "device"},
    }
    with TrainingFolder(output, settings, fresh=fresh) as folder:
        job = _Job(folder, init, options, rows, progress)
        data = job.read(sources)
        folder.check_data(data.digest)
        record = folder.finished()
        if record is None:
            job.train(data)
            record = folder.finished()
            assert record is not None, "the model was just saved"
            return TrainedScorer.from_record(folder.output, record, before=False)
        return TrainedScorer.from_record(folder.output, record, before=True)


class _Job:
    """One training, from the rows to the saved model."""

    def __init__(
        self, folder: TrainingFolder, init: str, options: ScorerOptions, rows: RowOptions, progress: Progress
    ) -> None:
        self.folder, self.init, self.options, self.rows, self.progress = folder, init, options, rows, progress
        self.device = pick_device(options.device)
        self.source = resolve_model(init)
        self.config = load_config(self.source)
        check_configuration(self.config, TRAINED)
        self.tokenizer = load_tokenizer(self.source)
        self.chat = self._chat()

    def read(self, sources: Sequence[str | os.PathLike[str]]) -> LabelledData:
        """Read and check all rows."""
        options, positions = self.options, longest_path(self.config)
        longest = min(options.tokens_per_batch, positions)
        with self.progress.stage("Reading rows") as stage:
            data = collect(
                read_labelled_trees(sources, self.rows),
                lambda tree: tree_labels(tree, self.rows, options.labels, options.threshold),
                self.tokenizer,
                self.chat,
                longest=longest,
                on_tree=lambda count: stage.note(f"{count:,} trees"),
            )
        data.check()
        values = [label.targets[0] for label in data.labels]
        right, wrong = values.count(1.0), values.count(0.0)
        between = f", {len(values) - right - wrong:,} in between" if right + wrong < len(values) else ""
        self.progress.line(
            f"{len(data.by_question):,} questions, {len(values):,} labelled steps: {right:,} right, {wrong:,} wrong"
            + between
        )
        if data.too_long:
            what = "the model reads" if longest == positions else "fit a batch (tokens per batch)"
            self.progress.line(f"{data.too_long:,} solutions are longer than the {longest:,} tokens that {what}: cut")
        if data.unreadable:
            self.progress.line(f"{data.unreadable:,} of {data.trees:,} trees are left out: {data.reason}")
        return data

    def train(self, data: LabelledData) -> None:
        """Train, measure and save."""
        options = self.options
        held_out = held_out_questions(data.by_question, options.validation, options.seed)
        if options.validation and not held_out:
            raise GradatimError(
                "all rows ask one question, so none can be held out; set validation=0", options=("validation=0",)
            )
        learned = {question: labels for question, labels in data.by_question.items() if question not in held_out}
        terms = [label for labels in learned.values() for label in labels]
        if len({term.targets for term in terms}) == 1:
            raise GradatimError(
                "all labels that are not held out are alike, so there is nothing to tell apart; give more rows, or "
                "hold out fewer by a lower validation",
                options=("validation",),
            )
        set_seed(options.seed % 2**31)
        with self.progress.loading("the model"):
            model = load_process_reward_model(self.source).to(self.device)
        settings = self._settings(model, len(plan_rows(terms, options.tokens_per_batch, seed=options.seed)))
        measured = [
            label for question in data.by_question if question in held_out for label in data.by_question[question]
        ]
        measure = HeldOutLoss(ProcessReward(), measured, options.tokens_per_batch)
        self._say_held_out(len(held_out), len(measured))
        with self.progress.stage(f"Training on {len(terms):,} step labels") as stage:
            result = fit(
                model,
                ProcessReward(),
                terms,
                settings,
                stage=stage,
                evaluate=measure if held_out else None,
                measure=_MEASURE,
            )
            stage.note(outcome(result, *_MEASURE))
        qualities = None
        if held_out:
            scores = step_scores(result.model, [term.ends[0] for term in measured], options.tokens_per_batch)
            questions = [_judged(data.by_question[each], scores) for each in data.by_question if each in held_out]
            mean = fmean(term.targets[0] for term in terms)
            qualities = (
                label_quality(questions, seed=options.seed),
                constant_quality(questions, mean, seed=options.seed),
            )
        self._save(result, data, len(terms), qualities)

    def _chat(self) -> ChatFormat | None:
        """How problems are put."""
        has_template = bool(self.tokenizer.chat_template)
        if self.options.chat is not None:
            chat, why = ChatFormat() if self.options.chat else None, "as asked"
            if chat is not None and not has_template:
                raise GradatimError(f"{self.init!r} has no chat template; set chat=False", options=("chat=False",))
        elif (Path(self.source) / LAYOUT_FILE).is_file():
            chat, why = read_layout_file(self.source), "as it was trained"
        elif has_template:
            chat, why = ChatFormat(), "since it has a chat template"
        else:
            chat, why = None, "since it has no chat template"
        how = "conversations" if chat is not None else "plain text"
        self.progress.line(f"{self.init}: problems are put as {how}, {why}")
        return chat

    def _settings(self, model: Any, batches: int) -> TrainingSettings:
        options, parameters = self.options, sum(each.numel() for each in model.parameters())
        rate = options.learning_rate
        if rate is None:
            by_size = next((rate for below, rate in _LEARNING_RATES if parameters < below), _RATE)
            rate = _LORA_RATE if options.lora else by_size
        updates = max(1, round(-(-batches // options.gradient_accumulation) * options.epochs))
        every = options.evaluate_every or max(1, -(-updates // _MEASUREMENTS))
        bf16 = options.bf16
        if bf16 is None:
            bf16 = self.device.startswith("cuda") and torch.cuda.is_bf16_supported()
        goes_on = "going on with" if self.folder.begun else "training"
        self.progress.line(
            f"{goes_on} {parameters:,} parameters{' by adapters' if options.lora else ''} on {self.device}: "
            f"{updates:,} updates, learning rate {rate:g}"
        )
        if updates < _FEW_UPDATES:
            self.progress.line(f"only {updates} updates: more epochs or fewer tokens per batch may teach more")
        return TrainingSettings(
            output_dir=self.folder.checkpoints,
            learning_rate=rate,
            epochs=options.epochs,
            tokens_per_batch=options.tokens_per_batch,
            gradient_accumulation_steps=options.gradient_accumulation,
            seed=options.seed % 2**31,
            bf16=bf16,
            lora=LoraSettings() if options.lora else None,
            save_every=options.save_every or every,
            resume=True,
            evaluate_every=every,
            patience=options.patience,
        )

    def _say_held_out(self, questions: int, steps: int) -> None:
        if not questions:
            self.progress.line("nothing is held out, so nothing will be measured")
            return
        few = "; few to measure by, hold out more (validation)" if questions < _FEW_QUESTIONS else ""
        self.progress.line(f"held out: {steps:,} steps of {questions:,} questions{few}")

    def _save(
        self,
        result: TrainingResult,
        data: LabelledData,
        learned: int,
        qualities: tuple[LabelQuality, LabelQuality] | None,
    ) -> None:
        trained = None if qualities is None else qualities[0]
        measured = None
        if qualities is not None:
            measured = {name: each.to_json() for name, each in zip(_COLUMNS, qualities, strict=True)}
        summary = outcome(result, *_MEASURE)
        record = {"data": data.digest, "summary": summary, "measured": measured, **curve(result)}

        def beside(partial: Path) -> None:
            self.folder.write_record(partial, record)
            write_model_card(
                partial,
                kind="process-reward-model",
                base_model=self.init,
                recipe=self.folder.settings,
                data=f"It learned from {learned:,} labelled steps of rows.",
                metrics={} if trained is None else _figures(trained),
                title=self.folder.output.resolve().name,
                chat=self.chat,
                boundary=Delimiter(at=(STEP_END,)),
                labels=2 if result.model.config.num_labels == 2 else 1,
                threshold=None if trained is None else trained.threshold,
                first_error_threshold=None if trained is None else trained.first_error_threshold,
            )

        save_process_reward_model(result.model, self.tokenizer, self.folder.output, self.chat, also=beside)


def _judged(labels: Sequence[Term], scores: Mapping[Any, float]) -> JudgedQuestion:
    place = {label.ends[0]: index for index, label in enumerate(labels)}
    return JudgedQuestion(
        labels=tuple(label.targets[0] for label in labels),
        scores=tuple(scores[label.ends[0]] for label in labels),
        solutions=tuple(
            tuple(place[node] for node in path) for part in _by_tree(labels) for path in judged_paths(part)
        ),
    )


def _by_tree(labels: Sequence[Term]) -> list[list[Term]]:
    trees: dict[int, list[Term]] = {}
    for label in labels:
        trees.setdefault(id(label.ends[0].tree), []).append(label)
    return list(trees.values())


def _figures(quality: LabelQuality) -> dict[str, float]:
    named = {
        "held-out loss": quality.loss, "held-out AUC": quality.auc, "held-out accuracy": quality.accuracy,
        "held-out first-error F1": quality.first_error_f1,
    }  # fmt: skip
    return {name: estimate.value for name, estimate in named.items() if estimate is not None}
