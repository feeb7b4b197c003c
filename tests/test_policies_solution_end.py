"""A solution ends at the same place whatever engine writes it: with its answer, at a next problem, or at a limit."""

from __future__ import annotations

import asyncio
import copy
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import fake_vllm
from failing_server import FailingServer, serving
from gradatim import Problem, Tree
from gradatim.policies.base import Policy, Sampling
from gradatim.policies.scripted import ScriptedPolicy, ScriptedStep
from gradatim.policies.server import ServerPolicy
from gradatim.policies.transformers import TransformersPolicy
from gradatim.policies.vllm import VllmPolicy
from gradatim.tasks.gsm8k import Gsm8k
from gradatim.text.boundaries.delimiter import Delimiter
from gradatim.tree import EndReason, Node
from tiny_models import learned_by_heart

TASK = Gsm8k(source=".")
BOUNDARY, ANSWER, STOP, LENGTH = EndReason.BOUNDARY, EndReason.ANSWER, EndReason.STOP, EndReason.LENGTH

# What a base model writes after each question, and the steps that are its solution.
DOCUMENTS: dict[str, tuple[str, list[tuple[str, EndReason]]]] = {
    "What is 3 + 4?": (
        "We add.\n#### 7\nQuestion: What is 8 + 1?\nAnswer:\n#### 9\n",
        [("We add.\n", BOUNDARY), ("#### 7\n", ANSWER)],
    ),
    "What is 5 + 5?": (
        "Ten, of course.\nQuestion: What is 1 + 1?\nAnswer:\nTwo.\n",
        [("Ten, of course.\n", BOUNDARY), ("", STOP)],
    ),
    "What is 2 + 2?": (
        "Question: What is 2 + 2?\nAnswer: we add.\nThe answer is 4.\nIt is.\n",
        [("Question: What is 2 + 2?\n", BOUNDARY), ("Answer: we add.\n", BOUNDARY), ("The answer is 4.\n", ANSWER)],
    ),
    "What is 6 + 3?": (
        "It is \\boxed{9} because of the laws of sums and of many other laws that nobody has to know.\n",
        [("It is \\boxed{9} because of the laws of s", ANSWER)],
    ),
    "What is 1 + 8?": (
        "It is what it is because of the laws of sums and of many other laws that nobody has to know.\n",
        [("It is what it is because of the laws of ", LENGTH)],
    ),
}
LONGEST = 40  # characters of a step


def problem_of(question: str) -> Problem:
    return Problem(question, f"Question: {question}\nAnswer:\n", "0", {"question": question})


@pytest.fixture(scope="module")
def memory() -> tuple[Any, Any]:
    """A model that has learned the documents by heart, character by character, and its tokenizer."""
    return learned_by_heart([problem_of(question).prompt + text for question, (text, _) in DOCUMENTS.items()])


@pytest.fixture
def server() -> Iterator[FailingServer]:
    def writes(text: str, seed: int) -> list[str]:
        question = next(question for question in DOCUMENTS if text.startswith(problem_of(question).prompt))
        return list(DOCUMENTS[question][0][len(text) - len(problem_of(question).prompt) :])

    with serving(writes) as running:
        yield running


def steps_at(node: Node) -> list[ScriptedStep]:
    text = DOCUMENTS[node.tree.problem.id][0]
    return [ScriptedStep(Delimiter().split(text[len(node.text) :])[0], 1.0)]


@pytest.fixture(params=["transformers", "vllm", "scripted", "server", "server that stops", "server in chunks"])
def policy(
    request: pytest.FixtureRequest,
    memory: tuple[Any, Any],
    server: FailingServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Policy:
    sampling = Sampling(temperature=0.0, max_step_tokens=LONGEST, max_steps=9, solution_end=TASK.solution_end)
    model, tokenizer = memory
    kind = str(request.param)
    if kind == "transformers":
        return TransformersPolicy(copy.deepcopy(model), tokenizer, sampling=sampling)
    if kind == "vllm":
        monkeypatch.setitem(sys.modules, "vllm", fake_vllm)
        return VllmPolicy(fake_vllm.LLM(model, tokenizer), tokenizer, sampling=sampling)
    if kind == "scripted":
        return ScriptedPolicy(steps_at, sampling)
    if kind == "server that stops":
        server.owner = "vllm"
    if kind == "server in chunks":
        server.tokens_a_chunk = 5
    return ServerPolicy(server.url, sampling=sampling)


def steps_of(leaf: Node) -> list[tuple[str, EndReason]]:
    return [(node.step.text, node.step.end) for node in leaf.path()[1:]]


def expected_tokens(question: str) -> int:
    """One for each character up to the end, and those of the heading that shows a next problem."""
    _, steps = DOCUMENTS[question]
    return len("".join(step for step, _ in steps)) + (len("Question:") if steps[-1][1] is STOP else 0)


async def one_by_one(policy: Policy, tree: Tree) -> Node:
    node = tree.root
    while node.open:
        (node,) = await policy.extend([node])
    return node


async def at_once(policy: Policy, tree: Tree) -> Node:
    (leaf,) = await policy.extend([tree.root], steps=None)
    return leaf


@pytest.mark.parametrize("question", DOCUMENTS)
@pytest.mark.parametrize("work", [one_by_one, at_once])
def test_every_engine_ends_a_solution_at_the_same_place(policy: Policy, work: Any, question: str) -> None:
    tree = Tree(problem_of(question))

    async def main() -> Node:
        leaf: Node = await work(policy, tree)
        if not isinstance(policy, ScriptedPolicy):
            await policy.close()
        return leaf

    leaf = asyncio.run(main())
    assert steps_of(leaf) == DOCUMENTS[question][1]
    assert leaf.finished is (leaf.step.end is not LENGTH)
    assert tree.budget.written("policy") == expected_tokens(question)
