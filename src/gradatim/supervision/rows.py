"""Supervision as rows in the standard formats, under exactly the column names that other trainers read.

The text of a row, joined, is the text of the tree: nothing is stripped, and steps keep their own boundaries (so a
trainer that puts a separator between steps must be told to put an empty one). What an environment wrote between steps
stays in the text, since these formats have no place for it; what it wrote after the last one is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from typing import TypedDict

from gradatim.supervision.terms import Term
from gradatim.tree import Node


class StepwiseRow(TypedDict):
    """Stepwise supervision: ``labels[i]`` judges ``completions[i]``."""

    prompt: str
    completions: list[str]
    labels: list[float] | list[bool]


class PreferenceRow(TypedDict):
    """Preference: ``chosen`` continues ``prompt`` better than ``rejected``."""

    prompt: str
    chosen: str
    rejected: str


class UnpairedPreferenceRow(TypedDict):
    """Unpaired preference: whether ``completion`` is a good continuation of ``prompt``."""

    prompt: str
    completion: str
    label: bool


class RankedRow(TypedDict):
    """Ranking: ``completions``, the best first, with the score of each; no standard, since list-wise trainers have each
    their own."""

    prompt: str
    completions: list[str]
    scores: list[float]


class PromptCompletionRow(TypedDict):
    """Prompt-completion, for supervised fine-tuning."""

    prompt: str
    completion: str


def labelled_paths(labels: Iterable[Term]) -> Iterator[list[Node]]:
    """The paths of labelled steps, root left out, as many as are needed to show every one of them.

    A step that several paths share is in each of them, and no path is the beginning of another. A path ends before its
    first unlabelled step; what lies below that is left out.
    """
    labelled = {term.ends[0]: None for term in labels}
    for node in labelled:
        path = node.path()[1:]
        if labelled.keys().isdisjoint(node.children) and labelled.keys() >= set(path):
            yield path


def stepwise_rows(labels: Iterable[Term], *, threshold: float | None = 0.5) -> list[StepwiseRow]:
    """One row per path of labelled steps (see :func:`labelled_paths`), since the format knows only whole paths.

    Labels are booleans, as the format has them: good if the label is above ``threshold``. With ``None`` they stay
    numbers, for trainers that take soft labels.
    """
    labels = list(labels)
    by_node = {term.ends[0]: term.targets[0] for term in labels}
    return [
        stepwise_row(path, [by_node[step] for step in path], threshold=threshold) for path in labelled_paths(labels)
    ]


def stepwise_row(path: Sequence[Node], labels: Sequence[float], *, threshold: float | None) -> StepwiseRow:
    """The row of one labelled path, root left out; with ``threshold`` ``None``, labels stay numbers."""
    return StepwiseRow(
        prompt=path[-1].tree.problem.prompt,
        completions=[_step_text(step, last=step is path[-1]) for step in path],
        labels=list(labels) if threshold is None else [label > threshold for label in labels],
    )


def advantage_rows(terms: Iterable[Term]) -> list[StepwiseRow]:
    """One row per solution, or single step, whose labels are the advantages of its steps; the text before the first of
    them is the prompt."""
    return [
        StepwiseRow(
            prompt=_prompt(before),
            completions=[_step_text(step, last=step is group.nodes[-1]) for step in group.nodes],
            labels=list(group.targets or term.targets),
        )
        for term in terms
        for group in term.groups
        if (before := group.nodes[0].parent) is not None
    ]


def preference_rows(pairs: Iterable[Term]) -> list[PreferenceRow]:
    """One row per pair; the prompt goes as far as the two paths are one.

    So the completions of siblings are one step each, and those of whole solutions begin with the first step in which
    they differ.
    """
    rows: list[PreferenceRow] = []
    for chosen, rejected in (term.ends for term in pairs):
        fork = _fork(chosen, rejected)
        rows.append(
            PreferenceRow(prompt=_prompt(fork), chosen=_text_after(fork, chosen), rejected=_text_after(fork, rejected))
        )
    return rows


def ranked_rows(rankings: Iterable[Term]) -> list[RankedRow]:
    """One row per ranking, with its targets as scores; the prompt goes as far as all paths are one."""
    rows: list[RankedRow] = []
    for term in rankings:
        fork = reduce(_fork, term.ends)
        texts = [_text_after(fork, end) for end in term.ends]
        rows.append(RankedRow(prompt=_prompt(fork), completions=texts, scores=list(term.targets)))
    return rows


def unpaired_preference_rows(labels: Iterable[Term], *, threshold: float = 0.5) -> list[UnpairedPreferenceRow]:
    """One row per labelled step, or run of steps, after the text before it; good if its label is above
    ``threshold``."""
    return [
        UnpairedPreferenceRow(
            prompt=_prompt(before), completion=_text_after(before, term.ends[0]), label=term.targets[0] > threshold
        )
        for term in labels
        if (before := term.groups[0].nodes[0].parent) is not None
    ]


def prompt_completion_rows(solutions: Iterable[Term]) -> list[PromptCompletionRow]:
    """One row per solution, from the problem's prompt to its end."""
    return [
        PromptCompletionRow(prompt=leaf.tree.problem.prompt, completion=_text_after(leaf.tree.root, leaf))
        for leaf in (term.ends[0] for term in solutions)
    ]


def _fork(first: Node, second: Node) -> Node:
    """The last node that both paths share."""
    shared = first.tree.root
    for ours, theirs in zip(first.path(), second.path(), strict=False):
        if ours is not theirs:
            break
        shared = ours
    return shared


def _prompt(node: Node) -> str:
    return node.tree.problem.prompt + node.text


def _text_after(ancestor: Node, node: Node) -> str:
    """The text of the steps below ``ancestor`` down to ``node``."""
    steps = node.path()[ancestor.depth + 1 :]
    return "".join(_step_text(step, last=step is node) for step in steps)


def _step_text(node: Node, *, last: bool) -> str:
    return node.step.text if last else node.step.text_with_observation
