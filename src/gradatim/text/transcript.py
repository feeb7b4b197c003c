"""Trees in another tokenizer's tokens: for models that read what another model, a server or a file wrote."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol

from gradatim.engine.identity import tokenizer_identity
from gradatim.text.prompts import ChatFormat, continuation_tokens, prompt_tokens, step_tokens
from gradatim.tree import EndReason, Node, Problem, Tree, grown_with_another

_STEPS_LOOKED_AT = 8  # of a tree whose tokenizer was not noted


class PathTokens(Protocol):
    """Writes a partial solution as a model reads it."""

    def __call__(self, problem: Problem, steps: Sequence[str], *, finished: bool) -> list[int]:
        """The tokens of a problem and its steps so far; ``finished`` if the last step ends in the end token."""
        ...


class Transcript:
    """Trees as a model with its own tokens and layout reads them, each token once as far as the layout allows.

    Every node has its counterpart in a tree of the model's tokens. What a node adds to its parent is a node of its
    own there, so that a model reads a step from the cached state of its parent. Where a layout does not write a path
    as a continuation of any path before it (a tokenizer that merges across a step boundary), the path is written anew
    as a tree of its own: always exact, and incremental wherever it can be.

    Args:
        path_tokens: the layout.
    """

    def __init__(self, path_tokens: PathTokens) -> None:
        self._path_tokens = path_tokens
        self._counterparts: weakref.WeakKeyDictionary[Tree, dict[int, Node]] = weakref.WeakKeyDictionary()

    def counterpart(self, node: Node) -> Node:
        """The node whose path, in the model's tokens, is the path of ``node``. It spends the same budget."""
        known = self._counterparts.setdefault(node.tree, {})
        for each in node.path():
            if each.id not in known:
                known[each.id] = self._write(each, known)
        return known[node.id]

    def note(self, node: Node, counterpart: Node) -> None:
        """Note that ``node`` is written as ``counterpart``, since a model wrote it in these very tokens."""
        self._counterparts.setdefault(node.tree, {}).setdefault(node.id, counterpart)

    def forget(self, tree: Tree) -> list[Tree]:
        """Drop what is kept of a tree that is done; returns the trees of tokens that stood for it."""
        nodes = self._counterparts.pop(tree, {})
        return list({id(node.tree): node.tree for node in nodes.values()}.values())

    def _write(self, node: Node, known: dict[int, Node]) -> Node:
        path = node.path()
        tokens = self._path_tokens(node.tree.problem, step_texts(path), finished=ended_by_policy(node))
        for ancestor in reversed(path[:-1]):
            before = known[ancestor.id]
            prefix = before.tokens
            if tokens[: len(prefix)] == prefix:
                rest = tuple(tokens[len(prefix) :])
                return (
                    before.tree.add(before, replace(node.step, tokens=rest, log_probabilities=())) if rest else before
                )
        return Tree(node.tree.problem, prompt_tokens=tokens, seed=node.tree.seed, budget=node.tree.budget).root


def own_tokens(tokenizer: Any, chat: ChatFormat | None = None) -> PathTokens:
    """The layout in which a policy with this tokenizer writes: the prompt, then the steps as they are."""

    def path_tokens(problem: Problem, steps: Sequence[str], *, finished: bool) -> list[int]:
        tokens = prompt_tokens(tokenizer, problem, chat)
        for number, step in enumerate(steps, 1):
            tokens += step_tokens(tokenizer, step, finished=finished and number == len(steps))
        return tokens

    return path_tokens


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


def ended_by_policy(node: Node) -> bool:
    """Whether a model's own writing of the node's step ends in its end token.

    A solution that ended with its answer has none, as in the tokens of a policy that went on; one that ended without
    any further text has nothing else.
    """
    return node.step.end is EndReason.END_OF_TEXT or (node.finished and not node.step.text)


def step_texts(path: Sequence[Node]) -> list[str]:
    """The texts of the steps of a path from the root, each with what the environment wrote after it."""
    return [node.step.text + node.step.observation_text for node in path[1:]]


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
    has at a step boundary, whatever came before it. A solution that the policy ended itself ends in the tokenizer's
    end token.

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
        record["tokens"] = step_tokens(tokenizer, node.step.text, finished=ended_by_policy(node))
        if node.step.observation_text:
            record["observation"] = continuation_tokens(tokenizer, node.step.observation_text)
        record.pop("log_probabilities", None)
    return Tree.from_json(value)
