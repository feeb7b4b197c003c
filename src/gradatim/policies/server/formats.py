"""The two APIs: what a request looks like, and where an answer keeps its text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gradatim.errors import GradatimError
from gradatim.policies.server.division import Piece
from gradatim.text.prompts import ChatFormat
from gradatim.tree import Problem


class Format(Protocol):
    """One of the APIs.

    Attributes:
        path: below the server's URL.
        log_probabilities: the fields that ask for them.
    """

    path: str
    log_probabilities: Mapping[str, Any]

    def prompt(self, problem: Problem, solution: str) -> dict[str, Any]:
        """The fields that put the problem and the solution so far, which is to be continued."""
        ...

    def pieces(self, choice: Mapping[str, Any]) -> list[Piece]:
        """What a choice of an answer, or of a part of a streamed answer, adds.

        Raises:
            KeyError, TypeError, ValueError: if it has not the shape that it should have.
        """
        ...


class Completions:
    """``/completions``: text is continued as it is."""

    path = "completions"
    log_probabilities: Mapping[str, Any] = {"logprobs": 1}

    def prompt(self, problem: Problem, solution: str) -> dict[str, Any]:
        return {"prompt": problem.prompt + solution}

    def pieces(self, choice: Mapping[str, Any]) -> list[Piece]:
        return _pieces(_text(choice["text"]), choice.get("logprobs"))


class ChatCompletions:
    """``/chat/completions``: the solution so far is a partial message of the assistant, which the server continues.

    Args:
        chat: system prompt and examples.
    """

    path = "chat/completions"
    log_probabilities: Mapping[str, Any] = {"logprobs": True}

    def __init__(self, chat: ChatFormat) -> None:
        self.chat = chat

    def prompt(self, problem: Problem, solution: str) -> dict[str, Any]:
        messages = self.chat.messages(problem)
        if not solution:
            return {"messages": messages}
        return {
            "messages": [*messages, {"role": "assistant", "content": solution}],
            "continue_final_message": True,
            "add_generation_prompt": False,
        }

    def pieces(self, choice: Mapping[str, Any]) -> list[Piece]:
        message = choice["delta"] if "delta" in choice else choice["message"]
        if not isinstance(message, Mapping):
            raise TypeError(f"a message is a {type(message).__name__}")
        if message.get("reasoning_content") or message.get("reasoning"):
            raise GradatimError(
                "the server sends the model's reasoning apart from its answer, so steps would lack it; start the "
                "server without a reasoning parser, or use api='completions'",
                options=("api='completions'",),
            )
        return _pieces(_text(message.get("content")), choice.get("logprobs"))


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"text is a {type(value).__name__}")
    return value


def _pieces(text: str, logprobs: Any) -> list[Piece]:
    """The pieces of ``text``: one for each token where log-probabilities show them, else one."""
    shown = _shown_tokens(logprobs)
    if not shown:
        return [Piece(text, 1, None)] if text else []
    tokens = [token for token, _ in shown if token is not None]
    if len(tokens) == len(shown) and "".join(tokens) == text:
        return [
            Piece(token, 1, None if value is None else (value,), len(token))
            for token, (_, value) in zip(tokens, shown, strict=True)
        ]
    # parts of characters, special tokens, or text that is held back
    values = tuple(value for _, value in shown if value is not None)
    spelled = len("".join(tokens)) if tokens else None
    return [Piece(text, len(shown), values if len(values) == len(shown) else None, spelled)]


def _shown_tokens(logprobs: Any) -> Sequence[tuple[str | None, float | None]] | None:
    """Each token's text, if the server shows it, and its log-probability, in either API's form, which servers do not
    keep apart.

    What is no log-probability is ``None``, and so is that of a token for which there is none.
    """
    if not isinstance(logprobs, Mapping):
        return None
    content, values, tokens = (logprobs.get(name) for name in ("content", "token_logprobs", "tokens"))
    if isinstance(content, list):
        entries = [entry if isinstance(entry, Mapping) else {} for entry in content]
        return [(str(entry.get("token", "")), _log_probability(entry.get("logprob"))) for entry in entries]
    if isinstance(tokens, list) and tokens:
        known = [_log_probability(value) for value in values[: len(tokens)]] if isinstance(values, list) else []
        return list(zip(map(str, tokens), [*known, *[None] * (len(tokens) - len(known))], strict=True))
    if isinstance(values, list):
        return [(None, _log_probability(value)) for value in values]
    return None


def _log_probability(value: Any) -> float | None:
    """A log-probability; ``None`` for what is none: no finite number, or one above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value <= 0:
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
