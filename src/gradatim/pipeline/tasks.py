"""A recipe's task made real, and problems as people type them."""

from __future__ import annotations

import re

from transformers import PreTrainedTokenizerBase

from gradatim.errors import GradatimError
from gradatim.recipes.task_options import (
    CodeOptions,
    CountdownOptions,
    GeneratedTaskOptions,
    Gsm8kOptions,
    MathOptions,
    MultipleChoiceOptions,
    OwnTaskOptions,
    RecordsOptions,
    TaskOptions,
    WordProblemsOptions,
)
from gradatim.suggestions import suggestion
from gradatim.tasks.base import Task
from gradatim.tasks.code import Code
from gradatim.tasks.countdown import Countdown, make_problem
from gradatim.tasks.countdown_tokenizer import make_countdown_tokenizer
from gradatim.tasks.gsm8k import Gsm8k
from gradatim.tasks.loading import load_own_task
from gradatim.tasks.math import Math
from gradatim.tasks.multiple_choice import MultipleChoice
from gradatim.tasks.own import OwnTask
from gradatim.tasks.sandbox import SandboxLimits
from gradatim.tasks.word_problems import WordProblems
from gradatim.tasks.word_problems import make_problem as make_word_problem
from gradatim.tasks.word_problems.tokenizer import make_word_problem_tokenizer
from gradatim.tree import Problem

_READ_TASKS: dict[type[TaskOptions], type[Gsm8k | Math | MultipleChoice | OwnTask]] = {
    Gsm8kOptions: Gsm8k,
    MathOptions: Math,
    MultipleChoiceOptions: MultipleChoice,
    RecordsOptions: OwnTask,
}


def make_task(options: TaskOptions) -> Task:
    """The task that the options describe.

    Raises:
        GradatimError: if an option is out of its range or a source is missing.
    """
    if isinstance(options, CountdownOptions | WordProblemsOptions):
        return make_generated_task(options)
    if isinstance(options, OwnTaskOptions):
        return load_own_task(options.task, options.options)
    if isinstance(options, CodeOptions):
        given = options.model_dump(exclude={"name", "limits"}, exclude_none=True)
        return Code(**given, limits=SandboxLimits(**options.limits.model_dump()))
    return _READ_TASKS[type(options)](**options.model_dump(exclude={"name"}, exclude_none=True))


def make_generated_task(options: GeneratedTaskOptions) -> Countdown | WordProblems:
    """The task that the options describe, one that generates its problems.

    Raises:
        GradatimError: if an option is out of its range.
    """
    given = options.model_dump(exclude={"name"})
    return Countdown(**given) if isinstance(options, CountdownOptions) else WordProblems(**given)


def make_tokenizer(task: Countdown | WordProblems) -> PreTrainedTokenizerBase:
    """The tokenizer of a policy that is trained from scratch on ``task``."""
    if isinstance(task, Countdown):
        return make_countdown_tokenizer(task.difficulty.largest_result)
    return make_word_problem_tokenizer(task)


def default_task_options(name: str) -> TaskOptions:
    """A task's options with their defaults; the name may be one of a person's own (``task.yaml``, ``file.py:Class``).

    Raises:
        GradatimError: if there is no such task.
    """
    options: dict[str, TaskOptions] = {
        "countdown": CountdownOptions(name="countdown"),
        "word_problems": WordProblemsOptions(name="word_problems"),
        "gsm8k": Gsm8kOptions(name="gsm8k"),
        "math": MathOptions(name="math"),
        "multiple_choice": MultipleChoiceOptions(name="multiple_choice"),
    }
    if ":" in name or name.endswith((".yaml", ".yml")):
        return OwnTaskOptions(name="own", task=name)
    if name not in options:
        raise GradatimError(f"there is no task {name!r}; {suggestion(name, list(options))}")
    return options[name]


def problem_from_text(task: Task, text: str) -> Problem:
    """A problem of ``task`` as a person types it.

    Raises:
        GradatimError: if the text is none.
    """
    if isinstance(task, Countdown):
        found = re.fullmatch(r"\s*[Mm]ake (\d+) from((?:[ ,]+\d+)+)\s*", text)
        if found is None:
            raise GradatimError(f"{text!r} is no countdown problem; write one like 'Make 50 from 3 5 7 8'")
        return make_problem([int(number) for number in re.findall(r"\d+", found[2])], int(found[1]))
    if isinstance(task, WordProblems):
        return make_word_problem(" ".join(text.split()) + "\n")
    if isinstance(task, Gsm8k | Math):
        prompt = re.sub(r"\{(question|problem)\}", lambda _: text, task.template)
        return Problem("question", prompt, None, {"question": text})
    return task.ask(text) if isinstance(task, OwnTask) else Problem("question", text)
