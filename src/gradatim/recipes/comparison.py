"""What a comparison may say: searches, scorers and policies on the same problems, at a ladder of sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from gradatim.errors import GradatimError
from gradatim.part import PartOf, models_of
from gradatim.proportions import DISTINCT, PASS, TOKENS
from gradatim.recipes.recipe import MODEL_NAME, NAME, PLACEMENT, POLICY, ModelOptions, inherited_placement
from gradatim.recipes.section import Section
from gradatim.scorers.base import ScorerPart
from gradatim.search.base import Search
from gradatim.search.choosing import ChoiceRule
from gradatim.search.sampling import IndependentSampling
from gradatim.suggestions import suggestion
from gradatim.tasks.base import Task

NEEDS_SCORES: frozenset[ChoiceRule] = frozenset({"score", "weighted_majority", "best_of_majority"})
"""Rules that choose by scores."""


class Method(Section):
    """A way to spend compute: a search, what guides it and chooses, and whose steps are searched."""

    name: Annotated[str, Field(min_length=1)]
    """What tables and plots call it."""
    search: Annotated[Search, PartOf("search")]
    """The search. Methods that sample independently share one set of samples, so that they differ in how they choose
    alone, unless a budget ends their sampling."""
    scorer: str | None = None
    """What guides the search and chooses the answer: one of `scorers`; `null` for none."""
    policy: str = POLICY
    """Whose steps they are: `policy`, or one of `models`, such as a bigger or longer trained one as a baseline."""
    sizes: list[PositiveInt] = Field(default=[])
    """Values of the option that is varied, one for each point of its curve; empty for the search as it is, under each
    of `budgets` where there are some."""
    varies: str | None = None
    """The option that `sizes` are values of, with dots into a search within the search (`search.width`); `null` is the
    first that makes the search larger."""
    choose_by: ChoiceRule | None = None
    """In place of the search's own rule."""

    @property
    def chosen(self) -> Search:
        """The search, with the rule by which this method chooses."""
        return self.search if self.choose_by is None else replace(self.search, choose_by=self.choose_by)

    def sized(self, size: int | None) -> Search:
        """The search of one point of the curve."""
        if size is None:
            return self.chosen
        return _with_option(self.chosen, self.varies or self.chosen.grows_with[0], size)

    @property
    def samples(self) -> bool:
        """Whether it chooses among independent samples, whose subsets are what smaller sizes find."""
        return isinstance(self.search, IndependentSampling) and self.varies in (None, "n")


def _with_option(search: Search, option: str, value: Any) -> Search:
    """The same search with one option changed, perhaps of a search within it.

    Raises:
        ValueError: if there is no such option.
    """
    name, dot, rest = option.partition(".")
    names = [each.name for each in fields(search)]
    if name not in names:
        raise ValueError(f"{search.title} has no option {name!r} to vary; {suggestion(name, names)}")
    inner = getattr(search, name)
    if dot and not isinstance(inner, Search):
        raise ValueError(f"{name} of {search.title} is no search within it, so it has no option {rest!r} to vary")
    changed: dict[str, Any] = {name: _with_option(inner, rest, value) if dot else value}
    return replace(search, **changed)


class Counts(Section):
    """How many problems are searched."""

    test: PositiveInt
    """Held-out problems that all methods are run on."""
    validation: int = Field(default=0, ge=0)
    """Other problems, on which thresholds of step scores are chosen."""


class PolicySamples(Section):
    """Policies compared by what they write, without search: pass@k, how varied it is, and how long."""

    names: list[str] = Field(min_length=1)
    """The policies by name, `policy` or of `models`; all others are tested against the first."""
    samples: PositiveInt = 16
    """Solutions sampled for each problem."""
    pass_at: list[PositiveInt] = Field(default=[1, 4, 16])
    """The `k` of pass@k, the chance that one of `k` solutions is right."""

    @model_validator(mode="after")
    def _fits(self) -> PolicySamples:
        _check_once("policies.pass_at", self.pass_at)
        if max(self.pass_at, default=1) > self.samples:
            raise ValueError(f"policies asks for {max(self.pass_at)} solutions but samples {self.samples}")
        if len(set(self.names)) < len(self.names):
            raise ValueError("policies.names has a policy twice: name each once")
        return self

    @property
    def measures(self) -> list[str]:
        """What is measured, by name."""
        return [*(f"{PASS}{k}" for k in self.pass_at), DISTINCT, TOKENS]


class Comparison(Section):
    """Methods on the same problems: accuracy against all compute spent."""

    kind: Literal["compare"]
    """A comparison."""
    name: Annotated[str, Field(pattern=NAME)]
    """Of the comparison, and of its folder where none is given."""
    summary: str = ""
    """What it compares, in one line."""
    task: Annotated[Task, PartOf("tasks")]
    """Where problems come from and how answers are verified."""
    policy: ModelOptions
    """The model that proposes steps."""
    models: dict[Annotated[str, Field(pattern=MODEL_NAME)], ModelOptions] = Field(default={})
    """Further models by their names: reward models, judges, other policies. They run and sample as the policy does,
    unless they say otherwise."""
    problems: Counts
    """How many problems are searched."""
    seeds: list[int] = Field(default=[0], min_length=1)
    """Every method is run once with each; its figures are means over them."""
    scorers: dict[Annotated[str, Field(pattern=MODEL_NAME)], Annotated[ScorerPart, PartOf("scorers")]] = Field(
        default={}
    )
    """Scorers by the names that methods call them."""
    methods: list[Method] = Field(default=[])
    """What is compared."""
    policies: PolicySamples | None = None
    """Policies that are compared by what they write, beside the methods or alone; `null` for none."""
    reference: str | None = None
    """The method that all others are tested against at equal tokens; by default the first one."""
    budgets: list[PositiveInt] = Field(default=[])
    """Tokens that a problem may cost, a point of the curve for each: for methods without sizes of their own."""
    budget: PositiveInt | None = None
    """Tokens that a problem may cost at most, whatever the size; `null` for no limit."""
    judge_steps: bool = True
    """Measure the scorers against the truth about partial solutions, on the sampled solutions, where the task knows
    it."""
    keep_trees: bool = True
    """Keep all trees; without them, what is counted of each problem is kept alone."""
    in_flight: PositiveInt = 64
    """Problems at the same time."""

    @model_validator(mode="before")
    @classmethod
    def _place_models(cls, content: Any) -> Any:
        return inherited_placement(content, (*PLACEMENT, "sampling", "chat"))

    @property
    def against(self) -> str | None:
        """The name of the method that others are tested against; ``None`` where none are compared."""
        return self.reference or (self.methods[0].name if self.methods else None)

    def samples_written(self, policy: str) -> int:
        """How many solutions a policy is sampled to be measured by what it writes."""
        return self.policies.samples if self.policies is not None and policy in self.policies.names else 0

    def shares_samples(self, method: Method) -> bool:
        """Whether a method chooses from one set of samples with others: it samples, and no budget ends that."""
        return method.samples and self.budget is None and bool(method.sizes or not self.budgets)

    def model(self, name: str) -> ModelOptions:
        """The options of a model by its name."""
        return self.policy if name == POLICY else self.models[name]

    @model_validator(mode="after")
    def _fits(self) -> Comparison:
        self._check_names()
        for place, method in enumerate(self.methods):
            self._check_method(f"methods.{place}", method)
        for name, part in self.scorers.items():
            if part.knows_truth:
                raise ValueError(
                    f"scorers.{name} knows the truth about solutions, so that choosing by it measures nothing"
                )
        self._check_keys()
        return self

    def _check_keys(self) -> None:
        """See that no two scorers write over each other's scores in the samples that all of them score."""
        known: dict[str, ScorerPart] = {}
        for name, part in self.scorers.items():
            for each in (part, *part.within):
                if known.setdefault(each.name, each) != each:
                    raise ValueError(
                        f"scorers.{name} writes scores of the name {each.name!r}, as another scorer of other options "
                        "does: give one of them a key of its own"
                    )

    def _check_names(self) -> None:
        names = [method.name for method in self.methods]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two methods are called {name!r}; give each a name of its own")
        for key in ("seeds", "budgets"):
            _check_once(key, getattr(self, key))
        if not names and self.policies is None:
            raise ValueError("compares nothing: name methods, or policies")
        if self.against is not None and self.against not in names:
            raise ValueError(f"reference names the method {self.against!r}; {suggestion(self.against, names)}")
        known = [POLICY, *self.models]
        if POLICY in self.models:
            raise ValueError(f"models has a model called {POLICY!r}, which is the section of that name; rename it")
        used = {f"scorers.{name}": models_of(part) for name, part in self.scorers.items()}
        used |= {f"methods.{place}": {method.policy} for place, method in enumerate(self.methods)}
        used |= {} if self.policies is None else {"policies": set(self.policies.names)}
        for place, named in used.items():
            for name in sorted(named):
                if name not in known:
                    raise ValueError(
                        f"{place} names the model {name!r}, which is not in models; {suggestion(name, known)}"
                    )
        for name, options in self.models.items():
            if options.model == POLICY or options.model in self.models:
                raise ValueError(f"models.{name} begins as another model here: name weights of its own")

    def _check_method(self, place: str, method: Method) -> None:
        if method.scorer is not None and method.scorer not in self.scorers:
            raise ValueError(
                f"{place} names the scorer {method.scorer!r}, which is not in scorers; "
                f"{suggestion(method.scorer, list(self.scorers))}"
            )
        search = method.chosen
        if method.scorer is None and (search.is_guided or search.rule in NEEDS_SCORES):
            raise ValueError(f"{place} ({method.name}) needs a scorer: name one of scorers")
        if method.sizes and not (method.varies or search.grows_with):
            raise ValueError(f"{place}.sizes: {search.title} has no option that makes it larger; say what varies")
        if method.varies is not None and not method.sizes:
            raise ValueError(f"{place} varies {method.varies} over no sizes: give it sizes, or leave varies out")
        _check_once(f"{place}.sizes", method.sizes)
        for size in method.sizes:
            try:
                method.sized(size)
            except GradatimError as error:
                raise ValueError(f"{place}.sizes: {error}") from error
        if self.shares_samples(method) and not method.sizes and getattr(search, "n", None) is None:
            raise ValueError(f"{place} samples without end: give it sizes")


def _check_once(key: str, values: Sequence[int]) -> None:
    """See that a list names nothing twice, which would count as two."""
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{key} has {value} twice: name each once")
