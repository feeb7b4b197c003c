"""Particles: partial solutions that are copied and dropped at random, in proportion to what their steps are worth."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from gradatim.errors import GradatimError
from gradatim.part import part
from gradatim.policies.base import Policy, Sampling
from gradatim.scorers.base import Scorer
from gradatim.search.base import Search
from gradatim.search.choosing import AnswerOf, give_answers
from gradatim.search.decisions import decide
from gradatim.search.proposals import by_start, propose
from gradatim.search.ranking import path_score
from gradatim.search.resampling import Scheme, effective_size, resample
from gradatim.tree import Node, Tree

NORMALISER = "particles_log_normaliser"
"""Where a tree's metadata has the logarithm of the estimated normalising constant; ``None`` if it is 0."""

_EVEN = 1 - 1e-9  # rounding must not make even weights uneven


@part
class Particles(Search):
    """Particle filtering over steps (Puri et al., 2025, arXiv:2502.01618), and twisted sequential Monte Carlo.

    In each round every particle draws one step, and particles are resampled by their weights. A particle is a node with
    a count, since identical steps are one node: below it are drawn as many steps as it has copies.

    With the weights ``softmax`` each round multiplies a particle's weight by ``exp(score / temperature)``; finished
    solutions compete in every later round by their last score, as in the paper. With ``twist`` (Zhao et al., 2024,
    arXiv:2404.17546; Feng et al., 2024, arXiv:2410.01920) it is multiplied by the ratio of twists psi before and after
    the step, ``score ** (1 / temperature)``, 1 at the root; then solutions are drawn in proportion to the policy's
    probability times their own psi: the twists before it only say where draws are spent (a twist of 0 must mean that
    nothing more is to be had).

    The mean weights of all rounds multiply to an unbiased estimate of the normalising constant: with ``twist``, of the
    expectation of psi over the policy's solutions, such as its success rate where psi of a solution is its reward. Its
    logarithm is in the tree's metadata under ``particles_log_normaliser``.

    What a limit cut off is worth nothing, and what has no score is worth nothing unless nothing has one. Solutions that
    a resampling drops stay candidates for the answer.
    """

    title: ClassVar[str] = "particle filtering"
    is_guided: ClassVar[bool] = True
    grows_with: ClassVar[tuple[str, ...]] = ("particles",)

    particles: PositiveInt = 16
    """Partial solutions, copies included."""
    weights: Literal["softmax", "twist"] = "softmax"
    """What a step does to a particle's weight: `softmax` by its score, `twist` by the ratio of its score to the one
    before, for scores of 0 or more."""
    temperature: PositiveFloat = 0.1
    """The lower, the more weight goes to the best."""
    scheme: Scheme = "multinomial"
    """How copies are drawn: `multinomial` as in the paper, `stratified`, `systematic` or `residual`; the others stray
    less from the expected numbers."""
    resample_below: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Resample where the effective number of particles is below this share of them; 1 always does where weights differ,
    0 never does."""

    async def __call__(
        self,
        tree: Tree,
        policy: Policy,
        scorer: Scorer | None = None,
        *,
        sampling: Sampling | None = None,
        answer: AnswerOf | None = None,
    ) -> None:
        guide = self._guide(scorer)
        swarm = [_Particle(tree.root, self.particles)]
        log_normaliser, number = 0.0, 0
        while any(particle.node.open for particle in swarm) and not tree.budget.spent:
            moving = [particle for particle in swarm if particle.node.open]
            drawn = await propose(
                [particle.node for particle in moving], [particle.count for particle in moving], policy, guide,
                sampling=sampling, aggregate=self.aggregate,
            )  # fmt: skip
            below = by_start([particle.node for particle in moving], drawn)
            swarm = [each for particle in swarm for each in particle.moved(below.get(particle.node))]
            moved = {particle.node for particle in swarm}
            elsewhere = Counter(node for node in drawn if node not in moved)  # by a policy around the policy
            swarm += [_Particle(node, count) for node, count in elsewhere.items()]
            self._weigh(swarm, guide.name)
            if any(particle.node.open for particle in swarm):
                log_normaliser += self._resample(swarm, tree, number, guide.name)
                swarm = [particle for particle in swarm if particle.count]
            number += 1
        log_normaliser += _log_mean_weight(swarm)
        tree.metadata[NORMALISER] = log_normaliser if log_normaliser > -math.inf else None
        if answer is not None:
            await give_answers(tree, answer)

    def _weigh(self, swarm: Sequence[_Particle], name: str) -> None:
        """Multiply weights by what the last step is worth."""
        scores = [path_score(particle.node, name, self.aggregate) for particle in swarm]
        nothing_known = all(score is None for score in scores)
        for particle, score in zip(swarm, scores, strict=True):
            if particle.node.step.end.cuts_off or (score is None and not nothing_known):
                particle.log_weight = -math.inf
            elif score is not None and self.weights == "softmax":
                particle.log_weight += score / self.temperature
            elif score is not None and particle.log_weight > -math.inf:
                twist = _log_twist(score, name) / self.temperature
                particle.log_weight += twist - particle.log_twist
                particle.log_twist = twist

    def _resample(self, swarm: Sequence[_Particle], tree: Tree, number: int, name: str) -> float:
        """Copy and drop particles where their weights are uneven.

        Returns:
            The logarithm of the mean weight that was taken off all of them; 0 where nothing was resampled.
        """
        total = sum(particle.count for particle in swarm)
        log_mean = _log_mean_weight(swarm)
        if log_mean == -math.inf:
            for particle in swarm:
                particle.log_weight, particle.log_twist = 0.0, 0.0
            decide([particle.node for particle in swarm if particle.node.open], "expanded", "nothing has any weight")
            return log_mean
        weights = [math.exp(particle.log_weight - log_mean) for particle in swarm]
        each = [weight for particle, weight in zip(swarm, weights, strict=True) for _ in range(particle.count)]
        if effective_size(each) >= self.resample_below * total * _EVEN:
            decide([particle.node for particle in swarm if particle.node.open], "expanded", "weights are even enough")
            return 0.0
        generator = random.Random(f"{tree.seed} {tree.problem.id} particles {number}")
        shares = [particle.count * weight for particle, weight in zip(swarm, weights, strict=True)]
        for particle, copies in zip(swarm, resample(shares, total, self.scheme, generator), strict=True):
            why = f"{copies} of {total} particles after {particle.count}, by {name}"
            particle.count, particle.log_weight = copies, 0.0
            if particle.node.open:
                decide([particle.node], "expanded" if copies else "pruned", why)
        return log_mean


@dataclass(slots=True)
class _Particle:
    """Particles at one node.

    Attributes:
        node: what they have written.
        count: how many they are.
        log_weight: of each, since they were last resampled.
        log_twist: of the node.
    """

    node: Node
    count: int
    log_weight: float = 0.0
    log_twist: float = 0.0

    def moved(self, drawn: Sequence[Node] | None) -> list[_Particle]:
        """They after a step: those at a closed node, below which nothing is drawn, stay."""
        if drawn is None:
            return [self]
        return [replace(self, node=node, count=count) for node, count in Counter(drawn).items()]


def _log_twist(score: float, name: str) -> float:
    if score < 0:
        raise GradatimError(
            f"twists need scores of 0 or more, but {name!r} gave {score}; use a scorer that gives probabilities, or "
            "weights: softmax"
        )
    return math.log(score) if score > 0 else -math.inf


def _log_mean_weight(swarm: Sequence[_Particle]) -> float:
    largest = max((particle.log_weight for particle in swarm), default=-math.inf)
    if largest == -math.inf:
        return largest
    total = math.fsum(particle.count * math.exp(particle.log_weight - largest) for particle in swarm)
    return largest + math.log(total / sum(particle.count for particle in swarm))
