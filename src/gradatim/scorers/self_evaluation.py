"""A model's own word on a step: how likely it would say that the step is right."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gradatim.engine.reader import NEXT_TOKEN, Reader
from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.scorers.base import Context, ModelName, ScorerPart, StepScorer
from gradatim.text.prompts import known_tokens
from gradatim.tree import Node, Tree

PROMPT = "\nIs the last step correct?\n(A) True\n(B) False\nThe last step is: ("


@part
class SelfEvaluationPart(ScorerPart):
    """The policy's own probability that a step is right (MCTS-DPO, 2024, arXiv:2405.00451; after arXiv:2207.05221).

    A question is put behind the path up to the step, and the model's next token says true or false. Nothing is written:
    the question is read, paid for with each step, and is no part of the tree.
    """

    model: ModelName = "policy"
    """The model that is asked."""
    prompt: str = PROMPT
    """The question, as it continues the solution."""
    right: str = "A"
    """The word that says that the step is right; one token."""
    wrong: str = "B"
    """The word that says that it is wrong; one token."""

    def open(self, context: Context) -> SelfEvaluationScorer:
        return SelfEvaluationScorer(context.reader(self.model), self.name, self.prompt, self.right, self.wrong)


class SelfEvaluationScorer(StepScorer):
    """Scores a step by the probability of one word against another behind a question about it, from 0 to 1; a prompt
    has no score.

    Args:
        reader: reads the model.
        name: the key in ``node.scores``.
        prompt, right, wrong: as in :class:`SelfEvaluationPart`.

    Raises:
        GradatimError: if the tokenizer does not know the question, or a word is not one token.
    """

    def __init__(
        self, reader: Reader, name: str = "self_evaluation", prompt: str = PROMPT, right: str = "A", wrong: str = "B"
    ) -> None:
        super().__init__(name)
        self.reader = reader
        self._prompt = known_tokens(reader.tokenizer, prompt)
        if not self._prompt:
            raise GradatimError("prompt is empty; ask whether the last step is right, so that a word follows")
        self._words = [_token(reader, right), _token(reader, wrong)]
        if self._words[0] == self._words[1]:
            raise GradatimError(f"right and wrong are the same token, {right!r}; choose words that differ")

    async def judged(self, nodes: Sequence[Node]) -> list[float | None]:
        asked = [node for node in nodes if not node.is_root]
        readings = await self.reader.read(
            [self.reader.aside(node, self._prompt) for node in asked], heads=(NEXT_TOKEN,)
        )
        read = {node: each.heads[NEXT_TOKEN] for node, each in zip(asked, readings, strict=True) if each is not None}
        return [_probability(read[node][self._words]) if node in read else None for node in nodes]

    def release(self, tree: Tree) -> None:
        """Drop what is cached of a tree that is done."""
        self.reader.release(tree)


def _probability(logits: torch.Tensor) -> float:
    """That of the first of two words."""
    return float(logits.softmax(dim=-1)[0])


def _token(reader: Reader, word: str) -> int:
    tokens = known_tokens(reader.tokenizer, word)
    if len(tokens) != 1:
        raise GradatimError(
            f"{word!r} is {len(tokens)} tokens in the model's tokenizer, but its probability is that of one; choose "
            "another word (right, wrong), such as a letter"
        )
    return tokens[0]
