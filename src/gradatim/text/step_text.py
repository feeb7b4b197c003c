"""How a tokenizer's tokens read as text, and where a step ends. Text is never tokenized again."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradatim.errors import GradatimError
from gradatim.text.boundaries.base import Boundary
from gradatim.text.solution_end import NEVER, SolutionEnd

_PART = "\ufffd"  # reads a character that is not whole yet
CONTEXT_TOKENS = 8  # decoded before a step, so that its first piece keeps its leading space


class Mark(IntFlag):
    """What a token tells of the ends of its step and its solution; 0 is nothing."""

    BOUNDARY = 1  # a step may be known to have ended
    LOOK = 2  # it completes a line or a stop string, so that the solution may have ended
    END_OF_TEXT = 4  # it ends the text


class StepText:
    """A tokenizer as the engine needs it.

    Args:
        model: the model; its generation settings may name further end tokens.
        tokenizer: its tokenizer.

    Attributes:
        end_tokens: the tokens that end a text.

    Raises:
        GradatimError: if the tokenizer has no end token.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.eos_token_id is None:
            raise GradatimError(
                "the tokenizer has no end token, so no solution could ever end; set its eos_token and save it again"
            )
        configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        several = configured if isinstance(configured, (list, tuple)) else [configured]
        self.end_tokens = frozenset(int(token) for token in (tokenizer.eos_token_id, *several) if token is not None)
        self._tokenizer = tokenizer
        # Fast tokenizers hand decoding to their backend after looking at every id, which takes ten times as long.
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._decoder = tokenizer.decode if backend is None else backend.decode
        self._decoder_options = {"clean_up_tokenization_spaces": False} if backend is None else {}
        self._size = max(len(tokenizer), int(model.config.get_text_config().vocab_size))
        self._marks: dict[tuple[Boundary, SolutionEnd], NDArray[np.uint8]] = {}

    def text(self, before: Sequence[int], tokens: Sequence[int]) -> str:
        """The text of ``tokens`` after the tokens ``before``; special tokens have none."""
        near = list(before[-CONTEXT_TOKENS:])
        context = self._decode(near)
        whole = self._decode([*near, *tokens])
        return whole[len(context) :] if whole.startswith(context) else self._decode(tokens)

    def marks(self, boundary: Boundary, solution_end: SolutionEnd = NEVER) -> NDArray[np.uint8]:
        """A :class:`Mark` for each token id: (vocabulary,)."""
        key = boundary, solution_end
        if key not in self._marks:
            telling = solution_end.telling if solution_end else frozenset()
            marks = np.zeros(self._size, dtype=np.uint8)
            for token, piece in enumerate(self._pieces()):
                if boundary.may_end(piece):
                    marks[token] |= Mark.BOUNDARY
                if any(_may_hold(piece, character) for character in telling):
                    marks[token] |= Mark.LOOK
            marks[[token for token in self.end_tokens if token < self._size]] = Mark.END_OF_TEXT
            self._marks[key] = marks
        return self._marks[key]

    def _pieces(self) -> list[str]:
        """The text of every token where it stands behind another one: some tokenizers take a leading space off the
        first token of a text."""
        tokens = range(len(self._tokenizer))
        letter = next(([token] for token in tokens if re.fullmatch("[A-Za-z]", self._decode([token]))), [])
        start = self._decode(letter)
        texts = self._tokenizer.batch_decode([[*letter, token] for token in tokens], clean_up_tokenization_spaces=False)
        return [
            text.removeprefix(start) if text.startswith(start) else self._decode([token])
            for token, text in enumerate(texts)
        ]

    def end(self, boundary: Boundary, before: Sequence[int], tokens: Sequence[int], values: Sequence[float]) -> int:
        """How many of ``tokens`` are the step that they begin; 0 while it goes on.

        Args:
            boundary: what ends it.
            before: tokens that come before.
            tokens: what was written after them.
            values: their log-probabilities.
        """
        return boundary.end(WrittenTokens(self, before[-CONTEXT_TOKENS:], tokens, values)) or 0 if tokens else 0

    def holding(self, before: Sequence[int], tokens: Sequence[int], characters: int) -> int:
        """How many of ``tokens``, after the tokens ``before``, hold so many whole characters of their text."""

        def held(count: int) -> int:
            return len(self.text(before, tokens[:count]).rstrip(_PART))

        return bisect_left(range(len(tokens)), characters, key=held)

    def cut(self, before: Sequence[int], tokens: Sequence[int], solution: int, seen: int) -> tuple[int, int]:
        """Where a text that has gone beyond its solution is cut.

        Args:
            before: tokens that come before.
            tokens: what was written after them, at least one.
            solution: characters of it that are the solution; may be negative.
            seen: characters of it after which the end was seen.

        Returns:
            How many tokens hold the solution, and how many are kept: those up to where its end was seen, at least one.
        """
        kept = min(len(tokens), max(1, self.holding(before, tokens, seen)))
        return self.holding(before, tokens, solution), kept

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._decoder(list(tokens), skip_special_tokens=True, **self._decoder_options))


@dataclass(frozen=True, slots=True)
class WrittenTokens:
    """A step in tokens; see :class:`gradatim.text.boundaries.base.Written`."""

    reader: StepText
    before: Sequence[int]
    tokens: Sequence[int]
    log_probabilities: Sequence[float]

    @property
    def text(self) -> str:
        return self.reader.text(self.before, self.tokens).rstrip(_PART)

    def at_character(self, count: int) -> int:
        return self.reader.holding(self.before, self.tokens, count)

    def at_token(self, count: int) -> int | None:
        return count if count <= len(self.tokens) else None

    def behind(self, place: int) -> WrittenTokens:
        before = [*self.before, *self.tokens[:place]][-CONTEXT_TOKENS:]
        return WrittenTokens(self.reader, before, self.tokens[place:], self.log_probabilities[place:])


def _may_hold(piece: str, character: str) -> bool:
    return character in piece or ("\ufffd" in piece and not character.isascii())
