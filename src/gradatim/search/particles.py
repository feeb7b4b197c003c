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
SAMPLE = "particles_sample"
"""Where a tree's metadata has the id of the node that was drawn of the last particles by their weights."""

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
    logarithm is in the tree's metadata under ``particles_log_normaliser``, and under ``particles_sample`` the id of one
    solution that is drawn of the particles in the end.

    Particle Gibbs (Andrieu et al., 2010; as in Puri et al.) are several sweeps: each after the first has the solution
    that was drawn in the one before among its particles, and never drops it, so that the solutions drawn come ever
    nearer to the target though particles are few. It is exact for the ``multinomial`` scheme.

    What a limit cut off is worth nothing, and what has no score is worth nothing unless nothing has one. Solutions that
    a resampling drops stay candidates for the answer.
    """

    title: ClassVar[str] = "particle filtering"
    is_guided: ClassVar[bool] = True
    grows_with: ClassVar[tuple[str, ...]] = ("particles", "sweeps")

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
    sweeps: PositiveInt = 1
    """Times that particles are run: 1 is particle filtering, more are particle Gibbs."""

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
        reference: list[Node] = []
        for sweep in range(self.sweeps):
            chance = random.Random(f"{tree.seed} {tree.problem.id} particles {sweep}")
            swarm, log_normaliser = await self._sweep(tree, policy, guide, sampling, reference, chance)
            if not swarm or (sweep and tree.budget.spent):
                break
            if not sweep:
                tree.metadata[NORMALISER] = log_normaliser if log_normaliser > -math.inf else None
            shares = _shares(swarm) if _log_mean_weight(swarm) > -math.inf else [each.count for each in swarm]
            reference = chance.choices(swarm, shares)[0].node.path()
            tree.metadata[SAMPLE] = reference[-1].id
        if answer is not None:
            await give_answers(tree, answer)

    async def _sweep(
        self,
        tree: Tree,
        policy: Policy,
        scorer: Scorer,
        sampling: Sampling | None,
        reference: Sequence[Node],
        chance: random.Random,
    ) -> tuple[list[_Particle], float]:
        """Run the particles once, one of them along the path of ``reference`` if that is not empty.

        Returns:
            The particles, and the logarithm of the estimated normalising constant.
        """
        swarm = [_Particle(tree.root, self.particles)]
        kept = iter(reference[1:])
        held = tree.root if reference else None
        log_normaliser = 0.0
        while any(particle.node.open for particle in swarm) and not tree.budget.spent:
            moving = [particle for particle in swarm if particle.node.open]
            drawn = await propose(
                [each.node for each in moving], [each.count - (each.node is held) for each in moving], policy, scorer,
                sampling=sampling, aggregate=self.aggregate,
            )  # fmt: skip
            if step := next(kept, None):
                drawn.append(step)
                held = step
            swarm = _moved(swarm, drawn)
            self._weigh(swarm, scorer.name)
            if any(particle.node.open for particle in swarm):
                log_normaliser += self._resample(swarm, held, chance, scorer.name)
                swarm = [particle for particle in swarm if particle.count]
        return swarm, log_normaliser + _log_mean_weight(swarm)

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

    def _resample(self, swarm: Sequence[_Particle], held: Node | None, chance: random.Random, name: str) -> float:
        """Copy and drop particles where their weights are uneven, but for one at the node ``held``.

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
        shares = _shares(swarm)
        each = [
            share / particle.count for particle, share in zip(swarm, shares, strict=True) for _ in range(particle.count)
        ]
        if effective_size(each) >= self.resample_below * total * _EVEN:
            decide([particle.node for particle in swarm if particle.node.open], "expanded", "weights are even enough")
            return 0.0
        drawn = resample(shares, total - (held is not None), self.scheme, chance)
        for particle, copies in zip(swarm, drawn, strict=True):
            before, particle.count = particle.count, copies + (particle.node is held)
            particle.log_weight = 0.0
            if particle.log_twist == -math.inf:  # it is held though nothing was expected of it
                particle.log_twist = 0.0
            if particle.node.open:
                why = f"{particle.count} of {total} particles after {before}, by {name}"
                decide([particle.node], "expanded" if particle.count else "pruned", why)
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


def _moved(swarm: Sequence[_Particle], drawn: Sequence[Node]) -> list[_Particle]:
    """Particles after one draw each; those at a closed node, below which nothing is drawn, stay.

    Where a policy around the policy drew elsewhere, new particles begin.
    """
    below = by_start([particle.node for particle in swarm if particle.node.open], drawn)
    after = [particle for particle in swarm if not particle.node.open]
    for particle in swarm:
        ends = Counter(below.get(particle.node, ()))
        after += [replace(particle, node=node, count=count) for node, count in ends.items()]
    known = {particle.node for particle in after}
    elsewhere = Counter(node for node in drawn if node not in known)
    return [*after, *(_Particle(node, count) for node, count in elsewhere.items())]


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
    return largest + math.log(math.fsum(_shares(swarm)) / sum(particle.count for particle in swarm))


def _shares(swarm: Sequence[_Particle]) -> list[float]:
    """``[swarm]``: what the particles at each node weigh together, in proportion."""
    largest = max(particle.log_weight for particle in swarm)
    return [particle.count * math.exp(particle.log_weight - largest) for particle in swarm]
