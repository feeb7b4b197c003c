"""The policy behind a server: draws, budgets and nodes."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gradatim.errors import GradatimError, ProblemError
from gradatim.policies.allowance import Allowance
from gradatim.policies.base import Sampling
from gradatim.policies.draws import distinct_draws
from gradatim.policies.prompts import ChatFormat
from gradatim.policies.server.answers import Answer
from gradatim.policies.server.client import Client
from gradatim.policies.server.division import Division, Look, Piece
from gradatim.policies.server.endpoint import Api, Endpoint, Question
from gradatim.policies.server.failures import ContextError
from gradatim.tasks.solution_end import Ending
from gradatim.tree import EndReason, Node, Tree

_UNBOUNDED = 1 << 62


@dataclass(slots=True)
class Draft:
    """One continuation of a node that is being written.

    Attributes:
        node: what it continues.
        keys: of the draws that it stands for; several where all would be the same.
        sampling: how it is sampled.
        one_step: whether it ends with its first step.
        limit: tokens after which it is cut off.
        division: its steps so far.
        tokens: written so far, as the server counts them.
        rounds: requests so far.
        most_tokens: that fit the context in one request, as far as it is known.
    """

    node: Node
    keys: list[int]
    sampling: Sampling
    one_step: bool
    limit: int
    division: Division
    tokens: int = 0
    rounds: int = 0
    most_tokens: int = _UNBOUNDED

    def question(self, max_tokens: int) -> Question:
        """The next request for it."""
        return Question(
            problem=self.node.tree.problem,
            solution=self.node.text + self.division.text,
            max_tokens=max_tokens,
            sampling=self.sampling,
            seed=(self.keys[0] + self.rounds) % 2**31,
            one_step=self.one_step,
        )


class ServerPolicy:
    """Expands trees with a model behind any OpenAI-compatible server; steps are text steps.

    *Where a step ends* is exact with every server. vLLM and SGLang say which stop string ended a choice, so all draws
    of a node are one request that stops at the step's end. Other servers do not tell a stop string from the end of
    the text; their answers are streamed, one request a draw, without stop strings, and cut here: the stream is closed
    at the boundary. Rollouts are streamed whole and divided here.

    *The APIs.* Completions (the default) continue the prompt's text; every server that has them can do it. Chat
    completions put the problem as a conversation in the model's own template, and the solution so far as a partial
    message of the assistant, to be continued (``continue_final_message``): vLLM, SGLang and llama.cpp (from May 2026)
    do that; OpenAI's own and transformers' servers refuse it, which is an error here. Others ignore it and begin the
    answer anew, which shows only where they repeat the solution; that is an error too. So is a chat template that takes
    blank characters off a message (Llama 3's and Gemma's do): the model would not continue what was written. It shows
    in the server's counts of tokens, and without those where an answer begins with the line break that was there.

    *Bad answers.* What is no JSON, has another form than OpenAI's, reports an error or breaks off is asked for again,
    as after a status of 500. Where that does not help ``retries`` times, a :class:`~gradatim.errors.ProblemError` says
    what the server said, and the other problems go on; a refused key, an unknown model and a server that is gone end
    the work on all. An answer that can be read and seems flawed is asked for again twice, and then taken as it is: one
    with an event that came twice, with a log-probability that is none (above 0, or no finite number), or without a
    reason for its end. Where it cannot be asked for so often, the first kind is a failure. That an event came twice is
    seen where log-probabilities come with the tokens.

    *The budget.* The tokens of a prompt are counted once for each tree by a request for a single token, and paid for
    before anything is written. Generated tokens are paid for as far as a request permits them, and given back if they
    were not written. Their number is the server's (``usage``); of a stream that is cut here, its log-probabilities show
    the tokens, and without those each of its events counts as one. What a server still wrote when its stream was
    closed, and what was lost with an answer that broke off, does not count. A count that cannot be is replaced by what
    was seen, and said once. At temperature 0 a node's draws are all
    alike: one is written.

    *The model's name* in an answer may be another than was asked for, as with a proxy's aliases; that is said once. It
    is an error where the server's list has both as models of their own.

    *Log-probabilities* are recorded where the server sends one for every token of a step. They are the model's own
    (temperature 1, nothing truncated) with vLLM, SGLang and llama.cpp as they are by default; other servers may mean
    something else by them.

    *Reproducible* draws need a server that honours ``seed``; the seeds depend on the tree's seed and the place in the
    tree only. What vLLM, SGLang and llama.cpp would do to the distribution unasked (a model's generation settings,
    default truncation) is switched off. transformers' server samples only where the model's generation settings say
    ``do_sample``, whatever the temperature.

    Args:
        url: of the server, e.g. ``http://127.0.0.1:8000/v1``.
        model: its name there; ``None`` takes the server's only model.
        api: ``auto`` is chat where ``chat`` is given or the server has no completions, else completions.
        api_key: by default the environment's ``OPENAI_API_KEY``.
        sampling: the default for calls that give none.
        chat: system prompt and examples of the conversation.
        require_log_probabilities: raise an error where a step has none.
        concurrency: requests under way at a time.
        requests_per_minute: requests are sent at least so far apart.
        timeout: the longest silence within an answer, in seconds.
        retries: how often a request is sent again after a failure that may pass. A server that never answered and
            takes no connection is not tried again.

    Raises:
        ProblemError: when the policy is used: if a request comes to nothing, and others may not.
        GradatimError: if the URL or a number is wrong. When the policy is used: if the server cannot be reached,
            refuses, or does not answer as it must; the message names the URL and says what to do.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        api: Api = "auto",
        api_key: str | None = None,
        sampling: Sampling | None = None,
        chat: ChatFormat | None = None,
        require_log_probabilities: bool = False,
        concurrency: int = 16,
        requests_per_minute: float | None = None,
        timeout: float = 120.0,
        retries: int = 6,
    ) -> None:
        if chat is not None and api == "completions":
            raise GradatimError(
                "a chat format needs chat completions; leave chat out or use api='chat'", options=("chat", "api='chat'")
            )
        self.sampling = Sampling() if sampling is None else sampling
        client = Client(
            url,
            api_key=api_key or os.environ.get("OPENAI_API_KEY"),
            concurrency=concurrency,
            requests_per_minute=requests_per_minute,
            timeout=timeout,
            retries=retries,
        )
        self._endpoint = Endpoint(
            client, model=model, api=api, chat=chat, require_log_probabilities=require_log_probabilities
        )
        self._allowances: weakref.WeakKeyDictionary[Tree, Allowance] = weakref.WeakKeyDictionary()
        self._most_tokens = _UNBOUNDED  # what the server takes in one request, once it has refused more

    @property
    def model(self) -> str | None:
        """The model's name; ``None`` until the server was asked for its only one."""
        return self._endpoint.model

    @property
    def source(self) -> str:
        """What the policy calls itself on the steps that it writes: the model's name at the server."""
        return f"server:{self.model}"

    async def connect(self) -> None:
        """Ask the server for its models and for one token, so that what is wrong is said before a search begins.

        Raises:
            GradatimError: if there is no server, no API or no such model, or the key is refused; names the models
                that there are.
        """
        await self._endpoint.try_out()

    def release(self, tree: Tree) -> None:
        """Forget what is kept of a tree that is done."""
        self._allowances.pop(tree, None)

    async def close(self) -> None:
        """Close the connections to the server; the policy can be used again."""
        await self._endpoint.client.close()

    async def expand(self, nodes: Sequence[Node], n: int, sampling: Sampling | None = None) -> list[Node]:
        """Propose ``n`` steps below each open node; see :class:`gradatim.policies.base.Policy`."""
        return list(dict.fromkeys(await self._continue(nodes, n, sampling or self.sampling, one_step=True)))

    async def rollout(self, nodes: Sequence[Node], n: int, sampling: Sampling | None = None) -> list[Node]:
        """Complete ``n`` solutions below each open node; see :class:`gradatim.policies.base.Policy`."""
        return await self._continue(nodes, n, sampling or self.sampling, one_step=False)

    async def _continue(self, nodes: Sequence[Node], n: int, sampling: Sampling, *, one_step: bool) -> list[Node]:
        """Continue each open node ``n`` times; returns the last node of each continuation, in the order of draws.

        What was written is added to its tree before the first error of any request is raised.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        groups = [_drafts(node, n, sampling, one_step=one_step) for node in nodes if node.open]
        tasks = [asyncio.ensure_future(self._write_group(drafts)) for drafts in groups]
        try:
            written = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        leaves: list[Node] = []
        for drafts, outcomes in zip(groups, written, strict=True):
            for draft, outcome in zip(drafts, outcomes, strict=True):
                if outcome is None and draft.division.steps:
                    leaves.extend(self._attach(draft, key) for key in draft.keys)
        errors = [outcome for outcomes in written for outcome in outcomes if outcome is not None]
        if errors:
            raise next((error for error in errors if not isinstance(error, ProblemError)), errors[0])
        return leaves

    def _attach(self, draft: Draft, key: int) -> Node:
        """Add what a draft wrote below its node; returns the last step's node."""
        tree, node = draft.node.tree, draft.node
        first: int | None = key
        for step, tokens in draft.division.steps:
            node = tree.add(node, replace(step, source=self.source), key=first)
            self._allowance(tree).mark_written(node, tokens)
            first = None
        return node

    async def _write_group(self, drafts: Sequence[Draft]) -> list[Exception | None]:
        """Write the drafts of one node; returns the error of each, if any."""
        node = drafts[0].node
        allowance = self._allowance(node.tree)
        try:
            await self._endpoint.connect()
            if not await self._read(node, allowance):
                return [None] * len(drafts)
            allowance.wait_for(len(drafts))
            if self._endpoint.kind.many and len(drafts) > 1:
                await self._round(drafts, allowance)
                allowance.wait_for(sum(not draft.division.done for draft in drafts))
        except GradatimError as error:
            return [error] * len(drafts)
        outcomes = await asyncio.gather(*(self._write(draft, allowance) for draft in drafts), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None and not isinstance(outcome, GradatimError):
                raise outcome
        return [outcome if isinstance(outcome, GradatimError) else None for outcome in outcomes]

    async def _read(self, node: Node, allowance: Allowance) -> bool:
        """Pay for what the policy reads for the first time; ``False`` if the budget cannot."""
        async with allowance.reading:
            if not allowance.unknown(node):
                return True
            return allowance.charge(node, await self._endpoint.count(node.tree.problem, node.text))

    async def _write(self, draft: Draft, allowance: Allowance) -> None:
        """Write a draft to its end, in as many requests as it takes."""
        while not draft.division.done:
            await self._round([draft], allowance)
            if not draft.division.done:
                allowance.wait_for(1)

    async def _round(self, drafts: Sequence[Draft], allowance: Allowance) -> None:
        """One request for drafts that are as far as each other."""
        first = drafts[0]
        wanted = min(first.limit - first.tokens, first.most_tokens, self._most_tokens)
        granted = await allowance.reserve(max(1, wanted), len(drafts))
        if granted == 0:
            if len(drafts) == 1:
                first.division.finish(EndReason.BUDGET)
            return
        written = 0
        question = first.question(granted)
        try:
            answers, counted = await self._endpoint.ask(question, [draft.division for draft in drafts])
            if any(answer.finish is None for answer in answers):
                counted = None  # the count is of what was written when the stream was cut, if it is there at all
            tokens = [_tokens_of(*each, granted, counted) for each in zip(drafts, answers, strict=True)]
            written = sum(tokens) if counted is None else counted
            before = [draft.division.tokens for draft in drafts]
            for draft, answer, own in zip(drafts, answers, tokens, strict=True):
                self._accept(draft, answer, own, question)
            if any(draft.division.dropped for draft in drafts):  # the server counted what is no part of a solution
                written = sum(draft.division.tokens for draft in drafts) - sum(before)
        except ContextError as error:
            self._ask_for_less(first, granted, error)
        finally:
            allowance.settle(granted * len(drafts), written)

    def _accept(self, draft: Draft, answer: Answer, tokens: int, question: Question) -> None:
        """Make an answer part of its draft, unless nothing came or it is not known how it ended."""
        draft.rounds += 1
        if not answer.closed:
            return
        end = None if answer.division.done else self._endpoint.end_of(answer, question)
        if end is None and not answer.division.done:
            return
        draft.division = answer.division
        draft.tokens += tokens
        if end is EndReason.BOUNDARY:
            draft.division.add(Piece(answer.ended_by, 0, ()))
        elif end is EndReason.END_OF_TEXT:
            draft.division.finish(end)
        elif end is EndReason.LENGTH:
            ended_before = answer.finish != "length" or tokens < question.max_tokens  # by a filter, or a full context
            if ended_before or draft.tokens >= draft.limit:
                draft.division.finish(end)
        if draft.division.done:
            self._endpoint.check_log_probabilities(step for step, _ in draft.division.steps)

    def _ask_for_less(self, draft: Draft, refused: int, error: ContextError) -> None:
        """Go on with half as many tokens as did not fit the context; a draft for which there is no room is cut off."""
        if refused > 1:
            draft.most_tokens = refused // 2
            if draft.most_tokens >= draft.sampling.max_step_tokens:
                self._most_tokens = draft.most_tokens
        elif draft.division.text:
            draft.division.finish(EndReason.LENGTH)
        else:
            raise error

    def _allowance(self, tree: Tree) -> Allowance:
        return self._allowances.setdefault(tree, Allowance(tree.budget))


def _drafts(node: Node, n: int, sampling: Sampling, *, one_step: bool) -> list[Draft]:
    """The drafts for ``n`` draws below ``node``; one stands for all where they are alike."""
    room = 1 if one_step else max(1, sampling.max_steps - node.depth)
    closing = EndReason.BOUNDARY if one_step and node.depth + 1 < sampling.max_steps else EndReason.STEPS
    return [
        Draft(
            node=node,
            keys=shared,
            sampling=sampling,
            one_step=one_step,
            limit=room * sampling.max_step_tokens,
            division=Division(sampling.step_end, sampling.max_step_tokens, room, closing, _look(node, sampling)),
        )
        for shared in distinct_draws(node, n, sampling)
    ]


def _look(node: Node, sampling: Sampling) -> Look | None:
    """Where a solution that goes on below ``node`` ends within what is written there."""
    rules, problem, before = sampling.solution_end, node.tree.problem, node.text

    def look(text: str, added: str | None) -> Ending | None:
        if added is not None and not rules.may_end(added):
            return None
        ending = rules.find(problem, before + text, cut_off=added is None)
        if ending is None:
            return None
        return Ending(ending.reason, ending.length - len(before), ending.seen - len(before))

    return look if rules else None


def _tokens_of(draft: Draft, answer: Answer, granted: int, counted: int | None) -> int:
    """The tokens of one of a request's answers, of whose tokens ``counted`` were counted in all.

    A server that says it stopped for the length wrote all that it was permitted, however few events it sent.
    """
    shown = answer.division.tokens - draft.division.tokens
    if answer.finish == "length" and not answer.division.done:
        return granted if counted is None else min(counted, granted)
    return shown
