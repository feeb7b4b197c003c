"""The likelihood of steps as their score, against the model's own probabilities of each path."""

from __future__ import annotations

import asyncio

import pytest
import torch
from transformers import AutoModelForCausalLM

from gradatim.engine.loading import load_tokenizer
from gradatim.engine.reader import Reader
from gradatim.models import resolve_model
from gradatim.scorers.likelihood import LikelihoodScorer
from gradatim.tree import Problem, Step, Tree


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
    scorer = LikelihoodScorer(Reader(model, tokenizer))
    asyncio.run(scorer.score(nodes))
    for node in nodes:
        ids = tokenizer.encode(tree.problem.prompt + node.text, add_special_tokens=False)
        own = len(tokenizer.encode(node.step.text, add_special_tokens=False))
        with torch.no_grad():
            found = plain(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        steps = found.gather(1, torch.tensor(ids[1:])[:, None])[-own:]
        assert node.scores["likelihood"] == pytest.approx(float(steps.mean().exp()), rel=1e-4)
    scorer.release(tree)
