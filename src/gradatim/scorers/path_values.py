"""What is found out about each step once, for scores that are made of whole paths."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from gradatim.tree import Node, Tree

Value = TypeVar("Value")


class PathValues(Generic[Value]):
    """Values of steps, each computed when it is first needed and kept until its tree is done.

    Args:
        compute: the values of different nodes, none of them a root; ``None`` where one cannot be said now.
    """

    def __init__(self, compute: Callable[[Sequence[Node]], Awaitable[Sequence[Value | None]]]) -> None:
        self._compute = compute
        self._known: weakref.WeakKeyDictionary[Tree, dict[int, Value]] = weakref.WeakKeyDictionary()

    async def along(self, nodes: Sequence[Node]) -> list[list[Value] | None]:
        """For each node the values of the steps from below the root to it; ``None`` where one is missing."""
        paths = [node.path()[1:] for node in nodes]
        found = await self._of(dict.fromkeys(each for path in paths for each in path))
        values = [[found[each] for each in path] for path in paths]
        return [None if None in of_path else [each for each in of_path if each is not None] for of_path in values]

    async def of(self, nodes: Sequence[Node]) -> list[Value | None]:
        """The value of each node's own step; ``None`` of a root, and where it is missing."""
        found = await self._of(dict.fromkeys(node for node in nodes if not node.is_root))
        return [found.get(node) for node in nodes]

    async def _of(self, nodes: dict[Node, None]) -> dict[Node, Value | None]:
        unknown = [node for node in nodes if node.id not in self._known.get(node.tree, {})]
        if unknown:
            for node, value in zip(unknown, await self._compute(unknown), strict=True):
                if value is not None:
                    self._known.setdefault(node.tree, {})[node.id] = value
        return {node: self._known.get(node.tree, {}).get(node.id) for node in nodes}

    def forget(self, tree: Tree) -> None:
        """Drop what is kept of a tree that is done."""
        self._known.pop(tree, None)
