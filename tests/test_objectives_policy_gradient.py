"""The clipped policy gradient: by slow loops over single paths, by its limits, by TRL's loss, by finite differences."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from gradatim.engine.head_shape import HeadShape
from gradatim.engine.heads import attach_heads, head_values, heads_of
from gradatim.errors import GradatimError
from gradatim.objectives import Objective, PolicyGradient, Quantities
from gradatim.supervision import Group, SiblingAdvantages, Term, TrajectoryAdvantages, labelled_step, path_term
from gradatim.training import TrainingSettings, train
from gradatim.training.forward import measured, token_confidences
from gradatim.training.rows import build_row
from gradatim.tree import Node, Tree
from training_models import VOCABULARY, path_log_probabilities, random_tree, tiny_model

OPTIONS: list[dict[str, Any]] = [
    {},
    {"unit": "terms"},
    {"clip_low": 0.1, "clip_high": 0.4, "kl": 0.3, "kl_unbiased": False},
    {"ratio": "step", "unit": "terms", "clip_low": 0.05, "clip_high": 0.05},
    {"ratio": "solution", "clip_low": 0.02, "clip_high": 0.02, "kl": 0.1},
    {"clip_low": None, "clip_high": None},
]


def sampled_tree(model: Any, seed: int, *, spread: float = 0.3, observations: bool = True) -> Tree:
    """A random tree whose recorded log-probabilities are a little off the model's own."""
    tree, source = random_tree(seed, nodes=12, observations=observations), random.Random(seed)
    with torch.no_grad():
        for node in tree.nodes[1:]:
            own = path_log_probabilities(model, node).tolist()
            recorded = tuple(min(value + spread * source.uniform(-1, 1), -1e-3) for value in own)
            node.step = replace(node.step, log_probabilities=recorded)
    return tree


def advantaged(tree: Tree, seed: int = 0) -> list[Term]:
    """Every path with an advantage for each step, but one path, of which a step has none."""
    source = random.Random(seed)
    terms = []
    for number, leaf in enumerate(tree.leaves()):
        path = tuple(leaf.path()[1:])
        targets = [source.uniform(-1.5, 1.5) for _ in path]
        if number == 1 and len(path) > 1:
            targets[0 if len(path) == 2 else 1] = math.nan
        terms.append(Term((Group(path, targets=tuple(targets)),), 1.0 + number % 2, (float(number % 2),)))
    return terms


def quantities(model: Any, objective: Objective, terms: list[Term]) -> Quantities:
    return measured(model, build_row([objective.prepared(term) for term in terms]), objective)


def total(objective: Objective, of: Quantities) -> torch.Tensor:
    """What the trainer minimizes."""
    return (of.weight * objective.loss(of).per_term).sum() / of.sizes(objective.unit).sum()


def gradients(model: Any, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, [each for each in model.parameters() if each.requires_grad]))


def naive(model: Any, objective: PolicyGradient, terms: list[Term]) -> tuple[torch.Tensor, dict[str, float]]:
    """By loops over the tokens of single paths, each run by itself; the ratio's gradient goes through each token."""
    loss, size, metrics = torch.zeros(()), 0.0, dict.fromkeys(("ratio", "clip_fraction", "advantage", "kl"), 0.0)
    for term in terms:
        group = term.groups[0]
        tokens: list[tuple[torch.Tensor, float, float, int]] = []
        for number, (node, target) in enumerate(zip(group.nodes, group.targets, strict=True)):
            recorded = node.step.log_probabilities
            tokens += [
                (value, old, target, number)
                for value, old in zip(path_log_probabilities(model, node), recorded, strict=True)
            ]
        first = next(place for place, target in enumerate(group.targets) if not math.isnan(target))
        last = max(place for place, target in enumerate(group.targets) if not math.isnan(target))
        tokens = [each for each in tokens if first <= each[3] <= last]
        term_loss, counted = torch.zeros(()), sum(not math.isnan(each[2]) for each in tokens)
        for value, old, target, number in tokens:
            if math.isnan(target):
                continue
            scope = {
                "token": [(value, old)],
                "step": [(v, o) for v, o, _, n in tokens if n == number],
                "solution": [(v, o) for v, o, _, _ in tokens],
            }[objective.ratio]
            pooled = sum(float(v.detach()) - o for v, o in scope) / len(scope)
            ratio = math.exp(pooled) * torch.exp(value - value.detach())
            low = -math.inf if objective.clip_low is None else 1 - objective.clip_low
            high = math.inf if objective.clip_high is None else 1 + objective.clip_high
            surrogate = min(ratio * target, ratio.clamp(low, high) * target, key=lambda each: float(each.detach()))
            divergence = torch.exp(old - value) - (old - value) - 1
            term_loss = term_loss - surrogate + objective.kl * divergence * (ratio if objective.kl_unbiased else 1.0)
            share = term.weight * (1.0 if objective.unit == "tokens" else 1.0 / counted)
            metrics["ratio"] += share * float(ratio.detach())
            metrics["clip_fraction"] += share * float(
                (float(ratio.detach()) > high and target > 0) or (float(ratio.detach()) < low and target < 0)
            )
            metrics["advantage"] += share * target
            metrics["kl"] += share * float(divergence.detach())
        loss = loss + term.weight * (term_loss if objective.unit == "tokens" else term_loss / counted)
        size += term.weight * (counted if objective.unit == "tokens" else 1)
    return loss / size, {name: value / size for name, value in metrics.items()}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_loss_gradient_and_metrics_equal_those_of_loops_over_single_paths(options: dict[str, Any]) -> None:
    model, objective = tiny_model(), PolicyGradient(**options)
    terms = advantaged(sampled_tree(model, 3)) + advantaged(sampled_tree(model, 5), seed=1)
    expected, metrics = naive(model, objective, terms)
    of = quantities(model, objective, terms)
    assert of.lengths.shape[0] < of.step_of.shape[0], "paths share steps, which are run once"
    found = objective.loss(of)
    loss = total(objective, of)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    for ours, theirs in zip(gradients(model, loss), gradients(model, expected), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
    sizes = of.weight * (of.tokens() if objective.unit == "tokens" else 1)
    for name, value in found.metrics.items():
        assert float((value * sizes).sum() / sizes.sum()) == pytest.approx(metrics[name], abs=1e-5), name
    if objective.clip_low is not None:
        assert metrics["clip_fraction"] > 0, "the test would show nothing of clipping"


def apart(term: Term) -> Term:
    """The same term in a tree of its own, which shares nothing."""
    (group,) = term.groups
    tree = Tree(group.nodes[0].tree.problem, prompt_tokens=group.nodes[0].tree.root.step.tokens)
    node = tree.root
    for each in group.nodes:
        node = tree.add(node, each.step)
    return replace(term, groups=(replace(group, nodes=tuple(node.path()[1:])),))


@pytest.mark.parametrize("options", [{"kl": 0.2}, {"unit": "terms", "ratio": "step"}, {"value": 0.5}], ids=str)
def test_a_tree_has_the_loss_and_gradient_of_its_paths_apart(options: dict[str, Any]) -> None:
    model, objective = tiny_model(), PolicyGradient(**options)
    attach_heads(model, objective.heads)
    terms = advantaged(sampled_tree(model, 3, observations=False))
    shared = total(objective, quantities(model, objective, terms))
    split = total(objective, quantities(model, objective, [apart(term) for term in terms]))
    torch.testing.assert_close(shared, split, atol=1e-6, rtol=1e-5)
    for ours, theirs in zip(gradients(model, shared), gradients(model, split), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("unit", ["tokens", "terms"])
@pytest.mark.parametrize("ratio", ["token", "step", "solution"])
def test_on_policy_it_is_the_plain_policy_gradient(unit: Any, ratio: Any) -> None:
    """Whatever is clipped: at a ratio of 1 nothing is."""
    model, objective = tiny_model(), PolicyGradient(unit=unit, ratio=ratio)
    terms = advantaged(sampled_tree(model, 3, spread=0.0))
    plain, size = torch.zeros(()), 0
    for term in terms:
        known = [
            (value, target)
            for node, target in zip(term.groups[0].nodes, term.groups[0].targets, strict=True)
            for value in path_log_probabilities(model, node)
            if not math.isnan(target)
        ]
        score = torch.stack([target * value for value, target in known]).sum()
        plain = plain - term.weight * (score if unit == "tokens" else score / len(known))
        size += int(term.weight) * (len(known) if unit == "tokens" else 1)
    loss = total(objective, quantities(model, objective, terms))
    for ours, theirs in zip(gradients(model, loss), gradients(model, plain / size), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_a_target_of_a_term_is_the_advantage_of_all_of_its_steps() -> None:
    model, objective = tiny_model(), PolicyGradient(unit="terms")
    leaf = max(sampled_tree(model, 3).leaves(), key=lambda node: node.depth)
    whole = replace(path_term(leaf), targets=(0.7,))
    each = Term((Group(whole.groups[0].nodes, targets=(0.7,) * leaf.depth),))
    first, second = (objective.loss(quantities(model, objective, [term])).per_term for term in (whole, each))
    torch.testing.assert_close(first, second)


@torch.no_grad()
def value_alone(model: Any, node: Node) -> float:
    hidden = model.base_model(torch.tensor([node.tokens_before_observation])).last_hidden_state[0]
    return float(head_values(heads_of(model)["value"], hidden)[-1].sigmoid())


@pytest.mark.parametrize("unit", ["tokens", "terms"])
def test_a_value_head_learns_what_solutions_come_to(unit: Any) -> None:
    model = tiny_model()
    attach_heads(model, {"value": HeadShape()})
    torch.manual_seed(7)
    for parameter in heads_of(model)["value"].parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    terms = advantaged(sampled_tree(model, 3))
    plain, both = PolicyGradient(unit=unit), PolicyGradient(unit=unit, value=0.5)
    without, found = (each.loss(quantities(model, each, terms)) for each in (plain, both))
    for i, term in enumerate(terms):
        known = zip(term.groups[0].nodes, term.groups[0].targets, strict=True)
        steps = [node for node, target in known if not math.isnan(target)]
        error = sum((value_alone(model, node) - term.targets[0]) ** 2 for node in steps) / len(steps)
        size = sum(len(node.step.tokens) for node in steps) if unit == "tokens" else 1
        difference = float((found.per_term[i] - without.per_term[i]).detach())
        assert difference == pytest.approx(0.5 * error * size, abs=1e-5)
        assert float(found.metrics["value_error"][i]) == pytest.approx(error, abs=1e-5)


def by_numbers(advantages: list[float]) -> Quantities:
    """Two solutions of two steps of two tokens, of which the first step is shared."""
    source = torch.Generator().manual_seed(0)
    own = torch.rand(6, generator=source, dtype=torch.float64) - 1.5
    return Quantities(
        token_step=torch.tensor([0, 0, 1, 1, 2, 2]),
        lengths=torch.tensor([2, 2, 2]),
        step_of=torch.tensor([0, 1, 0, 2]),
        group_of=torch.tensor([0, 0, 1, 1]),
        step_weight=torch.ones(4, dtype=torch.float64),
        step_target=torch.tensor(advantages, dtype=torch.float64),
        group_term=torch.tensor([0, 1]),
        target=torch.tensor([1.0, 0.0], dtype=torch.float64),
        weight=torch.tensor([1.0, 2.0], dtype=torch.float64),
        label_smoothing=torch.zeros(2, dtype=torch.float64),
        log_probabilities=own,
        reference=own - 0.1,
        behaviour=own + torch.tensor([0.4, -0.05, 0.05, -0.4, 0.5, 0.3], dtype=torch.float64),
        heads={},
    )


@pytest.mark.parametrize(
    "objective",
    [
        PolicyGradient(kl=0.2, value=0.3),
        PolicyGradient(unit="terms", clip_low=None),
        PolicyGradient(ratio="step", clip_high=0.1),
        PolicyGradient(ratio="solution", clip_low=0.1, clip_high=0.1),
    ],
    ids=str,
)
def test_gradients_equal_finite_differences(objective: PolicyGradient) -> None:
    """With one advantage for a whole solution where its ratio is; else the gradient is each token's own, on purpose."""
    alike = objective.ratio == "solution"
    of = by_numbers([0.7, 0.7, -0.4, -0.4] if alike else [0.7, -0.2, -0.4, 0.9])

    def loss(log_probabilities: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return total(objective, replace(of, log_probabilities=log_probabilities, heads={"value": values}))

    values = torch.tensor([0.3, -0.4, 1.2], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (of.log_probabilities.clone().requires_grad_(), values))


def test_the_divergence_is_relaxed_where_the_reference_was_unsure() -> None:
    plain, relaxed = PolicyGradient(kl=0.3), PolicyGradient(kl=0.3, kl_confidence=2.0)
    of = by_numbers([0.7, -0.2, -0.4, 0.9])
    confidence = torch.tensor([1.0, 0.5, 0.0, 1.0, 0.8, 0.3], dtype=torch.float64)
    ratios = (of.log_probabilities - of.behaviour).exp()
    divergence = math.exp(-0.1) + 0.1 - 1  # everywhere
    paths = [[0, 1, 2, 3], [0, 1, 4, 5]]
    found = relaxed.loss(replace(of, confidence=confidence))
    expected = [sum(0.3 * divergence * float(ratios[t] * (confidence[t] ** 2 - 1)) for t in path) for path in paths]
    assert (found.per_term - plain.loss(of).per_term).tolist() == pytest.approx(expected)
    assert found.metrics["kl"].tolist() == pytest.approx([divergence] * 2), "what is told is the divergence itself"
    assert "confidence" not in plain.needs
    assert "confidence" not in PolicyGradient(kl_confidence=2.0).needs


def test_how_sure_a_model_is_before_each_token() -> None:
    model, tree = tiny_model(), random_tree(3)
    row = build_row(advantaged(tree))
    found, place = token_confidences(model, row), 0
    scored: list[int] = list(dict.fromkeys(int(step) for step in row.token_step))
    nodes = list(dict.fromkeys(node for term in advantaged(tree) for node in term.groups[0].nodes))
    for node in (nodes[step] for step in scored):
        before = [] if node.parent is None else node.parent.tokens
        with torch.no_grad():
            logits = model(torch.tensor([before + list(node.step.tokens)])).logits[0]
        for number in range(len(before) - 1, len(before) + len(node.step.tokens) - 1):
            shares = logits[number].softmax(-1)
            entropy = -float((shares * shares.log()).sum())
            assert float(found[place]) == pytest.approx(1 - entropy / math.log(VOCABULARY), abs=1e-5)
            place += 1
    assert place == len(found)


@pytest.mark.parametrize(
    ("family", "options"),
    [("gpt2", {}), ("llama", {"kl": 0.1}), ("llama", {"kl": 0.1, "kl_confidence": 1.0}), ("llama", {"value": 0.5})],
)
def test_training_raises_the_likelihood_of_better_steps(family: str, options: dict[str, Any]) -> None:
    """One update on the policy's own samples; the reference is the model as it was. GPT-2 has dropout, which would be
    noise in the ratios."""
    model = tiny_model(family)
    terms = advantaged(sampled_tree(model, 3, spread=0.0))
    objective = PolicyGradient(clip_low=None, clip_high=None, **options)

    def likelihood() -> float:
        with torch.no_grad():
            return sum(
                term.weight * target * float(path_log_probabilities(model, node).sum())
                for term in terms
                for node, target in zip(term.groups[0].nodes, term.groups[0].targets, strict=True)
                if not math.isnan(target)
            )

    before = likelihood()
    result = train(
        model,
        objective,
        terms,
        TrainingSettings(learning_rate=1e-3, warmup_ratio=0.0, log_every=1),
        reference="initial",
    )
    assert likelihood() > before
    assert result.history[0]["ratio"] == pytest.approx(1.0, abs=1e-4)
    if "kl_confidence" in options:
        with pytest.raises(GradatimError, match="do not record how sure the policy was"):
            train(model, objective, terms, TrainingSettings(), reference="tree")


@pytest.mark.parametrize(
    ("loss_type", "level", "options"),
    [
        ("grpo", "token", {"unit": "terms"}),
        ("bnpo", "token", {"unit": "tokens", "kl": 0.2, "kl_unbiased": False}),
        ("dapo", "token", {"unit": "tokens", "clip_high": 0.28, "kl": 0.2}),
        ("grpo", "sequence", {"unit": "terms", "ratio": "solution", "clip_low": 0.03, "clip_high": 0.04}),
    ],
)
def test_losses_and_gradients_equal_trls(loss_type: str, level: str, options: dict[str, Any], tmp_path: Any) -> None:
    model = tiny_model()
    tree = sampled_tree(model, 3, observations=False)
    source = random.Random(1)
    leaves = list(tree.leaves())
    advantages = [source.uniform(-1.5, 1.5) for _ in leaves]
    terms = [
        Term((Group(tuple(leaf.path()[1:]), targets=(given,) * leaf.depth),))
        for leaf, given in zip(leaves, advantages, strict=True)
    ]
    objective = PolicyGradient(**options)
    of = quantities(model, objective, terms)
    of = replace(of, reference=of.behaviour - 0.1)
    found, loss = objective.loss(of), total(objective, of)
    trainer = _trl_trainer(model, objective, loss_type, level, str(tmp_path))
    theirs = trainer._compute_loss(model, _trl_batch(leaves, advantages))
    assert float(loss.detach()) == pytest.approx(float(theirs.detach()), abs=1e-5)
    for one, other in zip(gradients(model, loss), gradients(model, theirs), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)
    if level == "token":
        clipped = float((found.metrics["clip_fraction"] * of.tokens()).sum() / of.tokens().sum())
        assert clipped == pytest.approx(trainer._metrics["eval"]["clip_ratio/region_mean"][-1], abs=1e-6)


def _trl_batch(leaves: list[Node], advantages: list[float]) -> dict[str, Any]:
    """What TRL's trainer is given: prompts of one length, completions padded on the right."""
    rows = [[token for node in leaf.path()[1:] for token in node.step.tokens] for leaf in leaves]
    recorded = [[value for node in leaf.path()[1:] for value in node.step.log_probabilities] for leaf in leaves]
    longest = max(map(len, rows))
    prompt = list(leaves[0].tree.root.step.tokens)
    padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    old = torch.tensor([row + [0.0] * (longest - len(row)) for row in recorded])
    mask = (torch.arange(longest)[None] < torch.tensor([[len(row)] for row in rows])).long()
    prompts = torch.tensor([prompt] * len(rows))
    return {
        "prompt_ids": prompts,
        "prompt_mask": torch.ones_like(prompts),
        "completion_ids": padded,
        "completion_mask": mask,
        "advantages": torch.tensor(advantages),
        "old_per_token_logps": old,
        "ref_per_token_logps": old - 0.1,
        "num_items_in_batch": mask.sum(),
    }


def _trl_trainer(model: Any, objective: PolicyGradient, loss_type: str, level: str, folder: str) -> Any:
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"t{i}": i for i in range(3, VOCABULARY)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, "<pad>")), pad_token="<pad>", eos_token="</s>"
    )
    assert objective.clip_low is not None
    assert objective.clip_high is not None
    arguments = GRPOConfig(
        output_dir=folder, loss_type=loss_type, importance_sampling_level=level, epsilon=objective.clip_low,
        epsilon_high=objective.clip_high, num_generations=2, per_device_train_batch_size=2, bf16=False, use_cpu=True,
        report_to="none", disable_tqdm=True, temperature=1.0, use_bias_correction_kl=objective.kl_unbiased,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model,
        lambda completions, **_: [0.0] * len(completions),
        arguments,
        train_dataset=Dataset.from_list([{"prompt": "t3"}]),
        processing_class=tokenizer,
    )
    trainer.beta = objective.kl  # after the start, which would load a reference model; the batch has its numbers
    trainer.model.eval()
    return trainer


def test_bad_input_is_refused_in_one_sentence() -> None:
    tree = random_tree(2)
    step, *_ = tree.nodes[1:]
    with pytest.raises(GradatimError, match="'policy_gradient' needs targets"):
        PolicyGradient().prepared(path_term(step))
    with pytest.raises(GradatimError, match="no advantage for any of its steps"):
        PolicyGradient().prepared(labelled_step(step, math.nan))
    with pytest.raises(GradatimError, match="advantages of whole solutions"):
        PolicyGradient(value=1.0).prepared(labelled_step(step, 0.5))
    with pytest.raises(GradatimError, match="advantages of whole solutions"):
        PolicyGradient(value=1.0).check(SiblingAdvantages())
    PolicyGradient(value=1.0).check(TrajectoryAdvantages())
    with pytest.raises(GradatimError, match="between 0 and 1"):
        PolicyGradient(value=1.0).prepared(Term((Group((step,), targets=(0.5,)),), targets=(1.5,)))
    with pytest.raises(GradatimError, match="kl"):
        PolicyGradient(kl=-1.0)
