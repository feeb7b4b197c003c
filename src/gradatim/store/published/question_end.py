"""Where the question ends in a text that goes on with the first step of its solution.

Some published rows join the two by a space. "Step 1:" shows the place; where steps are not numbered, it must be told
from the sentences: what other rows of the same question share with this one (:class:`FirstTurns`), and which sentence
asks for something. A text that can be divided in several ways is refused, since a question that holds a part of a step
would be learned from without anybody noticing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from gradatim.records import MalformedRecordError

_FIRST_STEP = re.compile(r"\bstep 1:", re.IGNORECASE)
_SENTENCE_END = re.compile(
    r"""\.["'”’)\]}$*]*\s+(?=[^\sa-z])       # a full stop, perhaps in brackets, and then no small letter
      | [?!]["'”’)\]}$*]*\s+
      | (?:\$|\\\]|\\\))\s+(?=[A-Z])        # a formula at the end of a sentence that has no full stop
      | \[/asy\]\s+ | \s*\n\s*""",
    re.VERBOSE,
)
_DRAWING = re.compile(r"\[asy\].*?\[/asy\]", re.DOTALL)
_VERBS = (
    "answer|calculate|classify|compute|convert|count|describe|determine|enter|estimate|evaluate|expand|explain|express"
    "|factor|fill|find|give|graph|identify|list|multiply|name|prove|rationalize|represent|round|select|show|simplify"
    "|solve|specify|state|subtract|add|tell|use|write"
)
_REQUEST = re.compile(rf"(?:^|[,;:]\s+(?:then\s+|and\s+|please\s+)?|^please\s+|^then\s+)(?:{_VERBS})\b", re.IGNORECASE)
_FORM_OF_ANSWER = re.compile(
    r"^(?:express|give|enter|write|round|leave|state|simplify|list|answer|please)\b.*(?:\banswers?\b|\bnearest\b"
    r"|\bas an? (?:\w+ )?(?:fraction|decimal|number|percent\w*|integer|interval)\b|\b(?:form|terms|notation)\b)"
    r"|^your answer\b|^\(|^\[asy\]|^(?:note|assume|hint)\b",
    re.IGNORECASE | re.DOTALL,
)
_OF_A_SOLVER = re.compile(
    r"\b(?:we|we're|we'll|let's|let us|us|our|I|I'll|I'm)\b"
    r"|^(?:first|firstly|next|now|so|then|therefore|since|to (?:find|solve|determine|calculate|compute|answer))\b",
    re.IGNORECASE,
)
_ADVICE = "number the steps ('Step 1: ...'), or give the question in a field 'question'"


@dataclass(frozen=True, slots=True)
class FirstTurns:
    """The texts of a source that begin with a question: where do those that begin alike part?

    Attributes:
        forks: hashes of the beginnings, up to the end of a sentence, that go on in more than one way.
    """

    forks: frozenset[int] = frozenset()

    @classmethod
    def of(cls, texts: Iterable[str]) -> FirstTurns:
        """Look at all texts; two integers a sentence are held in memory meanwhile."""
        next_sentence: dict[int, int] = {}
        forks: set[int] = set()
        for text in texts:
            ends = [*_sentence_ends(text), len(text)]
            for end, following in pairwise(ends):
                beginning, sentence = _key(text[:end]), hash(text[end:following].strip())
                if next_sentence.setdefault(beginning, sentence) != sentence:
                    forks.add(beginning)
        return cls(frozenset(forks))

    def divide(self, text: str, question: str | None = None) -> tuple[str, str]:
        """Divide ``text`` into the question and the first step.

        In this order: behind ``question`` where it is told; before "Step 1:", which must follow a request where it
        occurs more than once; behind the first request at which the texts of this source part, or the only place at
        which they do; behind the only request.

        Raises:
            MalformedRecordError: if the text does not begin with ``question``, or does not show where it ends.
        """
        if question is not None:
            if not text.strip().startswith(question.strip()):
                raise MalformedRecordError("does not begin with its question")
            return question.strip(), text.strip().removeprefix(question.strip()).strip()
        place = self._numbered_step(text) if has_first_step(text) else self._end_of_question(text)
        return text[:place].strip(), text[place:].strip()

    def _numbered_step(self, text: str) -> int:
        places = [match.start() for match in _FIRST_STEP.finditer(text)]
        if len(places) == 1:
            return places[0]
        after_request = [place for place in places if _is_request(_last_sentence(text[:place]))]
        after_sentence = [place for place in places if place in _sentence_ends(text)]
        shared = [place for place in after_sentence if _key(text[:place]) in self.forks]
        for found in (after_request, shared, after_sentence):
            if len(found) == 1:
                return found[0]
        raise MalformedRecordError(f"has 'Step 1:' {len(places)} times before its second step; {_ADVICE}")

    def _end_of_question(self, text: str) -> int:
        ends = _sentence_ends(text)
        sentences = [text[start:end].strip() for start, end in zip([0, *ends], ends, strict=False)]
        requests = [place for place, sentence in enumerate(sentences) if _is_request(sentence)]
        forks = [place for place, end in enumerate(ends) if _key(text[:end]) in self.forks]
        shared = next((place for place in forks if place in requests), forks[0] if len(forks) == 1 else None)
        if shared is None and (forks or not requests):
            raise MalformedRecordError(f"does not show where the question ends; {_ADVICE}")
        last = min([*requests[:1], *([] if shared is None else [shared])])
        stop = len(sentences) if shared is None else shared + 1  # no further than where the rows of a question part
        while last + 1 < stop and _goes_on_asking(sentences[last + 1], of_many=shared is not None):
            last += 1
        between = sentences[last + 1 : stop]
        asked_again = any(_is_request(each) and not _is_of_a_solver(each) for each in between)
        if asked_again or (shared is not None and between and not _is_of_a_solver(between[0])):
            raise MalformedRecordError(f"could end its question at more than one sentence; {_ADVICE}")
        return ends[last]


def has_first_step(text: str) -> bool:
    """Whether "Step 1:" stands somewhere in ``text``."""
    return _FIRST_STEP.search(text) is not None


def is_marked(question: str, first_step: str) -> bool:
    """Whether :meth:`FirstTurns.divide` finds this division by "Step 1:" alone, whatever else its source holds."""
    joined = f"{question} {first_step}"
    return _FIRST_STEP.match(first_step) is not None and len(_FIRST_STEP.findall(joined)) == 1


def is_whole_question(text: str) -> bool:
    """Whether ``text`` has one sentence, or its last one asks for something: no step follows the question."""
    last = _last_sentence(text)
    return last == text.strip() or (
        (_is_request(last) or _FORM_OF_ANSWER.search(last) is not None) and not _is_of_a_solver(last)
    )


def _sentence_ends(text: str) -> list[int]:
    """The places at which a sentence ends and another begins, outside of drawings."""
    drawings = [match.span() for match in _DRAWING.finditer(text)]
    found = {match.end() for match in _SENTENCE_END.finditer(text) if match.start()}
    return sorted(end for end in found if end < len(text) and not any(start < end < stop for start, stop in drawings))


def _last_sentence(text: str) -> str:
    ends = _sentence_ends(text.rstrip())
    return text[ends[-1] if ends else 0 :].strip()


def _is_request(sentence: str) -> bool:
    return sentence.rstrip("\"'”’)]}$* ").endswith("?") or _REQUEST.search(sentence) is not None


def _goes_on_asking(sentence: str, *, of_many: bool) -> bool:
    """Whether a sentence behind a request belongs to it; a second question does where several rows share it."""
    asks = _FORM_OF_ANSWER.search(sentence) is not None or (of_many and sentence.endswith("?"))
    return asks and not _is_of_a_solver(sentence)


def _is_of_a_solver(sentence: str) -> bool:
    return _OF_A_SOLVER.search(sentence) is not None


def _key(beginning: str) -> int:
    return hash(beginning.strip())
