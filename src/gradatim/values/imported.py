"""Values that came with a tree: the labels of an imported data set, or what was written before."""

from __future__ import annotations

from pydantic import Field

from gradatim.part import part
from gradatim.scorers.base import Context
from gradatim.store.published.base import LABEL
from gradatim.tree import Tree
from gradatim.values.backup import Backup
from gradatim.values.base import Values


@part
class Imported(Values):
    """The values that a stored tree has, else its imported labels, else the share of right solutions below a step."""

    label: str = Field(default=LABEL, min_length=1)
    """The name of the imported labels in trees."""

    async def __call__(self, tree: Tree, context: Context) -> None:
        nodes = tree.nodes[1:]
        if any(self.key in node.scores for node in nodes):
            return
        labelled = [node for node in nodes if self.label in node.scores]
        for node in labelled:
            node.scores[self.key] = node.scores[self.label]
            if self.label in node.counts:
                node.counts[self.key] = node.counts[self.label]
        if not labelled:
            await Backup(key=self.key)(tree, context)
