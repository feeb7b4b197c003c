"""The policy engine: a transformers decoder, with the tree as its cache."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from gradatim.budget import POLICY, Account
from gradatim.engine.adapters import load_adapter, use_adapter
from gradatim.engine.branch_batch import BranchBatch
from gradatim.engine.identity import weights_identity
from gradatim.engine.loading import load_tokenizer, placed
from gradatim.engine.passes import next_pass
from gradatim.engine.path_length import longest_path
from gradatim.engine.quantization import Quantization
from gradatim.engine.reader import Reader
from gradatim.engine.self_check import checked_tree_model
from gradatim.engine.token_sampling import choose_tokens, uniforms
from gradatim.engine.too_long import TooLong
from gradatim.engine.tree_model import ModelStatistics
from gradatim.errors import GradatimError
from gradatim.policies.base import Sampling
from gradatim.policies.draws import distinct_draws, draws_below
from gradatim.policies.expansion import Branch, Expansion, Written
from gradatim.policies.spending_order import SpendingOrder
from gradatim.text.prompts import ChatFormat
from gradatim.text.solution_end import opens_thought
from gradatim.text.step_text import CONTEXT_TOKENS, Mark, StepText
from gradatim.text.transcript import Transcript, own_tokens, take_up
from gradatim.tree import EndReason, Node, Step, Tree


class TransformersPolicy:
    """Expands trees with a transformers causal language model.

    Every node keeps its keys and values, so expanding it computes new tokens only, however often and in whatever
    order nodes are expanded; branches of one node share its prefix, which is held and read once. All waiting
    expansions of all searches run in one batch, in which branches join and leave between two tokens. The recorded
    log-probabilities are the model's own (temperature 1, nothing truncated).

    Sampling is reproducible: a branch's random numbers depend on its tree's seed and its place in the tree, not on
    what else runs. (The numbers that the model computes can differ in their last bits with the size of a batch, as
    they do in every batched matrix product; a sample changes only if its random number falls in that gap.)

    Attributes:
        too_long: counts the nodes that were asked to be expanded and are too long for the model; they stay unexpanded.

    Args:
        model: a decoder; its attention is replaced by tree attention.
        tokenizer: its tokenizer; it must have an end token.
        sampling: the default for calls that give none.
        chat: put problems as a conversation in the tokenizer's chat template; by default they are plain text.
        max_branches: how many branches run at once, at most.
        batch_bytes: bound on the keys and values of running branches, about. Where they grow beyond it, the branches
            that wrote least are taken out and begin again when there is room; one branch always runs.
        tokens_per_pass: how many tokens one forward pass over paths takes at most, each token of a tree once; a longer
            path has a pass of its own.
        memory_bytes: bound on the cached keys and values of nodes; the least recently used are dropped and computed
            again when they are needed.
        account: what trees are charged to.

    Raises:
        GradatimError: if the tokenizer has no end token, or the model's attention cannot be replaced or computes
            something else over trees than over single paths (see :mod:`gradatim.engine.self_check`).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        sampling: Sampling | None = None,
        chat: ChatFormat | None = None,
        max_branches: int = 256,
        batch_bytes: int = 4 << 30,
        tokens_per_pass: int = 1 << 16,
        memory_bytes: int = 2 << 30,
        account: Account = POLICY,
    ) -> None:
        self.tokenizer = tokenizer
        self.chat = chat
        self.sampling = sampling if sampling is not None else Sampling()
        self.max_branches = max_branches
        self.batch_bytes = batch_bytes
        self.tokens_per_pass = tokens_per_pass
        self.tree_model = checked_tree_model(model, memory_bytes)
        self.account = account.of_size(self.tree_model.parameters)
        self._text = StepText(model, tokenizer)
        self._positions = longest_path(model.config)
        self.too_long = TooLong("the policy's model reads and writes", self._positions, "stays unexpanded")
        self._source: str | None = None
        self._adapter = ""  # in use, of those that were loaded here
        self._transcript = Transcript(own_tokens(tokenizer, chat))
        self._waiting: deque[Expansion] = deque()
        self._promised: set[asyncio.Future[list[Written]]] = set()
        self._branches: list[Branch] = []
        self._set_back: deque[Branch] = deque()  # taken out of a full batch
        self._full = False  # until a branch has ended since some were taken out
        self._orders: dict[Tree, SpendingOrder[Branch]] = {}  # of trees that have branches which are not charged yet
        self._batch = BranchBatch(self.tree_model)
        self._is_read = False  # by a reader, which may ask for the last steps of solutions
        self._pump: asyncio.Task[None] | None = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        device_map: str | dict[str, Any] | None = None,
        quantization: Quantization | None = None,
        adapter: str | Path | None = None,
        **options: Any,
    ) -> TransformersPolicy:
        """Load a model and its tokenizer from a hub id, a local folder or ``shipped:NAME``.

        Args:
            name_or_path: the model; a folder of an adapter loads its base too.
            device, dtype, device_map, quantization: see :func:`gradatim.engine.loading.placed`.
            adapter: see :meth:`load_adapter`; it is called ``"default"``.
            options: those of the class.

        Raises:
            GradatimError: if any of them cannot be loaded; says why.
        """
        model = placed(
            AutoModelForCausalLM,
            name_or_path,
            dtype=dtype,
            device=device,
            device_map=device_map,
            quantization=quantization,
        )
        policy = cls(model, load_tokenizer(name_or_path), **options)
        if adapter is not None:
            policy.load_adapter(adapter, "default")
        return policy

    def load_adapter(self, source: str | Path, name: str) -> None:
        """Add a low-rank adapter (a local folder or a hub id) to the model and switch to it.

        Raises:
            GradatimError: see :func:`gradatim.engine.adapters.load_adapter`; also while searches are running.
        """
        self._check_idle()
        load_adapter(self.model, source, name)
        self._adapter = name
        self.refresh()

    def use_adapter(self, name: str | None) -> None:
        """Switch to a loaded adapter, or to the base model alone with ``None``; what was cached is forgotten.

        Raises:
            GradatimError: if there is no such adapter, or searches are running.
        """
        self._check_idle()
        use_adapter(self.model, name)
        self._adapter = "" if name is None else name
        self.refresh()

    def _check_idle(self) -> None:
        if self._branches or self._waiting:
            raise GradatimError("the policy is at work; switch adapters when its searches are done")

    @property
    def model(self) -> PreTrainedModel:
        return self.tree_model.model

    @property
    def statistics(self) -> ModelStatistics:
        return self.tree_model.statistics

    def release(self, tree: Tree) -> None:
        """Drop the cached keys and values of a tree that is done."""
        for each in (tree, *self._transcript.forget(tree)):
            self.tree_model.store.release(each)

    def reader(self, **options: Any) -> Reader:
        """Reads steps with this policy's model: one copy of the weights and one cache, and what the policy wrote itself
        has the log-probabilities that were recorded. ``options`` are those of :class:`gradatim.engine.reader.Reader`;
        by default it charges what the policy does. From then on the states of steps that end a solution are kept too,
        so that reading them computes no more than their last token.
        """
        self._is_read = True
        return Reader(
            self.model,
            self.tokenizer,
            chat=self.chat,
            tree_model=self.tree_model,
            transcript=self._transcript,
            source=lambda: self.source,
            **{"account": self.account} | options,
        )

    async def close(self) -> None:
        """Drop all cached keys and values; the policy can be used again."""
        self.tree_model.store.clear()

    def refresh(self) -> None:
        """Forget all cached keys and values and set the model up again, after its weights were trained."""
        self._source = None
        self.tree_model.refresh()
        self.account = self.account._replace(parameters=self.tree_model.parameters)

    def encode(self, tree: Tree) -> None:
        """Write the prompt's tokens to the root, if they are not there yet.

        Raises:
            GradatimError: see :func:`gradatim.text.transcript.take_up`.
        """
        take_up(tree, self.tokenizer, self.chat, self._text.text)

    def _as_read(self, node: Node) -> Node:
        """The node in the tokens that the model reads; see :meth:`encode` for errors."""
        if node.tree.has_text_steps:
            return self._transcript.followed(node)
        self.encode(node.tree)
        return node

    @property
    def source(self) -> str:
        """What the policy calls itself on the steps that it writes; another name once its weights have changed."""
        if self._source is None:
            self._source = weights_identity(self.model, self._adapter)
        return self._source

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
        requests = [
            self._request(node, count, steps, sampling, account)
            for node, count in draws_below(nodes, n, steps)
            if self._fits(node)
        ]
        expansions = [expansion for expansion in requests if self.tree_model.charge(expansion.read, account)]
        for expansion in expansions:
            self._order(expansion.node.tree).ask(expansion.branches)
        self._promised.update(expansion.done for expansion in expansions)
        self._waiting.extend(expansions)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._run())
        try:
            done = [(expansion, written) for expansion in expansions for written in await expansion.done]
        except BaseException:
            self._abandon(expansions)
            raise
        finally:
            self._promised.difference_update(expansion.done for expansion in expansions)
        return [self._attach(expansion, written, key) for expansion, written in done for key in written.keys]

    def _fits(self, node: Node) -> bool:
        """Whether the model can write anything behind a node; one where it cannot is counted."""
        length = len(self._as_read(node).tokens)
        if length >= self._positions:
            self.too_long.note(node, length)
        return length < self._positions

    def _request(self, node: Node, n: int, steps: int | None, sampling: Sampling, account: Account) -> Expansion:
        read = self._as_read(node)
        tokens = read.tokens
        done: asyncio.Future[list[Written]] = asyncio.get_running_loop().create_future()
        expansion = Expansion(
            node,
            read,
            sampling,
            account,
            steps,
            done,
            context=tokens[-CONTEXT_TOKENS:],
            length=len(tokens),
            solution=node.text,
            thinking=opens_thought(self._text.text((), self._as_read(node.tree.root).tokens[-CONTEXT_TOKENS:])),
        )
        longest = self._longest(expansion)
        expansion.branches = [Branch(expansion, keys, longest) for keys in distinct_draws(node, n, sampling)]
        return expansion

    def _order(self, tree: Tree) -> SpendingOrder[Branch]:
        order = self._orders.get(tree)
        if order is None:
            order = self._orders[tree] = SpendingOrder(tree.budget, self._close)
        return order

    def _attach(self, expansion: Expansion, written: Written, key: int) -> Node:
        """Add what a branch wrote below its node; returns the node of the last step.

        In a tree that has text steps it is text too, since a path is read either by its tokens or by its text.
        """
        node, read, end = expansion.node, expansion.read, 0
        for step in written.steps:
            start, end = end, end + len(step.tokens)
            first = key if start == 0 else None
            if read is node:
                tree, known = node.tree, len(node.tree)
                node = read = tree.add(node, step, key=first)
            else:
                tree, known = read.tree, len(read.tree)
                read = tree.add(read, step)
                node = node.tree.add(node, replace(step, tokens=()), key=first)
                self._transcript.note(node, read)
            if len(tree) > known:
                self.tree_model.mark_written(read, written.keys_values_of(start, end), expansion.account)
        return node

    async def _run(self) -> None:
        """Work until nothing is left to do; searches take their results between two tokens."""
        try:
            while self._waiting or self._branches or self._set_back:
                self._stop_spent()
                self._admit()
                self._stop_spent()
                self._make_room()
                if self._branches:
                    self._advance()
                await asyncio.sleep(0)
            self._batch.free()
        except Exception as error:
            for done in list(self._promised):
                if not done.done():
                    done.set_exception(error)
            self._reset()

    def _reset(self) -> None:
        for order in self._orders.values():
            order.withdraw_all()
        self._waiting.clear()
        self._set_back.clear()
        self._branches.clear()
        self._orders.clear()
        self._batch = BranchBatch(self.tree_model)

    def _abandon(self, expansions: Sequence[Expansion]) -> None:
        """Stop work that nobody waits for any more."""
        gone = {id(expansion) for expansion in expansions}
        for expansion in expansions:
            if not expansion.done.cancel() and not expansion.done.cancelled():
                expansion.done.exception()  # looked at, so that asyncio does not report it as forgotten
        self._waiting = deque(expansion for expansion in self._waiting if id(expansion) not in gone)
        self._set_back = deque(branch for branch in self._set_back if id(branch.expansion) not in gone)
        self._remove([i for i, branch in enumerate(self._branches) if id(branch.expansion) in gone])
        for expansion in expansions:
            self._order(expansion.node.tree).withdraw(expansion.branches)
        for tree in {expansion.node.tree for expansion in expansions}:
            self._settle(tree, ())

    def _stop_spent(self) -> None:
        """Stop branches that have all that the budget can give them."""
        while True:
            for tree, order in list(self._orders.items()):
                if order.limited:
                    self._settle(tree, ())  # once nothing is left, it is the turn of all
                    order.allot(new=1)
            spent = [index for index, branch in enumerate(self._branches) if branch.has_all]
            for tree in {self._branches[index].expansion.node.tree for index in spent}:
                self._order(tree).allot()  # what was told before may be less than there is now
            spent = [index for index in spent if self._branches[index].has_all]
            if not spent:
                return
            stopped = [self._branches[index] for index in spent]
            self._remove(spent)
            self._full = False
            for branch in stopped:
                if branch.end is None:
                    branch.end = EndReason.BUDGET
                self._finish(branch)

    def _make_room(self) -> None:
        """Take the branches that wrote least out of a batch that has outgrown its memory."""
        while len(self._branches) > 1 and self._batch.bytes_needed() > self.batch_bytes:
            index = min(range(len(self._branches)), key=lambda each: len(self._branches[each].tokens))
            branch = self._branches[index]
            self._remove([index])
            branch.begin_again(self._longest(branch.expansion))
            self._set_back.append(branch)
            self._full = True

    def _room(self) -> int:
        """How many branches may start."""
        if not self._branches:
            return self.max_branches
        if self._full or self._batch.bytes_needed(1) > self.batch_bytes:
            return 0
        return self.max_branches - len(self._branches)

    def _longest(self, expansion: Expansion) -> int:
        """Tokens at which the first step of an expansion's branch ends at the latest."""
        return min(expansion.sampling.max_step_tokens, self._positions - expansion.length)

    def _admit(self) -> None:
        """Start waiting branches while there is room, computing what is missing of their paths first."""
        room = self._room()
        starting: list[Branch] = []
        while self._set_back and len(starting) < room:
            branch = self._set_back.popleft()
            if branch.end is None:
                starting.append(branch)
        held: list[Expansion] = []
        while self._waiting and len(starting) < room:
            expansion = self._waiting.popleft()
            starting.extend(self._start(expansion, room - len(starting)))
            if expansion.started < len(expansion.branches):
                held.append(expansion)
        self._waiting.extendleft(reversed(held))
        if not starting:
            return
        self._prepare(list(dict.fromkeys(branch.expansion for branch in starting)))
        self._write(starting, self._first_logits([branch.expansion for branch in starting]))
        self._join([branch for branch in starting if branch.end is None])
        for branch in starting:
            if branch.end is not None:
                self._finish(branch)

    def _start(self, expansion: Expansion, room: int) -> list[Branch]:
        """The next branches of an expansion, as far as there is room and the budget may reach them.

        A branch behind others that have written all that the budget has need not begin yet; most likely it never will.
        """
        starting: list[Branch] = []
        while expansion.started < len(expansion.branches) and len(starting) < room:
            branch = expansion.branches[expansion.started]
            if branch.end is None:
                if not branch.begins:
                    break
                starting.append(branch)
            expansion.started += 1
        return starting

    def _prepare(self, expansions: Sequence[Expansion]) -> None:
        """Make sure that each expansion has the states of its node's path, and the next token's logits."""
        by_node: dict[Node, list[Expansion]] = {}
        for expansion in expansions:
            if expansion.states is None:
                by_node.setdefault(expansion.read, []).append(expansion)
        nodes = list(by_node)
        while nodes:
            count = next_pass(nodes, self.tokens_per_pass)
            for node, states in zip(nodes[:count], self.tree_model.compute(nodes[:count]), strict=True):
                for expansion in by_node[node]:
                    expansion.states = states
            del nodes[:count]

    def _first_logits(self, expansions: Sequence[Expansion]) -> Tensor:
        """What branches of these expansions write first, computed once for each expansion: (branches, vocabulary)."""
        rows = {id(expansion): expansion for expansion in expansions}
        ends = [expansion.states[-1].hidden[-1] for expansion in rows.values() if expansion.states is not None]
        places = {key: place for place, key in enumerate(rows)}
        return self.tree_model.outputs(torch.stack(ends))[[places[id(expansion)] for expansion in expansions]]

    def _join(self, branches: Sequence[Branch]) -> None:
        """Add started branches to the batch."""
        for branch in branches:
            expansion = branch.expansion
            assert expansion.states is not None
            self._batch.join(id(expansion.read.tree), id(expansion), expansion.states, branch.tokens[-1])
        self._branches.extend(branches)

    def _advance(self) -> None:
        """One token for every running branch."""
        self._write(self._branches, self._batch.step())
        finished = [index for index, branch in enumerate(self._branches) if branch.end is not None]
        self._batch.continue_with([branch.tokens[-1] for branch in self._branches])
        ended = [self._branches[index] for index in finished]
        for index, branch in zip(finished, ended, strict=True):
            if branch.end is EndReason.BOUNDARY or self._is_read:
                branch.keys_values = self._batch.written(index)
        self._remove(finished)
        self._full = self._full and not ended
        for branch in ended:
            self._finish(branch)

    def _remove(self, indices: Sequence[int]) -> None:
        if indices:
            for source, place in self._batch.remove(indices):
                self._branches[place] = self._branches[source]
            del self._branches[len(self._batch) :]

    def _write(self, branches: Sequence[Branch], logits: Tensor) -> None:
        """Choose each branch's next token, and note whether the branch ends.

        ``logits``: (branches, vocabulary).
        """
        keys = np.array([branch.keys[0] for branch in branches], dtype=np.uint64)
        lengths = np.array([len(branch.tokens) for branch in branches], dtype=np.int64)
        uniform = uniforms(keys, lengths)
        samplings = [branch.expansion.sampling for branch in branches]
        if samplings.count(samplings[0]) == len(branches):
            self._write_alike(branches, logits, samplings[0], uniform)
            return
        for sampling in set(samplings):
            rows = [row for row, each in enumerate(samplings) if each == sampling]
            self._write_alike([branches[row] for row in rows], logits[rows], sampling, uniform[rows])

    def _write_alike(
        self, branches: Sequence[Branch], logits: Tensor, sampling: Sampling, uniform: NDArray[np.float64]
    ) -> None:
        """As :meth:`_write`, for branches that are sampled in the same way. What happens to every token is kept short,
        since it is most of what a search costs beside the model."""
        tokens, log_probabilities = choose_tokens(logits, sampling, uniform)
        chosen = tokens.tolist()
        marks = self._text.marks(sampling.boundary, sampling.solution_end)[chosen].tolist()
        for branch, token, log_probability, mark in zip(
            branches, chosen, log_probabilities.tolist(), marks, strict=True
        ):
            branch.tokens.append(token)
            branch.log_probabilities.append(log_probability)
            if mark or len(branch.tokens) >= branch.longest:
                self._end(branch, mark)

    def _end(self, branch: Branch, mark: int) -> None:
        """End a branch or its step, where its last token does so."""
        expansion = branch.expansion
        written = len(branch.tokens)
        if mark & Mark.END_OF_TEXT:
            branch.end = EndReason.END_OF_TEXT
        elif mark & Mark.LOOK and self._look(branch):
            pass
        elif expansion.length + written >= self._positions:
            branch.end = EndReason.LENGTH
        else:
            if mark & Mark.BOUNDARY:
                self._end_steps(branch)
            if branch.end is None and written >= branch.longest:
                branch.end = EndReason.LENGTH
        branch.longest = min(branch.longest, self._positions - expansion.length)

    def _end_steps(self, branch: Branch) -> None:
        """End the steps of a branch whose end its last token shows, and the branch with its last permitted step."""
        expansion, sampling = branch.expansion, branch.expansion.sampling
        start = branch.step_ends[-1] if branch.step_ends else 0
        while branch.end is None and (end := self._step_tokens(branch, start)):
            start += end
            branch.end_step(start)
            branch.longest = start + sampling.max_step_tokens
            if expansion.node.depth + len(branch.step_ends) >= sampling.max_steps:
                branch.end = EndReason.STEPS
            elif len(branch.step_ends) == expansion.steps:
                branch.end = EndReason.BOUNDARY
            if branch.end is not None:
                branch.solution_tokens = branch.kept_tokens = start

    def _step_tokens(self, branch: Branch, start: int) -> int:
        """The tokens of the step that begins at ``start``; 0 while it goes on."""
        before = [*branch.expansion.context, *branch.tokens[:start]]
        tokens, values = branch.tokens[start:], branch.log_probabilities[start:]
        return self._text.end(branch.expansion.sampling.boundary, before, tokens, values)

    def _look(self, branch: Branch, *, cut_off: bool = False) -> bool:
        """End a branch if what it wrote ends the solution by its task's rules; returns whether it does."""
        expansion, tokens = branch.expansion, branch.tokens
        rules = expansion.sampling.solution_end
        if not rules:
            return False
        before = len(expansion.solution)
        ending = rules.find(
            expansion.node.tree.problem,
            expansion.solution + self._text.text(expansion.context, tokens),
            cut_off=cut_off,
            thinking=expansion.thinking,
        )
        if ending is None:
            return False
        branch.end = ending.reason
        if ending.reason is EndReason.STOP:
            solution, kept = self._text.cut(expansion.context, tokens, ending.length - before, ending.seen - before)
            branch.solution_tokens, branch.kept_tokens = solution, kept
            branch.solution_length = max(0, ending.length - before)
        return True

    def _finish(self, branch: Branch) -> None:
        """Charge a branch that has ended, as soon as it is its turn."""
        self._settle(branch.expansion.node.tree, (branch,))

    def _settle(self, tree: Tree, ended: Sequence[Branch]) -> None:
        """Charge those of a tree's branches whose turn it is, and hand over what is complete with them."""
        order = self._order(tree)
        for branch in order.settle(ended):
            expansion = branch.expansion
            expansion.charged += 1
            if expansion.charged == len(expansion.branches) and not expansion.done.done():
                written = [(each, self._steps(each)) for each in expansion.branches]
                expansion.done.set_result(
                    [Written(each.keys, steps, each.keys_values) for each, steps in written if steps]
                )
        if not order:
            del self._orders[tree]

    def _close(self, branch: Branch, allowed: int | None) -> int:
        """Cut a branch off where its budget ends, and drop what is no part of its solution; returns what is left."""
        if branch.end is None or (allowed is not None and len(branch.tokens) > allowed):
            branch.cut(allowed or 0)
        assert branch.end is not None
        branch.drop_surplus()
        if branch.end.cuts_off:
            self._look(branch, cut_off=True)
            branch.drop_surplus()
        return len(branch.tokens)

    def _steps(self, branch: Branch) -> list[Step]:
        """Cut what a branch wrote into steps."""
        assert branch.end is not None
        ends = list(branch.step_ends)
        if branch.tokens and (not ends or ends[-1] < len(branch.tokens)):
            ends.append(len(branch.tokens))
        steps: list[Step] = []
        start = 0
        for end in ends:
            tokens = branch.tokens[start:end]
            text = self._text.text([*branch.expansion.context, *branch.tokens[:start]], tokens)
            reason = branch.end if end == ends[-1] else EndReason.BOUNDARY
            if reason is EndReason.STOP and branch.solution_length is not None:
                text = text[: max(0, branch.solution_length - sum(len(step.text) for step in steps))]
            log_probabilities = tuple(branch.log_probabilities[start:end])
            steps.append(Step(tuple(tokens), text, log_probabilities, reason, source=self.source))
            start = end
        return steps
