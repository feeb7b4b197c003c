"""Trees in another tokenizer's tokens: for models that read what another model, a server or a file wrote."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol

from gradatim.engine.identity import tokenizer_identity
from gradatim.text.prompts import ChatFormat, continuation_tokens, prompt_tokens, step_tokens
from gradatim.tree import EndReason, Node, Problem, Step, Tree, grown_with_another

_STEPS_LOOKED_AT = 8  # of a tree whose tokenizer was not noted


class PathTokens(Protocol):
    """Writes a partial solution as a model reads it."""

    def __call__(self, problem: Problem, steps: Sequence[Step]) -> list[int]:
        """The tokens of a problem and its steps so far, with their observations, whatever their own tokens are."""
        ...


class Transcript:
    """Trees as a model with its own tokens and layout reads them, each token once as far as the layout allows.

    Every node has its counterpart in a tree of the model's tokens. What a node adds to its parent is a node of its
    own there, so that a model reads a step from the cached state of its parent. Where a layout does not write a path
    as a continuation of any path before it (a tokenizer that merges across a step boundary), the path is written anew
    as a tree of its own: always exact, and incremental wherever it can be.

    What an environment wrote after a step is a node of its own below the step's, where steps follow; or, where a layout
    does not write it behind what it writes of the step alone (it closes each step with a mark), the step is there
    twice: without its observation, where it is read, and with it, where it is followed.

    Args:
        path_tokens: the layout.
    """

    def __init__(self, path_tokens: PathTokens) -> None:
        self._path_tokens = path_tokens
        self._read: weakref.WeakKeyDictionary[Tree, dict[int, Node]] = weakref.WeakKeyDictionary()
        self._followed: weakref.WeakKeyDictionary[Tree, dict[tuple[int, str], Node]] = weakref.WeakKeyDictionary()

    def counterpart(self, node: Node) -> Node:
        """The node at whose end, in the model's tokens, the step of ``node`` ends. It spends the same budget."""
        known = self._read.setdefault(node.tree, {})
        if node.id not in known:
            known[node.id] = self._write(node, replace(node.step, observation_text=""))
        return known[node.id]

    def followed(self, node: Node) -> Node:
        """The node whose path is what a next step below ``node`` follows, its observation included."""
        known = self._followed.setdefault(node.tree, {})
        for each in node.path():
            if (each.id, each.step.observation_text) not in known:
                known[each.id, each.step.observation_text] = self._with_observation(each)
        return known[node.id, node.step.observation_text]

    def note(self, node: Node, counterpart: Node) -> None:
        """Note that ``node`` is written as ``counterpart``, since a model wrote it in these very tokens."""
        self._read.setdefault(node.tree, {}).setdefault(node.id, counterpart)

    def forget(self, tree: Tree) -> list[Tree]:
        """Drop what is kept of a tree that is done; returns the trees of tokens that stood for it."""
        nodes = [*self._read.pop(tree, {}).values(), *self._followed.pop(tree, {}).values()]
        return list({id(node.tree): node.tree for node in nodes}.values())

    def _with_observation(self, node: Node) -> Node:
        counterpart, observation = self.counterpart(node), node.step.observation_text
        if node.is_root or not observation:
            return counterpart
        before = self._tokens(node, replace(node.step, observation_text=""))
        tokens = self._tokens(node, node.step)
        if tokens[: len(before)] != before:
            return self._write(node, node.step)
        return _below(counterpart, tokens[len(before) :], Step((), observation))

    def _write(self, node: Node, last: Step) -> Node:
        """The path of a node, of which the last step is written as ``last``."""
        tokens = self._tokens(node, last)
        for ancestor in reversed(node.path()[:-1]):
            before = self.followed(ancestor)
            prefix = before.tokens
            if tokens[: len(prefix)] == prefix:
                return _below(before, tokens[len(prefix) :], last)
        return Tree(node.tree.problem, prompt_tokens=tokens, seed=node.tree.seed, budget=node.tree.budget).root

    def _tokens(self, node: Node, last: Step) -> list[int]:
        steps = [] if node.is_root else [*(each.step for each in node.path()[1:-1]), last]
        return self._path_tokens(node.tree.problem, steps)


def _below(node: Node, tokens: Sequence[int], step: Step) -> Node:
    """The node below ``node`` that has the step in these tokens; the node itself, where there are none."""
    made = replace(step, tokens=tuple(tokens), log_probabilities=(), observation=(), observation_text="")
    return node.tree.add(node, made) if tokens else node


def own_tokens(tokenizer: Any, chat: ChatFormat | None = None) -> PathTokens:
    """The layout in which a policy with this tokenizer writes: the prompt, then the steps as they are."""

    def path_tokens(problem: Problem, steps: Sequence[Step]) -> list[int]:
        tokens = prompt_tokens(tokenizer, problem, chat)
        for step in steps:
            written = in_own_tokens(tokenizer, step)
            tokens += written.tokens_with_observation
        return tokens

    return path_tokens


def in_own_tokens(tokenizer: Any, step: Step) -> Step:
    """A step with its observation in the tokens of ``tokenizer``, without log-probabilities.

    A solution that the policy ended itself ends in the tokenizer's end token. One that ended with its answer does not,
    as in the tokens of a policy that went on; one that ended without any further text has nothing else.
    """
    ended = step.end is EndReason.END_OF_TEXT or (step.end.finishes and not step.text)
    tokens = step_tokens(tokenizer, step.text, finished=ended)
    observation = continuation_tokens(tokenizer, step.observation_text) if step.observation_text else ()
    return replace(step, tokens=tuple(tokens), log_probabilities=(), observation=tuple(observation))


def take_up(
    tree: Tree, tokenizer: Any, chat: ChatFormat | None, text: Callable[[Sequence[int], Sequence[int]], str]
) -> None:
    """Write the prompt's tokens to a tree that has none yet, and note that its tokens are those of ``tokenizer``.

    Of a tree that was stored before tokenizers were noted, the text of its steps tells whether they are.

    Args:
        tree: a tree without text steps.
        tokenizer, chat: of the policy that continues it.
        text: the policy's text of tokens (the second) that come after others (the first).

    Raises:
        GradatimError: if the tree is in another tokenizer's tokens; see also
            :func:`gradatim.text.prompts.prompt_tokens`.
    """
    known = tree.root.step.tokens
    if known and tree.tokenizer is None:
        whole = (node for node in tree.nodes[1:] if node.step.text and node.step.end is EndReason.BOUNDARY)
        for node in islice(whole, _STEPS_LOOKED_AT):
            before = node.tokens[: -len(node.step.tokens)]
            if text(before, node.step.tokens) != node.step.text:
                raise grown_with_another(tree)
    tree.set_prompt_tokens(known or prompt_tokens(tokenizer, tree.problem, chat), tokenizer_identity(tokenizer))


def is_in_tokens_of(tree: Tree, tokenizer: Any, prompt: Sequence[int]) -> bool:
    """Whether every step of a tree is in the tokens of ``tokenizer``, which writes its prompt as ``prompt``."""
    if tree.has_text_steps or list(tree.root.step.tokens) != list(prompt):
        return False
    return tree.tokenizer is None or tree.tokenizer == tokenizer_identity(tokenizer)


def in_tokens_of(tree: Tree, tokenizer: Any, chat: ChatFormat | None = None) -> Tree:
    """The tree itself if it is in the tokens of ``tokenizer``, else its copy in them.

    Arguments and errors are those of :func:`tokenized`.
    """
    if is_in_tokens_of(tree, tokenizer, prompt_tokens(tokenizer, tree.problem, chat)):
        return tree
    return tokenized(tree, tokenizer, chat)


def tokenized(tree: Tree, tokenizer: Any, chat: ChatFormat | None = None) -> Tree:
    """A copy of a tree with every step in ``tokenizer``'s tokens, for training a model on what others wrote.

    The copy has the same nodes, scores, counts and rewards, and no log-probabilities. Each step has the tokens that it
    has at a step boundary, whatever came before it (see :func:`in_own_tokens`).

    Args:
        tree: any tree; its own tokens, if it has any, are not looked at.
        tokenizer: of the model that is to be trained.
        chat: put the problem as a conversation; see :class:`gradatim.text.prompts.ChatFormat`.

    Raises:
        GradatimError: see :func:`gradatim.text.prompts.prompt_tokens`.
    """
    value = tree.to_json()
    value["tokenizer"] = tokenizer_identity(tokenizer)
    value["nodes"][0]["tokens"] = prompt_tokens(tokenizer, tree.problem, chat)
    for node, record in zip(tree.nodes[1:], value["nodes"][1:], strict=True):
        step = in_own_tokens(tokenizer, node.step)
        record |= {"tokens": list(step.tokens), "observation": list(step.observation)}
        record.pop("log_probabilities", None)
    return Tree.from_json(value)
