"""Models read trees of text, and trees that several policies wrote, as what they are."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import fake_vllm
from gradatim.budget import Budget
from gradatim.errors import GradatimError
from gradatim.objectives.step_dpo import StepDpo
from gradatim.policies.base import Policy, Sampling
from gradatim.policies.scripted import ScriptedPolicy, ScriptedStep
from gradatim.policies.transformers import TransformersPolicy
from gradatim.policies.vllm import VllmPolicy
from gradatim.scorers.layouts import OwnLayout
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.scorers.rollouts import RolloutScorer
from gradatim.search.selection.puct import priors
from gradatim.supervision import pair
from gradatim.text.prompts import step_tokens
from gradatim.text.transcript import in_tokens_of, tokenized
from gradatim.training import TrainingSettings, train
from gradatim.training.packing import pack_row
from gradatim.tree import EndReason, Node, Problem, Step, Tree
from test_policies_exact import SHORT, make_policy
from test_policies_limited import EvenTask
from tiny_models import byte_pair_tokenizer, prompt, tiny_causal, tiny_classifier, word_tokenizer

PROMPT = (5, 6, 7, 3)
STEPS = (" 8 9\n", " 10 11 12\n")


def text_tree(limit: int | None = None) -> tuple[Tree, Node, Node]:
    """A tree as a server or a file gives it: a first step and a second."""
    tree = Tree(Problem("a", prompt(*PROMPT)), budget=Budget(limit))
    first = tree.add(tree.root, Step((), STEPS[0]))
    return tree, first, tree.add(first, Step((), STEPS[1]))


@pytest.fixture(params=["engine", "vllm"])
def new_policy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm)
    if request.param == "engine":
        return make_policy
    return lambda: VllmPolicy(fake_vllm.LLM(tiny_causal(), word_tokenizer()), word_tokenizer(), sampling=SHORT)


def follows(policy: Any, before: list[int], node: Node, upper: Node) -> float:
    """How far a path's recorded log-probabilities below ``upper`` are from those of the model after ``before``."""
    whole = policy._as_read(node).tokens
    assert whole[: len(before)] == before
    recorded = torch.tensor(
        [value for each in node.path()[len(upper.path()) :] for value in each.step.log_probabilities]
    )
    with torch.inference_mode():
        logits = tiny_causal()(input_ids=torch.tensor([whole])).logits[0, len(before) - 1 : -1].log_softmax(-1)
    return float((logits.gather(-1, torch.tensor(whole[len(before) :])[:, None])[:, 0] - recorded).abs().max())


def _tokens(node: Node) -> list[int]:
    return step_tokens(word_tokenizer(), node.step.text, finished=node.step.end is EndReason.END_OF_TEXT)


def test_a_tree_of_text_is_continued_from_its_text(new_policy: Callable[[], Any]) -> None:
    tree, first, second = text_tree()
    policy = new_policy()
    before = {
        node: [*PROMPT, *_tokens(first), *(_tokens(second) if node is second else ())] for node in (first, second)
    }
    for node in (first, second):
        children = list(dict.fromkeys(asyncio.run(policy.extend([node], 4))))
        leaves = asyncio.run(policy.extend([node], 3, steps=None))
        assert children
        assert len(leaves) == 3
        for leaf in (*children, *leaves):
            assert leaf.step.tokens == ()
            assert follows(policy, before[node], leaf, node) < 1e-5
    assert tree.budget.read("policy") == len(before[second])  # each token of the imported path was read once
    assert tree.root.step.tokens == ()  # the tree is text still
    deeper = next(child for child in second.children if child.open)
    [leaf] = asyncio.run(policy.extend([deeper]))
    assert follows(policy, policy._transcript.counterpart(deeper).tokens, leaf, deeper) < 1e-5
    policy.release(tree)
    assert asyncio.run(policy.extend([first]))


def test_an_observation_is_read_once_and_conditions_what_follows(new_policy: Callable[[], Any]) -> None:
    """Of a tree of text and of one in tokens, whether the environment spoke before or after the step was continued."""
    tokenizer = word_tokenizer()
    texts, first, second = text_tree()
    tokens = tokenized(texts, tokenizer)
    for tree in (texts, tokens):
        policy = new_policy()
        first, second = tree.nodes[1:3]
        asyncio.run(policy.extend([second], 2))
        paid = tree.budget.read("policy")
        assert paid == len(PROMPT) + len(_tokens(first)) + len(_tokens(second))
        child = next(child for child in second.children if child.open)
        seen = (13, 14, 15)
        observed = {} if not child.step.tokens else {"observation": seen}
        child.step = replace(child.step, observation_text=prompt(*seen), **observed)
        for _ in range(2):
            leaves = asyncio.run(policy.extend([child], 2))
            assert tree.budget.read("policy") == paid + len(seen)
        read = policy._as_read(child).tokens
        assert read[-len(seen) :] == list(seen)
        assert all(follows(policy, read, leaf, child) < 1e-5 for leaf in leaves)


def test_rollouts_of_imported_steps_are_sampled_from_those_steps() -> None:
    _, first, second = text_tree()
    policy = make_policy()
    asyncio.run(RolloutScorer(policy, EvenTask(), rollouts=4).score([first, second]))
    before = [*PROMPT, *_tokens(first), *_tokens(second)]
    leaves = [leaf for leaf in second.leaves() if leaf is not second]
    assert leaves
    assert all(follows(policy, before, leaf, second) < 1e-5 for leaf in leaves)
    assert first.counts["rollouts"] >= 4
    assert second.counts["rollouts"] == 4


def test_a_budget_ends_in_a_tree_of_text_as_in_any(new_policy: Callable[[], Any]) -> None:
    tree, first, _ = text_tree(limit=9)  # the prompt and the first step take 7
    children = asyncio.run(new_policy().extend([first], 3, steps=None))
    assert sum(len(node.step.log_probabilities) for node in children[0].path()[2:]) == 2
    assert len(children) == 1
    assert tree.budget.spent


def test_tokens_of_another_tokenizer_are_refused(new_policy: Callable[[], Any]) -> None:
    """Even where both tokenizers write the prompt in the same ids."""
    other = word_tokenizer(60)
    tree = Tree(Problem("a", prompt(*PROMPT)))
    asyncio.run(TransformersPolicy(tiny_causal(vocabulary=60), other, sampling=SHORT).extend([tree.root], 3))
    policy = new_policy()
    with pytest.raises(GradatimError, match="grown with another tokenizer or prompt; start a new tree"):
        asyncio.run(policy.extend([tree.root]))
    again = Tree.from_json(tree.to_json())
    with pytest.raises(GradatimError, match="grown with another tokenizer"):
        asyncio.run(policy.extend([again.root], steps=None))
    copy = tokenized(again, policy.tokenizer)
    assert asyncio.run(policy.extend([copy.root]))
    assert in_tokens_of(copy, policy.tokenizer) is copy
    assert in_tokens_of(tree, policy.tokenizer) is not tree


def test_a_tree_stored_before_tokenizers_were_noted_tells_by_its_text(new_policy: Callable[[], Any]) -> None:
    """Its own tokenizer's policy goes on with it, and notes the tokenizer; another one's refuses it."""

    def without_tokenizer() -> Tree:
        value = grown.to_json()
        del value["tokenizer"]
        return Tree.from_json(value)

    policy = new_policy()
    grown = Tree(Problem("a", prompt(*PROMPT)))
    asyncio.run(policy.extend([grown.root], 6))
    own = without_tokenizer()
    assert asyncio.run(policy.extend([own.root]))
    assert own.tokenizer == grown.tokenizer
    tokenizer = byte_pair_tokenizer(["2 + 3 = 5\nso 5 * 4 = 20\n"] * 20)
    stranger = TransformersPolicy(tiny_causal(vocabulary=len(tokenizer)), tokenizer, sampling=SHORT)
    with pytest.raises(GradatimError, match="grown with another tokenizer or prompt; start a new tree"):
        asyncio.run(stranger.extend([without_tokenizer().root]))


def test_a_reward_model_reads_text_steps_behind_a_prompt_of_tokens() -> None:
    tokenizer = word_tokenizer()
    tree, _, second = text_tree()
    written = tokenized(tree, tokenizer)
    mixed = Tree(tree.problem, prompt_tokens=PROMPT)
    below = mixed.add(mixed.add(mixed.root, Step((), STEPS[0])), Step((), STEPS[1]))
    scorer = ProcessRewardScorer(tiny_classifier(), layout=OwnLayout(tokenizer))
    for node in (below, second, written.nodes[2]):
        asyncio.run(scorer.score([node]))
    assert below.scores == second.scores == pytest.approx(written.nodes[2].scores, abs=1e-6)
    with pytest.raises(GradatimError, match="are text without tokens"):
        asyncio.run(ProcessRewardScorer(tiny_classifier(), name="direct").score([below]))
    with pytest.raises(GradatimError, match="is text without tokens, so it cannot be trained on as it is"):
        pack_row([below])


def one_step(text: str) -> Callable[[Node], list[ScriptedStep]]:
    return lambda node: [ScriptedStep(text, 1.0, EndReason.END_OF_TEXT)]


def test_a_second_policys_rollouts_are_not_taken_for_the_policys_own() -> None:
    first = ScriptedPolicy(one_step("right"), source="first")
    second = ScriptedPolicy(one_step("so wrong"), source="second")
    tree = Tree(Problem("a", "question"))
    asyncio.run(RolloutScorer(second, EvenTask(), rollouts=3, name="second").score([tree.root]))
    asyncio.run(RolloutScorer(first, EvenTask(), rollouts=2, name="first").score([tree.root]))
    assert tree.root.scores == {"second": 1.0, "first": 0.0}
    assert tree.root.counts == {"second": 3, "first": 2}
    assert {child.step.source for child in tree.root.children} == {"first", "second"}
    assert priors(tree.root.children) == [0.5, 0.5]  # neither policy's probabilities


def test_steps_say_which_weights_wrote_them() -> None:
    policy, same = make_policy(), make_policy()
    before = policy.source
    assert before == same.source
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.01)
    policy.refresh()
    assert policy.source != before
    tree = Tree(Problem("a", prompt(*PROMPT)))
    asyncio.run(same.extend([tree.root], 2))
    asyncio.run(policy.extend([tree.root], 6))
    assert {child.step.source for child in tree.root.children} == {before, policy.source}
    assert [node.step for node in Tree.from_json(tree.to_json()).nodes] == [node.step for node in tree.nodes]


def test_log_probabilities_of_several_policies_are_no_reference() -> None:
    tree = Tree(Problem("a", prompt(*PROMPT)), prompt_tokens=PROMPT)
    chosen, rejected = (
        tree.add(tree.root, Step((number, 3), "", (-1.0, -1.0), source=source))
        for number, source in ((8, "one"), (9, "two"))
    )
    pairs = [pair(chosen, rejected)]
    settings = TrainingSettings(epochs=1, learning_rate=1e-4)
    with pytest.raises(GradatimError, match=r"written by 2 policies \(one, two\).*take the reference from a model"):
        train(tiny_causal(), StepDpo(), pairs, settings)
    train(tiny_causal(), StepDpo(), pairs, settings, reference="initial")


def test_a_reopened_step_is_judged_anew() -> None:
    tree = Tree(Problem("a", "question"))
    cut = tree.add(tree.root, Step((5, 6), "ab", end=EndReason.BUDGET))
    cut.scores, cut.counts, cut.reward = {"value": 0.0}, {"value": 3}, 0.0
    assert tree.add(tree.root, Step((5, 6), "ab", end=EndReason.LENGTH)) is cut
    assert cut.scores == {"value": 0.0}
    assert tree.add(tree.root, Step((5, 6), "ab")) is cut
    assert (cut.open, cut.scores, cut.counts, cut.reward) == (True, {}, {}, None)


def test_the_same_sampling_gives_the_same_text_in_both_kinds_of_tree() -> None:
    """A tree of text is continued with the same draws as its copy in tokens."""
    tree, first, _ = text_tree()
    copy = tokenized(tree, word_tokenizer())
    sampling = Sampling(max_step_tokens=6, max_steps=4)
    policy: Policy = make_policy()
    texts = [
        [leaf.text for leaf in asyncio.run(policy.extend([each.nodes[first.id]], 4, steps=None, sampling=sampling))]  # type: ignore[arg-type]
        for each in (tree, copy)
    ]
    assert texts[0] == texts[1]
