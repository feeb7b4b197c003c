"""A prover judges the policy's steps, and nothing of what it writes is taken for the policy's."""

from __future__ import annotations

import asyncio

import pytest

from clean_task import Clean, ending, write
from gradatim.budget import Account
from gradatim.policies import TransformersPolicy
from gradatim.policies.base import Policy, Sampling
from gradatim.policies.scripted import ScriptedPolicy
from gradatim.scorers.rollouts import RolloutScorer
from gradatim.tree import Problem, Tree
from scripted_countdown import TASK, exact_values, new_tree, problems, random_moves, random_policy
from tiny_models import byte_pair_tokenizer, tiny_causal

SAMPLING = Sampling(max_step_tokens=6, max_steps=3)


def shape(tree: Tree) -> list[tuple[str, int, int, str]]:
    return [(node.step.text, node.multiplicity, node.draws, node.step.source) for node in tree.nodes]


def grown(policy: Policy) -> Tree:
    tree = new_tree(problems(1)[0])
    asyncio.run(policy.extend([tree.root], 3, steps=None))
    return tree


def test_a_provers_values_are_its_own_and_its_solutions_lie_elsewhere() -> None:
    tree = grown(random_policy())
    before = shape(tree)
    scorer = RolloutScorer(random_policy(), TASK, rollouts=4000, name="prover", apart=True)
    asyncio.run(scorer.score(tree.nodes))
    assert shape(tree) == before
    assert all(leaf.reward is None for leaf in tree.leaves())
    assert tree.root.scores["prover"] == pytest.approx(exact_values(tree.problem, random_moves())[""], abs=0.03)


def test_what_the_policy_drew_is_none_of_the_provers_draws() -> None:
    """The policy is always right here and the prover always wrong, though both call themselves alike."""
    tree = Tree(Problem("p", "go "))
    leaf = write(tree, "a\n", "done")
    prover = ScriptedPolicy(lambda node: ending(0.5)(node)[1:])
    scorer = RolloutScorer(prover, Clean(), 3, apart=True)
    asyncio.run(scorer.score([leaf]))
    asyncio.run(scorer.score(tree.nodes))
    assert [node.scores["rollouts"] for node in leaf.path()] == [0.0, 0.0, 1.0]
    assert [node.counts["rollouts"] for node in leaf.path()] == [3, 3, 1]


def test_a_prover_spends_the_trees_budget() -> None:
    tree = grown(random_policy())
    spent = tree.budget.total
    tree.budget.limit = spent + 40
    account = Account("prover", 70)
    scorer = RolloutScorer(random_policy(), TASK, rollouts=50, name="prover", account=account, apart=True)
    asyncio.run(scorer.score(tree.nodes))
    assert scorer.account == account
    assert 0 < tree.budget.total - spent <= 40
    assert tree.budget.accounts["prover"].tokens == tree.budget.total - spent
    assert tree.budget.accounts["prover"].parameters == 70


@pytest.mark.parametrize("same_tokenizer", [True, False])
def test_a_model_proves_what_another_model_wrote(same_tokenizer: bool) -> None:
    texts = ["Make 10 from 2 3 4\n", "2 + 3 = 5 | 4 5\n"]
    first, second = byte_pair_tokenizer(texts), byte_pair_tokenizer(texts, 300)
    policy = TransformersPolicy(tiny_causal(vocabulary=len(first)), first, sampling=SAMPLING)
    tokenizer = first if same_tokenizer else second
    prover = TransformersPolicy(tiny_causal(vocabulary=len(tokenizer), seed=1), tokenizer, sampling=SAMPLING)
    tree = grown(policy)
    before = shape(tree)
    scorer = RolloutScorer(prover, TASK, rollouts=2, name="prover", apart=True)
    asyncio.run(scorer.score(tree.nodes[1:]))
    assert shape(tree) == before
    assert all("prover" in node.scores for node in tree.nodes[1:])
    assert {node.step.source for node in tree.nodes[1:]} == {policy.source}
    scorer.release(tree)
