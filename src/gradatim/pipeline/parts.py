"""A recipe's parts made real: task, sampling, models."""

from __future__ import annotations

import re
from typing import Any

import torch

from gradatim.errors import GradatimError
from gradatim.models import resolve_model
from gradatim.policies.base import Sampling
from gradatim.policies.transformers import TransformersPolicy
from gradatim.recipes.explain import suggestion
from gradatim.recipes.schema import CountdownOptions, Gsm8kOptions, PolicyOptions, SamplingOptions
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.tasks.base import Task
from gradatim.tasks.countdown import Countdown, make_problem
from gradatim.tasks.gsm8k import Gsm8k
from gradatim.tree import Problem


def make_task(options: CountdownOptions | Gsm8kOptions) -> Task:
    """The task that the options describe.

    Raises:
        GradatimError: if an option is out of its range or a source is missing.
    """
    given = options.model_dump(exclude={"name"}, exclude_none=True)
    return Countdown(**given) if isinstance(options, CountdownOptions) else Gsm8k(**given)


def default_task_options(name: str) -> CountdownOptions | Gsm8kOptions:
    """A task's options with their defaults.

    Raises:
        GradatimError: if there is no such task.
    """
    options: dict[str, CountdownOptions | Gsm8kOptions] = {
        "countdown": CountdownOptions(name="countdown"),
        "gsm8k": Gsm8kOptions(name="gsm8k"),
    }
    if name not in options:
        raise GradatimError(f"there is no task {name!r}; {suggestion(name, list(options))}")
    return options[name]


def problem_from_text(task: Task, text: str) -> Problem:
    """A problem of ``task`` as a person types it.

    Raises:
        GradatimError: if the text is none.
    """
    if isinstance(task, Countdown):
        found = re.fullmatch(r"\s*[Mm]ake (\d+) from((?:[ ,]+\d+)+)\s*", text)
        if found is None:
            raise GradatimError(f"{text!r} is no countdown problem; write one like 'Make 50 from 3 5 7 8'")
        return make_problem([int(number) for number in re.findall(r"\d+", found[2])], int(found[1]))
    if isinstance(task, Gsm8k):
        return Problem("question", task.template.replace("{question}", text), None, {"question": text})
    return Problem("question", text)


def make_sampling(options: SamplingOptions, task: Task) -> Sampling:
    """How steps of ``task`` are sampled."""
    return Sampling(**options.model_dump(), step_end=task.step_end)


def pick_device(name: str) -> str:
    """``auto`` is the accelerator if there is one.

    Raises:
        GradatimError: if the device is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise GradatimError(f"the device {name!r} cannot be used here; use 'cpu', 'cuda' or 'auto'") from error
    return name


def load_policy(model: str, options: PolicyOptions, task: Task) -> TransformersPolicy:
    """The policy engine with a model, run as ``options`` say.

    Raises:
        GradatimError: if the model or its tokenizer cannot be loaded or used.
    """
    return TransformersPolicy.from_pretrained(
        resolve_model(model),
        sampling=make_sampling(options.sampling, task),
        max_branches=options.max_branches,
        **_placement(options),
    )


def load_scorer(model: str, options: PolicyOptions) -> ProcessRewardScorer:
    """A process reward model, on the policy's device and in its number format.

    Raises:
        GradatimError: if it cannot be loaded.
    """
    return ProcessRewardScorer.from_pretrained(resolve_model(model), **_placement(options))


def _placement(options: PolicyOptions) -> dict[str, Any]:
    return {
        "device": pick_device(options.device),
        "dtype": getattr(torch, options.dtype),
        "memory_bytes": int(options.cache_gigabytes * 2**30),
    }
