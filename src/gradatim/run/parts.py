"""A recipe's models made real: the policy, the scorer, and how they run."""

from __future__ import annotations

from typing import Any

import torch

from gradatim.errors import GradatimError
from gradatim.models import resolve_model
from gradatim.policies.base import Policy, Sampling
from gradatim.policies.server import ServerPolicy, is_server_url
from gradatim.policies.transformers import TransformersPolicy
from gradatim.recipes.schema import PolicyOptions, SamplingOptions
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.tasks.base import Task
from gradatim.text.prompts import ChatFormat


def make_sampling(options: SamplingOptions, task: Task) -> Sampling:
    """How steps of ``task`` are sampled."""
    return Sampling(**options.model_dump(), step_end=task.step_end, solution_end=task.solution_end)


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


def make_chat(options: PolicyOptions) -> ChatFormat | None:
    """How problems are put, where they are conversations."""
    return None if options.chat is None else ChatFormat(options.chat.system, tuple(options.chat.examples))


def load_policy(model: str, options: PolicyOptions, task: Task) -> Policy:
    """The policy engine with a model, or a server's model, run as ``options`` say.

    Raises:
        GradatimError: if the model or its tokenizer cannot be loaded or used.
    """
    sampling, chat = make_sampling(options.sampling, task), make_chat(options)
    if is_server_url(model):
        return ServerPolicy(model, sampling=sampling, chat=chat, **options.server.model_dump())
    if options.engine == "vllm":
        from gradatim.policies.vllm import VllmPolicy

        return VllmPolicy.from_pretrained(model, sampling=sampling, chat=chat, dtype=options.dtype)
    return TransformersPolicy.from_pretrained(
        resolve_model(model),
        sampling=sampling,
        chat=chat,
        adapter=options.adapter,
        max_branches=options.max_branches,
        **_placement(options),
    )


def load_scorer(model: str, options: PolicyOptions, layout: str = "auto") -> ProcessRewardScorer:
    """A process reward model, placed as the policy is and in its number format.

    Raises:
        GradatimError: if it cannot be loaded.
    """
    return ProcessRewardScorer.from_pretrained(resolve_model(model), layout=layout, **_placement(options))


def _placement(options: PolicyOptions) -> dict[str, Any]:
    return {
        "device": pick_device(options.device),
        "device_map": options.device_map,
        "quantization": options.quantization,
        "dtype": getattr(torch, options.dtype),
        "memory_bytes": int(options.cache_gigabytes * 2**30),
    }
