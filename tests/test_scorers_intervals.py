"""How sure a sampled value is: intervals, fewer rollouts where all agree, labels and pairs beyond doubt, best-of-k."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clean_task import Clean, CountingPolicy, Given, ending, write
from gradatim.budget import Budget
from gradatim.errors import GradatimError
from gradatim.part import make
from gradatim.policies.scripted import ScriptedPolicy
from gradatim.proportions import wilson_interval
from gradatim.scorers.completions import fewest_more
from gradatim.scorers.rollouts import RolloutScorer, RolloutsPart
from gradatim.supervision import FirstErrorPairs, SiblingPairs, StepLabels
from gradatim.tree import EndReason, Problem, Step, Tree
from gradatim.values.scored import Scored

Z2 = 1.959963984540054**2


def new_tree(limit: int | None = None) -> Tree:
    return Tree(Problem("p", "go "), budget=Budget(limit))


def test_the_interval_of_a_share_by_hand() -> None:
    assert wilson_interval(0.0, 8) == (0.0, pytest.approx(Z2 / (8 + Z2)))
    assert wilson_interval(1.0, 8) == (pytest.approx(8 / (8 + Z2)), 1.0)
    low, high = wilson_interval(0.5, 10)
    half = math.sqrt(Z2 / 40 + Z2**2 / 400) / (1 + Z2 / 10)
    assert (low, high) == (pytest.approx(0.5 - half), pytest.approx(0.5 + half))
    assert wilson_interval(0.3, 0) == (0.0, 1.0)
    with pytest.raises(GradatimError, match="no share"):
        wilson_interval(-0.25, 4)


@given(right=st.integers(0, 20), wrong=st.integers(0, 20), width=st.floats(0.05, 0.9))
def test_a_wave_is_as_small_as_could_suffice(right: int, wrong: int, width: float) -> None:
    count = right + wrong
    more = fewest_more(right, count, width, 10_000)

    def widths(added: int) -> list[float]:
        shares = [(right + agreeing) / (count + added) for agreeing in range(added + 1)] if count + added else [0.0]
        return [high - low for low, high in (wilson_interval(share, count + added) for share in shares)]

    assert min(widths(more)) <= width
    assert all(min(widths(fewer)) > width for fewer in range(more))


@pytest.mark.parametrize(("chance", "rollouts"), [(0.0, 8), (1.0, 8), (0.5, 64)])
def test_rollouts_stop_early_where_all_agree(chance: float, rollouts: int) -> None:
    """8 is the least ``n`` with ``z^2 / (n + z^2) <= 0.35``."""
    policy = CountingPolicy(lambda node: [step for step in ending(chance)(node) if step.probability])
    tree = new_tree()
    asyncio.run(RolloutScorer(policy, Clean(), 64, until=0.35).score([tree.root]))
    found = tree.root.counts["rollouts"]
    if chance == 0.5:
        low, high = wilson_interval(tree.root.scores["rollouts"], found)
        assert 8 < found <= rollouts
        assert high - low <= 0.35 or found == rollouts
        assert policy.asked > 1
    else:
        assert found == rollouts
        assert policy.asked == 1


@pytest.mark.parametrize("until", [1e-12, 0.99])
def test_waves_take_no_more_than_all_and_no_fewer_than_the_tries(until: float) -> None:
    """No number of rollouts makes an interval that narrow; and one wide interval is not the best of four."""
    tree = new_tree()
    scorer = RolloutScorer(ScriptedPolicy(ending(1.0)), Clean(), 6, until=until, best_of=4)
    asyncio.run(scorer.score([tree.root]))
    assert str(tree.root.scores["rollouts"]) == "0.0"
    assert tree.root.counts["rollouts"] == (6 if until < 0.5 else 4)


@settings(max_examples=40, deadline=None)
@given(limit=st.integers(0, 400), until=st.floats(0.1, 0.9))
def test_waves_end_with_the_budget(limit: int, until: float) -> None:
    tree = new_tree(limit)
    child = tree.add(tree.root, Step((1,), "a", source="scripted"))
    scorer = RolloutScorer(ScriptedPolicy(ending(0.4)), Clean(), 32, until=until)
    asyncio.run(scorer.score([tree.root, child]))
    for node in (tree.root, child):
        if "rollouts" in node.scores:
            low, high = wilson_interval(node.scores["rollouts"], node.counts["rollouts"])
            assert high - low <= until or node.counts["rollouts"] >= 32 or tree.budget.spent
    assert scorer.missing == sum("rollouts" not in node.scores for node in (tree.root, child))


def valued(*values: tuple[float, int | None]) -> Tree:
    """Open siblings below a root with these values and counts."""
    tree = new_tree()
    for token, (value, count) in enumerate(values):
        node = tree.add(tree.root, Step((token,), str(token)))
        node.scores["value"] = value
        if count is not None:
            node.counts["value"] = count
    return tree


def test_labels_beyond_doubt() -> None:
    tree = valued((0.0, 8), (0.25, 8), (0.25, 40), (0.75, 40), (0.75, 8), (0.4, None))
    labels = StepLabels(confident=True)(tree)
    assert [term.targets[0] for term in labels] == [0.0, 0.25, 0.75, 0.4]
    assert [term.ends[0].id for term in labels] == [1, 3, 4, 6]
    assert len(StepLabels()(tree)) == 6


def test_pairs_beyond_doubt() -> None:
    tree = valued((0.9, 8), (0.5, 8), (0.1, 8))
    assert len(list(SiblingPairs(pairing="all")(tree))) == 3
    (term,) = SiblingPairs(pairing="all", confident=True)(tree)
    assert term.targets == (0.9, 0.1)
    assert not list(FirstErrorPairs(threshold=0.5, confident=True)(valued((0.6, 8), (0.4, 8))))


def test_a_finished_step_is_beyond_doubt() -> None:
    tree = new_tree()
    for text in ("done", "x"):
        leaf = write(tree, text)
        leaf.scores["value"], leaf.counts["value"] = float(text == "done"), 1
        assert leaf.step.end is EndReason.END_OF_TEXT
    assert len(list(SiblingPairs(confident=True)(tree))) == 1
    assert len(StepLabels(confident=True)(tree)) == 2


def test_the_best_of_k_is_estimated_without_bias() -> None:
    """Of 6 rollouts with 2 right, 3 drawn without replacement have none with chance 4/20."""
    tree = new_tree()
    parent = write(tree, "a", "1").parent
    assert parent is not None
    for end in ("2", "x3", "x4", "x5", "x6"):
        write(tree, "a", end)
    done = parent.children[0]
    scorer = RolloutScorer(ScriptedPolicy(ending()), Clean(), 6, "best", best_of=3)
    asyncio.run(scorer.score([parent, done]))
    assert parent.scores["best"] == pytest.approx(1 - 4 / 20)
    assert parent.counts["best"] == 6
    assert done.scores["best"] == 1.0, "a finished step has the verifier's reward"


def test_a_best_of_k_that_the_budget_left_too_few_rollouts_for_is_missing() -> None:
    tree = new_tree(limit=3 + 2 * len("done "))
    scorer = RolloutScorer(ScriptedPolicy(ending()), Clean(), 6, best_of=4)
    asyncio.run(scorer.score([tree.root]))
    assert "rollouts" not in tree.root.scores
    assert "rollouts" not in tree.root.counts
    assert scorer.missing == 1


def test_the_best_of_more_than_there_are_is_refused() -> None:
    with pytest.raises(GradatimError, match="the best of 9 cannot be told of 8 rollouts"):
        make("scorers", {"name": "rollouts", "best_of": 9})


def test_every_step_is_scored_under_the_values_key() -> None:
    tree = new_tree()
    leaf = write(tree, "a\n", "b\n", "done")
    asyncio.run(Scored(scorer=RolloutsPart(rollouts=2), key="mine")(tree, Given({"policy": ScriptedPolicy(ending())})))
    assert [node.scores for node in leaf.path()[1:]] == [{"mine": 1.0}] * 3
    assert [node.counts for node in leaf.path()[1:]] == [{"mine": 2}] * 3
