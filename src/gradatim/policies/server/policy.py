"""The policy behind a server: draws, budgets and nodes."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Sequence
from dataclasses import replace

from gradatim.budget import POLICY, Account
from gradatim.errors import GradatimError, ProblemError
from gradatim.policies.base import Sampling
from gradatim.policies.draws import draws_below
from gradatim.policies.server.answers import Answer
from gradatim.policies.server.client import Client
from gradatim.policies.server.division import Piece
from gradatim.policies.server.drafts import Draft, drafts_below, is_whole, most_tokens_of, tokens_of
from gradatim.policies.server.endpoint import Endpoint, Question
from gradatim.policies.server.failures import ContextError
from gradatim.policies.server.options import ServerOptions
from gradatim.policies.server.turns import Turns
from gradatim.text.prompts import ChatFormat
from gradatim.tree import EndReason, Node, Tree


class ServerPolicy:
    """Expands trees with a model behind any OpenAI-compatible server; steps are text steps.

    *Where a step ends* is exact with every server. vLLM and SGLang say which stop string ended a choice, so all draws
    of a node are one request that stops at the step's end (one each where the tree has a budget). Other servers do not
    tell a stop string from the end of the text, and some boundaries have no strings; then answers are streamed, one
    request a draw, without stop strings, and cut here: the stream is closed at the boundary. Rollouts are streamed
    whole and divided here.

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
    before anything is written. Generated tokens are charged in the order of draws, as if each draw were written to its
    end before the next one begins: the draw in which the budget ends is cut off there, and those after it have no
    results. Requests are sent at once all the same, each for as many tokens as the budget may still have for it, and
    each draw of a limited tree is a request of its own. What turns out to lie beyond the budget is thrown away and not
    charged, but the server has written it nevertheless; with ``concurrency=1`` there is nothing of the kind. Since an
    answer cannot be cut off at a token here, the draw in which the budget ends is asked for once more, with what is
    left. So limited trees do not depend on what is under way, as far as the server answers the same request alike.

    The number of tokens is the server's (``usage``); of a stream that is cut here, its log-probabilities show the
    tokens, and without those each of its events counts as one. What a server still wrote when its stream was closed,
    and what was lost with an answer that broke off, does not count. A count that cannot be is replaced by what was
    seen, and said once. At temperature 0 a node's draws are all alike: one is written.

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
        options: how it is asked.
        api_key: by default the environment's ``OPENAI_API_KEY``.
        sampling: the default for calls that give none.
        chat: system prompt and examples of the conversation.
        require_log_probabilities: raise an error where a step has none.
        account: what trees are charged to.

    Raises:
        ProblemError: when the policy is used: if a request comes to nothing, and others may not.
        GradatimError: if the URL is wrong. When the policy is used: if the server cannot be reached,
            refuses, or does not answer as it must; the message names the URL and says what to do.
    """

    def __init__(
        self,
        url: str,
        options: ServerOptions = ServerOptions(),  # noqa: B008 (frozen)
        *,
        api_key: str | None = None,
        sampling: Sampling | None = None,
        chat: ChatFormat | None = None,
        require_log_probabilities: bool = False,
        account: Account = POLICY,
    ) -> None:
        if chat is not None and options.api == "completions":
            raise GradatimError(
                "a chat format needs chat completions; leave chat out or use api='chat'", options=("chat", "api='chat'")
            )
        self.account = account
        self.sampling = Sampling() if sampling is None else sampling
        self._endpoint = Endpoint(
            Client(url, options, api_key or os.environ.get("OPENAI_API_KEY")),
            model=options.model,
            api=options.api,
            chat=chat,
            require_log_probabilities=require_log_probabilities,
        )
        self._all_turns: weakref.WeakKeyDictionary[Tree, Turns] = weakref.WeakKeyDictionary()
        self._unwanted: set[asyncio.Task[None]] = set()  # requests under way for what lies beyond a budget
        self._concurrency = options.concurrency
        self._slots = asyncio.Semaphore(options.concurrency)
        self._room_loop: asyncio.AbstractEventLoop | None = None  # whose semaphore it is

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
        self._all_turns.pop(tree, None)

    async def close(self) -> None:
        """Close the connections to the server; the policy can be used again."""
        await _stop([task for task in self._unwanted if task.get_loop() is asyncio.get_running_loop()])
        await self._endpoint.client.close()

    async def extend(
        self,
        nodes: Sequence[Node],
        n: int | Sequence[int] = 1,
        *,
        steps: int | None = 1,
        sampling: Sampling | None = None,
        account: Account | None = None,
    ) -> list[Node]:
        """Continue each open node; see :class:`gradatim.policies.base.Policy`.

        What was written is added to its tree before the first error of any request is raised.
        """
        sampling = sampling or self.sampling
        account = (account or self.account).of_size(self.account.parameters)
        groups = [drafts_below(node, count, steps, sampling, account) for node, count in draws_below(nodes, n, steps)]
        by_tree: dict[Tree, list[list[Draft]]] = {}
        for drafts in groups:
            by_tree.setdefault(drafts[0].node.tree, []).append(drafts)
        tasks = [asyncio.ensure_future(self._write_all(tree, its)) for tree, its in by_tree.items()]
        try:
            await asyncio.gather(*tasks)
        finally:
            await _stop(tasks)
        drafted = [draft for drafts in groups for draft in drafts]
        leaves = [
            self._attach(draft, key)
            for draft in drafted
            if draft.error is None and draft.division.steps
            for key in draft.keys
        ]
        errors = [draft.error for draft in drafted if draft.error is not None]
        if errors:
            raise next((error for error in errors if not isinstance(error, ProblemError)), errors[0])
        return leaves

    def _attach(self, draft: Draft, key: int) -> Node:
        """Add what a draft wrote below its node; returns the last step's node."""
        tree, node = draft.node.tree, draft.node
        first: int | None = key
        for step, tokens in draft.division.steps:
            node = tree.add(node, replace(step, source=self.source), key=first)
            self._turns(tree).paths.mark_written(node, tokens, draft.account)
            first = None
        return node

    async def _write_all(self, tree: Tree, groups: Sequence[Sequence[Draft]]) -> None:
        """Write one call's drafts of a tree, in groups of one node each, and charge them.

        What must be read is paid for before anything is written. In a limited tree it is paid for when all that was
        asked for before is charged, so that it is always the same that the budget reaches.
        """
        turns = self._turns(tree)
        tasks: list[asyncio.Task[None]] = []
        payable: list[Draft] = []
        try:
            async with turns.lining_up():
                for drafts in groups:
                    if await self._read(drafts, turns):
                        payable.extend(drafts)
                        if not turns.limited:
                            turns.ask(drafts)
                            tasks.append(asyncio.ensure_future(self._write_group(drafts, turns)))
                if turns.limited:
                    turns.ask(payable)
            if turns.limited:
                tasks.extend(asyncio.ensure_future(self._write_in_turn(draft, turns)) for draft in payable)
            await turns.until_settled(payable, tasks)
        except BaseException:
            turns.withdraw(payable)
            await _stop(tasks)
            raise
        for task in tasks:
            if not task.done():  # it lies beyond the budget, and ends as soon as its request does
                self._unwanted.add(task)
                task.add_done_callback(self._unwanted.discard)

    async def _read(self, drafts: Sequence[Draft], turns: Turns) -> bool:
        """Pay for what the policy reads for the first time below the drafts' node; ``False`` if the budget cannot, or
        nobody says how much it is."""
        node, account = drafts[0].node, drafts[0].account
        try:
            await self._endpoint.connect()
            if self._endpoint.kind.many:  # their choices have seeds one after the other
                for index, draft in enumerate(drafts):
                    draft.seed = drafts[0].keys[0] + index
            if not turns.paths.unknown(node, account):
                return True
            if turns.limited:
                await turns.all_charged()
            tokens = await self._endpoint.count(node.tree.problem, node.text)
            return turns.paths.charge(node, tokens, account)
        except GradatimError as error:
            for draft in drafts:
                draft.error = error
            return False

    async def _write_group(self, drafts: Sequence[Draft], turns: Turns) -> None:
        """Write the drafts of a node of a tree without a limit, in one request where the server can."""
        first = drafts[0]
        to_its_end = not first.one_step or bool(first.sampling.boundary.stop_strings)  # the server ends each choice
        if self._endpoint.kind.many and to_its_end and len(drafts) > 1:
            try:
                await self._round(drafts)
            except GradatimError as error:
                for draft in drafts:
                    draft.error = error
        await asyncio.gather(*(self._write_freely(draft, turns) for draft in drafts))

    async def _write_freely(self, draft: Draft, turns: Turns) -> None:
        """Write and charge a draft of a tree without a limit, in as many requests as it takes."""
        try:
            while not draft.has_all:
                await self._round([draft])
        except GradatimError as error:
            draft.error = error
        turns.charge(draft)

    async def _write_in_turn(self, draft: Draft, turns: Turns) -> None:
        """Write a draft of a limited tree, and charge it when it is its turn.

        Only then it is known how many tokens are left for it. If it was not asked for with as many and is longer, it
        is written again: its answer cannot be cut off at a token.
        """
        await self._write_ahead(draft, turns)
        await turns.turn_of(draft)
        if draft.settled:
            return
        left = turns.left
        if left is not None and not draft.is_what_it_would_be(left):
            draft.begin_again()
            turns.update()
            await self._write_ahead(draft, turns)
        turns.charge(draft)

    async def _write_ahead(self, draft: Draft, turns: Turns) -> None:
        """Write a draft of a limited tree as far as the budget may reach, once it is likely to reach it.

        What it may have is looked at when the request can be sent, so that those that wait for room do not ask for
        what others have used up meanwhile.
        """
        try:
            while not draft.has_all and not draft.settled:
                await turns.likely(draft)
                async with self._room():
                    if draft.begins and not draft.settled:
                        await self._round([draft])
                        turns.update()
        except GradatimError as error:
            if not draft.settled:
                draft.error = error
                turns.update()

    def _room(self) -> asyncio.Semaphore:
        """Room for requests for limited trees: as many as are under way at a time."""
        loop = asyncio.get_running_loop()
        if self._room_loop is not loop:
            self._room_loop, self._slots = loop, asyncio.Semaphore(self._concurrency)
        return self._slots

    async def _round(self, drafts: Sequence[Draft]) -> None:
        """One request for drafts that are as far as each other."""
        first = drafts[0]
        wanted = granted = first.wanted
        if first.allowed is not None:
            granted = min(wanted, first.allowed - first.written)
            if granted <= 0:
                first.bound = first.stopped = True
                return
        question = first.question(granted)
        try:
            answers, counted = await self._endpoint.ask(question, [draft.division for draft in drafts])
        except ContextError as error:
            self._ask_for_less(first, granted, error)
            return
        if first.settled:
            return
        if any(answer.finish is None for answer in answers):
            counted = None  # the count is of what was written when the stream was cut, if it is there at all
        whole = all(is_whole(*each) for each in zip(drafts, answers, strict=True))
        tokens = [tokens_of(*each, granted, counted) for each in zip(drafts, answers, strict=True)]
        surplus = counted - sum(tokens) if whole and counted is not None else 0  # was written and not shown
        for draft, answer, own in zip(drafts, answers, tokens, strict=True):
            cost = max(0, own + surplus)
            surplus -= cost - own
            known = answer.known or (whole and counted is not None and len(drafts) == 1)
            most = most_tokens_of(answer, granted, cost + answer.division.behind, known=known)
            before = draft.division.tokens
            if self._accept(draft, answer, own, question, bound=granted < wanted):
                if draft.division.dropped:  # the server counted what turned out to be no part of the solution
                    cost = draft.division.tokens - before
                draft.reach = draft.written + granted
                draft.most = max(draft.most, draft.written + most)
                draft.written += cost

    def _accept(self, draft: Draft, answer: Answer, tokens: int, question: Question, *, bound: bool) -> bool:
        """Make an answer part of its draft; ``False`` if nothing came or it is not known how it ended.

        Args:
            draft: what is continued.
            answer: how it goes on.
            tokens: of the answer.
            question: what was asked.
            bound: whether it asks for less than the draft wanted, since the budget has no more.
        """
        if not answer.closed:
            return False
        end = None if answer.division.done else self._endpoint.end_of(answer, question)
        if end is None and not answer.division.done:
            return False
        draft.rounds += 1
        draft.division = answer.division
        draft.tokens += max(tokens, end is EndReason.BOUNDARY)  # a stop string that is not shown is a token at least
        draft.bound |= bound and answer.finish == "length"
        if end is EndReason.BOUNDARY:
            draft.division.add(Piece(answer.ended_by, 0, ()))
            if draft.tokens >= draft.limit:
                draft.division.finish(EndReason.LENGTH)
        elif end is EndReason.END_OF_TEXT:
            draft.division.finish(end)
        elif end is EndReason.LENGTH:
            ended_before = answer.finish != "length" or tokens < question.max_tokens  # by a filter, or a full context
            if ended_before or draft.tokens >= draft.limit:
                draft.division.finish(end)
            else:
                draft.stopped = bound
        if draft.division.done:
            self._endpoint.check_log_probabilities(step for step, _ in draft.division.steps)
        return True

    def _ask_for_less(self, draft: Draft, refused: int, error: ContextError) -> None:
        """Go on with half as many tokens as did not fit the context; a draft for which there is no room is cut off."""
        draft.refused = max(draft.refused, draft.written + refused)
        if refused > 1:
            draft.most_tokens = refused // 2
        elif draft.division.text:
            draft.division.finish(EndReason.LENGTH)
        else:
            raise error

    def _turns(self, tree: Tree) -> Turns:
        turns = self._all_turns.get(tree)
        if turns is None:
            turns = self._all_turns[tree] = Turns(tree)
        return turns


async def _stop(tasks: Sequence[asyncio.Future[None]]) -> None:
    """Cancel what still runs, and wait until it has let go."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
