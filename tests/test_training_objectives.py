from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForTokenClassification

from gradatim.engine.head_shape import HeadShape
from gradatim.engine.heads import attach_heads, head_values, heads_of
from gradatim.errors import GradatimError
from gradatim.objectives import (
    Dpo,
    Loss,
    Objective,
    ProcessReward,
    Quantities,
    Ranking,
    Sft,
    StepDpo,
    Svpo,
    Value,
    dpo_loss,
    judgement_loss,
)
from gradatim.supervision import Group, Term, labelled_step, pair, path_term
from gradatim.training.forward import measured, step_logits
from gradatim.training.rows import build_row
from gradatim.tree import Node, Tree
from training_models import CONFIGS, VOCABULARY, path_log_probabilities, random_tree, tiny_model

numbers = st.floats(-30, 0)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def sibling_pairs(tree: Tree) -> list[Term]:
    return [
        pair(node.children[0], other, (1.0, 1.0 - 0.05 * other.id), weight=1.0 + other.id % 3)
        for node in tree.nodes
        for other in node.children[1:]
    ]


def quantities(model: Any, objective: Objective, terms: list[Term]) -> Quantities:
    return measured(model, build_row([objective.prepared(term) for term in terms]), objective)


def of_groups(sides: list[tuple[float, float, int]], weights: list[float], targets: list[float]) -> Quantities:
    """Pairs of one step to a side and one token to a step, that stands for all of the step's."""
    sums = torch.tensor([row[:2] for row in sides], dtype=torch.float64)
    count = len(sides)
    return Quantities(
        token_step=torch.arange(count),
        lengths=torch.tensor([row[2] for row in sides]),
        step_of=torch.arange(count),
        group_of=torch.arange(count),
        step_weight=torch.ones(count, dtype=torch.float64),
        step_target=torch.full((count,), float("nan"), dtype=torch.float64),
        group_term=torch.arange(count // 2).repeat_interleave(2),
        target=torch.tensor(targets, dtype=torch.float64),
        weight=torch.tensor(weights, dtype=torch.float64),
        label_smoothing=torch.zeros(len(weights), dtype=torch.float64),
        log_probabilities=sums[:, 0],
        reference=sums[:, 1],
        behaviour=torch.zeros(0),
        heads={},
    )


def mean(objective: Objective, of: Quantities, found: Loss) -> torch.Tensor:
    """What the trainer minimizes."""
    return (of.weight * found.per_term).sum() / of.sizes(objective.unit).sum()


@settings(max_examples=50)
@given(
    st.lists(st.tuples(numbers, numbers, numbers, numbers, st.integers(1, 9), st.floats(0, 3)), min_size=1, max_size=6),
    st.floats(0.05, 1),
    st.floats(0, 0.49),
    st.floats(0, 2),
    st.floats(0, 2),
)
def test_preference_loss_equals_its_formula(
    rows: list[tuple[float, float, float, float, int, float]],
    beta: float,
    smoothing: float,
    nll: float,
    margin: float,
) -> None:
    objective = StepDpo(beta=beta, label_smoothing=smoothing, nll=nll, margin=margin)
    sides = [side for c, r, p, q, length, _ in rows for side in ((c, p, length), (r, q, 1))]
    weights = [row[5] + 0.1 for row in rows]
    of = of_groups(sides, weights, [target for i in range(len(rows)) for target in (float(i + 2), 2.0)])
    found = objective.loss(of)
    accuracy = (found.metrics["rewards/accuracies"] * of.weight).sum() / of.weight.sum()
    expected = total = right = 0.0
    for i, (chosen, rejected, first, second, length, extra) in enumerate(rows):
        advantage = beta * (chosen - first - rejected + second) - margin * i
        term = -(1 - smoothing) * math.log(sigmoid(advantage)) - smoothing * math.log(sigmoid(-advantage))
        expected += (extra + 0.1) * (term - nll * chosen / length)
        total += extra + 0.1
        right += (extra + 0.1) * (chosen - first > rejected - second)
    assert float(mean(objective, of, found)) == pytest.approx(expected / total, rel=1e-6, abs=1e-9)
    assert float(accuracy) == pytest.approx(right / total, abs=1e-6)


def test_a_pair_may_say_how_likely_it_is_the_wrong_way_round() -> None:
    """The objective's own smoothing is another reversal, independent of it."""
    of = of_groups([(-2.0, -1.5, 1), (-3.0, -2.5, 1), (-1.0, -2.0, 2), (-0.5, -0.2, 2)], [1.0, 1.0], [0.0] * 4)
    smoothed = replace(of, label_smoothing=torch.tensor([0.0, 0.3], dtype=torch.float64))
    first, second = (StepDpo(label_smoothing=each).loss(of).per_term for each in (0.1, 0.1 * 0.7 + 0.3 * 0.9))
    found = StepDpo(label_smoothing=0.1).loss(smoothed).per_term
    torch.testing.assert_close(found, torch.stack([first[0], second[1]]))
    tree = random_tree(4, nodes=16)
    term = replace(sibling_pairs(tree)[0], label_smoothing=0.25)
    assert build_row([term, *sibling_pairs(tree)[1:]]).label_smoothing.tolist()[:2] == [0.25, 0.0]
    with pytest.raises(GradatimError, match=r"between 0 and 0\.5"):
        replace(term, label_smoothing=0.6)
    with pytest.raises(GradatimError, match="'ranking' does not heed how likely a pair is the wrong way round"):
        Ranking().prepared(term)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(-20, 20), st.floats(0, 1)), min_size=1, max_size=8))
def test_judgement_losses_equal_their_formulas(rows: list[tuple[float, float]]) -> None:
    logits, labels = torch.tensor(rows, dtype=torch.float64).T
    expected = [-label * math.log(sigmoid(logit)) - (1 - label) * math.log(sigmoid(-logit)) for logit, label in rows]
    assert judgement_loss(logits, labels).tolist() == pytest.approx(expected, rel=1e-6)
    squares = [(sigmoid(logit) - label) ** 2 for logit, label in rows]
    assert judgement_loss(logits, labels, "squared").tolist() == pytest.approx(squares, rel=1e-6)


def test_sft_loss_is_the_mean_over_the_tokens_of_separate_texts() -> None:
    model, tree = tiny_model(), random_tree(2, nodes=14)
    leaves = list(tree.leaves())
    objective = Sft()
    of = quantities(model, objective, [path_term(leaf) for leaf in leaves])
    loss = mean(objective, of, objective.loss(of))
    texts = [path_log_probabilities(model, node) for leaf in leaves for node in leaf.path()[1:]]
    torch.testing.assert_close(loss, -torch.cat(texts).mean(), atol=1e-5, rtol=0)
    assert of.lengths.shape[0] < of.step_of.shape[0]  # steps that solutions share are measured once
    single = quantities(model, objective, [Term((Group((leaves[0],)),))])
    assert single.lengths.tolist() == [len(leaves[0].step.tokens)]


def test_steps_count_in_a_group_by_their_weights() -> None:
    model, tree = tiny_model(), random_tree(2, nodes=14)
    path = tuple(max(tree.leaves(), key=lambda leaf: leaf.depth).path()[1:])
    weights = tuple(0.5 - index for index in range(len(path)))
    of = quantities(model, Sft(), [Term((Group(path, weights),))])
    sums = [float(path_log_probabilities(model, node).detach().sum()) for node in path]
    expected = -sum(weight * value for weight, value in zip(weights, sums, strict=True))
    tokens = sum(abs(weight) * len(node.step.tokens) for weight, node in zip(weights, path, strict=True))
    assert float(mean(Sft(), of, Sft().loss(of)).detach()) == pytest.approx(expected / tokens, rel=1e-5)


def test_weights_of_both_signs_do_not_make_a_loss_explode() -> None:
    """Advantages among siblings sum to zero: divided by their sum, the loss would be anything."""
    objective, tree = Sft(), random_tree(2, nodes=14)
    nodes, weights = tree.nodes[1:5], (1.0, -1.0, 0.5, -0.5)
    terms = [Term((Group((node,)),), weight) for node, weight in zip(nodes, weights, strict=True)]
    of = quantities(tiny_model(), objective, terms)
    weighted = sum(w * -v for w, v in zip(weights, of.sums(of.log_probabilities).tolist(), strict=True))
    tokens = sum(abs(w) * len(node.step.tokens) for w, node in zip(weights, nodes, strict=True))
    assert float(mean(objective, of, objective.loss(of)).detach()) == pytest.approx(weighted / tokens, rel=1e-5)


def test_terms_of_different_numbers_of_groups_keep_their_groups() -> None:
    """Rows were cut into as many groups to a term as their mean has, whoever they were of."""
    tree = random_tree(4, nodes=16)
    one, two, three, *_ = tree.nodes[1:]
    single = Term((Group((one,)),))
    row = build_row([single, Term((Group((one,)), Group((two,)), Group((three,)))), Term((Group((two,)),))])
    assert row.group_term.tolist() == [0, 1, 1, 1, 2]
    lengths = row.groups(row.lengths)
    assert lengths.tolist() == [len(node.step.tokens) for node in (one, one, two, three, two)]
    assert [part.tolist() for part in row.lists(row.groups(row.lengths))] == [
        [len(node.step.tokens) for node in nodes] for nodes in ((one,), (one, two, three), (two,))
    ]
    of = measured(tiny_model(), row, StepDpo())
    for objective, said in ((StepDpo(), "learns from pairs"), (Sft(), "learns from single steps")):
        with pytest.raises(GradatimError, match=said):
            objective.loss(of)
    with pytest.raises(GradatimError, match="'step_dpo' learns from pairs, not from single steps or solutions"):
        StepDpo().prepared(single)


@pytest.mark.parametrize("objective", [Dpo(beta=0.3), StepDpo(beta=0.3)])
def test_pairs_read_the_right_log_probabilities(objective: Dpo | StepDpo) -> None:
    model, tree = tiny_model(), random_tree(4, nodes=16)
    pairs = sibling_pairs(tree)
    steps = quantities(model, objective, pairs)
    values = steps.pairs(steps.sums(steps.log_probabilities))
    references = steps.pairs(steps.sums(steps.reference))
    lengths = steps.pairs(steps.groups(steps.lengths))
    for i, term in enumerate(pairs):
        for side, node in enumerate(term.ends):
            nodes = node.path()[1:] if isinstance(objective, Dpo) else [node]
            expected = sum(path_log_probabilities(model, step).sum() for step in nodes)
            recorded = sum(sum(step.step.log_probabilities) for step in nodes)
            assert float(values[i, side].detach()) == pytest.approx(float(expected.detach()), abs=1e-4)
            assert float(references[i, side]) == pytest.approx(recorded, abs=1e-5)
            assert int(lengths[i, side]) == sum(len(step.step.tokens) for step in nodes)
    assert steps.weight.tolist() == [term.weight for term in pairs]


def test_step_dpo_compares_solutions_from_where_they_part() -> None:
    tree = random_tree(6, nodes=20)
    first, second = list(tree.leaves())[:2]
    whole_paths = Term((path_term(first).groups[0], path_term(second).groups[0]))
    chosen, rejected = StepDpo().prepared(whole_paths).groups
    shared = [node for node in first.path() if any(node is other for other in second.path())]
    assert list(chosen.nodes) == first.path()[len(shared) :]
    assert list(rejected.nodes) == second.path()[len(shared) :]
    step = StepDpo(beta=0.2).loss(quantities(tiny_model(), StepDpo(), [whole_paths])).per_term
    whole = Dpo(beta=0.2).loss(quantities(tiny_model(), Dpo(), [pair(first, second)])).per_term
    torch.testing.assert_close(step, whole, atol=1e-5, rtol=0)  # what both share cancels


@pytest.mark.parametrize("kind", [Dpo, StepDpo])
@pytest.mark.parametrize("nll", [0.0, 0.7])
def test_losses_equal_trls(kind: type[Dpo | StepDpo], nll: float, tmp_path: Any) -> None:
    """TRL averages the likelihood term over a batch's tokens; with one pair a batch that is the same."""
    model = tiny_model()
    tree = random_tree(7, nodes=14, observations=False)
    objective = kind(beta=0.4, nll=nll)
    pairs = [pair(*term.ends) for term in sibling_pairs(tree)]
    trl = _trl_trainer(model, pairs, whole=kind is Dpo, beta=0.4, nll=nll, folder=str(tmp_path))
    for term, inputs in zip(pairs, trl.get_eval_dataloader(trl.train_dataset), strict=True):
        steps = quantities(model, objective, [term])
        found = objective.loss(steps)
        with torch.no_grad():
            theirs = trl.compute_loss(trl.model, inputs)
        assert float(found.per_term.detach()) == pytest.approx(float(theirs), abs=1e-4)
        assert float(found.metrics["rewards/margins"]) == pytest.approx(
            trl._metrics["eval"]["rewards/margins"][-1], abs=1e-4
        )


def _trl_trainer(model: Any, pairs: list[Term], *, whole: bool, beta: float, nll: float, folder: str) -> Any:
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer

    class TokenizedDPOTrainer(DPOTrainer):
        def _prepare_dataset(self, dataset: Dataset, *arguments: Any) -> Dataset:
            return dataset

    def row(term: Term) -> dict[str, Any]:
        chosen, rejected = term.ends
        assert chosen.parent is not None
        prompt = chosen.tree.root.tokens if whole else chosen.parent.tokens
        side = {"chosen": chosen, "rejected": rejected}
        recorded: dict[str, list[Node]] = {k: node.path()[1:] if whole else [node] for k, node in side.items()}
        return (
            {"prompt_ids": prompt}
            | {f"{k}_ids": [t for n in nodes for t in n.step.tokens] for k, nodes in recorded.items()}
            | {f"ref_{k}_logps": sum(sum(n.step.log_probabilities) for n in nodes) for k, nodes in recorded.items()}
        )

    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"t{i}": i for i in range(3, VOCABULARY)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, "<pad>")), pad_token="<pad>", eos_token="</s>"
    )
    arguments = DPOConfig(
        output_dir=folder, beta=beta, loss_type=["sigmoid", "sft"] if nll else ["sigmoid"],
        loss_weights=[1.0, nll] if nll else None, per_device_eval_batch_size=1, bf16=False, use_cpu=True,
        max_length=None, report_to="none", disable_tqdm=True,
    )  # fmt: skip
    dataset = Dataset.from_list([row(term) for term in pairs])
    # The recorded log-probabilities are already in the rows; computing them first would overwrite them.
    trainer = TokenizedDPOTrainer(
        model, tiny_model(seed=1), arguments, train_dataset=dataset, processing_class=tokenizer
    )
    trainer.precompute_ref_logps = True
    trainer.model.eval()
    return trainer


def test_reward_logits_are_read_at_the_last_step_token() -> None:
    for labels in (1, 2):
        config = CONFIGS["llama"]()
        config.num_labels = labels
        model = AutoModelForTokenClassification.from_config(config).eval()
        tree = random_tree(9, nodes=10)
        row = build_row([labelled_step(node, 0.5) for node in tree.nodes[1:]])
        logits = step_logits(model, row)
        torch.testing.assert_close(measured(model, row, ProcessReward()).heads["score"], logits)
        for value, node in zip(logits, tree.nodes[1:], strict=True):
            assert node.parent is not None
            tokens = node.parent.tokens + list(node.step.tokens)  # without the observation that follows the step
            single = model(torch.tensor([tokens])).logits[0, -1]
            expected = single[0] if labels == 1 else single[1] - single[0]
            torch.testing.assert_close(value, expected, atol=1e-5, rtol=0)


def with_value_head(model: Any) -> Any:
    attach_heads(model, {"value": HeadShape()})
    torch.manual_seed(7)
    for parameter in heads_of(model)["value"].parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@torch.no_grad()
def values_alone(model: Any, node: Node) -> tuple[torch.Tensor, torch.Tensor]:
    """What the value head says at the end of a step and at the token before it, from the step's own path alone."""
    tokens = node.tokens[: len(node.tokens) - len(node.step.observation)]
    hidden = model.base_model(torch.tensor([tokens])).last_hidden_state[0]
    values = head_values(heads_of(model)["value"], hidden)
    return values[-1], values[-1 - len(node.step.tokens)]


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "gemma3"])
@pytest.mark.parametrize("objective", [Value(), Svpo()])
def test_packed_head_values_equal_those_of_each_path_alone(family: str, objective: Objective) -> None:
    model, trees = with_value_head(tiny_model(family)), [random_tree(seed, nodes=12) for seed in range(2)]
    nodes = [node for tree in trees for node in tree.nodes[1:]]
    row = build_row([labelled_step(node, 0.5) for node in nodes])
    of = measured(model, row, objective)
    for i, node in enumerate(nodes):
        at_end, before = values_alone(model, node)
        torch.testing.assert_close(of.heads["value"][i], at_end, atol=1e-5, rtol=0)
        torch.testing.assert_close(of.heads["before:value"][i], before, atol=1e-5, rtol=0)
    if objective.needs:  # one pass gives both
        single = torch.cat([path_log_probabilities(model, node) for node in nodes])
        torch.testing.assert_close(of.log_probabilities, single, atol=1e-5, rtol=0)


def test_values_are_learned_at_every_step_that_has_a_target() -> None:
    model, tree = with_value_head(tiny_model()), random_tree(2, nodes=14)
    leaf = max(tree.leaves(), key=lambda each: each.depth)
    path = tuple(leaf.path()[1:])
    some = tuple(0.25 if index % 2 else math.nan for index in range(len(path)))
    terms = [Term((Group(path, targets=some),), targets=(0.75,)), labelled_step(path[0], 1.0)]
    found = Value().loss(quantities(model, Value(), terms)).per_term.tolist()
    aimed = [0.75 if index == len(path) - 1 and target != target else target for index, target in enumerate(some)]
    squares = [
        (sigmoid(float(values_alone(model, node)[0])) - target) ** 2
        for node, target in zip(path, aimed, strict=True)
        if target == target
    ]
    first = (sigmoid(float(values_alone(model, path[0])[0])) - 1.0) ** 2
    assert found == pytest.approx([sum(squares) / len(squares), first], abs=1e-5)


@pytest.mark.parametrize("options", [{}, {"ranking": 0.0}, {"regression": 0.0, "gap": 0.9}, {"beta": 0.4, "nll": 0.2}])
def test_svpo_is_its_formula(options: dict[str, float]) -> None:
    """Against a slow computation, path by path."""
    model, tree = with_value_head(tiny_model()), random_tree(4, nodes=16)
    pairs, objective = sibling_pairs(tree), Svpo(**options)
    preference = StepDpo(beta=objective.beta, nll=objective.nll)
    expected = preference.loss(quantities(model, preference, pairs)).per_term
    found = objective.loss(quantities(model, objective, pairs))
    for i, term in enumerate(pairs):
        chosen, rejected = (sigmoid(float(values_alone(model, node)[0])) for node in term.ends)
        value = float(expected[i].detach()) + objective.ranking * max(0.0, objective.gap - (chosen - rejected))
        errors = [(v - q) ** 2 for v, q in zip((chosen, rejected), term.targets, strict=True)]
        assert float(found.per_term[i].detach()) == pytest.approx(
            value + objective.regression * sum(errors) / 2, abs=1e-5
        )
        assert float(found.metrics["values/accuracies"][i]) == float(chosen > rejected)


@pytest.mark.parametrize("objective", [Value(), Value(kind="cross_entropy"), Svpo(), StepDpo(nll=0.3, margin=0.5)])
def test_gradients_equal_finite_differences(objective: Objective) -> None:
    """By the quantities that a model gives, in float64."""
    of = of_groups(
        [(-2.0, -1.5, 3), (-3.0, -2.5, 1), (-1.0, -2.0, 2), (-0.5, -0.2, 2)], [1.5, -0.5], [0.9, 0.2, 0.6, 0.5]
    )

    def loss(log_probabilities: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        given = replace(of, log_probabilities=log_probabilities, heads={"value": values})
        return mean(objective, given, objective.loss(given))

    values = torch.tensor([0.3, -0.4, 1.2, 0.1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (of.log_probabilities.clone().requires_grad_(), values))


def test_bad_input_is_refused_in_one_sentence() -> None:
    first, second = random_tree(0), random_tree(1)
    with pytest.raises(GradatimError, match="two different trees"):
        StepDpo().prepared(pair(first.nodes[1], second.nodes[1]))
    with pytest.raises(GradatimError, match="its own path"):
        Dpo().prepared(pair(first.root, first.nodes[1]))
    with pytest.raises(GradatimError, match="between 0 and 1"):
        ProcessReward().prepared(labelled_step(first.nodes[1], 1.5))
    with pytest.raises(GradatimError, match="'value' needs targets"):
        Value().prepared(path_term(first.nodes[1]))
    siblings = sibling_pairs(random_tree(4, nodes=16))[0].ends
    for objective in (Svpo(), StepDpo(margin=1.0)):
        with pytest.raises(GradatimError, match="needs targets"):
            objective.prepared(pair(*siblings))
    with pytest.raises(GradatimError, match="2 steps has 1 weights"):
        Group((first.nodes[1], first.nodes[1]), weights=(1.0,))
    with pytest.raises(GradatimError, match="1 groups has 2 targets"):
        Term((Group((first.nodes[1],)),), targets=(1.0, 0.0))
    with pytest.raises(GradatimError, match="beta"):
        StepDpo(beta=0)
    with pytest.raises(GradatimError, match="label_smoothing"):
        Dpo(label_smoothing=0.5)
    with pytest.raises(ValueError, match="lengths"):
        dpo_loss(torch.zeros(1, 2), torch.zeros(1, 2), beta=0.1, nll=1.0)


@pytest.mark.parametrize("seed", range(4))
def test_tokens_by_member_are_those_of_each_steps_path(seed: int) -> None:
    tree = random_tree(seed)
    terms = [path_term(node) for node in tree.nodes[1:] if not node.children]
    row = build_row(terms)
    member, token = row.by_member()
    found: dict[int, list[int]] = {}
    for group, each in zip(row.group_of[member].tolist(), row.token_ids[token].tolist(), strict=True):
        found.setdefault(group, []).append(each)
    written = [[token for node in term.groups[0].nodes for token in node.step.tokens] for term in terms]
    assert [found.get(i, []) for i in range(len(terms))] == written
    lengths = row.lengths[row.step_of].double()
    assert row.by_term(lengths).tolist() == [len(tokens) for tokens in written]
