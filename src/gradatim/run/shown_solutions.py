"""A few solutions as they were written, for people who want to see what the figures are about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradatim.policies.base import SamplingOptions
from gradatim.run.outcomes import FINISHED, limit_of
from gradatim.tree import Node, Tree

RIGHT, WRONG, CUT_OFF = "right", "wrong", "cut off"
_WANTED = {RIGHT: 2, WRONG: 2, CUT_OFF: 1}
_NOT_ASKED = "not asked, since no final answer was complete"  # so that it cannot call right what counts as wrong
_LONGEST = 4000  # characters of a text that are shown


def shown_solutions(trees: Sequence[Tree], sampling: SamplingOptions) -> list[dict[str, Any]]:
    """Two right solutions, two wrong ones and one that was cut off, where there are any, of different problems.

    Each is a JSON object with the problem's id, its prompt, the solution's text, what kind it is, why it ended and
    what the verifier says of it.
    """
    found: dict[str, list[Node]] = {kind: [] for kind in _WANTED}
    for kind, wanted in _WANTED.items():
        for tree in trees:
            leaf = next((leaf for leaf in tree.leaves() if not leaf.is_root and _kind(leaf) == kind), None)
            if leaf is not None and len(found[kind]) < wanted:
                found[kind].append(leaf)
    return [_entry(leaf, kind, sampling) for kind, leaves in found.items() for leaf in leaves]


def _kind(leaf: Node) -> str | None:
    if leaf.step.end.cuts_off:
        return CUT_OFF
    if leaf.correct is None:
        return None
    return RIGHT if leaf.correct else WRONG


def _entry(leaf: Node, kind: str, sampling: SamplingOptions) -> dict[str, Any]:
    cut_off = kind == CUT_OFF
    limit = limit_of(leaf, sampling.max_step_tokens, sampling.max_steps)
    return {
        "problem": leaf.tree.problem.id,
        "kind": kind,
        "ended_by": limit if cut_off else FINISHED[leaf.step.end],
        "verifier": _NOT_ASKED if cut_off else leaf.notes.get("verdict", ""),
        "prompt": _shortened(leaf.tree.problem.prompt),
        "text": _shortened(leaf.text),
    }


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters ...]\n{text[-half:]}"
