"""A tree in the terminal."""

from __future__ import annotations

import math

from rich.text import Text
from rich.tree import Tree as RichTree

from gradatim.evaluation.page import printable
from gradatim.scorers.verdicts import JUDGEMENTS
from gradatim.search.decisions import DECISION
from gradatim.tree import Node, Tree
from gradatim.view.selection import check_score, default_score, hidden_below, select_nodes

_LONG_RUN = 4  # only children one after the other that are not set in


def render(tree: Tree, *, by: str | None = None, limit: int = 200, why: bool = False) -> RichTree:
    """A ``rich`` rendering of ``tree``: one line a step with its score, ends marked ✓ (right), ✗ (wrong), ✂ (cut off).

    A step is set in below the one before it, but not in a long run of steps that are only children: there it stands
    straight below, so that long solutions stay on the screen.

    Args:
        tree: the tree.
        by: the score to show; by default the one that most nodes have.
        limit: show at most this many nodes (see :func:`gradatim.view.selection.select_nodes`); what is left out is
            counted in its place.
        why: say of each step what the search decided of it (:mod:`gradatim.search.decisions`), and what judges wrote.

    Raises:
        GradatimError: if ``limit`` is below 1, or no step has the score ``by``.
    """
    check_score(tree, by)
    by = by or default_score(tree)
    shown = select_nodes(tree, limit, by)
    hidden = hidden_below(tree, shown)
    branches: dict[int, RichTree] = {}
    for id in sorted(shown):  # parents first
        node = tree.nodes[id]
        if node.parent is None:
            label = Text(one_line(node.step.text), style="bold").append_text(_decision(node, why))
            branches[id] = RichTree(label, guide_style="dim")
        elif _continues(node):
            branches[id] = branches[node.parent.id]
            above = branches[id].label
            assert isinstance(above, Text)
            above.append("\n").append(_line(node, by, why))
        else:
            branches[id] = branches[node.parent.id].add(_line(node, by, why))
    for id, count in hidden.items():
        if count:
            branches[id].add(Text(f"… {count:,} more", style="dim italic"))
    return branches[0]


def _continues(node: Node) -> bool:
    """Whether a step stands below the one before it without being set in: it is one of a long run of only children."""
    if not _is_only_child(node):
        return False
    run, first, last = 1, node, node
    while run < _LONG_RUN and first.parent is not None and _is_only_child(first.parent):
        run, first = run + 1, first.parent
    while run < _LONG_RUN and len(last.children) == 1:
        run, last = run + 1, last.children[0]
    return run >= _LONG_RUN


def _is_only_child(node: Node) -> bool:
    above = node.parent
    return above is not None and above.parent is not None and len(above.children) == 1


def one_line(text: str) -> str:
    """Text on one line: line ends at its ends are dropped, those inside are shown as ⏎, control characters escaped."""
    return printable(text.strip().replace("\r", "")).replace("\n", " ⏎ ")


def mark(node: Node) -> str:
    """How a solution that ends with ``node`` turned out; empty where it goes on or was not graded."""
    if node.step.end.cuts_off:
        return "✂"
    if node.children or node.correct is None:
        return ""
    return "✓" if node.correct else "✗"


def _line(node: Node, by: str | None, why: bool) -> Text:
    line = Text()
    score = None if by is None else node.scores.get(by)
    if score is not None:
        line.append(f"{score:5.2f} ", style=_score_style(score))
    sign = mark(node)
    style = {"✓": "bold green", "✗": "red", "✂": "yellow"}.get(sign, "")
    line.append(one_line(node.step.text), style=style if sign == "✓" else "")
    if node.step.observation_text:
        line.append(f" → {one_line(node.step.observation_text)}", style="cyan")
    if sign:
        line.append(f" {sign}", style=style)
    elif node.answer is not None and not node.children:
        line.append(f" (answer: {one_line(node.answer)})", style="dim")  # of a problem whose answer nobody knows
    if node.multiplicity > 1:
        line.append(f" x{node.multiplicity}", style="dim")
    for name, note in node.notes.items():
        if name == DECISION:
            line.append_text(_decision(node, why))
        elif name == JUDGEMENTS:
            line.append_text(_judgements(node, why))
        elif name != "verdict":  # of which the sign is enough
            line.append(f" ({name}: {one_line(str(note))})", style="dim")
    return line


def _decision(node: Node, why: bool) -> Text:
    """What the search decided of a step, if that is asked for and known."""
    note = node.notes.get(DECISION) if why else None
    return Text("" if note is None else f" ({note['decision']}: {note['why']})", style="dim")


def _judgements(node: Node, why: bool) -> Text:
    """What judges wrote of a step, if that is asked for."""
    said = node.notes[JUDGEMENTS] if why else {}
    return Text("".join(f" ({name}: {one_line(each['text'])})" for name in said for each in said[name]), style="dim")


def _score_style(score: float) -> str:
    if math.isnan(score):
        return "dim"
    return "green" if score >= 2 / 3 else "yellow" if score >= 1 / 3 else "red"
