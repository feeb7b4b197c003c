"""The vLLM policy writes what the engine writes, round by round for all searches together."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Awaitable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

import pytest

import fake_vllm
from gradatim import Account, Budget, GradatimError, Problem, Tree
from gradatim.policies.base import Policy, Sampling
from gradatim.policies.transformers import TransformersPolicy
from gradatim.policies.vllm import VllmPolicy
from gradatim.tasks.countdown import Countdown
from gradatim.text.boundaries.delimiter import Delimiter
from gradatim.tree import EndReason, Node
from tiny_models import prompt, tiny_causal, word_tokenizer

Result = TypeVar("Result")
GREEDY = Sampling(temperature=0.0, max_step_tokens=12, max_steps=5)
SAMPLED = Sampling(max_step_tokens=12, max_steps=5)
MODEL, TOKENIZER = tiny_causal(seed=3), word_tokenizer()


def run(work: Awaitable[Result]) -> Result:
    async def main() -> Result:
        return await work

    return asyncio.run(main())


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm)


def new_policy(**options: Any) -> VllmPolicy:
    return VllmPolicy(fake_vllm.LLM(MODEL, TOKENIZER), TOKENIZER, **options)


def new_tree(number: int = 5, limit: int | None = None, seed: int = 0) -> Tree:
    return Tree(Problem(str(number), prompt(number, 6, 7, 3)), seed=seed, budget=Budget(limit))


def steps(tree: Tree) -> list[Any]:
    return [(node.parent and node.parent.id, node.step.tokens, node.step.text, node.step.end) for node in tree.nodes]


async def grow(policy: Policy, tree: Tree, sampling: Sampling) -> list[Node]:
    """Steps, steps below them, two more below some of those, and rollouts."""
    nodes = list(dict.fromkeys(await policy.extend([tree.root], 3, sampling=sampling)))
    for _ in range(2):
        nodes = list(dict.fromkeys(await policy.extend([node for node in nodes if node.open], 2, sampling=sampling)))
    open_nodes = [tree.root, *(node for node in nodes if node.open)]
    await policy.extend(open_nodes, [place % 3 for place in range(len(open_nodes))], steps=2, sampling=sampling)
    return await policy.extend(open_nodes, 2, steps=None, sampling=sampling)


@pytest.mark.parametrize("step_end", [(" 9", " 30"), (" 11 30", " 9"), (" 30",)])
@pytest.mark.parametrize("limit", [None, 4, 17, 60])
def test_greedy_trees_and_budgets_are_the_engines(step_end: tuple[str, ...], limit: int | None) -> None:
    sampling = Sampling(temperature=0.0, max_step_tokens=6, max_steps=5, boundary=Delimiter(at=step_end))
    for number in range(5, 11):
        here, there = new_tree(number, limit), new_tree(number, limit)
        engine = TransformersPolicy(tiny_causal(seed=3), TOKENIZER)
        run(grow(engine, there, sampling))
        run(grow(new_policy(account=engine.account), here, sampling))
        if limit is None:
            assert steps(here) == steps(there)
            assert [node.multiplicity for node in here.nodes] == [node.multiplicity for node in there.nodes]
            for mine, engines in zip(here.nodes, there.nodes, strict=True):
                assert mine.step.log_probabilities == pytest.approx(engines.step.log_probabilities, abs=1e-4)
        assert here.budget == there.budget


def test_draws_depend_on_the_tree_and_not_on_what_else_runs() -> None:
    async def together() -> list[Tree]:
        policy, trees = new_policy(), [new_tree(number) for number in range(5, 9)]
        await asyncio.gather(*(grow(policy, tree, SAMPLED) for tree in trees))
        return trees

    trees = run(together())
    alone = [new_tree(number) for number in range(5, 9)]
    for tree in reversed(alone):
        run(grow(new_policy(), tree, SAMPLED))
    assert [tree.to_json() for tree in trees] == [tree.to_json() for tree in alone]
    assert any(len(tree.root.children) > 1 for tree in trees)
    other = new_tree(seed=1)
    run(grow(new_policy(), other, SAMPLED))
    assert steps(other) != steps(alone[0])


def test_what_all_searches_wait_for_is_one_round() -> None:
    policy = new_policy(sampling=SAMPLED)

    async def work() -> None:
        trees = [new_tree(number) for number in range(5, 9)]
        await asyncio.gather(*(policy.extend([tree.root], 3) for tree in trees))

    run(work())
    assert policy.llm.rounds == [12]


def test_tokens_written_after_a_stop_string_are_dropped_and_do_not_count() -> None:
    whole = new_tree()
    [leaf] = run(new_policy().extend([whole.root], steps=None, sampling=Sampling(max_step_tokens=6)))
    sampling = Sampling(max_step_tokens=40, boundary=Delimiter(at=(TOKENIZER.decode([leaf.step.tokens[2]]),)))
    policy, tree, expected = new_policy(), new_tree(), new_tree()
    policy.llm.extra = 2
    [child] = run(policy.extend([tree.root], sampling=sampling))
    [same] = run(new_policy().extend([expected.root], sampling=sampling))
    assert child.open
    assert (child.step, tree.budget) == (same.step, expected.budget)
    assert tree.budget.written("policy") == len(child.step.tokens) <= 3


def test_a_long_rollout_takes_several_rounds_and_ends_with_the_context() -> None:
    tree = new_tree()
    policy = new_policy()
    policy.llm.llm_engine.model_config.max_model_len = 30
    policy = VllmPolicy(policy.llm, TOKENIZER)
    unbounded = Sampling(temperature=0.0, boundary=Delimiter(at=("never",)), max_step_tokens=100)
    [leaf] = run(policy.extend([tree.root], steps=None, sampling=unbounded))
    assert leaf.step.end in (EndReason.LENGTH, EndReason.END_OF_TEXT)
    assert len(leaf.tokens) <= 30
    with pytest.warns(UserWarning, match="has 30 tokens, but the policy's model reads and writes at most 30"):
        assert run(policy.extend([Tree(Problem("long", prompt(*[5] * 30))).root, tree.root]))
    assert policy.too_long.count == 1


@pytest.mark.parametrize("limit", range(0, 60, 7))
def test_no_more_is_spent_than_the_budget_has(limit: int) -> None:
    tree = new_tree(limit=limit)
    leaves = run(new_policy().extend([tree.root], 3, steps=None, sampling=SAMPLED))
    assert tree.budget.total <= limit
    if limit < 4:
        assert (leaves, tree.budget.total) == ([], 0)
    else:
        cut = any(leaf.step.end is EndReason.BUDGET for leaf in leaves)
        assert tree.budget.spent or not cut


def test_the_model_is_loaded_with_what_the_policy_needs() -> None:
    account = Account("prover")
    policy = VllmPolicy.from_pretrained("shipped:countdown", sampling=GREEDY, dtype="float32", account=account)
    assert policy.account is account
    assert policy.llm.options == {"enable_prefix_caching": True, "logprobs_mode": "raw_logprobs", "dtype": "float32"}
    assert isinstance(policy, Policy)
    tree = Tree(Countdown().problems("test", 1)[0])
    assert len(run(policy.extend([tree.root]))) == 1
    policy.release(tree)
    with pytest.raises(GradatimError, match="there is no folder"):
        VllmPolicy.from_pretrained("/nowhere/at/all")


def test_what_vllm_says_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = new_policy()
    policy.llm.fails = RuntimeError("CUDA out of memory\nmore")
    tree = new_tree(limit=100)
    with pytest.raises(GradatimError, match=r"^vLLM failed: RuntimeError CUDA out of memory$"):
        run(policy.extend([tree.root], 2))
    assert tree.budget.written("policy") == 0
    policy.llm.fails = None
    assert run(policy.extend([tree.root], 2, sampling=SAMPLED))
    monkeypatch.setattr(fake_vllm.LLM, "_complete", lambda self, tokens, parameters: _aborted())
    with pytest.raises(GradatimError, match="vLLM ended a request for the reason 'abort'"):
        run(policy.extend([tree.root]))
    monkeypatch.setattr(fake_vllm.LLM, "__init__", _refuse)
    with pytest.raises(GradatimError, match=r"vLLM cannot load the model '.*countdown': no GPU"):
        VllmPolicy.from_pretrained("shipped:countdown")
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(GradatimError, match=r"needs vLLM, which cannot be imported .*; install it"):
        VllmPolicy.from_pretrained("shipped:countdown")


def _aborted() -> fake_vllm.CompletionOutput:
    return fake_vllm.CompletionOutput(0, "", [], None, [], "abort")


def _refuse(self: Any, **options: Any) -> None:
    raise RuntimeError("no GPU")


def test_a_search_that_is_cancelled_leaves_the_others_alone() -> None:
    async def work() -> Tree:
        policy, tree = new_policy(sampling=SAMPLED), new_tree(limit=1000)
        gone = asyncio.create_task(policy.extend([new_tree(9).root], 2))
        stays = asyncio.create_task(policy.extend([tree.root], 2))
        await asyncio.sleep(0)
        gone.cancel()
        await stays
        return tree

    tree, alone = run(work()), new_tree(limit=1000)
    run(new_policy(sampling=SAMPLED).extend([alone.root], 2))
    assert tree.to_json() == alone.to_json()


def test_the_check_on_a_gpu_says_ok_or_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    script = _script()
    arguments = ["shipped:countdown", "--problems", "2", "--device", "cpu", "--dtype", "float32"]
    assert script.main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("OK")
    assert script.main([*arguments, "--tolerance", "-1"]) == 1
    assert "differ" in capsys.readouterr().out


def _script() -> ModuleType:
    path = Path(__file__).parents[1] / "scripts" / "check_vllm.py"
    spec = importlib.util.spec_from_file_location("check_vllm", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), float("inf")])
def test_a_log_probability_that_is_no_number_is_an_error(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_vllm, "Logprob", lambda _: SimpleNamespace(logprob=value))
    tree = new_tree()
    with pytest.raises(
        GradatimError, match=r"gives -?(nan|inf) for the log-probability .* the model's numbers overflow"
    ):
        run(new_policy().extend([tree.root], steps=None, sampling=SAMPLED))
    assert len(tree) == 1
