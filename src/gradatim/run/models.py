"""The models of a run, each loaded once and lent to whoever runs, reads or trains it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from gradatim.budget import POLICY, Account
from gradatim.engine.lending import cast_parameters, trainable
from gradatim.engine.loading import load_config, load_merged_model, load_tokenizer, placed
from gradatim.engine.quantization import quantized
from gradatim.engine.reader import Reader
from gradatim.engine.sources import base_of, find_source
from gradatim.errors import GradatimError
from gradatim.models import resolve_model
from gradatim.policies.base import Policy, Sampling, SamplingOptions
from gradatim.policies.server import ServerPolicy, is_server_url
from gradatim.policies.transformers import TransformersPolicy
from gradatim.recipes.recipe import ModelOptions
from gradatim.scorers.loading import has_own_layout, load_scoring_model, own_layout
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.tasks.base import Task
from gradatim.training.process_reward_model import load_process_reward_model
from gradatim.training.settings import TrainingOptions


def make_sampling(options: SamplingOptions, task: Task) -> Sampling:
    """How steps of ``task`` are sampled."""
    values = {each.name: getattr(options, each.name) for each in fields(options)}
    values["boundary"] = options.boundary or task.boundary
    return Sampling(**values, solution_end=task.solution_end)


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


Role = Literal["policy", "reward"]
_SCORING = Account("policy scoring")


@dataclass(slots=True)
class _Held:
    """A model in memory.

    Attributes:
        path: the folder or hub id that its weights are those of.
        role: what it is in memory as.
        asked: the layout that was asked for, of a reward model.
        model: the model itself, where it runs in this process.
        layout: of a reward model.
        engines: what runs it, by their names.
    """

    path: str
    role: Role
    model: PreTrainedModel | None
    asked: str = "auto"
    layout: Any = None
    engines: dict[str, Any] = field(default_factory=dict)


class Models:
    """Lends each model's policy, reward model or weights; the weights of a model are in memory once.

    A model that is trained goes on with the weights that it has in memory; they are not read again. Of a model of which
    another state is asked for, the state that was there is let go.

    Args:
        task: says where steps and solutions end.
        note: called with what becomes known of a model when it is loaded, by name.
    """

    def __init__(self, task: Task, note: Callable[..., None]) -> None:
        self._task = task
        self._note = note
        self._held: dict[tuple[str, Role], _Held] = {}

    def policy(self, name: str, path: str, options: ModelOptions) -> Policy:
        """The policy that runs the model ``name`` as it is in ``path``.

        Raises:
            GradatimError: if the model or its tokenizer cannot be loaded or used.
        """
        held = self._find(name, "policy", path) or self._load_policy(name, path, options)
        if "" not in held.engines:
            held.engines[""] = self._engine(name, held.model, path, options)
            if isinstance(held.engines[""], TransformersPolicy):  # of others, nobody here knows the size
                self._note(**{f"{name}_parameters": held.engines[""].tree_model.parameters})
        policy: Policy = held.engines[""]
        return policy

    def reader(self, name: str, path: str, options: ModelOptions) -> Reader:
        """What reads steps with the model ``name``; it shares the weights and the cache of the policy that runs it.

        What the policy itself read or wrote costs nothing. What is read beyond that is charged to the account of the
        model's name; of the policy that is searched with, to another one, so that writing and scoring are told apart.

        Raises:
            GradatimError: if the model does not run in this process.
        """
        policy = self.policy(name, path, options)
        if not isinstance(policy, TransformersPolicy):
            raise GradatimError(f"the model {name!r} is run elsewhere, so nothing can be read off it; name a folder")
        engines = self._held[name, "policy"].engines
        if "reader" not in engines:
            engines["reader"] = policy.reader(
                account=_SCORING if name == POLICY.name else policy.account, known_to=policy.account
            )
        reader: Reader = engines["reader"]
        return reader

    def reward_model(
        self, name: str, path: str, options: ModelOptions, key: str, layout: str = "auto"
    ) -> ProcessRewardScorer:
        """The reward model ``name`` as it is in ``path``, which writes its scores under ``key``.

        Raises:
            GradatimError: if it cannot be loaded, or its layout cannot be told.
        """
        held = self._find(name, "reward", path, layout)
        if held is None or held.layout is None:
            model, made = load_scoring_model(resolve_model(path), layout, **placement(options))
            held = self._hold(name, _Held(path, "reward", model, layout, made))
        if key not in held.engines:
            assert held.model is not None, "reward models run in this process"
            memory = int(options.cache_gigabytes * 2**30)
            held.engines[key] = ProcessRewardScorer(
                held.model, layout=held.layout, name=key, memory_bytes=memory, account=Account(name)
            )
            self._note(**{f"{name}_layout": held.layout.name})
        scorer: ProcessRewardScorer = held.engines[key]
        return scorer

    def check_trainable(
        self, name: str, path: str, options: ModelOptions, training: TrainingOptions, *, as_reward: bool
    ) -> PreTrainedModel:
        """Load a model that is to be trained, as it is trained. One that may get a new head is not kept, since the
        head's first weights are drawn when training begins."""
        held = self._to_train(name, path, options, training, as_reward=as_reward)
        if as_reward:
            self._held.pop((name, "reward"), None)
        assert held.model is not None, "models that are trained run in this process"
        return held.model

    def train(
        self,
        name: str,
        path: str,
        options: ModelOptions,
        training: TrainingOptions,
        work: Callable[[PreTrainedModel], None],
        *,
        as_reward: bool,
        becomes: str,
    ) -> None:
        """Train a model in place; what is in memory of it is then that of the folder ``becomes``.

        All other models are let go: training needs the memory.

        Args:
            name, path, options: the model, as it is now.
            training: how it is trained.
            work: trains it, saves it, and takes away what training laid around it.
            as_reward: with a head that judges steps.
            becomes: the folder that it is saved in.
        """
        held = self._to_train(name, path, options, training, as_reward=as_reward)
        self._held = {(name, held.role): held}
        held.path = ""  # until it is whole
        lent: Any = trainable(*held.engines.values()) if held.engines else nullcontext(held.model)
        with lent as model:
            for parameter in model.parameters():
                parameter.requires_grad_(parameter.is_floating_point())
            work(model)
            model.zero_grad(set_to_none=True)
        if options.engine != "transformers" or not _is_whole(options, training):  # it is run from the folder
            self._held.clear()
        else:
            self.becomes(name, becomes, options, as_reward=as_reward)

    def take_up(self, name: str, path: str, options: ModelOptions, *, as_reward: bool) -> None:
        """Have a model in memory, in float32, to be run and trained in turns.

        What asks for it as it is in ``path`` gets it with its weights as they are by then, until it :meth:`becomes`
        another one.

        Raises:
            GradatimError: if it cannot be loaded.
        """
        held = self._to_train(name, path, options, TrainingOptions(), as_reward=as_reward)
        assert held.model is not None, "models that are trained run in this process"
        cast_parameters(held.model, torch.float32)
        if as_reward and held.layout is None and has_own_layout(resolve_model(path)):
            held.layout = own_layout(resolve_model(path))

    @contextmanager
    def lent(self, name: str, *, as_reward: bool) -> Iterator[Any]:
        """A model that was taken up, to be trained while this lasts; then whoever runs it has forgotten what was cached
        under its weights before."""
        held = self._held[name, "reward" if as_reward else "policy"]
        lent: Any = trainable(*held.engines.values()) if held.engines else nullcontext(held.model)
        with lent as model:
            yield model

    def becomes(self, name: str, path: str, options: ModelOptions, *, as_reward: bool) -> None:
        """Say that a model that was taken up is now as it is in ``path``."""
        held = self._held[name, "reward" if as_reward else "policy"]
        assert held.model is not None, "models that are trained run in this process"
        with self.lent(name, as_reward=as_reward) as model:
            cast_parameters(model, getattr(torch, options.dtype))
            model.requires_grad_(True)
        held.path, held.layout = path, own_layout(path) if as_reward else None

    def forget(self, name: str) -> None:
        """Let a reward model go."""
        self._held.pop((name, "reward"), None)

    def _to_train(
        self, name: str, path: str, options: ModelOptions, training: TrainingOptions, *, as_reward: bool
    ) -> _Held:
        role: Role = "reward" if as_reward else "policy"
        held = self._find(name, role, path)
        if held is not None and held.model is not None and _trains_in_place(path, options, training):
            return held
        self._held.pop((name, role), None)
        source, dtype, device = resolve_model(path), getattr(torch, training.dtype), pick_device(options.device)
        if training.fsdp:
            device = "cpu"  # each process takes its part to its device
        bits = None if training.lora is None else training.lora.quantization
        in_bits = {} if bits is None else quantized(bits, dtype, device)
        if as_reward:
            model: PreTrainedModel = load_process_reward_model(source, dtype=dtype, **in_bits)
        else:
            model = load_merged_model(AutoModelForCausalLM, source, dtype=dtype, **in_bits)
        return self._hold(name, _Held(path, role, model.to(device) if bits is None else model))

    def _find(self, name: str, role: Role, path: str, layout: str = "auto") -> _Held | None:
        """What is in memory of a model; another state of it is let go."""
        held = self._held.get((name, role))
        if held is not None and (held.path, held.asked) != (path, layout):
            del self._held[name, role]
            return None
        return held

    def _hold(self, name: str, held: _Held) -> _Held:
        self._held[name, held.role] = held
        return held

    def _load_policy(self, name: str, path: str, options: ModelOptions) -> _Held:
        here = options.engine == "transformers" and not is_server_url(path)
        model = placed(AutoModelForCausalLM, resolve_model(path), **placement(options)) if here else None
        return self._hold(name, _Held(path, "policy", model))

    def _engine(self, name: str, model: PreTrainedModel | None, path: str, options: ModelOptions) -> Policy:
        sampling, chat = make_sampling(options.sampling, self._task), options.chat
        if is_server_url(path):
            return ServerPolicy(path, options.server, sampling=sampling, chat=chat, account=Account(name))
        if model is None:
            from gradatim.policies.vllm import VllmPolicy

            return VllmPolicy.from_pretrained(
                path, sampling=sampling, chat=chat, dtype=options.dtype, account=Account(name)
            )
        policy = TransformersPolicy(
            model,
            load_tokenizer(resolve_model(path)),
            sampling=sampling,
            chat=chat,
            max_branches=options.max_branches,
            memory_bytes=int(options.cache_gigabytes * 2**30),
            account=Account(name),
        )
        if options.adapter is not None and path == options.model:
            policy.load_adapter(options.adapter, "default")
        return policy


def _is_whole(options: ModelOptions, training: TrainingOptions) -> bool:
    """Whether a model runs and is trained in one piece, as precise as the type of its weights says."""
    bits = options.quantization or (training.lora and training.lora.quantization)
    return bits is None and options.device_map is None and not training.fsdp


def _trains_in_place(path: str, options: ModelOptions, training: TrainingOptions) -> bool:
    """Whether the weights that run are those that training changes: all of them, as precise as training wants them or
    their file has them, in one place."""
    if not _is_whole(options, training) or options.engine != "transformers":
        return False
    if base_of(find_source(resolve_model(path))) is not None:
        return False
    stored = load_config(resolve_model(path)).dtype
    return options.dtype in ("float32", training.dtype) or stored == getattr(torch, options.dtype)


def placement(options: ModelOptions) -> dict[str, Any]:
    """Where a model runs and in which numbers, as :func:`gradatim.engine.loading.placed` takes it."""
    return {
        "device": pick_device(options.device),
        "device_map": options.device_map,
        "quantization": options.quantization,
        "dtype": getattr(torch, options.dtype),
    }
