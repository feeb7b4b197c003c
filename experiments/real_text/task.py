"""The text that the language model learns, as a task."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pydantic import PositiveInt
from transformers import PreTrainedTokenizerBase

from experiments.real_text.documents import language_documents, part_named
from experiments.real_text.tokenizer import train_tokenizer
from gradatim.part import part
from gradatim.tasks.base import Task
from gradatim.tasks.gsm8k import extract_answer
from gradatim.tree import Problem


@part
class RealText(Task):
    """Right solutions of GSM8K and PRMBench, a step a line; its tokenizer is made of the training text."""

    data: str = "../shared/data"
    """The folder that holds gsm8k/ and prmbench/."""
    vocabulary: PositiveInt = 4096
    """Entries of the tokenizer's vocabulary."""

    @property
    def files(self) -> tuple[Path, ...]:
        return (Path(self.data) / "gsm8k", Path(self.data) / "prmbench")

    def demonstrations(self, split: str) -> Iterator[tuple[Problem, str]]:
        """Every right solution of a split."""
        for number, each in enumerate(language_documents(Path(self.data), part_named(split))):
            solution = "".join(each.steps)
            data = {"question": each.question, "solution": solution}
            yield Problem(f"{split}-{number}", each.prompt, extract_answer(solution), data), solution

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return train_tokenizer(
            [problem.prompt + solution for problem, solution in self.demonstrations("train")], self.vocabulary
        )

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        return [problem for problem, _ in islice(self.demonstrations(split), count)]

    def answer(self, problem: Problem, text: str) -> str | None:
        return extract_answer(text)
