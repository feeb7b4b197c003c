"""Plots that are read at the width of a README: accuracy against tokens, training curves, reliability."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from gradatim.evaluation.bootstrap import Estimate
from gradatim.evaluation.compare import MethodResult, curves
from gradatim.evaluation.equal_compute import Curve
from gradatim.evaluation.steps import CalibrationBin
from gradatim.store.files import atomic_path
from gradatim.tasks.truth import OF_STATES, TruthName

# Okabe and Ito (2008): told apart with any colour vision; the yellow is left out, it is too pale for lines
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#4D4D4D")
_MARKERS = "osD^vPX"
_TEXT = "#222222"
_FAINT = "#D9D9D9"
_HEIGHT = 4.4  # inches


def accuracy_against_tokens(
    results: Sequence[MethodResult], path: str | os.PathLike[str], *, title: str = "Accuracy against compute"
) -> None:
    """Draw each method's accuracy, with its interval, against its tokens per problem on a log2 axis.

    Args:
        results: points; those of equal method and scorer are joined. The scorer is named in a label only where a
            method appears with several.
        path: where the picture goes; its suffix chooses the format (``.png``, ``.svg``).
        title: stands above the plot.

    Raises:
        GradatimError: if the file cannot be written.
    """
    figure, axes = _figure(title, "tokens per problem, of all models (log scale)", "accuracy")
    drawn = list(curves([result for result in results if result.tokens > 0]).items())
    methods = [method for (method, _), _ in drawn]
    labels: list[tuple[str, str, float, float]] = []
    for place, ((method, scorer), curve) in enumerate(drawn):
        color, tokens = PALETTE[place % len(PALETTE)], [point.tokens for point in curve]
        accuracy = [point.accuracy.value for point in curve]
        ends = [_ends(point.accuracy) for point in curve]
        below = [max(0.0, value - low) for value, (low, _) in zip(accuracy, ends, strict=True)]
        above = [max(0.0, high - value) for value, (_, high) in zip(accuracy, ends, strict=True)]
        axes.errorbar(
            tokens, accuracy, yerr=[below, above], color=color, marker=_MARKERS[place % len(_MARKERS)], markersize=6,
            markeredgecolor="white", markeredgewidth=0.8, linewidth=2, elinewidth=1.2, capsize=0, zorder=3 + place,
        )  # fmt: skip
        name = f"{method} · {scorer}" if methods.count(method) > 1 and scorer != "none" else method
        labels.append((name, color, tokens[-1], accuracy[-1]))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=14))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _fit_axes(axes, results)
    _label_lines(axes, labels)
    _save(figure, path)


def accuracy_against_compute(
    curves: Sequence[Curve],
    path: str | os.PathLike[str],
    *,
    title: str = "Accuracy against compute",
    of: Literal["tokens", "flops"] = "tokens",
) -> None:
    """Draw many methods' accuracies against their compute per problem on a log2 axis, and the frontier behind them.

    The frontier is the best accuracy that any of them has for that compute or less. Points have their intervals where
    at most seven methods are drawn.

    Args:
        curves: the methods.
        path: where the picture goes; its suffix chooses the format (``.png``, ``.svg``).
        title: stands above the plot.
        of: what compute is counted in; a method of unknown FLOPs is left out.

    Raises:
        GradatimError: if the file cannot be written.
    """
    unit = "tokens" if of == "tokens" else "estimated FLOPs"
    figure, axes = _figure(title, f"{unit} per problem, of all models (log scale)", "accuracy")
    results = {(each.name, place): each.results() for place, each in enumerate(curves)}
    drawn = {
        name: [(getattr(result, of), result.accuracy) for result in found if getattr(result, of)]
        for (name, _), found in results.items()
    }
    drawn = {name: points for name, points in drawn.items() if points}
    height = max(_HEIGHT, 0.8 + 0.27 * len(drawn))
    figure.set_figheight(height)
    best: list[tuple[float, float]] = []
    for cost, accuracy in sorted((cost, each.value) for points in drawn.values() for cost, each in points):
        if not best or accuracy > best[-1][1]:
            best.append((cost, accuracy))
    largest = max((cost for points in drawn.values() for cost, _ in points), default=1.0)
    axes.step(
        [*(cost for cost, _ in best), largest], [*(value for _, value in best), best[-1][1] if best else 0.0],
        where="post", color="#BBBBBB", linewidth=6, alpha=0.6, solid_capstyle="butt", zorder=2,
        label="frontier: the best for this compute or less",
    )  # fmt: skip
    labels: list[tuple[str, str, float, float]] = []
    for place, (name, points) in enumerate(drawn.items()):
        color, style = PALETTE[place % len(PALETTE)], ("-", "--", ":", "-.")[place // len(PALETTE) % 4]
        costs, values = [cost for cost, _ in points], [each.value for _, each in points]
        if len(drawn) <= len(PALETTE):
            for cost, each in points:
                axes.plot([cost, cost], _ends(each), color=color, linewidth=1.2, zorder=3)
        axes.plot(
            costs, values, color=color, linestyle=style, marker=_MARKERS[place % len(_MARKERS)], markersize=6,
            markeredgecolor="white", markeredgewidth=0.8, linewidth=1.8, zorder=3 + place,
        )  # fmt: skip
        labels.append((name, color, costs[-1], values[-1]))
    axes.set_xscale("log", base=2 if of == "tokens" else 10)
    if of == "tokens":
        axes.xaxis.set_major_locator(LogLocator(base=2, numticks=14))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    _label_lines(axes, labels, height)
    _save(figure, path)


def scores_by_depth(scorers: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Draw the AUC of each scorer against the number of steps of the partial solutions that it judges.

    Args:
        scorers: as the report of a comparison has them.
        path: where the picture goes.

    Raises:
        GradatimError: if the file cannot be written.
    """
    figure, axes = _figure("Do scores get worse with depth?", "steps of the partial solution", "AUC against the truth")
    labels = []
    for place, scorer in enumerate(scorers):
        points = [(each["depth"], each["auc"], each["auc_interval"]) for each in scorer["by_depth"] if each["auc"]]
        if not points:
            continue
        color = PALETTE[place % len(PALETTE)]
        for depth, value, interval in points:
            axes.plot([depth, depth], interval or [value, value], color=color, linewidth=1.2, zorder=3)
        axes.plot(
            [depth for depth, *_ in points], [value for _, value, _ in points], color=color, linewidth=1.8,
            marker=_MARKERS[place % len(_MARKERS)], markersize=6, markeredgecolor="white", zorder=3,
        )  # fmt: skip
        labels.append((scorer["name"], color, points[-1][0], points[-1][1]))
    axes.axhline(0.5, color="#999999", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _label_lines(axes, labels)
    _save(figure, path)


def training_curves(
    history: Mapping[str, Sequence[tuple[float, float]]],
    path: str | os.PathLike[str],
    *,
    title: str = "Training",
    y_label: str = "loss",
) -> None:
    """Draw named curves of (training step, value) points.

    Raises:
        GradatimError: if the file cannot be written.
    """
    figure, axes = _figure(title, "training step", y_label)
    _draw_lines(axes, history)
    _save(figure, path)


def learning_curves(
    accuracies: Mapping[str, Sequence[tuple[float, float]]],
    path: str | os.PathLike[str],
    *,
    title: str,
    x_label: str,
) -> None:
    """Draw named curves of accuracies against what was spent in learning: points (rounds or tokens, accuracy).

    Raises:
        GradatimError: if the file cannot be written.
    """
    figure, axes = _figure(title, x_label, "share of right solutions")
    _draw_lines(axes, accuracies, marker="o", markersize=4)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _save(figure, path)


def _draw_lines(axes: Axes, lines: Mapping[str, Sequence[tuple[float, float]]], **style: Any) -> None:
    """Draw named lines of points, each with its name at its end."""
    labels = []
    for place, (name, points) in enumerate((name, points) for name, points in lines.items() if points):
        color, steps, values = PALETTE[place % len(PALETTE)], [p[0] for p in points], [p[1] for p in points]
        axes.plot(steps, values, color=color, linewidth=1.8, zorder=3, **style)
        labels.append((name, color, steps[-1], values[-1]))
    axes.margins(x=0.02, y=0.08)
    _label_lines(axes, labels)


def reliability(
    bins: Sequence[CalibrationBin],
    path: str | os.PathLike[str],
    *,
    title: str = "Do the scores mean what they say?",
    truth: TruthName = "reachable",
) -> None:
    """Draw the share of good states against their mean score, bin by bin; a point's area grows with its states.

    ``truth`` says what a state is called good by.

    Raises:
        GradatimError: if the file cannot be written.
    """
    figure, axes = _figure(title, "step score", f"share of states that {OF_STATES[truth]}")
    figure.set_size_inches(5.2, 4.8)
    most = max((part.count for part in bins), default=1)
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate("calibrated", (0.86, 0.86), (-4, 4), textcoords="offset points", ha="right", color="#777777")
    scores, shares = [part.mean_score for part in bins], [part.share_good for part in bins]
    axes.plot(scores, shares, color=PALETTE[0], linewidth=1.6, zorder=2)
    sizes = [20 + 220 * part.count / most for part in bins]
    axes.scatter(scores, shares, s=sizes, color=PALETTE[0], edgecolor="white", linewidth=0.9, zorder=3)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.04, 1.04), aspect="equal")
    _save(figure, path)


def _figure(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """A plain figure of README width; built without pyplot, so no display and no global state is touched."""
    figure = Figure(figsize=(8.0, _HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", color=_TEXT, pad=12)
    axes.set_xlabel(x_label, fontsize=10.5, color=_TEXT, labelpad=6)
    axes.set_ylabel(y_label, fontsize=10.5, color=_TEXT, labelpad=6)
    axes.tick_params(labelsize=9.5, color=_FAINT, labelcolor=_TEXT, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#AAAAAA")
    axes.grid(axis="y", color=_FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _ends(estimate: Estimate) -> tuple[float, float]:
    """Where the bar of an interval begins and ends; without one, it has no length."""
    low, high = estimate.low, estimate.high
    return (estimate.value if low is None else low), (estimate.value if high is None else high)


def _fit_axes(axes: Axes, results: Sequence[MethodResult]) -> None:
    tokens = [result.tokens for result in results if result.tokens > 0]
    if not tokens:
        return
    axes.set_xlim(min(tokens) / 1.25, max(tokens) * 1.25)
    figures = [figure for result in results for figure in (result.accuracy.value, *_ends(result.accuracy))]
    low, high = min(figures), max(figures)
    margin = 0.06 * max(high - low, 0.1)
    axes.set_ylim(max(low - margin, -0.02), min(high + margin, 1.02))


def _label_lines(axes: Axes, labels: Sequence[tuple[str, str, float, float]], height: float = _HEIGHT) -> None:
    """Name each line at the right margin of a figure of that height (in inches), in its colour, apart from each other,
    with a faint line to its end."""
    bottom, top = axes.get_ylim()
    gap = 0.27 / height
    heights = sorted(((y - bottom) / ((top - bottom) or 1.0), name, color, x, y) for name, color, x, y in labels)
    places = [height for height, *_ in heights]
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + gap)
    overflow = max(0.0, places[-1] - 1.0) if places else 0.0
    places = [place - overflow for place in places]
    for index in range(len(places) - 2, -1, -1):
        places[index] = min(places[index], places[index + 1] - gap)
    for place, (_, name, color, x, y) in zip(places, heights, strict=True):
        axes.annotate(
            name, (x, y), (1.02, place), xycoords="data", textcoords="axes fraction", color=color, fontsize=10,
            fontweight="bold", va="center", annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "color": color, "alpha": 0.35, "linewidth": 0.8, "linestyle": ":", "shrinkA": 2,
                "shrinkB": 5, "relpos": (0.0, 0.5),
            },
        )  # fmt: skip


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=200, facecolor="white", bbox_inches="tight", pad_inches=0.12)
