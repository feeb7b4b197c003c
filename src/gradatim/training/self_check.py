"""Does a model compute over a packed row what it computes over single paths? Checked once, before it is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

from gradatim.engine.decoder import noted_hidden_states, outputs_of
from gradatim.engine.heads import plain_model
from gradatim.engine.self_check import TRAINED, Probe, check, check_configuration
from gradatim.engine.tree_model import input_device
from gradatim.errors import GradatimError
from gradatim.training.attention import check_attention, quicker_attention
from gradatim.training.flex_attention import FLEX_ATTENTION, check_flex_attention
from gradatim.training.forward import is_token_classifier, packed_outputs
from gradatim.training.log_probabilities import note_halves
from gradatim.training.packing import PackedRow, pack_row
from gradatim.tree import Node


def check_training(model: Any) -> None:
    """Check that a model can be trained on packed rows.

    Raises:
        GradatimError: if it computes something else over a packed row than over each path; also see
            :func:`gradatim.training.attention.check_attention`.
    """
    check_attention(model.config)
    _check(model, model.config.get_text_config()._attn_implementation)
    _check_halves(model)


@contextmanager
def blockwise_attention(model: Any) -> Iterator[None]:
    """Let the model read packed rows while this lasts, by what is quicker (see
    :func:`gradatim.training.attention.quicker_attention`) where that computes the same. Where layers are computed again
    in the backward pass (activation checkpoints), that runs within this, too.

    Raises:
        GradatimError: see :func:`check_training`.
    """
    check_training(model)
    own, quicker = model.config.get_text_config()._attn_implementation, quicker_attention(model)
    if quicker is not None:
        try:
            if quicker == FLEX_ATTENTION:
                dtype = next(each.dtype for each in model.parameters() if each.is_floating_point())
                check_flex_attention(model.config, input_device(model), dtype)
            _check(model, quicker)
        except GradatimError:  # it does something with its masks, which blocks are none of, or there is no compiler
            quicker = None
    if quicker is None:
        yield
        return
    model.set_attn_implementation(quicker)
    try:
        yield
    finally:
        model.set_attn_implementation(own)


def _check(model: Any, implementation: str) -> None:
    """Check packed rows with an attention implementation.

    Where training is sharded, a process may hold no weights yet, or only its part of them; then the configuration alone
    is looked at, and the process that loaded the weights checks the rest.
    """
    if _is_elsewhere(model):
        check_configuration(model.config, TRAINED)
        return

    def compare(probe: Probe) -> float:
        row = pack_row(probe.leaves)
        device = input_device(model)
        before = model.config.get_text_config()._attn_implementation
        if before != implementation:
            model.set_attn_implementation(implementation)
        outputs = packed_outputs(
            model, row.input_ids.to(device), row.position_ids.to(device), row.visible_until.to(device)
        )
        if before != implementation:
            model.set_attn_implementation(before)
        shared = len(probe.leaves[0].tree.root.tokens)
        return max(
            probe.difference(number, outputs[_path(row, leaf)[shared:]]) for number, leaf in enumerate(probe.leaves)
        )

    check(model, TRAINED, compare, implementation)


def _check_halves(model: Any) -> None:
    """Find out whether a model's output layers make of its last hidden states what its whole pass gives, and note it.

    Where training is sharded, a process without weights computes all logits at once.
    """

    def compare(probe: Probe) -> float:
        inner = plain_model(model)
        differences = []
        for number, leaf in enumerate(probe.leaves):
            with noted_hidden_states(inner) as found:
                model(input_ids=torch.tensor([leaf.tokens], device=input_device(model)), use_cache=False)
            differences.append(probe.difference(number, outputs_of(inner, found[0][0])))
        return max(differences)

    if not _is_elsewhere(model) and not is_token_classifier(model):
        with suppress(GradatimError):
            check(model, TRAINED, compare, "halves")
            note_halves(model)


def _is_elsewhere(model: Any) -> bool:
    """Whether this process holds no weights, or only its part of them."""
    return any(each.is_meta or each.numel() == 0 for each in model.parameters()) and not hasattr(model, "hf_device_map")


def _path(row: PackedRow, leaf: Node) -> Tensor:
    """The row positions of a leaf's path, (tokens,)."""
    last = int(row.step_ends[row.nodes.index(leaf)]) - 1
    places = torch.arange(len(row))
    return ((places <= last) & (row.visible_until > last)).nonzero()[:, 0]
