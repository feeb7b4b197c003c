"""Made-up solutions and scorers of them, for tests of the benchmarks of step scoring."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from gradatim.evaluation.step_records import StepRecord
from gradatim.tree import Node

GOLDEN = Path(__file__).parent / "golden" / "benchmarks"


def golden(name: str) -> dict[str, Any]:
    """What the authors' own code printed for made-up predictions."""
    value: dict[str, Any] = json.loads((GOLDEN / name).read_text(encoding="utf-8"))
    return value


def oracle_scores(records: Sequence[StepRecord]) -> list[list[float]]:
    """1 for every right step, and for steps of which nothing is known; 0 for wrong ones."""
    return [[float(label is not False) for label in record.labels] for record in records]


def scores_for(draw: st.DrawFn, records: Sequence[StepRecord]) -> list[list[float]]:
    """Few different scores, some of them on the usual threshold."""
    values = st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0])
    return [draw(st.lists(values, min_size=len(r.steps), max_size=len(r.steps))) for r in records]


class TextScorer:
    """Scores a solution so far by a function of its question and text, and remembers what it was asked.

    Args:
        value: the score.
        fails_at: raises at the node of this text.
    """

    name = "text"

    def __init__(self, value: Callable[[str, str], float | None], fails_at: str | None = None) -> None:
        self.value = value
        self.fails_at = fails_at
        self.asked: list[tuple[str, str]] = []
        self.released = 0

    async def score(self, nodes: Sequence[Node]) -> None:
        await asyncio.sleep(0)
        for node in nodes:
            question = str(node.tree.problem.data["question"])
            self.asked.append((question, node.text))
            if self.fails_at is not None and self.fails_at in node.text:
                raise RuntimeError("the machine went down")
            value = self.value(question, node.text)
            if value is not None:
                node.scores[self.name] = value

    def release(self, tree: object) -> None:
        self.released += 1
