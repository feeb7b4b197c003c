"""What a comparison runs at once: a method at one size, or one set of samples that several methods choose from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from gradatim.evaluation import metrics
from gradatim.evaluation.compare import Cost, spending_of
from gradatim.evaluation.policies import samples_of
from gradatim.evaluation.sample_costs import subset_spending
from gradatim.part import content_of
from gradatim.policies.base import Policy
from gradatim.recipes.comparison import Comparison, Method
from gradatim.recipes.recipe import POLICY
from gradatim.run.searching import Searcher, only
from gradatim.scorers.base import Scorer
from gradatim.search.choosing import AnswerOf, ChoiceRule
from gradatim.search.sampling import IndependentSampling
from gradatim.tree import Tree

_SCORING = "scoring"  # where a sampled tree keeps what each scorer cost


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
    def searcher(self, policy: Policy, scorers: Mapping[str, Scorer], answer: AnswerOf) -> Searcher:
        """What searches a tree."""

    @abstractmethod
    def points(self, trees: Sequence[Tree], keys: Mapping[str, str]) -> list[dict[str, Any]]:
        """What came of it: for each method and size, how often each problem is solved (``solved``), what each costs
        (``spending``), and the share of the cell's time that this takes (``share``).

        Args:
            trees: searched and graded.
            keys: under which names trees keep the scores of the comparison's scorers.
        """


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

    def searcher(self, policy: Policy, scorers: Mapping[str, Scorer], answer: AnswerOf) -> Searcher:
        scorer = next(iter(scorers.values()), None)
        search = self.method.sized(self.size)
        return Searcher(lambda tree: search(tree, policy, scorer, answer=answer), policy, only(scorer))

    def points(self, trees: Sequence[Tree], keys: Mapping[str, str]) -> list[dict[str, Any]]:
        name = None if self.method.scorer is None else keys[self.method.scorer]
        chosen = [self.method.chosen.choose(tree, name) for tree in trees]
        solved = [float(leaf is not None and leaf.correct is True) for leaf in chosen]
        return [_point(self.method.name, self.size, solved, [spending_of(tree.budget) for tree in trees], 1.0)]


@dataclass(frozen=True, kw_only=True)
class SamplesCell(Cell):
    """Independent samples of a policy, every step of each scored by all scorers.

    Of ``n`` samples every subset is as likely as any other, so what a method finds with fewer is an exact expectation
    over all subsets, and so is what they cost: methods that choose among samples differ in nothing else.

    Attributes:
        n: samples of each problem.
        methods: what chooses among them.
    """

    n: int
    methods: tuple[Method, ...] = field(repr=False)

    def options(self) -> dict[str, Any]:
        return {"samples": self.n}

    def searcher(self, policy: Policy, scorers: Mapping[str, Scorer], answer: AnswerOf) -> Searcher:
        sampling = IndependentSampling(n=self.n)

        async def search(tree: Tree) -> None:
            await sampling(tree, policy, answer=answer)
            steps = list(dict.fromkeys(node for leaf in tree.solutions() for node in leaf.path()[1:]))
            for name, scorer in scorers.items():
                before = spending_of(tree.budget)
                await scorer.score(steps)
                tree.metadata.setdefault(_SCORING, {})[name] = _charged(before, spending_of(tree.budget))

        return Searcher(search, policy, tuple(scorers.values()))

    def points(self, trees: Sequence[Tree], keys: Mapping[str, str]) -> list[dict[str, Any]]:
        return [
            self._point_of(method, n, trees, keys)
            for method in self.methods
            for n in method.sizes or [getattr(method.search, "n", None) or self.n]
        ]

    def _point_of(self, method: Method, n: int, trees: Sequence[Tree], keys: Mapping[str, str]) -> dict[str, Any]:
        name = None if method.scorer is None else keys[method.scorer]
        search = method.chosen
        rule = _RULES[search.choose_by or ("majority" if name is None else "score")]
        samples = [samples_of(tree, name, search.aggregate) for tree in trees]
        solved = [rule(each, min(n, len(each))) if each else 0.0 for each in samples]
        spending = []
        for tree in trees:
            charged = tree.metadata.get(_SCORING, {}).get(method.scorer, {})
            scoring = {account: Cost(**cost) for account, cost in charged.items()}
            spending.append(subset_spending(tree, n, self.n, scoring, self.policy))
        whole = sum(tree.budget.total for tree in trees)
        share = sum(cost.tokens for each in spending for cost in each.values()) / max(1, whole)
        return _point(method.name, n, solved, spending, share)


_RULES: dict[ChoiceRule, Any] = {
    "score": metrics.best_of_n,
    "majority": metrics.majority,
    "weighted_majority": metrics.weighted_majority,
    "best_of_majority": metrics.best_of_majority,
}
"""The expected outcome of each choice rule over subsets of samples."""


def cells_of(comparison: Comparison, judged: bool) -> Iterator[Cell]:
    """Everything that a comparison runs, sampling first.

    Args:
        comparison: the comparison.
        judged: whether the scorers are measured against the truth: then they score the policy's samples, and those of
            validation problems where there are some.
    """
    for policy in dict.fromkeys(method.policy for method in comparison.methods if method.samples):
        methods = tuple(each for each in comparison.methods if each.samples and each.policy == policy)
        used = [method.scorer for method in methods if method.scorer is not None]
        measured = judged and policy == POLICY
        cell = partial(
            SamplesCell,
            policy=policy,
            n=max(size for method in methods for size in method.sizes or [getattr(method.search, "n", None) or 1]),
            methods=methods,
            scorers=tuple(comparison.scorers if measured else dict.fromkeys(used)),
        )
        yield from (cell(name=f"samples-{policy}-seed-{seed}", seed=seed) for seed in comparison.seeds)
        if measured and comparison.problems.validation and comparison.scorers:
            seed = comparison.seeds[0]
            yield cell(name=f"samples-{policy}-validation", seed=seed, split="validation")
    for method in comparison.methods:
        if not method.samples:
            yield from _method_cells(method, comparison)


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


def _charged(before: Mapping[str, Cost], after: Mapping[str, Cost]) -> dict[str, dict[str, Any]]:
    """What was charged in between, by account."""
    changed = {}
    for name, cost in after.items():
        earlier = before.get(name, Cost())
        if cost.tokens > earlier.tokens:
            new = replace(cost, read=cost.read - earlier.read, written=cost.written - earlier.written)
            changed[name] = asdict(new)
    return changed


def _point(
    method: str, size: int | None, solved: Sequence[float], spending: Sequence[Mapping[str, Cost]], share: float
) -> dict[str, Any]:
    costs = [{name: asdict(cost) for name, cost in each.items()} for each in spending]
    return {"method": method, "size": size, "solved": list(solved), "spending": costs, "share": share}
