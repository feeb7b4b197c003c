"""``gradatim divide``: solutions divided into steps anew, as a model marks them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradatim.cli.output import result_console
from gradatim.cli.trees import SkipDamagedOption, SourceArgument, TreesOption, open_store
from gradatim.errors import GradatimError

if TYPE_CHECKING:
    from gradatim.policies.base import Policy


def divide(
    source: SourceArgument,
    policy: Annotated[str, typer.Option(help="The model that marks: shipped:NAME, hub id, folder or server URL.")],
    output: Annotated[Path, typer.Option(help="The file of trees to write; one that was begun is gone on with.")],
    model: Annotated[str | None, typer.Option(help="The model's name at a server that has several.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask in the model's chat template.")] = False,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a solution with its marks at most.")] = 4096,
    in_flight: Annotated[int, typer.Option(min=1, help="Trees at the same time.")] = 16,
    trees: TreesOption = "round-1",
    skip_damaged: SkipDamagedOption = False,
) -> None:
    """Divide the solutions of trees into steps anew, as a model marks them."""
    from gradatim.event_loop import run_to_end
    from gradatim.search.many import search_many
    from gradatim.store.division import Division
    from gradatim.store.trees import TreeStore
    from gradatim.tree import Tree

    store = open_store(source, trees, skip_damaged=skip_damaged)
    if output.exists() and output.samefile(store.path):
        raise GradatimError(f"{str(output)!r} holds the trees that are to be divided; choose another --output")
    asked = _policy(policy, model, chat=chat)
    division = Division(asked, max_tokens=max_tokens)
    with TreeStore(output) as done:

        async def work(tree: Tree) -> None:
            tree.budget.limit = None  # which was what the search might cost
            done.append(await division(tree))

        async def all_of_them() -> None:
            try:
                await search_many((tree for tree in store if tree.problem.id not in done), work, in_flight)
            finally:
                await asked.close()

        run_to_end(all_of_them())
        kept = ", ".join(f"{why} ({count:,})" for why, count in division.kept.most_common())
        told = f"{division.divided:,} solutions have new steps" + (f", others keep theirs: {kept}" if kept else "")
        result_console().print(f"{output}: {len(done):,} trees; {told}", highlight=False, soft_wrap=True)


def _policy(name: str, model: str | None, *, chat: bool) -> Policy:
    from gradatim.models import resolve_model
    from gradatim.policies import ServerPolicy, TransformersPolicy
    from gradatim.policies.server import ServerOptions, is_server_url
    from gradatim.text.prompts import ChatFormat

    format = ChatFormat() if chat else None
    if is_server_url(name):
        return ServerPolicy(name, ServerOptions(model=model), chat=format)
    return TransformersPolicy.from_pretrained(resolve_model(name), chat=format)
