"""What a model says of given steps: log-probabilities of their tokens, hidden states and heads at their ends."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice, takewhile

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradatim.budget import Account
from gradatim.engine.distributions import Measure
from gradatim.engine.heads import head_values, heads_of
from gradatim.engine.passes import next_pass
from gradatim.engine.path_length import longest_path
from gradatim.engine.reading import Reading, Request, by_step
from gradatim.engine.self_check import checked_tree_model
from gradatim.engine.too_long import TooLong
from gradatim.engine.tree_model import ModelStatistics, TreeModel, is_aside
from gradatim.errors import GradatimError
from gradatim.text.prompts import ChatFormat
from gradatim.text.transcript import PathTokens, Transcript, is_in_tokens_of, own_tokens
from gradatim.tree import EndReason, Node, Tree, depth_first

READER = Account("reader")
SCORE = "score"
"""The head that a token classifier has: its labels' logits."""
NEXT_TOKEN = "next_token"
"""The head that a causal language model has: the logits of the token after the step."""


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
        known_to: another account, for which the model reads and writes too: what that one paid for costs nothing here.
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
        known_to: Account | None = None,
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
        self._known_to = known_to
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
        self._waiting: list[Request] = []
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
        measures: Sequence[Measure] = (),
        hidden: bool = False,
        heads: Sequence[str] = (),
        attention: bool = False,
        keep: bool = True,
        account: Account | None = None,
    ) -> list[Reading | None]:
        """What the model says of the steps of nodes.

        The account of each tree is charged for the tokens of a path that it reads for the first time, in the order of
        ``nodes``. Log-probabilities that the model recorded when it wrote a step cost nothing.

        Args:
            nodes: of any trees.
            log_probabilities: of each token of the step.
            measures: what is made of the whole distribution that each of these tokens was drawn from, such as its
                entropy (:mod:`gradatim.engine.distributions`). It is computed from hidden states that are kept, never
                for more tokens of a vocabulary at once than fit in memory.
            hidden: the last hidden state at its end.
            heads: what these heads say there.
            attention: how much it attends to the steps of its path. Weights are not kept: that token is computed again
                each time.
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
        asked: dict[Node, Request | None] = {}
        for node in nodes:
            if node not in asked:
                request = self._request(node, log_probabilities, tuple(measures), hidden, tuple(heads), attention, keep)
                asked[node] = request if request is not None and self._pays(request, account) else None
        requests = [request for request in asked.values() if request is not None]
        self._wait(requests)
        await asyncio.gather(*(request.done for request in requests))
        return [None if request is None else request.done.result() for request in (asked[node] for node in nodes)]

    def _request(
        self,
        node: Node,
        log_probabilities: bool,
        measures: tuple[Measure, ...],
        hidden: bool,
        heads: tuple[str, ...],
        attention: bool,
        keep: bool,
    ) -> Request | None:
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
        own = self._own(node, read)
        ends = self._ends(node, read, length) if attention else ()
        return Request(read, own, recorded, log_probabilities, measures, hidden, heads, ends, keep, done)

    def _ends(self, node: Node, read: Node, length: int) -> tuple[int, ...]:
        """Where the prompt and each step of a path end, as the model reads it; the last one at ``length``. Where a
        layout writes a path anew, a step ends where the path to there would."""
        transcript = None if read is node else self._transcript
        before = [each if transcript is None else transcript.followed(each) for each in node.path()[:-1]]
        return (*(min(len(each.tokens), length) for each in before), length)

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

    def _pays(self, request: Request, account: Account) -> bool:
        free = not request.at_end and not request.predictors()
        return free or self.tree_model.charge(request.read, account, behind=False, known_to=self._known_to)

    def as_read(self, node: Node) -> Node:
        """The node in the tokens that the model reads.

        Raises:
            GradatimError: if the tree has no tokens, and the reader does not know how to write them.
        """
        if is_aside(node):
            return node
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

    def aside(self, node: Node, tokens: Sequence[int]) -> Node:
        """A node behind ``node`` that can be read like any other and is no part of the tree: a question about the step,
        an answer that might follow. The tokens are the model's own.

        Behind a solution that the policy ended they stand in the place of its end token; with it the last step's tokens
        are read again, as tokens of the node.
        """
        read = self.as_read(node)
        if read is not node and self._transcript is not None:
            read = self._transcript.followed(node)
        ended = node.step.end is EndReason.END_OF_TEXT or (node.finished and not node.step.text)
        if ended and read.parent is not None:
            return self.tree_model.aside(read.parent, [*read.step.tokens[:-1], *tokens])
        return self.tree_model.aside(read, tokens)

    def _knows_tokens_of(self, tree: Tree) -> bool:
        """Whether a tree's own tokens are what the model would read."""
        if self._path_tokens is None:
            return True
        if self.tokenizer is None or not tree.root.step.tokens:
            return False
        prompt = self._path_tokens(tree.problem, ())
        return is_in_tokens_of(tree, self.tokenizer, prompt)

    def _wait(self, requests: Sequence[Request]) -> None:
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

    def _read(self, batch: Sequence[Request]) -> list[Reading]:
        """One pass."""
        wanted: dict[Node, range] = {}
        for request in batch:
            for node, part in (*request.predictors(), *request.end()):
                before = wanted.get(node, part)
                wanted[node] = range(min(part.start, before.start), max(part.stop, before.stop))
        watched = {request.read: len(request.read.step.tokens) - 1 for request in batch if request.ends}
        hidden, weights = self.tree_model.read(wanted, watched, keep=any(request.keep for request in batch))
        log_probabilities, measured = self._predictions(batch, wanted, hidden)
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
                    measures=measured.get(id(request), ((),) * len(request.measures)),
                    hidden=states[place].clone() if request.hidden else None,
                    heads={name: heads[name][place] for name in request.heads},
                    attention=by_step(weights[request.read], request.ends) if request.ends else None,
                )
            )
        return readings

    def _predictions(
        self, batch: Sequence[Request], wanted: Mapping[Node, range], hidden: Mapping[Node, Tensor]
    ) -> tuple[dict[int, tuple[float, ...]], dict[int, tuple[tuple[float, ...], ...]]]:
        """Log-probabilities of each request that asks for them, and measures, by its id."""
        found = {id(each): each.recorded or () for each in batch if each.log_probabilities}
        measured: dict[int, tuple[tuple[float, ...], ...]] = {}
        starts: dict[Node, int] = {}
        total = 0
        for node, states in hidden.items():
            starts[node] = total - wanted[node].start
            total += len(states)

        def places(requests: Sequence[Request]) -> list[int]:
            return [starts[node] + place for each in requests for node, part in each.predictors() for place in part]

        asked = [request for request in batch if request.predictors()]
        unknown = [request for request in asked if request.log_probabilities and request.recorded is None]
        whole = torch.cat(list(hidden.values())) if asked else torch.empty(0)
        if unknown:
            tokens = [each.read.step.tokens[place] for each in unknown for place in each.own]
            values = self.tree_model.log_probabilities(whole, places(unknown), tokens)
            _check_numbers(values)
            rest = iter(values.tolist())
            found |= {id(each): tuple(islice(rest, len(each.own))) for each in unknown}
        if measuring := [request for request in asked if request.measures]:
            measures = list(dict.fromkeys(measure for request in measuring for measure in request.measures))
            made = self.tree_model.measures(whole, places(measuring), measures)
            _check_numbers(made)
            rows = {measure: iter(row.tolist()) for measure, row in zip(measures, made, strict=True)}
            for each in measuring:
                of_each = {measure: tuple(islice(row, len(each.own))) for measure, row in rows.items()}
                measured[id(each)] = tuple(of_each[measure] for measure in each.measures)
        return found, measured

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


def _check_numbers(values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        raise GradatimError(
            "the model gave a log-probability that is not a number; it has diverged, or its number format is too "
            "narrow: try dtype='float32'",
            options=("dtype='float32'",),
        )
