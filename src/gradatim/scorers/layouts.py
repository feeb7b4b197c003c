"""How published process reward models read a solution, and where they say what a step is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from gradatim.errors import GradatimError
from gradatim.text.prompts import ChatFormat, prompt_tokens, question_of
from gradatim.text.transcript import own_tokens
from gradatim.tree import Problem, Step

STEP_TAG = "ки"
"""Math-Shepherd's mark of a step's end."""


class Layout(Protocol):
    """What a process reward model reads, and how its output becomes a probability.

    Attributes:
        name: what commands and recipes call it.
    """

    name: str

    def path_tokens(self, problem: Problem, steps: Sequence[Step]) -> list[int]:
        """The model's input for a partial solution; its output at the last token judges the last step."""
        ...

    def probability(self, output: Tensor) -> Tensor:
        """The probability that the step is right: (..., outputs) to (...)."""
        ...


class OwnLayout:
    """What models trained here read: the policy's prompt, then the steps as they are.

    Args:
        tokenizer: the model's.
        chat: how the problem is put, where it is a conversation.
    """

    name = "own"

    def __init__(self, tokenizer: Any, chat: ChatFormat | None = None) -> None:
        self.tokenizer = tokenizer
        self.chat = chat
        self._path_tokens = own_tokens(tokenizer, chat)

    def path_tokens(self, problem: Problem, steps: Sequence[Step]) -> list[int]:
        return self._path_tokens(problem, steps)

    def probability(self, output: Tensor) -> Tensor:
        return label_probability(output)


class StepTokenLayout:
    """A special token after each step, judged by a two-way head (Qwen2.5-Math-PRM, Zhang et al., 2025,
    arXiv:2501.07301).

    The problem is the user's turn of the model's chat template and the steps are the assistant's, stripped, each with
    ``step_token`` behind it.

    Args:
        tokenizer: the model's.
        step_token: written after each step.
        system: the system prompt that the model was trained with.

    Raises:
        GradatimError: if the tokenizer does not have ``step_token`` as one token.
    """

    name = "step-token"

    def __init__(
        self,
        tokenizer: Any,
        *,
        step_token: str = "<extra_0>",
        system: str = "Please reason step by step, and put your final answer within \\boxed{}.",
    ) -> None:
        self.tokenizer = tokenizer
        self.step_token = _one_token(tokenizer, step_token)
        self.chat = ChatFormat(system=system)

    def path_tokens(self, problem: Problem, steps: Sequence[Step]) -> list[int]:
        tokens = prompt_tokens(self.tokenizer, problem, self.chat)
        for text in _texts(steps):
            tokens += [*self.tokenizer.encode(text.strip(), add_special_tokens=False), self.step_token]
        return tokens

    def probability(self, output: Tensor) -> Tensor:
        return label_probability(output)


class StepTagLayout:
    """A tag after each step, where a language model weighs "+" against "-" (Math-Shepherd, Wang et al., 2023,
    arXiv:2312.08935).

    The text is ``question Step 1: … ки\\nStep 2: … ки``; steps that are not numbered yet are.

    Args:
        tokenizer: the model's.
        tag: written after each step.

    Raises:
        GradatimError: if the tokenizer does not have the tag, "+" or "-" as one token.
    """

    name = "step-tag"

    def __init__(self, tokenizer: Any, *, tag: str = STEP_TAG) -> None:
        self.tokenizer = tokenizer
        self.tag = tag
        self.tag_token, self.good, self.bad = (_spaced_token(tokenizer, mark) for mark in (tag, "+", "-"))

    def path_tokens(self, problem: Problem, steps: Sequence[Step]) -> list[int]:
        lines = [f"{_numbered(text.strip(), number)} {self.tag}" for number, text in enumerate(_texts(steps), 1)]
        text = f"{question_of(problem).strip()} " + "\n".join(lines)
        tokens = list(self.tokenizer(text)["input_ids"])
        if not steps:
            return tokens
        while tokens and tokens[-1] != self.tag_token:  # some tokenizers close every text
            tokens.pop()
        return tokens

    def probability(self, output: Tensor) -> Tensor:
        return output[..., [self.good, self.bad]].softmax(dim=-1)[..., 0]


class DialogueLayout:
    """Each step is a user's turn, and the assistant answers "+" or "-" (RLHFlow's models, Xiong et al., 2024).

    The first turn is the problem and the first step. What is read is the prediction of the answer; the answers
    themselves are all "+", as their authors have it.

    Args:
        tokenizer: the model's; it must have a chat template.
    """

    name = "dialogue"

    def __init__(self, tokenizer: Any) -> None:
        if not tokenizer.chat_template:
            raise GradatimError("this reward model answers in a dialogue, but its tokenizer has no chat template")
        self.tokenizer = tokenizer
        self.good, self.bad = (_last_token(tokenizer, mark) for mark in ("+", "-"))

    def path_tokens(self, problem: Problem, steps: Sequence[Step]) -> list[int]:
        question = question_of(problem).strip()
        texts = [text.strip() for text in _texts(steps)]
        turns = [f"{question} {texts[0]}", *texts[1:]] if texts else [question]
        messages = []
        for turn in turns:
            messages += [{"role": "user", "content": turn}, {"role": "assistant", "content": "+"}]
        return list(self.tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False))

    def probability(self, output: Tensor) -> Tensor:
        return output[..., [self.good, self.bad]].softmax(dim=-1)[..., 0]


class SeparatorLayout:
    """A separator after each step, where a token classifier says what it is worth (TRL's ``PRMTrainer``, until 1.13).

    Prompt and steps are tokenized each by itself; label 1 of two is "right".

    Args:
        tokenizer: the model's.
        separator: written after each step in place of its own line end.
    """

    name = "separator"

    def __init__(self, tokenizer: Any, *, separator: str = "\n") -> None:
        self.tokenizer = tokenizer
        self.separator = list(tokenizer.encode(separator, add_special_tokens=False))
        self.begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]

    def path_tokens(self, problem: Problem, steps: Sequence[Step]) -> list[int]:
        tokens = [*self.begin, *self.tokenizer.encode(problem.prompt, add_special_tokens=False)]
        for text in _texts(steps):
            tokens += [*self.tokenizer.encode(text.rstrip("\n"), add_special_tokens=False), *self.separator]
        return tokens

    def probability(self, output: Tensor) -> Tensor:
        return label_probability(output)


class ValueHeadLayout:
    """A value head, read at the line end after each step (Skywork-o1-Open-PRM, 2024).

    Args:
        tokenizer: the model's.
        step_end: what ends a step; its last token is read.
    """

    name = "value-head"

    def __init__(self, tokenizer: Any, *, step_end: str = "\n") -> None:
        self.tokenizer = tokenizer
        self.step_end = step_end
        self.step_token = _last_token(tokenizer, step_end)

    def path_tokens(self, problem: Problem, steps: Sequence[Step]) -> list[int]:
        begin = self.tokenizer.bos_token or ""
        question = question_of(problem).strip()
        tokens = list(self.tokenizer.encode(f"{begin}{question}\n", add_special_tokens=False))
        for text in _texts(steps):
            tokens += [*self.tokenizer.encode(text.strip(self.step_end), add_special_tokens=False), self.step_token]
        return tokens

    def probability(self, output: Tensor) -> Tensor:
        return label_probability(output)


def label_probability(logits: Tensor) -> Tensor:
    """The probability of "right" from logits of one label or two: (..., labels) to (...)."""
    if logits.shape[-1] == 1:
        return logits.squeeze(-1).sigmoid()
    return logits.softmax(dim=-1)[..., 1]


def has_step_tag(tokenizer: Any) -> bool:
    """Whether a tokenizer writes Math-Shepherd's step tag as one token."""
    try:
        _spaced_token(tokenizer, STEP_TAG)
    except GradatimError:
        return False
    return True


def _texts(steps: Sequence[Step]) -> list[str]:
    return [step.text_with_observation for step in steps]


def _numbered(step: str, number: int) -> str:
    return step if step.startswith(f"Step {number}:") else f"Step {number}: {step}"


def _one_token(tokenizer: Any, text: str) -> int:
    tokens = tokenizer.encode(text, add_special_tokens=False)
    if len(tokens) != 1 or tokens[0] == tokenizer.unk_token_id:
        raise GradatimError(
            f"the reward model's tokenizer does not have {text!r} as one token; choose another layout",
            options=("layout",),
        )
    return int(tokens[0])


def _spaced_token(tokenizer: Any, text: str) -> int:
    """The one token of ``text`` behind a space, as it stands in a solution."""
    token = _last_token(tokenizer, f" {text}")
    if tokenizer.decode([token]).strip() != text:
        raise GradatimError(
            f"the reward model's tokenizer does not have {text!r} as one token; choose another layout",
            options=("layout",),
        )
    return token


def _last_token(tokenizer: Any, text: str) -> int:
    tokens = tokenizer.encode(text, add_special_tokens=False)
    if not tokens or tokens[-1] == tokenizer.unk_token_id:
        raise GradatimError(
            f"the reward model's tokenizer has no token for {text!r}; choose another layout", options=("layout",)
        )
    return int(tokens[-1])
