"""What a recipe may say: strict models of its sections, each with its defaults.

A recipe names parts (:mod:`gradatim.part`) and their options. Unknown keys are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from gradatim.part import PartOf
from gradatim.recipes.section import Section
from gradatim.tasks.base import Task
from gradatim.tasks.generated import GeneratedTask


class SamplingOptions(Section):
    """See :class:`gradatim.policies.base.Sampling`; where a step ends is the task's to say."""

    temperature: NonNegativeFloat = 1.0
    """0 takes the likeliest token; 1 samples from the model's own distribution."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Keep the smallest set of tokens whose probability reaches this; 1 keeps all."""
    top_k: NonNegativeInt = 0
    """Keep this many of the likeliest tokens; 0 keeps all."""
    max_step_tokens: PositiveInt = 128
    """A step that reaches this length is cut off."""
    max_steps: PositiveInt = 64
    """A solution ends after this many steps, finished or not."""


class ChatOptions(Section):
    """See :class:`gradatim.text.prompts.ChatFormat`."""

    system: str | None = None
    """The system prompt, if any."""
    examples: list[tuple[str, str]] = Field(default=[])
    """Worked examples before the problem: pairs of a question and its answer."""


class ServerOptions(Section):
    """See :class:`gradatim.policies.server.policy.ServerPolicy`."""

    model: str | None = None
    """The model's name at the server; `null` takes the server's only one."""
    api: Literal["auto", "completions", "chat"] = "auto"
    """`completions` continues text, `chat` continues a message; `auto` is chat where `policy.chat` is given or the
    server has no completions."""
    concurrency: PositiveInt = 16
    """Requests that are under way at a time."""
    requests_per_minute: PositiveFloat | None = None
    """Requests are spaced so that no more are sent in a minute; `null` for no limit."""
    timeout: PositiveFloat = 120.0
    """Seconds to connect, and the longest silence within an answer."""
    retries: NonNegativeInt = 6
    """How often a request is sent again after a failure that may pass."""


class PolicyOptions(Section):
    """The model that proposes steps, and how it runs."""

    model: str
    """`shipped:NAME`, a hub id, a local folder, or the URL of a server (`http://host:8000/v1`)."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What runs a model that is no server's."""
    chat: ChatOptions | None = None
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
        from gradatim.policies.server import is_server_url

        return is_server_url(self.model)


class ProblemCounts(Section):
    """How many problems of each split are used."""

    train: NonNegativeInt = 0
    """Problems to grow trees on; of stored trees, how many are used at most (0 for all)."""
    validation: NonNegativeInt = 0
    """Problems to stop training early by; 0 for none."""
    test: PositiveInt
    """Problems to evaluate on."""


class TreeOptions(Section):
    """The trees that are learned from, however they are searched."""

    budget: PositiveInt | None = None
    """Tokens that one problem may cost; `null` for no limit."""
    in_flight: PositiveInt = 64
    """Problems that are searched at the same time."""
    guide_rollouts: PositiveInt = 2
    """Solutions that are completed behind a step to score it, for searches that a scorer guides."""
    stored: str | None = None
    """Take these trees instead of growing some: a run folder, of which the first round's are meant, or a file.
    Their values count, or their imported labels, or else the share of right solutions below a step."""
    damaged: Literal["refuse", "skip"] = "refuse"
    """What to do about a damaged line of that file: end with an error that names it, or pass over it with a warning."""


class BackupValues(Section):
    """Values from what was grown: see :func:`gradatim.values.backup.back_up_values`."""

    name: Literal["backup"] = "backup"
    """A step's value is the share of right solutions among those grown below it."""


class RolloutValues(Section):
    """Values from rollouts: see :class:`gradatim.scorers.rollouts.RolloutScorer`."""

    name: Literal["rollouts"]
    """A step's value is the share of right solutions among fresh ones completed from it."""
    rollouts: PositiveInt = 8
    """Solutions that are completed from each step."""


ValueOptions = Annotated[BackupValues | RolloutValues, Field(discriminator="name")]


class LoraOptions(Section):
    """See :class:`gradatim.training.settings.LoraSettings`."""

    rank: PositiveInt = 16
    """Of the update of each weight matrix."""
    alpha: PositiveFloat = 32.0
    """The update is scaled by `alpha / rank`."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """On the adapters' input."""
    target_modules: str | list[str] = "all-linear"
    """The names of the modules to adapt, or `all-linear`."""


class TrainingOptions(Section):
    """See :class:`gradatim.training.settings.TrainingSettings`."""

    learning_rate: PositiveFloat = 1e-5
    """Its peak, reached after the warm-up, then a cosine to zero."""
    epochs: PositiveFloat = 1.0
    """Passes over the examples."""
    tokens_per_batch: PositiveInt = 2048
    """Tokens in one forward pass at most; larger trees are divided."""
    gradient_accumulation_steps: PositiveInt = 1
    """Forward passes for each update."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the updates in which the learning rate rises."""
    weight_decay: NonNegativeFloat = 0.0
    """How strongly weights are drawn to zero."""
    max_grad_norm: PositiveFloat = 1.0
    """Longer gradients are cut to this length."""
    bf16: bool = False
    """Compute in bfloat16 mixed precision."""
    lora: LoraOptions | None = None
    """Train low-rank adapters instead of all weights; `null` trains all."""
    save_every: PositiveInt | None = 100
    """Updates between checkpoints; `null` saves none."""
    evaluate_every: PositiveInt = 50
    """Updates between two evaluations on the validation problems."""
    patience: PositiveInt | None = None
    """Stop after so many evaluations without a better value; `null` never stops early."""
    log_every: PositiveInt = 10
    """Updates between two entries of the training history."""
    save_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """The type of the trained weights in their file; ``auto`` is that of the model that they came from."""


class LabelOptions(Section):
    """See :class:`gradatim.supervision.step_labels.StepLabels`."""

    kind: Literal["soft", "hard"] = "soft"
    """`soft` labels are the values themselves, `hard` ones are 0 or 1."""
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """A hard label is 1 if the value is above this."""
    min_count: PositiveInt = 1
    """Rollouts or visits that a value must rest on."""


class ProcessRewardOptions(Section):
    """A process reward model."""

    name: Literal["process_reward"] = "process_reward"
    """A process reward model."""
    init: str = "policy"
    """`policy`, or a model to start from: `shipped:NAME`, a hub id or a folder."""
    train: bool = True
    """Train it on step labels of the grown trees; `false` uses `init` as it is."""
    layout: Literal["auto", "own", "step-token", "step-tag", "dialogue", "separator", "value-head"] = "auto"
    """How `init` reads a solution where it is not trained; `auto` tells it from the model."""
    labels: LabelOptions = LabelOptions()
    """How the values of steps become labels."""
    training: TrainingOptions = TrainingOptions()
    """How the scorer is trained."""

    @model_validator(mode="after")
    def _layout_is_of_what_is_not_trained(self) -> ProcessRewardOptions:
        if self.train and self.layout != "auto":
            raise ValueError(
                f"layout {self.layout!r} is of a model that is used as it is, but train is true: set train to false, "
                "or leave layout out"
            )
        return self


class PairOptions(Section):
    """Which steps become pairs: ``best_worst`` or ``all`` siblings
    (:class:`gradatim.supervision.sibling_pairs.SiblingPairs`), or ``first_error``
    (:class:`gradatim.supervision.first_error_pairs.FirstErrorPairs`)."""

    mode: Literal["best_worst", "all", "first_error"] = "best_worst"
    """`best_worst` pairs the best sibling with the worst, `all` any two siblings, `first_error` the first wrong step
    with its right siblings."""
    min_gap: Annotated[float, Field(ge=0, le=1)] = 0.25
    """By how much the values of a pair differ at least."""
    max_per_parent: PositiveInt | None = None
    """Pairs of one step's children at most, those of the widest gap; `null` for all."""
    min_count: PositiveInt = 1
    """Rollouts or visits that a value must rest on."""


class SupervisionOptions(Section):
    """What is made of the values of steps."""

    pairs: PairOptions = PairOptions()
    """Which steps become pairs, for `step_dpo`."""


class PolicyTraining(Section):
    """What all policy objectives share. The policy is measured while it is trained, and its best state is kept."""

    validation_samples: PositiveInt = 4
    """Solutions for each validation problem that measure the policy while it is trained."""
    training: TrainingOptions = TrainingOptions()
    """How the policy is trained."""


class PreferenceTraining(PolicyTraining):
    """See :class:`gradatim.objectives.preference.Preference`."""

    beta: PositiveFloat = 0.1
    """How strongly the policy is held to the one that it was."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Probability that a preference is wrong."""
    nll: NonNegativeFloat = 0.0
    """Weight of the likelihood of the chosen side, per token."""
    margin: NonNegativeFloat = 0.0
    """A pair's gap times this is the offset by which its chosen side has to be better."""


class StepDpoOptions(PreferenceTraining):
    """Preferences between steps, from ``supervision.pairs``."""

    name: Literal["step_dpo"]
    """Preferences between steps, from `supervision.pairs`."""


class DpoOptions(PreferenceTraining):
    """Preferences between whole solutions."""

    name: Literal["dpo"]
    """Preferences between whole solutions."""
    max_pairs: PositiveInt | None = 8
    """Pairs of one problem at most; `null` for all."""


class SftOptions(PolicyTraining):
    """Imitation of the right solutions."""

    name: Literal["sft"]
    """Imitation of the right solutions."""


ObjectiveOptions = Annotated[StepDpoOptions | DpoOptions | SftOptions, Field(discriminator="name")]


class FineTuningOptions(PolicyTraining):
    """Imitation of the task's own worked solutions, before anything is searched."""

    demonstrations: PositiveInt
    """How many worked solutions; of training problems that trees are not grown on, if there are enough."""


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
    search: list[Annotated[Any, PartOf("search")]] = Field(default=[])
    """Searches that are compared with best-of-n, all with the first policy and guided by the scorer."""
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
        return self


class Recipe(Section):
    """A whole run: fine-tune, grow trees, learn from them, evaluate. ``rounds`` repeats growing and learning with the
    new policy."""

    kind: Literal["run"] = "run"
    """A run: grow trees, learn from them, evaluate."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Of the recipe, and of its run folder where none is given."""
    summary: str = ""
    """What the recipe is for, in one line."""
    seed: int = 0
    """Of everything that is drawn; equal seeds give equal runs."""
    task: Annotated[Task, PartOf("tasks")]
    """Where problems come from and how answers are verified."""
    policy: PolicyOptions
    """The model that proposes steps, and how it runs."""
    problems: ProblemCounts
    """How many problems are used for what."""
    fine_tuning: FineTuningOptions | None = None
    """Worked solutions that the policy learns first; `null` for none."""
    search: Annotated[Any, PartOf("search")] | None = None
    """How trees are grown to learn from; `null` where nothing learns."""
    trees: TreeOptions = TreeOptions()
    """What those trees may cost, or where they lie already."""
    values: ValueOptions = BackupValues()
    """How the worth of a step is told from the trees."""
    scorer: ProcessRewardOptions | None = None
    """A model that judges steps; `null` for none."""
    supervision: SupervisionOptions = SupervisionOptions()
    """What is made of the values for the objective."""
    objective: ObjectiveOptions | None = None
    """How the policy is trained; `null` trains none."""
    rounds: PositiveInt = 1
    """How often trees are grown and learned from, each time with the new policy."""
    evaluation: EvaluationOptions = EvaluationOptions()
    """What is measured on the test problems."""

    @property
    def learner(self) -> str | None:
        """What learns from trees first: ``"scorer"``, ``"objective"`` or nothing."""
        if self.scorer is not None and self.scorer.train:
            return "scorer"
        return None if self.objective is None else "objective"

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        if self.trees.stored is not None and self.search is not None:
            raise ValueError("trees.stored takes the place of a search: leave one of them out")
        if self.learner is not None:
            self._check_trees(self.learner)
        if getattr(self.search, "skip_decided", False) and self.values.name != "rollouts":
            raise ValueError("search.skip_decided needs values known while growing: set values.name to rollouts")
        if self.scorer is None and any(search.is_guided for search in self.evaluation.search):
            raise ValueError("evaluation.search needs a scorer to guide it: add a scorer section or empty the list")
        if self.policy.adapter is not None and (self.policy.is_server or self.policy.engine == "vllm"):
            raise ValueError("policy.adapter is loaded by the transformers engine alone: name it to the server instead")
        if reason := self._why_unusable():
            raise ValueError(reason)
        for name in ("fine_tuning", "objective"):
            if getattr(self, name) is not None and (reason := self._why_untrainable()):
                raise ValueError(f"{name} trains the policy, but {reason}; remove the {name} section")
        if self.scorer is not None and self.scorer.init == "policy":
            if self.policy.is_server:
                raise ValueError("scorer.init is the policy, which is a server's: name a model to start from")
            if not self.scorer.train:
                raise ValueError("scorer.init is the policy, which judges nothing untrained: name a reward model")
        if self.rounds > 1 and self.objective is None:
            raise ValueError("more than one round needs an objective that trains the policy between them")
        return self

    def _check_trees(self, learner: str) -> None:
        """See that there are trees for what learns from them."""
        if self.trees.stored is not None:
            if self.rounds > 1:
                raise ValueError("stored trees serve one round: set rounds to 1, or let search grow trees")
            if self.values.name == "rollouts":
                raise ValueError("stored trees are not sampled from: set values.name to backup")
            if self.problems.validation and learner == "scorer":
                raise ValueError(
                    "stored trees have none of validation problems, by which the scorer's training would be stopped: "
                    "set problems.validation to 0"
                )
        elif self.search is None:
            raise ValueError(f"{learner} learns from trees: add a search section, such as search: {{name: grow}}")
        elif not self.problems.train:
            raise ValueError(f"{learner} learns from trees: say how many problems to grow them on in problems.train")

    def _why_unusable(self) -> str | None:
        """Options of the policy that what runs it would not heed."""
        policy = self.policy
        if policy.engine == "vllm" and not policy.is_server:
            for name in ("quantization", "device_map"):
                if getattr(policy, name) is not None:
                    return f"policy.{name} is of the transformers engine: leave it out, or set policy.engine to that"
        if policy.is_server and policy.chat is not None and policy.server.api == "completions":
            return "policy.chat needs chat completions: leave it out, or set policy.server.api to chat"
        return None

    def _why_untrainable(self) -> str | None:
        policy = self.policy
        if policy.is_server:
            return "policy.model is a server's"
        if policy.adapter is not None:
            return "policy.adapter is not part of its weights (merge it into a folder and name that)"
        return None if policy.quantization is None else "policy.quantization keeps it in few bits"


class ModelShape(Section):
    """See :class:`gradatim.training.from_scratch.ModelSize`."""

    hidden: PositiveInt = 192
    """Width of the model."""
    layers: PositiveInt = 4
    """Layers."""
    heads: PositiveInt = 6
    """Attention heads of each layer."""
    feed_forward: PositiveInt = 512
    """Width of a layer's feed-forward part."""
    positions: PositiveInt = 256
    """Tokens that the model reads at most."""


class PretrainingOptions(Section):
    """See :class:`gradatim.training.from_scratch.PretrainingSettings`."""

    demonstrations: PositiveInt = 200_000
    """Different problems with one solution each; every one is seen once an epoch."""
    epochs: PositiveFloat = 1.0
    """Passes over them."""
    batch_size: PositiveInt = 256
    """Solutions for each update."""
    learning_rate: PositiveFloat = 2e-3
    """Its peak; a warm-up over the first 3 % of the updates, then a cosine to a tenth."""
    weight_decay: NonNegativeFloat = 0.05
    """How strongly weights are drawn to zero."""
    seed: int = 0
    """Of the initial weights and of the order."""


class PretrainRecipe(Section):
    """A policy trained from scratch on the own demonstrations of a task that generates its problems."""

    kind: Literal["pretrain"]
    """Training from scratch."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Of the recipe."""
    summary: str = ""
    """What the recipe is for, in one line."""
    task: Annotated[GeneratedTask, PartOf("tasks")]
    """The task whose demonstrations are learned; one that generates its problems."""
    size: ModelShape = ModelShape()
    """The shape of the model, a small Llama."""
    training: PretrainingOptions = PretrainingOptions()
    """How it is trained."""
