"""What holds of every construction, and of every objective with each; a new part is tested by being there."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from gradatim.engine.heads import attach_heads
from gradatim.errors import GradatimError
from gradatim.objectives import Objective
from gradatim.part import make, names
from gradatim.search.regrowth.controlled_errors import CONTROLLED
from gradatim.store.export import row_format
from gradatim.supervision import Construction, Term
from gradatim.training.forward import measured
from gradatim.training.rows import build_row
from gradatim.training.text_terms import terms_in_tokens_of
from gradatim.tree import EndReason, Tree
from supervision_trees import valued_trees
from training_models import random_tree, tiny_model

CONSTRUCTIONS: list[Construction] = [make("supervision", name) for name in names("supervision")]
OBJECTIVES: list[Objective] = [make("objectives", name) for name in names("objectives")]


def ids(terms: list[Term]) -> list[object]:
    return [([[node.id for node in group.nodes] for group in term.groups], term.targets) for term in terms]


@given(tree=valued_trees())
@settings(max_examples=50)
def test_terms_are_what_the_construction_says(tree: Tree) -> None:
    for construction in CONSTRUCTIONS:
        terms = list(construction(tree))
        assert ids(terms) == ids(list(construction(Tree.from_json(tree.to_json()))))
        for term in terms:
            assert construction.groups in (None, len(term.groups))
            assert construction.groups is not None or len(term.groups) > 1
            assert bool(term.targets) == construction.has_targets
            assert construction.smooths_labels or not term.label_smoothing
            for group in term.groups:
                assert not group.nodes[0].is_root
                assert list(group.nodes) == group.nodes[-1].path()[group.nodes[0].depth :]
        assert construction.what
        rows = construction.rows(terms)
        assert len(rows) == len(terms)
        if rows:
            row_format(rows)


def valued(seed: int) -> Tree:
    """A random tree in which every construction finds something."""
    tree = random_tree(seed, nodes=16)
    tree.root.scores["value"] = 0.5
    for index, node in enumerate(tree.nodes[1:]):
        node.scores["value"] = node.scores["process_reward"] = (index % 4) / 3
        if node.is_leaf:
            node.step = replace(node.step, end=EndReason.END_OF_TEXT)
            node.reward = float(index % 2)
    right = next(leaf for leaf in tree.solutions() if leaf.correct)
    wrong = next(leaf for leaf in tree.solutions() if leaf.correct is False)
    wrong.notes[CONTROLLED] = [right.id]
    return tree


def letters() -> PreTrainedTokenizerFast:
    """A token for each letter that random trees and marks are made of, for constructions that write texts."""
    words = {word: index for index, word in enumerate(["<eos>", *sorted({*"promptso\nBacktrack"})])}
    tokenizer = Tokenizer(models.WordLevel(words))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern=Regex(r"[\s\S]"), behavior="isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


@pytest.mark.parametrize(("objective", "construction"), product(OBJECTIVES, CONSTRUCTIONS), ids=str)
def test_an_objective_learns_from_what_it_accepts(objective: Objective, construction: Construction) -> None:
    terms = [term for seed in range(2) for term in construction(valued(seed))]
    assert terms
    if any(term.ends[0].tree.has_text_steps for term in terms):
        terms = terms_in_tokens_of(terms, letters())
    try:
        objective.check(construction)
    except GradatimError as refusal:
        if construction.groups is None:  # a ranking of two would do
            return
        bounded = "between 0 and 1"  # which advantages are not, though one of them may be
        with pytest.raises(GradatimError, match=bounded if bounded in str(refusal) else re.escape(str(refusal))):
            _ = [objective.prepared(term) for term in terms]
        return
    prepared = [objective.prepared(term) for term in terms]
    model = tiny_model()
    attach_heads(model, objective.heads)

    def sums(part: list[Term]) -> torch.Tensor:
        row = build_row(part)
        found = objective.loss(measured(model, row, objective))
        assert all(value.shape == row.weight.shape for value in (found.per_term, *found.metrics.values()))
        assert not any(value.requires_grad for value in found.metrics.values())
        return torch.stack([(row.weight * found.per_term).sum(), row.sizes(objective.unit).sum()])

    whole = sums(prepared)
    apart = torch.stack([sums([term]) for term in prepared]).sum(dim=0)
    assert whole.isfinite().all()
    assert float(whole[1].detach()) > 0
    torch.testing.assert_close(apart, whole, atol=1e-4, rtol=1e-5)
    whole[0].backward()
    assert any(each.grad is not None and bool((each.grad != 0).any()) for each in model.parameters())
