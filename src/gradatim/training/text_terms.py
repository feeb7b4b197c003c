"""Terms of trees that were written as text, in a model's tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from gradatim.errors import GradatimError
from gradatim.supervision.terms import Term
from gradatim.text.prompts import ChatFormat
from gradatim.text.transcript import in_tokens_of
from gradatim.tree import Node, Tree


def terms_in_tokens_of(terms: Iterable[Term], tokenizer: Any, chat: ChatFormat | None = None) -> list[Term]:
    """The same terms, each on a tree in the tokens of ``tokenizer``: its own, or a copy.

    A construction that writes new texts (a search trace) makes trees of text, since it knows no tokenizer.

    Raises:
        GradatimError: if the tokenizer has no tokens for what was written.
    """
    copies: dict[int, tuple[Tree, Tree]] = {}  # the first is kept, so that its id stays its own

    def in_tokens(node: Node) -> Node:
        tree = node.tree
        if id(tree) not in copies:
            copies[id(tree)] = tree, in_tokens_of(tree, tokenizer, chat)
            if copies[id(tree)][1] is not tree:
                _check_known(copies[id(tree)][1], tokenizer)
        return copies[id(tree)][1].nodes[node.id]

    return [
        replace(term, groups=tuple(replace(each, nodes=tuple(map(in_tokens, each.nodes))) for each in term.groups))
        for term in terms
    ]


def _check_known(tree: Tree, tokenizer: Any) -> None:
    unknown = getattr(tokenizer, "unk_token_id", None)
    step = next((node.step for node in tree.nodes[1:] if unknown is not None and unknown in node.step.tokens), None)
    if step is not None:
        raise GradatimError(
            f"the model's tokenizer does not know all words of the step {step.text!r}; where it is a mark, choose one "
            "(mark) of words that it knows"
        )
