"""What a recipe may say of its task: the options of each, by the names of the task's own arguments."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt


class Section(BaseModel):
    """A part of a recipe: no key beside its own, and no change after it was read.

    The text below a field says what the key means, wherever keys are listed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True)


class CountdownOptions(Section):
    """See :class:`gradatim.tasks.countdown.Countdown`."""

    name: Literal["countdown"]
    """Reach a number by arithmetic with given ones; problems are generated."""
    numbers: Annotated[int, Field(ge=2, le=7)] = 4
    """How many numbers a problem gives; a solution has one step fewer."""
    largest_number: PositiveInt = 20
    """Numbers are drawn from 1 to this."""
    largest_target: PositiveInt = 50
    """Targets are drawn from 1 to this."""
    largest_result: PositiveInt = 100
    """The solution that the generator knows never exceeds this on the way."""
    seed: int = 0
    """Which stream of problems is generated; the split of a problem does not depend on it."""


class WordProblemsOptions(Section):
    """See :class:`gradatim.tasks.word_problems.WordProblems`."""

    name: Literal["word_problems"]
    """Arithmetic word problems in sentences; problems are generated."""
    operations: tuple[Annotated[int, Field(ge=1, le=8)], Annotated[int, Field(ge=1, le=8)]] = (1, 4)
    """The fewest and the most operations that a question needs."""
    distractors: tuple[Annotated[int, Field(ge=0, le=16)], Annotated[int, Field(ge=0, le=16)]] = (0, 2)
    """The fewest and the most further quantities that a question does not need."""
    largest_given: Annotated[int, Field(ge=2)] = 20
    """Given numbers are drawn from 2 to this."""
    largest_result: Annotated[int, Field(ge=4, le=999)] = 99
    """No quantity exceeds this."""
    seed: int = 0
    """Which stream of problems is generated; the split of a problem does not depend on it."""


class Gsm8kOptions(Section):
    """See :class:`gradatim.tasks.gsm8k.Gsm8k`."""

    name: Literal["gsm8k"]
    """Grade-school mathematics with a number as the answer (GSM8K)."""
    source: str = "openai/gsm8k"
    """A data set's id on the hub, a folder with `train.jsonl` and `test.jsonl`, or one `.jsonl` file."""
    config: str = "main"
    """The hub data set's configuration."""
    seed: int = 0
    """Chooses which problems are held out."""
    validation_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Share of the training problems that is held out as validation (and as test where the source has none)."""
    template: str | None = None
    """The prompt, with `{question}` in the question's place; text before it may hold worked examples."""
    on_bad_line: Literal["refuse", "skip"] = "refuse"
    """Whether a malformed record is refused with its line number, or skipped with a warning."""


class HeldOut(Section):
    """What tasks share that read their problems: see :class:`gradatim.tasks.records.ProblemSource`."""

    config: str | None = None
    """The hub data set's configuration, if it has several."""
    seed: int = 0
    """Chooses which problems are held out, and the order of shuffled ones."""
    validation_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Share of the training problems that is held out as validation (and as test where the source has none)."""
    on_bad_line: Literal["refuse", "skip"] = "refuse"
    """Whether a malformed record is refused with its line number, or skipped with a warning."""


class MathOptions(HeldOut):
    """See :class:`gradatim.tasks.math.Math`."""

    name: Literal["math"]
    """Competition mathematics with boxed answers (MATH)."""
    source: str | None = None
    """A data set's id on the hub, a folder or a `.jsonl` file; `null` is MATH itself, with MATH-500 as its test."""
    levels: list[Annotated[int, Field(ge=1, le=5)]] | None = None
    """Only problems of these levels, from 1 (easiest) to 5; `null` for all."""
    subjects: list[str] | None = None
    """Only problems of these subjects, such as `Number Theory`; `null` for all."""
    shuffle: bool = True
    """Whether problems come in an order of their own; MATH is sorted by subject."""
    template: str | None = None
    """The prompt, with `{problem}` in the problem's place; text before it may hold worked examples."""
    step_end: Annotated[list[str], Field(min_length=1)] = ["\n\n"]
    """The texts that end a step."""


class MultipleChoiceOptions(HeldOut):
    """See :class:`gradatim.tasks.multiple_choice.MultipleChoice`."""

    name: Literal["multiple_choice"]
    """Questions with lettered options (ARC, MMLU and their like)."""
    source: str = "allenai/ai2_arc"
    """A data set's id on the hub, a folder or a `.jsonl` file."""
    splits: dict[str, str] | None = None
    """The source's own name for each split that it has, such as `{train: auxiliary_train, test: test}`."""
    shuffle_choices: bool = False
    """Whether a question's options are put in an order of their own, so that no letter is right more often."""
    shuffle: bool = False
    """Whether problems come in an order of their own, for sources that are sorted by subject."""
    template: str | None = None
    """The prompt, with `{question}` and `{choices}` in their places."""
    step_end: Annotated[list[str], Field(min_length=1)] = ["\n"]
    """The texts that end a step."""


class SandboxLimitOptions(Section):
    """See :class:`gradatim.tasks.sandbox.SandboxLimits`."""

    cpu_seconds: PositiveInt = 5
    """Processor time of all threads of a program."""
    wall_seconds: PositiveFloat = 20.0
    """Time on the clock; stops programs that wait for nothing."""
    memory_bytes: Annotated[int, Field(ge=64 * 2**20)] = 512 * 2**20
    """Address space, the interpreter included."""
    output_bytes: PositiveInt = 2**20
    """Of standard output and of standard error, each."""
    file_bytes: PositiveInt = 16 * 2**20
    """All that a program may keep in its scratch folder."""
    open_files: PositiveInt = 64
    """Files that are open at once."""
    threads: PositiveInt = 64
    """Threads that run at once."""


class CodeOptions(HeldOut):
    """See :class:`gradatim.tasks.code.Code`."""

    name: Literal["code"]
    """Python programs that must pass tests (MBPP, HumanEval and their like), run in a sandbox."""
    source: str = "google-research-datasets/mbpp"
    """A data set's id on the hub, a folder with one `.jsonl` file a split, or one `.jsonl` file."""
    splits: dict[str, str] | None = None
    """The source's own name for each split that it has, such as `{test: test}`."""
    template: str | None = None
    """The prompt, with `{question}` in the question's place and, if wanted, `{tests}` in that of the tests."""
    step_end: Annotated[list[str], Field(min_length=1)] = ["\n"]
    r"""The texts that end a step: a line's end, or `["\n\n"]` for blocks between empty lines."""
    reward: Literal["all", "fraction"] = "all"
    """`all` gives 1 where all tests pass, `fraction` the share of tests that pass."""
    limits: SandboxLimitOptions = SandboxLimitOptions()
    """What a program may use."""


class RecordsOptions(HeldOut):
    """A task of one's own, described in the recipe: see :class:`gradatim.tasks.own.OwnTask`."""

    name: Literal["records"]
    """A task of one's own that is described here: records, a prompt, a verifier."""
    source: str
    """A `.jsonl` file, a folder of them or a data set's id on the hub."""
    template: str
    """The prompt, with `{field}` in the place of each field that it shows."""
    verifier: str | dict[str, Any]
    """A verifier's name, or a section with its `name` and its options."""
    answer_field: str = "answer"
    """The field that holds the reference answer."""
    splits: dict[str, str] | None = None
    """The source's own name for each split that it has."""
    shuffle: bool = False
    """Whether problems come in an order of their own."""
    step_end: Annotated[list[str], Field(min_length=1)] = ["\n"]
    """The texts that end a step."""
    stop: list[Annotated[str, Field(min_length=1)]] = []
    """Texts that end a solution wherever they stand, beside a complete answer and the heading of a next problem."""


class OwnTaskOptions(Section):
    """A task of one's own from a file: see :func:`gradatim.tasks.loading.load_own_task`."""

    name: Literal["own"]
    """A task of one's own from a file."""
    task: str
    """`task.yaml`, `path/to/file.py:Class` or `module:Class`."""
    options: dict[str, Any] = {}
    """The arguments of the class, or keys that replace those of the YAML file."""


GeneratedTaskOptions = CountdownOptions | WordProblemsOptions
ReadTaskOptions = Gsm8kOptions | MathOptions | MultipleChoiceOptions | CodeOptions | RecordsOptions | OwnTaskOptions
TaskOptions = GeneratedTaskOptions | ReadTaskOptions
