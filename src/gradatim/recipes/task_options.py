"""What a recipe may say of its task: the options of each, by the names of the task's own arguments."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt


class Section(BaseModel):
    """A part of a recipe: no key beside its own, and no change after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class CountdownOptions(Section):
    """See :class:`gradatim.tasks.countdown.Countdown`."""

    name: Literal["countdown"]
    numbers: Annotated[int, Field(ge=2, le=7)] = 4
    largest_number: PositiveInt = 20
    largest_target: PositiveInt = 50
    largest_result: PositiveInt = 100
    seed: int = 0


class WordProblemsOptions(Section):
    """See :class:`gradatim.tasks.word_problems.WordProblems`; the pairs are the fewest and the most."""

    name: Literal["word_problems"]
    operations: tuple[Annotated[int, Field(ge=1, le=8)], Annotated[int, Field(ge=1, le=8)]] = (1, 4)
    distractors: tuple[Annotated[int, Field(ge=0, le=16)], Annotated[int, Field(ge=0, le=16)]] = (0, 2)
    largest_given: Annotated[int, Field(ge=2)] = 20
    largest_result: Annotated[int, Field(ge=4, le=999)] = 99
    seed: int = 0


class Gsm8kOptions(Section):
    """See :class:`gradatim.tasks.gsm8k.Gsm8k`."""

    name: Literal["gsm8k"]
    source: str = "openai/gsm8k"
    config: str = "main"
    seed: int = 0
    validation_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    template: str | None = None
    on_bad_line: Literal["refuse", "skip"] = "refuse"


class HeldOut(Section):
    """What tasks share that read their problems: see :class:`gradatim.tasks.records.ProblemSource`."""

    config: str | None = None
    seed: int = 0
    validation_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    on_bad_line: Literal["refuse", "skip"] = "refuse"


class MathOptions(HeldOut):
    """See :class:`gradatim.tasks.math.Math`."""

    name: Literal["math"]
    source: str | None = None
    levels: list[Annotated[int, Field(ge=1, le=5)]] | None = None
    subjects: list[str] | None = None
    shuffle: bool = True
    template: str | None = None
    step_end: Annotated[list[str], Field(min_length=1)] = ["\n\n"]


class MultipleChoiceOptions(HeldOut):
    """See :class:`gradatim.tasks.multiple_choice.MultipleChoice`."""

    name: Literal["multiple_choice"]
    source: str = "allenai/ai2_arc"
    splits: dict[str, str] | None = None
    shuffle_choices: bool = False
    shuffle: bool = False
    template: str | None = None
    step_end: Annotated[list[str], Field(min_length=1)] = ["\n"]


class SandboxLimitOptions(Section):
    """See :class:`gradatim.tasks.sandbox.SandboxLimits`."""

    cpu_seconds: PositiveInt = 5
    wall_seconds: PositiveFloat = 20.0
    memory_bytes: Annotated[int, Field(ge=64 * 2**20)] = 512 * 2**20
    output_bytes: PositiveInt = 2**20
    file_bytes: PositiveInt = 16 * 2**20
    open_files: PositiveInt = 64
    threads: PositiveInt = 64


class CodeOptions(HeldOut):
    """See :class:`gradatim.tasks.code.Code`."""

    name: Literal["code"]
    source: str = "google-research-datasets/mbpp"
    splits: dict[str, str] | None = None
    template: str | None = None
    step_end: Annotated[list[str], Field(min_length=1)] = ["\n"]
    reward: Literal["all", "fraction"] = "all"
    limits: SandboxLimitOptions = SandboxLimitOptions()


class RecordsOptions(HeldOut):
    """A task of one's own, described in the recipe: see :class:`gradatim.tasks.own.OwnTask`."""

    name: Literal["records"]
    source: str
    template: str
    verifier: str | dict[str, Any]
    answer_field: str = "answer"
    splits: dict[str, str] | None = None
    shuffle: bool = False
    step_end: Annotated[list[str], Field(min_length=1)] = ["\n"]


class OwnTaskOptions(Section):
    """A task of one's own in ``task``: ``task.yaml``, ``path/to/file.py:Class`` or ``module:Class``; see
    :func:`gradatim.tasks.loading.load_own_task`."""

    name: Literal["own"]
    task: str
    options: dict[str, Any] = {}


GeneratedTaskOptions = CountdownOptions | WordProblemsOptions
ReadTaskOptions = Gsm8kOptions | MathOptions | MultipleChoiceOptions | CodeOptions | RecordsOptions | OwnTaskOptions
TaskOptions = GeneratedTaskOptions | ReadTaskOptions
