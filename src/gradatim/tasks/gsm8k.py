"""GSM8K: grade-school word problems with worked solutions (Cobbe et al., 2021, arXiv:2110.14168).

A solution is a list of lines, each one step, the last of which is ``#### answer``. Calculations stand between double
angle brackets and are checked by :mod:`gradatim.tasks.calculator`. Any other data set of questions and worked
solutions in the same two fields (``question``, ``answer``) can be read as well.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from gradatim.errors import GradatimError
from gradatim.tasks.base import Verdict
from gradatim.tasks.calculator import UNSIGNED_NUMBER, check_annotations, read_number
from gradatim.tree import Problem

SPLITS = ("train", "validation", "test")

TEMPLATE = "Question: {question}\nAnswer:\n"
"""The default prompt. It ends with a line break, so that prompt and reference solution join as they are and the first
step begins a line like every other."""

# An amount: sign, currency, whole part of a mixed number, number, denominator.
_AMOUNT = re.compile(
    r"(?P<sign>(?<![\w)%.])[-\u2212])?(?:[$€£]\s?(?P<inner_sign>-)?)?(?:(?P<whole>[0-9]{1,9})[ ](?=[0-9]{1,9}/[1-9]))?"
    rf"(?P<number>{UNSIGNED_NUMBER})(?:/(?P<denominator>[0-9]+))?"
)
# What shows that an amount is only a part of a calculation, a list, a range or a time of day.
_GOES_ON = re.compile(r"\s*(?:\+|[*\u00d7]\s*[\w($]|[/\u00f7]\s*[0-9($]|x\s?[0-9]|[-\u2212\u2013]\s*[0-9$])|[,:.][0-9]")
_GOES_BEFORE = re.compile(r"[0-9)%]\s?[-+*/:x\u2212\u2013\u00d7\u00f7]\s?\Z")
# The number must come first after the mark: "#### Step 2" is a heading, not an answer.
_ANSWER_MARK = re.compile(r"####[^\w\n.$€£\u2212-]*|^[^\w\n]*A:[^\w\n.$€£\u2212-]*", re.MULTILINE)
# A finished annotation, or one in which the text was cut off.
_ANNOTATION = re.compile(r"<<[^<>\n]*(?:>>|(?=\n)|\Z)")
# A step is a line; the empty lines around it belong to it, so that no step is empty.
_STEP = re.compile(r"\n*[^\n]+\n*|\n+")


class _BadRecordError(ValueError):
    """A record that is no problem; the message goes on after its line number."""


class Gsm8k:
    """Grade-school mathematics problems, read from the hub or from JSON lines.

    Args:
        source: a data set's id on the hub (or its copy in a local folder), loaded with ``datasets.load_dataset``; or
            a folder with ``train.jsonl`` and ``test.jsonl``; or one ``.jsonl`` file.
        config: the hub data set's configuration.
        seed: chooses which problems are held out.
        validation_fraction: share of ``train`` that is held out as ``validation``. Which problems these are depends on
            a hash of the question alone, so a question that occurs twice is never on both sides. Of a single file,
            the same share again is cut off as ``test``; the three parts are disjoint.
        template: the prompt, with ``{question}`` in the question's place. Text before it may hold worked examples.
        on_bad_line: whether a malformed line or record is refused with its line number, or skipped with a warning
            that names the lines.

    Raises:
        GradatimError: if a local source does not exist or an argument is out of its range; :meth:`problems` raises it
            if the source cannot be read.
    """

    name = "gsm8k"
    step_end: tuple[str, ...] = ("\n",)

    def __init__(
        self,
        source: str = "openai/gsm8k",
        *,
        config: str = "main",
        seed: int = 0,
        validation_fraction: float = 0.05,
        template: str = TEMPLATE,
        on_bad_line: Literal["refuse", "skip"] = "refuse",
    ) -> None:
        if template.count("{question}") != 1:
            raise GradatimError(f"the template {template!r} must contain {{question}} exactly once")
        if not 0 < validation_fraction < 0.5:
            raise GradatimError(f"validation_fraction must be above 0 and below 0.5, got {validation_fraction}")
        if on_bad_line not in ("refuse", "skip"):
            raise GradatimError(f"on_bad_line must be 'refuse' or 'skip', got {on_bad_line!r}")
        path = Path(source).expanduser()
        if not path.exists() and (source.startswith((".", "/", "~")) or source.endswith((".json", ".jsonl"))):
            raise GradatimError(f"there is no file or folder {source!r}; give an existing one or a hub id")
        self.source = source
        self.config = config
        self.seed = seed
        self.validation_fraction = validation_fraction
        self.template = template
        self.on_bad_line = on_bad_line
        self._path = path
        self._read: dict[str, list[Problem]] = {}
        heading = template.partition("{question}")[0].rpartition("\n")[2].strip()
        self._next_question = re.compile(rf"^[ \t]*{re.escape(heading)}", re.MULTILINE) if heading else None

    def problems(self, split: str, count: int | None = None) -> list[Problem]:
        """The first ``count`` problems of ``"train"``, ``"validation"`` or ``"test"``, in the source's order.

        A problem's ``answer`` is the reference answer's normal form; its ``data`` holds the ``question`` and the
        worked ``solution``, which continues the prompt as it is.

        Raises:
            GradatimError: if the split is unknown or empty, or the source is missing or malformed.
        """
        if split not in SPLITS:
            raise GradatimError(f"gsm8k has no split {split!r}; choose one of {', '.join(SPLITS)}")
        if count is not None and count < 0:
            raise GradatimError(f"the number of problems must be 0 or more, got {count}")
        part = self._path.stem if self._path.is_file() else "test" if split == "test" else "train"
        if part not in self._read:
            self._read[part] = self._load(part)
        cut = self._path.is_file() or split != "test"
        problems = [problem for problem in self._read[part] if not cut or self._split_of(problem) == split]
        if not problems:
            raise GradatimError(f"the {split} split of {self.source!r} has no problems; give a larger source")
        return problems[:count]

    def split_steps(self, text: str) -> list[str]:
        """Divide a solution into its lines, line breaks included; joined again they are ``text``."""
        return _STEP.findall(text)

    def verify(self, problem: Problem, text: str) -> Verdict:
        """Judge a solution by its final answer (see :func:`extract_answer`). Never raises.

        Where a model goes on to ask itself a next question under the template's heading, that part is left out.
        """
        if self._next_question is not None and (following := self._next_question.search(text)):
            text = text[: following.start()]
        answer = extract_answer(text)
        if answer is None:
            return Verdict(0.0, None, "no final answer: no line '#### number' and no single last number")
        if answer == problem.answer:
            return Verdict(1.0, answer, "correct")
        reference = None if problem.answer is None else extract_answer(f"#### {problem.answer}")
        if reference is None:
            return Verdict(0.0, answer, "the problem has no reference answer that is a number")
        if answer != reference:
            return Verdict(0.0, answer, f"wrong answer: {answer} instead of {reference}")
        return Verdict(1.0, answer, "correct")

    def first_error(self, solution: str | Sequence[str]) -> int | None:
        """Index of the first step with a wrong calculation, or ``None`` where no annotation is wrong.

        A step is wrong if the two sides of an annotation differ, or if the sentence goes on with another number than
        the annotation's result, within the tolerance of :mod:`gradatim.tasks.calculator`. An error of thought with
        right arithmetic is not found. A whole text is divided by :meth:`split_steps` first. Never raises.
        """
        steps = self.split_steps(solution) if isinstance(solution, str) else solution
        for index, step in enumerate(steps):
            if any(annotation.finding.is_error for annotation in check_annotations(step)):
                return index
        return None

    def _split_of(self, problem: Problem) -> str:
        question = problem.data["question"].strip()
        digest = hashlib.sha256(f"{self.seed}:{question}".encode("utf-8", "surrogatepass")).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        if place < self.validation_fraction:
            return "validation"
        return "test" if self._path.is_file() and place < 2 * self.validation_fraction else "train"

    def _load(self, part: str) -> list[Problem]:
        if self._path.is_file():
            return self._problems(part, _json_lines(self._path), self._path.name)
        if any((self._path / f"{name}.jsonl").is_file() for name in ("train", "test")):
            path = self._path / f"{part}.jsonl"
            if not path.is_file():
                raise GradatimError(f"the folder {self.source!r} has no {part}.jsonl")
            return self._problems(part, _json_lines(path), path.name)
        rows = _hub_rows(str(self._path) if self._path.is_dir() else self.source, self.config, part)
        return self._problems(part, rows, f"{part} split of {self.source!r}")

    def _problems(self, part: str, records: Iterable[tuple[int, Any]], where: str) -> list[Problem]:
        """Turn numbered records (lines of JSON, or rows) into problems."""
        problems: list[Problem] = []
        bad: list[int] = []
        for number, record in records:
            try:
                value = _parse(record) if isinstance(record, bytes) else record
                problems.append(self._problem(f"{self.name}/{part}/{number}", value))
            except _BadRecordError as error:
                if self.on_bad_line == "refuse":
                    raise GradatimError(
                        f"line {number} of {where} {error}; mend it, or skip such lines with on_bad_line='skip'"
                    ) from None
                bad.append(number)
        if bad:
            numbers = ", ".join(map(str, bad[:20])) + (", ..." if len(bad) > 20 else "")
            warnings.warn(f"skipped {len(bad)} bad lines of {where}: {numbers}", stacklevel=4)
        if not problems:
            raise GradatimError(f"{where} has no problems" + (": every line is malformed" if bad else ": it is empty"))
        return problems

    def _problem(self, id: str, record: Any) -> Problem:
        if not isinstance(record, Mapping):
            raise _BadRecordError("is not a JSON object")
        for field in ("question", "answer"):
            if not isinstance(record.get(field), str):
                raise _BadRecordError(f"has no text in the field {field!r}")
        question, solution = record["question"], record["answer"]
        answer = extract_answer(solution)
        if answer is None:
            raise _BadRecordError("has an answer without a final number")
        prompt = self.template.replace("{question}", question)
        return Problem(id, prompt, answer, {"question": question, "solution": solution})


def extract_answer(text: str) -> str | None:
    """The final answer of a solution in its normal form, or ``None`` where there is none. Never raises.

    The last ``#### number`` counts, or the last line ``A: number`` (how the data set's own model solutions end). A
    text without either falls back on its last number; calculator annotations do not count. Thousands commas,
    currency signs, per cent signs, units and markdown emphasis around the number are ignored; a word such as
    "million" is a unit like any other. A calculation, range or time of day (``10+2``, ``3-5``, ``8:40``) is no answer.

    Equal answers have one normal form: a whole number in digits, or a fraction in lowest terms. So ``18``, ``$18.00``
    and ``36/2`` are all ``"18"``, ``-0.5`` is ``"-1/2"``, and ``2 1/2`` is ``"5/2"``.
    """
    text = _ANNOTATION.sub("", text).replace("**", "")
    amount = None
    for mark in _ANSWER_MARK.finditer(text):
        amount = _AMOUNT.match(text, mark.end()) or amount
    if amount is None:
        for candidate in _AMOUNT.finditer(text):
            amount = candidate
        if amount is None or _GOES_BEFORE.search(text, max(0, amount.start() - 6), amount.start()):
            return None
    return _normal_form(amount)


def _normal_form(amount: re.Match[str]) -> str | None:
    """The normal form of a match of ``_AMOUNT``; ``None`` if it is too long, divides by zero or goes on."""
    if _GOES_ON.match(amount.string, amount.end()):
        return None
    value = read_number(amount["number"])
    denominator = Fraction(1)
    if amount["denominator"]:
        denominator = read_number(amount["denominator"]) or Fraction(0)
    if value is None or not denominator:
        return None
    value = value / denominator + int(amount["whole"] or 0)
    return str(-value if amount["sign"] or amount["inner_sign"] else value)


def _json_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number the lines of a file from 1, blank ones left out."""
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise GradatimError(f"cannot read {path.name}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, line


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise _BadRecordError(f"is not valid JSON ({str(error).partition(':')[0]})") from None


def _hub_rows(source: str, config: str, part: str) -> Iterator[tuple[int, Any]]:
    """Number the rows of a hub data set's split from 1."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        rows = load_dataset(source, config, split=part)
    except (OSError, ValueError, DatasetsError) as error:
        raise GradatimError(
            f"cannot load the {part} split of data set {source!r}, configuration {config!r}: "
            f"{str(error).strip().partition(chr(10))[0]}"
        ) from error
    yield from enumerate(rows, 1)
