"""Solutions as trees to learn from: those of one question that begin alike share their first steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Literal

from transformers import PreTrainedTokenizerBase

from experiments.real_text.documents import Solution, gsm8k_solutions, prmbench_solutions
from experiments.real_text.error_injection import corrupted_solutions
from gradatim.errors import GradatimError
from gradatim.store.published.base import LABEL
from gradatim.tree import EndReason, Node, Problem, Step, Tree

Source = Literal["synthetic", "prmbench"]

_SHORTEST_TREE = 100  # tokens; nearly all trees of a GSM8K problem have more, so no more problems are needed


def training_trees(
    data: Path,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[Source],
    *,
    tokens: int,
    longest: int,
    corruptions: int,
    outcomes: bool,
    seed: int,
) -> list[Tree]:
    """The trees of each source, one source after the other, with equal parts of the training tokens.

    Args:
        data: the folder of the data sets.
        tokenizer: the model's.
        sources: synthetic errors in GSM8K, PRMBench.
        tokens: in all; steps that solutions share are counted once.
        longest: longest solution that is learned from, in tokens.
        corruptions: wrong solutions made of each GSM8K problem.
        outcomes: label the last step of each solution with its outcome, and no others (Cobbe et al., 2021,
            arXiv:2110.14168); else each step is labelled.
        seed: of the errors and of the choice.

    Raises:
        GradatimError: if a source has fewer tokens than its part.
    """
    chosen: list[Tree] = []
    for source in sources:
        if source == "synthetic":
            solutions = list(synthetic_solutions(data, tokens // _SHORTEST_TREE, corruptions, seed))
        else:
            solutions = prmbench_solutions(data, "train")
        _, ends = solution_trees(solutions, tokenizer, source, outcomes)
        fitting = [solution for solution, end in zip(solutions, ends, strict=True) if len(end.tokens) <= longest]
        trees, taken = solution_trees(fitting, tokenizer, source, outcomes)[0], 0
        Random(seed).shuffle(trees)
        while trees and taken < tokens // len(sources):
            chosen.append(trees.pop())
            taken += packed_tokens(chosen[-1])
        if taken < tokens // len(sources):
            raise GradatimError(f"{source} has only {taken} of {tokens // len(sources)} training tokens; ask for fewer")
    return chosen


def synthetic_solutions(data: Path, problems: int, corruptions: int, seed: int) -> Iterator[Solution]:
    """The reference solutions of ``problems`` random training problems, each followed by wrong ones made of it."""
    random = Random(seed)
    references = gsm8k_solutions(data, "train")
    for reference in random.sample(references, min(problems, len(references))):
        yield reference
        yield from corrupted_solutions(reference, corruptions, random)


def solution_trees(
    solutions: Sequence[Solution], tokenizer: PreTrainedTokenizerBase, name: str = "", outcomes: bool = False
) -> tuple[list[Tree], list[Node]]:
    """One tree for each question, and each solution's last node.

    A step's label is the mean of those of the solutions that take the step (they rarely disagree); the last node's
    ``reward`` is the outcome, where it is known, and with ``outcomes`` the only label.
    """
    texts = [text for solution in solutions for text in (solution.prompt, *solution.steps)]
    encoded = iter(tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else [])
    trees: dict[str, Tree] = {}
    ends: list[Node] = []
    for solution in solutions:
        prompt = next(encoded)
        if solution.question not in trees:
            problem = Problem(f"{name}-{len(trees)}", solution.prompt)
            trees[solution.question] = Tree(problem, prompt_tokens=prompt)
        node = trees[solution.question].root
        for index, text in enumerate(solution.steps):
            end = EndReason.END_OF_TEXT if index == len(solution.steps) - 1 else EndReason.BOUNDARY
            node = node.tree.add(node, Step(tuple(next(encoded)), text, end=end))
            if solution.labels and not outcomes:
                count = node.counts.get(LABEL, 0)
                node.scores[LABEL] = (node.scores.get(LABEL, 0.0) * count + solution.labels[index]) / (count + 1)
                node.counts[LABEL] = count + 1
        node.reward = solution.outcome
        if outcomes and solution.outcome is not None:
            node.scores[LABEL] = solution.outcome
        ends.append(node)
    return list(trees.values()), ends


def packed_tokens(tree: Tree) -> int:
    """Tokens of the tree, each counted once."""
    return sum(len(node.step.tokens) for node in tree.nodes)
