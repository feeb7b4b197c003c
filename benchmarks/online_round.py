"""What a round of an online training spends its time on, and what one optimizer for all rounds saves."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from benchmarks.measure import THREADS, alternate, result
from gradatim.engine.loading import placed
from gradatim.objectives import PolicyGradient
from gradatim.policies.transformers import TransformersPolicy
from gradatim.recipes import parse_recipe
from gradatim.run import Progress, online, run_recipe
from gradatim.store import TreeStore
from gradatim.supervision import TrajectoryAdvantages
from gradatim.training import TrainingSettings, learner, train
from gradatim.training.learner import Learner

PROBLEMS, SOLUTIONS = 16, 8
TARGET = 0.15


def run(quick: bool = False) -> list[dict[str, object]]:
    """GRPO on countdown with the policy that ships: 16 problems a round, 8 solutions each. First, the share of a
    round's wall time that is not spent in the model's forward and backward passes; ``ratio`` is that share. Then one
    update by a learner that lasts for all rounds, against one by a trainer that is made for it."""
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        return [_share(Path(folder), 6 if quick else 30), _update(Path(folder), 4 if quick else 12)]


def _share(folder: Path, rounds: int) -> dict[str, object]:
    recipe: Any = parse_recipe(
        {
            "name": "online-round",
            "task": {"name": "countdown", "seed": 1},
            "policy": {
                "model": "shipped:countdown", "device": "cpu", "sampling": {"max_step_tokens": 16, "max_steps": 4},
            },
            "problems": {"train": 200, "test": 0},
            "search": {"name": "sampling", "n": SOLUTIONS},
            "online": {"problems": PROBLEMS, "save_every": rounds},
            "rounds": rounds + 1,
            "learn": [{"objective": "policy_gradient", "data": ["trajectory_advantages"]}],
        },
        "online-round",
    )  # fmt: skip
    clock = _Clock()
    with clock:
        run_recipe(recipe, folder / "run", progress=Progress(Console(file=io.StringIO())))
    total, policy, updates = clock.shares()
    return result(
        "online_round",
        "the forward and backward passes of the policy",
        1 - policy - updates,
        0.0,
        TARGET,
        what=f"{PROBLEMS} problems, {SOLUTIONS} solutions each, countdown",
        meaning="share of wall time outside the model, lower is better",
        share_of_growing=round(policy, 4),
        share_of_updates=round(updates, 4),
        seconds_a_round=round(total, 4),
        rounds=rounds,
    )


class _Clock:
    """Times rounds, and within them what the model does: in the engine, by its own statistics, and in updates, by
    their forward and backward passes."""

    def __init__(self) -> None:
        self.updates = 0.0
        self.policies: list[TransformersPolicy] = []
        self.rounds: list[tuple[float, float, float]] = []  # seconds in all, in the engine, in updates
        self._patched: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> None:
        rounds: Any = online._Rounds
        self._patch(rounds, "_round", self._round)
        self._patch(learner, "weighted_loss", self._timed)
        self._patch(torch.Tensor, "backward", self._timed)
        begin = TransformersPolicy.__init__

        def made(policy: TransformersPolicy, *arguments: Any, **options: Any) -> None:
            begin(policy, *arguments, **options)
            self.policies.append(policy)

        self._patch(TransformersPolicy, "__init__", lambda _: made)

    def __exit__(self, *_: object) -> None:
        for owner, name, before in reversed(self._patched):
            setattr(owner, name, before)

    def shares(self) -> tuple[float, float, float]:
        """Seconds of a round, and the shares of engine and updates; the first round warms up and is not counted."""
        total, policy, updates = (sum(each) for each in zip(*self.rounds[1:], strict=True))
        return total / len(self.rounds[1:]), policy / total, updates / total

    def _patch(self, owner: Any, name: str, around: Callable[[Any], Any]) -> None:
        before = getattr(owner, name)
        self._patched.append((owner, name, before))
        setattr(owner, name, around(before))

    def _timed(self, work: Any) -> Any:
        def timed(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return work(*arguments, **options)
            finally:
                self.updates += time.perf_counter() - started

        return timed

    def _round(self, work: Any) -> Any:
        def timed(*arguments: Any) -> None:
            started, engine, updates = time.perf_counter(), self._engine(), self.updates
            work(*arguments)
            self.rounds.append((time.perf_counter() - started, self._engine() - engine, self.updates - updates))

        return timed

    def _engine(self) -> float:
        return sum(policy.statistics.seconds for policy in self.policies)


def _update(folder: Path, repeats: int) -> dict[str, object]:
    """One update on the first round's trees: by a learner, and by a trainer that is made for it."""
    with TreeStore(folder / "run" / "trees" / "rounds.jsonl") as store:
        trees = [tree for tree in store if tree.problem.id.endswith(", round 1")]
    terms = [term for tree in trees for term in TrajectoryAdvantages()(tree)]
    settings = TrainingSettings(learning_rate=1e-9, gradient_accumulation_steps=100, log_every=1)
    model, other = (placed(AutoModelForCausalLM, "shipped:countdown", dtype=torch.float32) for _ in range(2))
    lasting = Learner(model, PolicyGradient(), settings, rounds=1000)
    losses = {
        "learner": lasting.learn(terms, 1).loss,
        "trainer": train(other, PolicyGradient(), terms, settings).history[-1]["loss"],
    }
    works: dict[str, Callable[[], object]] = {
        "learner": lambda: lasting.learn(terms, 2),
        "trainer": lambda: train(other, PolicyGradient(), terms, settings),
    }
    seconds = alternate(works, repeats)
    return result(
        "online_update",
        "a trainer made for each round",
        seconds["trainer"] / seconds["learner"],
        abs(losses["learner"] - losses["trainer"]),
        1.0,
        what=f"one update on {len(trees)} trees, countdown",
        seconds=seconds,
    )
