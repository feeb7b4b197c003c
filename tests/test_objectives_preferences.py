"""Losses that learn from preferences: against plain loops, their limits, finite differences, and TRL's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from gradatim.errors import GradatimError
from gradatim.objectives import (
    AdvantageCalibrated,
    Dpo,
    FullStepDpo,
    Ipo,
    Kto,
    Objective,
    PathContrast,
    Quantities,
    Sft,
    StepDpo,
    Tgdpo,
    Tpo,
    kto_loss,
    odds_ratio_loss,
)
from gradatim.objectives.kto import reference_points
from gradatim.supervision import Group, Term, labelled_step, pair, path_term
from gradatim.training.rows import build_row
from gradatim.tree import Node, Tree
from training_models import VOCABULARY, path_log_probabilities, random_tree, tiny_model


def log_sigmoid(value: float) -> float:
    return -math.log1p(math.exp(-value)) if value > -30 else value


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@dataclass(frozen=True)
class Said:
    """What an objective reads of a row in float64, and the same for each step's tokens as lists of numbers."""

    quantities: Quantities
    policy: dict[Node, list[float]]
    reference: dict[Node, list[float]]
    behaviour: dict[Node, list[float]]

    def ratio(self, nodes: Sequence[Node]) -> float:
        """The log-ratio of policy and reference over some steps."""
        return sum(sum(self.policy[node]) - sum(self.reference[node]) for node in nodes)

    def mean(self, nodes: Sequence[Node]) -> float:
        """The mean log-probability of a token of some steps."""
        return sum(sum(self.policy[node]) for node in nodes) / sum(len(self.policy[node]) for node in nodes)


def said(objective: Objective, terms: Sequence[Term], seed: int = 0) -> Said:
    """Random log-probabilities of three policies."""
    row = build_row([objective.prepared(term) for term in terms])
    source = torch.Generator().manual_seed(seed)
    drawn = [-torch.rand(len(row.token_ids), generator=source, dtype=torch.float64) for _ in range(3)]
    prepared = [objective.prepared(term) for term in terms]
    nodes = list(dict.fromkeys(node for term in prepared for group in term.groups for node in group.nodes))
    index = {name: of.double() if of.is_floating_point() else of for name, of in row.index().items()}
    quantities = Quantities(**index, log_probabilities=drawn[0], reference=drawn[1], behaviour=drawn[2], heads={})
    steps = [{node: of[row.token_step == i].tolist() for i, node in enumerate(nodes)} for of in drawn]
    return Said(quantities, *steps)


def sibling_pairs(tree: Tree) -> list[Term]:
    return [
        pair(node.children[0], other, (1.0, 1.0 - 0.05 * other.id))
        for node in tree.nodes
        for other in node.children[1:]
    ]


def solutions(tree: Tree, *, rewards: bool = False) -> list[Term]:
    """Every two of the first leaves, from the prompt on, the steps with rewards where asked for."""
    leaves = list(tree.leaves())[:4]

    def group(leaf: Node) -> Group:
        path = tuple(leaf.path()[1:])
        return Group(path, targets=tuple(node.id % 5 / 4 for node in path) if rewards else ())

    return [Term((group(one), group(other)), targets=(1.0, 0.0)) for one, other in combinations(leaves, 2)]


def rankings(tree: Tree) -> list[Term]:
    """The children of each step, and the leaves, with values of which some are equal."""
    families = [node.children for node in tree.nodes if len(node.children) > 1]
    ranked = [
        Term(
            tuple(Group((child,)) for child in family),
            targets=tuple(1 - place // 2 / 4 for place, _ in enumerate(family)),
        )
        for family in families
    ]
    leaves = list(tree.leaves())[:4]
    paths = tuple(path_term(leaf).groups[0] for leaf in leaves)
    weighted = tuple(Group(group.nodes, tuple(1.0 + 0.5 * (node.id % 2) for node in group.nodes)) for group in paths)
    return [*ranked, Term(weighted, targets=(1.0, 0.75, 0.75, 0.0)[: len(leaves)])]


TREES = [random_tree(seed, nodes=16) for seed in (4, 7)]
PAIRS = [term for tree in TREES for term in (*sibling_pairs(tree), *solutions(tree))]
REWARDED = [term for tree in TREES for term in solutions(tree, rewards=True)]
RANKINGS = [term for tree in TREES for term in rankings(tree)]
LABELS = [labelled_step(node, node.id % 3 / 2) for tree in TREES for node in tree.nodes[1:]]


def parted(term: Term) -> tuple[list[Node], list[Node]]:
    """The steps of both sides of a pair that the other has not."""
    one, other = (group.nodes for group in term.groups)
    return [node for node in one if node not in other], [node for node in other if node not in one]


def losses(objective: Objective, terms: Sequence[Term]) -> tuple[list[float], Said]:
    of = said(objective, terms)
    return objective.loss(of.quantities).per_term.tolist(), of


@pytest.mark.parametrize("per_token", [True, False])
def test_ipo_is_its_formula(per_token: bool) -> None:
    found, of = losses(Ipo(beta=0.3, per_token=per_token), PAIRS)
    for value, term in zip(found, PAIRS, strict=True):
        sides = parted(term)
        ratios = [of.ratio(side) / (sum(len(of.policy[node]) for node in side) if per_token else 1) for side in sides]
        assert value == pytest.approx((ratios[0] - ratios[1] - 1 / 0.6) ** 2)


def test_kto_is_its_formula_and_moves_its_reference_point_by_the_others() -> None:
    objective = Kto(beta=0.4, desirable_weight=1.5, undesirable_weight=0.5, threshold=0.6)
    terms = [*RANKINGS, *LABELS]
    found, of = losses(objective, terms)
    for value, term in zip(found, terms, strict=True):
        weights = [group.weights or (1.0,) * len(group.nodes) for group in term.groups]
        ratios = [
            sum(weight * of.ratio([node]) for node, weight in zip(group.nodes, own, strict=True))
            for group, own in zip(term.groups, weights, strict=True)
        ]
        expected = 0.0
        for place, (ratio, target) in enumerate(zip(ratios, term.targets, strict=True)):
            others = [each for i, each in enumerate(ratios) if i != place]
            point = sum(math.exp(each) * each for each in others) / sum(map(math.exp, others)) if others else 0.0
            above = 0.4 * (ratio - max(0.0, point))
            expected += 1.5 * (1 - sigmoid(above)) if target > 0.6 else 0.5 * (1 - sigmoid(-above))
        assert value == pytest.approx(expected / len(ratios))


def test_kto_estimates_the_divergence_of_the_policy_from_the_reference() -> None:
    """Of many steps that the reference drew, weighted, against the sum over all that it may draw."""
    source = torch.Generator().manual_seed(1)
    policy, reference = (torch.randn(6, generator=source).log_softmax(0) for _ in range(2))
    draws = torch.multinomial(reference.exp(), 4000, replacement=True, generator=source)
    ratios = (policy - reference)[draws]
    exact = float((policy.exp() * (policy - reference)).sum())
    assert float(reference_points(ratios[:2000])[0]) == pytest.approx(exact, abs=0.1)
    assert float(ratios.mean()) < 0 < exact, "unweighted they would estimate another divergence, negated"
    assert reference_points(torch.tensor([2.0])).tolist() == [0.0]


@pytest.mark.parametrize("sharpness", [0.0, 2.0])
def test_full_step_dpo_has_dpos_value_and_weighs_each_steps_gradient(sharpness: float) -> None:
    objective = FullStepDpo(beta=0.3, sharpness=sharpness)
    of = said(objective, REWARDED)
    tokens = of.quantities.log_probabilities.requires_grad_()
    per_term = objective.loss(of.quantities).per_term
    plain = Dpo(beta=0.3).loss(of.quantities).per_term
    torch.testing.assert_close(per_term, plain)
    row = build_row(REWARDED)
    steps = list(of.policy)
    for place, term in enumerate(REWARDED):
        (gradient,) = torch.autograd.grad(per_term[place], tokens, retain_graph=True)
        sides = [group.nodes for group in term.groups]
        coefficient = -0.3 * sigmoid(-0.3 * (of.ratio(sides[0]) - of.ratio(sides[1])))
        expected = dict.fromkeys(steps, 0.0)
        for sign, group in zip((1, -1), term.groups, strict=True):
            exponentials = [math.exp(sign * sharpness * reward) for reward in group.targets]
            for node, each in zip(group.nodes, exponentials, strict=True):
                expected[node] += sign * coefficient * len(group.nodes) * each / sum(exponentials)
        assert gradient.tolist() == pytest.approx([expected[steps[step]] for step in row.token_step.tolist()])
    if sharpness == 0:
        torch.testing.assert_close(*(torch.autograd.grad(each.sum(), tokens)[0] for each in (per_term, plain)))


def test_full_step_dpo_asks_for_a_reward_of_every_step() -> None:
    with pytest.raises(GradatimError, match="'full_step_dpo' needs a target for every step"):
        FullStepDpo().prepared(solutions(TREES[0])[0])
    first, second = REWARDED[0].groups
    unknown = replace(first, targets=(math.nan, *first.targets[1:]))
    with pytest.raises(GradatimError, match="has no reward to weigh it by"):
        FullStepDpo().prepared(Term((unknown, second)))


def ranked_rewards(of: Said, term: Term, beta: float) -> list[float]:
    return [
        beta * sum(weight * of.ratio([node]) for node, weight in zip(group.nodes, weights, strict=True))
        for group in term.groups
        for weights in [group.weights or (1.0,) * len(group.nodes)]
    ]


def test_tpo_is_the_plackett_luce_formula_with_ties() -> None:
    found, of = losses(Tpo(beta=0.7, ranking="plackett_luce"), RANKINGS)
    for value, term in zip(found, RANKINGS, strict=True):
        rewards = ranked_rewards(of, term, 0.7)
        expected = 0.0
        for own, target in zip(rewards, term.targets, strict=True):
            worse = [other for other, value in zip(rewards, term.targets, strict=True) if value < target]
            expected -= math.log(math.exp(own) / (math.exp(own) + sum(map(math.exp, worse))))
        assert value == pytest.approx(expected)


def test_tpo_is_the_lambda_loss() -> None:
    found, of = losses(Tpo(beta=0.7), RANKINGS)
    for value, term in zip(found, RANKINGS, strict=True):
        rewards, targets = ranked_rewards(of, term, 0.7), term.targets
        places = [1 + sum(other > own for other in rewards) for own in rewards]
        expected = 0.0
        for j, k in combinations(range(len(rewards)), 2):
            if targets[j] == targets[k]:
                continue
            j, k = (j, k) if targets[j] > targets[k] else (k, j)
            cost = abs(2 ** targets[j] - 2 ** targets[k])
            cost *= abs(1 / math.log2(1 + places[j]) - 1 / math.log2(1 + places[k]))
            expected -= cost * log_sigmoid(rewards[j] - rewards[k])
        assert value == pytest.approx(expected)


def test_tpo_of_pairs_is_dpo_and_weighted_by_the_gap() -> None:
    of = said(Dpo(beta=0.7), PAIRS).quantities
    plain = Dpo(beta=0.7).loss(of).per_term
    torch.testing.assert_close(Tpo(beta=0.7, ranking="plackett_luce").loss(of).per_term, plain)
    chosen, rejected = of.pairs(of.target).unbind(dim=1)
    factor = (chosen.exp2() - rejected.exp2()) * (1 - 1 / math.log2(3))
    torch.testing.assert_close(Tpo(beta=0.7).loss(of).per_term, factor * plain)
    with pytest.raises(GradatimError, match="'tpo' learns from pairs or rankings, not from single steps"):
        Tpo().prepared(LABELS[0])
    with pytest.raises(GradatimError, match="its own path"):
        Tpo().prepared(replace(pair(TREES[0].root, TREES[0].nodes[1]), targets=(1.0, 0.0)))


def test_path_contrast_is_its_formula_and_without_a_contrast_imitates() -> None:
    found, of = losses(PathContrast(contrast=0.8), PAIRS)
    for value, term in zip(found, PAIRS, strict=True):
        whole = term.ends[0].path()[1:]
        chances = [math.exp(of.mean(side)) for side in parted(term)]
        odds = [chance / (1 - chance) for chance in chances]
        assert value == pytest.approx(-of.mean(whole) - 0.8 * log_sigmoid(math.log(odds[0] / odds[1])))
    imitated = PathContrast(contrast=0.0).loss(of.quantities).per_term.tolist()
    assert imitated == pytest.approx([-of.mean(term.ends[0].path()[1:]) for term in PAIRS])
    single = said(Sft(), [path_term(PAIRS[-1].ends[0])]).quantities
    mean = Sft().loss(single).per_term / single.sizes("tokens")
    assert float(mean) == pytest.approx(float(-single.log_probabilities.mean()))


def test_certain_steps_have_finite_odds() -> None:
    zero = torch.zeros(1, requires_grad=True)
    loss = odds_ratio_loss(zero, torch.tensor([-0.5]))
    loss.backward()
    assert loss.isfinite()
    assert zero.grad is not None
    assert zero.grad.isfinite()


@pytest.mark.parametrize("guide", ["reference", "behaviour"])
def test_tgdpo_is_its_formula(guide: Any) -> None:
    found, of = losses(Tgdpo(beta=0.6, guidance=2.5, guide=guide), PAIRS)
    hints, held_to = (of.reference, of.behaviour) if guide == "reference" else (of.behaviour, of.reference)
    held = 0
    for value, term in zip(found, PAIRS, strict=True):
        compared = 0.0
        for sign, side in zip((1, -1), parted(term), strict=True):
            for node in side:
                for policy, hint, other in zip(of.policy[node], hints[node], held_to[node], strict=True):
                    factor = max(0.0, 1 + sign * 2.5 * 0.6 * (hint - other))
                    held += factor == 0
                    compared += sign * factor * (policy - other)
        assert value == pytest.approx(-log_sigmoid(0.6 * compared))
    assert held, "some token would have been pushed the wrong way"


def test_tgdpo_without_guidance_or_with_the_reference_as_guide_is_step_dpo() -> None:
    of = said(Tgdpo(), PAIRS).quantities
    same = replace(of, behaviour=of.reference)
    plain = StepDpo(beta=0.2).loss(same).per_term
    torch.testing.assert_close(Tgdpo(beta=0.2).loss(same).per_term, plain)
    torch.testing.assert_close(Tgdpo(beta=0.2, guidance=0.0, guide="behaviour").loss(of).per_term, plain)
    assert Tgdpo().needs == {"log_probabilities", "reference", "behaviour"}


def test_advantage_calibration_is_its_formula_and_without_a_gap_step_dpo() -> None:
    objective = AdvantageCalibrated(beta=0.5, relaxation=0.3)
    backwards = [replace(term, targets=term.targets[::-1]) for term in PAIRS]
    for terms in (PAIRS, backwards):
        found, of = losses(objective, terms)
        for value, term in zip(found, terms, strict=True):
            chosen, rejected = map(of.ratio, parted(term))
            factor = max(1.0, math.exp((term.targets[0] - term.targets[1]) / 0.3))
            assert value == pytest.approx(-log_sigmoid(0.5 * (chosen - factor * rejected)))
    of = said(objective, backwards)
    torch.testing.assert_close(objective.loss(of.quantities).per_term, StepDpo(beta=0.5).loss(of.quantities).per_term)


def test_a_margin_of_values_is_one_of_advantages() -> None:
    """Step-APO: what two siblings are worth differs by as much as their advantages, since their prefix is one."""
    node = next(node for node in TREES[0].nodes if len(node.children) > 1)
    chosen, rejected = node.children[:2]
    objective = StepDpo(margin=1.0)
    by_value, by_advantage = (
        said(objective, [pair(chosen, rejected, (0.75 - before, 0.25 - before))]).quantities for before in (0.0, 0.5)
    )
    differences = by_value.pairs(by_value.sums(by_value.log_probabilities - by_value.reference))
    expected = -log_sigmoid(0.1 * float(differences[0, 0] - differences[0, 1]) - 0.5)
    assert float(objective.loss(by_value).per_term) == pytest.approx(expected)
    torch.testing.assert_close(objective.loss(by_value).per_term, objective.loss(by_advantage).per_term)


@pytest.mark.parametrize(
    ("objective", "terms"),
    [
        (Ipo(beta=0.3), PAIRS),
        (Kto(beta=0.4), LABELS),
        (Tpo(beta=0.7), RANKINGS),
        (Tpo(beta=0.7, ranking="plackett_luce"), RANKINGS),
        (PathContrast(contrast=0.8), PAIRS),
        (Tgdpo(guide="behaviour", guidance=2.0), PAIRS),
        (AdvantageCalibrated(relaxation=0.3), PAIRS),
    ],
    ids=lambda each: type(each).__name__,
)
def test_gradients_equal_finite_differences(objective: Objective, terms: list[Term]) -> None:
    of = said(objective, terms[:6]).quantities

    def loss(log_probabilities: Tensor) -> Tensor:
        return objective.loss(replace(of, log_probabilities=log_probabilities)).per_term

    assert torch.autograd.gradcheck(loss, (of.log_probabilities.clone().requires_grad_(),))


def test_reference_points_have_no_gradient() -> None:
    of = said(Kto(), RANKINGS).quantities
    tokens = of.log_probabilities.requires_grad_()
    ratios = of.sums(tokens - of.reference)
    still = torch.cat(list(map(_points, of.lists(ratios))))
    count = of.terms(torch.ones_like(ratios))
    fixed = of.terms(kto_loss(ratios, of.target > 0.5, still, beta=0.1)) / count
    own = Kto().loss(of).per_term
    torch.testing.assert_close(
        *(torch.autograd.grad(each.sum(), tokens, retain_graph=True)[0] for each in (own, fixed))
    )


def _points(ratios: Tensor) -> Tensor:
    values = ratios.tolist()
    found = []
    for place in range(len(values)):
        others = [each for i, each in enumerate(values) if i != place]
        found.append(max(0.0, sum(math.exp(each) * each for each in others) / sum(map(math.exp, others))))
    return torch.tensor(found, dtype=ratios.dtype)


# TRL's own losses


def read_alone(objective: Objective, terms: Sequence[Term], model: Any, reference: Any) -> Quantities:
    """What two models say of the terms' steps, each step from its own path."""
    row = build_row([objective.prepared(term) for term in terms])
    prepared = [objective.prepared(term) for term in terms]
    nodes = list(dict.fromkeys(node for term in prepared for group in term.groups for node in group.nodes))
    with torch.no_grad():
        policy, other = (
            torch.cat([path_log_probabilities(each, node) for node in nodes]) for each in (model, reference)
        )
    return Quantities(**row.index(), log_probabilities=policy, reference=other, behaviour=policy[:0], heads={})


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"t{i}": i for i in range(3, VOCABULARY)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, "<pad>")), pad_token="<pad>", eos_token="</s>"
    )


def trl_trainer(kind: Any, config: Any, rows: list[dict[str, Any]], folder: Any, **options: Any) -> Any:
    """TRL's trainer on rows that are tokens already, with two tiny models."""
    from datasets import Dataset

    class Tokenized(kind):  # type: ignore[misc, valid-type]
        def _prepare_dataset(self, dataset: Any, *arguments: Any, **named: Any) -> Any:
            return dataset

    arguments = config(
        output_dir=str(folder), bf16=False, use_cpu=True, max_length=None, report_to="none", disable_tqdm=True,
        per_device_train_batch_size=len(rows), per_device_eval_batch_size=len(rows), **options,
    )  # fmt: skip
    trainer = Tokenized(
        tiny_model(), tiny_model(seed=1), arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer()
    )
    trainer.model.eval()
    return trainer


def test_ipo_equals_trls(tmp_path: Any) -> None:
    from trl import DPOConfig, DPOTrainer

    tree = random_tree(7, nodes=14, observations=False)
    terms = sibling_pairs(tree)
    rows = []
    for chosen, rejected in (term.ends for term in terms):
        assert chosen.parent is not None
        sides = {"chosen_ids": list(chosen.step.tokens), "rejected_ids": list(rejected.step.tokens)}
        rows.append({"prompt_ids": chosen.parent.tokens, **sides})
    trainer = trl_trainer(DPOTrainer, DPOConfig, rows, tmp_path, beta=0.3, loss_type=["ipo"])
    with torch.no_grad():
        theirs = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    of = read_alone(Ipo(beta=0.3), terms, tiny_model(), tiny_model(seed=1))
    assert float(Ipo(beta=0.3).loss(of).per_term.mean()) == pytest.approx(float(theirs), abs=1e-4)


@pytest.mark.parametrize("kind", ["kto", "apo_zero_unpaired"])
def test_kto_equals_trls(kind: str, tmp_path: Any) -> None:
    """With TRL's reference point, made of completions behind others' prompts, where it has one."""
    from trl import KTOConfig, KTOTrainer

    model, reference = tiny_model(), tiny_model(seed=1)
    nodes = random_tree(7, nodes=14, observations=False).nodes[1:9]
    rows: list[dict[str, Any]] = []
    for place, node in enumerate(nodes):
        assert node.parent is not None
        rows.append(
            {
                "prompt_ids": node.parent.tokens,
                "completion_ids": list(node.step.tokens),
                "KL_completion_ids": list(nodes[place - 1].step.tokens),
                "label": node.id % 3 > 0,
            }
        )
    weights = {"desirable_weight": 1.5, "undesirable_weight": 0.7}
    trainer = trl_trainer(KTOTrainer, KTOConfig, rows, tmp_path, beta=0.4, loss_type=kind, **weights)
    with torch.no_grad():
        theirs = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    objective = Kto(beta=0.4, **weights)
    of = read_alone(objective, [labelled_step(node, float(node.id % 3 > 0)) for node in nodes], model, reference)
    if kind == "apo_zero_unpaired":
        assert float(objective.loss(of).per_term.mean()) == pytest.approx(float(theirs), abs=1e-5)
        return
    mismatched = []
    for row in rows:
        ids = torch.tensor([row["prompt_ids"] + row["KL_completion_ids"]])
        start = len(row["prompt_ids"])
        with torch.no_grad():
            said_of = [
                torch.log_softmax(each(ids).logits[0].float(), -1)[start - 1 : -1]
                .gather(-1, ids[0, start:, None])
                .sum()
                for each in (model, reference)
            ]
        mismatched.append(said_of[0] - said_of[1])
    ratios, desirable = of.sums(of.log_probabilities - of.reference), of.target > 0.5
    point = torch.stack(mismatched).mean().clamp(min=0)
    ours = kto_loss(ratios, desirable, point, beta=0.4, **weights)
    assert float(ours.mean()) == pytest.approx(float(theirs), abs=1e-5)


def test_the_contrast_equals_trls_odds_ratio() -> None:
    from trl.experimental.orpo import ORPOTrainer

    source = torch.Generator().manual_seed(0)
    chosen, rejected = (-3 * torch.rand(9, generator=source) for _ in range(2))
    stand_in: Any = SimpleNamespace(beta=1.0, accelerator=SimpleNamespace(device="cpu"))
    theirs = ORPOTrainer.odds_ratio_loss(stand_in, chosen, rejected)[0]
    torch.testing.assert_close(odds_ratio_loss(chosen, rejected), -theirs)
