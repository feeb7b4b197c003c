"""Recipes: what is read, and that every mistake is one sentence that names the nearest valid key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.recipes import PretrainRecipe, Recipe, apply_override, load_recipe, parse_recipe, shipped_recipes
from gradatim.recipes.reference import recipe_keys
from small_runs import small_content


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_shipped_recipes_are_valid_and_say_what_they_do(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.summary


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_resolved_recipe_reads_back_the_same(name: str) -> None:
    recipe = load_recipe(name)
    again = parse_recipe(yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json"))), name)
    assert again == recipe


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("serch.name=grow", "unknown key 'serch' in the recipe; did you mean 'search'?"),
        ("task.nubmers=4", "'task': the task 'countdown' has no option 'nubmers'; did you mean 'numbers'?"),
        ("policy.modle=x", "unknown key 'modle' in 'policy'; did you mean 'model'?"),
        ("policy.sampling.temprature=1", "in 'policy.sampling'; did you mean 'temperature'?"),
        ("problems.tests=4", "in 'problems'; did you mean 'test'?"),
        ("search.branchin=[2]", "the search 'grow' has no option 'branchin'; did you mean 'branching'?"),
        ("learn.0.trainig={}", "in 'learn.0'; did you mean 'training'?"),
        ("learn.0.training.learning_rat=1", "in 'learn.0.training'; did you mean 'learning_rate'?"),
        ("learn.0.training.lora={rnk: 4}", "in 'learn.0.training.lora'; did you mean 'rank'?"),
        ("learn.1.data.0.mingap=1", "the construction 'sibling_pairs' has no option 'mingap'; did you mean 'min_gap'?"),
        ("learn.1.objective.betta=1", "the objective 'step_dpo' has no option 'betta'; did you mean 'beta'?"),
        ("models.scorer.modle=x", "unknown key 'modle' in 'models.scorer'; did you mean 'model'?"),
        ("models.policy={model: x}", "models has a model called 'policy', which is the section of that name"),
        ("models.trees={model: x}", "models.trees has the name of a run's own folder or stage"),
        ("learn.0.model=scorr", "learn names the model 'scorr', which is not in models; did you mean 'scorer'?"),
        (
            "evaluation.scorer={name: process_reward, model: x}",
            "evaluation.scorer names the model 'x', which",
        ),
        (
            "values=[{name: scored, scorer: {name: rollouts, model: provr}}]",
            "values names the model 'provr', which is not in models",
        ),
        ("values=[bakup]", "there is no value 'bakup'; did you mean 'backup'?"),
        ("scorer=rolouts", "there is no scorer 'rolouts'; did you mean 'rollouts'?"),
        ("learn.1.data=[]", "learns from nothing: name constructions in data, or say how many demonstrations"),
        (
            "learn.1.data=[step_labels]",
            "the objective 'step_dpo' learns from pairs, not from single steps or solutions",
        ),
        (
            "learn.0.data=[right_solutions]",
            "the objective 'process_reward' needs targets, and what it is given has none",
        ),
        ("learn.1.demonstrations=3", "learns from demonstrations or from trees: leave data or demonstrations out"),
        ("evaluation.sample=4", "in 'evaluation'; did you mean 'samples'?"),
        (
            "evaluation.search.0.widht=4",
            "'evaluation.search.0': the search 'beam' has no option 'widht'; did you mean 'width'?",
        ),
        ("task.name=countdwn", "'task': there is no task 'countdwn'; did you mean 'countdown'?"),
        ("search.name=bem", "'search': there is no search 'bem'; did you mean 'beam'?"),
        ("learn.1.objective.name=stepdpo", "there is no objective 'stepdpo'; did you mean 'step_dpo'?"),
        ("evaluation.search.0.name=mtcs", "'evaluation.search.0': there is no search 'mtcs'; did you mean 'mcts'?"),
        ("evaluation.search.0.width=0", "evaluation.search.0.width must be greater than 0, but is 0"),
        ("learn.0.data.0={name: step_labels, kind: sof}", "learn.0.data.0.kind cannot be 'sof'; did you mean 'soft'?"),
        ("kind=rnu", "there is no kind 'rnu'; did you mean 'run'?"),
        ("trees.budget=0", "trees.budget must be greater than 0, but is 0"),
        ("problems.train=many", "problems.train must be a whole number, but is 'many'"),
        ("task=null", "'task': a task is a name, or a section with the key 'name' and its options; got None"),
        ("task={name: records, source: a, template: b}", "the key 'verifier' is missing in 'task'"),
        ("task={name: gsm8k, template: x}", "'task': the template 'x' must contain {question} exactly once"),
        (
            "task={name: code, limits: {cpu_second: 1}}",
            "'task': the task 'code': limits has no option 'cpu_second'; did you mean 'cpu_seconds'?",
        ),
        ("task=search/beam.py:Beam", "there is no file 'search/beam.py'"),
        ("evaluation.samples=2", "asks for 4 solutions a problem but samples only 2"),
        ("evaluation.scorer=null", "evaluation.search needs a scorer"),
        ("evaluation.scorer=rollouts", "evaluation.scorer knows the truth about solutions"),
        ("values=[backup, {name: scored, scorer: rollouts}]", "values, regrow and scorer write 'value' more than once"),
        ("scorer={name: value_head, key: value}", "values, regrow and scorer write 'value' more than once"),
        ("regrow=[{name: corrections, values: backup, key: value}]", "values, regrow and scorer write 'value' more"),
        (
            "regrow=[{name: corrections, values: bakup}]",
            "'regrow.0.values': there is no value 'bakup'; did you mean 'backup'?",
        ),
        ("learn.1.data=[controlled_pairs]", "learn.1.data.0 learns from 'controlled_errors', which nothing writes"),
        ("regrow=[controlled_error]", "there is no regrowth 'controlled_error'; did you mean 'controlled_errors'?"),
        (
            "learn.1.data=[{name: sibling_pairs, value: vlaue}]",
            "learn.1.data.0 learns from 'vlaue'",
        ),
        (
            "learn.1.reference=base",
            "reference: base is the model without its adapters",
        ),
        (
            "learn.1={objective: step_dpo, data: [sibling_pairs], stop_by: loss, reference: initial}",
            "stop_by: loss needs",
        ),
        ("learn.0.model=policy", "learn.0 makes the policy a judge of steps"),
        ("models.a-1={model: a/b}", "models.a-1"),
        ("models.a.b={model: x}", "unknown key 'b' in 'models.a'"),
        ("policy.adapter=x", "models.scorer begins as the policy, whose adapter is not part of its weights"),
        ("search.skip_decided=true", "add scorer: {name: rollouts}"),
        ("search=mcts", "search needs a scorer to guide it: add one, such as scorer: {name: rollouts}"),
    ],
)
def test_every_mistake_is_one_sentence(override: str, expected: str) -> None:
    content = small_content()
    apply_override(content, override)
    with pytest.raises(GradatimError) as caught:
        parse_recipe(content, "small")
    message = str(caught.value)
    assert message.startswith("recipe 'small': ")
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"model": "a/b", "engine": "vllm", "quantization": "8bit"}, "policy.quantization is of the transformers"),
        ({"model": "a/b", "engine": "vllm", "device_map": "auto"}, "policy.device_map is of the transformers engine"),
        ({"model": "http://a/v1", "chat": {}, "server": {"api": "completions"}}, "policy.chat needs chat completions"),
    ],
)
def test_policy_options_that_would_not_be_heeded_are_refused(policy: dict[str, Any], expected: str) -> None:
    content = small_content(judge=None, objective=None, evaluation={}, search=None)
    with pytest.raises(GradatimError, match=expected):
        parse_recipe(content | {"policy": policy}, "small")


def test_a_missing_section_is_named() -> None:
    content = small_content()
    del content["task"]
    with pytest.raises(GradatimError, match="the key 'task' is missing in the recipe"):
        parse_recipe(content, "small")
    content = small_content()
    del content["search"]["name"]
    with pytest.raises(GradatimError, match="'search': a search is a name, or a section with the key 'name'"):
        parse_recipe(content, "small")


def sections(content: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of all keys that a recipe has."""
    if not isinstance(content, dict):
        return []
    return [p for key, value in content.items() for p in [(*path, key), *sections(value, (*path, key))]]


NAMED = [path for path in sections(small_content()) if path != ("models", "scorer")]  # models are called as one likes


@given(st.sampled_from(NAMED), st.data())
def test_any_misspelt_key_is_found_where_it_is(path: tuple[str, ...], data: st.DataObject) -> None:
    """One letter doubled or left out: the sentence names the wrong key, its section and the right key."""
    key = path[-1]
    place = data.draw(st.integers(0, len(key) - 1))
    wrong = (
        key[:place] + key[place] + key[place:]
        if len(key) < 5 or data.draw(st.booleans())
        else key[:place] + key[place + 1 :]
    )
    content = small_content()
    section: Any = content
    for name in path[:-1]:
        section = section[name]
    if wrong in section:
        return
    section[wrong] = section.pop(key)
    with pytest.raises(GradatimError) as caught:
        parse_recipe(content, "small")
    where = ".".join(path[:-1])
    if key == "name" and len(path) > 1:  # without its name nothing is known of the section
        assert where in str(caught.value)
        return
    said = "the search 'grow' has no option" if where == "search" else "unknown key"
    assert f"{said} {wrong!r}" in str(caught.value)
    assert (repr(where) if where else "the recipe") in str(caught.value)
    assert f"did you mean {key!r}?" in str(caught.value)


def test_default_counts_are_those_that_the_samples_allow() -> None:
    recipe = load_recipe("countdown-reward", ["evaluation={samples: 5}"])
    assert isinstance(recipe, Recipe)
    assert (recipe.evaluation.pass_at, recipe.evaluation.best_of, recipe.evaluation.majority) == ([1], [1, 2, 4], [4])


def test_overrides_replace_and_add() -> None:
    recipe = load_recipe(
        "quickstart",
        ["problems.train=7", "search.branching=[3, 2]", "evaluation.search.1.width=9", "policy.sampling.top_k=5",
         "learn.1.training.learning_rate=1e-4"],
    )  # fmt: skip
    assert isinstance(recipe, Recipe)
    assert recipe.problems.train == 7
    assert recipe.search.branching == (3, 2)
    assert recipe.evaluation.search[1].width == 9
    assert recipe.policy.sampling.top_k == 5
    assert recipe.learn[1].training.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed", "write --set section.key=value"),
        ("=3", "write --set section.key=value"),
        ("seed.x=3", "'seed' has no keys of its own"),
        ("evaluation.search.99=3", "entries, counted from 0"),
        ("seed=[1", "is not YAML"),
    ],
)
def test_overrides_that_cannot_be(override: str, expected: str) -> None:
    with pytest.raises(GradatimError, match=expected):
        load_recipe("quickstart", [override])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "is empty or no mapping"), ("- a\n", "is empty or no mapping"), ("a: [1\n", "is not YAML.*line 2")],
)
def test_files_that_are_no_recipe(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(GradatimError, match=expected):
        load_recipe(path)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(GradatimError, match="did you mean 'quickstart'"):
        load_recipe("quickstrat")


@pytest.mark.parametrize("model", [Recipe, PretrainRecipe])
def test_every_key_says_what_it_means(model: Any) -> None:
    for section in recipe_keys(model):
        for key in section.keys:
            assert key.meaning.endswith((".", ")")), f"{section.path}.{key.name} lacks a description"
