"""The wrong solutions that a reward model takes for right ones: what it has most to learn from."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from gradatim.part import part
from gradatim.scorers.aggregation import Aggregate
from gradatim.search.ranking import best, path_score
from gradatim.supervision.step_labels import StepLabels
from gradatim.supervision.terms import Term
from gradatim.tree import Tree


@part
class ConvincingErrors(StepLabels):
    """Step labels of the wrong solutions that were rated highest (Lightman et al., 2023, arXiv:2305.20050).

    Active learning as in *Let's Verify Step by Step*: a reward model rated the steps while the tree was grown, and is
    trained further on the wrong solutions that convinced it. Labels are those of `step_labels`, of the steps on these
    solutions alone. In the paper one in five solutions that are labelled is any convincing one, right or wrong; name
    `step_labels` beside it for the rest of the tree. Solutions that were not rated are passed over.
    """

    rated_by: str = Field(default="process_reward", min_length=1)
    """The score that rated the steps."""
    count: PositiveInt = 4
    """Wrong solutions of one problem at most."""
    aggregate: Aggregate = "min"
    """How a solution's rating is made of its steps'."""

    def __call__(self, tree: Tree) -> list[Term]:
        wrong = [leaf for leaf in tree.solutions() if leaf.correct is False]
        rated = [leaf for leaf in wrong if path_score(leaf, self.rated_by, self.aggregate) is not None]
        steps = {step for leaf in best(rated, self.count, self.rated_by, self.aggregate) for step in leaf.path()}
        return [term for term in super().__call__(tree) if term.ends[0] in steps]
