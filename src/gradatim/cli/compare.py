"""``gradatim compare``: methods on the same problems, accuracy against all compute spent."""

from __future__ import annotations

from pathlib import Path

from gradatim.cli.output import progress_console, result_console
from gradatim.cli.recipes import FreshOption, OutputOption, PolicyOption, RecipeArgument, SetOption, chosen_policy


def compare(
    recipe: RecipeArgument,
    policy: PolicyOption = None,
    set_: SetOption = None,
    output: OutputOption = None,
    fresh: FreshOption = False,
) -> None:
    """Compare searches, scorers and policies on the same problems, or go on with a comparison that was stopped."""
    from gradatim.cli.tables import print_sections
    from gradatim.recipes.comparison import Comparison
    from gradatim.recipes.load import load_as
    from gradatim.run.comparing import run_comparison
    from gradatim.run.comparison_report import comparison_sections
    from gradatim.run.progress import Progress

    loaded = load_as(Comparison, recipe, [*chosen_policy(policy), *(set_ or ())])
    folder = Path("runs") / loaded.name if output is None else output
    report = run_comparison(loaded, folder, fresh=fresh, progress=Progress(progress_console()))
    print_sections(comparison_sections(report), result_console())
