"""``gradatim calibrate``: what a scorer's scores mean as probabilities, from trees that have labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradatim.cli.output import result_console
from gradatim.cli.trees import SkipDamagedOption, SourceArgument, TreesOption, open_store
from gradatim.errors import GradatimError
from gradatim.suggestions import suggestion

if TYPE_CHECKING:
    from gradatim.scorers.calibration import Calibration

_METHODS = ("isotonic", "platt")
_SCALES = ("auto", "scores", "logits")


def calibrate(
    source: SourceArgument,
    scorer: Annotated[str, typer.Option(metavar="NAME", help="The name of the scores in the trees.")],
    output: Annotated[Path, typer.Option(help="The file to write, which a scorer calibrated then names.")],
    value: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The label: the name of values in the trees, correct (verdicts) or exact (the truth of a run's task).",
        ),
    ] = "value",
    method: Annotated[str, typer.Option(help="isotonic, any monotone curve; or platt, a logistic one.")] = "isotonic",
    on: Annotated[
        str, typer.Option(help="What platt reads: scores or their logits; auto, logits of probabilities.")
    ] = "auto",
    trees: TreesOption = "round-1",
    skip_damaged: SkipDamagedOption = False,
) -> None:
    """Fit a calibration to a scorer's scores, for the scorer calibrated."""
    from gradatim.evaluation.labelled_scores import EXACT, labelled_scores
    from gradatim.scorers.calibration import fit

    for option, given, known in (("--method", method, _METHODS), ("--on", on, _SCALES)):
        if given not in known:
            raise GradatimError(f"{option} {given!r} is not known; {suggestion(given, list(known))}")
    store = open_store(source, trees, skip_damaged=skip_damaged)
    scores, labels = labelled_scores(store, scorer, value, _task_of(source) if value == EXACT else None)
    chosen: Any = {"method": method, "on": None if on == "auto" else on}
    calibration = fit(scores, labels, **chosen, of=f"{scorer} against {value}, {len(store):,} trees of {store.path}")
    calibration.write(output)
    result_console().print(f"{output}: {_told(calibration, scores, labels)}", highlight=False, soft_wrap=True)


def _task_of(source: Path) -> Any:
    """The task of a run's recipe."""
    from gradatim.recipes import Recipe, load_recipe
    from gradatim.tasks.guarded import guarded

    if not (source / "recipe.yaml").is_file():
        raise GradatimError(f"{str(source)!r} is no run folder, so that its task is not known; name one, or a value")
    recipe = load_recipe(source / "recipe.yaml")
    assert isinstance(recipe, Recipe), "runs that train from scratch have no trees"
    return guarded(recipe.task)


def _told(calibration: Calibration, scores: list[float | None], labels: list[float | None]) -> str:
    """What was found, in a sentence; how good it is, is told over the pairs that it was fitted to."""
    from gradatim.scorers.calibration import brier

    pairs = [(s, y) for s, y in zip(scores, labels, strict=True) if s is not None and y is not None]
    known = [label for _, label in pairs]
    after = brier([calibration(score) for score, _ in pairs], known)
    before = brier([score for score, _ in pairs], known)
    left_out = f", {calibration.left_out:,} left out that lack one or the other" if calibration.left_out else ""
    return (
        f"fitted to {calibration.pairs:,} scores with labels{left_out}; mean squared error {before:.4f}, calibrated "
        f"{after:.4f} (over the same pairs)"
    )
