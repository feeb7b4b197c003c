"""A server's policy keeps every promise of a policy, and says in one sentence what is wrong with a server."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
import time
from collections.abc import Awaitable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

import failing_server as fail
from failing_server import LOG_PROBABILITY, FailingServer, asking, serving
from gradatim import Budget, GradatimError, Problem, Tree
from gradatim.errors import ProblemError
from gradatim.policies.base import Policy, Sampling
from gradatim.policies.server import ServerPolicy, client, is_server_url
from gradatim.policies.server.division import Division, Piece
from gradatim.policies.server.failures import explanation
from gradatim.policies.server.waiting import LONGEST_WAIT, backoff_seconds, retry_after_seconds
from gradatim.text.boundaries.delimiter import LINES, Delimiter
from gradatim.text.prompts import ChatFormat
from gradatim.tree import EndReason, Node, Step

Result = TypeVar("Result")
_made: list[ServerPolicy] = []  # in the test that runs
PROMPT = "p:\n"
GREEDY = Sampling(temperature=0.0, max_step_tokens=20)
SAMPLED = Sampling(max_step_tokens=20, max_steps=6)


def run(work: Awaitable[Result]) -> Result:
    async def main() -> Result:
        try:
            return await work
        finally:
            for policy in _made:
                await policy.close()

    return asyncio.run(main())


def writes(text: str, seed: int) -> list[str]:
    """Three lines of a number that the seed chooses, then the end; a token is a character."""
    line = text.count("\n") - PROMPT.count("\n")
    digit = str(seed % 7)
    return list(f"{digit * 3}\n" * (2 - line) + digit * 3) if line < 3 else []


@pytest.fixture
def server() -> Iterator[FailingServer]:
    with serving(writes) as running:
        yield running


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No wait is waited for; here they are."""
    waited: list[float] = []
    _made.clear()

    async def sleep(seconds: float) -> None:
        if seconds:
            waited.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(client, "_sleep", sleep)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return waited


def new_tree(seed: int = 0, limit: int | None = None, prompt: str = PROMPT) -> Tree:
    return Tree(Problem("one", prompt), seed=seed, budget=Budget(limit))


def policy_of(server: FailingServer, **options: Any) -> ServerPolicy:
    policy = asking(server.url, **{"sampling": SAMPLED, "retries": 2, **options})
    _made.append(policy)
    return policy


def steps_of(leaf: Node) -> list[tuple[str, EndReason]]:
    return [(node.step.text, node.step.end) for node in leaf.path()[1:]]


async def walk(policy: ServerPolicy, tree: Tree) -> list[Node]:
    """The path of first children to the end."""
    path = [tree.root]
    while path[-1].open:
        path.append((await policy.extend([path[-1]]))[0])
    return path


# How text becomes steps


@given(st.data())
def test_however_an_answer_is_cut_into_pieces_its_steps_are_the_same(data: st.DataObject) -> None:
    text = data.draw(st.text("ab\n|", max_size=30))
    ends = data.draw(st.sampled_from([("\n",), ("\n\n", "|"), ("a\n", "b")]))
    room = data.draw(st.integers(1, 8))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    division = Division(Delimiter(at=ends), 1000, room, EndReason.LENGTH)
    for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True):
        division.add(Piece(text[start:stop], stop - start, tuple([-1.0] * (stop - start))))
    division.finish(EndReason.END_OF_TEXT)

    expected: list[tuple[str, EndReason]] = []
    rest = text
    while len(expected) < room:
        places = [end for end in range(1, len(rest) + 1) if rest[:end].endswith(ends) and rest[:end].strip()]
        end = min(places, default=None)
        expected.append((rest[:end], EndReason.END_OF_TEXT if end is None else EndReason.BOUNDARY))
        rest = "" if end is None else rest[end:]
        if end is None:
            break
    if expected[-1][1] is EndReason.BOUNDARY:
        expected[-1] = expected[-1][0], EndReason.LENGTH
    assert [(step.text, step.end) for step, _ in division.steps] == expected
    assert all(len(step.log_probabilities) in (0, len(step.text)) for step, _ in division.steps)


def test_log_probabilities_are_recorded_where_it_is_known_to_which_step_they_belong() -> None:
    division = Division(LINES, 100, 9, EndReason.LENGTH)
    for piece in (
        Piece("a", 1, (-1.0,)),
        Piece("b\nc", 1, (-2.0,)),  # one token: of the step that it ends
        Piece("d\n", 2, (-3.0, -4.0)),
        Piece("e\nf", 3, (-5.0, -6.0, -7.0)),  # several: nobody knows
        Piece("g\n", 1, (-8.0,)),
        Piece("h\n", 1, None),
        Piece("i", 1, (-9.0,)),
    ):
        division.add(piece)
    division.finish(EndReason.END_OF_TEXT)
    assert [(step.text, step.log_probabilities) for step, _ in division.steps] == [
        ("ab\n", (-1.0, -2.0)),
        ("cd\n", (-3.0, -4.0)),
        ("e\n", ()),
        ("fg\n", ()),
        ("h\n", ()),
        ("i", (-9.0,)),
    ]


def test_a_step_that_goes_on_after_its_longest_length_is_cut_off_and_one_that_ends_there_is_not() -> None:
    for texts, expected in (
        ("ab\ncd", [("ab\n", EndReason.BOUNDARY), ("cd", EndReason.END_OF_TEXT)]),
        ("abc\n", [("abc", EndReason.LENGTH)]),
        ("ab\ncde!", [("ab\n", EndReason.BOUNDARY), ("cde", EndReason.LENGTH)]),
    ):
        division = Division(LINES, 3, 9, EndReason.LENGTH)
        for text in texts:
            division.add(Piece(text, 1, None))
        division.finish(EndReason.END_OF_TEXT)
        assert [(step.text, step.end) for step, _ in division.steps] == expected


# The good server


@pytest.mark.parametrize("api", ["completions", "chat"])
@pytest.mark.parametrize("owner", ["somebody", "vllm"])
@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("shows", [("stream", "usage", "logprobs", "stop"), ("stream",), ("usage",), ()])
def test_steps_and_ends_are_exact_with_every_kind_of_server(
    server: FailingServer, api: Any, owner: str, chunk: int, shows: tuple[str, ...]
) -> None:
    server.owner, server.tokens_a_chunk, server.shows = owner, chunk, frozenset(shows)

    async def work() -> None:
        policy = policy_of(server, api=api)
        tree = new_tree()
        for path in (await walk(policy, tree), (await policy.extend([tree.root], steps=None))[0].path()):
            assert [node.step.end for node in path[1:]] == [EndReason.BOUNDARY] * 2 + [EndReason.END_OF_TEXT]
            assert [len(node.step.text) for node in path[1:]] == [4, 4, 3]
            assert path[-1].text.replace("\n", "").isdigit()
            assert all(node.step.tokens == () for node in path)
        assert tree.budget.read("policy") == (len(PROMPT) if "usage" in shows else len(PROMPT) // 4 + 1)
        assert tree.budget.written("policy") > 0

    run(work())


@pytest.mark.parametrize("owner", ["somebody", "vllm"])
@pytest.mark.parametrize("api", ["completions", "chat"])
def test_log_probabilities_and_tokens_are_the_servers(server: FailingServer, owner: str, api: Any) -> None:
    server.owner = owner

    async def work() -> None:
        policy = policy_of(server, require_log_probabilities=True, api=api)
        tree = new_tree()
        path = await walk(policy, tree)
        assert [node.step.log_probabilities for node in path[1:]] == [(LOG_PROBABILITY,) * 4] * 3  # 3 and the end
        assert tree.budget.written("policy") == 12
        [leaf] = await policy.extend([tree.root], steps=None)
        assert [len(node.step.log_probabilities) for node in leaf.path()[1:]] == [4, 4, 4]
        assert tree.budget.written("policy") == 24
        assert tree.budget.read("policy") == len(PROMPT)

    run(work())


def test_a_policy_is_one(server: FailingServer) -> None:
    assert isinstance(policy_of(server), Policy)


def test_the_end_right_after_a_boundary_is_a_step_without_text() -> None:
    with serving(lambda text, seed: list("a\n") if text == PROMPT else []) as server:
        tree = new_tree()
        [leaf] = run(policy_of(server).extend([tree.root], steps=None))
        assert steps_of(leaf) == [("a\n", EndReason.BOUNDARY), ("", EndReason.END_OF_TEXT)]
        again = new_tree()
        assert steps_of(run(walk(policy_of(server), again))[-1]) == steps_of(leaf)


@pytest.mark.parametrize("owner", ["somebody", "vllm"])
def test_draws_merge_and_come_in_the_order_of_draws_whatever_arrives_first(server: FailingServer, owner: str) -> None:
    server.owner = owner

    async def work() -> tuple[Any, Any]:
        policy, tree = policy_of(server), new_tree(seed=3)
        children = list(dict.fromkeys(await policy.extend([tree.root], 12)))
        assert len({node.step.text for node in children}) == len(children) == len(tree.root.children) > 1
        assert sum(node.multiplicity for node in children) == 12
        leaves = await policy.extend(children, 2, steps=None)
        assert len(leaves) == 2 * len(children)
        assert [leaf.path()[1] for leaf in leaves] == [child for child in children for _ in range(2)]
        return tree.to_json(), [leaf.id for leaf in leaves]

    assert run(work()) == run(work())


@pytest.mark.parametrize("owner", ["somebody", "vllm"])
def test_some_steps_are_the_first_of_a_solution_and_leave_it_open(server: FailingServer, owner: str) -> None:
    server.owner = owner
    whole, begun = new_tree(seed=3), new_tree(seed=3)
    leaves = run(policy_of(server).extend([whole.root], 6, steps=None))
    ends = run(policy_of(server).extend([begun.root], 6, steps=2))
    for leaf, end in zip(leaves, ends, strict=True):
        first = leaf.path()[1:3]
        assert [node.step.text for node in end.path()[1:]] == [node.step.text for node in first]
        assert end.open is first[-1].open
    assert any(end.open for end in ends)
    assert begun.budget.written("policy") < whole.budget.written("policy")


def test_draws_of_a_node_are_one_request_where_the_server_can_and_one_each_where_not(server: FailingServer) -> None:
    for owner, expected in (("vllm", [5]), ("somebody", [1] * 5)):
        server.owner = owner
        server.requests.clear()
        run(policy_of(server).extend([new_tree().root], 5))
        assert [body.get("n", 1) for body in server.generations] == expected
        assert all(("stop" in body) is (owner == "vllm") for body in server.generations)
        assert len(server.requests) == len(expected) + 1  # the prompt is counted once


def test_greedy_draws_are_written_once(server: FailingServer) -> None:
    for owner in ("vllm", "somebody"):
        server.owner = owner
        server.requests.clear()
        tree = new_tree()
        [child] = set(run(policy_of(server).extend([tree.root], 5, sampling=GREEDY)))
        assert child.multiplicity == 5
        assert tree.root.draws == 5
        assert len(server.generations) == 1
        assert tree.budget.written("policy") == 4


def test_sampling_is_sent_as_it_is_and_what_servers_do_unasked_is_switched_off(server: FailingServer) -> None:
    sampling = Sampling(temperature=0.7, top_p=0.9, top_k=5, max_step_tokens=17)
    for owner, extra in (("somebody", {"top_k": 5}), ("vllm", {"top_k": 5, "min_p": 0.0, "repetition_penalty": 1.0})):
        server.owner = owner
        server.requests.clear()
        run(policy_of(server).extend([new_tree().root], sampling=sampling))
        [body] = server.generations
        assert {name: body[name] for name in ("temperature", "top_p", "max_tokens")} == {
            "temperature": 0.7, "top_p": 0.9, "max_tokens": 17,
        }  # fmt: skip
        assert extra.items() <= body.items()
        assert 0 <= body["seed"] < 2**31
    server.requests.clear()
    run(policy_of(server).extend([new_tree().root]))
    assert server.generations[0]["top_k"] == -1
    server.owner = "somebody"
    server.requests.clear()
    run(policy_of(server).extend([new_tree().root]))
    assert "top_k" not in server.generations[0]


def test_chat_puts_the_conversation_and_has_the_solution_so_far_continued(server: FailingServer) -> None:
    chat = ChatFormat(system="be brief", examples=(("q", "a"),))

    async def work() -> None:
        tree = new_tree()
        [child] = await policy_of(server, chat=chat).extend([tree.root])
        await policy_of(server, chat=chat).extend([child])

    run(work())
    first, second = server.generations
    assert [message["role"] for message in first["messages"]] == ["system", "user", "assistant", "user"]
    assert "continue_final_message" not in first
    assert second["messages"][:4] == first["messages"]
    assert second["messages"][4]["role"] == "assistant"
    assert second["messages"][4]["content"].endswith("\n")
    assert second["continue_final_message"] is True
    assert second["add_generation_prompt"] is False
    with pytest.raises(GradatimError, match="a chat format needs chat completions"):
        policy_of(server, chat=chat, api="completions")


def test_a_server_without_completions_is_talked_to_in_chat(server: FailingServer) -> None:
    server.completions = False
    policy, tree = policy_of(server), new_tree()
    assert len(run(walk(policy, tree))) == 4
    assert all("messages" in body for body in server.requests[1:])
    with pytest.raises(GradatimError, match=r"answers 404 \(Not Found\); check the URL"):
        run(policy_of(server, api="completions").extend([new_tree().root]))


def test_a_rollout_takes_at_most_max_steps_and_is_cut_off_there(server: FailingServer) -> None:
    tree = new_tree()
    [leaf] = run(policy_of(server).extend([tree.root], steps=None, sampling=Sampling(max_steps=2, max_step_tokens=20)))
    assert [end for _, end in steps_of(leaf)] == [EndReason.BOUNDARY, EndReason.STEPS]
    [leaf] = run(policy_of(server).extend([tree.root], steps=None, sampling=Sampling(max_step_tokens=2)))
    assert [(len(text), end) for text, end in steps_of(leaf)] == [(2, EndReason.LENGTH)]


def test_steps_say_which_model_wrote_them(server: FailingServer) -> None:
    policy, tree = policy_of(server), new_tree()
    children = list(dict.fromkeys(run(policy.extend([tree.root], 2))))
    assert policy.model
    assert {child.step.source for child in children} == {f"server:{policy.model}"}
    assert policy.source == f"server:{policy.model}"


@pytest.mark.parametrize("owner", ["somebody", "vllm"])
def test_a_step_is_cut_off_at_its_longest_length_and_not_before(owner: str) -> None:
    for text, longest, expected in (
        ("abc\nd", 4, ("abc\n", EndReason.BOUNDARY)),
        ("abc\nd", 3, ("abc", EndReason.LENGTH)),
        ("abc", 4, ("abc", EndReason.END_OF_TEXT)),
        ("abc", 3, ("abc", EndReason.LENGTH)),
    ):
        with serving(lambda _, seed, text=text: list(text)) as server:  # type: ignore[misc]
            server.owner = owner
            [child] = run(policy_of(server).extend([new_tree().root], sampling=Sampling(max_step_tokens=longest)))
            assert (child.step.text, child.step.end) == expected


def test_text_is_read_as_it_was_written_whatever_characters_it_has() -> None:
    text = 'é\u2028\x85\x0b😀 \\"x'  # some of these end a line in Python, and none of them in an event stream
    with serving(lambda _, seed: list(text)) as server:
        server.tokens_a_chunk = 2
        [leaf] = run(policy_of(server).extend([new_tree().root], steps=None))
        assert leaf.text == text
        server.faults = [None, fail.events(json.dumps(_answer(text), ensure_ascii=False), "[DONE]")]
        [child] = run(policy_of(server).extend([new_tree().root]))
        assert child.text == text


def _answer(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "model", "choices": [{"index": 0, "text": text, "finish_reason": "stop"}], **more}


# Budgets


@pytest.mark.parametrize("owner", ["somebody", "vllm"])
@pytest.mark.parametrize("limit", range(0, 48, 3))
def test_no_more_is_spent_than_the_budget_has_and_all_of_it_is_used(
    server: FailingServer, owner: str, limit: int
) -> None:
    server.owner = owner
    tree = new_tree(limit=limit)
    leaves = run(policy_of(server).extend([tree.root], 3, steps=None))
    needed = len(PROMPT) + 3 * 12
    if limit < len(PROMPT):
        assert (leaves, tree.budget.total) == ([], 0)
    elif limit >= needed:
        assert tree.budget.total == needed
        assert all(leaf.finished for leaf in leaves)
    else:
        assert tree.budget.total == limit
        between_draws = (limit - len(PROMPT)) % 12 == 0
        assert any(leaf.step.end is EndReason.BUDGET for leaf in leaves) is not between_draws
    assert all(body["max_tokens"] <= max(1, limit) for body in server.generations)


def test_what_is_not_known_is_read_once_and_what_the_policy_wrote_never(server: FailingServer) -> None:
    async def work() -> None:
        policy, tree = policy_of(server), new_tree()
        imported = tree.add(tree.root, Step((), "9\n"))
        await policy.extend([imported], 2)
        assert tree.budget.read("policy") == len(PROMPT) + 2
        children = list(dict.fromkeys(await policy.extend([tree.root], 2)))
        await policy.extend([*children, imported], 2)
        assert tree.budget.read("policy") == len(PROMPT) + 2
        policy.release(tree)
        await policy.extend([tree.root])
        assert tree.budget.read("policy") == 2 * len(PROMPT) + 2

    run(work())


def test_the_context_of_the_model_is_used_to_its_end() -> None:
    with serving(lambda text, seed: list("abcd\n" * 20)) as server:
        server.context = 40
        tree = new_tree()
        [leaf] = run(policy_of(server).extend([tree.root], steps=None, sampling=Sampling(max_step_tokens=16)))
        assert len(PROMPT + leaf.text) == 40
        assert leaf.step.end is EndReason.LENGTH
        tree = new_tree(prompt="x" * 40)
        with pytest.raises(
            GradatimError, match=r"maximum context length is 40.*; use a shorter prompt, a lower max_st"
        ):
            run(policy_of(server).extend([tree.root], steps=None))


# Failures that pass

PASSING = {
    "500": fail.status(500),
    "502": fail.status(502),
    "503": fail.status(503),
    "504": fail.status(504),
    "429": fail.status(429),
    "hang up": fail.hang_up,
    "hang up within": fail.hang_up_within,
    "half a stream": fail.events(json.dumps({"choices": [{"index": 0, "text": "1"}]})),
    "an empty stream": fail.events("[DONE]"),
    "silence": fail.silence,
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_failure_that_passes_changes_nothing(server: FailingServer, fault: fail.Fault, waits: list[float]) -> None:
    expected = new_tree()
    run(policy_of(server).extend([expected.root]))
    server.faults = [None, fault, fault]
    tree = new_tree()
    run(policy_of(server, timeout=0.3).extend([tree.root]))
    assert tree.to_json() == expected.to_json()
    assert len(waits) == 2
    assert 0.25 <= waits[0] <= 0.5 <= waits[1] <= 1.0


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_failure_that_lasts_is_one_sentence_with_the_url_and_what_to_do(
    server: FailingServer, fault: fail.Fault
) -> None:
    server.faults = [None, fault, fault]
    tree = new_tree(limit=100)
    with pytest.raises(GradatimError) as error:
        run(policy_of(server, timeout=0.3, retries=1).extend([tree.root]))
    assert server.url in str(error.value)
    assert "attempt 2 was the last, so check that the server runs" in str(error.value)
    assert "\n" not in str(error.value)
    assert tree.budget.written("policy") == 0


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_is_not_there_is_an_error_at_once(scheme: str, waits: list[float]) -> None:
    with serving(writes) as server:
        url = server.url.replace("http", scheme, 1)
    tree = new_tree()
    for attempt in (ServerPolicy(url).connect(), ServerPolicy(url).extend([tree.root])):
        with pytest.raises(GradatimError) as error:
            run(attempt)
        assert str(error.value) == (
            f"there is no server at {url} (Connection refused); start it, or check the host and the port"
        )
    assert waits == []


def test_a_host_without_an_address_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    async def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", unknown)
    with pytest.raises(GradatimError, match=r"no server at http://gpu-box:8000/v1 \(Name or service not known\)"):
        run(ServerPolicy("http://gpu-box:8000").connect())
    assert waits == []


def test_a_server_that_answered_before_is_waited_for_and_the_user_is_told(
    waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    policies = []
    with serving(writes) as server:
        policies.append(policy_of(server, retries=6))
        run(policies[0].connect())
    with pytest.raises(
        GradatimError, match=rf"{server.url}/completions cannot be reached any more .Connection refused.*7"
    ):
        run(policies[0].extend([new_tree().root]))
    assert len(waits) == 6
    [told] = caplog.messages  # the first wait that is long; here no time passes until the others
    assert re.fullmatch(
        rf"{server.url}/\S+ cannot be reached any more \(Connection refused\); attempt \d of 7 in \d s", told
    )


def test_short_waits_are_not_told_of(
    server: FailingServer, waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    server.faults = [None, fail.status(503)]
    run(policy_of(server).extend([new_tree().root]))
    assert caplog.messages == []


# Trying it out before anything is begun


@pytest.mark.parametrize("api", ["auto", "completions", "chat"])
def test_connecting_finds_the_model_and_writes_one_token(server: FailingServer, api: Any) -> None:
    policy = policy_of(server, api=api)
    run(policy.connect())
    assert policy.model == "model"
    [request] = server.requests
    assert (request["max_tokens"], "stream" in request) == (1, False)


def test_connecting_finds_out_that_there_is_only_chat(server: FailingServer) -> None:
    server.completions = False
    run(policy_of(server).connect())
    assert [("messages" in request) for request in server.requests] == [False, True]


def test_what_is_wrong_with_a_server_is_said_when_it_is_tried_out(server: FailingServer, waits: list[float]) -> None:
    server.names = [f"m{number}" for number in range(30)] + ["Qwen2.5-7B-Instruct"]
    with pytest.raises(
        GradatimError, match=r"has no model 'qwen2.5-7b'; did you mean 'Qwen2.5-7B-Instruct'\? .*m25 and 11 more"
    ):
        run(policy_of(server, model="qwen2.5-7b").connect())
    server.faults = [fail.status(400, "qwen is not a valid model ID")]
    with pytest.raises(GradatimError, match=r"/v1 has no model 'qwen'; valid: "):
        run(policy_of(server, model="qwen").connect())
    with pytest.raises(GradatimError, match=r"has 31 models; name one .*model='NAME': m0, m1, .*, m19 and 11 more$"):
        run(policy_of(server).connect())
    with pytest.raises(GradatimError, match=r"/wrong/completions answers 404 \(Not Found\); check the URL"):
        run(asking(server.url.replace("/v1", "/wrong"), model="m1", api="completions").connect())
    server.key = "secret"
    with pytest.raises(GradatimError, match=r"401 \(Incorrect API key provided\); put a key that the server accepts"):
        run(policy_of(server, model="m1", api_key="wrong").connect())
    assert waits == []


def test_models_may_be_listed_without_an_object_around_them(server: FailingServer) -> None:
    server.bare_list = True
    policy = policy_of(server)
    run(policy.connect())
    assert policy.model == "model"


def test_retry_after_is_honoured_and_too_long_a_one_is_not_waited_for(
    server: FailingServer, waits: list[float]
) -> None:
    server.faults = [None, fail.status(429, headers={"Retry-After": "17"})]
    run(policy_of(server).extend([new_tree().root]))
    assert waits == [17.0]
    server.faults = [None, fail.status(429, "come back tomorrow", {"Retry-After": "86400"})]
    with pytest.raises(GradatimError, match=r"429 \(come back tomorrow\); attempt 1 was the last"):
        run(policy_of(server).extend([new_tree().root]))


# Failures that last

LASTING = {
    "key": (fail.status(401, "Incorrect API key"), r"401 \(Incorrect API key\); put a key that the server accepts"),
    "forbidden": (fail.status(403), "403 .*put a key"),
    "no model": (fail.status(404, "The model `model` does not exist."), r"404 \(The model.*the model's name 'model'"),
    "context": (fail.status(400, "exceeds the available context size (64 tokens)"), "use a shorter prompt"),
    "bad request": (fail.status(400, "no such voice"), r"400 \(no such voice\); change the setting"),
    "context inside": (
        fail.events('{"error": {"message": "maximum context length is 9", "code": 400}}'), "use a shorter prompt",
    ),
    "key inside": (fail.content(b'{"error": {"message": "no such key", "code": "401"}}'), r"such key\); put a key"),
}  # fmt: skip


@pytest.mark.parametrize(("fault", "message"), LASTING.values(), ids=LASTING)
def test_what_will_not_pass_is_one_sentence_at_once(
    server: FailingServer, fault: fail.Fault, message: str, waits: list[float]
) -> None:
    server.faults = [None, fault] + [fault] * (8 if "context" in message or "prompt" in message else 0)
    tree = new_tree(limit=100)
    with pytest.raises(GradatimError, match=message) as error:
        run(policy_of(server, api="completions").extend([tree.root]))
    assert server.url in str(error.value)
    assert "\n" not in str(error.value)
    assert waits == []
    assert len(tree) == 1
    assert tree.budget.written("policy") == 0


def choice(**fields: Any) -> fail.Fault:
    return fail.events(json.dumps({"choices": [{"index": 0, **fields}]}), "[DONE]")


MALFORMED = {
    "not json": (fail.content(b"<html>hello"), "does not answer in JSON .*<html>hello"),
    "a list": (fail.content(b"[]"), "answers with a list"),
    "malformed event": (fail.events('{"choices": ['), "does not answer in JSON"),
    "nested deeply": (fail.content(b"[" * 100_000), "nested too deeply"),
    "no choices": (fail.events('{"id": 1}'), r"a form that is not OpenAI's \(KeyError 'choices'\)"),
    "choices are a number": (fail.events('{"choices": 3}'), "a form that is not OpenAI's"),
    "no text": (choice(), "a form that is not OpenAI's"),
    "text is a number": (choice(text=3), "a form that is not OpenAI's"),
    "end is a number": (choice(text="1", finish_reason=3), "a form that is not OpenAI's"),
    "too many choices": (choice(index=7, text=""), "a form that is not OpenAI's"),
    "a choice before the first": (choice(index=-1, text=""), "a form that is not OpenAI's"),
    "a choice that is true": (choice(index=True, text=""), "a form that is not OpenAI's"),
    "error event": (fail.events('{"error": {"message": "out of memory"}}'), r"error within its answer \(out of mem"),
    "error object": (fail.events('{"object": "error", "message": "out of memory"}'), r"its answer \(out of memory\)"),
    "error of the protocol": (fail.named_event("error", '{"message": "out of memory"}'), r"answer \(out of memory\)"),
    "detail": (fail.content(b'{"detail": "worker lost"}'), r"error within its answer \(worker lost\)"),
    "error of a choice": (choice(text="1", error={"message": "upstream"}), r"broke its answer off \(upstream\)"),
    "aborted": (choice(text="1", finish_reason="abort"), "broke its answer off"),
    "half a character": (choice(text="1\ud83d", finish_reason="stop"), "ends within a character"),
}


@pytest.mark.parametrize(("fault", "message"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_asked_for_again_and_then_one_sentence(
    server: FailingServer, fault: fail.Fault, message: str, waits: list[float]
) -> None:
    server.faults = [None, fault, fault]
    tree = new_tree(limit=100)
    with pytest.raises(ProblemError, match=f"{message}.*; attempt 2 was the last") as error:
        run(policy_of(server, api="completions", retries=1).extend([tree.root]))
    assert server.url in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).isprintable()
    assert len(waits) == 1
    assert len(tree) == 1
    assert tree.budget.written("policy") == 0


# How answers end


@pytest.mark.parametrize(
    ("finish", "end"),
    [
        ("stop", EndReason.END_OF_TEXT), ("eos_token", EndReason.END_OF_TEXT), ("end_turn", EndReason.END_OF_TEXT),
        ("tool_calls", EndReason.END_OF_TEXT), ("of its own", EndReason.END_OF_TEXT), (None, EndReason.END_OF_TEXT),
        ("length", EndReason.LENGTH), ("max_tokens", EndReason.LENGTH), ("content_filter", EndReason.LENGTH),
    ],
)  # fmt: skip
@pytest.mark.parametrize("streams", [True, False])
def test_an_answer_is_kept_however_its_end_is_called(
    server: FailingServer, finish: str | None, end: EndReason, streams: bool, caplog: pytest.LogCaptureFixture
) -> None:
    fault = choice(text="12", finish_reason=finish)
    if not streams:
        fault = fail.content(json.dumps({"choices": [{"index": 0, "text": "12", "finish_reason": finish}]}).encode())
    server.faults = [None] + [fault] * 6
    tree = new_tree()
    [leaf] = run(policy_of(server).extend([tree.root]))
    assert steps_of(leaf) == [("12", end)]
    assert tree.budget.written("policy") == (20 if finish == "length" else 1)
    assert len(server.faults) == (3 if finish is None else 5)  # it is asked again why it ended, twice
    assert ["for the reason" in text for text in caplog.messages] == [True] * (finish in ("tool_calls", "of its own"))


def test_what_follows_a_whole_answer_does_not_undo_it(server: FailingServer) -> None:
    whole = json.dumps(_answer("12"))
    for trouble in ('{"error": {"message": "late"}}', "{", '{"choices": 3}', whole):
        server.faults = [None, fail.events(whole, trouble)]
        [leaf] = run(policy_of(server).extend([new_tree().root]))
        assert steps_of(leaf) == [("12", EndReason.END_OF_TEXT)]
    server.faults = [None, fail.hang_up_after(whole)]
    [leaf] = run(policy_of(server).extend([new_tree().root]))
    assert steps_of(leaf) == [("12", EndReason.END_OF_TEXT)]


# Names of models


@pytest.mark.parametrize("answered", ["Qwen/Qwen2.5-7B-Instruct", "hosted_vllm/Model", "MODEL", "model-2024-08-06"])
def test_an_alias_of_a_model_is_taken_and_said_once(
    server: FailingServer, answered: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers_as = answered
    assert len(run(walk(policy_of(server, model="model"), new_tree()))) == 4
    said = [text for text in caplog.messages if "answers as" in text]
    assert len(said) == answered.startswith("Qwen")


def test_another_model_of_the_server_s_own_list_is_refused(server: FailingServer) -> None:
    server.names, server.answers_as = ["a", "b"], "b"
    with pytest.raises(GradatimError, match=r"asked for the model 'a' but answers with 'b', which it lists as another"):
        run(policy_of(server, model="a").extend([new_tree().root]))


# What is not told


@pytest.mark.parametrize(
    ("status", "listing"),
    [
        *(
            (200, listing)
            for listing in (b"<html>", b"", b"[", b'{"data": 3}', b'{"data": [3, {"id": 4}]}', b"[[]]", b"null")
        ),
        *((status, b"{}") for status in (302, 401, 403, 404, 500)),
    ],
)
def test_a_list_of_models_that_cannot_be_read_is_none(server: FailingServer, status: int, listing: bytes) -> None:
    server.listing, server.listing_status = listing, status
    assert len(run(walk(policy_of(server, model="model"), new_tree()))) == 4
    with pytest.raises(GradatimError, match=r"name one (of them )?with model='NAME'"):
        run(policy_of(server).connect())


# Chat templates


@pytest.mark.parametrize("owner", ["somebody", "vllm", "llamacpp"])
@pytest.mark.parametrize("counts", [True, False])
def test_a_template_that_trims_what_is_to_be_continued_is_refused(owner: str, counts: bool) -> None:
    with serving(lambda text, seed: list("One.\nTwo.\nThree."[len(text) - len(PROMPT) :])) as server:
        server.owner = owner
        if not counts:
            server.shows -= {"usage"}
        refuse_trimming(server)


def refuse_trimming(server: FailingServer) -> None:
    assert len(run(walk(policy_of(server, api="chat"), new_tree()))) == 4
    server.trims = True
    tree = new_tree()
    with pytest.raises(
        GradatimError, match=r"chat template takes blank characters off.*use api='completions'"
    ) as error:
        run(walk(policy_of(server, api="chat"), tree))
    assert not isinstance(error.value, ProblemError)
    assert all(node.step.text.strip() for node in tree.nodes[1:])
    assert len(run(walk(policy_of(server, api="completions"), new_tree()))) == 4


def test_blank_lines_that_a_model_writes_are_its_own_and_no_steps() -> None:
    def blanks(text: str, seed: int) -> list[str]:
        return list("One.\n\nTwo.\n\n"[len(text) - len(PROMPT) :])

    with serving(blanks) as server:
        server.shows -= {"usage"}
        path = run(walk(policy_of(server, api="chat"), new_tree()))
    assert [node.step.text for node in path[1:]] == ["One.\n", "\nTwo.\n", "\n"]


def test_what_arrived_is_kept_when_another_request_fails(server: FailingServer) -> None:
    server.faults = [None, None, None, fail.status(400, "no"), None]
    tree = new_tree()
    with pytest.raises(GradatimError, match=r"400 \(no\)"):
        run(policy_of(server, concurrency=1).extend([tree.root], 4))
    assert sum(child.multiplicity for child in tree.root.children) == 3
    assert tree.budget.written("policy") == 3 * 4


def test_a_key_is_sent_and_taken_from_the_environment(server: FailingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.key = "secret"
    with pytest.raises(GradatimError, match=r"401 \(Incorrect API key provided\)") as error:
        run(policy_of(server, api_key="wrong").extend([new_tree().root]))
    assert "wrong" not in str(error.value)
    assert run(policy_of(server, api_key="secret").extend([new_tree().root]))
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert run(policy_of(server).extend([new_tree().root]))


def test_the_only_model_is_taken_and_several_are_listed(server: FailingServer) -> None:
    policy = policy_of(server)
    before = policy.model
    assert run(policy.extend([new_tree().root]))
    assert (before, policy.model) == (None, "model")
    server.names = ["a", "b"]
    with pytest.raises(GradatimError, match=r"has 2 models; name one of them with model=.NAME.: a, b"):
        run(policy_of(server).extend([new_tree().root]))
    assert run(policy_of(server, model="b").extend([new_tree().root]))
    with pytest.raises(GradatimError, match=r"has no model 'c'; valid: a, b"):
        run(policy_of(server, model="c", api="completions").extend([new_tree().root]))
    server.names = None
    with pytest.raises(GradatimError, match="does not list its models; name one"):
        run(policy_of(server).extend([new_tree().root]))
    assert run(policy_of(server, model="anything").extend([new_tree().root]))


def test_ends_and_counts_of_servers_that_are_not_quite_openai_s_are_read(server: FailingServer) -> None:
    events = [
        {"choices": [{"index": 0, "text": "1", "finish_reason": "eos_token"}]},
        {"usage": {"completion_tokens": 2}},
    ]
    server.faults = [None, fail.events(*map(json.dumps, events), "[DONE]")]
    tree = new_tree()
    [leaf] = run(policy_of(server).extend([tree.root]))
    assert steps_of(leaf) == [("1", EndReason.END_OF_TEXT)]
    assert tree.budget.written("policy") == 2


@pytest.mark.parametrize("answered", ["m", "m@main", "m-2024-08-06", "m:latest"])
def test_a_model_may_answer_with_its_version(server: FailingServer, answered: str) -> None:
    server.names = None
    server.faults = [None, fail.content(json.dumps(_answer("1\n") | {"model": answered}).encode())]
    assert run(policy_of(server, model="m").extend([new_tree().root]))


def test_a_server_is_asked_without_what_it_refuses_if_that_can_be_done_without(server: FailingServer) -> None:
    server.refuses = frozenset({"logprobs", "stream_options", "seed"})
    tree = new_tree()
    assert run(policy_of(server).extend([tree.root], 3))
    assert all(not child.step.log_probabilities for child in tree.root.children)
    with pytest.raises(GradatimError, match="logprobs"):
        run(policy_of(server, require_log_probabilities=True).extend([new_tree().root]))
    server.refuses = frozenset({"top_k"})
    with pytest.raises(GradatimError, match=r"Unexpected fields in the request: top_k\); change the setting"):
        run(policy_of(server).extend([new_tree().root], sampling=Sampling(top_k=3)))
    server.faults = [fail.status(400, "Use 'max_completion_tokens' instead.")]
    server.refuses = frozenset()
    assert run(policy_of(server).extend([new_tree().root], 2))
    assert "max_completion_tokens" in server.generations[-1]


def test_log_probabilities_that_are_demanded_and_do_not_come_are_an_error(server: FailingServer) -> None:
    server.shows -= {"logprobs"}
    with pytest.raises(GradatimError, match="sends no log-probabilities; use a server that does"):
        run(policy_of(server, require_log_probabilities=True).extend([new_tree().root]))


def test_chat_that_does_not_continue_is_found_out() -> None:
    with serving(lambda text, seed: list("a line that is long enough\n" * 3)) as server:
        server.continues = False

        async def work(**options: Any) -> list[Node]:
            return await walk(policy_of(server, api="chat", sampling=Sampling(), **options), new_tree())

        with pytest.raises(GradatimError, match="repeats the solution so far instead of continuing it"):
            run(work())
        server.refuses = frozenset({"continue_final_message", "add_generation_prompt"})
        with pytest.raises(GradatimError, match=r"cannot continue a partial message.*use api=.completions."):
            run(work())
    reasoning = {"index": 0, "delta": {"content": None, "reasoning_content": "hm"}, "finish_reason": None}
    with serving(writes) as server:
        server.faults = [None, fail.events(json.dumps({"choices": [reasoning]}))]
        with pytest.raises(GradatimError, match="reasoning apart from its answer"):
            run(policy_of(server, api="chat").extend([new_tree().root]))


def test_a_server_that_does_not_keep_to_what_its_kind_promises_is_still_read_exactly(server: FailingServer) -> None:
    server.owner, tree = "vllm", new_tree()
    silent = {"choices": [{"index": 0, "text": "1", "finish_reason": "stop"}]}  # does not say what ended it
    server.faults = [None, fail.events(json.dumps(silent))]
    [leaf] = run(policy_of(server).extend([tree.root]))
    assert (leaf.step.text[3:], leaf.step.end) == ("\n", EndReason.BOUNDARY)
    assert "stop" not in server.generations[-1]


def test_wrong_settings_are_refused_at_once() -> None:
    for url in ("localhost:8000", "http://", "ftp://host/v1", "http://[::1"):
        with pytest.raises(GradatimError, match=r"URL.*write one like http://127.0.0.1:8000/v1"):
            ServerPolicy(url)
    for name, value in {"concurrency": 0, "retries": -1, "timeout": 0, "requests_per_minute": -2}.items():
        with pytest.raises(GradatimError, match=rf"{name} must be greater than .*, got {value}"):
            asking("http://127.0.0.1:1", **{name: value})
    with pytest.raises(ValueError, match="n must be at least 0"):
        run(ServerPolicy("http://127.0.0.1:1").extend([], -1))


def test_urls_are_known_from_names() -> None:
    assert is_server_url("http://127.0.0.1:8000/v1")
    assert is_server_url("https://api.example.com/v1")
    assert not any(map(is_server_url, ("shipped:countdown", "./http", "httpx/model", "~/http://")))


# When requests are sent


def test_requests_are_kept_apart() -> None:
    arrived: list[float] = []

    def noting(text: str, seed: int) -> list[str]:
        arrived.append(time.monotonic())
        return writes(text, seed)

    with serving(noting) as server:
        policy = policy_of(server, requests_per_minute=1200)
        for _ in range(2):  # in an event loop each
            run(policy.extend([new_tree().root], 3))
    arrived.sort()
    gaps = [later - earlier for earlier, later in itertools.pairwise(arrived)]
    assert len(gaps) == 7
    assert sum(gap > 0.03 for gap in gaps) >= 6  # the second loop knows nothing of the first


def test_at_most_so_many_requests_are_under_way() -> None:
    under_way, most = [0], [0]

    def slowly(text: str, seed: int) -> list[str]:
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        time.sleep(0.01)
        under_way[0] -= 1
        return writes(text, seed)

    with serving(slowly) as server:
        run(policy_of(server, concurrency=2).extend([new_tree().root], 8))
    assert most[0] <= 2


@given(attempt=st.integers(0, 100), jitter=st.floats(0, 1, exclude_max=True), asked=st.none() | st.floats(0, 500))
def test_waits_grow_and_are_never_shorter_than_asked_nor_longer_than_the_longest(
    attempt: int, jitter: float, asked: float | None
) -> None:
    wait = backoff_seconds(attempt, asked, jitter)
    whole = min(LONGEST_WAIT, 0.5 * 2 ** min(attempt, 20))
    assert max(whole / 2, asked or 0) <= wait <= max(whole, asked or 0)


def test_retry_after_is_a_number_or_a_date() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after_seconds("2.5") == 2.5
    assert retry_after_seconds("-3") == 0.0
    assert retry_after_seconds(format_datetime(now + timedelta(seconds=90), usegmt=True), now) == 90.0
    assert retry_after_seconds(format_datetime(now - timedelta(seconds=90)), now) == 0.0
    assert retry_after_seconds(None) is retry_after_seconds("soon") is None


def test_explanations_are_found_in_every_shape_and_kept_short() -> None:
    for body, expected in (
        ('{"error": {"message": "a\\nb."}}', "a b"),
        ('{"error": "c"}', "c"),
        ('{"detail": [{"msg": "d"}]}', '[{"msg": "d"}]'),
        ('{"code": 3}', '{"code": 3}'),
        ("plain", "plain"),
        ("", ""),
    ):
        assert explanation(body) == expected
    assert len(explanation("x" * 5000)) < 400


def test_a_policy_can_be_used_from_one_event_loop_after_the_other(server: FailingServer) -> None:
    policy = policy_of(server)
    trees = [new_tree(seed) for seed in range(3)]
    for tree in trees:
        assert run(policy.extend([tree.root], 4))

    async def use_and_close() -> None:
        await policy.extend([trees[0].root])
        await policy.close()
        await policy.extend([trees[0].root])
        await policy.close()

    run(use_and_close())
    assert trees[0].root.draws == 6
