"""The stage of an online training: all rounds of growing trees and learning from them, on one set of models in place.

What a round needs beside the models follows from its number: its problems, the seeds of its trees, the order of its
updates, its place in the schedule of the learning rate. So a training that was stopped goes on from its last checkpoint
and ends as one that was not. The rounds behind the checkpoint that were finished have their trees on the disk and are
learned from again; the one that was under way is grown anew.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from gradatim.budget import POLICY, Budget
from gradatim.errors import GradatimError, ProblemError
from gradatim.policies.base import Policy
from gradatim.run.context import Lent, Run
from gradatim.run.held_out import sampled_accuracy
from gradatim.run.journal import Journal
from gradatim.run.nothing_learned import no_terms
from gradatim.run.online_models import Best, OnlineModels, read_checkpoint, write_checkpoint
from gradatim.run.online_report import summed
from gradatim.run.outcomes import Outcomes, outcomes_of, says_what_ends, warnings_of
from gradatim.run.progress import StageProgress
from gradatim.run.searching import Searcher, search_all
from gradatim.run.stages import ONLINE
from gradatim.run.trees import grown_value, tree_searcher
from gradatim.store.trees import ALL_ROUNDS, TreeStore
from gradatim.tree import Problem, Tree

_PATIENCE = 10  # rounds in which nothing was learned at all, until that is an error


def learn_online(run: Run) -> list[Tree]:
    """Run all rounds, or those that are left, and save the models; returns the trees of the first round.

    Raises:
        GradatimError: if the first rounds hold nothing to learn from, says why; if no problem of a round could be
            searched; also see :class:`~gradatim.run.online_models.OnlineModels`.
    """
    stage, folder = run.stages[ONLINE], run.folder
    targets = dict.fromkeys(run.trained_folder(stage, learn.model) for learn in stage.learns)
    run.begin(ONLINE, folder.trees(ALL_ROUNDS), folder.journal, folder.path / "checkpoints" / ONLINE, *targets)
    with TreeStore(folder.trees(ALL_ROUNDS), damaged="skip") as store:
        rounds = _Rounds(run, store)
        if folder.record(ONLINE).get("done") and all(target.is_dir() for target in targets):
            run.progress.line(f"Learning online: {run.recipe.rounds:,} rounds, all done before")
        else:
            rounds.run_all()
        return rounds.stored(1)


class _Rounds:
    """The rounds of one run."""

    def __init__(self, run: Run, store: TreeStore) -> None:
        assert run.recipe.online is not None, "the recipe is an online one"
        self.run, self.recipe, self.options, self.store = run, run.recipe, run.recipe.online, store
        self.stage = run.stages[ONLINE]
        self.checkpoints = run.folder.path / "checkpoints" / ONLINE
        self.journal = Journal(run.folder.journal)
        self.problems = run.problems("train")
        self.validation = run.problems("validation")
        self.best: Best | None = None
        self.recent: deque[list[Tree]] = deque(maxlen=self.options.reuse)
        self.remark = ""

    def run_all(self) -> None:
        started = time.perf_counter()
        try:
            with self.run.progress.loading("the models"):
                models = OnlineModels(self.run, self.stage)
                searcher = tree_searcher(self.run, self.stage.uses or {})
            first = self._resumed(models) + 1
            with self.run.progress.stage("Learning online", self.recipe.rounds, first - 1, unit="rounds") as stage:
                if first == 1:
                    self._before(models)
                for number in range(first, self.recipe.rounds + 1):
                    self._round(number, models, searcher, stage)
                self._finish(models)
        finally:
            self.run.folder.update(ONLINE, time.perf_counter() - started)

    def stored(self, number: int) -> list[Tree]:
        """The trees of a finished round from the store; none where one of them is missing."""
        failed = self.journal.rounds.get(number, {}).get("failed", {})
        found = [self.store.get(each.id) for each in self._problems_of(number) if each.id not in failed]
        return [] if None in found else [tree for tree in found if tree is not None]

    def _resumed(self, models: OnlineModels) -> int:
        """Take up the last checkpoint, and return its round; 0 where there is none."""
        found = read_checkpoint(self.checkpoints)
        if found is None:
            return 0
        number, states, self.best = found
        models.restore(states)
        for earlier in range(max(1, number + 1 - self.options.reuse), number + 1):
            self.recent.append(self.stored(earlier))
        return number

    def _before(self, models: OnlineModels) -> None:
        """The evaluation before all rounds, where there is one."""
        known = self.journal.rounds.get(0, {})
        measured = self._evaluation(0, models, known)
        if measured and not known:
            self.journal.append({"round": 0, **measured, "at": _now()})

    def _round(self, number: int, models: OnlineModels, searcher: Searcher, stage: StageProgress) -> None:
        """One round: a new one, or one behind the checkpoint that was finished before the training was stopped."""
        record = self.journal.rounds.get(number)
        trees = [] if record is None else self.stored(number)
        if record is not None and trees:
            self._learn(trees, number, models)
            self._evaluation(number, models, record)
            stage.advance()
        else:
            record = self._new(number, models, searcher, stage)
            stage.advance(sum(record["tokens"].values()))
        if number == min(_PATIENCE, self.recipe.rounds):
            self._check_learning(number)
        if number % self.options.save_every == 0:
            write_checkpoint(self.checkpoints, number, models.states(optimizers=True), self.best)
        self.remark = _remark(record, self.best)
        stage.note(self.remark)

    def _new(self, number: int, models: OnlineModels, searcher: Searcher, stage: StageProgress) -> dict[str, Any]:
        """Grow trees, learn from them, evaluate where it is time; what became of it, as it stands in the journal."""
        failed: dict[str, str] = {}
        started = time.perf_counter()
        trees = self._grown(number, searcher, stage, failed)
        outcomes = self._outcomes(trees, failed)
        if number == 1:  # soon enough to be put right
            for text in self._warnings(outcomes):
                self.run.warn(text)
        grown = time.perf_counter()
        learned = self._learn(trees, number, models)
        seconds = {"growing": round(grown - started, 3), "learning": round(time.perf_counter() - grown, 3)}
        measured = self._evaluation(number, models)
        figures = {**_figures(trees), "outcomes": outcomes.to_json(), "failed": failed}
        record = {"round": number, **figures, "learned": learned, **measured}
        self.journal.append({**record, "seconds": seconds, "at": _now()})
        return record

    def _learn(self, trees: list[Tree], number: int, models: OnlineModels) -> list[dict[str, Any]]:
        learned = models.learn([tree for earlier in self.recent for tree in earlier] + trees, number)
        self.recent.append(trees)
        return learned

    def _problems_of(self, number: int) -> list[Problem]:
        """The problems of a round, each with an id of its own: all take their turns, in an order of each turn's own."""
        size = min(self.options.problems, len(self.problems))
        turn, place = divmod(number - 1, len(self.problems) // size)
        order = random.Random(self.run.seed(f"problems {turn}")).sample(range(len(self.problems)), len(self.problems))
        chosen = [self.problems[each] for each in order[place * size : (place + 1) * size]]
        return [replace(problem, id=f"{problem.id}, round {number}") for problem in chosen]

    def _grown(self, number: int, searcher: Searcher, stage: StageProgress, failed: dict[str, str]) -> list[Tree]:
        """Grow the trees of a round and store them; problems whose search failed alone are noted in ``failed``."""
        problems, done = self._problems_of(number), 0

        def on_done(tree: Tree) -> None:
            nonlocal done
            done += 1
            stage.note(", ".join(filter(None, [self.remark, f"{done} of {len(problems)} trees"])))

        def on_failed(tree: Tree, error: ProblemError) -> None:
            failed[tree.problem.id] = str(error)

        seed, limit = self.run.seed(f"trees {number}"), self.recipe.trees.budget
        trees = search_all(
            [Tree(problem, seed=seed, budget=Budget(limit)) for problem in problems],
            searcher,
            self.run.task,
            self.recipe.trees.in_flight,
            on_done,
            on_failed,
        )
        if not trees:
            first = next(iter(failed.values()))
            raise GradatimError(f"all of {len(problems):,} problems of round {number:,} failed; the first: {first}")
        self.store.append(*(tree for tree in trees if not self._is_stored(tree)))
        return trees

    def _is_stored(self, tree: Tree) -> bool:
        """Whether this very tree is in the store, from a round that was broken off."""
        before = self.store.get(tree.problem.id)
        return before is not None and before.to_json() == tree.to_json()

    def _outcomes(self, trees: Sequence[Tree], failed: Mapping[str, str]) -> Outcomes:
        """What became of the solutions of a round."""
        sampling = self.recipe.policy.sampling
        return outcomes_of(
            trees,
            asked=self.options.problems,
            max_step_tokens=sampling.max_step_tokens,
            max_steps=sampling.max_steps,
            value=grown_value(self.recipe),
            failed=len(failed),
        )

    def _warnings(self, outcomes: Outcomes) -> list[str]:
        """What is wrong with how solutions ended."""
        found = warnings_of(outcomes, "trees.budget", varied=False, ends=says_what_ends(self.run.task))
        if outcomes.failed:
            found.append(f"{outcomes.failed:,} of {outcomes.asked:,} searches failed (rounds.jsonl says why)")
        return [f"Learning online: {text}" for text in found]

    def _evaluation(self, number: int, models: OnlineModels, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Evaluate the policy after a round where it is time, keep the state that is best so far, and go back to it
        where that is asked for.

        Args:
            number: of the round.
            models: those that learn.
            known: what the journal says of the round; what was measured then is not measured again.

        Returns:
            The ``evaluation``, and the round that was ``rolled_back_to``; nothing where it is not time.
        """
        if not self.validation or (number % self.options.evaluate_every and number != self.recipe.rounds):
            return {}
        evaluation = (known or {}).get("evaluation") or self._measure()
        back = self._compared(number, evaluation["accuracy"], models)
        return {"evaluation": evaluation} | ({} if back is None else {"rolled_back_to": back})

    def _measure(self) -> dict[str, Any]:
        started = time.perf_counter()
        policy: Policy = Lent(self.run, self.stage.uses or {}).policy()
        accuracy, tokens = sampled_accuracy(self.run, policy, self.validation, self.options.samples)
        return {"accuracy": accuracy, "tokens": tokens, "seconds": round(time.perf_counter() - started, 3)}

    def _compared(self, number: int, accuracy: float, models: OnlineModels) -> int | None:
        """Keep a state that is better than all before; the round that was gone back to, where one was so much worse."""
        if self.best is None or accuracy > self.best.accuracy:
            of_use = self.options.keep == "best" or self.options.roll_back is not None
            states = models.states(optimizers=self.options.roll_back is not None) if of_use else {}
            self.best = Best(number, accuracy, states)
        elif self.options.roll_back is not None and accuracy < self.best.accuracy - self.options.roll_back:
            models.restore(self.best.states)
            return self.best.round
        return None

    def _check_learning(self, number: int) -> None:
        """Refuse to go on where the first rounds, up to this one, held nothing to learn from."""
        for place, learn in enumerate(self.stage.learns):
            if not any(each["learned"][place]["examples"] for each in self.journal.until(number) if each["round"]):
                trees = [tree for each in range(1, number + 1) for tree in self.stored(each)]
                raise no_terms(self.recipe, learn, trees)

    def _finish(self, models: OnlineModels) -> None:
        """Save the models, and say in the stage's record what they learned."""
        rounds = [each for each in self.journal.until(self.recipe.rounds) if each["round"]]
        learned = [
            {name: sum(each["learned"][place][name] for each in rounds) for name in ("examples", "updates")}
            | {"what": what}
            for place, what in enumerate(models.what)
        ]
        kept, measured = self.recipe.rounds, self.journal.rounds[self.recipe.rounds].get("evaluation")
        accuracy = None if measured is None else measured["accuracy"]
        if self.options.keep == "best" and self.best is not None:
            models.restore(self.best.states)
            kept, accuracy = self.best.round, self.best.accuracy
        models.finish(learned, {} if accuracy is None else {"held-out pass@1": accuracy})
        until = [each for each in rounds if each["round"] <= kept]
        updates = sum(entry["updates"] for each in until for entry in each["learned"] if entry["model"] == POLICY.name)
        outcomes = summed(rounds)
        known = {"learned": learned, "rounds": self.recipe.rounds, "best_round": kept, "best_update": updates}
        told = {"outcomes": outcomes.to_json(), "warnings": self._warnings(outcomes)}
        self.run.folder.update(ONLINE, 0.0, done=True, **known, **told)


def _figures(trees: Sequence[Tree]) -> dict[str, Any]:
    """The mean reward of the solutions of a round, the share of them that is right, the tokens that the policy
    generated, and those that each account read or wrote."""
    leaves = [leaf for tree in trees for leaf in tree.leaves() if not leaf.is_root]
    rewards = [(leaf.reward, leaf.multiplicity) for leaf in leaves if leaf.reward is not None]
    right = sum(leaf.multiplicity for leaf in leaves if leaf.correct)
    tokens: dict[str, int] = {}
    for tree in trees:
        for name, spent in tree.budget.accounts.items():
            tokens[name] = tokens.get(name, 0) + spent.tokens
    return {
        "reward": sum(reward * count for reward, count in rewards) / max(sum(count for _, count in rewards), 1),
        "accuracy": right / max(sum(leaf.multiplicity for leaf in leaves), 1),
        "generated": sum(tree.budget.written(POLICY.name) for tree in trees),
        "tokens": tokens,
    }


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _remark(record: Mapping[str, Any], best: Best | None) -> str:
    """Where the training is, in a few words."""
    parts = [f"reward {record['reward']:.3f}"]
    losses = [entry["loss"] for entry in record["learned"] if entry["updates"]]
    parts += [f"loss {' and '.join(f'{loss:.4f}' for loss in losses)}"] if losses else []
    if best is not None:
        parts.append(f"best {100 * best.accuracy:.1f} % (round {best.round:,})")
    return ", ".join(parts)
