"""NaN and infinite numbers are refused where they arise, never sorted, averaged or stored."""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from gradatim.engine.token_sampling import choose_tokens
from gradatim.errors import GradatimError
from gradatim.objectives.process_reward import ProcessReward
from gradatim.objectives.sft import Sft
from gradatim.policies.base import Sampling
from gradatim.policies.scripted import ScriptedPolicy
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.search import AbMcts, Beam, Mcts, best_of_n, weighted_majority
from gradatim.supervision import labelled_step
from gradatim.training import TrainingSettings, train
from gradatim.tree import EndReason, Node, Problem, Step, Tree
from scripted_countdown import new_tree, random_policy
from test_policies_exact import make_policy, make_tree
from test_policies_limited import LengthScorer, steps_of
from tiny_models import tiny_causal, tiny_classifier

BAD = [math.nan, math.inf, -math.inf]


class BadScorer:
    name = "bad"

    def __init__(self, value: float) -> None:
        self.value = value

    async def score(self, nodes: Sequence[Node]) -> None:
        for number, node in enumerate(nodes):
            node.scores[self.name] = self.value if number == 1 else 0.5


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=0.0), Sampling(temperature=0.5, top_p=0.9, top_k=3)]
)
def test_logits_that_are_no_numbers_are_refused(value: float, sampling: Sampling) -> None:
    logits = torch.randn(3, 70)
    choose_tokens(logits, sampling, np.full(3, 0.5))
    masked = logits.clone()
    masked[1, 4:9] = -math.inf  # a token that a model rules out
    choose_tokens(masked, sampling, np.full(3, 0.5))
    logits[1, 4] = value
    with pytest.raises(GradatimError, match="logits that are not numbers; it has diverged"):
        choose_tokens(logits, sampling, np.full(3, 0.5))


def test_a_model_that_has_diverged_ends_its_searches() -> None:
    policy = make_policy()
    with torch.no_grad():
        policy.model.lm_head.weight.fill_(math.nan)
    tree = make_tree()
    with pytest.raises(GradatimError, match="try dtype='float32'"):
        asyncio.run(policy.extend([tree.root], 3))
    assert len(tree) == 1


def test_a_reward_model_that_has_diverged_stores_no_score() -> None:
    model = tiny_classifier()
    scorer = ProcessRewardScorer(model)
    tree = Tree(Problem("a", "p"), prompt_tokens=(5, 6))
    node = tree.add(tree.root, Step((7, 3), "x\n"))
    with torch.no_grad():
        model.score.weight.fill_(math.nan)
    with pytest.raises(GradatimError, match="'process_reward' gave a score that is not a number"):
        asyncio.run(scorer.score([node]))
    assert node.scores == {}


@pytest.mark.parametrize("value", BAD)
def test_no_search_ranks_by_a_score_that_is_no_number(value: float) -> None:
    for search in (
        lambda tree: Beam()(tree, random_policy(), BadScorer(value)),
        lambda tree: Mcts()(tree, random_policy(), BadScorer(value)),
        lambda tree: AbMcts()(tree, random_policy(), BadScorer(value)),
    ):
        with pytest.raises(GradatimError, match=r"is not a\s+finite number|has the value"):
            asyncio.run(search(new_tree()))  # type: ignore[no-untyped-call]
    tree = Tree(Problem("a", "p"))
    for text in "ab":
        leaf = tree.add(tree.root, Step((), text, end=EndReason.END_OF_TEXT))
        leaf.reward, leaf.answer, leaf.scores["bad"] = 1.0, "1", 0.5
    leaf.scores["bad"] = value
    for choose in (best_of_n, weighted_majority):
        with pytest.raises(GradatimError, match="not a finite number"):
            choose(tree, "bad")
    with pytest.raises(GradatimError, match="node 2 has a score 'bad' that is not a finite number; leave such a node"):
        tree.to_json()
    leaf.scores.clear()
    record = tree.to_json()
    record["nodes"][2]["scores"] = {"bad": value}
    with pytest.raises(GradatimError, match="node 2 has a score 'bad' that is not a finite number"):
        Tree.from_json(record)


@pytest.mark.parametrize("reward", [False, True])
def test_training_stops_at_a_loss_that_is_no_number(reward: bool) -> None:
    model = tiny_classifier() if reward else tiny_causal()
    tree = Tree(Problem("a", "p"), prompt_tokens=(5, 6))
    node = tree.add(tree.root, Step((7, 3), "x\n"))
    before = [parameter.clone() for parameter in model.parameters()]
    objective = ProcessReward() if reward else Sft()
    with pytest.raises(
        GradatimError, match="loss of update 1 or its gradient is not a finite number, and would destroy the model"
    ):
        train(model, objective, [labelled_step(node, 1.0, weight=math.nan)], TrainingSettings())
    assert all(torch.equal(*each) for each in zip(before, model.parameters(), strict=True))


def test_beam_search_does_not_pay_to_score_what_is_cut_off() -> None:
    asked: list[Node] = []

    class Watching(LengthScorer):
        async def score(self, nodes: Sequence[Node]) -> None:
            asked.extend(nodes)
            await super().score(nodes)

    tree = new_tree()
    asyncio.run(Beam()(tree, ScriptedPolicy(steps_of), Watching(), sampling=Sampling(max_step_tokens=5, max_steps=4)))
    assert any(node.step.end.cuts_off for node in tree.nodes)
    assert asked
    assert not any(node.step.end.cuts_off for node in asked)


def test_a_cache_does_not_outlive_its_policy_nor_its_tree() -> None:
    tree, other = make_tree(1), make_tree(2)
    policy = make_policy()
    asyncio.run(policy.extend([tree.root, other.root], 3))
    store = weakref.ref(policy.tree_model.store)
    before = policy.tree_model.store.used_bytes
    gone = weakref.ref(other)
    del other
    gc.collect()
    assert gone() is None
    assert 0 < policy.tree_model.store.used_bytes < before
    del policy
    gc.collect()
    assert store() is None
    assert len(tree) > 1
