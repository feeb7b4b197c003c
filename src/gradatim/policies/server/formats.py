"""The two APIs: what a request looks like, and where an answer keeps its text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gradatim.errors import GradatimError
from gradatim.policies.prompts import ChatFormat
from gradatim.policies.server.division import Piece
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
    if shown is None:
        return [Piece(text, 1, None)] if text else []
    if "".join(token for token, _ in shown) == text:
        return [Piece(token, 1, (value,)) for token, value in shown]
    values = tuple(value for _, value in shown)  # parts of characters, special tokens, or text that is held back
    return [Piece(text, len(values), values)]


def _shown_tokens(logprobs: Any) -> Sequence[tuple[str, float]] | None:
    """Each token's text and log-probability, in either API's form, which servers do not keep apart."""
    if not isinstance(logprobs, Mapping):
        return None
    if isinstance(logprobs.get("content"), list):
        return [(str(entry["token"]), float(entry["logprob"])) for entry in logprobs["content"]]
    if isinstance(logprobs.get("token_logprobs"), list):
        values = [float(value) for value in logprobs["token_logprobs"]]
        tokens = logprobs.get("tokens")
        return list(zip(map(str, tokens), values, strict=True)) if tokens else [("\0", value) for value in values]
    return None
