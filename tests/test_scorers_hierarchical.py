"""Steps judged alone and merged, against reading each solution anew; and labels of merged steps."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from hypothesis import given

from gradatim.budget import Budget
from gradatim.errors import GradatimError
from gradatim.part import make
from gradatim.scorers.layouts import OwnLayout, SeparatorLayout, StepTokenLayout
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.supervision import MergedStepLabels, StepLabels
from gradatim.tree import EndReason, Problem, Step, Tree
from supervision_trees import valued_trees
from test_scorers_layouts import OTHER, QUESTION, STEPS, chat_tokenizer, text_tree
from tiny_models import byte_pair_tokenizer, tiny_classifier

SEPARATED = byte_pair_tokenizer([QUESTION, *STEPS, OTHER], size=320)


class Lends:
    """A context with one reward model, in a layout."""

    def __init__(self, layout: Any) -> None:
        self.layout = layout
        self.model = tiny_classifier(labels=2, vocabulary=len(layout.tokenizer))

    def reward_model(self, name: str, key: str, layout: str = "auto") -> ProcessRewardScorer:
        model = tiny_classifier(labels=2, vocabulary=len(self.layout.tokenizer))
        return ProcessRewardScorer(model, layout=self.layout, name=key)

    def alone(self, problem: Problem, texts: list[str]) -> float:
        """The score of a solution's last step, read by itself."""
        tokens = self.layout.path_tokens(problem, [Step((), text) for text in texts])
        with torch.no_grad():
            return float(self.model(input_ids=torch.tensor([tokens])).logits[0, -1].softmax(-1)[1])


def step_tokens() -> Lends:
    return Lends(StepTokenLayout(chat_tokenizer("<extra_0>")))


def hierarchical(lends: Lends, **options: Any) -> Any:
    return make("scorers", {"hierarchical": options}).open(lends)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("together", [True, False])
def test_a_step_is_read_alone_and_with_the_one_before(weight: float, together: bool) -> None:
    lends, tree = step_tokens(), text_tree()
    scorer = hierarchical(lends, merged=weight)
    for part in [tree.nodes[1:]] if together else [[node] for node in tree.nodes[1:]]:
        asyncio.run(scorer.score(part))
    for node in tree.nodes[1:]:
        texts = [each.step.text for each in node.path()[1:]]
        expected = single = lends.alone(tree.problem, texts)
        if len(texts) > 1:
            joined = [*texts[:-2], texts[-2].rstrip() + "\n" + texts[-1]]
            expected = (1 - weight) * single + weight * lends.alone(tree.problem, joined)
        assert node.scores == pytest.approx({"process_reward": single, "hierarchical": expected}, abs=1e-5)
    scorer.release(tree)
    assert scorer.inner.tree_model.store.used_bytes == 0


def test_what_both_readings_share_is_read_once() -> None:
    lends, tree = step_tokens(), text_tree()
    asyncio.run(hierarchical(lends).score(tree.nodes[1:]))

    def length(texts: list[str]) -> int:
        return len(lends.layout.path_tokens(tree.problem, [Step((), text) for text in texts]))

    expected = length([])
    for node in tree.nodes[1:]:
        texts = [each.step.text for each in node.path()[1:]]
        expected += length(texts) - length(texts[:-1])
        if len(texts) > 1:
            expected += length([*texts[:-2], texts[-2].rstrip() + "\n" + texts[-1]]) - length(texts[:-2])
    assert tree.budget.total == expected


def test_what_a_search_asked_for_before_is_not_asked_again() -> None:
    tree = text_tree()
    tree.nodes[1].scores["process_reward"] = 0.125
    asyncio.run(hierarchical(step_tokens()).score([tree.nodes[1]]))
    assert tree.nodes[1].scores["hierarchical"] == 0.125
    assert tree.budget.total == 0


def test_what_the_environment_wrote_stands_between_the_two() -> None:
    lends, tree = step_tokens(), Tree(Problem("p", f"{QUESTION}\n", data={"question": QUESTION}))
    first = tree.add(tree.root, Step((), STEPS[0], observation_text="seen\n"))
    second = tree.add(first, Step((), STEPS[1]))
    scorer = hierarchical(lends, merged=1.0)
    asyncio.run(scorer.score([second]))
    expected = lends.alone(tree.problem, [STEPS[0] + "seen\n" + STEPS[1]])
    assert second.scores["hierarchical"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("limit", [0, 30, 60, 90, 150])
def test_a_budget_may_end_anywhere(limit: int) -> None:
    tree = text_tree()
    tree.budget = Budget(limit)
    scorer = hierarchical(step_tokens())
    asyncio.run(scorer.score(tree.nodes[1:]))
    assert scorer.missing == sum("hierarchical" not in node.scores for node in tree.nodes[1:])
    assert tree.budget.total <= limit


def test_layouts_that_read_merged_steps_as_single_ones_are_refused() -> None:
    with pytest.raises(GradatimError, match="needs a reward model that marks the end of each step"):
        hierarchical(Lends(OwnLayout(SEPARATED)))
    lends = Lends(SeparatorLayout(SEPARATED))
    with pytest.raises(GradatimError, match="since '\\\\n' is what the layout writes between steps; set joint"):
        asyncio.run(hierarchical(lends).score(text_tree().nodes[1:]))
    tree = text_tree()
    asyncio.run(hierarchical(lends, joint=" ").score(tree.nodes[1:]))
    assert all("hierarchical" in node.scores for node in tree.nodes[1:])
    with pytest.raises(GradatimError, match="'value_head' is no ProcessRewardPart"):
        make("scorers", {"hierarchical": {"scorer": "value_head"}})


def test_merged_steps_have_the_label_of_their_last_one() -> None:
    tree = text_tree()
    for node in tree.nodes[1:]:
        node.scores["value"] = node.id / 10
    terms = MergedStepLabels()(tree)
    assert [([node.id for node in term.groups[0].nodes], term.targets) for term in terms] == [
        ([1, 2], (0.2,)), ([2, 3], (0.3,)), ([1, 4], (0.4,)), ([4, 5], (0.5,)),
    ]  # fmt: skip
    assert MergedStepLabels.rows(terms)[1] == {
        "prompt": f"{QUESTION}\n{STEPS[0]}", "completion": STEPS[1] + STEPS[2], "label": False,
    }  # fmt: skip
    whole = MergedStepLabels(count=3, kind="hard", threshold=0.4)(tree)
    assert [([node.id for node in term.groups[0].nodes], term.targets) for term in whole] == [
        ([1, 2, 3], (0.0,)), ([1, 4, 5], (1.0,)),
    ]  # fmt: skip
    with pytest.raises(GradatimError, match="greater than or equal to 2"):
        MergedStepLabels(count=1)


@given(valued_trees())
def test_every_labelled_step_but_first_ones_is_merged_once(tree: Tree) -> None:
    merged = MergedStepLabels()(tree)
    expected = [term for term in StepLabels()(tree) if term.ends[0].depth > 1]
    assert [(term.ends, term.targets) for term in merged] == [(term.ends, term.targets) for term in expected]
    for term in merged:
        before, last = term.groups[0].nodes
        assert last.parent is before
        assert last.step.end is not EndReason.BUDGET
