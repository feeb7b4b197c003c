"""Scores that are asked of models without a word being written: implicit rewards, what a step tells of the answer, and
a model's own word on a step. Each against its definition on the untouched model."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gradatim import Budget
from gradatim.budget import Account
from gradatim.engine.reader import Reader
from gradatim.errors import GradatimError
from gradatim.part import make
from gradatim.policies.transformers import TransformersPolicy
from gradatim.scorers.base import Scorer
from gradatim.scorers.conditional_entropy import ConditionalEntropyScorer
from gradatim.scorers.implicit import ImplicitScorer
from gradatim.scorers.self_evaluation import PROMPT, SelfEvaluationScorer
from gradatim.tree import EndReason, Node, Problem, Step, Tree
from test_policies_exact import SHORT, grow, make_policy, teacher_forced
from test_scorers_process_reward import random_tree
from tiny_models import byte_pair_tokenizer, learned_by_heart, tiny_causal, word_tokenizer

ANSWERS: Any = SimpleNamespace(answer=lambda problem, text: text.strip()[-1:] or None)  # the last character
TOKENIZER = byte_pair_tokenizer([], size=260)


def scored(scorer: Scorer, nodes: list[Node]) -> list[float | None]:
    asyncio.run(scorer.score(nodes))
    return [node.scores.get(scorer.name) for node in nodes]


def text_tree(limit: int | None = None) -> Tree:
    """Two solutions that answer 7, one that answers 4, and a step that goes on."""
    tree = Tree(Problem("p", "Add 3 and 4.\n", answer="4"), budget=Budget(limit))
    first = tree.add(tree.root, Step((), "3 + 4\n"))
    for text in ("is 7", "so 7"):
        tree.add(first, Step((), text, end=EndReason.END_OF_TEXT))
    tree.add(tree.root, Step((), "It is 4", end=EndReason.ANSWER))
    tree.add(first, Step((), "and\n"))
    return tree


def logits_behind(model: Any, text: str, more: str) -> torch.Tensor:
    """The logits from which each byte of ``more`` and the token after it is drawn: (bytes + 1, vocabulary)."""
    before, behind = (TOKENIZER(each)["input_ids"] for each in (text, more))
    with torch.no_grad():
        return model(input_ids=torch.tensor([[*before, *behind]])).logits[0, len(before) - 1 :]  # type: ignore[no-any-return]


# Implicit rewards


@pytest.mark.parametrize("form", ["increment", "accumulated"])
def test_an_implicit_reward_is_a_log_ratio(form: Any) -> None:
    model, reference, tree = tiny_causal(seed=1), tiny_causal(seed=2), random_tree(3)
    scorer = ImplicitScorer(Reader(tiny_causal(seed=1)), Reader(tiny_causal(seed=2)), beta=0.3, form=form)
    rewards = {
        node: 0.3 * float((teacher_forced(model, node) - teacher_forced(reference, node)).sum())
        for node in tree.nodes[1:]
    }
    for node, score in zip(tree.nodes[1:], scored(scorer, tree.nodes[1:]), strict=True):
        path = node.path()[1:] if form == "accumulated" else [node]
        assert score == pytest.approx(sum(rewards[each] for each in path), abs=1e-4)
    assert scored(scorer, [tree.root]) == [0.0 if form == "accumulated" else None]
    scorer.release(tree)


def test_what_either_model_recorded_is_not_read_again() -> None:
    policy = make_policy()
    other = TransformersPolicy(tiny_causal(seed=1), word_tokenizer(), sampling=SHORT, account=Account("reference"))
    trees = asyncio.run(grow(policy, 2))
    nodes = [node for tree in trees for node in tree.nodes[1:]]
    tokens = policy.statistics.tokens
    forward = scored(ImplicitScorer(policy.reader(), other.reader(), "forward"), nodes)
    assert policy.statistics.tokens == tokens
    assert all(set(tree.budget.accounts) == {"policy", "reference"} for tree in trees)
    read = [tree.budget.read("reference") for tree in trees]
    backward = scored(ImplicitScorer(other.reader(), policy.reader(), "backward", form="increment"), nodes)
    assert backward == [-(value or 0.0) for value in forward]
    assert [tree.budget.read("reference") for tree in trees] == read
    same = scored(ImplicitScorer(policy.reader(), policy.reader(), "same", form="accumulated"), nodes)
    assert set(same) == {0.0}


@pytest.mark.parametrize("limit", [0, 30, 60, 90])
def test_what_the_budget_cannot_pay_has_no_reward(limit: int) -> None:
    tree = random_tree(3)
    tree.budget.limit = limit
    scorer = ImplicitScorer(
        Reader(tiny_causal(seed=1)), Reader(tiny_causal(seed=2), account=Account("reference")), form="accumulated"
    )
    found = scored(scorer, tree.nodes[1:])
    assert found.count(None) == scorer.missing > 0
    assert tree.budget.total <= limit


def test_a_policy_on_a_server_has_what_it_told() -> None:
    tree = Tree(Problem("p", "Add.\n"))
    own = tree.add(tree.root, Step((), "7\n", (-1.0, -0.5), source="server"))
    empty = tree.add(own, Step((), "", (), EndReason.END_OF_TEXT, source="server"))
    other = tree.add(tree.root, Step((), "8\n", (-1.0, -0.5), source="somebody"))
    here = SimpleNamespace(source="server")
    context: Any = SimpleNamespace(
        policy=lambda name: here if name == "policy" else SimpleNamespace(reader=None),
        reader=lambda name: Reader(tiny_causal(vocabulary=260), TOKENIZER),
    )
    scorer = make("scorers", {"implicit": {"beta": 2.0}}).open(context)
    logits = logits_behind(tiny_causal(vocabulary=260), "Add.\n", "7\n")[:-1]
    reference = float(logits.log_softmax(-1)[range(2), TOKENIZER("7\n")["input_ids"]].sum())
    expected = pytest.approx(2 * (-1.5 - reference), abs=1e-4)
    assert scored(scorer, [own, empty, other]) == [expected, None, None]
    assert scorer.missing == 2


# Conditional entropy


@pytest.mark.parametrize("measure", ["entropy", "log_probability"])
@pytest.mark.parametrize("source", ["majority", "reference"])
def test_a_step_is_worth_what_it_tells_of_the_answer(source: Any, measure: Any) -> None:
    model, tree = tiny_causal(vocabulary=260), text_tree()
    reader = Reader(tiny_causal(vocabulary=260), TOKENIZER)
    scorer = ConditionalEntropyScorer(reader, ANSWERS, answer=source, measure=measure, template=" Answer {answer}!")
    answer = "7" if source == "majority" else "4"

    def unsure(text: str) -> float:
        *_, at_answer, _ = logits_behind(model, tree.problem.prompt + text + " Answer ", answer)
        distribution = at_answer.log_softmax(-1)
        if measure == "entropy":
            return -float((distribution.exp() * distribution).sum())
        return -float(distribution[TOKENIZER(answer)["input_ids"][0]])

    before = len(tree)
    for node, score in zip(tree.nodes[1:], scored(scorer, tree.nodes[1:]), strict=True):
        assert node.parent is not None
        assert score == pytest.approx(unsure(node.parent.text) - unsure(node.text), abs=1e-4)
    for leaf in tree.solutions():
        path = sum(node.scores["conditional_entropy"] for node in leaf.path()[1:])
        assert path == pytest.approx(unsure("") - unsure(leaf.text), abs=1e-4)
    assert len(tree) == before
    assert scored(scorer, [tree.root]) == [None]


def test_a_model_that_knows_the_answer_by_the_steps_finds_them_useful() -> None:
    texts = ["Q\nx 7", "Q\ny 4"]  # behind x the answer is 7, and without a step it is either
    model, tokenizer = learned_by_heart(texts)
    tree = Tree(Problem("p", "Q\n", answer="7"))
    step = tree.add(tree.root, Step((), "x"))
    wrong = tree.add(tree.root, Step((), "y"))
    scorer = ConditionalEntropyScorer(
        Reader(model, tokenizer), ANSWERS, answer="reference", measure="log_probability", template=" {answer}"
    )
    useful, misleading = scored(scorer, [step, wrong])
    assert useful is not None
    assert misleading is not None
    assert useful > 0 > misleading


def test_an_answer_that_nobody_knows_yet_leaves_steps_unscored() -> None:
    reader = Reader(tiny_causal(vocabulary=260), TOKENIZER)
    tree = Tree(Problem("p", "Add.\n"))
    step = tree.add(tree.root, Step((), "So\n"))
    for source in ("majority", "reference"):
        scorer = ConditionalEntropyScorer(reader, ANSWERS, answer=source)  # type: ignore[arg-type]
        assert scored(scorer, [step]) == [None]
        assert scorer.missing == 1
    assert tree.budget.total == 0
    tree.add(step, Step((), "is 7", end=EndReason.END_OF_TEXT))
    assert scored(ConditionalEntropyScorer(reader, ANSWERS), [step]) != [None]


def test_an_answer_that_the_tokenizer_does_not_know_leaves_steps_unscored() -> None:
    tree = Tree(Problem("p", " 5\n", answer=" 7"))
    step = tree.add(tree.root, Step((), " 6\n"))
    strange = Tree(Problem("q", " 5\n", answer="seven"))
    below = strange.add(strange.root, Step((), " 6\n"))
    reader = Reader(tiny_causal(), word_tokenizer())
    scorer = ConditionalEntropyScorer(reader, ANSWERS, answer="reference", template=" 8 {answer}")
    known, unknown = scored(scorer, [step, below])
    assert known is not None
    assert (unknown, scorer.missing, strange.budget.total) == (None, 1, 0)
    with pytest.raises(GradatimError, match=r"no tokens for part of .*The answer is'"):
        ConditionalEntropyScorer(reader, ANSWERS)


def test_only_the_reference_answer_is_the_truth() -> None:
    assert make("scorers", {"conditional_entropy": {"answer": "reference"}}).knows_truth
    assert not make("scorers", "conditional_entropy").knows_truth
    with pytest.raises(GradatimError, match="template says once where the answer stands"):
        make("scorers", {"conditional_entropy": {"template": "The answer is"}})


# Self-evaluation


def test_a_models_word_on_a_step_is_its_probability_of_yes() -> None:
    model, tree = tiny_causal(vocabulary=260), text_tree()
    reader = Reader(tiny_causal(vocabulary=260), TOKENIZER)
    scorer = SelfEvaluationScorer(reader)
    yes, no = (TOKENIZER(word)["input_ids"][0] for word in "AB")
    before = len(tree)
    for node, score in zip(tree.nodes[1:], scored(scorer, tree.nodes[1:]), strict=True):
        last = logits_behind(model, tree.problem.prompt + node.text, PROMPT)[-1]
        assert score == pytest.approx(float(last[[yes, no]].softmax(-1)[0]), abs=1e-5)
    assert (len(tree), tree.has_text_steps) == (before, True)
    assert scored(scorer, [tree.root]) == [None]
    opposite = SelfEvaluationScorer(reader, "opposite", right="B", wrong="A")
    spent = tree.budget.total
    for node, score in zip(tree.nodes[1:], scored(opposite, tree.nodes[1:]), strict=True):
        assert score == pytest.approx(1 - node.scores["self_evaluation"], abs=1e-5)
    assert tree.budget.total == spent  # the question was paid for
    scorer.release(tree)
    assert reader.tree_model.store.used_bytes == 0


def test_the_question_is_paid_for_with_each_step_and_no_part_of_what_is_continued() -> None:
    policy = make_policy()
    trees = asyncio.run(grow(policy, 2))
    shapes = [len(tree) for tree in trees]
    spent = [tree.budget.total for tree in trees]
    scorer = SelfEvaluationScorer(policy.reader(), prompt=" 5 6 7", right=" 8", wrong=" 9")
    for tree, before, size in zip(trees, spent, shapes, strict=True):
        asyncio.run(scorer.score(tree.nodes[1:]))
        ended = [node for node in tree.nodes[1:] if node.step.end is EndReason.END_OF_TEXT]
        again = sum(len(node.step.tokens) - 1 for node in ended)  # read without the end token
        assert tree.budget.total - before <= 3 * (size - 1) + again
        assert len(tree) == size
    (child,) = asyncio.run(policy.extend([next(node for node in trees[0].nodes if node.open)], 1))
    assert child.step.tokens
    assert math.isfinite(sum(child.step.log_probabilities))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"right": "maybe"}, r"'maybe' is 5 tokens in the model's tokenizer"),
        ({"right": "A", "wrong": "A"}, "right and wrong are the same token"),
        ({"prompt": ""}, "prompt is empty"),
    ],
)
def test_words_that_cannot_be_asked_for_are_told(options: dict[str, str], said: str) -> None:
    with pytest.raises(GradatimError, match=said):
        SelfEvaluationScorer(Reader(tiny_causal(vocabulary=260), TOKENIZER), **options)


def test_a_tokenizer_that_does_not_know_the_words_is_told() -> None:
    with pytest.raises(GradatimError, match="the model's tokenizer has no tokens for part of"):
        SelfEvaluationScorer(Reader(tiny_causal(), word_tokenizer()))
    with pytest.raises(GradatimError, match="without the model's tokenizer"):
        SelfEvaluationScorer(Reader(tiny_causal()))
