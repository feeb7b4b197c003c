"""What a model says of given steps: log-probabilities of their tokens, hidden states and heads at their ends."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradatim.budget import Account
from gradatim.engine.heads import head_values, heads_of
from gradatim.engine.passes import next_pass
from gradatim.engine.path_length import longest_path
from gradatim.engine.self_check import checked_tree_model
from gradatim.engine.too_long import TooLong
from gradatim.engine.tree_model import ModelStatistics, TreeModel
from gradatim.errors import GradatimError
from gradatim.text.prompts import ChatFormat
from gradatim.text.transcript import PathTokens, Transcript, is_in_tokens_of, own_tokens
from gradatim.tree import Node, Tree, depth_first

READER = Account("reader")
SCORE = "score"
"""The head that a token classifier has: its labels' logits."""
NEXT_TOKEN = "next_token"
"""The head that a causal language model has: the logits of the token after the step."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model says of a step; what was not asked for is not there.

    Attributes:
        log_probabilities: of each token of the step given its path, at temperature 1; none of a prompt's.
        hidden: (hidden size,) the last hidden state at the step's last token.
        heads: (outputs,) in float32, what each head says there (of the model's own, what the reader makes of it).
    """

    log_probabilities: tuple[float, ...] | None = None
    hidden: Tensor | None = None
    heads: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Request:
    """One node that is to be read.

    Attributes:
        read: the node in the model's tokens.
        own: which tokens of ``read``'s step are the node's own.
        recorded: its log-probabilities, where they need not be computed.
        log_probabilities, hidden, heads: what is asked for.
        keep: whether what is computed for it is cached.
        done: has the reading.
    """

    read: Node
    own: range
    recorded: tuple[float, ...] | None
    log_probabilities: bool
    hidden: bool
    heads: tuple[str, ...]
    keep: bool
    done: asyncio.Future[Reading]

    def predictors(self) -> list[tuple[Node, range]]:
        """The tokens after which the model predicts the step's own ones, in order."""
        if not self.log_probabilities or self.recorded is not None or not self.own:
            return []
        before = [] if self.own.start else [_last_token(self.read.parent)]
        inner = range(max(0, self.own.start - 1), self.own.stop - 1)
        return [*before, (self.read, inner)] if inner else before

    def end(self) -> list[tuple[Node, range]]:
        """The step's last token, if what the model says there is asked for."""
        last = len(self.read.step.tokens)
        return [(self.read, range(last - 1, last))] if self.hidden or self.heads else []


class Reader:
    """Reads steps of trees with a model: each token of a tree once, whatever is asked of it in what order.

    A step is read from the cached state of its parent; what waits is read together, all paths in one row. Trees whose
    tokens are not the model's own, or that are text, are read in its tokens (:mod:`gradatim.text.transcript`).

    Args:
        model: a causal language model or a token classifier; its attention is replaced by tree attention.
        tokenizer: of the model, which reads trees in its tokens as they are.
        chat: how problems are put to it, where they are conversations.
        path_tokens: how it reads what is in other tokens; by default the prompt and the steps in its tokenizer's.
            Without either, it reads the tokens of all trees as they are.
        account: what trees are charged to.
        memory_bytes: bound on the cached keys and values.
        tokens_per_pass: how many tokens one forward pass takes at most, with what they attend to; one longer path has a
            pass of its own. The default suits the device.
        tree_model: runs the model, where it is shared with a policy (see :meth:`gradatim.policies.transformers
            .TransformersPolicy.reader`).
        transcript: trees in the model's tokens, where it is shared as well.
        source: the name that steps written by this very model have; their recorded log-probabilities are its own.
        judgement: what is made of the model's own outputs, (n, outputs) to (n, ...), before they are handed out as its
            head: of a vocabulary's logits those of two tokens, for instance.
        called: what messages call the model.
        consequence: what they say of a node that is too long.

    Attributes:
        too_long: counts the nodes that are longer than the model reads.

    Raises:
        GradatimError: if the model's attention cannot be replaced or computes something else over trees than over
            single paths (see :mod:`gradatim.engine.self_check`).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        chat: ChatFormat | None = None,
        path_tokens: PathTokens | None = None,
        account: Account = READER,
        memory_bytes: int = 2 << 30,
        tokens_per_pass: int | None = None,
        tree_model: TreeModel | None = None,
        transcript: Transcript | None = None,
        source: Callable[[], str] | None = None,
        judgement: Callable[[Tensor], Tensor] | None = None,
        called: str = "the model",
        consequence: str = "stays unread",
    ) -> None:
        self.tokenizer = tokenizer
        self.tree_model = checked_tree_model(model, memory_bytes) if tree_model is None else tree_model
        self.account = account.of_size(self.tree_model.parameters)
        self.tokens_per_pass = tokens_per_pass or (1 << 12 if self.tree_model.device.type == "cpu" else 1 << 15)
        self.too_long = TooLong(f"{called} reads", longest_path(model.config), consequence)
        self._positions = longest_path(model.config)
        if path_tokens is None and tokenizer is not None:
            path_tokens = own_tokens(tokenizer, chat)
        self._path_tokens = path_tokens
        if transcript is None and self._path_tokens is not None:
            transcript = Transcript(self._path_tokens)
        self._transcript = transcript
        self._source = source
        self._judgement = judgement
        self._reads_directly: weakref.WeakKeyDictionary[Tree, bool] = weakref.WeakKeyDictionary()  # unless it is text
        self._waiting: list[_Request] = []
        self._pump: asyncio.Task[None] | None = None

    @property
    def model(self) -> PreTrainedModel:
        return self.tree_model.model

    @property
    def statistics(self) -> ModelStatistics:
        return self.tree_model.statistics

    @property
    def heads(self) -> list[str]:
        """The heads that the model has."""
        output = SCORE if self.model.get_output_embeddings() is None else NEXT_TOKEN
        return [output, *heads_of(self.model)]

    def release(self, tree: Tree) -> None:
        """Drop what is cached of a tree that is done."""
        for each in (tree, *(() if self._transcript is None else self._transcript.forget(tree))):
            self.tree_model.store.release(each)

    def refresh(self) -> None:
        """Forget all that is cached and set the model up again, after its weights were trained."""
        self.tree_model.refresh()

    async def read(
        self,
        nodes: Sequence[Node],
        *,
        log_probabilities: bool = False,
        hidden: bool = False,
        heads: Sequence[str] = (),
        keep: bool = True,
        account: Account | None = None,
    ) -> list[Reading | None]:
        """What the model says of the steps of nodes.

        The account of each tree is charged for the tokens of a path that it reads for the first time, in the order of
        ``nodes``. Log-probabilities that the model recorded when it wrote a step cost nothing.

        Args:
            nodes: of any trees.
            log_probabilities: of each token of the step.
            hidden: the last hidden state at its end.
            heads: what these heads say there.
            keep: whether the states of what is computed are cached, for what is read below it later. Without them,
                reading many whole trees takes no memory beyond a pass.
            account: what is charged, if not the reader's own.

        Returns:
            For each node its reading, or ``None`` where the budget cannot pay for it or it is longer than the model
            reads.

        Raises:
            GradatimError: if the model has no such head, a tree cannot be put in its tokens, or what it says is no
                number.
        """
        unknown = [name for name in heads if name not in self.heads]
        if unknown:
            raise GradatimError(f"the model has no head {unknown[0]!r}; those that it has are: {', '.join(self.heads)}")
        account = self.account if account is None else account.of_size(self.tree_model.parameters)
        asked: dict[Node, _Request | None] = {}
        for node in nodes:
            if node not in asked:
                request = self._request(node, log_probabilities, hidden, tuple(heads), keep)
                asked[node] = request if request is not None and self._pays(request, account) else None
        requests = [request for request in asked.values() if request is not None]
        self._wait(requests)
        await asyncio.gather(*(request.done for request in requests))
        return [None if request is None else request.done.result() for request in (asked[node] for node in nodes)]

    def _request(
        self, node: Node, log_probabilities: bool, hidden: bool, heads: tuple[str, ...], keep: bool
    ) -> _Request | None:
        """What is to be read of a node; ``None`` where it is too long, which is counted."""
        read = self.as_read(node)
        length = len(read.tokens_before_observation)
        if length > self._positions:
            self.too_long.note(node, length)
            return None
        recorded = None
        if log_probabilities and self._source is not None and read.step.log_probabilities:
            recorded = read.step.log_probabilities if read.step.source == self._source() else None
        done: asyncio.Future[Reading] = asyncio.get_running_loop().create_future()
        return _Request(read, self._own(node, read), recorded, log_probabilities, hidden, heads, keep, done)

    def _own(self, node: Node, read: Node) -> range:
        """Which tokens of ``read``'s step are those of the node's own step."""
        stop = len(read.step.tokens)
        if node.parent is None:
            return range(stop, stop)
        if read is node or self._transcript is None:
            return range(stop)
        before = self._transcript.followed(node.parent)
        if read.parent is before:
            return range(stop)
        # It was written anew, since the layout does not continue what was before it: what differs is its own.
        tokens = read.tokens_before_observation
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(tokens, before.tokens, strict=False)))
        return range(max(shared - (len(tokens) - stop), int(read.is_root)), stop)

    def _pays(self, request: _Request, account: Account) -> bool:
        free = not request.hidden and not request.heads and not request.predictors()
        return free or self.tree_model.charge(request.read, account, behind=False)

    def as_read(self, node: Node) -> Node:
        """The node in the tokens that the model reads.

        Raises:
            GradatimError: if the tree has no tokens, and the reader does not know how to write them.
        """
        tree = node.tree
        if tree not in self._reads_directly:
            self._reads_directly[tree] = self._knows_tokens_of(tree)
        directly = self._reads_directly[tree] and not tree.has_text_steps
        read = node if self._transcript is None or directly else self._transcript.counterpart(node)
        if not read.tokens or (self._transcript is None and tree.has_text_steps):
            raise GradatimError(
                f"the steps of problem {tree.problem.id!r} are text without tokens; give the reader the model's "
                "tokenizer, or load a reward model with ProcessRewardScorer.from_pretrained"
            )
        return read

    def _knows_tokens_of(self, tree: Tree) -> bool:
        """Whether a tree's own tokens are what the model would read."""
        if self._path_tokens is None:
            return True
        if self.tokenizer is None or not tree.root.step.tokens:
            return False
        prompt = self._path_tokens(tree.problem, ())
        return is_in_tokens_of(tree, self.tokenizer, prompt)

    def _wait(self, requests: Sequence[_Request]) -> None:
        """Queue what has to be computed, a tree after the other, each in depth-first order."""
        places = {node: place for place, node in enumerate(depth_first(request.read for request in requests))}
        self._waiting += sorted(requests, key=lambda request: places[request.read])
        if self._waiting and (self._pump is None or self._pump.done()):
            self._pump = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        """Read whatever waits, a pass at a time; searches take their readings between two passes."""
        while self._waiting:
            count = next_pass((request.read for request in self._waiting), self.tokens_per_pass)
            batch = [request for request in self._waiting[:count] if not request.done.done()]
            del self._waiting[:count]
            try:
                readings = self._read(batch)
            except Exception as error:
                for request in [*batch, *self._waiting]:
                    if not request.done.done():
                        request.done.set_exception(error)
                self._waiting.clear()
                return
            for request, reading in zip(batch, readings, strict=True):
                if not request.done.done():
                    request.done.set_result(reading)
            await asyncio.sleep(0)

    def _read(self, batch: Sequence[_Request]) -> list[Reading]:
        """One pass."""
        wanted: dict[Node, range] = {}
        for request in batch:
            for node, part in (*request.predictors(), *request.end()):
                before = wanted.get(node, part)
                wanted[node] = range(min(part.start, before.start), max(part.stop, before.stop))
        hidden = self.tree_model.hidden(wanted, keep=any(request.keep for request in batch)) if wanted else {}
        log_probabilities = self._log_probabilities(batch, wanted, hidden)
        ends = [request for request in batch if request.end()]
        states = [hidden[node][part.start - wanted[node].start] for each in ends for node, part in each.end()]
        heads = self._heads(torch.stack(states), {name for request in ends for name in request.heads}) if ends else {}
        places = {id(request): place for place, request in enumerate(ends)}
        readings = []
        for request in batch:
            place = places.get(id(request), -1)
            readings.append(
                Reading(
                    log_probabilities=log_probabilities.get(id(request)),
                    hidden=states[place].clone() if request.hidden else None,
                    heads={name: heads[name][place] for name in request.heads},
                )
            )
        return readings

    def _log_probabilities(
        self, batch: Sequence[_Request], wanted: Mapping[Node, range], hidden: Mapping[Node, Tensor]
    ) -> dict[int, tuple[float, ...]]:
        """Those of each request that asks for them, by its id."""
        known = {id(each): each.recorded or () for each in batch if each.log_probabilities}
        computed = [request for request in batch if request.predictors()]
        if not computed:
            return known
        starts: dict[Node, int] = {}
        total = 0
        for node, states in hidden.items():
            starts[node] = total - wanted[node].start
            total += len(states)
        after = [starts[node] + place for each in computed for node, part in each.predictors() for place in part]
        tokens = [each.read.step.tokens[place] for each in computed for place in each.own]
        values = self.tree_model.log_probabilities(torch.cat(list(hidden.values())), after, tokens)
        _check_numbers(values)
        rest = iter(values.tolist())
        return known | {id(each): tuple(islice(rest, len(each.own))) for each in computed}

    def _heads(self, states: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """What heads say of hidden states (n, hidden size): (n, outputs) of each, in float32."""
        found: dict[str, Tensor] = {}
        for name in names:
            if name in (SCORE, NEXT_TOKEN):
                found[name] = self._own_outputs(states)
            else:
                with torch.no_grad():
                    found[name] = head_values(heads_of(self.model)[name], states).reshape(len(states), -1)
        return found

    def _own_outputs(self, states: Tensor) -> Tensor:
        """What the model's own head says of hidden states (n, hidden size): (n, ...)."""
        size = self.tree_model.outputs_at_once
        parts = (self.tree_model.outputs(states[start : start + size]) for start in range(0, len(states), size))
        return torch.cat([part if self._judgement is None else self._judgement(part) for part in parts])


def _last_token(node: Node | None) -> tuple[Node, range]:
    """The last token of a path."""
    while node is not None:
        length = len(node.step.tokens_with_observation)
        if length:
            return node, range(length - 1, length)
        node = node.parent
    raise GradatimError("a prompt without tokens predicts no first step; tokenize it with at least a start token")


def _check_numbers(values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        raise GradatimError(
            "the model gave a log-probability that is not a number; it has diverged, or its number format is too "
            "narrow: try dtype='float32'",
            options=("dtype='float32'",),
        )
