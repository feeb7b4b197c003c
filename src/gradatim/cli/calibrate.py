"""``gradatim calibrate``: what a scorer's scores mean as probabilities, from trees that have labels."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradatim.cli.output import result_console
from gradatim.cli.trees import SkipDamagedOption, SourceArgument, TreesOption, open_store
from gradatim.errors import GradatimError
from gradatim.suggestions import suggestion

if TYPE_CHECKING:
    from gradatim.evaluation.labelled_scores import LabelledScores
    from gradatim.scorers.calibration import Calibration

_METHODS = ("isotonic", "platt")
_SCALES = ("auto", "scores", "logits")
_OF_TEST = ("evaluate-", "search-", "compare-")  # what stores of test problems' trees are called in a run


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
    if store.path.stem.startswith(_OF_TEST):
        warnings.warn(f"{store.path} has trees of test problems: measure what this calibrates on others", stacklevel=1)
    pairs = labelled_scores(store, scorer, value, _task_of(source) if value == EXACT else None)
    chosen: Any = {"method": method, "on": None if on == "auto" else on}
    of = f"{scorer} against {value}, {len(store):,} trees of {store.path}"
    calibration = fit(pairs.scores, pairs.labels, **chosen, of=of)
    calibration.write(output)
    result_console().print(f"{output}: {_told(calibration, pairs, **chosen)}", highlight=False, soft_wrap=True)


def _task_of(source: Path) -> Any:
    """The task of a run's recipe."""
    from gradatim.recipes import Recipe, load_recipe
    from gradatim.tasks.guarded import guarded

    if not (source / "recipe.yaml").is_file():
        raise GradatimError(f"{str(source)!r} is no run folder, so that its task is not known; name one, or a value")
    recipe = load_recipe(source / "recipe.yaml")
    assert isinstance(recipe, Recipe), "runs that train from scratch have no trees"
    return guarded(recipe.task)


def _told(calibration: Calibration, pairs: LabelledScores, **chosen: Any) -> str:
    """What was found, in a sentence; how good it is, is told of problems that a calibration was not fitted to."""
    from gradatim.scorers.calibration import brier, cross_fitted

    scores, labels, _ = pairs
    left_out = f", {calibration.left_out:,} left out that lack one or the other" if calibration.left_out else ""
    fitted = f"fitted to {calibration.pairs:,} scores with labels{left_out}"
    try:
        after = brier(cross_fitted(*pairs, **chosen), labels)
    except GradatimError:
        return f"{fitted}; of too few problems to say how good it is on others"
    return (
        f"{fitted}; mean squared error {brier(scores, labels):.4f}, calibrated {after:.4f} (each half of the problems "
        "by what was fitted to the other half)"
    )
