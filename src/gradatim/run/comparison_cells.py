"""What a comparison runs at once: a method at one size, or one set of samples that several methods choose from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from gradatim.errors import GradatimError
from gradatim.evaluation import metrics
from gradatim.evaluation.compare import Cost, spending_of
from gradatim.evaluation.policies import samples_of
from gradatim.evaluation.sample_costs import subset_spending
from gradatim.evaluation.written import counts_of
from gradatim.part import content_of
from gradatim.policies.base import Policy
from gradatim.recipes.comparison import Comparison, Method
from gradatim.recipes.recipe import POLICY
from gradatim.run.searching import Searcher, only
from gradatim.scorers.base import Context, Scorer, ScorerPart
from gradatim.search.choosing import ChoiceRule
from gradatim.search.sampling import IndependentSampling
from gradatim.tree import Tree

_SAMPLING, _SCORING = "sampling", "scoring"  # where a sampled tree keeps what sampling and what each scorer cost


@dataclass(frozen=True, kw_only=True)
class Cell(ABC):
    """One search of all problems with one seed.

    Attributes:
        name: of its files.
        seed: of its draws.
        policy: whose steps are searched.
        scorers: the scorers that it runs, by the comparison's names.
        split: whose problems are searched.
        budget: tokens that a problem may cost.
    """

    name: str
    seed: int
    policy: str
    scorers: tuple[str, ...]
    split: str = "test"
    budget: int | None = None

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """What its outcome depends on beside its models and scorers, as JSON has it."""

    @abstractmethod
    def counts(self) -> list[dict[str, Any]]:
        """The points that are made of its trees, each with its ``method`` and ``size`` and all that says how it is
        counted beside :meth:`options`. What has them stays of use where methods that count otherwise come or go."""

    @abstractmethod
    def searcher(self, policy: Policy, scorers: Mapping[str, ScorerPart], context: Context) -> Searcher:
        """What searches a tree."""

    @abstractmethod
    def points(self, trees: Sequence[Tree], keys: Mapping[str, str]) -> list[dict[str, Any]]:
        """What came of it: for each method and size, how often each problem is solved (``solved``), what each costs
        (``spending``), and the share of the cell's time that this takes (``share``).

        Args:
            trees: searched and graded.
            keys: under which names trees keep the scores of the comparison's scorers.
        """

    def counted(self, trees: Sequence[Tree]) -> list[dict[str, float]]:
        """What is counted of each problem where the policy is measured by what it writes; else nothing."""
        return []


@dataclass(frozen=True, kw_only=True)
class MethodCell(Cell):
    """A method at one size.

    Attributes:
        method: the method.
        size: of its search; ``None`` for the search as it is.
    """

    method: Method
    size: int | None = None

    def options(self) -> dict[str, Any]:
        return {"search": content_of(self.method.sized(self.size)), "budget": self.budget}

    def counts(self) -> list[dict[str, Any]]:
        return [{"method": self.method.name, "size": self.size}]

    def searcher(self, policy: Policy, scorers: Mapping[str, ScorerPart], context: Context) -> Searcher:
        scorer = next((part.open(context) for part in scorers.values()), None)
        search, answer = self.method.sized(self.size), context.task.answer
        return Searcher(lambda tree: search(tree, policy, scorer, answer=answer), policy, only(scorer))

    def points(self, trees: Sequence[Tree], keys: Mapping[str, str]) -> list[dict[str, Any]]:
        name = None if self.method.scorer is None else keys[self.method.scorer]
        chosen = [self.method.chosen.choose(tree, name) for tree in trees]
        solved = [float(leaf is not None and leaf.correct is True) for leaf in chosen]
        return [{**self.counts()[0], **_outcome(solved, [spending_of(tree.budget) for tree in trees], 1.0)}]


@dataclass(frozen=True, kw_only=True)
class SamplesCell(Cell):
    """Independent samples of a policy, every step of each scored by all scorers.

    Of ``n`` samples every subset is as likely as any other, so what a method finds with fewer is the expectation over
    all subsets (of votes, over many random ones where there are too many), and so is what they cost: methods that
    choose among samples differ in nothing else.

    Attributes:
        n: samples of each problem.
        methods: what chooses among them.
        measured: whether the policy is measured by what it wrote.
    """

    n: int
    methods: tuple[Method, ...] = field(repr=False)
    measured: bool = False

    def options(self) -> dict[str, Any]:
        return {"samples": self.n}

    def counts(self) -> list[dict[str, Any]]:
        return [
            {
                "method": method.name,
                "size": size,
                "scorer": method.scorer,
                "choose_by": method.chosen.choose_by or ("majority" if method.scorer is None else "score"),
                "aggregate": method.search.aggregate,
            }
            for method in self.methods
            for size in method.sizes or [getattr(method.search, "n", None) or self.n]
        ]

    def searcher(self, policy: Policy, scorers: Mapping[str, ScorerPart], context: Context) -> Searcher:
        sampling, costing = IndependentSampling(n=self.n), _Costing(scorers, context)

        async def search(tree: Tree) -> None:
            await sampling(tree, policy, answer=context.task.answer)
            tree.metadata[_SAMPLING] = asdict(spending_of(tree.budget).get(self.policy, Cost()))
            tree.metadata[_SCORING] = await costing(tree)

        return Searcher(search, policy, costing.opened)

    def points(self, trees: Sequence[Tree], keys: Mapping[str, str]) -> list[dict[str, Any]]:
        return [{**each, **self._outcome_of(each, trees, keys)} for each in self.counts()]

    def counted(self, trees: Sequence[Tree]) -> list[dict[str, float]]:
        return [counts_of(tree) for tree in trees] if self.measured else []

    def _outcome_of(self, point: Mapping[str, Any], trees: Sequence[Tree], keys: Mapping[str, str]) -> dict[str, Any]:
        scorer, n = point["scorer"], point["size"]
        rule = _RULES[point["choose_by"]]
        samples = [samples_of(tree, None if scorer is None else keys[scorer], point["aggregate"]) for tree in trees]
        solved = [rule(each, min(n, len(each))) if each else 0.0 for each in samples]
        spending = []
        for tree in trees:
            charged = tree.metadata.get(_SCORING, {}).get(scorer, {})
            scoring = {account: Cost(**cost) for account, cost in charged.items()}
            sampling = Cost(**tree.metadata[_SAMPLING]) if _SAMPLING in tree.metadata else None
            spending.append(subset_spending(tree, n, self.n, scoring, self.policy, sampling))
        whole = sum(tree.budget.total for tree in trees)
        share = sum(cost.tokens for each in spending for cost in each.values()) / max(1, whole)
        return _outcome(solved, spending, share)


class _Costing:
    """Has every step of a tree's solutions scored by several scorers, and tells what each costs where it is alone.

    Scorers that hold the same scorer, or one that is compared too, have it read every step once; what that costs is
    counted for each of them.

    Args:
        parts: the scorers, by the comparison's names.
        context: opens them.
    """

    def __init__(self, parts: Mapping[str, ScorerPart], context: Context) -> None:
        self.keys = {
            name: list(dict.fromkeys(p.name for p in (*part.within[::-1], part))) for name, part in parts.items()
        }
        users = Counter(key for keys in self.keys.values() for key in keys)
        known = {each.name: each for part in parts.values() for each in (*part.within[::-1], part)}
        own = {part.name for part in parts.values()}
        self._scorers = {key: part.open(context) for key, part in known.items() if key in own or users[key] > 1}

    @property
    def opened(self) -> tuple[Scorer, ...]:
        return tuple(self._scorers.values())

    async def __call__(self, tree: Tree) -> dict[str, dict[str, dict[str, Any]]]:
        """What each scorer was charged, by the comparison's names and by accounts."""
        steps = list(dict.fromkeys(node for leaf in tree.solutions() for node in leaf.path()[1:]))
        charged: dict[str, dict[str, Cost]] = {}
        for key, scorer in self._scorers.items():
            before = spending_of(tree.budget)
            await scorer.score(steps)
            charged[key] = _charged(before, spending_of(tree.budget))
        return {
            name: {account: asdict(cost) for account, cost in _sum(charged.get(key, {}) for key in keys).items()}
            for name, keys in self.keys.items()
        }


_RULES: dict[ChoiceRule, Any] = {
    "score": metrics.best_of_n,
    "majority": metrics.majority,
    "weighted_majority": metrics.weighted_majority,
    "best_of_majority": metrics.best_of_majority,
}
"""The expected outcome of each choice rule over subsets of samples."""


def cells_of(comparison: Comparison, judged: bool) -> list[Cell]:
    """Everything that a comparison runs, sampling first.

    Args:
        comparison: the comparison.
        judged: whether the scorers are measured against the truth: then they score the policy's samples, and those of
            validation problems where there are some.

    Raises:
        GradatimError: if the names of methods differ too little for their files.
    """
    sampled = [method for method in comparison.methods if comparison.shares_samples(method)]
    cells: list[Cell] = [*_samples_cells(sampled, comparison, judged)]
    for method in comparison.methods:
        if method not in sampled:
            cells += _method_cells(method, comparison)
    names: set[str] = set()
    for cell in cells:
        if cell.name in names:
            raise GradatimError(f"two methods would have their files called {cell.name!r}; rename one of them")
        names.add(cell.name)
    return cells


def _samples_cells(sampled: Sequence[Method], comparison: Comparison, judged: bool) -> Iterator[SamplesCell]:
    alone = [] if comparison.policies is None else comparison.policies.names
    for policy in dict.fromkeys([*(method.policy for method in sampled), *alone]):
        methods = tuple(each for each in sampled if each.policy == policy)
        used = [method.scorer for method in methods if method.scorer is not None]
        measured = judged and policy == POLICY
        cell = partial(
            SamplesCell,
            policy=policy,
            n=max(
                comparison.samples_written(policy),
                *(size for method in methods for size in method.sizes or [getattr(method.search, "n", None) or 1]),
                0,
            ),
            methods=methods,
            measured=comparison.samples_written(policy) > 0,
            scorers=tuple(comparison.scorers if measured else dict.fromkeys(used)),
        )
        yield from (cell(name=f"samples-{policy}-seed-{seed}", seed=seed) for seed in comparison.seeds)
        if measured and comparison.problems.validation and comparison.scorers:
            seed = comparison.seeds[0]
            yield cell(name=f"samples-{policy}-validation", seed=seed, split="validation")


def _method_cells(method: Method, comparison: Comparison) -> Iterator[MethodCell]:
    sizes: list[tuple[int | None, int | None]] = [(size, comparison.budget) for size in method.sizes]
    if not sizes:
        sizes = [(None, budget) for budget in comparison.budgets] or [(None, comparison.budget)]
    for size, budget in sizes:
        ladder = f"-{size}" if size is not None else f"-budget-{budget}" if comparison.budgets else ""
        for seed in comparison.seeds:
            yield MethodCell(
                name=f"{file_name(method.name)}{ladder}-seed-{seed}",
                seed=seed,
                policy=method.policy,
                scorers=() if method.scorer is None else (method.scorer,),
                budget=budget,
                method=method,
                size=size,
            )


def file_name(name: str) -> str:
    """A method's name as part of a file's."""
    return "-".join("".join(each if each.isalnum() else " " for each in name).split()).lower()


def _charged(before: Mapping[str, Cost], after: Mapping[str, Cost]) -> dict[str, Cost]:
    """What was charged in between, by account."""
    changed = {}
    for name, cost in after.items():
        earlier = before.get(name, Cost())
        if cost.tokens > earlier.tokens:
            changed[name] = replace(cost, read=cost.read - earlier.read, written=cost.written - earlier.written)
    return changed


def _sum(spending: Iterable[Mapping[str, Cost]]) -> dict[str, Cost]:
    total: dict[str, Cost] = {}
    for name, cost in (item for each in spending for item in each.items()):
        before = total.get(name, Cost())
        total[name] = replace(cost, read=before.read + cost.read, written=before.written + cost.written)
    return total


def _outcome(solved: Sequence[float], spending: Sequence[Mapping[str, Cost]], share: float) -> dict[str, Any]:
    costs = [{name: asdict(cost) for name, cost in each.items()} for each in spending]
    return {"solved": list(solved), "spending": costs, "share": share}
