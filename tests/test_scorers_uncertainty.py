"""Scores from a model's uncertainty, against the definitions on whole distributions, and what they cost."""

from __future__ import annotations

import asyncio
import itertools
import math
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from gradatim import Budget
from gradatim.engine.loading import load_tokenizer
from gradatim.engine.reader import Reader
from gradatim.errors import GradatimError
from gradatim.models import resolve_model
from gradatim.scorers.uncertainty import Extent, MeasureName, UncertaintyPart, UncertaintyScorer
from gradatim.tree import EndReason, Node, Problem, Step, Tree
from scripted_countdown import new_tree, random_policy
from test_policies_exact import grow, make_policy
from test_scorers_process_reward import random_tree
from tiny_models import tiny_causal

EXTENTS: tuple[Extent, ...] = get_args(Extent)
RECORDED: tuple[MeasureName, ...] = ("log_probability", "probability", "perplexity")
OF_DISTRIBUTIONS: tuple[MeasureName, ...] = ("entropy", "self_certainty", "top_confidence")
SUREST = {"log_probability": 0.0, "probability": 1.0, "perplexity": -1.0}


def scored(scorer: UncertaintyScorer, nodes: list[Node]) -> list[float | None]:
    asyncio.run(scorer.score(nodes))
    return [node.scores.get(scorer.name) for node in nodes]


def by_definition(measure: str, of_path: list[list[float]], over: str, window: int) -> float:
    """The score of a path's last step from what each step's tokens say, without any shortcut."""
    path = [value for step in of_path for value in step]
    tokens = {"step": of_path[-1], "path": path, "tail": path[-window:], "group": path}[over]
    groups = [tokens]
    if over == "group" and len(path) > window:
        groups = [path[start : start + window] for start in range(len(path) - window + 1)]
    means = [math.fsum(group) / len(group) for group in groups]
    made = {"probability": math.exp, "perplexity": lambda mean: -math.exp(-mean)}.get(measure, float)
    return min(map(made, means))


def test_a_step_scores_the_geometric_mean_of_its_tokens() -> None:
    model, plain = (AutoModelForCausalLM.from_pretrained(resolve_model("shipped:countdown")).float() for _ in range(2))
    tokenizer = load_tokenizer("shipped:countdown")
    tree = Tree(Problem("p", "Make 46 from 3 5 7 8\n"))
    first = tree.add(tree.root, Step((), " 7 * 5 = 35 | 3 8 35\n"))
    nodes = [
        first,
        tree.add(first, Step((), " 35 + 8 = 43 | 3 43\n")),
        tree.add(first, Step((), " 8 - 3 = 5 | 5 35\n")),
    ]
    scorer = UncertaintyScorer(Reader(model, tokenizer))
    for node, score in zip(nodes, scored(scorer, nodes), strict=True):
        ids = tokenizer.encode(tree.problem.prompt + node.text, add_special_tokens=False)
        own = len(tokenizer.encode(node.step.text, add_special_tokens=False))
        with torch.no_grad():
            found = plain(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        steps = found.gather(1, torch.tensor(ids[1:])[:, None])[-own:]
        assert score == pytest.approx(float(steps.mean().exp()), rel=1e-4)
    scorer.release(tree)


@pytest.mark.parametrize("over", EXTENTS)
@pytest.mark.parametrize("measure", RECORDED)
def test_what_was_recorded_costs_nothing(measure: MeasureName, over: Extent) -> None:
    tree = new_tree()
    asyncio.run(random_policy(0.3).extend([tree.root], 12, steps=None))
    before = tree.budget.to_json()
    scorer = UncertaintyScorer(None, "sure", measure, over, window=7)
    for node, score in zip(tree.nodes[1:], scored(scorer, tree.nodes[1:]), strict=True):
        of_path = [list(each.step.log_probabilities) for each in node.path()[1:]]
        assert score == pytest.approx(by_definition(measure, of_path, over, 7), abs=1e-12)
        assert score is not None
        assert score <= SUREST[measure] + 1e-12
    assert (tree.budget.to_json(), scorer.missing) == (before, 0)
    assert scored(scorer, [tree.root]) == [None]
    assert scorer.missing == 1


@given(
    values=st.lists(st.lists(st.floats(-9, 0), min_size=1, max_size=5), min_size=1, max_size=6),
    window=st.integers(1, 12),
)
def test_windows_lie_along_the_path_wherever_its_steps_end(values: list[list[float]], window: int) -> None:
    tree = Tree(Problem("p", ""))
    node = tree.root
    for place, each in enumerate(values):
        node = tree.add(node, Step((), f"{place}", tuple(each)))
    for over in EXTENTS:
        scorer = UncertaintyScorer(None, over, "log_probability", over, window=window)
        assert scored(scorer, [node]) == [
            pytest.approx(by_definition("log_probability", values, over, window), abs=1e-9)
        ]
    assert node.scores["group"] <= node.scores["tail"] + 1e-9


def test_text_steps_are_scored_where_their_server_told() -> None:
    tree = Tree(Problem("p", ""))
    told = tree.add(tree.root, Step((), "so", (-1.0, -3.0)))
    ended = tree.add(told, Step((), "", (), EndReason.END_OF_TEXT))
    silent = tree.add(told, Step((), "then"))
    below = tree.add(silent, Step((), "end", (-1.0,)))
    nodes = [told, ended, silent, below]
    scorer = UncertaintyScorer(None, "step", "log_probability")
    assert scored(scorer, nodes) == [-2.0, -2.0, None, -1.0]
    assert scorer.missing == 1
    assert scored(UncertaintyScorer(None, "path", "log_probability", "path"), nodes) == [-2.0, -2.0, None, None]


@pytest.mark.parametrize("over", EXTENTS)
def test_distributions_are_measured_as_they_are_defined(over: Extent) -> None:
    reader, model = Reader(tiny_causal()), tiny_causal()
    trees = [random_tree(seed) for seed in range(2)]
    nodes = [node for tree in trees for node in tree.nodes[1:]]
    values: dict[str, dict[Node, list[float]]] = {name: {} for name in OF_DISTRIBUTIONS}
    for node in nodes:
        assert node.parent is not None
        before = len(node.parent.tokens)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([node.tokens_before_observation])).logits[0, before - 1 : -1]
        probabilities = logits.double().softmax(-1)
        values["entropy"][node] = (probabilities * probabilities.log()).sum(-1).tolist()
        values["self_certainty"][node] = [-sum(math.log(40 * float(p)) for p in row) / 40 for row in probabilities]
        likeliest = probabilities.sort(descending=True).values[:, :3]
        values["top_confidence"][node] = [-sum(math.log(float(p)) for p in row) / 3 for row in likeliest]
    for measure in OF_DISTRIBUTIONS:
        scorer = UncertaintyScorer(reader, measure, measure, over, window=5, top=3)
        for node, score in zip(nodes, scored(scorer, nodes), strict=True):
            of_path = [values[measure][each] for each in node.path()[1:]]
            assert score == pytest.approx(by_definition(measure, of_path, over, 5), abs=1e-4)


def test_what_was_read_for_one_measure_serves_all() -> None:
    reader, tree = Reader(tiny_causal()), random_tree(1)
    passes, read = [], []
    for measure, over in itertools.product(OF_DISTRIBUTIONS, EXTENTS):
        scored(UncertaintyScorer(reader, f"{measure} {over}", measure, over), tree.nodes[1:])
        passes.append(reader.statistics.passes)
        read.append(tree.budget.total)
    assert len(set(passes)) == len(set(read)) == 1


def test_a_policy_pays_nothing_for_its_own_steps() -> None:
    policy = make_policy()
    trees = asyncio.run(grow(policy, 2))
    nodes = [node for tree in trees for node in tree.nodes[1:]]
    before, tokens = [tree.budget.to_json() for tree in trees], policy.statistics.tokens
    read = scored(UncertaintyScorer(policy.reader(), "read"), nodes)
    assert read == scored(UncertaintyScorer(None, "recorded"), nodes)
    assert policy.statistics.tokens == tokens
    scored(UncertaintyScorer(policy.reader(), "entropy", "entropy", "group"), nodes)
    assert [tree.budget.to_json() for tree in trees] == before


def test_a_budget_that_ends_leaves_the_rest_missing() -> None:
    tree = random_tree(1)
    tree.budget.limit = 40
    scorer = UncertaintyScorer(Reader(tiny_causal()), "entropy", "entropy", "path")
    found = scored(scorer, tree.nodes[1:])
    assert 0 < scorer.missing == found.count(None) < len(found)
    assert tree.budget.total <= 40
    tree.budget = Budget()
    assert None not in scored(scorer, tree.nodes[1:])


def test_what_nobody_recorded_needs_a_model() -> None:
    options: dict[str, Any] = {"measure": "self_certainty"}
    with pytest.raises(GradatimError, match=r"self_certainty is of the whole vocabulary.* model='policy'"):
        UncertaintyPart(**options)
    assert UncertaintyPart(**options, model="policy").window == 128
