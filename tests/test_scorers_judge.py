"""A judge that writes: its verdicts are read rightly, its words kept, the rest counted, its tokens charged."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from failing_server import serving
from gradatim import Budget, GradatimError, Problem, Tree
from gradatim.budget import SCORER, Account
from gradatim.evaluation.record_scoring import score_records
from gradatim.evaluation.step_records import StepRecord
from gradatim.part import make
from gradatim.policies import ServerPolicy, TransformersPolicy
from gradatim.policies.base import Sampling
from gradatim.policies.scripted import ScriptedPolicy, ScriptedStep
from gradatim.run.outcomes import off_format_warnings
from gradatim.scorers.base import Scorer
from gradatim.scorers.judge import JudgePart, JudgeScorer
from gradatim.scorers.verdicts import JUDGEMENTS
from gradatim.search import Beam, IndependentSampling, search_many
from gradatim.store import TreeStore
from gradatim.text.prompts import ChatFormat, prompt_tokens
from gradatim.tree import EndReason, Node, Step
from gradatim.view import render
from scripted_countdown import DelayedPolicy, new_tree, problems, random_moves, random_policy
from scripted_judge import arithmetic_judge, calculates_right, countdown_step, scripted_judge
from tiny_models import byte_pair_tokenizer, tiny_causal


def two_steps(**options: Any) -> Tree:
    """What 3 + 4 is, in two steps."""
    tree = Tree(Problem("p", "Ann has 3 apples and buys 4. How many?\n"), **options)
    first = tree.add(tree.root, Step((), "She has 3.\n"))
    tree.add(first, Step((), "So 3 + 4 = 7.\n", end=EndReason.END_OF_TEXT))
    return tree


def judged(says: Any, tree: Tree | None = None, **options: Any) -> tuple[Node, JudgeScorer]:
    """The last step of a tree after a judge has scored it."""
    node = (tree or two_steps()).nodes[-1]
    scorer = JudgeScorer(scripted_judge(says if callable(says) else lambda prompt: says), JudgePart(**options))
    asyncio.run(scorer.score([node]))
    return node, scorer


def agreeing() -> ScriptedPolicy:
    return scripted_judge(lambda prompt: "Verdict: correct")


def kinds(node: Node, name: str = "judge") -> list[Any]:
    return [each.get("verdict", each.get("off_format")) for each in node.notes[JUDGEMENTS][name]]


def test_the_judge_sees_the_problem_the_steps_before_and_the_step_last() -> None:
    seen: list[str] = []

    def says(prompt: str) -> str:
        seen.append(prompt)
        return "Verdict: correct"

    node, scorer = judged(says)
    assert isinstance(scorer, Scorer)
    assert node.scores == {"judge": 1.0}
    problem, before, step = (seen[0].index(each) for each in ("Ann has 3 apples", "She has 3.", "So 3 + 4 = 7."))
    assert problem < before < step
    first, second = seen[0], judge_prompt(two_steps().nodes[1])
    assert first[: problem + 10] == second[: problem + 10], "what siblings and ancestors share stands first"


def judge_prompt(node: Node) -> str:
    return JudgeScorer(arithmetic_judge(), JudgePart()).question(node)


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("It adds up.\nVerdict: correct", 1.0),
        ("3 + 4 is 7.\n**Verdict:** Incorrect.", 0.0),
        (r"The final verdict is: \boxed{\text{correct}}", 1.0),
        ("<think>Verdict: incorrect, or is it?</think>\nVerdict: correct", 1.0),
        ("Verdict: correct\nNo. Verdict: incorrect", "several verdicts"),
        ("Verdict: correct, I repeat: verdict: correct", 1.0),
        ("This step is correct.", "no verdict"),
        ("", "no verdict"),
        ("<think>Verdict: correct", "cut off"),
    ],
)
def test_verdicts_are_read(answer: str, read: float | str) -> None:
    node, scorer = judged(answer)
    assert kinds(node) == [read]
    assert node.scores == ({"judge": read} if isinstance(read, float) else {}), "never a silent zero"
    assert (scorer.missing, sum(scorer.off_format.values())) == ((0, 0) if isinstance(read, float) else (1, 1))
    assert node.notes[JUDGEMENTS]["judge"][0]["text"] == answer


@pytest.mark.parametrize(
    ("answer", "read"),
    [("7", 0.75), ("1", 0.0), ("9", 1.0), ("9.5", "out of scale"), ("nan", "out of scale"), ("inf", "out of scale")],
)
def test_a_verdict_may_be_a_number_on_a_scale(answer: str, read: float | str) -> None:
    node, _ = judged(f"Rating: {answer}", verdict=r"rating: (\S+)", scale=(1, 9))
    assert kinds(node) == [read]


def test_other_words_are_verdicts_of_one_s_own() -> None:
    options: dict[str, Any] = {"verdict": r"\[(\w+)\]", "right": ["Good", "fine"], "wrong": ["bad"]}
    assert [kinds(judged(f"[{word}]", **options)[0])[0] for word in ("GOOD", "fine", "bad", "great")] == [
        1.0, 1.0, 0.0, "unknown verdict",
    ]  # fmt: skip


def test_the_score_is_the_mean_of_those_verdicts_that_can_be_read() -> None:
    answers = [("Verdict: correct", 1.0), ("Verdict: incorrect", 1.0), ("Hm.", 1.0)]
    node, scorer = judged(lambda prompt: answers, samples=60)
    said = kinds(node)
    right, wrong, unread = (said.count(each) for each in (1.0, 0.0, "no verdict"))
    assert min(right, wrong, unread) > 5
    assert node.scores["judge"] == pytest.approx(right / (right + wrong))
    assert node.counts["judge"] == right + wrong
    assert (scorer.off_format, scorer.missing) == ({"no verdict": unread}, 0)


@pytest.mark.parametrize(("share", "score"), [(0.9, 1.0), (0.1, 0.0)])
def test_the_votes_may_be_counted_as_their_majority(share: float, score: float) -> None:
    answers = [("Verdict: correct", share), ("Verdict: incorrect", 1 - share)]
    assert judged(lambda prompt: answers, samples=15, votes="majority")[0].scores["judge"] == score


def test_the_answer_ends_with_the_line_of_the_verdict() -> None:
    """A base model, which never stops, is not paid for what it writes behind it."""
    tree = two_steps()
    judge = ScriptedPolicy(lambda node: scripted_lines(node.text))
    scorer = JudgeScorer(judge, JudgePart())
    asyncio.run(scorer.score([tree.nodes[-1]]))
    text = "I add.\nVerdict: correct\n"
    assert tree.nodes[-1].notes[JUDGEMENTS]["judge"] == [{"verdict": 1.0, "text": text}]
    assert tree.budget.written("judge") == len(text)


def scripted_lines(said: str) -> list[ScriptedStep]:
    lines = ["I add.\n", "Verdict: correct\n", "Problem: 4 + 4\n"]
    return [ScriptedStep(lines[min(said.count("\n"), 2)], 1.0)]


def test_a_longer_answer_than_allowed_is_cut_off_and_no_verdict() -> None:
    node, scorer = judged("I think long about it.\nVerdict: correct", max_tokens=10)
    assert (kinds(node), scorer.off_format["cut off"], node.scores) == (["cut off"], 1, {})
    assert node.tree.budget.written("judge") == 10


def test_words_are_kept_to_a_length_from_their_end() -> None:
    node, _ = judged("x" * 100 + "\nVerdict: correct", kept_characters=16)
    assert node.notes[JUDGEMENTS]["judge"] == [{"verdict": 1.0, "text": "Verdict: correct"}]
    assert judged("Verdict: correct", kept_characters=0)[0].notes[JUDGEMENTS]["judge"][0]["text"] == ""


def test_what_was_said_is_not_asked_again() -> None:
    tree = two_steps()
    says = scripted_judge(lambda prompt: "Hm.")
    scorer = JudgeScorer(says, JudgePart())
    for _ in range(3):
        asyncio.run(scorer.score(tree.nodes))
    assert tree.budget.written("judge") == 2 * len("Hm.\0")
    assert scorer.off_format.total() == 2


def test_a_step_without_words_is_worth_what_the_step_before_it_is() -> None:
    tree = two_steps()
    end = tree.add(tree.nodes[1], Step((), "", end=EndReason.END_OF_TEXT))
    scorer = JudgeScorer(agreeing(), JudgePart())
    asyncio.run(scorer.score([end, tree.nodes[1]]))
    assert end.scores == tree.nodes[1].scores == {"judge": 1.0}
    assert list(tree.nodes[1].notes) == [JUDGEMENTS]
    assert end.notes == {}
    assert tree.budget.written("judge") == len("Verdict: correct\0"), "judged once"


def test_notes_and_scores_come_back_from_the_store(tmp_path: Path) -> None:
    tree = two_steps()
    judged(lambda prompt: [("Verdict: correct", 1), ("é {x}", 1)], tree, samples=5)
    with TreeStore(tmp_path / "trees.jsonl") as store:
        store.append(tree)
    (again,) = TreeStore(tmp_path / "trees.jsonl")
    assert again.to_json() == tree.to_json()
    assert again.nodes[-1].notes[JUDGEMENTS]["judge"] == tree.nodes[-1].notes[JUDGEMENTS]["judge"]
    (warning,) = off_format_warnings([again])
    assert "judgements of 'judge' are off-format: no verdict (" in warning
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(render(again))
    console.print(render(again, why=True))
    assert console.export_text().count("(judge: Verdict: correct)") == kinds(again.nodes[-1]).count(1.0)


def test_tokens_are_charged_to_the_judge_s_account_to_the_token() -> None:
    tree = new_tree()
    asyncio.run(random_policy().extend([tree.root], 3, steps=None))
    policy = tree.budget.read("policy"), tree.budget.written("policy")
    part = JudgePart(model="seven", samples=3)
    scorer = JudgeScorer(arithmetic_judge(), part)
    nodes = tree.nodes[1:]
    asyncio.run(scorer.score(nodes))
    assert set(tree.budget.accounts) == {"policy", "seven"}
    assert (tree.budget.read("policy"), tree.budget.written("policy")) == policy
    assert tree.budget.read("seven") == sum(len(scorer.question(node)) for node in nodes), "a prompt once for 3 samples"
    said = sum(len(each["text"]) + 1 for node in nodes for each in node.notes[JUDGEMENTS]["judge"])
    assert tree.budget.written("seven") == said


def test_a_policy_that_judges_itself_has_an_account_of_its_own_for_it() -> None:
    assert JudgePart(model="policy").account == Account("judge")
    tree = two_steps()
    asyncio.run(JudgeScorer(agreeing(), JudgePart(), SCORER).score(tree.nodes))
    assert set(tree.budget.accounts) == {"scorer"}


@given(limit=st.integers(0, 4000), samples=st.integers(1, 3))
@settings(max_examples=60)
def test_the_budget_may_end_anywhere(limit: int, samples: int) -> None:
    """What is paid for is what an unlimited judge says of the first steps; the step in which it ends has no score."""
    whole, cut = new_tree(), new_tree()
    for tree in (whole, cut):
        asyncio.run(random_policy(0.5).extend([tree.root], 4, steps=None))
    cut.budget.limit = cut.budget.total + limit
    scorer = JudgeScorer(arithmetic_judge(), JudgePart(samples=samples))
    asyncio.run(scorer.score(whole.nodes[1:]))
    asyncio.run(JudgeScorer(arithmetic_judge(), JudgePart(samples=samples)).score(cut.nodes[1:]))
    assert cut.budget.total <= cut.budget.limit
    assert len(cut) == len(whole), "nothing that a judge writes is a step of the policy"
    costs = [len(scorer.question(node)) + _said(node) for node in whole.nodes[1:]]
    left = limit
    for mine, node, cost in zip(cut.nodes[1:], whole.nodes[1:], costs, strict=True):
        if cost <= left:
            left -= cost
            assert (mine.scores, mine.notes) == (node.scores, node.notes)
        else:
            assert (mine.scores, mine.notes, mine.counts) == ({}, {}, {})
            left = left if len(scorer.question(node)) > left else 0  # without its prompt it costs nothing


def _said(node: Node) -> int:
    return sum(len(each["text"]) + 1 for each in node.notes[JUDGEMENTS]["judge"])


def test_a_judge_guides_a_search_and_the_others_in_flight_do_not_matter() -> None:
    part = make("scorers", {"name": "judge", "samples": 2, "template": "{before}{step}"})

    def grown(in_flight: int, limit: int | None, seed: int) -> list[Any]:
        trees = [Tree(problem, budget=Budget(limit)) for problem in problems(4)]
        scorer = JudgeScorer(DelayedPolicy(errs_at_times, seed), part)
        policy = DelayedPolicy(random_moves(0.5), seed + 1)
        asyncio.run(search_many(trees, lambda tree: Beam(width=2, branch=3)(tree, policy, scorer), in_flight))
        return [json.dumps(tree.to_json(), sort_keys=True) for tree in trees]

    for limit in (None, 900):
        assert grown(1, limit, 0) == grown(4, limit, 5)


def errs_at_times(node: Node) -> list[ScriptedStep]:
    """A judge of countdown that errs in one of four cases, by chance."""
    right = 0.75 if calculates_right(countdown_step(node.tree.problem.prompt)) else 0.25
    return [
        ScriptedStep("Verdict: correct", right, EndReason.END_OF_TEXT),
        ScriptedStep("Verdict: incorrect", 1 - right, EndReason.END_OF_TEXT),
    ]


def test_siblings_are_judged_independently() -> None:
    tree = Tree(Problem("p", "Q\n"))
    for number in range(40):
        tree.add(tree.root, Step((), f"{number}\n"))
    answers = [("Verdict: correct", 1.0), ("Verdict: incorrect", 1.0)]
    asyncio.run(JudgeScorer(scripted_judge(lambda prompt: answers), JudgePart()).score(tree.nodes[1:]))
    assert 8 < sum(node.scores["judge"] for node in tree.nodes[1:]) < 32


def test_two_judges_on_one_tree_keep_to_themselves() -> None:
    tree = two_steps()
    for key, says in {"strict": "Verdict: incorrect", "kind": "Verdict: correct"}.items():
        scorer = JudgeScorer(scripted_judge(lambda prompt, says=says: says), JudgePart(key=key))  # type: ignore[misc]
        asyncio.run(scorer.score([tree.nodes[1]]))
    assert tree.nodes[1].scores == {"strict": 0.0, "kind": 1.0}
    assert set(tree.nodes[1].notes[JUDGEMENTS]) == {"strict", "kind"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"template": "{problem} {stepp}"}, "template has no placeholder {stepp}; did you mean 'step'?"),
        ({"template": "{problem}"}, "template has no {step}"),
        ({"template": "{step} {step}"}, "must contain {step} exactly once"),
        ({"verdict": "(correct"}, "verdict is no regular expression"),
        ({"verdict": "correct|incorrect"}, "verdict must have one group"),
        ({"right": ["yes"], "wrong": ["Yes"]}, "'yes' is both a right and a wrong verdict"),
        ({"right": []}, "right"),
        ({"scale": [1, 1]}, "scale must go from a lower to a higher number"),
        ({"samples": 0}, "samples must be greater than 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(GradatimError) as caught:
        make("scorers", {"name": "judge", **options})
    assert said in str(caught.value)


def test_braces_of_a_template_that_are_no_placeholders_stay() -> None:
    part = JudgePart(template=r"{step} {1, 2} \boxed{correct} {{x}}")
    assert (
        JudgeScorer(arithmetic_judge(), part).question(two_steps().nodes[1])
        == r"She has 3. {1, 2} \boxed{correct} {{x}}"
    )


def test_steps_of_finished_samples_are_judged_at_temperature_0_too() -> None:
    tree = new_tree()
    judge = arithmetic_judge()
    judge.sampling = Sampling(temperature=0.0)
    scorer = JudgeScorer(judge, JudgePart(samples=3))
    asyncio.run(IndependentSampling(n=2, score="steps")(tree, random_policy(), scorer))
    assert all(node.scores["judge"] == 1.0 and node.counts["judge"] == 3 for node in tree.nodes[1:])
    assert tree.budget.written("judge") == sum(_said(node) for node in tree.nodes[1:]) / 3, (
        "written once, counts thrice"
    )


def tiny_judge() -> TransformersPolicy:
    """A random model in a chat format, which says nothing that could be read."""
    tokenizer = byte_pair_tokenizer(["Ann has 3 apples and buys 4. How many? Verdict: correct"], size=300)
    tokenizer.chat_template = "User: {{ messages[-1].content }}\nAssistant:"
    return TransformersPolicy(tiny_causal(vocabulary=len(tokenizer), positions=1024), tokenizer, chat=ChatFormat())


@pytest.mark.parametrize("limit", [None, 720])
def test_the_engine_judges_many_trees_in_one_batch_as_if_each_were_alone(limit: int | None) -> None:
    judge = tiny_judge()

    def judged_trees(at_once: bool) -> list[Tree]:
        trees = [two_steps(seed=seed, budget=Budget(limit)) for seed in range(3)]
        scorer = JudgeScorer(judge, JudgePart(samples=3, max_tokens=12))

        async def score() -> None:
            for group in [trees] if at_once else [[tree] for tree in trees]:
                await asyncio.gather(*(scorer.score(tree.nodes) for tree in group))

        asyncio.run(score())
        return trees

    together, alone = judged_trees(True), judged_trees(False)
    assert [tree.to_json() for tree in together] == [tree.to_json() for tree in alone]
    costs = [len(prompt_tokens(judge.tokenizer, asked_of(node), judge.chat)) for node in two_steps().nodes[1:]]
    for tree in together:
        assert tree.budget.read("judge") == sum(costs)
        assert limit in (None, tree.budget.total)
        assert [JUDGEMENTS in node.notes for node in tree.nodes[1:]] == [True, limit is None]
        assert len({each["text"] for each in tree.nodes[1].notes[JUDGEMENTS]["judge"]}) == 3
    assert len({json.dumps(tree.nodes[1].notes) for tree in together}) == 3, "another seed, other words"


def asked_of(node: Node) -> Problem:
    return Problem("asked", judge_prompt(node))


def test_what_is_too_long_for_a_server_stays_unscored_and_is_told_of() -> None:
    tree = two_steps()

    async def score(policy: ServerPolicy) -> None:
        try:
            await JudgeScorer(policy, JudgePart(max_tokens=20)).score(tree.nodes)
        finally:
            await policy.close()

    with serving(lambda text, seed: ["Verdict: ", "correct"]) as server:
        server.context = len(judge_prompt(tree.nodes[1])) + 8
        with pytest.warns(UserWarning, match="is left out, as is whatever else is too long"):
            asyncio.run(score(ServerPolicy(server.url)))
    assert [node.scores for node in tree.nodes[1:]] == [{"judge": 1.0}, {}]


def test_a_judge_is_measured_on_records_of_labelled_steps() -> None:
    """Of a benchmark, such as ProcessBench: a record of which a step cannot be judged is left out."""
    records = [
        StepRecord(str(place), f"Q{place}?", ("1 + 1 = 2\n", last), (True, right), "all", str(place))
        for place, (last, right) in enumerate([("2 + 2 = 4", True), ("2 + 2 = 5", False), ("Hm.", True)])
    ]

    def says(prompt: str) -> str:
        step = prompt.split("Step to judge:\n")[1].split("\n")[0]
        return "?" if "=" not in step else f"Verdict: {'correct' if calculates_right(step) else 'incorrect'}"

    scores = asyncio.run(score_records(records, JudgeScorer(scripted_judge(says), JudgePart())))
    assert scores == [[1.0, 1.0], [1.0, 0.0], None]
