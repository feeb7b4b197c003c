"""What a recipe may say: strict models of its sections, each with its defaults.

A recipe names parts that the packages define (a task, a search, an objective) and their options; the option names are
those of the functions that take them. Unknown keys are refused.
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

from gradatim.recipes.task_options import GeneratedTaskOptions, Section, TaskOptions


class SamplingOptions(Section):
    """See :class:`gradatim.policies.base.Sampling`; where a step ends is the task's to say."""

    temperature: NonNegativeFloat = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: NonNegativeInt = 0
    max_step_tokens: PositiveInt = 128
    max_steps: PositiveInt = 64


class ChatOptions(Section):
    """See :class:`gradatim.policies.prompts.ChatFormat`; ``examples`` are pairs of a question and its answer."""

    system: str | None = None
    examples: list[tuple[str, str]] = Field(default=[])


class ServerOptions(Section):
    """See :class:`gradatim.policies.server.policy.ServerPolicy`; ``model`` is the model's name at the server."""

    model: str | None = None
    api: Literal["auto", "completions", "chat"] = "auto"
    concurrency: PositiveInt = 16
    requests_per_minute: PositiveFloat | None = None
    timeout: PositiveFloat = 120.0
    retries: NonNegativeInt = 6


class PolicyOptions(Section):
    """The model that proposes steps, and how it runs.

    Attributes:
        model: ``shipped:NAME``, a hub id, a local folder, or the URL of a server (``http://host:8000/v1``).
        engine: what runs a model that is no server's.
        chat: put problems as a conversation in the model's chat template; ``null`` for plain text.
        adapter: a low-rank adapter on the model: a folder or a hub id.
        device, device_map, quantization, dtype: see :func:`gradatim.policies.loading.placed`.
        server: of a server only.
    """

    model: str
    engine: Literal["transformers", "vllm"] = "transformers"
    chat: ChatOptions | None = None
    adapter: str | None = None
    device: str = "auto"
    device_map: str | None = None
    quantization: Literal["8bit", "4bit"] | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_branches: PositiveInt = 256
    cache_gigabytes: PositiveFloat = 2.0
    sampling: SamplingOptions = SamplingOptions()
    server: ServerOptions = ServerOptions()

    @property
    def is_server(self) -> bool:
        from gradatim.policies.server import is_server_url

        return is_server_url(self.model)


class ProblemCounts(Section):
    """How many problems of each split: to grow trees on, to stop training early by, and to evaluate on."""

    train: PositiveInt
    validation: NonNegativeInt = 0
    test: PositiveInt


class TreeSearch(Section):
    """What all ways of growing trees share.

    Attributes:
        budget: tokens that one problem may cost; ``null`` for no limit.
        in_flight: problems that are searched at the same time.
    """

    budget: PositiveInt | None = None
    in_flight: PositiveInt = 64


class GrowOptions(TreeSearch):
    """See :func:`gradatim.search.grow.grow`. ``skip_decided`` expands no step whose rollouts all agree."""

    name: Literal["grow"]
    branching: Annotated[list[PositiveInt], Field(min_length=1)] = Field(default=[8, 4, 4])
    rollouts: NonNegativeInt = 0
    skip_decided: bool = False


class SamplingSearchOptions(TreeSearch):
    """See :func:`gradatim.search.sampling.independent_sampling`."""

    name: Literal["sampling"]
    n: PositiveInt = 16


class GuidedSearch(TreeSearch):
    """Searches that grow trees where rollouts say it is worth it; ``guide_rollouts`` solutions behind each score."""

    guide_rollouts: PositiveInt = 2
    branch: PositiveInt = 4


class BeamTreeOptions(GuidedSearch):
    """See :func:`gradatim.search.beam.beam_search`."""

    name: Literal["beam"]
    width: PositiveInt = 4


class MctsTreeOptions(GuidedSearch):
    """See :func:`gradatim.search.mcts.mcts`."""

    name: Literal["mcts"]
    simulations: PositiveInt = 32
    rule: Literal["uct", "puct", "puct_uniform"] = "puct"
    exploration: NonNegativeFloat = 1.0


SearchOptions = Annotated[
    GrowOptions | SamplingSearchOptions | BeamTreeOptions | MctsTreeOptions, Field(discriminator="name")
]


class BackupValues(Section):
    """Values from what was grown: see :func:`gradatim.search.grow.back_up_values`."""

    name: Literal["backup"] = "backup"


class RolloutValues(Section):
    """Values from rollouts: see :class:`gradatim.scorers.rollouts.RolloutScorer`."""

    name: Literal["rollouts"]
    rollouts: PositiveInt = 8


ValueOptions = Annotated[BackupValues | RolloutValues, Field(discriminator="name")]


class LoraOptions(Section):
    """See :class:`gradatim.training.settings.LoraSettings`."""

    rank: PositiveInt = 16
    alpha: PositiveFloat = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: str | list[str] = "all-linear"


class TrainingOptions(Section):
    """See :class:`gradatim.training.settings.TrainingSettings`."""

    learning_rate: PositiveFloat = 1e-5
    epochs: PositiveFloat = 1.0
    tokens_per_batch: PositiveInt = 2048
    gradient_accumulation_steps: PositiveInt = 1
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.05
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat = 1.0
    bf16: bool = False
    lora: LoraOptions | None = None
    save_every: PositiveInt | None = 100
    evaluate_every: PositiveInt = 50
    patience: PositiveInt | None = None
    log_every: PositiveInt = 10


class LabelOptions(Section):
    """See :func:`gradatim.supervision.labels.step_labels`."""

    kind: Literal["soft", "hard"] = "soft"
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.0
    min_count: PositiveInt = 1


class ProcessRewardOptions(Section):
    """A process reward model.

    Attributes:
        init: ``policy``, or a model: ``shipped:NAME``, a hub id or a folder.
        train: train it on step labels of the grown trees; without, ``init`` is used as it is.
        layout: how ``init`` reads a solution where it is not trained; see :mod:`gradatim.scorers.layouts`.
    """

    name: Literal["process_reward"] = "process_reward"
    init: str = "policy"
    train: bool = True
    layout: Literal["auto", "own", "step-token", "step-tag", "dialogue", "separator", "value-head"] = "auto"
    labels: LabelOptions = LabelOptions()
    training: TrainingOptions = TrainingOptions()


class PairOptions(Section):
    """Which steps become pairs: ``best_worst`` or ``all`` siblings (:func:`gradatim.supervision.pairs.sibling_pairs`),
    or ``first_error`` (:func:`gradatim.supervision.pairs.step_dpo_pairs`)."""

    mode: Literal["best_worst", "all", "first_error"] = "best_worst"
    min_gap: Annotated[float, Field(ge=0, le=1)] = 0.25
    max_per_parent: PositiveInt | None = None
    min_count: PositiveInt = 1


class SupervisionOptions(Section):
    pairs: PairOptions = PairOptions()


class PolicyTraining(Section):
    """What all policy objectives share; ``validation_samples`` solutions per validation problem measure the policy
    while it is trained, and the best state is kept."""

    validation_samples: PositiveInt = 4
    training: TrainingOptions = TrainingOptions()


class PreferenceTraining(PolicyTraining):
    """See :class:`gradatim.training.objectives.dpo.PairObjective`."""

    beta: PositiveFloat = 0.1
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    nll: NonNegativeFloat = 0.0
    margin: NonNegativeFloat = 0.0


class StepDpoOptions(PreferenceTraining):
    """Preferences between steps, from ``supervision.pairs``."""

    name: Literal["step_dpo"]


class DpoOptions(PreferenceTraining):
    """Preferences between whole solutions, ``max_pairs`` a problem."""

    name: Literal["dpo"]
    max_pairs: PositiveInt | None = 8


class SftOptions(PolicyTraining):
    """Imitation of the right solutions."""

    name: Literal["sft"]


ObjectiveOptions = Annotated[StepDpoOptions | DpoOptions | SftOptions, Field(discriminator="name")]


class BeamMethod(Section):
    """Step beam search guided by the scorer."""

    method: Literal["beam"]
    width: PositiveInt | Annotated[list[PositiveInt], Field(min_length=1)]
    branch: PositiveInt | Annotated[list[PositiveInt], Field(min_length=1)]
    aggregate: Literal["last", "min", "product", "mean"] = "last"


class MctsMethod(Section):
    """Monte-Carlo tree search guided by the scorer."""

    method: Literal["mcts"]
    simulations: PositiveInt
    branch: PositiveInt = 4
    rule: Literal["uct", "puct", "puct_uniform"] = "puct"
    exploration: NonNegativeFloat = 1.0


SearchMethod = Annotated[BeamMethod | MctsMethod, Field(discriminator="method")]


class EvaluationOptions(Section):
    """What is measured on the test problems.

    Attributes:
        samples: solutions sampled for each problem and policy; all counts below are at most this.
        greedy: also measure the likeliest solution.
        pass_at: the ``k`` of pass@k.
        best_of: the ``n`` of best-of-n by the scorer.
        majority: the ``n`` of majority votes.
        search: guided searches that are compared with best-of-n, all with the first policy.
        budget: tokens that one guided search may cost; ``null`` for no limit.
        in_flight: problems at the same time.
    """

    samples: PositiveInt = 16
    greedy: bool = True
    pass_at: list[PositiveInt] = Field(default=[1, 8])
    best_of: list[PositiveInt] = Field(default=[1, 2, 4, 8, 16])
    majority: list[PositiveInt] = Field(default=[4, 16])
    search: list[SearchMethod] = Field(default=[])
    budget: PositiveInt | None = None
    in_flight: PositiveInt = 64

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
    """A whole run: grow trees, learn from them, evaluate. ``rounds`` repeats the first two with the new policy."""

    kind: Literal["run"] = "run"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    summary: str = ""
    seed: int = 0
    task: Annotated[TaskOptions, Field(discriminator="name")]
    policy: PolicyOptions
    problems: ProblemCounts
    search: SearchOptions
    values: ValueOptions = BackupValues()
    scorer: ProcessRewardOptions | None = None
    supervision: SupervisionOptions = SupervisionOptions()
    objective: ObjectiveOptions | None = None
    rounds: PositiveInt = 1
    evaluation: EvaluationOptions = EvaluationOptions()

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        if isinstance(self.search, GrowOptions) and self.search.skip_decided and self.values.name != "rollouts":
            raise ValueError("search.skip_decided needs values known while growing: set values.name to rollouts")
        if self.evaluation.search and self.scorer is None:
            raise ValueError("evaluation.search needs a scorer to guide it: add a scorer section or empty the list")
        if self.policy.adapter is not None and (self.policy.is_server or self.policy.engine == "vllm"):
            raise ValueError("policy.adapter is loaded by the transformers engine alone: name it to the server instead")
        if self.objective is not None and (reason := self._why_untrainable()):
            raise ValueError(f"objective trains the policy, but {reason}; remove the objective section")
        if self.scorer is not None and self.scorer.init == "policy":
            if self.policy.is_server:
                raise ValueError("scorer.init is the policy, which is a server's: name a model to start from")
            if not self.scorer.train:
                raise ValueError("scorer.init is the policy, which judges nothing untrained: name a reward model")
        if self.rounds > 1 and self.objective is None:
            raise ValueError("more than one round needs an objective that trains the policy between them")
        return self

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
    layers: PositiveInt = 4
    heads: PositiveInt = 6
    feed_forward: PositiveInt = 512
    positions: PositiveInt = 256


class PretrainingOptions(Section):
    """See :class:`gradatim.training.from_scratch.PretrainingSettings`."""

    demonstrations: PositiveInt = 200_000
    epochs: PositiveFloat = 1.0
    batch_size: PositiveInt = 256
    learning_rate: PositiveFloat = 2e-3
    weight_decay: NonNegativeFloat = 0.05
    seed: int = 0


class PretrainRecipe(Section):
    """A policy trained from scratch on the own demonstrations of a task that generates its problems."""

    kind: Literal["pretrain"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    summary: str = ""
    task: Annotated[GeneratedTaskOptions, Field(discriminator="name")]
    size: ModelShape = ModelShape()
    training: PretrainingOptions = PretrainingOptions()
