"""The models that learn in the rounds of an online training, in place, and their checkpoints."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import set_seed

from gradatim.errors import GradatimError
from gradatim.models import resolve_model
from gradatim.part import models_of
from gradatim.run.context import Run
from gradatim.run.one_training import Training
from gradatim.run.stages import Stage
from gradatim.scorers.loading import has_own_layout
from gradatim.store.files import atomic_folder, remove_folder, write_json
from gradatim.supervision.terms import Term
from gradatim.training.checkpoints import is_whole
from gradatim.training.learner import Learner, LearnerState
from gradatim.training.preparation import left_out
from gradatim.training.saving import disk_errors
from gradatim.tree import Tree

States = Mapping[str, LearnerState]
"""The state of every learner, by its name."""

_STATE = "state.json"
_BEST = "best-"
_KEPT = 2  # checkpoints; the one before is there should the last be damaged


@dataclass(frozen=True, slots=True)
class Best:
    """The best evaluation so far: its round, its share of right solutions, and the states of that round, where they are
    of use."""

    round: int
    accuracy: float
    states: States


@dataclass(frozen=True, slots=True)
class _Learning:
    """An entry of ``learn``: what it is, and what learns."""

    training: Training
    learner: Learner


class OnlineModels:
    """All models that learn online, each entry of ``learn`` with an optimizer of its own.

    Args:
        run: the run.
        stage: of the online training.

    Raises:
        GradatimError: if a model cannot be loaded or trained, or is run in a way that its training does not change.
    """

    def __init__(self, run: Run, stage: Stage) -> None:
        self.run = run
        self._learning: dict[str, _Learning] = {}
        self._told: set[str] = set()
        names: Counter[str] = Counter()
        for learn in stage.learns:
            names[learn.model] += 1
            again = f"-{names[learn.model]}" if names[learn.model] > 1 else ""
            self._learning[learn.model + again] = self._begin(Training.of(run, stage, learn), learn.model + again)

    def _begin(self, training: Training, name: str) -> _Learning:
        run, recipe, learn = self.run, self.run.recipe, training.learn
        assert recipe.online is not None, "the recipe is an online one"
        options = recipe.model(learn.model)
        guides = learn.model in models_of(recipe.growing)
        if training.judges and guides and not has_own_layout(resolve_model(training.path)):
            raise GradatimError(
                f"the model {learn.model!r} scores steps and learns online, which is for reward models that were "
                "trained here: train it once before (gradatim train-scorer), and name that"
            )
        run.models.take_up(learn.model, training.path, options, as_reward=training.judges)
        set_seed(run.seed(f"online {name}") % 2**31)  # of adapters and new heads
        with run.models.lent(learn.model, as_reward=training.judges) as model:
            learner = Learner(
                model.requires_grad_(True),
                learn.objective,
                learn.training,
                rounds=recipe.rounds,
                updates=recipe.online.updates,
                reference=training.reference,
                dtype=getattr(torch, options.dtype),
                seed=run.seed(f"online {name}"),
            )
        return _Learning(training, learner)

    @property
    def what(self) -> list[str]:
        """What each entry learns from, in the plural."""
        return [each.training.what for each in self._learning.values()]

    def learn(self, trees: Sequence[Tree], number: int) -> list[dict[str, Any]]:
        """Let every model learn from the trees of a round; what that did to each, as JSON values. A model for which the
        trees hold nothing stays as it is."""
        return [self._learn(each, each.training.terms(trees)[0], number) for each in self._learning.values()]

    def _learn(self, each: _Learning, terms: Sequence[Term], number: int) -> dict[str, Any]:
        model = each.training.learn.model
        if not terms:
            return {"model": model, "examples": 0, "updates": 0}
        with self.run.models.lent(model, as_reward=each.training.judges):
            learned = each.learner.learn(terms, number)
        if learned.left_out and model not in self._told:  # once, and not in every round
            self._told.add(model)
            self.run.warn(left_out(each.learner.model, learned.left_out, len(terms)))
        metrics = {name: value for name, value in learned.metrics.items() if math.isfinite(value)}
        return {"model": model, "examples": len(terms), **asdict(learned), "metrics": metrics}

    def states(self, *, optimizers: bool) -> States:
        """Copies of what all learners need to go on, or of their weights alone."""
        return {name: each.learner.state(optimizer=optimizers) for name, each in self._learning.items()}

    def restore(self, states: States) -> None:
        """Put all learners in these states."""
        for name, each in self._learning.items():
            with self.run.models.lent(each.training.learn.model, as_reward=each.training.judges):
                each.learner.restore(states[name])

    def finish(self, learned: Sequence[Mapping[str, Any]], metrics: Mapping[str, float]) -> None:
        """Save all models as they are now; none learns any more.

        Args:
            learned: for each entry of ``learn`` how many ``examples`` it had.
            metrics: what was measured of the policy.
        """
        models = self.run.models
        last = {
            each.training.learn.model: (each, entry)
            for each, entry in zip(self._learning.values(), learned, strict=True)
        }
        for name, (each, entry) in last.items():
            training = each.training
            with models.lent(name, as_reward=training.judges):
                what = f"{entry['examples']:,} {training.what}, in {self.run.recipe.rounds:,} rounds"
                training.save(each.learner.finished(), what, metrics if name == "policy" else {})
            models.becomes(name, str(training.target), self.run.recipe.model(name), as_reward=training.judges)


def write_checkpoint(folder: Path, number: int, states: States, best: Best | None) -> None:
    """Write what the rounds after ``number`` need, whole or not at all, and remove what is older than the checkpoint
    before.

    Raises:
        GradatimError: if the disk is full or the place cannot be written.
    """
    place = folder / f"round-{number}"
    kept = None if best is None else {"round": best.round, "accuracy": best.accuracy, "states": bool(best.states)}
    with disk_errors(folder), atomic_folder(place) as partial:
        for name, state in states.items():
            state.write(partial, name)
        if best is not None:
            for name, state in best.states.items():
                state.write(partial, f"{_BEST}{name}")
        write_json(partial / _STATE, {"round": number, "best": kept, "learners": list(states)})
    for old in _checkpoints(folder)[:-_KEPT]:
        remove_folder(old)


def read_checkpoint(folder: Path) -> tuple[int, States, Best | None] | None:
    """The last checkpoint that can be read: its round, the states of the learners, and the best evaluation until then.
    Those after it are passed over with a warning, and removed."""
    for place in reversed(_checkpoints(folder)):
        try:
            if damaged := next((path for path in sorted(place.iterdir()) if not is_whole(path)), None):
                raise ValueError(f"{damaged.name} cannot be read")
            value = json.loads((place / _STATE).read_text(encoding="utf-8"))
            names, best = value["learners"], value["best"]
            states = {name: LearnerState.read(place, name) for name in names}
            kept = {name: LearnerState.read(place, _BEST + name) for name in names if best and best["states"]}
            return value["round"], states, None if best is None else Best(best["round"], best["accuracy"], kept)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            warnings.warn(f"the checkpoint {str(place)!r} is passed over: {error}", stacklevel=2)
            with suppress(OSError):
                shutil.rmtree(place)
    return None


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints, those of the first rounds first."""
    found = [path for path in folder.glob("round-*") if path.name.removeprefix("round-").isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("round-")))
