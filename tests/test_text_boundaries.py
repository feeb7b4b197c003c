"""Steps end at the same places in a whole text and while it is written, whoever writes it, for every boundary part."""

from __future__ import annotations

import asyncio
import copy
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fake_vllm
from failing_server import FailingServer, serving
from gradatim import Problem, Tree
from gradatim.errors import GradatimError
from gradatim.part import content_of, make, names
from gradatim.policies.base import Policy, Sampling
from gradatim.policies.scripted import ScriptedPolicy, ScriptedStep
from gradatim.policies.server import ServerPolicy
from gradatim.policies.transformers import TransformersPolicy
from gradatim.policies.vllm import VllmPolicy
from gradatim.text.boundaries.base import Boundary, TextBoundary
from gradatim.text.boundaries.delimiter import Delimiter
from gradatim.text.boundaries.merged import Merged
from gradatim.text.boundaries.regular_expression import RegularExpression
from gradatim.text.boundaries.sentence import Sentence
from gradatim.text.boundaries.tokens import Tokens
from gradatim.text.step_text import Mark, StepText
from gradatim.tree import EndReason, Node
from small_runs import small_recipe
from test_policies_exact import assert_exact, grow, make_policy, make_tree, reference
from tiny_models import byte_pair_tokenizer, learned_by_heart

KIND = "text/boundaries"
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "delimiter": [{}, {"at": ["\n\n", "so"]}, {"at": ["語", "x"]}],
    "regular_expression": [{"pattern": r"\n+|;"}, {"pattern": r"(?=\nso)"}],
    "tokens": [{"count": 10}],
    "merged": [{"inner": "sentence"}, {"inner": {"tokens": {"count": 3}}, "count": 4}],
    "confidence": [],  # ends no step of text alone: test_text_confidence.py
}
BOUNDARIES: list[Boundary] = [make(KIND, {name: each}) for name in names(KIND) for each in OPTIONS.get(name, [{}])]
OF_TEXT = [boundary for boundary in BOUNDARIES if isinstance(boundary, TextBoundary)]
PIECES = ["a", "so", "語", " ", "\n", "\n\n", ".", ". ", "! ", "3.5", "e.g. ", ";", "\n2. ", ".)\n", "é"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=24).map("".join)
LEARNED = ["so so. so\n\nso. a\n\na 3.5 e.g. a! a;a"] * 9
TOKENIZERS = [byte_pair_tokenizer([], size=258), byte_pair_tokenizer(LEARNED, size=290)]


def shown(boundary: Boundary) -> str:
    return str(content_of(boundary))


over_all = pytest.mark.parametrize("boundary", BOUNDARIES, ids=shown)
over_those_of_text = pytest.mark.parametrize("boundary", OF_TEXT, ids=shown)


@dataclass
class Characters:
    """A step of which each character is a token."""

    text: str
    log_probabilities: None = None

    def at_character(self, count: int) -> int:
        return count

    def at_token(self, count: int) -> int | None:
        return count if count <= len(self.text) else None

    def behind(self, place: int) -> Characters:
        return Characters(self.text[place:])


def steps_as_written(boundary: Boundary, text: str) -> list[str]:
    """The steps of a text that comes character by character, found by asking after each of them."""
    steps, start = [], 0
    for seen in range(1, len(text) + 1):
        while end := boundary.end(Characters(text[start:seen])) or 0:
            steps.append(text[start : start + end])
            start += end
    return [*steps, text[start:]]


# Whole texts


@over_all
@given(text=TEXTS)
def test_joined_the_steps_are_the_text(boundary: Boundary, text: str) -> None:
    steps = boundary.split(text)
    assert "".join(steps) == text
    assert all(step.strip() for step in steps) or not text.strip()


@over_those_of_text
@given(text=TEXTS)
def test_a_whole_text_has_the_steps_that_it_has_while_it_is_written(boundary: Boundary, text: str) -> None:
    text = text.rstrip()
    steps = steps_as_written(boundary, text)
    assert boundary.split(text) == [step for step in steps if step]
    assert boundary.split(f"{text}\n ") == [*steps[:-1], f"{steps[-1]}\n "] or not steps[-1]


@over_those_of_text
@given(text=TEXTS, more=TEXTS)
def test_what_is_said_once_stays_true(boundary: Boundary, text: str, more: str) -> None:
    said = boundary.end(Characters(text))
    assert said is None or said == boundary.end(Characters(text + more))


@over_all
@pytest.mark.parametrize("piece", ["a\n", "\n ", "a. ", "e.g. ", ". ", "...", "1. ", ";", "so", "a"])
def test_a_long_text_is_divided_in_linear_time(boundary: Boundary, piece: str) -> None:
    assert "".join(boundary.split(piece * 30_000)) == piece * 30_000


def test_long_steps_are_found_whatever_part_of_the_text_is_looked_at() -> None:
    steps = [f"{'word ' * size}end." for size in (3, 199, 200, 201, 900, 7000)]
    text = " ".join(steps)
    assert Sentence().split(text) == [steps[0], *(f" {step}" for step in steps[1:])]
    assert [len(step.split()) for step in Tokens(count=300).split(text)] == [300] * 28 + [109]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("We add. Then we stop.", ["We add.", " Then we stop."]),
        ("It is 3.5, e.g. 7/2. Yes", ["It is 3.5, e.g. 7/2.", " Yes"]),
        ('He said "Stop!" (Twice.) Why?\nSo.', ['He said "Stop!"', " (Twice.)", " Why?", "\nSo."]),
        ("See Fig. 2 of Dr. No in the U.S. today. End", ["See Fig. 2 of Dr. No in the U.S. today.", " End"]),
        ("1. Add.\n2. Stop.", ["1. Add.", "\n2. Stop."]),
        ("It is 2. Then math.sqrt(4) is 2. Done", ["It is 2.", " Then math.sqrt(4) is 2.", " Done"]),
        ("Wait... what?! Well.\n", ["Wait...", " what?!", " Well.\n"]),
    ],
)
def test_sentences(text: str, steps: list[str]) -> None:
    assert Sentence().split(text) == steps


def test_other_texts() -> None:
    assert Delimiter(at=("\n\n", "|")).split("\na\n\n\nb|\n") == ["\na\n\n", "\nb|\n"]
    assert RegularExpression(pattern=r"(?=\nStep \d)").split("I\nStep 1\nx\nStep 2") == ["I", "\nStep 1\nx", "\nStep 2"]
    assert RegularExpression(pattern=r"\d+").split("a1b22c") == ["a1", "b22", "c"]
    assert Tokens(count=2).split("one two  three\n") == ["one two", "  three\n"]
    with pytest.raises(GradatimError, match="pattern is no regular expression"):
        RegularExpression(pattern="(")


# Tokens


@over_all
@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["bytes", "pairs"])
@given(text=TEXTS)
def test_steps_of_tokens_end_with_the_token_in_which_the_text_does(
    boundary: Boundary, tokenizer: Any, text: str
) -> None:
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=len(tokenizer))))
    reader: Any = StepText(model, tokenizer)  # type: ignore[arg-type]
    tokens = tokenizer(text)["input_ids"]
    marks = reader.marks(boundary)
    found, start = [], 0
    for written in range(1, len(tokens) + 1):  # as an engine does
        while marks[tokens[written - 1]] & Mark.BOUNDARY and (
            end := reader.end(boundary, tokens[:start], tokens[start:written], [0.0] * (written - start))
        ):
            start += end
            found.append(start)

    places = [len(tokenizer.decode(tokens[:count]).rstrip("\ufffd")) for count in range(len(tokens) + 1)]
    assert found == ends_in_tokens(boundary, text, places)


def ends_in_tokens(boundary: Boundary, text: str, places: list[int]) -> list[int]:
    """Where the steps of a text end, found from the text alone: tokens. So many characters are there behind each."""
    if isinstance(boundary, Merged):
        return ends_in_tokens(boundary.inner, text, places)[boundary.count - 1 :: boundary.count]
    if isinstance(boundary, Tokens):
        return list(range(boundary.count, len(places), boundary.count))
    ends, start = [], 0
    while (end := boundary.end(Characters(text[places[start] :]))) is not None:
        start = next(count for count, place in enumerate(places) if place >= places[start] + end)
        ends.append(start)
    return ends


# Policies

PROMPT = "Add.\n"
TEXT = "We add 3.5, e.g. to 2. It is so!\n\nSo; this\nso 2: so. x\nx. Yes; 5.5"
SEMICOLONS = """
from gradatim.part import part
from gradatim.text.boundaries.base import TextBoundary


@part
class Semicolons(TextBoundary):
    \"\"\"A step ends behind a semicolon and a blank.\"\"\"

    def ends(self, text):
        return (place + 1 for place in range(1, len(text)) if text[place - 1 : place + 1] == "; ")
"""


@pytest.fixture(scope="module")
def memory() -> tuple[Any, Any]:
    return learned_by_heart([PROMPT + TEXT], ended=True)


@pytest.fixture
def server() -> Iterator[FailingServer]:
    with serving(lambda text, seed: list(TEXT[len(text) - len(PROMPT) :])) as running:
        yield running


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Boundary:
    path = tmp_path_factory.mktemp("own") / "semicolons.py"
    path.write_text(SEMICOLONS)
    made: Boundary = make(KIND, f"{path}:Semicolons")
    return made


@pytest.fixture(params=[*BOUNDARIES, None], ids=lambda each: "own" if each is None else shown(each))
def any_boundary(request: pytest.FixtureRequest, own: Boundary) -> Boundary:
    boundary: Boundary = own if request.param is None else request.param
    return boundary


def policy_of(
    kind: str, boundary: Boundary, memory: tuple[Any, Any], server: FailingServer, patch: pytest.MonkeyPatch
) -> Any:
    sampling = Sampling(temperature=0.0, max_step_tokens=100, max_steps=60, boundary=boundary)
    model, tokenizer = memory
    if kind == "transformers":
        return TransformersPolicy(copy.deepcopy(model), tokenizer, sampling=sampling)
    if kind == "vllm":
        patch.setitem(sys.modules, "vllm", fake_vllm)
        return VllmPolicy(fake_vllm.LLM(model, tokenizer), tokenizer, sampling=sampling)
    if kind == "scripted":
        return ScriptedPolicy(lambda node: [scripted_step(boundary, node)], sampling)
    server.owner = "vllm" if kind == "server that stops" else "somebody"
    server.tokens_a_chunk = 5 if kind == "server in chunks" else 1
    return ServerPolicy(server.url, sampling=sampling)


def scripted_step(boundary: Boundary, node: Node) -> ScriptedStep:
    rest = TEXT[len(node.text) :]
    first = steps_as_written(boundary, rest)[0]
    return ScriptedStep(first, 1.0, EndReason.END_OF_TEXT if first == rest else EndReason.BOUNDARY)


async def one_by_one(policy: Policy, tree: Tree) -> list[Node]:
    node = tree.root
    while node.open:
        (node,) = await policy.extend([node])
    return node.path()[1:]


async def by_twos(policy: Policy, tree: Tree) -> list[Node]:
    node = tree.root
    while node.open:
        (node,) = await policy.extend([node], steps=2)
    return node.path()[1:]


async def at_once(policy: Policy, tree: Tree) -> list[Node]:
    leaves = await policy.extend([tree.root], steps=None)
    return leaves[0].path()[1:] if leaves else []


def written_by(policy: Any, tree: Tree, work: Any) -> list[tuple[str, EndReason]]:
    async def main() -> list[Node]:
        path: list[Node] = await work(policy, tree)
        if not isinstance(policy, ScriptedPolicy):
            await policy.close()
        return path

    return [(node.step.text, node.step.end) for node in asyncio.run(main())]


@pytest.mark.parametrize("work", [one_by_one, by_twos, at_once])
@pytest.mark.parametrize(
    "kind", ["transformers", "vllm", "scripted", "server", "server that stops", "server in chunks"]
)
def test_every_policy_ends_steps_at_the_same_places(
    kind: str,
    work: Any,
    any_boundary: Boundary,
    memory: tuple[Any, Any],
    server: FailingServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tree = Tree(Problem("p", PROMPT))
    steps = written_by(policy_of(kind, any_boundary, memory, server, monkeypatch), tree, work)
    expected = steps_as_written(any_boundary, TEXT)
    assert len(expected) > 1
    assert steps == [*((step, EndReason.BOUNDARY) for step in expected[:-1]), (expected[-1], EndReason.END_OF_TEXT)]
    if kind != "server in chunks":
        assert tree.budget.written("policy") == len(TEXT) + 1


@pytest.mark.parametrize("kind", ["transformers", "vllm", "server", "server that stops"])
def test_a_budget_ends_where_it_does_whether_a_boundary_was_seen_or_not(
    kind: str,
    any_boundary: Boundary,
    memory: tuple[Any, Any],
    server: FailingServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = policy_of(kind, any_boundary, memory, server, monkeypatch)
    for left in (10, 22, 23, 32, 34, 37):
        tree = Tree(Problem("p", PROMPT))
        tree.budget.limit = len(PROMPT) + left
        steps = written_by(policy, tree, at_once)
        *whole, last = [step for step in steps_as_written(any_boundary, TEXT[:left]) if step]
        assert steps == [*((step, EndReason.BOUNDARY) for step in whole), (last, EndReason.BUDGET)], left
        assert tree.budget.written("policy") == left


@pytest.mark.parametrize("pattern", [r" [12]\d", r"(?= \d \d\d)"])
def test_what_shows_the_end_of_a_step_is_dropped_and_leaves_nothing_behind(pattern: str) -> None:
    boundary = RegularExpression(pattern=pattern)
    policy = make_policy(sampling=Sampling(max_step_tokens=8, max_steps=6, boundary=boundary))
    tree = make_tree()
    children = asyncio.run(policy.extend([tree.root], 40))
    asyncio.run(policy.extend([child for child in children if child.open], 2))
    assert policy.statistics.recomputed == 0  # the states of a step are kept, without those of what was behind it
    trees = [tree, *asyncio.run(grow(policy))]
    assert_exact(reference(policy), trees)
    whole = [node.step for tree in trees for node in tree.nodes if node.step.end is EndReason.BOUNDARY and node.depth]
    assert len(whole) > 30
    assert all(boundary.end(Characters(step.text)) is None for step in whole)
    assert tree.budget.written("policy") == sum(node.multiplicity * len(node.step.tokens) for node in tree.nodes[1:])


def test_a_recipe_may_name_a_boundary_for_any_task(own: Boundary) -> None:
    from gradatim.run.models import make_sampling

    recipe = small_recipe()
    task = recipe.task
    assert make_sampling(recipe.policy.sampling, task).boundary == task.boundary == Delimiter()
    recipe = small_recipe(policy={"model": "shipped:countdown", "sampling": {"boundary": {"tokens": {"count": 7}}}})
    assert make_sampling(recipe.policy.sampling, task).boundary == Tokens(count=7)
    again = type(recipe).model_validate(recipe.model_dump(mode="json"))
    assert again.policy.sampling.boundary == Tokens(count=7)
    assert make(KIND, content_of(own)) == own


def test_a_boundary_of_ones_own_is_part_of_what_a_run_depends_on(own: Boundary) -> None:
    from gradatim.run.contents import contents

    name = content_of(own)["name"]
    records = {"name": "records", "source": "none.jsonl", "template": "{question}\n", "verifier": "number"}
    for changes, key in (
        ({"policy": {"model": "shipped:countdown", "sampling": {"boundary": name}}}, "policy.sampling.boundary"),
        ({"task": {**records, "boundary": name}}, "task"),
    ):
        assert set(contents(small_recipe(**changes))[key]) == {name.rpartition(":")[0]}
