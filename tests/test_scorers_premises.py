"""Deductive verification: the judge sees what a step cites and nothing else, held against exact arithmetic."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim import GradatimError, Problem, Tree
from gradatim.part import make
from gradatim.scorers.aggregation import solution_score
from gradatim.scorers.premises import PremisesPart, PremisesScorer
from gradatim.scorers.verdicts import JUDGEMENTS
from gradatim.text.boundaries.regular_expression import RegularExpression
from gradatim.tree import Node, Step
from scripted_judge import scripted_judge

QUESTION = "Ann has 3 apples. Bob has 4. How many have they?"  # facts 1 to 3
PLAIN = {"template": "{premises}\n-- {step}"}


def chain(*steps: str, question: str = QUESTION) -> Tree:
    tree = Tree(Problem("p", f"Q: {question}\n", data={"question": question}))
    node = tree.root
    for step in steps:
        node = tree.add(node, Step((), f"{step}\n"))
    return tree


def asked(tree: Tree, **options: Any) -> Any:
    """What the judge is asked about the last step."""
    return PremisesScorer(scripted_judge(lambda prompt: ""), PremisesPart(**{**PLAIN, **options})).question(
        tree.nodes[-1]
    )


def test_a_step_is_judged_by_what_it_cites_alone() -> None:
    tree = chain("Ann has 3 and Bob 4 (by #1 #2)", "Bob is tall.", "3 + 4 = 7 (by #4, #3)")
    assert asked(tree) == ("#3 How many have they?\n#4 Ann has 3 and Bob 4 (by #1 #2)\n-- 3 + 4 = 7 (by #4, #3)")


def test_steps_may_number_themselves_and_cite_in_brackets() -> None:
    tree = chain("#7. Ann has 3.", "so [7] she has some", "and [7, 8] more")
    assert asked(tree) == "#7 Ann has 3.\n#8 so [7] she has some\n-- and [7, 8] more"


def test_a_question_without_facts_is_given_whole() -> None:
    tree = chain("Ann has 3.", "So 3 + 4 = 7 (by #1)")
    assert asked(tree, facts=None) == f"{QUESTION}\n#1 Ann has 3.\n-- So 3 + 4 = 7 (by #1)"


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ("So 7.", "cites nothing"),
        ("So 7 (by #5)", "cites what is not there"),  # itself
        ("So 7 (by #1 #6)", "cites what is not there"),  # later
        ("So 7 (by #0)", "cites what is not there"),
        ("So 7 (by Ann)", "cites nothing"),
    ],
)
def test_a_step_that_does_not_cite_has_all_premises_or_is_off_format(step: str, kind: str) -> None:
    tree = chain("Ann has 3.", step)
    facts = "#1 Ann has 3 apples.\n#2 Bob has 4.\n#3 How many have they?\n#4 Ann has 3."
    assert asked(tree) == f"{facts}\n-- {step}"
    scorer = PremisesScorer(scripted_judge(lambda prompt: "Verdict: correct"), PremisesPart(uncited="off_format"))
    asyncio.run(scorer.score([tree.nodes[-1]]))
    assert (tree.nodes[-1].scores, scorer.missing, scorer.off_format) == ({}, 1, {kind: 1})
    assert tree.nodes[-1].notes[JUDGEMENTS]["premises"] == [{"off_format": kind, "text": ""}]
    assert tree.budget.total == 0


def add_chain(values: list[int], cites: list[tuple[int, int]], question: str) -> Tree:
    """Steps that add two earlier numbers each; ``values`` are what they write as the sum."""
    return chain(*[f"{value} = #{a} + #{b} (by #{a} #{b})" for value, (a, b) in zip(values, cites, strict=True)],
                 question=question)  # fmt: skip


def adding_judge(prompt: str) -> str:
    """Knows only what the prompt gives: adds the premises that the step names."""
    given, _, step = prompt.partition("\n-- ")
    known = {int(line.split()[0][1:]): int(line.split()[1].rstrip(".")) for line in given.splitlines()}
    value, a, b = (int(word.strip("#")) for word in step.split(" (")[0].replace("=", " ").replace("+", " ").split())
    right = a in known and b in known and known[a] + known[b] == value
    return f"Verdict: {'correct' if right else 'incorrect'}"


@given(st.integers(0, 10_000))
def test_chains_pass_if_and_only_if_every_step_follows_from_what_it_cites(seed: int) -> None:
    """Against arithmetic that is done here: a step that follows from a wrong premise is right itself."""
    draw = random.Random(seed)
    numbers, cites, values, follows = {1: 5, 2: 8}, [], [], []
    for number in range(3, 3 + draw.randint(1, 5)):
        a, b = draw.choice(list(numbers)), draw.choice(list(numbers))
        value = numbers[a] + numbers[b] + (draw.random() < 0.3)
        follows.append(value == numbers[a] + numbers[b])
        numbers[number] = value
        cites.append((a, b))
        values.append(value)
    tree = add_chain(values, cites, "5. 8.")
    part = PremisesPart(**PLAIN, samples=3, facts=RegularExpression(pattern=r"\. "))
    asyncio.run(PremisesScorer(scripted_judge(adding_judge), part).score(tree.nodes))
    scores = [node.scores["premises"] for node in tree.nodes[1:]]
    assert scores == [float(each) for each in follows]
    for aggregate in ("min", "product"):
        assert solution_score(scores, aggregate) == float(all(follows))  # type: ignore[arg-type]


def test_the_majority_of_the_votes_decides_and_a_tie_does_not_pass() -> None:
    answers = [("Verdict: correct", 0.5), ("Verdict: incorrect", 0.5)]

    def scored(votes: str, samples: int) -> list[Node]:
        tree = Tree(Problem("p", "Q.\n"))
        nodes = [tree.add(tree.root, Step((), f"step {n}\n")) for n in range(20)]
        part = PremisesPart(samples=samples, votes=votes)  # type: ignore[arg-type]
        asyncio.run(PremisesScorer(scripted_judge(lambda prompt: answers), part).score(nodes))
        return nodes

    means = [node.scores["premises"] for node in scored("mean", 4)]
    assert set(means) >= {0.25, 0.5, 0.75}
    assert [node.scores["premises"] for node in scored("majority", 4)] == [float(mean > 0.5) for mean in means]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cites": "(by"}, "cites is no regular expression"),
        ({"cites": r"by #\d+"}, "cites needs a group around its numbers"),
        ({"label": r"#\d+"}, "label needs a group around its numbers"),
        ({"template": "{before} {step}"}, "template has no placeholder {before}"),
        ({"verdict": "yes|no"}, "verdict must have one group"),
        ({"facts": "sentense"}, "did you mean 'sentence'?"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(GradatimError) as caught:
        make("scorers", {"name": "premises", **options})
    assert said in str(caught.value)
