"""What objectives over advantages share: which steps of a term have one."""

from __future__ import annotations

import math

from gradatim.errors import GradatimError
from gradatim.supervision.terms import Group, Term


def advantaged(term: Term) -> Group:
    """The steps of a term of one group, from the first to the last that has an advantage (its own, or the term's target
    for all of its steps), with a weight of 0 where one has none.

    Raises:
        GradatimError: if no step has one.
    """
    (group,) = term.groups
    targets = group.targets or term.targets * len(group.nodes)
    known = [place for place, target in enumerate(targets) if not math.isnan(target)]
    if not known:
        raise GradatimError("a term has no advantage for any of its steps; leave such terms out")
    kept = slice(known[0], known[-1] + 1)
    weights = group.weights or (1.0,) * len(group.nodes)
    heard = tuple(0.0 if math.isnan(target) else weight for weight, target in zip(weights, targets, strict=True))
    return Group(group.nodes[kept], heard[kept], targets[kept])
