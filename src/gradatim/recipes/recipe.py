"""What a recipe may say: strict models of its sections, each with its defaults.

A recipe names parts (:mod:`gradatim.part`) and their options. Unknown keys are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from gradatim.errors import GradatimError
from gradatim.objectives.base import Objective
from gradatim.part import PartOf, make, models_of, name_of, parts_within
from gradatim.policies.base import SamplingOptions
from gradatim.policies.server.options import ServerOptions, is_server_url
from gradatim.recipes.online import OnlineOptions, check_online
from gradatim.recipes.section import Section
from gradatim.scorers.base import ScorerPart
from gradatim.search.regrowth.base import Regrowth
from gradatim.suggestions import suggestion
from gradatim.supervision.base import Construction
from gradatim.supervision.filters.base import Filter
from gradatim.supervision.right_solutions import RightSolutions
from gradatim.tasks.base import Task
from gradatim.text.prompts import ChatFormat
from gradatim.training.settings import TrainingOptions
from gradatim.values.base import Values

POLICY = "policy"
"""The name of the policy among a recipe's models."""
PLACEMENT = ("device", "device_map", "quantization", "dtype", "cache_gigabytes")
"""Options of where a model runs and in which numbers."""
RESERVED = {
    "round",
    "rounds",
    "online",
    "evaluate",
    "benchmarks",
    "search",
    "fine-tuned",
    "fine",
    "trees",
    "stages",
    "checkpoints",
    "plots",
    "superseded",
}
"""What no model may be called, since folders and stages of a run are."""
MODEL_NAME = r"^[A-Za-z0-9_]+(-[A-Za-z_][A-Za-z0-9_]*)*$"
"""Names of models: no dots, which divide keys, and no number behind a hyphen, which stages have."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class ModelOptions(Section):
    """A model and how it runs."""

    model: str
    """`shipped:NAME`, a hub id, a local folder, or the URL of a server (`http://host:8000/v1`)."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What runs a model that is no server's."""
    chat: ChatFormat | None = None
    """Put problems as a conversation in the model's chat template; `null` for plain text."""
    adapter: str | None = None
    """A low-rank adapter on the model: a folder or a hub id."""
    device: str = "auto"
    """Where the model runs, such as `cpu` or `cuda`; `auto` is the accelerator if there is one."""
    device_map: str | None = None
    """Spreads a model that is too large for one device over several: `auto` or `balanced`."""
    quantization: Literal["8bit", "4bit"] | None = None
    """Load the weights in 8 or 4 bits with bitsandbytes."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """The number format of the weights and of what is computed."""
    max_branches: PositiveInt = 256
    """How many steps are written at once."""
    cache_gigabytes: PositiveFloat = 2.0
    """Memory for what the model knows of earlier steps; what had to be dropped is computed again."""
    sampling: SamplingOptions = SamplingOptions()
    """How steps are sampled."""
    server: ServerOptions = ServerOptions()
    """How a server is asked, where `model` is one's URL."""

    @property
    def is_server(self) -> bool:
        return is_server_url(self.model)


def inherited_placement(content: Any, keys: Sequence[str] = PLACEMENT) -> Any:
    """A recipe's content in which a model runs where the policy does (in all that ``keys`` name), and one that begins
    as the policy runs as it does in all, unless it says otherwise."""
    if not isinstance(content, dict):
        return content
    policy, models = content.get("policy"), content.get("models")
    if not isinstance(policy, dict) or not isinstance(models, dict):
        return content
    given = {}
    for name, each in models.items():
        of_policy = policy if isinstance(each, dict) and each.get("model") == POLICY else keys
        inherited = {key: policy[key] for key in of_policy if key in policy}
        given[name] = {**inherited, **each} if isinstance(each, dict) else each
    return {**content, "models": given}


class ProblemCounts(Section):
    """How many problems of each split are used."""

    train: NonNegativeInt = 0
    """Problems to grow trees on; of stored trees, how many are used at most (0 for all)."""
    validation: NonNegativeInt = 0
    """Problems to stop training early by; 0 for none."""
    test: NonNegativeInt
    """Problems to evaluate policies on; 0 for none, so that only a scorer is measured, on `evaluation.benchmarks`."""


class TreeOptions(Section):
    """The trees that are learned from, however they are searched."""

    budget: PositiveInt | None = None
    """Tokens that one problem may cost; `null` for no limit."""
    in_flight: PositiveInt = 64
    """Problems that are searched at the same time."""
    stored: str | None = None
    """Take these trees instead of growing some: a run folder, of which the first round's are meant, or a file."""
    damaged: Literal["refuse", "skip"] = "refuse"
    """What to do about a damaged line of that file: end with an error that names it, or pass over it with a warning."""


class Learn(Section):
    """One training: a model learns from what constructions make of the trees, or from the task's worked solutions."""

    model: str = "policy"
    """The model that learns: the policy, or one of `models`."""
    objective: Annotated[Objective, PartOf("objectives")]
    """The loss."""
    data: list[Annotated[Construction, PartOf("supervision")]] = Field(default=[])
    """What the loss is over: constructions, which turn trees into terms."""
    filters: list[Annotated[Filter, PartOf("supervision/filters")]] = Field(default=[])
    """Which of these terms it learns from: each filter chooses among what the one before it kept."""
    demonstrations: PositiveInt | None = None
    """Learn from so many of the task's own worked solutions in the place of trees, before anything is searched; of
    training problems that trees are not grown on, if there are enough."""
    rounds: Literal["every", "first"] = "every"
    """Whether it learns in every round or in the first one alone."""
    begin: Literal["first"] | None = None
    """Which state of the model it begins with: `first`, as it was before it learned from any trees, in every round;
    `null` goes on from its last training."""
    reference: Literal["tree", "initial", "base"] = "tree"
    """Where reference log-probabilities come from, if the loss has some: recorded in the tree, of the model as it was
    before this training, or of the base under its adapters. Trees that another model wrote have none of `tree`."""
    stop_by: Literal["accuracy", "loss", "nothing"] | None = None
    """What is measured on the validation problems to keep the best state: the share of right solutions that the policy
    samples, or the loss on their trees; `null` is the accuracy for a policy without further heads, else the loss."""
    validation_samples: PositiveInt = 4
    """Solutions for each validation problem that measure the accuracy."""
    training: TrainingOptions = TrainingOptions()
    """How it is trained."""
    save_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """The type of the trained weights in their file; ``auto`` is that of the model that they came from."""

    @property
    def measure(self) -> str:
        """What it is stopped by, decided."""
        return self.stop_by or ("accuracy" if self.model == POLICY and not self.objective.heads else "loss")

    @model_validator(mode="after")
    def _learns_from_something(self) -> Learn:
        if self.demonstrations is None and not self.data:
            raise ValueError("learns from nothing: name constructions in data, or say how many demonstrations")
        if self.demonstrations is not None and self.data:
            raise ValueError("learns from demonstrations or from trees: leave data or demonstrations out")
        if self.demonstrations is not None and self.filters:
            raise ValueError("filters choose among what constructions make of trees: leave them out")
        if self.demonstrations is not None and self.begin is not None:
            raise ValueError("demonstrations are learned from before any trees: leave begin out")
        if self.demonstrations is not None and self.model != POLICY:
            raise ValueError("only the policy learns from demonstrations")
        try:
            for construction in self.data or [RightSolutions()]:
                self.objective.check(construction)
            if self.training.lora is not None:
                self.objective.check_adapters()
        except GradatimError as error:
            raise ValueError(str(error)) from error
        if self.measure == "accuracy" and self.model != POLICY:
            raise ValueError("stop_by: accuracy measures the policy; leave it out, or set it to loss")
        if self.reference == "tree" and "confidence" in self.objective.needs:
            raise ValueError("the objective asks how sure the reference was, which trees do not record; set reference")
        if self.reference == "base" and self.training.lora is None:
            raise ValueError("reference: base is the model without its adapters, and training.lora gives it none")
        recorded = self.reference == "tree" and self.model == POLICY
        if self.measure == "loss" and "reference" in self.objective.needs and not recorded:
            raise ValueError("stop_by: loss needs the reference that the policy's trees recorded; set it to nothing")
        return self


class EvaluationOptions(Section):
    """What is measured on the test problems."""

    samples: PositiveInt = 16
    """Solutions sampled for each problem and policy; all counts below are at most this."""
    greedy: bool = True
    """Also measure the likeliest solution."""
    pass_at: list[PositiveInt] = Field(default=[1, 8])
    """The `k` of pass@k, the chance that one of `k` solutions is right."""
    best_of: list[PositiveInt] = Field(default=[1, 2, 4, 8, 16])
    """The `n` of best-of-n by the scorer."""
    majority: list[PositiveInt] = Field(default=[4, 16])
    """The `n` of majority votes."""
    scorer: Annotated[ScorerPart, PartOf("scorers")] | None = None
    """What judges steps in the evaluation, with the models as they are in the end; `null` for nothing."""
    search: list[Annotated[Any, PartOf("search")]] = Field(default=[])
    """Searches that are compared with best-of-n, guided by the scorer."""
    benchmarks: list[Annotated[Any, PartOf("evaluation/benchmarks")]] = Field(default=[])
    """Benchmarks of step scorers that the scorer is measured on."""
    searched: Literal["first", "last"] = "first"
    """Which policy is searched and chosen from: the first one that trees are grown with, or the last."""
    budget: PositiveInt | None = None
    """Tokens that one guided search may cost; `null` for no limit."""
    in_flight: PositiveInt = 64
    """Problems at the same time."""

    @model_validator(mode="before")
    @classmethod
    def _fit_defaults(cls, content: Any) -> Any:
        """Counts that the recipe leaves to the defaults are those that the samples allow."""
        if not isinstance(content, dict) or not isinstance(samples := content.get("samples", 16), int):
            return content
        defaults = {name: cls.model_fields[name].default for name in ("pass_at", "best_of", "majority")}
        return {name: [n for n in counts if n <= samples] for name, counts in defaults.items()} | content

    @model_validator(mode="after")
    def _counts_fit(self) -> EvaluationOptions:
        largest = max([*self.pass_at, *self.best_of, *self.majority], default=1)
        if largest > self.samples:
            raise ValueError(f"asks for {largest} solutions a problem but samples only {self.samples}; raise samples")
        if self.benchmarks and self.scorer is None:
            raise ValueError("benchmarks measure a scorer: name one as scorer, such as process_reward")
        return self


class Recipe(Section):
    """A whole run: grow trees, learn from them, evaluate. ``rounds`` repeats growing and learning with the models as
    they were left by the round before."""

    kind: Literal["run"] = "run"
    """A run: grow trees, learn from them, evaluate."""
    name: Annotated[str, Field(pattern=NAME)]
    """Of the recipe, and of its run folder where none is given."""
    summary: str = ""
    """What the recipe is for, in one line."""
    paper: str | None = None
    """Where the system is from, if it was published: `arXiv:...`."""
    seed: int = 0
    """Of everything that is drawn; equal seeds give equal runs."""
    task: Annotated[Task, PartOf("tasks")]
    """Where problems come from and how answers are verified."""
    policy: ModelOptions
    """The model that proposes steps, and how it runs."""
    models: dict[Annotated[str, Field(pattern=MODEL_NAME)], ModelOptions] = Field(default={})
    """Further models by their names: reward models, provers, judges. Where one runs is as of the policy, unless it
    says otherwise."""
    problems: ProblemCounts
    """How many problems are used for what."""
    search: Annotated[Any, PartOf("search")] | None = None
    """How trees are grown to learn from; `null` where nothing learns from trees."""
    scorer: Annotated[ScorerPart, PartOf("scorers")] | None = None
    """What guides that search, or scores the steps that it grows; `null` for nothing."""
    trees: TreeOptions = TreeOptions()
    """What those trees may cost, or where they lie already."""
    regrow: list[Annotated[Regrowth, PartOf("search/regrowth")]] = Field(default=[])
    """What is grown on in a tree that was searched and graded, before its values are told, one after another."""
    values: list[Annotated[Values, PartOf("values")]] = Field(default_factory=lambda: [make("values", "backup")])
    """How the worth of a step is told from the trees, one after another; of grown trees by `backup` and of stored ones
    by `imported` where nothing is said."""
    learn: list[Learn] = Field(default=[])
    """What learns from them, one after another."""
    rounds: PositiveInt = 1
    """How often trees are grown and learned from, each time with the models as they are by then."""
    online: OnlineOptions | None = None
    """Make all rounds one training, of many small rounds; `null` for rounds that are trainings of their own."""
    evaluation: EvaluationOptions = EvaluationOptions()
    """What is measured on the test problems."""

    @model_validator(mode="before")
    @classmethod
    def _fit_defaults(cls, content: Any) -> Any:
        """A model runs where the policy does, and one that begins as the policy runs as it does in all, unless it says
        otherwise; stored trees are worth what they say."""
        if not isinstance(content, dict):
            return content
        trees = content.get("trees")
        if "values" not in content and isinstance(trees, dict) and trees.get("stored") is not None:
            content = {**content, "values": ["imported"]}
        return inherited_placement(content)

    def model(self, name: str) -> ModelOptions:
        """The options of a model by its name."""
        return self.policy if name == POLICY else self.models[name]

    def placed_models(self) -> dict[str, ModelOptions]:
        """All models by the keys of their sections."""
        return {POLICY: self.policy, **{f"models.{name}": each for name, each in self.models.items()}}

    @property
    def growing(self) -> list[Any]:
        """The parts beside the search that may run models while trees are grown."""
        return [self.scorer, self.regrow, self.values]

    @property
    def demonstrated(self) -> Learn | None:
        """The training on worked solutions, before anything is searched."""
        return next((learn for learn in self.learn if learn.demonstrations is not None), None)

    @property
    def learns_from_trees(self) -> list[Learn]:
        """The trainings on trees, in their order."""
        return [learn for learn in self.learn if learn.demonstrations is None]

    def trained_in(self, number: int) -> list[Learn]:
        """The trainings of one round, counted from 1."""
        return [learn for learn in self.learns_from_trees if number == 1 or learn.rounds == "every"]

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        for check in (
            self._check_models,
            self._check_keys,
            self._check_trees,
            self._check_search,
            self._check_policy,
            self._check_learn,
        ):
            check()
        return self

    def _check_keys(self) -> None:
        """See that nothing writes over what another writes to the trees, and that what is learned from is written."""
        passes: list[Regrowth | Values] = [*self.regrow, *self.values]
        written = [key for each in passes for key in sorted(each.written)]
        if self.scorer is not None:
            written += {self.scorer.name, *(each.name for each in self.scorer.within)}
        for key in written:
            if written.count(key) > 1:
                raise ValueError(
                    f"values, regrow and scorer write {key!r} more than once: give one of them another key"
                )
        written += map(name_of, [*parts_within(self.search), *self.regrow])
        for place, learn in enumerate(self.learn if self.trees.stored is None else ()):
            read = [
                (f"data.{number}", getattr(part, name, None))
                for number, part in enumerate(learn.data)
                for name in ("made_by", "value", "rated_by", "visits", "reward", "step_reward")
            ]
            read += [(f"filters.{number}", name) for number, each in enumerate(learn.filters) for name in each.reads]
            for key, value in read:
                if value is not None and value not in written:
                    raise ValueError(
                        f"learn.{place}.{key} learns from {value!r}, which nothing writes to the trees; "
                        f"{suggestion(value, written)}"
                    )

    def _check_models(self) -> None:
        """See that every model that is named is there, and that none has the policy's name."""
        known = [POLICY, *self.models]
        for name in sorted(RESERVED & self.models.keys()):
            raise ValueError(
                f"models.{name} has the name of a run's own folder or stage; call the model something else"
            )
        if POLICY in self.models:
            raise ValueError(f"models has a model called {POLICY!r}, which is the section of that name; rename it")
        used = {
            "scorer": models_of(self.scorer),
            "regrow": models_of(self.regrow),
            "values": models_of(self.values),
            "evaluation.scorer": models_of(self.evaluation.scorer),
            "learn": {learn.model for learn in self.learn},
        }
        for place, names in used.items():
            for name in sorted(names):
                if name not in known:
                    raise ValueError(
                        f"{place} names the model {name!r}, which is not in models; {suggestion(name, known)}"
                    )
        for name, options in self.models.items():
            if options.model in self.models:
                raise ValueError(f"models.{name} starts from another of models: name the policy, or weights of its own")
            if options.model == POLICY and self.policy.is_server:
                raise ValueError(f"models.{name} begins as the policy, which is a server's: name weights of its own")
            if options.model == POLICY and self.policy.adapter is not None:
                raise ValueError(
                    f"models.{name} begins as the policy, whose adapter is not part of its weights: merge it into a "
                    "folder and name that"
                )
        judges = {learn.model: "score" in learn.objective.heads for learn in self.learn}
        for index, learn in enumerate(self.learn):
            judging = "score" in learn.objective.heads
            if judging and learn.model == POLICY:
                raise ValueError(f"learn.{index} makes the policy a judge of steps: name one of models as its model")
            if judging != judges[learn.model]:
                raise ValueError(f"learn trains {learn.model} to write and to judge: give each its own model")

    def _check_trees(self) -> None:
        """See that there are trees for what learns from them."""
        learners = self.learns_from_trees
        if self.trees.stored is not None:
            if self.search is not None:
                raise ValueError("trees.stored takes the place of a search: leave one of them out")
            if self.rounds > 1:
                raise ValueError("stored trees serve one round: set rounds to 1, or let search grow trees")
            if any(values.runs_models for values in self.values):
                raise ValueError("stored trees are not sampled from: name values that need no model, such as imported")
            if self.regrow:
                raise ValueError("stored trees are not sampled from: leave regrow out")
            if self.problems.validation and any(learn.measure == "loss" for learn in learners):
                raise ValueError(
                    "stored trees have none of validation problems, by whose loss training would be stopped: set "
                    "problems.validation to 0"
                )
        elif learners and self.search is None:
            raise ValueError("learn needs trees: add a search section, such as search: {name: grow}")
        elif learners and not self.problems.train:
            raise ValueError("learn needs trees: say how many problems to grow them on in problems.train")

    def _check_search(self) -> None:
        """See that a search has the scorer that it needs, and regrowth a search."""
        if self.regrow and self.search is None:
            raise ValueError(
                "regrow grows on in trees that a search has grown, and there is none: add a search section"
            )
        if self.scorer is not None and self.search is None:
            raise ValueError("scorer guides the search that grows trees, and there is none: name evaluation.scorer")
        if self.evaluation.scorer is not None and self.evaluation.scorer.knows_truth:
            raise ValueError(
                "evaluation.scorer knows the truth about solutions, so that choosing by it measures nothing"
            )
        if self.search is not None and self.scorer is None:
            if self.search.is_guided:
                raise ValueError("search needs a scorer to guide it: add one, such as scorer: {name: rollouts}")
            if getattr(self.search, "skip_decided", False):
                raise ValueError("search.skip_decided needs scores while growing: add scorer: {name: rollouts}")
        if self.evaluation.scorer is None and any(search.is_guided for search in self.evaluation.search):
            raise ValueError("evaluation.search needs a scorer to guide it: add evaluation.scorer or empty the list")

    def _check_policy(self) -> None:
        """See that what runs each model heeds its options."""
        for place, options in self.placed_models().items():
            if options.adapter is not None and (options.is_server or options.engine == "vllm"):
                raise ValueError(
                    f"{place}.adapter is loaded by the transformers engine alone: name it to the server instead"
                )
            if options.engine == "vllm" and not options.is_server:
                for name in ("quantization", "device_map"):
                    if getattr(options, name) is not None:
                        raise ValueError(
                            f"{place}.{name} is of the transformers engine: leave it out, or set {place}.engine to that"
                        )
            if options.is_server and options.chat is not None and options.server.api == "completions":
                raise ValueError(
                    f"{place}.chat needs chat completions: leave it out, or set {place}.server.api to chat"
                )

    def _check_learn(self) -> None:
        """See that what is to learn can be trained."""
        for place, learn in enumerate(self.learn):
            if reason := self._why_untrainable(learn.model):
                raise ValueError(f"learn.{place} trains {learn.model}, but {reason}; remove the entry")
        if sum(learn.demonstrations is not None for learn in self.learn) > 1:
            raise ValueError("learn has several trainings on demonstrations: leave one of them")
        if self.online is not None:
            check_online(self)
        if self.rounds > 1 and not any(learn.rounds == "every" for learn in self.learns_from_trees):
            raise ValueError("more than one round needs something that learns in every one of them")

    def _why_untrainable(self, name: str) -> str | None:
        options, place = self.model(name), POLICY if name == POLICY else f"models.{name}"
        if options.model == POLICY and self.policy.is_server:
            return f"{place} begins as the policy, which is a server's"
        if options.is_server:
            return f"{place}.model is a server's"
        if options.adapter is not None:
            return f"{place}.adapter is not part of its weights (merge it into a folder and name that)"
        return None if options.quantization is None else f"{place}.quantization keeps it in few bits"
