"""Terms of a loss: which steps of a tree are compared or aimed at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gradatim.errors import GradatimError
from gradatim.tree import Node


@dataclass(frozen=True, slots=True)
class Group:
    """A weighted run of steps of one path: a step, a solution, or the part of one that is looked at.

    Attributes:
        nodes: the steps, from the root downwards; at least one.
        weights: how much each step counts in what is summed over the group; empty for 1 each.
        targets: what each step is aimed at, such as its value; empty for none.

    Raises:
        GradatimError: if there is no step, or not one weight or target for each.
    """

    nodes: tuple[Node, ...]
    weights: tuple[float, ...] = ()
    targets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.nodes:
            raise GradatimError("a group of a loss needs at least one step")
        for name, given in (("weights", self.weights), ("targets", self.targets)):
            if given and len(given) != len(self.nodes):
                raise GradatimError(f"a group of {len(self.nodes)} steps has {len(given)} {name}; give one for each")


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a loss.

    Attributes:
        groups: one for a labelled step or a path; two for a pair, the chosen one first; any number for a ranking, the
            best first.
        weight: how much the term counts, of either sign.
        targets: what each group is aimed at (a label, a value, a reward), one for each group; empty for none.
        label_smoothing: of a pair, the probability that it is the wrong way round: from 0 to one half, at which it says
            nothing.

    Raises:
        GradatimError: if there is no group, not one target for each, or no such probability.
    """

    groups: tuple[Group, ...]
    weight: float = 1.0
    targets: tuple[float, ...] = ()
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not self.groups:
            raise GradatimError("a term of a loss needs at least one group of steps")
        if not 0.0 <= self.label_smoothing <= 0.5:
            raise GradatimError(
                f"the label smoothing of a term is {self.label_smoothing:g}; the probability that a pair is the wrong "
                "way round lies between 0 and 0.5"
            )
        if self.targets and len(self.targets) != len(self.groups):
            raise GradatimError(
                f"a term of {len(self.groups)} groups has {len(self.targets)} targets; give one for each"
            )

    @property
    def ends(self) -> tuple[Node, ...]:
        """The last step of each group."""
        return tuple(group.nodes[-1] for group in self.groups)


def labelled_step(node: Node, label: float, weight: float = 1.0) -> Term:
    """A step and what it is aimed at."""
    return Term((Group((node,)),), weight, (label,))


def path_term(end: Node, weight: float = 1.0) -> Term:
    """All steps from the prompt to ``end``."""
    return Term((Group(tuple(end.path()[1:])),), weight)


def pair(chosen: Node, rejected: Node, values: tuple[float, float] | None = None, weight: float = 1.0) -> Term:
    """Two steps of which one is preferred, with the values of both where they are known."""
    return Term((Group((chosen,)), Group((rejected,))), weight, values or ())


def margin(term: Term) -> float:
    """By how much the chosen side of a pair is better, in units of the values they were compared by."""
    chosen, rejected = term.targets
    return chosen - rejected


def from_prompt(term: Term) -> Term:
    """The same term with every group begun at the first step below the prompt; what is added weighs 1."""

    def whole(group: Group) -> Group:
        above = tuple(group.nodes[0].path()[1:-1])
        if not above:
            return group
        blank = (1.0,) * len(above), (float("nan"),) * len(above)
        return Group(
            above + group.nodes,
            blank[0] + group.weights if group.weights else (),
            blank[1] + group.targets if group.targets else (),
        )

    return replace(term, groups=tuple(whole(group) for group in term.groups))


def parted(term: Term) -> Term:
    """The same pair without the steps that both sides share: what is compared begins where their paths part."""
    chosen, rejected = term.groups
    shared = {id(node) for node in chosen.nodes} & {id(node) for node in rejected.nodes}
    if not shared:
        return term

    def own(group: Group) -> Group:
        def kept(values: Sequence[float]) -> tuple[float, ...]:
            return tuple(value for value, node in zip(values, group.nodes, strict=True) if id(node) not in shared)

        return Group(
            tuple(node for node in group.nodes if id(node) not in shared),
            kept(group.weights) if group.weights else (),
            kept(group.targets) if group.targets else (),
        )

    return replace(term, groups=(own(chosen), own(rejected)))


def check_pair(term: Term) -> None:
    """Check that the two sides of a pair can be compared.

    Raises:
        GradatimError: if they are of different trees, or one lies on the other's path.
    """
    chosen, rejected = term.ends
    if chosen.tree is not rejected.tree:
        raise GradatimError("a pair compares steps of two different trees; pair steps of one problem's tree")
    if chosen is not rejected and chosen.parent is rejected.parent is not None:
        return
    if chosen in rejected.path() or rejected in chosen.path():
        raise GradatimError("a pair compares a step with one on its own path; pair steps on different branches")
