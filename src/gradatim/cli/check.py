"""``gradatim check``: whether a recipe will run, what its solutions look like, and what it will cost."""

from __future__ import annotations

import tempfile

from gradatim.cli.output import progress_console, result_console
from gradatim.cli.recipes import PolicyOption, RecipeArgument, SetOption, chosen_policy
from gradatim.errors import GradatimError


def check(
    recipe: RecipeArgument,
    policy: PolicyOption = None,
    set_: SetOption = None,
) -> None:
    """Check a recipe: models, data and options, then three problems from one end to the other; nothing is kept."""
    from gradatim.cli.tables import print_sections
    from gradatim.recipes import Recipe, load_as
    from gradatim.run import Progress, Run, RunFolder
    from gradatim.run.checking import check as check_run
    from gradatim.run.trial import try_out

    loaded = load_as(Recipe, recipe, [*chosen_policy(policy), *(set_ or ())])
    with tempfile.TemporaryDirectory() as scratch, RunFolder(scratch, loaded) as folder:
        run = Run(loaded, folder, Progress(progress_console()))
        check_run(run)
        sections, troubles = try_out(run)
    print_sections(sections, result_console())
    if troubles:
        raise GradatimError("; ".join(troubles))
    result_console().print("Nothing is wrong with it.", highlight=False)
