"""What the formats share whose rows are a prompt and what follows it: text, or a conversation of one question."""

from __future__ import annotations

from collections.abc import Mapping

from gradatim.part import options
from gradatim.records import MalformedRecordError, Record
from gradatim.store.published.base import STEP_END, PublishedFormat, Question


@options
class CompletionFormat(PublishedFormat):
    """A format of prompts and completions, each of which is read as one step.

    Texts stay as they are, to the last character. In the place of a text may stand a conversation: a user's message as
    the prompt, an assistant's as the completion, alone or behind the user's. A system message is left out, since a
    recipe says it (``policy.chat``).
    """

    steps_go_on: bool = True
    """Whether a completion that ends in a line end is a step that another one can follow; otherwise each completion
    ends its solution, as one without a line end does."""

    def question(self, row: Record) -> Question:
        prompt, _ = _turns(row, "prompt") if "prompt" in row else _turns(row, self._completions[0])
        if prompt is None:
            raise MalformedRecordError("has no text in the field 'prompt'")
        return Question(prompt.removesuffix(STEP_END), line_end=prompt.endswith(STEP_END))

    @property
    def _completions(self) -> tuple[str, ...]:
        """The fields that hold completions."""
        return ("completion",)

    def _completion(self, row: Record, name: str) -> tuple[str, bool]:
        """A completion as a builder of trees takes it, without the line end of a step that goes on, and whether it ends
        its solution."""
        _, text = _turns(row, name)
        if not text:
            raise MalformedRecordError(f"has no text in the field {name!r}")
        finished = not (self.steps_go_on and text.endswith(STEP_END))
        return text if finished else text.removesuffix(STEP_END), finished


def _turns(row: Record, name: str) -> tuple[str | None, str | None]:
    """The question and the answer that a field holds, as far as it does; text is what the field's name says it is.

    Raises:
        MalformedRecordError: if it holds neither text nor a conversation of one question.
    """
    value = row.get(name)
    if isinstance(value, str):
        return (value, None) if name == "prompt" else (None, value)
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) for turn in value):
        raise MalformedRecordError(f"has no text in the field {name!r}")
    turns = [(turn.get("role"), turn.get("content")) for turn in value if turn.get("role") != "system"]
    said = dict(turns)
    if [role for role, _ in turns] not in (["user"], ["assistant"], ["user", "assistant"]) or not all(
        isinstance(text, str) for text in said.values()
    ):
        raise MalformedRecordError(f"has a conversation in the field {name!r} that is no single question and answer")
    return said.get("user"), said.get("assistant")
