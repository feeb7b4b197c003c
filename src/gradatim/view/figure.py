"""One tree as a picture: steps as boxes coloured by score, solutions marked right or wrong."""

from __future__ import annotations

import math
import os
import textwrap
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path as Curve

from gradatim.store.files import atomic_path
from gradatim.tree import Node, Tree
from gradatim.view.layout import tidy_layout
from gradatim.view.selection import check_score, default_score, hidden_below, select_nodes
from gradatim.view.text import mark, one_line

# ColorBrewer's orange-blue ends, light enough for dark text and told apart with any colour vision
SCORE_COLORS = LinearSegmentedColormap.from_list("gradatim", ["#F2A172", "#FBE3D3", "#F6F6F4", "#D3E6F2", "#79B4DA"])
_INK, _QUIET, _EDGE = "#1F2328", "#59636E", "#BCC3CA"
_RIGHT, _WRONG, _CUT = "#1A7F37", "#B3261E", "#9A6700"

# inches, for a monospaced 9-point font
_FONT = 9.0
_CHARACTER, _LINE, _INFO_LINE = _FONT * 0.602 / 72, _FONT * 1.32 / 72, 0.15
_PAD_X, _PAD_Y, _GAP_X, _GAP_Y, _MARGIN = 0.10, 0.07, 0.50, 0.13, 0.22
_FOOT = 0.62


@dataclass(frozen=True, slots=True)
class _Box:
    """A node's box: its place in inches from the top left, its lines of text and the small line below them."""

    node: Node
    lines: list[str]
    info: list[tuple[str, str]]  # text and colour
    x: float
    y: float
    width: float
    height: float


def draw_tree(
    tree: Tree,
    path: str | os.PathLike[str],
    *,
    by: str | None = None,
    limit: int = 40,
    wrap: int = 28,
    title: str | None = None,
) -> None:
    """Draw ``tree`` from the prompt on the left to the solutions on the right.

    Args:
        tree: the tree.
        path: where the picture goes; its suffix chooses the format (``.png``, ``.svg``, ``.pdf``).
        by: the score that colours the boxes; by default the one that most nodes have.
        limit: show at most this many nodes (see :func:`gradatim.view.selection.select_nodes`); boxes whose children
            are left out say how many nodes are hidden.
        wrap: characters in a line of a box; a step has at most three lines, longer text is cut.
        title: stands above the tree; by default the problem's id.

    Raises:
        GradatimError: if ``limit`` is below 1 or the file cannot be written.
    """
    check_score(tree, by)
    by = by or default_score(tree)
    shown = select_nodes(tree, limit, by)
    scores = [tree.nodes[id].scores[by] for id in shown if by is not None and by in tree.nodes[id].scores]
    norm = _score_range([score for score in scores if math.isfinite(score)])
    boxes = _boxes(tree, shown, by, wrap)
    width = max(max(box.x + box.width for box in boxes.values()) + _MARGIN, 6.4)
    height = max(box.y + box.height for box in boxes.values()) + _MARGIN + _FOOT
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    _draw_title(
        axes, one_line(title or f"Problem {tree.problem.id}"), f"{len(shown):,} of {len(tree):,} nodes shown", width
    )
    to_right = {node.id for box in boxes.values() if mark(box.node) == "✓" for node in box.node.path()}
    for box in boxes.values():
        if box.node.parent is not None:
            _draw_edge(axes, boxes[box.node.parent.id], box, box.node.id in to_right)
    for box in boxes.values():
        score = None if by is None else box.node.scores.get(by)
        unknown = score is None or not math.isfinite(score)
        _draw_box(axes, box, to_rgba("white") if unknown else to_rgba(SCORE_COLORS(norm(score or 0.0))))
    _draw_foot(figure, axes, by if scores else None, norm, height)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=180, facecolor="white")


def _score_range(scores: list[float]) -> Normalize:
    """Probabilities are coloured over the whole of [0, 1], other scores from their lowest to their highest."""
    low, high = min(scores, default=0.0), max(scores, default=1.0)
    if low >= 0 and high <= 1:
        return Normalize(0.0, 1.0)
    return Normalize(low, high if high > low else low + 1.0)


def _boxes(tree: Tree, shown: set[int], by: str | None, wrap: int) -> dict[int, _Box]:
    """Lay out the shown nodes: a column for each depth, as wide as its widest box; rows as high as the highest."""
    hidden = hidden_below(tree, shown)
    order = sorted(shown)
    nodes = [tree.nodes[id] for id in order]
    lines = [_lines(node, wrap) for node in nodes]
    infos = [_info(node, by, hidden[node.id]) for node in nodes]
    index = {id: place for place, id in enumerate(order)}
    rows = tidy_layout([None if node.parent is None else index[node.parent.id] for node in nodes])
    widths, heights = [], []
    for text, info in zip(lines, infos, strict=True):
        # the small line is set in 7.5 points, with two spaces between its parts
        small = sum(len(part) + 2 for part, _ in info) * _CHARACTER * 7.5 / _FONT
        widths.append(max(max(len(line) for line in text) * _CHARACTER, small) + 2 * _PAD_X)
        heights.append(len(text) * _LINE + (_INFO_LINE if info else 0.0) + 2 * _PAD_Y)
    columns = [
        max(width for node, width in zip(nodes, widths, strict=True) if node.depth == depth)
        for depth in range(max(node.depth for node in nodes) + 1)
    ]
    lefts = [_MARGIN + sum(columns[:depth]) + depth * _GAP_X for depth in range(len(columns))]
    pitch = max(heights[1:], default=heights[0]) + _GAP_Y
    middles = [row * pitch for row in rows]
    top = 0.62 - min(middle - height / 2 for middle, height in zip(middles, heights, strict=True))
    return {
        node.id: _Box(node, text, info, lefts[node.depth], top + middle - height / 2, columns[node.depth], height)
        for node, text, info, middle, height in zip(nodes, lines, infos, middles, heights, strict=True)
    }


def _lines(node: Node, wrap: int) -> list[str]:
    """A box's lines: the step, then an arrow and what the environment answered, if anything."""
    text = one_line(node.step.text)
    if node.step.observation_text:
        text += f" → {one_line(node.step.observation_text)}"
    most = 8 if node.is_root else 3
    lines = textwrap.wrap(text, wrap, max_lines=most, placeholder=" …") if text else []
    return lines or ["(empty)"]


def _info(node: Node, by: str | None, hidden: int) -> list[tuple[str, str]]:
    parts = []
    sign = mark(node)
    if sign:
        parts.append(
            {"✓": ("✓ right", _RIGHT), "✗": ("✗ wrong", _WRONG)}.get(sign, ("✂ cut off", _CUT))
        )  # fmt: skip
    score = None if by is None else node.scores.get(by)
    if score is not None:
        parts.append((f"{score:.2f}", _QUIET))
    if node.multiplicity > 1:
        parts.append((f"×{node.multiplicity}", _QUIET))
    if hidden:
        parts.append((f"+{hidden:,} hidden", _QUIET))
    return parts


def _draw_box(axes: Axes, box: _Box, fill: tuple[float, float, float, float]) -> None:
    right = mark(box.node) == "✓"
    axes.add_patch(
        FancyBboxPatch(
            (box.x, box.y), box.width, box.height, boxstyle="round,pad=0,rounding_size=0.07", facecolor=fill,
            edgecolor=_RIGHT if right else "#8B949E", linewidth=2.0 if right else 0.8, zorder=3,
        )
    )  # fmt: skip
    for number, line in enumerate(box.lines):
        axes.text(
            box.x + _PAD_X, box.y + _PAD_Y + (number + 0.5) * _LINE, line, family="monospace", fontsize=_FONT,
            color=_INK, va="center", weight="bold" if box.node.is_root else "normal", zorder=4, parse_math=False,
        )  # fmt: skip
    x, y = box.x + _PAD_X, box.y + box.height - _PAD_Y - _INFO_LINE * 0.42
    for text, color in box.info:
        axes.text(
            x, y, text, family="monospace", fontsize=7.5, color=color, va="center", zorder=4, parse_math=False,
            weight="bold" if color != _QUIET else "normal",
        )  # fmt: skip
        x += (len(text) + 2) * _CHARACTER * 7.5 / _FONT


def _draw_edge(axes: Axes, parent: _Box, child: _Box, to_right: bool) -> None:
    start = (parent.x + parent.width, parent.y + parent.height / 2)
    end = (child.x, child.y + child.height / 2)
    middle = (start[0] + end[0]) / 2
    curve = Curve([start, (middle, start[1]), (middle, end[1]), end], [1, 4, 4, 4])
    color, width = (_RIGHT, 1.8) if to_right else (_EDGE, 1.1)
    axes.add_patch(PathPatch(curve, facecolor="none", edgecolor=color, linewidth=width, zorder=2 if to_right else 1))


def _draw_title(axes: Axes, title: str, note: str, width: float) -> None:
    axes.text(_MARGIN, 0.30, title, fontsize=13, weight="bold", color=_INK, va="center", parse_math=False)
    axes.text(width - _MARGIN, 0.30, note, fontsize=9, color=_QUIET, va="center", ha="right")


def _draw_foot(figure: Figure, axes: Axes, by: str | None, norm: Normalize, height: float) -> None:
    """The legend: what the colours and the small marks mean."""
    y = height - 0.30
    x = _MARGIN
    if by is not None:
        axes.text(x, y, by, fontsize=9, color=_INK, va="center", parse_math=False)
        x += len(by) * 0.075 + 0.15
        figure_width = figure.get_figwidth()
        bar = figure.add_axes((x / figure_width, 0.24 / height, 1.5 / figure_width, 0.12 / height))
        figure.colorbar(ScalarMappable(norm, SCORE_COLORS), cax=bar, orientation="horizontal", ticks=[])
        ends = [norm.vmin or 0.0, norm.vmax or 0.0]
        bar.set_xticks(ends, [f"{end:g}" for end in ends], fontsize=8, color=_QUIET)
        bar.tick_params(length=0, pad=2)
        x += 1.5 + 0.45
    for text, color in (("✓ right", _RIGHT), ("✗ wrong", _WRONG), ("✂ cut off", _CUT), ("×n sampled n times", _QUIET)):
        axes.text(x, y, text, family="monospace", fontsize=8, color=color, va="center")
        x += (len(text) + 3) * 8 * 0.602 / 72
