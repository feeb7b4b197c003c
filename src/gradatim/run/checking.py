"""What can be known to be wrong before the first token: models, adapters, data and options that do not fit.

What is quick to know comes first: configurations, tokenizers, names of modules. Then every model that is named is
loaded once; the first stage takes what it needs of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from gradatim.engine.heads import saved_heads
from gradatim.engine.loading import load_config, load_tokenizer
from gradatim.engine.path_length import longest_path
from gradatim.engine.quantization import check_quantization
from gradatim.engine.self_check import RUN, TRAINED, check_configuration
from gradatim.engine.sources import base_of, find_source, refuse_adapter
from gradatim.errors import GradatimError
from gradatim.event_loop import run_to_end
from gradatim.part import models_of, parts_within
from gradatim.policies.server import ServerPolicy
from gradatim.processes import process_count
from gradatim.recipes.recipe import POLICY, Recipe, TreeOptions
from gradatim.run.benchmarks import check_benchmarks
from gradatim.run.context import Lent, Run
from gradatim.run.learning import find_demonstrations
from gradatim.run.models import pick_device
from gradatim.run.trees import no_stored_trees, stored_path
from gradatim.scorers.base import ScorerPart
from gradatim.scorers.calibrated import CalibratedPart
from gradatim.scorers.calibration import read_calibration
from gradatim.scorers.loading import detect_layout
from gradatim.scorers.process_reward import ProcessRewardPart
from gradatim.scorers.value_head import ValueHeadPart
from gradatim.store.trees import TreeStore
from gradatim.text.prompts import prompt_tokens
from gradatim.text.transcript import in_tokens_of
from gradatim.training.adapters import check_lora_modules
from gradatim.training.arguments import check_options
from gradatim.training.self_check import check_training
from gradatim.training.settings import TrainingOptions
from gradatim.tree import Problem
from gradatim.values.oracle import Oracle

_TREES_LOOKED_AT = 50  # of stored ones
_WEIGHTS = ("*.safetensors", "*.bin")


def check_once(run: Run) -> None:
    """As :func:`check`, unless this folder's run passed it with this very recipe and the same files before."""
    given = {"recipe": run.recipe.model_dump(mode="json"), "contents": run.contents}
    record = run.folder.record("checked")
    if any(record.get(name) != value for name, value in given.items()):
        check(run)
        run.folder.update("checked", 0.0, **given)


def check(run: Run) -> None:
    """Check everything that a run needs, and say what a person may want to know before it begins.

    Raises:
        GradatimError: if anything cannot work; says what and how to put it right.
    """
    recipe = run.recipe
    if recipe.online is not None and process_count() > 1:
        raise GradatimError("an online training runs in one process; start it without torchrun or accelerate")
    if recipe.demonstrated is not None:
        find_demonstrations(recipe, run.task)
    problems = _problems(run)
    if recipe.trees.stored is not None:
        stored_path(recipe.trees)
    check_benchmarks(run)
    policies, rewards = _used(recipe)
    for name in sorted(recipe.models.keys() - {*policies, *rewards}):
        run.progress.line(f"Nothing uses models.{name}: scorer, regrow, values, learn or evaluation.scorer may name it")
    for name in policies:
        if recipe.model(name).is_server:
            _check_server(run, name)
        else:
            _check_policy(run, name, problems)
    for name, layout in rewards.items():
        _check_reward_model(run, name, layout)
    for chosen in (*recipe.growing, recipe.evaluation.scorer):
        for part in parts_within(chosen):
            if isinstance(part, ValueHeadPart):
                _check_head(run, part, grows=chosen is not recipe.evaluation.scorer)
            if isinstance(part, CalibratedPart):
                read_calibration(part.calibration)
            if isinstance(part, Oracle):
                part.truth(run.task)
    for learn in recipe.learn:
        check_options(learn.training)
        _check_lora(_named(run, learn.model), learn.training, recipe.model(learn.model).device)
    if recipe.trees.stored is not None:
        _check_stored_trees(run, recipe.trees)
    _load_models(run, policies, rewards)


def _used(recipe: Recipe) -> tuple[list[str], dict[str, str]]:
    """The models that are run as policies, and those that judge steps, these with their layouts."""
    rewards = {learn.model: "auto" for learn in recipe.learn if "score" in learn.objective.heads}
    read = {learn.model for learn in recipe.learn} - rewards.keys()
    for part in parts_within([*recipe.growing, recipe.evaluation.scorer]):
        if isinstance(part, ProcessRewardPart):
            rewards[part.model] = part.layout
        else:
            judging = {each.model for each in parts_within(part) if isinstance(each, ProcessRewardPart)}
            read |= models_of(part) - judging
    return [POLICY, *sorted(read - {POLICY})], rewards


def _problems(run: Run) -> list[Problem]:
    """The problems of all splits that the recipe uses; too few of them are said."""
    found: list[Problem] = []
    for split in ("train", "validation", "test"):
        problems, asked = run.problems(split), getattr(run.recipe.problems, split)
        if len(problems) < asked:
            run.warn(f"problems.{split} asks for {asked:,} problems, but there are {len(problems):,} different ones")
        found += problems
    return found


def _named(run: Run, name: str) -> str:
    """What the recipe names as a model's weights; those of the policy where it begins as that."""
    given = run.recipe.model(name).model
    return run.recipe.policy.model if given == POLICY else given


def _check_server(run: Run, name: str) -> None:
    policy = Lent(run, {}).policy(name)
    assert isinstance(policy, ServerPolicy), "the recipe names a URL"

    async def connect() -> None:
        try:
            await policy.connect()
        finally:
            await policy.close()

    run_to_end(connect())


def _check_policy(run: Run, name: str, problems: Sequence[Problem]) -> None:
    """Whether a policy's model is there and can be put every problem."""
    options, path = run.recipe.model(name), _named(run, name)
    if options.engine == "transformers":
        pick_device(options.device)
    source = find_source(path)
    if options.adapter is not None:
        find_source(options.adapter)
    config = load_config(base_of(source) or source.name)
    if options.engine == "transformers":
        check_configuration(config, RUN)
    tokenizer, chat = load_tokenizer(source.name), options.chat
    if chat is None and tokenizer.chat_template:
        place = POLICY if name == POLICY else f"models.{name}"
        run.progress.line(
            f"The model of {place} has a chat template and {place}.chat is not set, so it is given plain text; a model "
            f"that was trained to chat wants --set {place}.chat={{}}"
        )
    positions = longest_path(config)
    lengths = [len(prompt_tokens(tokenizer, problem, chat)) for problem in problems]
    long = [problem.id for problem, length in zip(problems, lengths, strict=True) if positions <= length]
    if long:
        raise GradatimError(
            f"{len(long):,} of {len(problems):,} prompts do not fit the {name}'s context of {positions:,} tokens (the "
            f"first is that of problem {long[0]!r}); use a model with a longer context, or leave such problems out"
        )


def _check_reward_model(run: Run, name: str, layout: str) -> None:
    """Whether the model of a name is there, and can judge steps or learn to."""
    path, trained = _named(run, name), run.last_training(name) is not None
    guiding = parts_within(run.recipe.growing)
    if any(isinstance(part, ProcessRewardPart) and part.model == name for part in guiding):
        trained = False  # it guides the first round before it learns
    if name == POLICY:
        raise GradatimError("the policy judges no steps: name a reward model in models, and that in the scorer")
    if run.recipe.model(name).model != POLICY or run.recipe.demonstrated is None:
        refuse_adapter(path)
    elif not trained:
        raise GradatimError(
            f"models.{name} is the policy, which judges nothing untrained: name a reward model, or train it"
        )
    source = find_source(path)
    config, tokenizer = load_config(base_of(source) or source.name), load_tokenizer(source.name)
    if not trained and layout == "auto":
        detect_layout(source.name, config, tokenizer)
    if source.is_folder and not any(any(Path(source.name).glob(pattern)) for pattern in _WEIGHTS):
        raise GradatimError(f"the folder {source.name!r} holds no weights; name a folder made by save_pretrained")
    check_configuration(config, TRAINED if trained else RUN)


def _check_head(run: Run, part: ValueHeadPart, *, grows: bool) -> None:
    """Whether a model has the head that a scorer reads, or gets it before the scorer is used."""
    trained = any(learn.model == part.model and part.head in learn.objective.heads for learn in run.recipe.learn)
    source = find_source(_named(run, part.model))
    has = source.is_folder and part.head in saved_heads(Path(source.name))
    if not has and (not trained or (grows and run.recipe.online is None)):  # online it is there from the beginning
        raise GradatimError(
            f"the model {part.model!r} has no head {part.head!r} when it is read; train one by an objective that has "
            "such a head, or name a model that was saved with it"
        )


def _check_stored_trees(run: Run, options: TreeOptions) -> None:
    """Whether there are trees to learn from, and the models that learn can read them; the first ones stand for all."""
    path, held_out = stored_path(options), {problem.prompt for problem in run.problems("test")}
    with TreeStore(path, damaged=options.damaged) as store:
        first = list(islice((tree for tree in store if tree.problem.prompt not in held_out), _TREES_LOOKED_AT))
    if not first:
        raise no_stored_trees(path)
    recipe = run.recipe
    learners = {learn.model: _named(run, learn.model) for learn in recipe.learns_from_trees}
    for key, name in learners.items():
        tokenizer, chat = load_tokenizer(find_source(name).name), recipe.policy.chat
        try:
            for tree in first:
                in_tokens_of(tree, tokenizer, chat if tokenizer.chat_template else None)
        except GradatimError as error:
            raise GradatimError(
                f"the trees of {str(path)!r} cannot be read by the {key}'s model {name!r}: {error}"
            ) from error


def _load_models(run: Run, policies: Sequence[str], rewards: Mapping[str, str]) -> None:
    """Load every model that is named, so that one that is damaged, or does not fit into memory, is found now, and open
    the scorers that read them. What the first stages run is kept for them."""
    recipe, lent = run.recipe, Lent(run, {})
    with run.progress.loading("the models"):
        for name, layout in rewards.items():
            if run.last_training(name) is None:
                lent.reward_model(name, "process_reward", layout)
            elif recipe.model(name).model != POLICY:
                options, training = recipe.model(name), _first_training(recipe, name)
                check_training(run.models.check_trainable(name, _named(run, name), options, training, as_reward=True))
        for name in policies:
            if name == POLICY and recipe.demonstrated is not None:  # nothing runs before it is trained
                options, training = recipe.policy, recipe.demonstrated.training
                check_training(run.models.check_trainable(name, options.model, options, training, as_reward=False))
            else:
                lent.policy(name)
        for part in parts_within([*recipe.growing, recipe.evaluation.scorer]):
            if isinstance(part, ScorerPart) and _opens_untrained(recipe, part):
                part.open(lent)
        for name in rewards:
            if recipe.search is not None and name not in models_of(recipe.growing):
                run.models.forget(name)  # it is run in the end


def _opens_untrained(recipe: Recipe, part: ScorerPart) -> bool:
    """Whether a scorer can be opened before anything is trained: it reads no head that is still to be learned."""
    trained = {learn.model for learn in recipe.learn} & models_of(part)
    learned = any(isinstance(each, ValueHeadPart | ProcessRewardPart) for each in parts_within(part))
    return not (trained and learned) and not (POLICY in models_of(part) and recipe.demonstrated is not None)


def _first_training(recipe: Recipe, name: str) -> TrainingOptions:
    """How a model is trained first."""
    return next(learn.training for learn in recipe.learn if learn.model == name)


def _check_lora(name: str, options: TrainingOptions, device: str) -> None:
    """Whether the model has the modules that are to be adapted, and its weights can be in as few bits as asked."""
    if options.lora is None:
        return
    if options.lora.quantization is not None:
        check_quantization(options.lora.quantization, pick_device(device))
    source = find_source(name)
    config: Any = load_config(base_of(source) or source.name)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    check_lora_modules(model, options.lora)
