"""Rows in the standard formats: exact columns, and text that is the tree's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gradatim.store.export import RowFormat, row_format
from gradatim.supervision import (
    RightSolutions,
    SiblingPairs,
    SolutionPairs,
    StepLabels,
    path_term,
    preference_rows,
    prompt_completion_rows,
    stepwise_rows,
    unpaired_preference_rows,
)
from gradatim.tree import EndReason, Node, Problem, Step, Tree
from supervision_trees import VALUE, valued_trees


def small_tree() -> Tree:
    """Two solutions that share their first step; an environment speaks after it."""
    tree = Tree(Problem("p", "Question\n"))
    first = tree.add(tree.root, Step((1,), "first\n", observation=(9,), observation_text="[seen]\n"))
    right = tree.add(first, Step((2,), "right", end=EndReason.END_OF_TEXT))
    wrong = tree.add(first, Step((3,), "wrong", end=EndReason.END_OF_TEXT))
    other = tree.add(tree.root, Step((4,), "other\n", observation=(9,), observation_text="[gone]\n"))
    for node, value in ((first, 0.5), (right, 1.0), (wrong, 0.0), (other, 0.25)):
        node.scores[VALUE] = value
    right.reward, wrong.reward = 1.0, 0.0
    return tree


def test_stepwise_rows_by_hand() -> None:
    labels = StepLabels(value=VALUE)(small_tree())
    assert stepwise_rows(labels, threshold=None) == [
        {"prompt": "Question\n", "completions": ["first\n[seen]\n", "right"], "labels": [0.5, 1.0]},
        {"prompt": "Question\n", "completions": ["first\n[seen]\n", "wrong"], "labels": [0.5, 0.0]},
        {"prompt": "Question\n", "completions": ["other\n"], "labels": [0.25]},
    ]
    assert [row["labels"] for row in stepwise_rows(labels, threshold=0.25)] == [[True, True], [True, False], [False]]


def test_preference_rows_by_hand() -> None:
    tree = small_tree()
    assert preference_rows(SiblingPairs(value=VALUE)(tree)) == [
        {"prompt": "Question\n", "chosen": "first\n", "rejected": "other\n"},
        {"prompt": "Question\nfirst\n[seen]\n", "chosen": "right", "rejected": "wrong"},
    ]
    assert preference_rows(SolutionPairs()(tree)) == [
        {"prompt": "Question\nfirst\n[seen]\n", "chosen": "right", "rejected": "wrong"}
    ]


def test_unpaired_and_prompt_completion_rows_by_hand() -> None:
    tree = small_tree()
    assert unpaired_preference_rows(StepLabels(value=VALUE)(tree)) == [
        {"prompt": "Question\n", "completion": "first\n", "label": False},
        {"prompt": "Question\nfirst\n[seen]\n", "completion": "right", "label": True},
        {"prompt": "Question\nfirst\n[seen]\n", "completion": "wrong", "label": False},
        {"prompt": "Question\n", "completion": "other\n", "label": False},
    ]
    assert prompt_completion_rows(RightSolutions()(tree)) == [
        {"prompt": "Question\n", "completion": "first\n[seen]\nright"}
    ]


def test_the_columns_are_those_of_the_standard_formats() -> None:
    tree = small_tree()
    labels = StepLabels(value=VALUE)(tree)
    assert row_format(stepwise_rows(labels)) is RowFormat.STEPWISE_SUPERVISION
    assert row_format(preference_rows(SiblingPairs(value=VALUE)(tree))) is RowFormat.PREFERENCE
    assert row_format(unpaired_preference_rows(labels)) is RowFormat.UNPAIRED_PREFERENCE
    assert row_format(prompt_completion_rows(RightSolutions()(tree))) is RowFormat.PROMPT_COMPLETION
    for rows, kind in (
        (stepwise_rows(labels), RowFormat.STEPWISE_SUPERVISION),
        (unpaired_preference_rows(labels), RowFormat.UNPAIRED_PREFERENCE),
    ):
        assert all(set(row) == kind.value for row in rows)


def whole_text(node: Node) -> str:
    """Prompt and solution, without what the environment wrote at the very end."""
    text = node.tree.problem.prompt + node.text
    return text.removesuffix(node.step.observation_text)


@given(tree=valued_trees(max_nodes=20), min_count=st.integers(1, 8))
def test_rows_joined_are_the_text_of_the_tree(tree: Tree, min_count: int) -> None:
    labels = StepLabels(value=VALUE, min_count=min_count)(tree)
    texts = {whole_text(node) for node in tree.nodes[1:]}
    for row in stepwise_rows(labels):
        assert row["prompt"] + "".join(row["completions"]) in texts
        assert len(row["completions"]) == len(row["labels"])
    unpaired = unpaired_preference_rows(labels)
    assert [row["prompt"] + row["completion"] for row in unpaired] == [whole_text(label.ends[0]) for label in labels]
    solutions = tree.solutions()
    completed = prompt_completion_rows(map(path_term, solutions))
    assert [row["prompt"] + row["completion"] for row in completed] == [whole_text(leaf) for leaf in solutions]
    for made in (SiblingPairs(value=VALUE, pairing="all")(tree), SolutionPairs()(tree)):
        pairs = list(made)
        for pair, preference in zip(pairs, preference_rows(pairs), strict=True):
            chosen, rejected = pair.ends
            assert preference["prompt"] + preference["chosen"] == whole_text(chosen)
            assert preference["prompt"] + preference["rejected"] == whole_text(rejected)
            assert preference["chosen"].split("\n")[0] != preference["rejected"].split("\n")[0]


@given(tree=valued_trees(max_nodes=20))
def test_stepwise_rows_cover_every_reachable_label_and_none_begins_another(tree: Tree) -> None:
    labels = StepLabels(value=VALUE)(tree)
    by_node: dict[Node, float] = {label.ends[0]: label.targets[0] for label in labels}
    reachable = [node for node in by_node if all(step in by_node for step in node.path()[1:])]
    expected = {
        tuple(by_node[step] for step in node.path()[1:]) + (node.id,)
        for node in reachable
        if not any(child in by_node for child in node.children)
    }
    rows = stepwise_rows(labels, threshold=None)
    texts = ["".join(row["completions"]) for row in rows]
    by_text = {whole_text(node).removeprefix(tree.problem.prompt): node.id for node in tree.nodes[1:]}
    assert {(*row["labels"], by_text[text]) for row, text in zip(rows, texts, strict=True)} == expected
    assert len(rows) == len(expected)
    covered = {step for row_text in texts for step in tree.nodes[by_text[row_text]].path()[1:]}
    assert covered == set(reachable)
