"""How a tokenizer's tokens read as text, and where a step ends. Text is never tokenized again."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradatim.errors import GradatimError
from gradatim.text.solution_end import NEVER, SolutionEnd

CONTEXT_TOKENS = 8  # decoded before a step, so that its first piece keeps its leading space


class Mark(IntEnum):
    """What a token tells of the end of its step."""

    NONE = 0
    BOUNDARY = 1  # its own text holds a boundary
    PERHAPS = 2  # it completes a boundary if the tokens before began one
    END_OF_TEXT = 3  # it ends the text
    LOOK = 4  # it completes a line or a stop string, so that the solution may have ended


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
        self._marks: dict[tuple[tuple[str, ...], SolutionEnd], NDArray[np.uint8]] = {}

    def text(self, before: Sequence[int], tokens: Sequence[int]) -> str:
        """The text of ``tokens`` after the tokens ``before``; special tokens have none."""
        near = list(before[-CONTEXT_TOKENS:])
        context = self._decode(near)
        whole = self._decode([*near, *tokens])
        return whole[len(context) :] if whole.startswith(context) else self._decode(tokens)

    def marks(self, step_end: tuple[str, ...], solution_end: SolutionEnd = NEVER) -> NDArray[np.uint8]:
        """A :class:`Mark` for each token id: (vocabulary,)."""
        key = step_end, solution_end
        if key not in self._marks:
            telling = solution_end.telling if solution_end else frozenset()
            pieces = self._tokenizer.batch_decode(
                [[token] for token in range(len(self._tokenizer))], clean_up_tokenization_spaces=False
            )
            marks = np.zeros(self._size, dtype=np.uint8)
            for token, piece in enumerate(pieces):
                if any(end in piece for end in step_end):
                    marks[token] = Mark.BOUNDARY
                elif any(_completes(piece, end) for end in step_end):
                    marks[token] = Mark.PERHAPS
                elif any(_may_hold(piece, character) for character in telling):
                    marks[token] = Mark.LOOK
            marks[[token for token in self.end_tokens if token < self._size]] = Mark.END_OF_TEXT
            self._marks[key] = marks
        return self._marks[key]

    def holds_boundary(self, tokens: Sequence[int], step_end: tuple[str, ...]) -> bool:
        """Whether the text of a step's last tokens holds a boundary."""
        longest = max(len(end.encode()) for end in step_end)  # no token is shorter than a byte
        text = self._decode(tokens[-longest:])
        return any(end in text for end in step_end)

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

        def holding(characters: int) -> int:
            counts = range(len(tokens) + 1)
            return bisect_left(counts, characters, key=lambda count: len(self.text(before, tokens[:count])))

        return holding(solution), min(len(tokens), max(1, holding(seen)))

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._decoder(list(tokens), skip_special_tokens=True, **self._decoder_options))


def _may_hold(piece: str, character: str) -> bool:
    return character in piece or ("\ufffd" in piece and not character.isascii())


def _completes(piece: str, end: str) -> bool:
    """Whether ``piece`` may write the last part of ``end``. (Part of a character reads as a replacement character.)"""
    if "\ufffd" in piece and not end.isascii():
        return True
    return any(piece.startswith(end[cut:]) for cut in range(1, len(end)))
