"""What is done and checked before a model learns: its heads and adapters, and terms and rows that it can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from gradatim.engine.heads import attach_heads, heads_of
from gradatim.engine.path_length import longest_path
from gradatim.engine.query_scale import longest_row
from gradatim.errors import GradatimError
from gradatim.objectives.base import Objective
from gradatim.supervision.terms import Term
from gradatim.training.adapters import add_adapters
from gradatim.training.attention import check_attention
from gradatim.training.forward import is_token_classifier
from gradatim.training.reference import Reference
from gradatim.training.rows import TrainingRow
from gradatim.training.settings import LoraSettings


def prepared_model(model: Any, objective: Objective, lora: LoraSettings | None) -> tuple[Any, list[nn.Parameter]]:
    """A model as it is trained by an objective, with the heads that it reads and with adapters where some are asked
    for; what learns is what requires gradients.

    Args:
        model: a causal language model, or a token classification model; all of it requires gradients.
        objective: the loss.
        lora: the adapters.

    Returns:
        The model, or the adapters around it; and the weights that are held still while heads alone are trained.

    Raises:
        GradatimError: if a policy or scorer runs the model, or it lacks the modules that adapters are asked for.
    """
    check_attention(model.config)
    if not is_token_classifier(model):
        attach_heads(model, objective.heads)
    if lora is not None:
        objective.check_adapters()
    held = [each for each in model.parameters() if each.requires_grad] if objective.heads_only else []
    for parameter in held:
        parameter.requires_grad_(False)
    for name, head in heads_of(model).items():
        head.requires_grad_(name in objective.heads)
    return (model if lora is None else add_adapters(model, lora, heads=objective.heads)), held


def check_heads(model: Any, objective: Objective) -> None:
    """Refuse a model that lacks what the objective reads.

    Raises:
        GradatimError: if it does.
    """
    if is_token_classifier(model):
        missing = set(objective.heads) - {"score"} or objective.needs
        if missing:
            raise GradatimError(
                "a token classification model judges tokens and gives no log-probabilities or values; train a causal "
                "language model by this objective"
            )
    elif lacking := [name for name in objective.heads if name not in heads_of(model)]:
        raise GradatimError(
            f"the model lacks the head {lacking[0]!r}, which the objective reads; attach it "
            "(gradatim.engine.heads.attach_heads) or load a model that has it"
        )


def prepared_terms(model: Any, objective: Objective, terms: Sequence[Term]) -> tuple[list[Term], int]:
    """The terms as the loss reads them, but those whose paths are longer than the model reads, and how many those are.

    Raises:
        GradatimError: if the objective cannot learn from a term.
    """
    limit = longest_path(model.config)
    prepared = [objective.prepared(term) for term in terms]
    kept = [term for term in prepared if all(len(node.tokens_before_observation) <= limit for node in term.ends)]
    return kept, len(terms) - len(kept)


def left_out(model: Any, count: int, terms: int) -> str:
    """That so many of the terms are left out, and why."""
    return (
        f"{count:,} of {terms:,} training examples are left out, since their solutions are longer than the "
        f"{longest_path(model.config):,} tokens that the model reads at most"
    )


def check_fit(model: Any, rows: Sequence[TrainingRow]) -> None:
    """Refuse rows that the model cannot read.

    Raises:
        GradatimError: if they are in another tokenizer's tokens, or too long for how the model scales its attention.
    """
    config = model.config.get_text_config()
    largest = max(int(row.input_ids.max()) for row in rows)
    if largest >= config.vocab_size:
        raise GradatimError(
            f"the trees contain token id {largest} but the model knows only {config.vocab_size} tokens; train the "
            "model that the trees were grown with, or one with the same tokenizer"
        )
    most = longest_row(config)
    if most is not None and max(row.input_ids.shape[0] for row in rows) > most:
        raise GradatimError(
            f"a packed row is longer than {most} tokens, from where on {config.model_type!r} models scale their "
            "attention by the place in the row; make tokens_per_row (tokens_per_batch) smaller and leave longer paths "
            "out"
        )


def check_recorded(
    rows: Sequence[TrainingRow], terms: Sequence[Term], objective: Objective, reference: Reference
) -> None:
    """Refuse trees that did not record what an objective reads of them: the log-probabilities of the reference, where
    the trees are that, and of the policy that sampled them.

    Raises:
        GradatimError: if so.
    """
    if "reference" in objective.needs and reference == "tree":
        _check_one_source(terms)
        if any(bool(row.reference.isnan().any()) for row in rows):
            raise GradatimError(
                "some steps have no recorded log-probabilities, so the tree cannot be the reference; sample the "
                "trees with a policy that records them, or take the reference from a model"
            )
    if "confidence" in objective.needs and any(bool(row.confidence.isnan().any()) for row in rows):
        raise GradatimError(
            "trees do not record how sure the policy was before each token; take the reference from a model",
            options=("reference",),
        )
    if "behaviour" in objective.needs and any(bool(row.behaviour.isnan().any()) for row in rows):
        raise GradatimError(
            "some steps have no recorded log-probabilities, so nobody knows how likely they were when they were "
            "sampled; sample the trees with a policy that records them"
        )


def _check_one_source(terms: Sequence[Term]) -> None:
    """Refuse recorded log-probabilities of several policies as one reference."""
    nodes = (node for term in terms for group in term.groups for node in group.nodes)
    sources = sorted({node.step.source for node in nodes})
    if len(sources) > 1:
        names = ", ".join(source or "an unknown one" for source in sources)
        raise GradatimError(
            f"the steps were written by {len(sources)} policies ({names}), so their recorded log-probabilities are not "
            "those of one reference; learn from one policy's steps, or take the reference from a model",
            options=("reference",),
        )


def disable_dropout(model: nn.Module) -> None:
    """Switch off the model's own dropout, which would be noise between the policy and what it is compared with;
    adapters keep theirs."""
    for name, module in model.named_modules():
        if "lora_dropout" in name:
            continue
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        # Many models keep the probability as a number, each under a name of its own, and OPT skips whole layers by one.
        for attribute, value in vars(module).items():
            if isinstance(value, float) and ("dropout" in attribute or attribute == "layerdrop"):
                setattr(module, attribute, 0.0)
