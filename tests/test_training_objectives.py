from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForTokenClassification

from gradatim.errors import GradatimError
from gradatim.objectives import (
    Dpo,
    Loss,
    Objective,
    ProcessReward,
    Quantities,
    StepDpo,
    SupervisedFineTuning,
    dpo_loss,
    process_reward_loss,
    term_sizes,
)
from gradatim.objectives.dpo import PairObjective
from gradatim.supervision.labels import StepLabel
from gradatim.supervision.pairs import StepPair
from gradatim.supervision.terms import Example
from gradatim.training.examples import TrainingRow, build_row
from gradatim.training.forward import step_logits, token_log_probabilities
from gradatim.tree import Node, Tree
from training_models import CONFIGS, VOCABULARY, path_log_probabilities, random_tree, tiny_model

numbers = st.floats(-30, 0)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def sibling_pairs(tree: Tree) -> list[StepPair]:
    return [
        StepPair(node.children[0], other, weight=1.0 + other.id % 3, margin=0.1 * other.id)
        for node in tree.nodes
        for other in node.children[1:]
    ]


def measured(model: Any, row: TrainingRow) -> Quantities:
    values = row.sum_groups(token_log_probabilities(model, row))
    return Quantities(values, row.sum_groups(row.reference), row.lengths, row.group_term, row.weights, row.targets)


def quantities(model: Any, objective: PairObjective, pairs: list[StepPair]) -> Quantities:
    return measured(model, build_row(objective.examples(pairs)))


def mean(objective: Objective, of: Quantities, found: Loss) -> torch.Tensor:
    """What the trainer minimizes."""
    sizes = term_sizes(objective, of.lengths, of.group_term, of.weights)
    return (of.weights * found.per_term).sum() / sizes.sum()


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
    objective = StepDpo(beta=beta, label_smoothing=smoothing, nll_coefficient=nll, margin_coefficient=margin)
    table = torch.tensor([row[:4] for row in rows], dtype=torch.float64)
    lengths = torch.tensor([[row[4], 1] for row in rows])
    weights = torch.tensor([row[5] + 0.1 for row in rows], dtype=torch.float64)
    targets = torch.arange(len(rows), dtype=torch.float64)
    terms = torch.arange(len(rows)).repeat_interleave(2)
    of = Quantities(table[:, :2].flatten(), table[:, 2:].flatten(), lengths.flatten(), terms, weights, targets)
    found = objective.loss(of)
    accuracy = (found.metrics["rewards/accuracies"] * weights).sum() / weights.sum()
    expected = total = right = 0.0
    for i, (chosen, rejected, first, second, length, extra) in enumerate(rows):
        advantage = beta * (chosen - first - rejected + second) - margin * i
        term = -(1 - smoothing) * math.log(sigmoid(advantage)) - smoothing * math.log(sigmoid(-advantage))
        expected += (extra + 0.1) * (term - nll * chosen / length)
        total += extra + 0.1
        right += (extra + 0.1) * (chosen - first > rejected - second)
    assert float(mean(objective, of, found)) == pytest.approx(expected / total, rel=1e-6, abs=1e-9)
    assert float(accuracy) == pytest.approx(right / total, abs=1e-6)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(-20, 20), st.floats(0, 1)), min_size=1, max_size=8))
def test_process_reward_loss_equals_its_formula(rows: list[tuple[float, float]]) -> None:
    logits, labels = torch.tensor(rows, dtype=torch.float64).T
    expected = [-label * math.log(sigmoid(logit)) - (1 - label) * math.log(sigmoid(-logit)) for logit, label in rows]
    assert process_reward_loss(logits, labels).tolist() == pytest.approx(expected, rel=1e-6)


def test_sft_loss_is_the_mean_over_the_tokens_of_separate_texts() -> None:
    model, tree = tiny_model(), random_tree(2, nodes=14)
    leaves = list(tree.leaves())
    objective = SupervisedFineTuning()
    row = build_row(objective.examples(leaves))
    of = measured(model, row)
    loss = mean(objective, of, objective.loss(of))
    texts = [path_log_probabilities(model, node) for leaf in leaves for node in leaf.path()[1:]]
    torch.testing.assert_close(loss, -torch.cat(texts).mean(), atol=1e-5, rtol=0)
    single = build_row(objective.examples(leaves[:1], whole_paths=False))
    assert single.lengths.tolist() == [len(leaves[0].step.tokens)]
    two = Quantities(
        torch.tensor([-2.0, -4.0]), torch.zeros(2), torch.tensor([1, 3]), torch.arange(2), torch.ones(2), torch.zeros(2)
    )
    assert float(mean(objective, two, objective.loss(two))) == pytest.approx(1.5)


def test_weights_of_both_signs_do_not_make_a_loss_explode() -> None:
    """Advantages among siblings sum to zero: divided by their sum, the loss would be anything."""
    objective, tree = SupervisedFineTuning(), random_tree(2, nodes=14)
    nodes = tree.nodes[1:5]
    row = build_row([Example(((node,),), weight) for node, weight in zip(nodes, (1.0, -1.0, 0.5, -0.5), strict=True)])
    of = measured(tiny_model(), row)
    weighted = sum(w * -v for w, v in zip((1.0, -1.0, 0.5, -0.5), of.values.tolist(), strict=True))
    tokens = sum(w * len(node.step.tokens) for w, node in zip((1.0, 1.0, 0.5, 0.5), nodes, strict=True))
    assert float(mean(objective, of, objective.loss(of)).detach()) == pytest.approx(weighted / tokens, rel=1e-5)


def test_terms_of_different_numbers_of_groups_keep_their_groups() -> None:
    """Rows were cut into as many groups to a term as their mean has, whoever they were of."""
    tree = random_tree(4, nodes=16)
    one, two, three, *_ = tree.nodes[1:]
    row = build_row([Example(((one,),)), Example(((one,), (two,), (three,))), Example(((two,),))])
    assert row.group_term.tolist() == [0, 1, 1, 1, 2]
    assert row.lengths.tolist() == [len(node.step.tokens) for node in (one, one, two, three, two)]
    of = measured(tiny_model(), row)
    for objective, said in ((StepDpo(), "learns from pairs"), (SupervisedFineTuning(), "learns from one step")):
        with pytest.raises(GradatimError, match=said):
            objective.loss(of)


@pytest.mark.parametrize("objective", [Dpo(beta=0.3), StepDpo(beta=0.3)])
def test_pairs_read_the_right_log_probabilities(objective: Dpo | StepDpo) -> None:
    model, tree = tiny_model(), random_tree(4, nodes=16)
    pairs = sibling_pairs(tree)
    steps = quantities(model, objective, pairs)
    values, references, lengths = map(steps.pairs, (steps.values, steps.reference, steps.lengths))
    for i, pair in enumerate(pairs):
        for side, node in enumerate((pair.chosen, pair.rejected)):
            nodes = node.path()[1:] if isinstance(objective, Dpo) else [node]
            expected = sum(path_log_probabilities(model, step).sum() for step in nodes)
            recorded = sum(sum(step.step.log_probabilities) for step in nodes)
            assert float(values[i, side].detach()) == pytest.approx(float(expected.detach()), abs=1e-4)
            assert float(references[i, side]) == pytest.approx(recorded, abs=1e-5)
            assert int(lengths[i, side]) == sum(len(step.step.tokens) for step in nodes)
    assert steps.weights.tolist() == [pair.weight for pair in pairs]


def test_step_dpo_compares_solutions_from_where_they_part() -> None:
    tree = random_tree(6, nodes=20)
    first, second = list(tree.leaves())[:2]
    chosen, rejected = StepDpo().examples([StepPair(first, second)])[0].groups
    shared = [node for node in first.path() if any(node is other for other in second.path())]
    assert list(chosen) == first.path()[len(shared) :]
    assert list(rejected) == second.path()[len(shared) :]
    step = StepDpo(beta=0.2).loss(quantities(tiny_model(), StepDpo(), [StepPair(first, second)])).per_term
    whole = Dpo(beta=0.2).loss(quantities(tiny_model(), Dpo(), [StepPair(first, second)])).per_term
    torch.testing.assert_close(step, whole, atol=1e-5, rtol=0)  # what both share cancels


@pytest.mark.parametrize("kind", [Dpo, StepDpo])
@pytest.mark.parametrize("nll", [0.0, 0.7])
def test_losses_equal_trls(kind: type[Dpo | StepDpo], nll: float, tmp_path: Any) -> None:
    """TRL averages the likelihood term over a batch's tokens; with one pair a batch that is the same."""
    model = tiny_model()
    tree = random_tree(7, nodes=14, observations=False)
    objective = kind(beta=0.4, nll_coefficient=nll)
    pairs = [StepPair(pair.chosen, pair.rejected) for pair in sibling_pairs(tree)]
    trl = _trl_trainer(model, pairs, whole=kind is Dpo, beta=0.4, nll=nll, folder=str(tmp_path))
    for pair, inputs in zip(pairs, trl.get_eval_dataloader(trl.train_dataset), strict=True):
        steps = quantities(model, objective, [pair])
        found = objective.loss(steps)
        with torch.no_grad():
            theirs = trl.compute_loss(trl.model, inputs)
        assert float(found.per_term.detach()) == pytest.approx(float(theirs), abs=1e-4)
        assert float(found.metrics["rewards/margins"]) == pytest.approx(
            trl._metrics["eval"]["rewards/margins"][-1], abs=1e-4
        )


def _trl_trainer(model: Any, pairs: list[StepPair], *, whole: bool, beta: float, nll: float, folder: str) -> Any:
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer

    class TokenizedDPOTrainer(DPOTrainer):
        def _prepare_dataset(self, dataset: Dataset, *arguments: Any) -> Dataset:
            return dataset

    def row(pair: StepPair) -> dict[str, Any]:
        assert pair.chosen.parent is not None
        prompt = pair.chosen.tree.root.tokens if whole else pair.chosen.parent.tokens
        side = {"chosen": pair.chosen, "rejected": pair.rejected}
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
    dataset = Dataset.from_list([row(pair) for pair in pairs])
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
        row = build_row(ProcessReward().examples([StepLabel(node, 0.5) for node in tree.nodes[1:]]))
        logits = step_logits(model, row)
        for value, node in zip(logits, tree.nodes[1:], strict=True):
            assert node.parent is not None
            tokens = node.parent.tokens + list(node.step.tokens)  # without the observation that follows the step
            single = model(torch.tensor([tokens])).logits[0, -1]
            expected = single[0] if labels == 1 else single[1] - single[0]
            torch.testing.assert_close(value, expected, atol=1e-5, rtol=0)


def test_bad_input_is_refused_in_one_sentence() -> None:
    first, second = random_tree(0), random_tree(1)
    with pytest.raises(GradatimError, match="two different trees"):
        StepDpo().examples([StepPair(first.nodes[1], second.nodes[1])])
    with pytest.raises(GradatimError, match="its own path"):
        Dpo().examples([StepPair(first.root, first.nodes[1])])
    with pytest.raises(GradatimError, match="between 0 and 1"):
        ProcessReward().examples([StepLabel(first.nodes[1], 1.5)])
    with pytest.raises(GradatimError, match="beta"):
        StepDpo(beta=0)
    with pytest.raises(GradatimError, match="label_smoothing"):
        Dpo(label_smoothing=0.5)
    with pytest.raises(ValueError, match="lengths"):
        dpo_loss(torch.zeros(1, 2), torch.zeros(1, 2), beta=0.1, nll_coefficient=1.0)
