"""Training round by round: the same updates as a trainer's, and the same ones after a stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gradatim.engine.heads import heads_of
from gradatim.errors import GradatimError
from gradatim.objectives import Dpo, Objective, Sft, StepDpo, Svpo
from gradatim.supervision import Term, path_term
from gradatim.training import LoraSettings, TrainingOptions, TrainingSettings, train
from gradatim.training.learner import Learner, LearnerState
from gradatim.tree import Tree
from test_training_trainer import record, sibling_pairs, weights_of
from training_models import random_tree, tiny_model

FAST = TrainingOptions(learning_rate=5e-3, warmup_ratio=0.0, tokens_per_batch=60)
LORA = LoraSettings(rank=2)


def forest(number: int = 0) -> list[Tree]:
    return record(tiny_model(), [random_tree(10 * number + seed, nodes=8) for seed in range(4)])


def terms_of(objective: Objective, trees: list[Tree]) -> list[Term]:
    if objective.groups == 1:
        return [path_term(leaf) for tree in trees for leaf in tree.leaves()]
    return sibling_pairs(trees)


@pytest.mark.parametrize("objective", [Sft(), StepDpo(beta=0.5), Svpo()])
@pytest.mark.parametrize("lora", [None, LORA])
def test_a_round_of_one_update_is_a_trainers(objective: Objective, lora: LoraSettings | None) -> None:
    terms, options = terms_of(objective, forest()), replace(FAST, lora=lora)
    torch.manual_seed(0)
    learner = Learner(tiny_model(), objective, options, rounds=1, reference="initial")
    learned = learner.learn(terms, 1)
    settings = TrainingSettings(
        learning_rate=5e-3,
        warmup_ratio=0.0,
        tokens_per_batch=60,
        lora=lora,
        gradient_accumulation_steps=99,
        log_every=1,
    )
    torch.manual_seed(0)
    result = train(tiny_model(), objective, terms, settings, reference="initial")
    entry = result.history[-1]
    assert learned.updates == result.updates == 1
    assert learned.loss == pytest.approx(entry["loss"], rel=1e-4)
    assert learned.gradient_norm == pytest.approx(entry["grad_norm"], rel=1e-4)
    assert learned.learning_rate == pytest.approx(entry["learning_rate"])
    for name, value in learned.metrics.items():
        assert value == pytest.approx(entry[name], abs=1e-4)
    torch.testing.assert_close(weights_of(learner.model), weights_of(result.model), atol=2e-4, rtol=0)


def test_the_schedule_spans_all_rounds_and_a_round_that_is_left_out_keeps_its_place() -> None:
    options = replace(FAST, warmup_ratio=0.25, epochs=2)
    rates = {}
    for rounds in ((1, 2, 3, 4), (1, 4)):
        learner = Learner(tiny_model(), Sft(), options, rounds=4, updates=2)
        for number in rounds:
            learned = learner.learn(terms_of(Sft(), forest(number)), number)
            assert learned.updates == 4
            rates[rounds, number] = learned.learning_rate
    assert rates[(1, 2, 3, 4), 4] == rates[(1, 4), 4]
    first, second, *_, last = (rates[(1, 2, 3, 4), number] for number in (1, 2, 3, 4))
    assert last < second < FAST.learning_rate
    assert first == pytest.approx(0.75 * FAST.learning_rate)  # after three of four updates of the warm-up


@pytest.mark.parametrize("lora", [None, LORA])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_learner_goes_on_from_its_state_as_if_it_had_never_stopped(
    lora: LoraSettings | None, dtype: torch.dtype, tmp_path: Path
) -> None:
    """Adapters with dropout included: what is drawn depends on the round alone."""
    options = replace(FAST, epochs=2, lora=lora and replace(lora, dropout=0.2))
    terms = [terms_of(StepDpo(), forest(number)) for number in range(4)]

    def learner() -> Learner:
        torch.manual_seed(0)
        return Learner(tiny_model(), StepDpo(), options, rounds=4, updates=2, reference="initial", dtype=dtype)

    whole = learner()
    for number in range(1, 5):
        last = whole.learn(terms[number - 1], number)
        if number == 2:
            whole.state().write(tmp_path, "policy")
    other = learner()
    other.restore(LearnerState.read(tmp_path, "policy"))
    for number in (3, 4):
        again = other.learn(terms[number - 1], number)
    assert again == last
    assert torch.equal(weights_of(other.model), weights_of(whole.model))
    for name, value in whole.state().weights.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, other.state().weights[name])


def test_updates_below_the_precision_that_the_model_runs_in_add_up() -> None:
    terms = terms_of(Sft(), forest())
    learner = Learner(tiny_model(), Sft(), replace(FAST, learning_rate=1e-5), rounds=40, dtype=torch.bfloat16)
    before = weights_of(learner.model)
    learner.learn(terms, 1)
    moved = (weights_of(learner.model) != before).float().mean()
    for number in range(2, 40):
        learner.learn(terms, number)
    assert (weights_of(learner.model) != before).float().mean() > 2 * moved
    assert {each.dtype for each in learner.model.parameters()} == {torch.bfloat16}
    assert {each.dtype for each in learner.finished().parameters()} == {torch.float32}


def test_adapters_stay_on_the_model_and_are_merged_in_the_end() -> None:
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learner = Learner(model, Svpo(), replace(FAST, lora=LORA), rounds=2, reference="initial")
    for number in (1, 2):
        learner.learn(sibling_pairs(forest(number)), number)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        adapted = model(input_ids=ids).logits  # the model itself runs with its adapters
        assert not torch.allclose(adapted, tiny_model()(input_ids=ids).logits, atol=1e-4)
        merged = learner.finished()
        torch.testing.assert_close(merged(input_ids=ids).logits, adapted, atol=1e-5, rtol=1e-4)
    assert set(heads_of(merged)) == {"value"}
    assert before.keys() <= merged.state_dict().keys()


@pytest.mark.parametrize("lora", [None, LORA])
def test_the_reference_is_the_model_before_the_first_round(lora: LoraSettings | None) -> None:
    pairs = sibling_pairs(forest())  # whose recorded log-probabilities are those of that model
    initial, recorded = (
        Learner(tiny_model(), Dpo(), replace(FAST, lora=lora), rounds=3, reference=reference)
        for reference in ("initial", "tree")
    )
    for learner in (initial, recorded):
        assert learner.learn(pairs, 1).metrics["rewards/margins"] == pytest.approx(0.0, abs=1e-5)
    if lora is None:  # adapters are drawn anew for each
        recorded.restore(initial.state())
        margins = [learner.learn(pairs, 2).metrics["rewards/margins"] for learner in (initial, recorded)]
        assert margins[0] == pytest.approx(margins[1], rel=1e-3)
    else:
        margins = [initial.learn(pairs, 2).metrics["rewards/margins"]]
    assert margins[0] > 1e-3


def test_a_loss_that_is_no_number_ends_the_round_and_keeps_the_weights() -> None:
    trees = forest()
    learner = Learner(tiny_model(), Sft(), FAST, rounds=1)
    before = weights_of(learner.model)
    for parameter in learner.model.parameters():
        parameter.data.mul_(float("inf"))
    with pytest.raises(GradatimError, match="not a finite number"):
        learner.learn(terms_of(Sft(), trees), 1)
    assert before.shape == weights_of(learner.model).shape
    assert not learner.model.training
