"""What every stage of a run shares."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from gradatim.engine.reader import Reader
from gradatim.evaluation.page import printable
from gradatim.part import models_of
from gradatim.policies.base import Policy
from gradatim.recipes.recipe import POLICY, Recipe
from gradatim.run.contents import contents
from gradatim.run.models import Models
from gradatim.run.progress import Progress
from gradatim.run.run_folder import RunFolder
from gradatim.run.searching import Searcher, search_into
from gradatim.run.stages import BASE, FINE_TUNED, FINE_TUNING, Stage, dependencies, policies_of, stages_of
from gradatim.scorers.base import Scorer
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.store.trees import TreeStore
from gradatim.tasks.base import Task
from gradatim.tasks.guarded import guarded
from gradatim.tree import Problem, Tree


@dataclass(frozen=True, slots=True)
class Lent:
    """The task and the models of a run at one of its stages; a :class:`gradatim.scorers.base.Context`.

    Attributes:
        run: the run.
        trained: the stage that trained each model last; a model that is not there is as the recipe names it.
    """

    run: Run
    trained: Mapping[str, str | None]

    @property
    def task(self) -> Task:
        return self.run.task

    def policy(self, name: str = POLICY) -> Policy:
        return self.run.models.policy(name, self._path(name), self.run.recipe.model(name))

    def reader(self, name: str) -> Reader:
        return self.run.models.reader(name, self._path(name), self.run.recipe.model(name))

    def reward_model(self, name: str, key: str, layout: str = "auto") -> ProcessRewardScorer:
        return self.run.models.reward_model(name, self._path(name), self.run.recipe.model(name), key, layout)

    def _path(self, name: str) -> str:
        return self.run.path_of(name, self.trained.get(name))


@dataclass
class Run:
    """A run of ``recipe`` in ``folder``."""

    recipe: Recipe
    folder: RunFolder
    progress: Progress
    warned: set[str] = field(default_factory=set)

    def warn(self, text: str) -> None:
        """Say what a person should change, once, however many stages find it."""
        shown = " ".join(printable(text).split())
        if shown not in self.warned:
            self.warned.add(shown)
            self.progress.warn(shown)

    @cached_property
    def task(self) -> Task:
        return guarded(self.recipe.task)

    @cached_property
    def contents(self) -> dict[str, dict[str, str]]:
        """What the local files hold that the recipe names, as digests."""
        return contents(self.recipe)

    @cached_property
    def stages(self) -> dict[str, Stage]:
        """The stages of the run, in their order."""
        return stages_of(self.recipe)

    @cached_property
    def models(self) -> Models:
        """The models that are in memory."""
        return Models(self.task, lambda **known: self.folder.update("models", 0.0, **known))

    def problems(self, split: str) -> list[Problem]:
        """The problems of a split that the recipe asks for, each once."""
        count = getattr(self.recipe.problems, split)
        problems = self.task.problems(split, count) if count else []
        return list({problem.id: problem for problem in problems}.values())

    def path_of(self, model: str, training: str | None) -> str:
        """The model as a stage left it that trained it; without one, as the recipe names it."""
        if training is not None:
            return str(self.trained_folder(self.stages[training], model))
        options = self.recipe.model(model)
        if options.model == POLICY and model != POLICY:  # it begins as the policy that is searched first
            begun = self.recipe.demonstrated is not None and (self.folder.path / "fine-tuned").is_dir()
            return self.path_of(POLICY, FINE_TUNING if begun else None)
        return options.model

    def trained_folder(self, stage: Stage, model: str) -> Path:
        """Where a model goes that a stage trains: the last of its name is the run's result."""
        if stage.name == FINE_TUNING:
            return self.folder.path / "fine-tuned"
        return self.folder.path / model if stage.last else self.folder.path / "checkpoints" / stage.name / model

    @property
    def first_policy(self) -> str:
        """What the report calls the first policy that trees are grown with."""
        return BASE if self.recipe.demonstrated is None else FINE_TUNED

    @property
    def searched_policy(self) -> str:
        """What the report calls the policy that evaluation searches and chooses from."""
        return self.first_policy if self.recipe.evaluation.searched == "first" else list(policies_of(self.recipe))[-1]

    def judge(self) -> Scorer | None:
        """What judges steps in the evaluation, with its models as they are in the end."""
        part = self.recipe.evaluation.scorer
        if part is None:
            return None
        return part.open(Lent(self, {name: self.last_training(name) for name in models_of(part)}))

    def last_training(self, model: str) -> str | None:
        """The stage that trains a model last; ``None`` if nothing does."""
        return next(
            (
                stage.name
                for stage in self.stages.values()
                if stage.last and any(learn.model == model for learn in stage.learns)
            ),
            None,
        )

    def seed(self, name: str) -> int:
        """A seed for a part of the run; parts of different names draw independently."""
        return zlib.crc32(f"{self.recipe.seed} {name}".encode())

    def begin(self, stage: str, *outputs: Path) -> None:
        """Begin a stage, or go on with it; an outcome of other options is set aside, and a line says so."""
        reason = self.folder.begin(stage, dependencies(self.recipe, stage, self.contents), outputs)
        if reason is not None:
            self.progress.line(f"The stage {stage} is done anew: {reason}")

    def stage_records(self) -> dict[str, dict[str, Any]]:
        """What is known of each stage that ran, in the order of the stages."""
        records = {name: self.folder.record(name) for name in self.stages}
        return {name: record for name, record in records.items() if "seconds" in record}

    def search_trees(
        self,
        name: str,
        title: str,
        problems: Sequence[Problem],
        make_searcher: Callable[[], Searcher],
        *,
        seed: int,
        budget: int | None = None,
        in_flight: int = 64,
    ) -> list[Tree]:
        """A searched and graded tree for every problem, from the store ``name`` as far as they are there.

        A problem whose search fails alone (:class:`~gradatim.errors.ProblemError`) has none: it is counted in the
        stage's record, and tried again when the run is.

        Each finished tree is on the disk before the next one is counted. Models are loaded only if a tree is missing.
        A tree whose line was damaged since is missing: a warning says so, and it is searched again.

        Args:
            name: of the store and of the stage.
            title: what the progress line says.
            problems: what to search.
            make_searcher: loads the models.
            seed: of the trees; equal seeds give equal draws for equal problems.
            budget: tokens that a tree may cost.
            in_flight: trees at the same time.

        Returns:
            The trees in the order of ``problems``.

        Raises:
            GradatimError: if the search of every problem failed, or one failed in a way that concerns them all.
        """
        self.begin(name, self.folder.trees(name))

        def record(seconds: float, stored: int, failed: dict[str, str]) -> None:
            self.folder.update(name, seconds, problems=stored, failed=failed)

        known = self.folder.record(name).get("problems")
        with TreeStore(self.folder.trees(name), damaged="skip") as store:
            return search_into(
                store, title, problems, make_searcher, record, self.progress, known, self.task,
                seed=seed, budget=budget, in_flight=in_flight,
            )  # fmt: skip
