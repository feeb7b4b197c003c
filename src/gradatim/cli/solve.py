"""``gradatim solve``: one problem, searched before your eyes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from gradatim.cli.completion import complete_model, complete_search, complete_task
from gradatim.cli.output import result_console
from gradatim.cli.parts import described
from gradatim.errors import GradatimError

if TYPE_CHECKING:
    from gradatim.policies.base import Policy, SamplingOptions
    from gradatim.scorers.base import Scorer
    from gradatim.search import Search
    from gradatim.search.choosing import AnswerOf
    from gradatim.tree import Node, Tree


def solve(
    problem: Annotated[str, typer.Argument(metavar="PROBLEM", help='The problem, e.g. "Make 50 from 3 5 7 8".')],
    policy: Annotated[
        str,
        typer.Option(
            metavar="MODEL", autocompletion=complete_model, help="shipped:NAME, a hub id, a folder or a server's URL."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What a server calls the model; by default its only one."),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            metavar="TASK",
            autocompletion=complete_task,
            help="What the problem is of: a task's name (gradatim parts tasks), task.yaml or file.py:Class.",
        ),
    ] = "countdown",
    scorer: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            autocompletion=complete_model,
            help="A process reward model: a folder, hub id or shipped:NAME.",
        ),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=complete_search,
            help="A search (gradatim parts search); by default beam with a scorer, and sampling without.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="An option of the search, e.g. width=2. May be repeated."),
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token.")] = 1.0,
    budget: Annotated[int | None, typer.Option(help="Tokens that the search may cost.")] = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of a solution at most; by default as in recipes.")
    ] = None,
    max_step_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a step at most; by default as in recipes.")
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Put the problem as a conversation in the model's chat template.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many steps.")] = 60,
) -> None:
    """Solve one problem and show the tree."""
    if budget is not None and budget < 1:
        raise GradatimError(f"a budget of {budget} tokens pays for nothing; give at least 1, or leave --budget out")
    if not problem.strip():
        raise GradatimError("the problem is empty; write it in quotation marks behind the command")
    from gradatim.budget import Budget
    from gradatim.event_loop import run_to_end
    from gradatim.models import resolve_model
    from gradatim.part import make
    from gradatim.policies.base import SamplingOptions
    from gradatim.policies.server import ServerOptions
    from gradatim.recipes.recipe import ModelOptions
    from gradatim.run.models import Models, placement
    from gradatim.scorers.process_reward import ProcessRewardScorer
    from gradatim.tasks.base import grade
    from gradatim.tasks.guarded import guarded
    from gradatim.text.prompts import ChatFormat
    from gradatim.tree import Tree
    from gradatim.view import render

    chosen = make("search", described(search or ("sampling" if scorer is None else "beam"), set_))
    if scorer is None and chosen.is_guided:
        raise GradatimError(f"{chosen.title} needs a scorer to guide it; give --scorer, or use sampling")
    of_file = task.endswith((".yaml", ".yml"))
    made = guarded(make("tasks", {"own": {"file": task}} if of_file else task))
    tree = Tree(made.ask(problem), seed=seed, budget=Budget(budget))
    limits = {"max_steps": max_steps, "max_step_tokens": max_step_tokens}
    given: dict[str, Any] = {name: value for name, value in limits.items() if value is not None}
    sampling = SamplingOptions(temperature=temperature, **given)
    options = ModelOptions(
        model=policy,
        server=ServerOptions(model=model),
        device=device,
        sampling=sampling,
        chat=ChatFormat() if chat else None,
    )
    judge = None
    if scorer is not None:
        judge = ProcessRewardScorer.from_pretrained(resolve_model(scorer), **placement(options))
    run_to_end(
        _search(tree, Models(made, lambda **_: None).policy("policy", policy, options), judge, chosen, made.answer)
    )
    grade(tree, made)
    name = None if judge is None else judge.name
    console = result_console()
    scored = any(name in node.scores for node in tree.nodes)  # a small budget may end before the first score
    console.print(render(tree, by=name if scored else None, limit=limit))
    _print_answer(tree, chosen, chosen.choose(tree, name), name, console)
    for sentence in _cut_off(tree, sampling):
        console.print(sentence, style="yellow", highlight=False)
    console.print(f"{tree.budget.total:,} tokens", style="dim", highlight=False)


_CHOSEN_BY = {
    "score": "the scorer",
    "majority": "the vote",
    "weighted_majority": "a vote weighted by the scorer",
    "best_of_majority": "the scorer among frequent answers",
}


async def _search(tree: Tree, policy: Policy, scorer: Scorer | None, search: Search, answer: AnswerOf) -> None:
    try:
        await search(tree, policy, scorer, answer=answer)
    finally:
        await policy.close()


def _print_answer(tree: Tree, search: Search, chosen: Node | None, scorer: str | None, console: Console) -> None:
    """The solution that the search chose, and what the verifier says of it."""
    if chosen is None:
        several = sum(leaf.finished for leaf in tree.leaves())
        advice = f"; try more ({', '.join(f'--set {name}=N' for name in search.grows_with)})" if several else ""
        console.print(f"No solution with an answer was found{advice}.")
    else:
        rule = search.choose_by or ("majority" if scorer is None else "score")
        console.print(f"\n[bold]Chosen by {_CHOSEN_BY[rule]}:[/]")
        console.print(chosen.text.rstrip(), highlight=False, markup=False)
        reason = f" ({chosen.notes['verdict']})" if tree.problem.answer is not None else ""
        console.print(f"Answer: {chosen.answer}{reason}", highlight=False)


def _cut_off(tree: Tree, sampling: SamplingOptions) -> Iterator[str]:
    """What cut solutions off, with the option that changes it."""
    from gradatim.run.outcomes import BUDGET, CONTEXT, STEP_LENGTH, STEPS, outcomes_of

    outcomes = outcomes_of([tree], asked=1, max_step_tokens=sampling.max_step_tokens, max_steps=sampling.max_steps)
    if not outcomes.solutions:
        yield "Nothing was written, since the budget was too small; raise --budget."
    advice = {
        STEP_LENGTH: f"within a step, at {sampling.max_step_tokens:,} tokens; raise --max-step-tokens",
        STEPS: f"after {sampling.max_steps:,} steps; raise --max-steps",
        CONTEXT: "at the end of the model's context",
        BUDGET: "by the budget; raise --budget",
    }
    for limit, count in outcomes.cut_off.items():
        if count:
            yield f"{count:,} of {outcomes.solutions:,} solutions were cut off {advice[limit]}."
