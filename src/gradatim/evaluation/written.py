"""What policies write for the same problems, without search: how often it is right, how varied it is, and how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradatim.errors import GradatimError
from gradatim.evaluation.bootstrap import Estimate, bootstrap_difference, bootstrap_mean
from gradatim.evaluation.equal_compute import sign_flip_test
from gradatim.evaluation.policies import samples_of
from gradatim.proportions import DISTINCT, PASS, TOKENS, pass_at_k
from gradatim.tree import Tree

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Written:
    """What one policy wrote.

    Attributes:
        name: of the policy.
        samples: solutions sampled for each problem.
        right, distinct: ``[seeds, problems]``, how many of them are right, and how many differ.
        tokens: ``[seeds, problems]``, the mean length of a solution.
    """

    name: str
    samples: int
    right: Numbers
    distinct: Numbers
    tokens: Numbers

    def measure(self, name: str) -> Numbers:
        """``[seeds, problems]``: ``pass@k``, ``distinct`` (a share of the samples) or ``tokens``.

        Raises:
            GradatimError: if there is no such measure, or fewer than ``k`` samples.
        """
        if name == DISTINCT:
            return self.distinct / self.samples
        if name == TOKENS:
            return self.tokens
        k = name.removeprefix(PASS)
        if not name.startswith(PASS) or not k.isdecimal():
            raise GradatimError(f"policies are not measured by {name!r}; use pass@1, pass@k, {DISTINCT} or {TOKENS}")
        found = [[pass_at_k(self.samples, int(right), int(k)) for right in row] for row in self.right]
        return np.array(found)

    def estimate(self, name: str, *, seed: int = 0) -> Estimate:
        """The mean of a measure over problems and seeds, its interval over problems."""
        return bootstrap_mean(self.measure(name).mean(axis=0), seed=seed)

    def seed_deviation(self, name: str) -> float | None:
        """Standard deviation of a measure over seeds; ``None`` for a single one."""
        means = self.measure(name).mean(axis=1)
        return float(means.std(ddof=1)) if len(means) > 1 else None


@dataclass(frozen=True, slots=True)
class WrittenDifference:
    """One policy's measure minus another's on the same problems.

    Attributes:
        policy, reference: their names.
        measure: what is compared.
        difference: the mean of paired differences.
        p: the chance of so large a one by flipping signs.
    """

    policy: str
    reference: str
    measure: str
    difference: Estimate
    p: float

    def to_json(self) -> dict[str, Any]:
        return {
            "policy": self.policy,
            "reference": self.reference,
            "measure": self.measure,
            **self.difference.fields("difference"),
            "problems": self.difference.n,
            "p": self.p,
        }


def written_difference(policy: Written, reference: Written, measure: str, *, seed: int = 0) -> WrittenDifference:
    """Compare two policies by a measure, paired over problems (means over seeds)."""
    own, other = (each.measure(measure).mean(axis=0) for each in (policy, reference))
    difference = bootstrap_difference(other, own, seed=seed)
    return WrittenDifference(policy.name, reference.name, measure, difference, sign_flip_test(own - other, seed=seed))


def counts_of(tree: Tree) -> dict[str, float]:
    """What is counted of one problem's samples: ``samples``, ``right``, ``distinct`` solutions, mean ``tokens``."""
    samples = samples_of(tree)
    leaves = [leaf for leaf in tree.leaves() if not leaf.open and not leaf.is_root]
    texts = {leaf.text for leaf in leaves}
    lengths = sum(leaf.multiplicity * sum(len(node.step.tokens) for node in leaf.path()[1:]) for leaf in leaves)
    return {
        "samples": len(samples),
        "right": sum(bool(sample.correct) for sample in samples),
        "distinct": len(texts),
        "tokens": lengths / max(1, len(samples)),
    }


def written(name: str, counts: Sequence[Sequence[Mapping[str, float]]]) -> Written:
    """What a policy wrote, from what was counted of each seed's problems.

    Raises:
        GradatimError: if problems were not sampled equally often.
    """
    samples = {int(each["samples"]) for row in counts for each in row}
    if len(samples) != 1:
        raise GradatimError(
            f"the policy {name!r} was sampled {min(samples, default=0)} to {max(samples, default=0)} times a problem; "
            "raise the budget, so that all are sampled equally often"
        )

    def array(key: str) -> Numbers:
        return np.array([[each[key] for each in row] for row in counts], dtype=np.float64)

    return Written(name, samples.pop(), array("right"), array("distinct"), array("tokens"))
