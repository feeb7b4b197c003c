"""A server's bad answer is one bad answer: asked for again, and where that does not help, one problem's failure."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from pathlib import Path
from typing import Any, TypeVar

import pytest
from rich.console import Console

import failing_server as fail
from bad_server import SPOILS, BadServer, Spoil, serving_badly
from failing_server import asking, serving
from gradatim import Budget, GradatimError, Problem, Tree
from gradatim.errors import ProblemError
from gradatim.policies.base import Sampling
from gradatim.policies.server import ServerPolicy, client
from gradatim.policies.server.characters import Characters
from gradatim.run import Progress, run_recipe
from gradatim.search import search_many
from gradatim.store import TreeStore
from gradatim.tree import EndReason
from small_runs import small_recipe

Result = TypeVar("Result")
SAMPLED = Sampling(max_step_tokens=20, max_steps=6)


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(client, "_sleep", sleep)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def writes(text: str, seed: int) -> list[str]:
    """Three lines that the seed chooses, then the end; a token is a character."""
    line = text.count("\n") - 1
    digit = seed % 7
    return list(f"{digit}é{digit}😀\n" * (2 - line) + f"{digit}é!") if line < 3 else []


def trees(count: int) -> list[Tree]:
    return [Tree(Problem(f"p{number}", f"Problem {number}:\n"), seed=5, budget=Budget(500)) for number in range(count)]


async def search(policy: ServerPolicy, tree: Tree) -> None:
    """Steps, and solutions below one of them."""
    children = list(dict.fromkeys(await policy.extend([tree.root], 2)))
    await policy.extend(children[:1])
    await policy.extend(children[-1:], 2, steps=None)


def grow(server: BadServer, count: int, **options: Any) -> tuple[list[Tree], dict[str, ProblemError]]:
    """Many problems at a time; those that were finished, and the errors of those that were not."""
    failed: dict[str, ProblemError] = {}

    async def main() -> list[Tree]:
        policy = asking(server.url, **{"sampling": SAMPLED, "concurrency": 4, **options})
        try:
            await policy.connect()
            return await search_many(
                trees(count),
                lambda tree: search(policy, tree),
                8,
                on_failed=lambda tree, error: failed.update({tree.problem.id: error}),
            )
        finally:
            await policy.close()

    return asyncio.run(main()), failed


def values(grown: list[Tree]) -> dict[str, Any]:
    return {tree.problem.id: tree.to_json() for tree in grown}


@pytest.mark.parametrize("api", ["completions", "chat"])
@pytest.mark.parametrize("owner", ["somebody", "vllm"])
def test_trees_are_the_same_where_one_answer_in_ten_is_bad(owner: str, api: Any) -> None:
    with serving_badly(writes) as server:
        server.owner, server.every = owner, 0
        good, failed = grow(server, 25, api=api)
        assert not failed
        server.every = 10
        bad, failed = grow(server, 25, api=api)
        assert not failed
        assert len(server.spoilt) > 5
    assert values(bad) == values(good)


@pytest.mark.parametrize("kind", SPOILS)
def test_every_kind_of_bad_answer_is_asked_for_again(kind: str) -> None:
    with serving_badly(writes, spoils={kind: SPOILS[kind]}) as server:
        server.every = 0
        good, _ = grow(server, 2)
        server.every = 3
        bad, failed = grow(server, 2)
        assert len(server.spoilt) > 2
    assert not failed
    assert values(bad) == values(good)


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_where_it_is_not_asked_for_again_that_problem_fails_and_the_others_are_finished(api: Any) -> None:
    spoils = {kind: SPOILS[kind] for kind in ("cut JSON", "an HTML page", "an overload error inside")}
    with serving_badly(writes, spoils=spoils) as server:
        server.every = 0
        good, _ = grow(server, 15, api=api)
        server.every = 15
        finished, failed = grow(server, 15, api=api, retries=0)
    assert 2 < len(failed) < 15
    assert len(finished) + len(failed) == 15
    assert values(finished).items() <= values(good).items()
    for error in failed.values():
        assert server.url in str(error)
        assert "attempt 1 was the last" in str(error)
        assert "\n" not in str(error)
    assert any("The engine is overloaded" in str(error) for error in failed.values())


def test_text_that_may_be_doubled_is_never_taken_at_once() -> None:
    with serving_badly(writes, spoils={"an event twice": SPOILS["an event twice"]}) as server:
        server.every = 0
        good, _ = grow(server, 15)
        server.every = 15
        finished, failed = grow(server, 15, retries=0)
    assert failed
    assert len(finished) + len(failed) == 15
    assert values(finished).items() <= values(good).items()
    assert all("sent an event twice; attempt 1 was the last" in str(error) for error in failed.values())


def run(server: BadServer, folder: Path, server_options: Any) -> dict[str, Any]:
    source = folder / "problems.jsonl"
    source.parent.mkdir(exist_ok=True)
    rows = [{"question": f"Problem {number}:", "answer": "#### 1"} for number in range(12)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = small_recipe(
        task={"name": "gsm8k", "source": str(source), "validation_fraction": 0.4},
        policy={
            "model": server.url,
            "device": "cpu",
            "sampling": {"max_step_tokens": 8, "max_steps": 3},
            "server": server_options,
        },
        problems={"train": 0, "test": 5},
        search=None,
        judge=None,
        objective=None,
        evaluation={"samples": 2, "pass_at": [1], "best_of": [], "majority": [], "search": [], "greedy": False},
    )
    return run_recipe(recipe, folder / "run", progress=Progress(Console(file=io.StringIO())))


def test_a_run_counts_the_problems_that_failed_and_tries_them_again_when_it_is_run_again(tmp_path: Path) -> None:
    def one_by_one(text: str, seed: int) -> list[str]:
        return list("one.\n####1")

    with serving_badly(one_by_one, spoils={"cut JSON": SPOILS["cut JSON"]}) as server:
        server.every = 9
        report = run(server, tmp_path, server_options={"retries": 0})
        [(stage, failed)] = report["failed"].items()
        assert stage == "evaluate-base"
        assert 0 < len(failed) < 5
        assert report["outcomes"][stage]["failed"] == len(failed)
        assert report["outcomes"][stage]["problems"] == 5 - len(failed)
        [warning] = [text for text in report["warnings"] if "failed and are missing" in text]
        assert f"{len(failed)} of 5" in warning
        assert "does not answer in JSON" in warning
        assert "different ones" not in " ".join(report["warnings"])
        assert "failed" in (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
        server.every = 0
        report = run(server, tmp_path, server_options={"retries": 0})
    assert report["failed"] == {}
    assert len(TreeStore(tmp_path / "run" / "trees" / "evaluate-base.jsonl")) == 5


# What stops everything


def test_a_server_that_answers_nothing_any_more_ends_the_work_on_all_problems() -> None:
    with serving_badly(writes, spoils={"an HTML page": SPOILS["an HTML page"]}) as server:
        server.every = 0

        async def main() -> None:
            policy = asking(server.url, sampling=SAMPLED, retries=1, concurrency=4)
            try:
                await policy.connect()
                server.every = 1
                await search_many(trees(100), lambda tree: search(policy, tree), 8)
            finally:
                await policy.close()

        with pytest.raises(GradatimError, match=r"<html>.*17th request in a row that came to nothing") as error:
            asyncio.run(main())
        assert not isinstance(error.value, ProblemError)
        assert server.answered < 60


@pytest.mark.parametrize("fault", [fail.status(401, "no key"), fail.status(404, "The model `model` does not exist.")])
def test_a_key_or_a_model_that_is_refused_ends_the_work_on_all_problems(fault: fail.Fault) -> None:
    with serving(writes) as server:

        async def main() -> None:
            policy = asking(server.url, sampling=SAMPLED)
            try:
                await policy.connect()
                server.faults = [fault] * 8
                await search_many(trees(8), lambda tree: search(policy, tree), 2)
            finally:
                await policy.close()

        with pytest.raises(GradatimError) as error:
            asyncio.run(main())
        assert not isinstance(error.value, ProblemError)
        assert server.faults


def test_an_address_of_something_else_is_said_before_anything_begins() -> None:
    with serving_badly(writes, every=1, spoils={"an HTML page": SPOILS["an HTML page"]}) as server:

        async def main() -> None:
            policy = asking(server.url, model="model", retries=2)
            try:
                await policy.connect()
            finally:
                await policy.close()

        with pytest.raises(GradatimError, match=r"<html>.*check that it is an OpenAI API") as error:
            asyncio.run(main())
        assert not isinstance(error.value, ProblemError)


# Counts and log-probabilities


@pytest.mark.parametrize("count", [-3, True, 10**30, [1], "12", 0, 1.5, {}])
def test_a_count_that_cannot_be_is_replaced_by_what_was_seen_and_said_once(
    count: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def with_counts(data: list[bytes]) -> list[bytes]:
        events = [json.loads(each) if each != b"[DONE]" else None for each in data]
        for event in events:
            if event and "usage" in event:
                event["usage"] = {"prompt_tokens": count, "completion_tokens": count}
        return [b"[DONE]" if event is None else json.dumps(event).encode() for event in events]

    def spoil(handler: Any, data: list[bytes]) -> None:
        handler.send_answer(with_counts(data))

    with serving_badly(writes, every=1, spoils={"counts": spoil}) as server, caplog.at_level(logging.WARNING):
        server.owner = "vllm"
        grown, failed = grow(server, 3)
        expected, _ = _uncounted(server)
    assert not failed
    assert values(grown) == values(expected)
    said = [text for text in caplog.messages if "cannot be" in text]
    assert sorted(text.split()[2] for text in said) == ["completion_tokens", "prompt_tokens"]
    assert all("what was seen is counted instead" in text for text in said)


def _uncounted(server: BadServer) -> tuple[list[Tree], dict[str, ProblemError]]:
    """What comes of the same server where it counts nothing."""
    server.every, server.shows = 0, server.shows - {"usage"}
    return grow(server, 3)


@pytest.mark.parametrize("kind", [kind for kind in SPOILS if "log-prob" in kind])
@pytest.mark.parametrize("owner", ["somebody", "vllm"])
def test_log_probabilities_that_are_none_are_unknown_where_they_never_come_otherwise(kind: str, owner: str) -> None:
    with serving_badly(writes, every=1, spoils={kind: SPOILS[kind]}) as server:
        server.owner = owner
        grown, failed = grow(server, 4)
        assert server.answered < 100  # it is found out that asking again is of no use
    assert not failed
    assert all(node.step.log_probabilities == () for tree in grown for node in tree.nodes)
    assert {leaf.step.end for tree in grown for leaf in tree.solutions()} == {EndReason.END_OF_TEXT}


# Characters


def cut_between_chunks(handler: Any, data: list[bytes]) -> None:
    """A stream whose HTTP chunks are single bytes: every character of several bytes is cut."""
    if not handler._streams:
        handler.send_answer(data)
        return
    fail.Handler.begin_stream(handler)
    for each in data:
        event = b"data: " + (each if each == b"[DONE]" else _plain(each)) + b"\n\n"
        for place in range(len(event)):
            handler.wfile.write(b"1\r\n" + event[place : place + 1] + b"\r\n")
            handler.wfile.flush()
    fail.Handler.end_stream(handler)


def _plain(data: bytes) -> bytes:
    """JSON without escapes."""
    return json.dumps(json.loads(data), ensure_ascii=False).encode()


def cut_between_events(*, escaped: bool) -> Spoil:
    """A stream that sends the parts of a character with two events: bytes, or the two halves of JSON's escapes."""

    def parts(text: str) -> list[str]:
        for place, character in enumerate(text):
            if ord(character) > 0xFFFF or (not escaped and not character.isascii()):
                coding = ("utf-16-be", "surrogatepass") if escaped else ("utf-8", "surrogateescape")
                content = character.encode(coding[0])
                middle = len(content) // 2
                halves = [content[:middle].decode(*coding), content[middle:].decode(*coding)]
                return [text[:place] + halves[0], halves[1] + text[place + 1 :]]
        return [text]

    def spoil(handler: Any, data: list[bytes]) -> None:
        sent: list[bytes] = []
        for each in data:
            event = None if each == b"[DONE]" or not handler._streams else json.loads(each)
            if not event or len(event["choices"]) != 1:
                sent.append(each)
                continue
            choice = event["choices"][0]
            cut = parts(choice["text"])
            for place, text in enumerate(cut):
                last = place == len(cut) - 1
                more = {} if last else {"finish_reason": None, "logprobs": None}
                part = {**event, "choices": [{**choice, **more, "text": text}]}
                sent.append(json.dumps(part, ensure_ascii=escaped).encode("utf-8", "surrogateescape"))
        handler.send_answer(sent)

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [cut_between_chunks, cut_between_events(escaped=False), cut_between_events(escaped=True)],
    ids=["chunks", "bytes", "halves"],
)
@pytest.mark.parametrize("owner", ["somebody", "vllm"])
def test_a_character_whose_parts_come_apart_is_one_character(spoil: Spoil, owner: str) -> None:
    with serving_badly(writes, spoils={"cut": spoil}) as server:
        server.owner, server.every, server.shows = owner, 0, server.shows - {"logprobs"}
        good, _ = grow(server, 3)
        server.every = 1
        before = server.answered
        cut, failed = grow(server, 3)
        again = server.answered - before
    assert not failed
    assert [[node.step.text for node in tree.nodes] for tree in cut] == [
        [node.step.text for node in tree.nodes] for tree in good
    ]
    assert again == before  # nothing was asked for twice


def test_text_that_is_none_is_refused_and_a_part_at_the_end_is_held() -> None:
    characters = Characters()
    assert characters.add("a") == "a"
    assert characters.add("b\udcf0\udc9f") == "b"
    assert characters.add("\udc98\udc80c") == "😀c"
    assert characters.add("\ud83d") == ""
    assert characters.add("\ude00!") == "😀!"
    for broken in ("\udcff", "\udc9fa", "\ud83da", "\ude00", "\udcf0a"):
        with pytest.raises(UnicodeError):
            Characters().add(broken)
    assert Characters(held="\udcf0").finish() == "\ufffd"
    assert Characters().finish() == ""
