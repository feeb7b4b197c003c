"""The policy engine: any transformers decoder, with the tree as its cache."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from gradatim.budget import Spending
from gradatim.errors import GradatimError
from gradatim.policies.base import Sampling
from gradatim.policies.branch_batch import BranchBatch
from gradatim.policies.key_value_store import NodeState
from gradatim.policies.loading import load_model, load_tokenizer
from gradatim.policies.token_sampling import choose_tokens, uniforms
from gradatim.policies.tree_model import ModelStatistics, TreeModel
from gradatim.tree import EndReason, Node, Step, Tree

_CONTEXT_TOKENS = 8  # decoded before a step, so that its first piece keeps its leading space
_GROUP_BRANCHES = 16  # a node with more branches is laid out in several groups; bounds padding across groups


@dataclass(slots=True)
class _Written:
    """What one branch wrote: its steps, and the keys and values of the first one."""

    key: int
    steps: list[Step]
    keys_values: Tensor | None


@dataclass(slots=True)
class _Expansion:
    """A request to continue one node ``len(keys)`` times."""

    node: Node
    keys: list[int]
    sampling: Sampling
    to_the_end: bool
    done: asyncio.Future[list[_Written]]
    context: list[int] = field(default_factory=list)
    started: int = 0
    running: int = 0
    states: list[NodeState] | None = None
    results: dict[int, _Written] = field(default_factory=dict)


@dataclass(slots=True)
class _Branch:
    """One running continuation."""

    expansion: _Expansion
    number: int
    key: int
    tokens: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    step_ends: list[int] = field(default_factory=list)  # where each finished step ends in ``tokens``
    end: EndReason | None = None


class TransformersPolicy:
    """Expands trees with a transformers causal language model.

    Every node keeps its keys and values, so expanding it computes new tokens only, however often and in whatever
    order nodes are expanded; branches of one node share its prefix, which is held and read once. All waiting
    expansions of all searches run in one batch, in which branches join and leave between two tokens. The recorded
    log-probabilities are the model's own (temperature 1, nothing truncated).

    Sampling is reproducible: a branch's random numbers depend on its tree's seed and its place in the tree, not on
    what else runs. (The numbers that the model computes can differ in their last bits with the size of a batch, as
    they do in every batched matrix product; a sample changes only if its random number falls in that gap.)

    Args:
        model: a decoder; its attention is replaced by tree attention.
        tokenizer: its tokenizer; it must have an end token.
        sampling: the default for calls that give none.
        max_branches: how many branches run at once.
        memory_bytes: bound on the cached keys and values of nodes; the least recently used are dropped and computed
            again when they are needed.

    Raises:
        GradatimError: if the tokenizer has no end token or the model's attention cannot be replaced.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        sampling: Sampling | None = None,
        max_branches: int = 256,
        memory_bytes: int = 2 << 30,
    ) -> None:
        self.tokenizer = tokenizer
        self.sampling = sampling if sampling is not None else Sampling()
        self.max_branches = max_branches
        self.tree_model = TreeModel(model, Spending.POLICY_PREFILL, memory_bytes)
        self._end_tokens = _end_tokens(model, tokenizer)
        self._boundaries: dict[tuple[str, ...], NDArray[np.bool_]] = {}
        self._positions = int(getattr(model.config, "max_position_embeddings", 0) or 1 << 60)
        self._waiting: deque[_Expansion] = deque()
        self._branches: list[_Branch] = []
        self._batch = BranchBatch(self.tree_model)
        self._pump: asyncio.Task[None] | None = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> TransformersPolicy:
        """Load a model and its tokenizer from a hub id or a local folder; ``options`` as for the class.

        Raises:
            GradatimError: if either cannot be loaded; says why.
        """
        model = load_model(AutoModelForCausalLM, name_or_path, dtype=dtype).to(device)
        return cls(model, load_tokenizer(name_or_path), **options)

    @property
    def model(self) -> PreTrainedModel:
        return self.tree_model.model

    @property
    def statistics(self) -> ModelStatistics:
        return self.tree_model.statistics

    def release(self, tree: Tree) -> None:
        """Drop the cached keys and values of a tree that is done."""
        self.tree_model.store.release(tree)

    def refresh(self) -> None:
        """Forget all cached keys and values and set the model up again, after its weights were trained."""
        self.tree_model.store.clear()
        self.tree_model.activate()

    def encode(self, tree: Tree) -> None:
        """Write the prompt's tokens to the root, if they are not there yet.

        Raises:
            GradatimError: if the prompt is empty or has text that the tokenizer does not know.
        """
        if tree.root.step.tokens:
            return
        prompt = tree.problem.prompt
        tokens = list(self.tokenizer(prompt)["input_ids"])
        while len(tokens) > 1 and tokens[-1] in self._end_tokens:
            tokens.pop()  # some tokenizers close every text
        if not tokens:
            raise GradatimError(f"problem {tree.problem.id!r} has an empty prompt; give the policy text to continue")
        if self.tokenizer.unk_token_id is not None and self.tokenizer.unk_token_id in tokens:
            raise GradatimError(
                f"the policy's tokenizer has no tokens for part of problem {tree.problem.id!r}: {prompt!r}; "
                "use problems of the kind that the policy was trained on"
            )
        tree.set_prompt_tokens(tokens)

    async def expand(self, nodes: Sequence[Node], n: int, sampling: Sampling | None = None) -> list[Node]:
        """Propose ``n`` steps below each open node; see :class:`gradatim.policies.base.Policy`."""
        children: dict[Node, None] = {}
        for node, written in await self._continue(nodes, n, sampling, to_the_end=False):
            child = self._attach(node, written)
            children[child[-1]] = None
        return list(children)

    async def rollout(self, nodes: Sequence[Node], n: int, sampling: Sampling | None = None) -> list[Node]:
        """Complete ``n`` solutions below each open node; see :class:`gradatim.policies.base.Policy`."""
        return [
            self._attach(node, written)[-1]
            for node, written in await self._continue(nodes, n, sampling, to_the_end=True)
        ]

    async def _continue(
        self, nodes: Sequence[Node], n: int, sampling: Sampling | None, *, to_the_end: bool
    ) -> list[tuple[Node, _Written]]:
        """Continue each open node ``n`` times; returns what was written, in the order of nodes and draws."""
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        loop = asyncio.get_running_loop()
        expansions = []
        for node in nodes:
            if not node.open:
                continue
            self.encode(node.tree)
            keys = [node.tree.draw(node) for _ in range(n)]
            done: asyncio.Future[list[_Written]] = loop.create_future()
            expansions.append(_Expansion(node, keys, sampling or self.sampling, to_the_end, done))
        self._waiting.extend(expansions)
        if self._pump is None or self._pump.done():
            self._pump = loop.create_task(self._run())
        try:
            return [(expansion.node, written) for expansion in expansions for written in await expansion.done]
        except BaseException:
            self._abandon(expansions)
            raise

    def _attach(self, node: Node, written: _Written) -> list[Node]:
        """Add what a branch wrote below ``node``; returns the nodes, from the first step to the last."""
        tree = node.tree
        added: list[Node] = []
        for index, step in enumerate(written.steps):
            known = len(tree)
            child = tree.add(added[-1] if added else node, step, key=written.key if index == 0 else None)
            if len(tree) > known:
                self.tree_model.mark_written(child, written.keys_values if index == 0 else None)
            added.append(child)
        return added

    async def _run(self) -> None:
        """Work until nothing is left to do; searches take their results between two tokens."""
        try:
            while self._waiting or self._branches:
                self._admit()
                if self._branches:
                    self._advance()
                await asyncio.sleep(0)
        except Exception as error:
            for expansion in {id(e): e for e in self._unfinished()}.values():
                if not expansion.done.done():
                    expansion.done.set_exception(error)
            self._reset()

    def _unfinished(self) -> Iterable[_Expansion]:
        yield from self._waiting
        yield from (branch.expansion for branch in self._branches)

    def _reset(self) -> None:
        self._waiting.clear()
        self._branches.clear()
        self._batch = BranchBatch(self.tree_model)

    def _abandon(self, expansions: Sequence[_Expansion]) -> None:
        """Stop work that nobody waits for any more."""
        gone = {id(expansion) for expansion in expansions}
        self._waiting = deque(expansion for expansion in self._waiting if id(expansion) not in gone)
        self._remove([i for i, branch in enumerate(self._branches) if id(branch.expansion) in gone])

    def _admit(self) -> None:
        """Start waiting branches while there is room, computing what is missing of their paths in one pass."""
        room = self.max_branches - len(self._branches)
        chosen: list[tuple[_Expansion, int]] = []
        while self._waiting and room > 0:
            expansion = self._waiting[0]
            if expansion.states is None and not self._charge(expansion):
                self._waiting.popleft()
                continue
            count = min(room, len(expansion.keys) - expansion.started)
            chosen.append((expansion, count))
            room -= count
            if expansion.started + count < len(expansion.keys):
                break
            self._waiting.popleft()
        if not chosen:
            return
        self._prepare([expansion for expansion, _ in chosen])
        starting: list[_Branch] = []
        logits: list[Tensor] = []
        for expansion, count in chosen:
            assert expansion.states is not None
            output = expansion.states[-1].output
            assert output is not None
            numbers = range(expansion.started, expansion.started + count)
            starting.extend(_Branch(expansion, number, expansion.keys[number]) for number in numbers)
            logits.extend([output] * count)
            expansion.started += count
            expansion.running += count
        self._write(starting, torch.stack(logits))
        self._join([branch for branch in starting if branch.end is None])
        for branch in starting:
            if branch.end is not None:
                self._finish(branch, None)

    def _charge(self, expansion: _Expansion) -> bool:
        """Charge for reading the node's path; an expansion that cannot be paid for has no results."""
        if self.tree_model.charge(expansion.node):
            return True
        expansion.done.set_result([])
        return False

    def _prepare(self, expansions: Sequence[_Expansion]) -> None:
        """Make sure that each expansion has the states of its node's path, and the next token's logits."""
        by_node: dict[Node, list[_Expansion]] = {}
        for expansion in expansions:
            if expansion.states is None:
                by_node.setdefault(expansion.node, []).append(expansion)
        segments = [self.tree_model.segment(node) for node in by_node]
        for waiting, states in zip(by_node.values(), self.tree_model.compute(segments), strict=True):
            for expansion in waiting:
                expansion.states = states
                expansion.context = expansion.node.tokens[-_CONTEXT_TOKENS:]

    def _join(self, branches: Sequence[_Branch]) -> None:
        """Add started branches to the batch, those of one expansion in groups."""
        start = 0
        while start < len(branches):
            expansion = branches[start].expansion
            assert expansion.states is not None
            group = self._batch.open_group(expansion.states)
            stop = start
            while stop < len(branches) and stop - start < _GROUP_BRANCHES and branches[stop].expansion is expansion:
                self._batch.join(group, branches[stop].tokens[-1])
                stop += 1
            start = stop
        self._branches.extend(branches)

    def _advance(self) -> None:
        """One token for every running branch."""
        self._write(self._branches, self._batch.step())
        finished = [index for index, branch in enumerate(self._branches) if branch.end is not None]
        self._batch.continue_with([branch.tokens[-1] for branch in self._branches])
        for index in finished:
            branch = self._branches[index]
            keep = branch.end is EndReason.BOUNDARY and not branch.expansion.to_the_end
            self._finish(branch, self._batch.written(index) if keep else None)
        self._remove(finished)

    def _remove(self, indices: Sequence[int]) -> None:
        if indices:
            for source, place in self._batch.remove(indices):
                self._branches[place] = self._branches[source]
            del self._branches[len(self._batch) :]

    def _write(self, branches: Sequence[_Branch], logits: Tensor) -> None:
        """Choose each branch's next token, charge for it, and note whether the branch ends.

        ``logits``: (branches, vocabulary).
        """
        keys = np.array([branch.key for branch in branches], dtype=np.uint64)
        lengths = np.array([len(branch.tokens) for branch in branches], dtype=np.int64)
        uniform = uniforms(keys, lengths)
        rows_by_sampling: dict[Sampling, list[int]] = {}
        for row, branch in enumerate(branches):
            rows_by_sampling.setdefault(branch.expansion.sampling, []).append(row)
        for sampling, rows in rows_by_sampling.items():
            everything = len(rows) == len(branches)
            some_logits, some_uniform = (logits, uniform) if everything else (logits[rows], uniform[rows])
            tokens, log_probabilities = choose_tokens(some_logits, sampling, some_uniform)
            boundary = self._boundary_table(sampling.step_end)
            for row, token, log_probability in zip(rows, tokens.tolist(), log_probabilities.tolist(), strict=True):
                self._record(branches[row], token, log_probability, bool(boundary[token]))

    def _record(self, branch: _Branch, token: int, log_probability: float, boundary: bool) -> None:
        expansion = branch.expansion
        sampling = expansion.sampling
        if not expansion.node.tree.budget.take(Spending.POLICY_GENERATED, 1):
            branch.end = EndReason.BUDGET
            return
        branch.tokens.append(token)
        branch.log_probabilities.append(log_probability)
        if token in self._end_tokens:
            branch.end = EndReason.END_OF_TEXT
        elif boundary:
            branch.step_ends.append(len(branch.tokens))
            if not expansion.to_the_end:
                branch.end = EndReason.BOUNDARY
            elif expansion.node.depth + len(branch.step_ends) >= sampling.max_steps:
                branch.step_ends.pop()
                branch.end = EndReason.LENGTH
        elif len(branch.tokens) - (branch.step_ends[-1] if branch.step_ends else 0) >= sampling.max_step_tokens:
            branch.end = EndReason.LENGTH
        if branch.end is None and expansion.states is not None:
            length = sum(state.tokens for state in expansion.states) + len(branch.tokens)
            if length >= self._positions:
                branch.end = EndReason.LENGTH

    def _finish(self, branch: _Branch, keys_values: Tensor | None) -> None:
        expansion = branch.expansion
        steps = self._steps(branch)
        if steps:
            expansion.results[branch.number] = _Written(branch.key, steps, keys_values)
        expansion.running -= 1
        if expansion.running == 0 and expansion.started == len(expansion.keys) and not expansion.done.done():
            expansion.done.set_result([expansion.results[number] for number in sorted(expansion.results)])

    def _steps(self, branch: _Branch) -> list[Step]:
        """Cut what a branch wrote into steps."""
        assert branch.end is not None
        ends = list(branch.step_ends)
        if branch.tokens and (not ends or ends[-1] < len(branch.tokens)):
            ends.append(len(branch.tokens))
        steps = []
        start = 0
        for end in ends:
            tokens = branch.tokens[start:end]
            before = [*branch.expansion.context, *branch.tokens[:start]][-_CONTEXT_TOKENS:]
            reason = branch.end if end == ends[-1] else EndReason.BOUNDARY
            text = self._text(before, tokens)
            steps.append(Step(tuple(tokens), text, tuple(branch.log_probabilities[start:end]), reason))
            start = end
        return steps

    def _text(self, before: list[int], tokens: list[int]) -> str:
        """The text of ``tokens`` after ``before``; special tokens have none."""
        context = self._decode(before)
        whole = self._decode([*before, *tokens])
        return whole[len(context) :] if whole.startswith(context) else self._decode(tokens)

    def _decode(self, tokens: list[int]) -> str:
        text = self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def _boundary_table(self, step_end: tuple[str, ...]) -> NDArray[np.bool_]:
        """For each token id, whether its text holds one of ``step_end``."""
        if step_end not in self._boundaries:
            size = max(len(self.tokenizer), int(self.model.config.get_text_config().vocab_size))
            pieces = self.tokenizer.batch_decode(
                [[token] for token in range(len(self.tokenizer))], clean_up_tokenization_spaces=False
            )
            table = np.zeros(size, dtype=np.bool_)
            for token, piece in enumerate(pieces):
                table[token] = any(end in piece for end in step_end)
            self._boundaries[step_end] = table
        return self._boundaries[step_end]


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that end a text, by the tokenizer and by the model's generation settings."""
    tokens: set[int] = set()
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    for value in (tokenizer.eos_token_id, configured):
        with contextlib.suppress(TypeError):
            tokens.update(value if isinstance(value, (list, tuple)) else [] if value is None else [int(value)])
    if tokenizer.eos_token_id is None and not tokens:
        raise GradatimError(
            "the tokenizer has no end token, so no solution could ever end; set its eos_token and save it again"
        )
    return frozenset(tokens)
