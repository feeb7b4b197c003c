"""Draw the pictures of the documentation from real trees: ``python scripts/draw_documentation_figures.py``.

Every tree is grown here by the shipped countdown models with fixed seeds, so the pictures show what the library does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, PathPatch, Rectangle
from matplotlib.path import Path as Curve

from gradatim import Budget, Node, Tree
from gradatim.policies.transformers import TransformersPolicy
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.search import Beam, Grow, IndependentSampling, Mcts
from gradatim.store.files import atomic_path
from gradatim.supervision import SiblingPairs, Term
from gradatim.tasks.base import grade
from gradatim.tasks.countdown import Countdown, make_problem
from gradatim.training.packing import PackedRow, pack_row
from gradatim.values.backup import back_up_values
from gradatim.view.figure import SCORE_COLORS, draw_tree
from gradatim.view.layout import tidy_layout

IMAGES = Path(__file__).parents[1] / "docs" / "images"
Color = tuple[float, float, float]
INK, QUIET, EDGE = "#1F2328", "#59636E", "#BCC3CA"
RIGHT, WRONG, BLUE, PALE = "#1A7F37", "#B3261E", "#2F6FA8", "#F6F8FA"


def main() -> None:
    """Draw all pictures."""
    policy = TransformersPolicy.from_pretrained("shipped:countdown")
    scorer = ProcessRewardScorer.from_pretrained("shipped:countdown-reward")
    draw_flow(IMAGES / "flow.png")
    draw_tree(small_tree(policy, seed=8), IMAGES / "tree-anatomy.png", by="value", title="One problem, one tree")
    draw_packing(small_tree(policy, seed=6, branching=(2, 2, 1)), IMAGES / "packed-tree.png")
    draw_searches(searched_trees(policy, scorer, budget=600), IMAGES / "searches.png")
    draw_supervision(small_tree(policy, seed=10), IMAGES / "supervision.png")


def small_tree(policy: TransformersPolicy, *, seed: int, branching: Sequence[int] = (3, 3, 2)) -> Tree:
    """A small tree, and the value of every step."""
    tree = Tree(make_problem([3, 5, 7, 8], target=46), seed=seed)
    asyncio.run(Grow(branching=branching)(tree, policy))
    grade(tree, Countdown())
    back_up_values(tree)
    return tree


def searched_trees(policy: TransformersPolicy, scorer: ProcessRewardScorer, budget: int) -> dict[str, Tree]:
    """The same problem searched in four ways, each with the same budget of tokens."""
    problem = make_problem([9, 7, 4, 13], target=7)
    trees = {name: Tree(problem, seed=3, budget=Budget(budget)) for name in ("sampling", "beam", "MCTS", "growing")}
    asyncio.run(IndependentSampling(n=None, wave=2, score="steps")(trees["sampling"], policy, scorer))
    asyncio.run(Beam(width=3, branch=4)(trees["beam"], policy, scorer))
    asyncio.run(Mcts(simulations=64, branch=4, wave=1)(trees["MCTS"], policy, scorer))
    asyncio.run(Grow(branching=(6, 3, 2))(trees["growing"], policy, scorer))
    for tree in trees.values():
        grade(tree, Countdown())
    return trees


def draw_flow(path: Path) -> None:
    """The way of the data: what makes the tree, and what comes out of it."""
    figure, axes = _canvas(9.2, 2.35)
    boxes = [
        ("task", "problems\nverifier"), ("search", "asks the policy for steps,\nthe scorer for scores"),
        ("tree", "steps, scores,\nrewards"), ("supervision", "labels, pairs,\nrows"),
        ("training", "one packed row\nper tree"),
    ]  # fmt: skip
    widths, left, middle = (1.15, 2.15, 1.35, 1.35, 1.4), 0.14, 1.7
    edges: list[tuple[float, float]] = []
    for (name, note), width in zip(boxes, widths, strict=True):
        _box(axes, left, middle - 0.5, width, 1.0, name, note, bold_edge=name == "tree")
        edges.append((left, left + width))
        left += width + 0.37
    for (_, start), (end, _) in pairwise(edges):
        _arrow(axes, (start, middle), (end, middle))
    last, search = sum(edges[4]) / 2, sum(edges[1]) / 2
    axes.plot([last, last, search, search], [middle - 0.5, 0.72, 0.72, middle - 0.62], color=BLUE, linewidth=1.6)
    _arrow(axes, (search, middle - 0.72), (search, middle - 0.5), color=BLUE)
    axes.text((last + search) / 2, 0.82, "the next round: a better policy, a better scorer", ha="center", fontsize=9.5,
              color=BLUE)  # fmt: skip
    axes.text(sum(edges[2]) / 2, 0.25, "evaluation reads trees; the store keeps them", ha="center", fontsize=9.5,
              color=QUIET)  # fmt: skip
    _save(figure, path)


def draw_packing(tree: Tree, path: Path) -> None:
    """A tree beside the row that it is packed into, and what each token of the row attends to."""
    row = pack_row(tree.nodes)
    shown = [node for node in row.nodes if not node.is_root]
    colors = {node: _hues(len(shown))[place] for place, node in enumerate(shown)} | {tree.root: to_rgb("#9AA4AE")}
    figure = Figure(figsize=(10.8, 5.2))
    left = figure.add_axes((0.015, 0.05, 0.45, 0.82))
    _boxes_by_token(left, row, colors)
    right = figure.add_axes((0.505, 0.05, 0.45, 0.82), anchor="W")
    _mask(right, row, colors)
    for x, title in ((0.02, "The tree: every step once"), (0.505, "The packed row, and what each token attends to")):
        figure.text(x, 0.945, title, fontsize=12, fontweight="bold", color=INK)
    _save(figure, path)


def draw_searches(trees: Mapping[str, Tree], path: Path) -> None:
    """Trees as dots, side by side: where each search spent the same budget."""
    figure = Figure(figsize=(11.4, 4.3))
    titles = {
        "sampling": "independent sampling\nwhole solutions", "beam": "step beam search\nwidth 3, branch 4",
        "MCTS": "Monte-Carlo tree search\nbranch 4, PUCT", "growing": "growing, to learn from\nbranching 6, 3, 2",
    }  # fmt: skip
    for place, (name, tree) in enumerate(trees.items()):
        axes = figure.add_axes((0.01 + 0.25 * place, 0.11, 0.23, 0.745))
        _dots(axes, tree)
        axes.set_title(titles[name], fontsize=11, fontweight="bold", color=INK, loc="left", va="bottom")
        right = sum(1 for leaf in tree.solutions() if leaf.correct)
        note = f"{tree.budget.total} tokens, {len(tree) - 1} steps, {right} right"
        figure.text(0.01 + 0.25 * place, 0.055, note, fontsize=9.5, color=QUIET)
    _save(figure, path)


def draw_supervision(tree: Tree, path: Path) -> None:
    """The values of a tree, the pairs of siblings that differ, and the first wrong steps."""
    figure = Figure(figsize=(9.2, 5.6))
    axes = figure.add_axes((0.0, 0.08, 1.0, 0.92))
    places = _places(tree)
    _edges(axes, tree, places)
    _pair_arrows(axes, list(SiblingPairs(min_gap=0.25)(tree)), places)
    for node in tree.nodes:
        _value_dot(axes, node, places[node])
    axes.set_ylim(max(y for _, y in places.values()) + 0.7, -0.7)
    axes.set_xlim(-0.15, 3.6)
    axes.set_axis_off()
    figure.text(0.03, 0.045, "blue arrow: a preference between siblings whose values differ by 0.25 or more, from the "
                "rejected to the chosen step", fontsize=9.5, color=BLUE)  # fmt: skip
    figure.text(0.03, 0.012, "red ring: a first wrong step, from which no sampled solution is right", fontsize=9.5,
                color=WRONG)  # fmt: skip
    _save(figure, path)


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    return figure, axes


def _box(axes: Axes, x: float, y: float, width: float, height: float, name: str, note: str, bold_edge: bool) -> None:
    edge, thickness = (BLUE, 2.2) if bold_edge else ("#8B949E", 1.0)
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.09", facecolor=PALE, edgecolor=edge,
                       linewidth=thickness)
    )  # fmt: skip
    axes.text(x + width / 2, y + height - 0.26, name, ha="center", va="center", fontsize=11.5, weight="bold", color=INK)
    axes.text(x + width / 2, y + height - 0.64, note, ha="center", va="center", fontsize=8.8, color=QUIET)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str = INK) -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, shrinkA=2, shrinkB=1, color=color))


def _hues(count: int) -> list[Color]:
    """Light colours that can be told apart, and that dark text can be read on."""
    palette = ["#A6CEE3", "#FDBF6F", "#B2DF8A", "#CAB2D6", "#FB9A99", "#FFE08A", "#9FE0D6", "#E3C7A6", "#C5CDF2",
               "#F2C2DE", "#D3E58F", "#BFD8D2"]  # fmt: skip
    return [to_rgb(palette[place % len(palette)]) for place in range(count)]


def _boxes_by_token(axes: Axes, row: PackedRow, colors: Mapping[Node, Color]) -> None:
    """The tree from left to right, each step as its text on its colour."""
    tree = row.nodes[0].tree
    rows = tidy_layout([None if node.parent is None else node.parent.id for node in tree.nodes])
    width = {0: 1.28, 1: 1.42, 2: 1.3, 3: 1.2}
    lefts = [0.0, 1.55, 3.25, 4.82]
    for node in tree.nodes:
        x, y = lefts[node.depth], rows[node.id]
        if node.parent is not None:
            start = (lefts[node.depth - 1] + width[node.depth - 1], rows[node.parent.id])
            _curve(axes, start, (x, y), EDGE, 1.2)
        axes.add_patch(
            FancyBboxPatch((x, y - 0.27), width[node.depth], 0.54, boxstyle="round,pad=0,rounding_size=0.08",
                           facecolor=colors[node], edgecolor="#8B949E", linewidth=0.7, zorder=3)
        )  # fmt: skip
        text = node.step.text.strip().replace(" | ", "\n| ").replace(" from ", "\nfrom ")
        axes.text(x + 0.08, y, text, fontsize=7.6, family="monospace", va="center", color=INK, zorder=4,
                  linespacing=1.25)  # fmt: skip
    axes.set(xlim=(-0.05, 6.1), ylim=(max(rows) + 0.5, min(rows) - 0.5))
    axes.set_axis_off()


def _mask(axes: Axes, row: PackedRow, colors: Mapping[Node, Color]) -> None:
    """The attention of the packed row: a cell for each pair of tokens, in the colour of the token attended to."""
    size = len(row)
    owner = np.zeros(size, dtype=int)
    for place in range(len(row.nodes)):
        start = int(row.step_starts[place])
        owner[start : int(row.step_ends[place])] = place
    query, key = np.arange(size)[:, None], np.arange(size)[None, :]
    sees = (key <= query) & (query < row.visible_until.numpy()[None, :])
    cells = np.where(sees, owner[None, :] + 1, 0)
    shades = ListedColormap([to_rgb("white"), *(colors[node] for node in row.nodes)])
    axes.imshow(cells, cmap=shades, interpolation="nearest", vmin=0, vmax=len(row.nodes))
    for place in range(len(row.nodes)):
        start = int(row.step_starts[place])
        length = int(row.step_ends[place]) - start
        axes.add_patch(
            Rectangle((start - 0.5, -3.6), length, 2.3, facecolor=colors[row.nodes[place]], edgecolor="white",
                      linewidth=0.6, clip_on=False)
        )  # fmt: skip
        axes.axhline(start - 0.5, color="#E4E7EA", linewidth=0.5)
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(f"{size} tokens of the row, as keys", fontsize=9, color=QUIET)
    axes.yaxis.set_label_position("right")
    axes.set_ylabel("the same tokens, as queries", fontsize=9, color=QUIET, rotation=270, labelpad=14)
    for spine in axes.spines.values():
        spine.set_color(EDGE)


def _dots(axes: Axes, tree: Tree) -> None:
    """A tree from top to bottom, a dot for each step in the colour of its score."""
    places = {node: (y, depth) for node, (depth, y) in _places(tree).items()}
    to_right = {node for leaf in tree.solutions() if leaf.correct for node in leaf.path()}
    for node in tree.nodes[1:]:
        assert node.parent is not None
        (x, y), (parent_x, parent_y) = places[node], places[node.parent]
        curve = Curve([(parent_x, parent_y), (parent_x, parent_y + 0.5), (x, y - 0.5), (x, y)], [1, 4, 4, 4])
        color, width = (RIGHT, 1.8) if node in to_right else (EDGE, 1.0)
        axes.add_patch(PathPatch(curve, facecolor="none", edgecolor=color, linewidth=width))
    for node, (x, y) in places.items():
        score = node.scores.get("process_reward")
        fill = "white" if score is None else SCORE_COLORS(score)
        marker = "s" if node.is_root else "o"
        axes.scatter(x, y, s=62, marker=marker, color=fill, edgecolor=RIGHT if node.correct else "#7B858F", zorder=3,
                     linewidth=2.0 if node.correct else 0.8)  # fmt: skip
    widest = max(x for x, _ in places.values())
    axes.set(xlim=(-0.7, max(widest, 4) + 0.7), ylim=(max(node.depth for node in tree.nodes) + 0.35, -0.35))
    axes.set_axis_off()


def _places(tree: Tree) -> dict[Node, tuple[float, float]]:
    rows = tidy_layout([None if node.parent is None else node.parent.id for node in tree.nodes])
    return {node: (float(node.depth), rows[node.id]) for node in tree.nodes}


def _edges(axes: Axes, tree: Tree, places: Mapping[Node, tuple[float, float]]) -> None:
    for node in tree.nodes[1:]:
        assert node.parent is not None
        _curve(axes, places[node.parent], places[node], EDGE, 1.2)


def _curve(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str, width: float) -> None:
    middle = (start[0] + end[0]) / 2
    curve = Curve([start, (middle, start[1]), (middle, end[1]), end], [1, 4, 4, 4])
    axes.add_patch(PathPatch(curve, facecolor="none", edgecolor=color, linewidth=width, zorder=1))


def _pair_arrows(axes: Axes, pairs: Sequence[Term], places: Mapping[Node, tuple[float, float]]) -> None:
    for chosen, rejected in (pair.ends for pair in pairs):
        start, end = places[rejected], places[chosen]
        bend = -0.3 if start[1] > end[1] else 0.3
        axes.add_patch(
            FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", arrowstyle="-|>", mutation_scale=13,
                            shrinkA=14, shrinkB=14, color=BLUE, linewidth=1.5, zorder=4)
        )  # fmt: skip


def _value_dot(axes: Axes, node: Node, place: tuple[float, float]) -> None:
    value = node.scores["value"]
    wrong = node.parent is not None and value == 0 and node.parent.scores["value"] > 0
    axes.scatter(*place, s=560, color=SCORE_COLORS(value), edgecolor=WRONG if wrong else "#7B858F", zorder=3,
                 linewidth=2.2 if wrong else 0.8)  # fmt: skip
    axes.text(*place, f"{value:.2f}", ha="center", va="center", fontsize=8.2, color=INK, zorder=5)
    if not node.is_root:
        axes.text(place[0] + 0.10, place[1] - 0.13, node.step.text.strip().split(" | ")[0], fontsize=8,
                  family="monospace", va="bottom", color=INK, zorder=2,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # fmt: skip
    if node.is_leaf:
        mark, color = ("✓", RIGHT) if node.correct else ("✗", WRONG)
        axes.text(place[0] + 0.11, place[1] + 0.14, mark, fontsize=11, va="center", color=color)


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=170, facecolor="white")


if __name__ == "__main__":
    main()
