"""How a problem is put to a model: as plain text to continue, or as a conversation whose answer is to be written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradatim.errors import GradatimError
from gradatim.part import options
from gradatim.tree import Problem


@options
class ChatFormat:
    """A conversation in the tokenizer's own chat template, up to where the assistant's answer begins.

    The solution is that answer: a step continues the assistant's turn token by token, whatever was sampled before, and
    nothing is rendered or tokenized again at a step boundary. The user's message is the problem's bare question where
    the task keeps one (``problem.data["question"]``), else its prompt.
    """

    system: str | None = None
    """The system prompt, if any."""
    examples: tuple[tuple[str, str], ...] = ()
    """Worked examples before the problem: pairs of a question and its answer."""

    def messages(self, problem: Problem) -> list[dict[str, str]]:
        """The conversation, the problem last, as chat templates and servers take it."""
        turns = [] if self.system is None else [{"role": "system", "content": self.system}]
        for question, answer in self.examples:
            turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return [*turns, {"role": "user", "content": question_of(problem)}]

    def to_json(self) -> dict[str, Any]:
        return {"system": self.system, "examples": [list(example) for example in self.examples]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ChatFormat:
        return cls(system=value.get("system"), examples=value.get("examples", ()))


def question_of(problem: Problem) -> str:
    """The bare question of a problem where its task keeps one, else its prompt."""
    return str(problem.data.get("question", problem.prompt))


def prompt_tokens(tokenizer: Any, problem: Problem, chat: ChatFormat | None = None) -> list[int]:
    """The tokens of a problem's prompt: plain text, or with ``chat`` a conversation in the tokenizer's template.

    Raises:
        GradatimError: if the prompt is empty or has text that the tokenizer does not know, or the tokenizer has no
            chat template or its template refuses the conversation.
    """
    tokens = _plain_tokens(tokenizer, problem) if chat is None else _chat_tokens(tokenizer, problem, chat)
    if not tokens:
        raise GradatimError(f"problem {problem.id!r} has an empty prompt; give the policy text to continue")
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown != tokenizer.eos_token_id and unknown in tokens:
        raise GradatimError(
            f"the policy's tokenizer has no tokens for part of problem {problem.id!r}: {problem.prompt!r}; "
            "use problems of the kind that the policy was trained on"
        )
    return tokens


def continuation_tokens(tokenizer: Any, text: str) -> list[int]:
    """The tokens of text that follows other text at a step boundary.

    Sentence-piece tokenizers put a space before whatever they are given first; encoded behind a line break, which is
    taken off again, the text has the tokens that it has inside a solution.
    """
    before = tokenizer.encode("\n", add_special_tokens=False)
    whole = tokenizer.encode("\n" + text, add_special_tokens=False)
    if before and whole[: len(before)] == before:
        return list(whole[len(before) :])
    return list(tokenizer.encode(text, add_special_tokens=False))


def known_tokens(tokenizer: Any, text: str) -> list[int]:
    """The tokens of text that a model is asked to read behind a step.

    Raises:
        GradatimError: if the reader has no tokenizer, or the tokenizer does not know part of the text.
    """
    if tokenizer is None:
        raise GradatimError(
            f"nothing can be put behind a step without the model's tokenizer, such as {text!r}; give it"
        )
    tokens = continuation_tokens(tokenizer, text)
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown != tokenizer.eos_token_id and unknown in tokens:
        raise GradatimError(
            f"the model's tokenizer has no tokens for part of {text!r}; word it as the model was trained to read"
        )
    return tokens


def step_tokens(tokenizer: Any, text: str, *, finished: bool) -> list[int]:
    """The tokens of a step; a finished solution ends in the tokenizer's end token, as a policy writes it."""
    tokens = continuation_tokens(tokenizer, text)
    return [*tokens, int(tokenizer.eos_token_id)] if finished and tokenizer.eos_token_id is not None else tokens


def solution_tokens(tokenizer: Any, text: str, chat: ChatFormat | None = None) -> list[int]:
    """The tokens of a whole solution behind its prompt, with the token that ends it.

    Raises:
        GradatimError: if there is no end token.
    """
    end = tokenizer.eos_token_id if chat is None else _end_of_turn(tokenizer)
    if end is None:
        raise GradatimError("the tokenizer has no end token, so no solution could end; set its eos_token")
    return [*continuation_tokens(tokenizer, text), int(end)]


def _end_of_turn(tokenizer: Any) -> int | None:
    """The special token that the chat template writes behind an answer; the end token, where it writes none."""
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
    rendered = str(tokenizer.apply_chat_template(turns, tokenize=False))
    behind = tokenizer.encode(rendered.rsplit("answer", 1)[-1], add_special_tokens=False)
    special = set(tokenizer.all_special_ids)
    found: int | None = next((token for token in behind if token in special), tokenizer.eos_token_id)
    return found


def _plain_tokens(tokenizer: Any, problem: Problem) -> list[int]:
    tokens = list(tokenizer(problem.prompt)["input_ids"])
    while len(tokens) > 1 and tokens[-1] == tokenizer.eos_token_id:
        tokens.pop()  # some tokenizers close every text
    return tokens


def _chat_tokens(tokenizer: Any, problem: Problem, chat: ChatFormat) -> list[int]:
    if not tokenizer.chat_template:
        raise GradatimError(
            "the tokenizer has no chat template; use an instruction-tuned model, or give it plain text with chat=None",
            options=("chat=None",),
        )
    try:
        return list(
            tokenizer.apply_chat_template(chat.messages(problem), add_generation_prompt=True, return_dict=False)
        )
    except Exception as error:  # templates are programs of the model's authors and raise what they like
        raise GradatimError(
            f"the model's chat template refuses this conversation: {error}; change the chat format"
        ) from error
