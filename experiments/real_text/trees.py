"""Solutions as trees: those of one question that begin alike share their first steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from transformers import PreTrainedTokenizerBase

from experiments.real_text.documents import Solution
from gradatim.supervision import StepLabels, Term, labelled_step
from gradatim.tree import EndReason, Node, Problem, Step, Tree

LABEL = "label"


def solution_trees(solutions: Sequence[Solution], tokenizer: PreTrainedTokenizerBase) -> tuple[list[Tree], list[Node]]:
    """One tree for each question, and each solution's last node.

    ``node.scores["label"]`` is the mean label of the solutions that take the step (they rarely disagree), and the last
    node's ``reward`` the outcome, where they are known.
    """
    texts = [text for solution in solutions for text in (solution.prompt, *solution.steps)]
    encoded = iter(tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else [])
    trees: dict[str, Tree] = {}
    ends: list[Node] = []
    for solution in solutions:
        prompt = next(encoded)
        if solution.question not in trees:
            problem = Problem(str(len(trees)), solution.prompt)
            trees[solution.question] = Tree(problem, prompt_tokens=prompt)
        tree = trees[solution.question]
        node = tree.root
        for index, text in enumerate(solution.steps):
            last = index == len(solution.steps) - 1
            end = EndReason.END_OF_TEXT if last else EndReason.BOUNDARY
            node = tree.add(node, Step(tuple(next(encoded)), text, end=end))
            if solution.labels:
                _count_label(node, solution.labels[index])
        node.reward = solution.outcome
        ends.append(node)
    return list(trees.values()), ends


def process_labels(trees: Iterable[Tree]) -> list[Term]:
    """Every labelled step."""
    return [label for tree in trees for label in StepLabels(value=LABEL)(tree)]


def outcome_labels(trees: Iterable[Tree]) -> list[Term]:
    """The last step of every solution of known outcome (Cobbe et al., 2021, arXiv:2110.14168)."""
    return [labelled_step(node, node.reward) for tree in trees for node in tree.nodes if node.reward is not None]


def path_tokens(node: Node) -> int:
    """Tokens from the prompt to this node."""
    return sum(len(each.step.tokens) for each in node.path())


def packed_tokens(tree: Tree) -> int:
    """Tokens of the tree, each counted once."""
    return sum(len(node.step.tokens) for node in tree.nodes)


def _count_label(node: Node, label: float) -> None:
    count = node.counts.get(LABEL, 0)
    node.scores[LABEL] = (node.scores.get(LABEL, 0.0) * count + label) / (count + 1)
    node.counts[LABEL] = count + 1
