"""vLLM in this process, behind the interface of a policy."""

from __future__ import annotations

import asyncio
import importlib
import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import PreTrainedTokenizerBase

from gradatim.budget import POLICY, Account
from gradatim.engine.loading import load_tokenizer
from gradatim.engine.too_long import TooLong
from gradatim.errors import GradatimError
from gradatim.models import resolve_model
from gradatim.policies.base import Sampling
from gradatim.policies.draws import distinct_draws, draws_below, steps_to_write
from gradatim.policies.paid_paths import PaidPaths
from gradatim.policies.spending_order import SpendingOrder
from gradatim.text.prompts import ChatFormat
from gradatim.text.solution_end import opens_thought
from gradatim.text.step_text import CONTEXT_TOKENS, Mark, StepText
from gradatim.text.transcript import Transcript, own_tokens, take_up
from gradatim.tree import EndReason, Node, Step, Tree

_ROUND_TOKENS = 256  # a round lasts as long as its longest request, so none asks for more
_GATHERING_TURNS = 8  # of the event loop, in which searches that were waiting together ask together again


@dataclass(slots=True)
class Draft:
    """One continuation of a node that is being written.

    Attributes:
        node: what it continues.
        read: the same in vLLM's tokens: itself, or its counterpart where the tree has text steps.
        keys: of the draws that it stands for; several where all of them are alike.
        sampling: how it is sampled.
        account: what it is charged to.
        one_step: whether one step is asked for.
        room: how many more steps may be written.
        closing: why the last of those steps ends, if it ends at a boundary.
        path: the tokens of the node's path.
        solution: the text of the node's path, from below the root.
        thinking: whether the prompt opens a thought.
        steps: the steps that are complete.
        tokens: of the step that is being written.
        log_probabilities: one for each of them.
        rounds: requests so far.
        done: whether nothing more is to be written.
        ends_seen: how many tokens were written when the end of each of the steps was known.
        surplus: the steps and the step under way before the tokens behind the last step's end, or a next problem, were
            dropped from them.
        allowed, begins: see :class:`gradatim.policies.spending_order.Writer`.
    """

    node: Node
    read: Node
    keys: list[int]
    sampling: Sampling
    account: Account
    one_step: bool
    room: int
    closing: EndReason
    path: list[int]
    solution: str
    thinking: bool
    steps: list[Step] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    rounds: int = 0
    done: bool = False
    ends_seen: list[int] = field(default_factory=list)
    surplus: list[Step] | None = None
    allowed: int | None = None
    begins: bool = True

    @property
    def so_far(self) -> list[int]:
        """The tokens of the node's path and of all that was written after it."""
        return [*self.path, *(token for step in self.steps for token in step.tokens), *self.tokens]

    @property
    def all_written(self) -> list[Step]:
        """All that was written, what was dropped since included; the last one may be a step under way."""
        under_way = [Step(tuple(self.tokens), "", tuple(self.log_probabilities))] if self.tokens else []
        return [*(self.steps if self.surplus is None else self.surplus), *under_way]

    @property
    def written(self) -> int:
        return sum(len(step.tokens) for step in self.all_written)

    @property
    def may_drop(self) -> bool:
        return self.sampling.may_drop

    def cut(self, tokens: int) -> None:
        """Take back what was written beyond so many tokens, and whatever that said of the solution's end."""
        known = sum(seen <= tokens for seen in self.ends_seen)
        steps = self.all_written
        whole = sum(len(step.tokens) for step in steps[:known])
        rest = [pair for step in steps[known:] for pair in zip(step.tokens, step.log_probabilities, strict=True)]
        self.steps, self.done, self.surplus = steps[:known], False, None
        del self.ends_seen[known:]
        self.tokens = [token for token, _ in rest[: tokens - whole]]
        self.log_probabilities = [value for _, value in rest[: tokens - whole]]


@dataclass(slots=True)
class Request:
    """What one draft asks of the next round: tokens to continue, vLLM's sampling parameters, and where its
    ``CompletionOutput`` goes."""

    tokens: list[int]
    parameters: Any
    done: asyncio.Future[Any]


class VllmPolicy:
    """Expands trees with vLLM.

    Tokens go in and tokens come out, so steps carry true tokens, and log-probabilities under the model itself
    (temperature 1, nothing truncated: vLLM's ``raw_logprobs``). What all running searches wait for is one call of
    ``LLM.generate`` a round, in a thread of its own; vLLM's prefix cache holds the paths. A round ends with its longest
    request, so rollouts are written in rounds of at most 256 tokens.

    A step ends with the token that completes a boundary, as in :class:`TransformersPolicy`; steps and budgets are the
    same with both. Every draw has a seed of its own, from its tree's seed and its place in the tree, so draws are
    reproducible as far as vLLM's kernels are (see vLLM's ``VLLM_BATCH_INVARIANT``). What vLLM wrote after the end of a
    step, after a rollout's last permitted step (at most a round) or beyond the budget is dropped and does not count.

    Args:
        llm: a ``vllm.LLM`` with prefix caching and ``logprobs_mode="raw_logprobs"``; :meth:`from_pretrained` makes one.
        tokenizer: its model's tokenizer; it must have an end token.
        sampling: the default for calls that give none.
        chat: put problems as a conversation in the tokenizer's chat template; by default they are plain text.
        account: what trees are charged to.

    Raises:
        GradatimError: if vLLM is not installed or the tokenizer has no end token.
    """

    def __init__(
        self,
        llm: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        sampling: Sampling | None = None,
        chat: ChatFormat | None = None,
        account: Account = POLICY,
    ) -> None:
        self._sampling_parameters = _vllm().SamplingParams
        self.llm = llm
        self.tokenizer = tokenizer
        self.sampling = Sampling() if sampling is None else sampling
        self.chat = chat
        self.account = account
        model = llm.llm_engine.model_config
        self._text = StepText(SimpleNamespace(config=model.hf_config), tokenizer)
        self._positions = int(model.max_model_len)
        self.too_long = TooLong("the policy's model reads and writes", self._positions, "stays unexpanded")
        self._transcript = Transcript(own_tokens(tokenizer, chat))
        self.source = f"vllm:{Path(str(model.hf_config.name_or_path)).name}"
        self._read: weakref.WeakKeyDictionary[Tree, PaidPaths] = weakref.WeakKeyDictionary()
        self._orders: weakref.WeakKeyDictionary[Tree, SpendingOrder[Draft]] = weakref.WeakKeyDictionary()
        self._waiting: list[Request] = []
        self._pump: asyncio.Task[None] | None = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        sampling: Sampling | None = None,
        chat: ChatFormat | None = None,
        account: Account = POLICY,
        **engine: Any,
    ) -> VllmPolicy:
        """Load a model and its tokenizer from a hub id, a local folder or ``shipped:NAME``.

        ``engine`` are options of ``vllm.LLM`` (``dtype``, ``tensor_parallel_size``, ``gpu_memory_utilization``, …).

        Raises:
            GradatimError: if vLLM is not installed, or the model or its tokenizer cannot be loaded; says why.
        """
        vllm = _vllm()
        tokenizer = load_tokenizer(name_or_path)
        name = resolve_model(str(name_or_path))
        try:
            llm = vllm.LLM(model=name, enable_prefix_caching=True, logprobs_mode="raw_logprobs", **engine)
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            raise GradatimError(f"vLLM cannot load the model {name!r}: {_first_line(error)}") from error
        return cls(llm, tokenizer, sampling=sampling, chat=chat, account=account)

    def release(self, tree: Tree) -> None:
        """Forget what is kept of a tree that is done; vLLM drops its keys and values when it needs the memory."""
        self._read.pop(tree, None)
        self._transcript.forget(tree)

    async def close(self) -> None:
        """Nothing is held between searches but vLLM's own prefix cache, which it bounds itself."""

    async def extend(
        self,
        nodes: Sequence[Node],
        n: int | Sequence[int] = 1,
        *,
        steps: int | None = 1,
        sampling: Sampling | None = None,
        account: Account | None = None,
    ) -> list[Node]:
        """Continue each open node; see :class:`gradatim.policies.base.Policy`."""
        sampling = sampling or self.sampling
        account = (account or self.account).of_size(self.account.parameters)
        drafts = [
            draft
            for node, count in draws_below(nodes, n, steps)
            if self._fits(node)
            for draft in self._drafts(node, count, steps, sampling, account)
        ]
        payable = [draft for draft in drafts if self._pays(draft)]
        for draft in payable:
            self._order(draft.node.tree).ask([draft])
        outcomes = await asyncio.gather(*map(self._write, payable), return_exceptions=True)
        leaves = [
            self._attach(draft, key)
            for draft, outcome in zip(payable, outcomes, strict=True)
            if outcome is None and draft.steps
            for key in draft.keys
        ]
        for outcome in outcomes:
            if outcome is not None:
                raise outcome
        return leaves

    def _fits(self, node: Node) -> bool:
        """Whether the model can write anything behind a node; one where it cannot is counted."""
        length = len(self._as_read(node).tokens)
        if length >= self._positions:
            self.too_long.note(node, length)
        return length < self._positions

    def _drafts(self, node: Node, n: int, steps: int | None, sampling: Sampling, account: Account) -> list[Draft]:
        read = self._as_read(node)
        path = read.tokens
        room, closing = steps_to_write(node, steps, sampling)
        thinking = opens_thought(self._text.text((), self._as_read(node.tree.root).tokens[-CONTEXT_TOKENS:]))
        return [
            Draft(node, read, keys, sampling, account, steps == 1, room, closing, path, node.text, thinking)
            for keys in distinct_draws(node, n, sampling)
        ]

    def _pays(self, draft: Draft) -> bool:
        """Charge what is read for the first time before a draft is written; returns whether the budget could pay."""
        return self._paths(draft.node.tree).charge(draft.node, len(draft.path), draft.account)

    def _paths(self, tree: Tree) -> PaidPaths:
        return self._read.setdefault(tree, PaidPaths(tree.budget))

    def _order(self, tree: Tree) -> SpendingOrder[Draft]:
        return self._orders.setdefault(tree, SpendingOrder(tree.budget, self._charged))

    def _attach(self, draft: Draft, key: int) -> Node:
        """Add what a draft wrote below its node; returns the last step's node."""
        tree, node, read = draft.node.tree, draft.node, draft.read
        first: int | None = key
        for written in draft.steps:
            step = replace(written, source=self.source)
            if read is node:
                node = read = tree.add(node, step, key=first)
            else:
                read = read.tree.add(read, step)
                node = tree.add(node, replace(step, tokens=()), key=first)
                self._transcript.note(node, read)
            self._paths(tree).mark_written(node, len(step.tokens), draft.account)
            first = None
        return node

    def _as_read(self, node: Node) -> Node:
        """The node in the tokens that vLLM reads.

        Raises:
            GradatimError: if the tree is in another tokenizer's tokens.
        """
        tree = node.tree
        if tree.has_text_steps:
            return self._transcript.followed(node)
        take_up(tree, self.tokenizer, self.chat, self._text.text)
        return node

    async def _write(self, draft: Draft) -> None:
        """Write a draft to its end, in as many rounds as it takes, and charge all whose turn it is then."""
        order = self._order(draft.node.tree)
        try:
            await self._write_steps(draft, order)
        except BaseException:
            order.withdraw([draft])
            raise
        finally:
            order.settle([draft])

    async def _write_steps(self, draft: Draft, order: SpendingOrder[Draft]) -> None:
        """Write a draft to its end, as far as the budget may reach."""
        while not draft.done:
            order.allot()
            path = draft.so_far
            longest = draft.sampling.max_step_tokens
            left = longest - len(draft.tokens) if draft.one_step else min(_ROUND_TOKENS, draft.room * longest)
            left = min(left, self._positions - len(path))
            if draft.allowed is not None:
                left = min(left, draft.allowed - draft.written)
            if left <= 0:
                self._cut_off(draft, EndReason.BUDGET)
                break
            output = await self._generate(path, self._parameters(draft, left))
            if not draft.done:  # the budget may have ended meanwhile with those before it
                self._accept(draft, output, left)

    def _charged(self, draft: Draft, allowed: int | None) -> int:
        """Cut a draft off where its budget ends; returns the tokens that it has then."""
        if not draft.done or (allowed is not None and draft.written > allowed):
            draft.cut(allowed or 0)
            self._cut_off(draft, EndReason.BUDGET)
        return sum(len(step.tokens) for step in draft.steps)

    def _parameters(self, draft: Draft, max_tokens: int) -> Any:
        sampling = draft.sampling
        stop = sampling.boundary.stop_strings if draft.one_step else ()
        return self._sampling_parameters(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or -1,
            max_tokens=max_tokens,
            seed=(draft.keys[0] + draft.rounds) % 2**31,
            logprobs=0,  # that of the chosen token alone
            stop=list(stop) or None,
            include_stop_str_in_output=bool(stop),
            detokenize=bool(stop),  # stop strings need the text, nothing else does
        )

    def _accept(self, draft: Draft, output: Any, granted: int) -> None:
        """Make a ``vllm.outputs.CompletionOutput`` part of its draft."""
        draft.rounds += 1
        tokens = list(output.token_ids)
        if output.finish_reason not in ("stop", "length") or output.logprobs is None:
            raise GradatimError(
                f"vLLM ended a request for the reason {output.finish_reason!r}, with "
                f"{'no ' if output.logprobs is None else ''}log-probabilities; look into its log"
            )
        at_stop_string = output.finish_reason == "stop" and isinstance(output.stop_reason, str)
        ended = output.finish_reason == "stop" and not at_stop_string
        marks = self._text.marks(draft.sampling.boundary, draft.sampling.solution_end)
        for place, (token, entry) in enumerate(zip(tokens, output.logprobs, strict=True)):
            draft.tokens.append(token)
            draft.log_probabilities.append(_log_probability(entry[token].logprob))
            self._end_step(draft, Mark.END_OF_TEXT if ended and place == len(tokens) - 1 else int(marks[token]))
            if draft.done:
                return
        if (len(tokens) < granted and not at_stop_string) or len(draft.so_far) >= self._positions:
            self._cut_off(draft, EndReason.LENGTH)

    def _end_step(self, draft: Draft, mark: int) -> None:
        """End a draft's steps, or all of it, where its last token does so."""
        if mark & Mark.END_OF_TEXT:
            draft.done = True
            self._complete(draft, EndReason.END_OF_TEXT)
        elif mark & Mark.LOOK and self._look(draft):
            return
        else:
            if mark & Mark.BOUNDARY:
                self._end_steps(draft)
            if not draft.done and len(draft.tokens) >= draft.sampling.max_step_tokens:
                self._cut_off(draft, EndReason.LENGTH)

    def _end_steps(self, draft: Draft) -> None:
        """End the steps of a draft whose end its last token shows, and the draft with its last permitted step."""
        while not draft.done and (end := self._step_tokens(draft)):
            whole = draft.all_written
            behind = draft.tokens[end:], draft.log_probabilities[end:]
            del draft.tokens[end:], draft.log_probabilities[end:]
            draft.room -= 1
            draft.done = draft.room == 0
            draft.surplus = whole if draft.done and behind[0] else None
            draft.ends_seen.append(sum(len(step.tokens) for step in whole))
            self._complete(draft, draft.closing if draft.done else EndReason.BOUNDARY)
            if not draft.done:
                draft.tokens, draft.log_probabilities = behind
            elif draft.closing.cuts_off:
                self._look(draft, cut_off=True)

    def _step_tokens(self, draft: Draft) -> int:
        """The tokens of the step that a draft writes; 0 while it goes on."""
        before = draft.so_far[: -len(draft.tokens)] if draft.tokens else []
        return self._text.end(draft.sampling.boundary, before, draft.tokens, draft.log_probabilities)

    def _look(self, draft: Draft, *, cut_off: bool = False) -> bool:
        """End a draft if what it wrote ends the solution by its task's rules; returns whether it does.

        The tokens behind the heading of a next problem are dropped.
        """
        written = [token for step in draft.steps for token in step.tokens] + draft.tokens
        if not draft.sampling.solution_end or not written:
            return False
        before, context = len(draft.solution), draft.path[-CONTEXT_TOKENS:]
        ending = draft.sampling.solution_end.find(
            draft.node.tree.problem,
            draft.solution + self._text.text(context, written),
            cut_off=cut_off,
            thinking=draft.thinking,
        )
        if ending is None:
            return False
        draft.done = True
        if ending.reason is EndReason.STOP:
            self._drop_next_problem(draft, context, written, ending.length - before, ending.seen - before)
        else:
            self._close(draft, ending.reason)
        return True

    def _drop_next_problem(self, draft: Draft, context: list[int], written: list[int], length: int, seen: int) -> None:
        """Keep of what a draft wrote the solution, ``length`` characters, and the tokens of the heading behind it."""
        draft.surplus = draft.all_written
        solution, kept = self._text.cut(context, written, length, seen)
        log_probabilities = [
            *(each for step in draft.steps for each in step.log_probabilities),
            *draft.log_probabilities,
        ]
        steps, start = [], 0
        for step in draft.steps:
            if start + len(step.tokens) > min(solution, kept - 1):
                break
            steps.append(step)
            start += len(step.tokens)
        text = self._text.text([*context, *written[:start]], written[start:kept])
        text = text[: max(0, length - sum(len(step.text) for step in steps))]
        last = Step(tuple(written[start:kept]), text, tuple(log_probabilities[start:kept]), EndReason.STOP)
        draft.steps, draft.tokens, draft.log_probabilities = [*steps, last], [], []

    def _cut_off(self, draft: Draft, end: EndReason) -> None:
        """End a draft at a limit, unless what it wrote is a whole solution."""
        draft.done = True
        if not self._look(draft, cut_off=True):
            self._close(draft, end)

    def _close(self, draft: Draft, end: EndReason) -> None:
        """End a draft where it is: within its step, or with the step before."""
        if draft.tokens:
            self._complete(draft, end)
        elif draft.steps:
            last = draft.steps[-1]
            draft.steps[-1] = Step(last.tokens, last.text, last.log_probabilities, end)

    def _complete(self, draft: Draft, end: EndReason) -> None:
        before = draft.so_far[: -len(draft.tokens)]
        text = self._text.text(before[-CONTEXT_TOKENS:], draft.tokens)
        draft.steps.append(Step(tuple(draft.tokens), text, tuple(draft.log_probabilities), end))
        draft.tokens, draft.log_probabilities = [], []

    async def _generate(self, tokens: list[int], parameters: Any) -> Any:
        """What vLLM writes after ``tokens``, in the next round."""
        request = Request(tokens, parameters, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._run())
        return await request.done

    async def _run(self) -> None:
        """Round after round, as long as anyone waits."""
        while True:
            for _ in range(_GATHERING_TURNS):
                await asyncio.sleep(0)
            requests = [request for request in self._waiting if not request.done.done()]
            self._waiting.clear()
            if not requests:
                return
            try:
                outputs = await asyncio.to_thread(
                    self.llm.generate,
                    [{"prompt_token_ids": request.tokens} for request in requests],
                    [request.parameters for request in requests],
                    use_tqdm=False,
                )
            except Exception as error:
                failure = GradatimError(f"vLLM failed: {type(error).__name__} {_first_line(error)}")
                failure.__cause__ = error
                outputs = [failure] * len(requests)
            for request, output in zip(requests, outputs, strict=True):
                if request.done.done():
                    continue  # whoever asked was cancelled
                if isinstance(output, GradatimError):
                    request.done.set_exception(output)
                else:
                    request.done.set_result(output.outputs[0])


def _vllm() -> Any:
    """The ``vllm`` package.

    Raises:
        GradatimError: if it is not installed.
    """
    try:
        return importlib.import_module("vllm")
    except ImportError as error:
        raise GradatimError(
            f"the vLLM policy needs vLLM, which cannot be imported ({error}); install it (pip install vllm) or use "
            "engine='transformers'",
            options=("engine='transformers'",),
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _log_probability(value: float) -> float:
    """A log-probability as vLLM gives it, at most 0.

    Raises:
        GradatimError: if it is no finite number: what the model drew there means nothing.
    """
    if not math.isfinite(value):
        raise GradatimError(
            f"vLLM gives {value} for the log-probability of a token that it drew, so the model's numbers overflow; use "
            "another number format (dtype='bfloat16' or dtype='float32')",
            options=("dtype='bfloat16'", "dtype='float32'"),
        )
    return min(float(value), 0.0)
