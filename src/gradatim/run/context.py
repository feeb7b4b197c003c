"""What every stage of a run shares."""

from __future__ import annotations

import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from gradatim.budget import Budget
from gradatim.errors import GradatimError, ProblemError
from gradatim.evaluation.page import printable
from gradatim.event_loop import run_to_end
from gradatim.policies.base import Policy
from gradatim.policies.transformers import TransformersPolicy
from gradatim.recipes.schema import Recipe
from gradatim.run.contents import contents
from gradatim.run.parts import load_policy, load_scorer
from gradatim.run.progress import Progress
from gradatim.run.run_folder import RunFolder
from gradatim.run.stages import dependencies, stages_of
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.search.many import search_many
from gradatim.store.trees import TreeStore
from gradatim.tasks.base import Task, grade_nodes
from gradatim.tasks.guarded import guarded
from gradatim.tree import Problem, Tree

BASE = "base"
FINE_TUNED = "fine_tuned"


@dataclass(frozen=True, slots=True)
class Searcher:
    """One way to search a tree, with the models that it runs.

    Attributes:
        search: searches one tree.
        policy: proposes steps.
        scorer: guides or scores, where there is one.
    """

    search: Callable[[Tree], Awaitable[object]]
    policy: Policy
    scorer: ProcessRewardScorer | None = None

    def release(self, tree: Tree) -> None:
        self.policy.release(tree)
        if self.scorer is not None:
            self.scorer.release(tree)


@dataclass
class Run:
    """A run of ``recipe`` in ``folder``."""

    recipe: Recipe
    folder: RunFolder
    progress: Progress
    warned: set[str] = field(default_factory=set)
    _kept_policy: Policy | None = None
    _kept_scorer: ProcessRewardScorer | None = None
    _begun: bool = False

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

    def problems(self, split: str) -> list[Problem]:
        """The problems of a split that the recipe asks for, each once."""
        count = getattr(self.recipe.problems, split)
        problems = self.task.problems(split, count) if count else []
        return list({problem.id: problem for problem in problems}.values())

    def policy_path(self, round_number: int) -> str:
        """The model of the policy after so many rounds; 0 is the first that is searched."""
        if round_number == 0:
            return self.recipe.policy.model if self.recipe.fine_tuning is None else str(self.fine_tuned_path)
        if round_number == self.recipe.rounds:
            return str(self.folder.path / "policy")
        return str(self.folder.path / "checkpoints" / f"round-{round_number}" / "policy")

    @property
    def first_policy(self) -> str:
        """What the report calls the first policy that is searched."""
        return BASE if self.recipe.fine_tuning is None else FINE_TUNED

    @property
    def fine_tuned_path(self) -> Path:
        return self.folder.path / "fine-tuned"

    @property
    def scorer_path(self) -> Path:
        return self.folder.path / "scorer"

    def keep_models(self) -> None:
        """Load the first policy, and the scorer that is used as it is, for the first stage that asks for them.

        What that stage does not take is let go when the next one begins, so that training has the memory.

        Raises:
            GradatimError: if a model cannot be loaded or used.
        """
        self._kept_policy = self.load_policy(self.recipe.policy.model)
        if self.recipe.scorer is not None and not self.recipe.scorer.train:
            self._kept_scorer = self.load_scorer()

    def load_policy(self, model: str) -> Policy:
        policy = self._kept_policy if model == self.recipe.policy.model else None
        if policy is None:
            policy = load_policy(model, self.recipe.policy, self.task)
        else:
            self._kept_policy = None
        if isinstance(policy, TransformersPolicy):  # of others, nobody here knows the size
            self.folder.update("models", 0.0, policy_parameters=policy.tree_model.parameters)
        return policy

    def load_scorer(self) -> ProcessRewardScorer | None:
        """The scorer, trained or as it was, if the recipe has one."""
        options = self.recipe.scorer
        if options is None:
            return None
        if self._kept_scorer is not None:
            scorer, self._kept_scorer = self._kept_scorer, None
        elif options.train:
            scorer = load_scorer(str(self.scorer_path), self.recipe.policy)
        else:
            scorer = load_scorer(options.init, self.recipe.policy, options.layout)
        layout = "own" if scorer.layout is None else scorer.layout.name
        self.folder.update("models", 0.0, scorer_layout=layout)
        return scorer

    def seed(self, name: str) -> int:
        """A seed for a part of the run; parts of different names draw independently."""
        return zlib.crc32(f"{self.recipe.seed} {name}".encode())

    def begin(self, stage: str, *outputs: Path) -> None:
        """Begin a stage, or go on with it; an outcome of other options is set aside, and a line says so."""
        if self._begun:
            self._kept_policy = self._kept_scorer = None
        self._begun = True
        reason = self.folder.begin(stage, dependencies(self.recipe, stage, self.contents), outputs)
        if reason is not None:
            self.progress.line(f"The stage {stage} is done anew: {reason}")

    def stage_records(self) -> dict[str, dict[str, Any]]:
        """What is known of each stage that ran, in the order of the stages."""
        records = {name: self.folder.record(name) for name in stages_of(self.recipe)}
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
        finish: Callable[[Tree], None] | None = None,
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
            finish: called with each graded tree before it is stored.

        Returns:
            The trees in the order of ``problems``.

        Raises:
            GradatimError: if the search of every problem failed, or one failed in a way that concerns them all.
        """
        found: dict[str, Tree] = {}
        failed: dict[str, str] = {}  # why, by the problem's id
        self.begin(name, self.folder.trees(name))
        with TreeStore(self.folder.trees(name), damaged="skip") as store:
            missing = [problem for problem in problems if problem.id not in store]
            if missing:
                with self.progress.loading("the model"):
                    searcher = make_searcher()
                started = time.perf_counter()
                try:
                    with self.progress.stage(title, len(problems), len(problems) - len(missing)) as stage:

                        async def search(tree: Tree) -> None:
                            await searcher.search(tree)
                            await grade_nodes(tree.leaves(), self.task)

                        def on_failed(tree: Tree, error: ProblemError) -> None:
                            failed[tree.problem.id] = str(error)
                            searcher.release(tree)
                            stage.advance(tree.budget.total)

                        def on_done(tree: Tree) -> None:
                            if finish is not None:
                                finish(tree)
                            store.append(tree)
                            searcher.release(tree)
                            found[tree.problem.id] = tree
                            stage.advance(tree.budget.total)

                        trees = (Tree(problem, seed=seed, budget=Budget(budget)) for problem in missing)
                        work = search_many(trees, search, in_flight, on_done, on_failed)
                        run_to_end(_then_close(work, searcher))
                finally:
                    seconds = time.perf_counter() - started
                    self.folder.update(name, seconds, problems=len(store), failed=failed)
                if len(failed) == len(problems):
                    raise GradatimError(
                        f"{title}: all of {len(problems):,} problems failed; the first: {next(iter(failed.values()))}"
                    )
            else:
                self.progress.line(f"{title}: {len(problems):,} of {len(problems):,} problems, all done before")
                if self.folder.record(name).get("problems") != len(store):  # a kill came between the last tree and this
                    self.folder.update(name, 0.0, problems=len(store), failed={})
            done = [problem for problem in problems if problem.id not in failed]
            return [found.get(problem.id) or _stored(store, problem) for problem in done]


async def _then_close(work: Awaitable[object], searcher: Searcher) -> None:
    try:
        await work
    finally:
        await searcher.policy.close()


def _stored(store: TreeStore, problem: Problem) -> Tree:
    tree = store.get(problem.id)
    assert tree is not None, "every problem was searched or stored"
    return tree
