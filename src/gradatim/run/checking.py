"""What can be known to be wrong before the first token: models, adapters, data and options that do not fit.

What is quick to know comes first: configurations, tokenizers, names of modules. Then every model that is named is
loaded once; the first stage takes what it needs of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from gradatim.engine.loading import load_config, load_merged_model, load_tokenizer
from gradatim.engine.path_length import longest_path
from gradatim.engine.self_check import RUN, TRAINED, check_configuration
from gradatim.engine.sources import base_of, find_source, refuse_adapter
from gradatim.errors import GradatimError
from gradatim.event_loop import run_to_end
from gradatim.models import resolve_model
from gradatim.policies.server import ServerPolicy
from gradatim.recipes.schema import TrainingOptions, TreeOptions
from gradatim.run.context import Run
from gradatim.run.fine_tuning import find_demonstrations
from gradatim.run.fitting import training_settings
from gradatim.run.growing import no_stored_trees, stored_path
from gradatim.run.parts import load_policy, make_chat, pick_device
from gradatim.scorers.loading import detect_layout
from gradatim.store.trees import TreeStore
from gradatim.text.prompts import prompt_tokens
from gradatim.text.transcript import in_tokens_of
from gradatim.training.adapters import check_lora_modules
from gradatim.training.process_reward_model import load_process_reward_model
from gradatim.training.self_check import check_training
from gradatim.tree import Problem

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
    if recipe.fine_tuning is not None:
        find_demonstrations(recipe, run.task)
    problems = _problems(run)
    if recipe.trees.stored is not None:
        stored_path(recipe.trees)
    if recipe.policy.is_server:
        _check_server(run)
    else:
        _check_policy(run, problems)
    if recipe.fine_tuning is not None:
        _check_lora(recipe.policy.model, recipe.fine_tuning.training)
    if recipe.scorer is not None:
        _check_scorer(run)
    if recipe.objective is not None:
        _check_lora(recipe.policy.model, recipe.objective.training)
    if recipe.trees.stored is not None:
        _check_stored_trees(run, recipe.trees)
    _load_models(run)


def _problems(run: Run) -> list[Problem]:
    """The problems of all splits that the recipe uses; too few of them are said."""
    found: list[Problem] = []
    for split in ("train", "validation", "test"):
        problems, asked = run.problems(split), getattr(run.recipe.problems, split)
        if len(problems) < asked:
            run.warn(f"problems.{split} asks for {asked:,} problems, but there are {len(problems):,} different ones")
        found += problems
    return found


def _check_server(run: Run) -> None:
    policy = load_policy(run.recipe.policy.model, run.recipe.policy, run.task)
    assert isinstance(policy, ServerPolicy), "the recipe names a URL"

    async def connect() -> None:
        try:
            await policy.connect()
        finally:
            await policy.close()

    run_to_end(connect())


def _check_policy(run: Run, problems: Sequence[Problem]) -> None:
    """Whether the policy's model is there and can be put every problem."""
    options = run.recipe.policy
    if options.engine == "transformers":
        pick_device(options.device)
    source = find_source(options.model)
    if options.adapter is not None:
        find_source(options.adapter)
    config = load_config(base_of(source) or source.name)
    if options.engine == "transformers":
        check_configuration(config, RUN)
    tokenizer, chat = load_tokenizer(source.name), make_chat(options)
    if chat is None and tokenizer.chat_template:
        run.progress.line(
            "The policy's model has a chat template and policy.chat is not set, so it is given plain text; a model "
            "that was trained to chat wants --set policy.chat={}"
        )
    positions = longest_path(config)
    lengths = [len(prompt_tokens(tokenizer, problem, chat)) for problem in problems]
    long = [problem.id for problem, length in zip(problems, lengths, strict=True) if positions <= length]
    if long:
        raise GradatimError(
            f"{len(long):,} of {len(problems):,} prompts do not fit the policy's context of {positions:,} tokens (the "
            f"first is that of problem {long[0]!r}); use a model with a longer context, or leave such problems out"
        )


def _check_scorer(run: Run) -> None:
    """Whether the scorer's model is there, and can be used or trained as the recipe says."""
    options = run.recipe.scorer
    assert options is not None, "there is a scorer"
    name = run.recipe.policy.model if options.init == "policy" else options.init
    if options.init != "policy":
        refuse_adapter(name)
    source = find_source(name)
    config, tokenizer = load_config(base_of(source) or source.name), load_tokenizer(source.name)
    if not options.train and options.layout == "auto":
        detect_layout(source.name, config, tokenizer)
    if source.is_folder and not any(any(Path(source.name).glob(pattern)) for pattern in _WEIGHTS):
        raise GradatimError(f"the folder {source.name!r} holds no weights; name a folder made by save_pretrained")
    check_configuration(config, TRAINED if options.train else RUN)
    if options.train:
        _check_lora(name, options.training)


def _check_stored_trees(run: Run, options: TreeOptions) -> None:
    """Whether there are trees to learn from, and the models that learn can read them; the first ones stand for all."""
    path, held_out = stored_path(options), {problem.prompt for problem in run.problems("test")}
    with TreeStore(path, damaged=options.damaged) as store:
        first = list(islice((tree for tree in store if tree.problem.prompt not in held_out), _TREES_LOOKED_AT))
    if not first:
        raise no_stored_trees(path)
    recipe, learners = run.recipe, {}
    if recipe.objective is not None:
        learners["policy.model"] = recipe.policy.model
    if recipe.scorer is not None and recipe.scorer.train:
        learners["scorer.init"] = recipe.policy.model if recipe.scorer.init == "policy" else recipe.scorer.init
    for key, name in learners.items():
        tokenizer, chat = load_tokenizer(find_source(name).name), make_chat(recipe.policy)
        try:
            for tree in first:
                in_tokens_of(tree, tokenizer, chat if tokenizer.chat_template else None)
        except GradatimError as error:
            raise GradatimError(f"the trees of {str(path)!r} cannot be read by {key} {name!r}: {error}") from error


def _load_models(run: Run) -> None:
    """Load every model that is named, so that one that is damaged, or does not fit into memory, is found now."""
    recipe, scorer = run.recipe, run.recipe.scorer
    with run.progress.loading("the models"):
        if scorer is not None and scorer.train and scorer.init != "policy":
            check_training(load_process_reward_model(resolve_model(scorer.init)))
        if recipe.fine_tuning is None:
            run.keep_models()
        else:  # nothing runs before it, and training loads the model in a way of its own
            check_training(
                load_merged_model(AutoModelForCausalLM, resolve_model(recipe.policy.model), dtype=torch.float32)
            )
            if scorer is not None and not scorer.train:
                run.load_scorer()


def _check_lora(name: str, options: TrainingOptions) -> None:
    """Whether the model has the modules that are to be adapted."""
    if options.lora is None:
        return
    source = find_source(name)
    config: Any = load_config(base_of(source) or source.name)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    settings = training_settings(options, Path(), 0)
    assert settings.lora is not None, "the options have adapters"
    check_lora_modules(model, settings.lora)
