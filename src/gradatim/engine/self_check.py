"""Does a model compute over trees what it computes over single paths? Checked once, before a model is used.

The engine and the trainer replace parts of how a model attends, and there are ever more kinds of models: with windows,
sinks, states that are carried from token to token, positions that are counted along the row. What is equal is found
out by trying: a small tree of random tokens is read as it will be read later, and each of its paths alone. A model that
differs, or cannot do it, is refused in one sentence. The outcome is kept for models of the same configuration.
"""

from __future__ import annotations

import inspect
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gradatim.engine.branch_batch import BranchBatch
from gradatim.engine.path_length import longest_path
from gradatim.engine.tree_model import TreeModel, input_device
from gradatim.errors import GradatimError
from gradatim.tree import Node, Problem, Step, Tree

_KINDS = ("full_attention", "sliding_attention", "chunked_attention")
_PLAIN = ("sdpa", "eager")
_NARROW = {"sliding_window": 5, "attention_chunk_size": 6}
_PASSED = 12  # a reach of at most so many tokens is passed by the paths of the probe
_REACH = re.compile(r"window|chunk|topk(_blocks)?$|block_size|compress")
_STATE = re.compile(r"Mamba|SSM|Recurrent|DeltaNet|LightningAttention")
_NO_REACH = frozenset(
    {"max_window_layers", "moe_topk", "chunk_size_feed_forward", "sliding_window_pattern", *_NARROW}
)  # settings that sound like a reach of attention and are none

RUN = "run by the engine"
TRAINED = "trained on packed trees"
"""What a model may be refused for, as in "cannot be ..."."""

_outcomes: dict[str, str | None] = {}


Comparison = Callable[["Probe"], float]
"""Reads a probe's tree and returns the largest difference to reading its paths alone."""


def checked_tree_model(model: Any, memory_bytes: int) -> TreeModel:
    """A :class:`~gradatim.engine.tree_model.TreeModel`, after a check that it computes what the model does.

    Raises:
        GradatimError: if the model's attention cannot be replaced, or it computes something else over trees.
    """

    def compare(probe: Probe) -> float:
        found = _read_by_engine(TreeModel(model, 1 << 30), probe.leaves)
        return max(probe.difference(number, outputs) for number, outputs in enumerate(found))

    check(model, RUN, compare, "engine")
    return TreeModel(model, memory_bytes)


def check_configuration(config: Any, use: str) -> None:
    """Refuse what is known of a configuration alone; whatever passes is checked again as a model.

    Args:
        config: the configuration.
        use: as for :func:`check`.

    Raises:
        GradatimError: if models of this configuration cannot be used; says why.
    """
    text = config.get_text_config()
    reason = _known_reason(text)
    if reason is not None:
        raise _refused(text, use, reason)


def check(model: Any, use: str, compare: Comparison, way: str) -> None:
    """Refuse a model that reads a tree as something else than its paths, or fails; known outcomes are not tried again.

    Args:
        model: the model; it is left as it was.
        use: what it would be used for, as in "cannot be ...".
        compare: reads the tree.
        way: stands for all that the outcome depends on beside the model.

    Raises:
        GradatimError: if the model is refused; says why.
    """
    key = _fingerprint(model, way)
    if key not in _outcomes:
        _outcomes[key] = _refusal(model, compare)
    reason = _outcomes[key]
    if reason is not None:
        raise _refused(model.config.get_text_config(), use, reason)


def _refused(config: Any, use: str, reason: str) -> GradatimError:
    return GradatimError(
        f"models of the type {config.model_type!r} cannot be {use}: {reason}; choose a model of another type"
    )


def _refusal(model: Any, compare: Comparison) -> str | None:
    """Why a model is refused; ``None`` where it is not."""
    config = model.config.get_text_config()
    reason = _known_reason(config)
    if reason is not None:
        return reason
    try:
        exact = torch.autocast(input_device(model).type, enabled=False)
        with _evaluating(model), _plain_attention(model), torch.no_grad(), exact:
            probe = Probe(model)
            largest = _measured(probe, compare)
    except torch.OutOfMemoryError:
        raise
    except GradatimError as error:
        return str(error)
    except Exception as error:  # whatever a model raises that was not made for this
        lines = str(error).strip().splitlines()
        return f"a small tree makes it fail with {type(error).__name__}" + (f" ({lines[0]})" if lines else "")
    if largest <= probe.tolerance:
        return None
    return (
        "over a small tree it computes something else than over each path alone (they differ by "
        f"{largest:.2g} of the spread of its outputs, by rounding at most {probe.tolerance:g}){_suspicion(model)}"
    )


def _measured(probe: Probe, compare: Comparison) -> float:
    """The largest difference over a small tree, with windows that its paths pass.

    Raises:
        GradatimError: see :meth:`Probe.read_alone`; also if the model has windows that cannot be made small.
    """
    probe.read_alone()
    with _narrow_windows(probe.config) as narrowed:
        if narrowed:
            wide = probe.expected
            probe.read_alone()
            has_windows = set(getattr(probe.config, "layer_types", None) or _KINDS) - {"full_attention"}
            if has_windows and all(map(torch.equal, wide, probe.expected)):
                raise GradatimError(f"its {narrowed[0]} could not be made smaller, to be checked")
        return compare(probe)


def _known_reason(config: Any) -> str | None:
    """Why a configuration alone tells that a model cannot be used or checked."""
    strange = [kind for kind in getattr(config, "layer_types", None) or () if kind not in _KINDS]
    if strange:
        return f"it has layers of the type {strange[0]!r}, which do more than attend to the tokens of a path"
    for name, value in config.to_dict().items():
        if _REACH.search(name) and name not in _NO_REACH and type(value) is int and value > _PASSED:
            return f"its {name} of {value} tokens is of no kind that could be checked"
    return None


def _suspicion(model: Any) -> str:
    """What a difference probably comes from, as the end of a sentence."""
    names = {type(module).__name__ for module in model.modules()}
    if getattr(model, "_is_stateful", False) or any(_STATE.search(name) for name in names):
        return ": it carries a state from token to token"
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return ": it counts positions by itself"
    return ""


def _fingerprint(model: Any, way: str) -> str:
    config = model.config.to_dict()
    for name in ("_name_or_path", "transformers_version", "architectures"):
        config.pop(name, None)
    first = next(model.parameters())
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    return json.dumps([way, kind, str(first.dtype), first.device.type, config], sort_keys=True, default=str)


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _plain_attention(model: Any) -> Iterator[None]:
    """Let the model attend as transformers does."""
    before = model.config._attn_implementation
    plain = before if before in _PLAIN else "sdpa" if getattr(model, "_supports_sdpa", False) else "eager"
    try:
        if before != plain:
            model.set_attn_implementation(plain)
        yield
    finally:
        if model.config._attn_implementation != before:
            model.set_attn_implementation(before)


@contextmanager
def _narrow_windows(config: Any) -> Iterator[list[str]]:
    """Make windows and chunks so small that the probe passes them, since masks are made by the configuration in every
    pass. Gives the names of the settings that were changed."""
    before = {name: getattr(config, name, None) for name in _NARROW}
    narrowed = [name for name, value in before.items() if isinstance(value, int) and value > _NARROW[name]]
    try:
        for name in narrowed:
            setattr(config, name, _NARROW[name])
        yield narrowed
    finally:
        for name in narrowed:
            setattr(config, name, before[name])


class Probe:
    """A small tree of random tokens: a prompt, and below it two branches of different length, of two steps each.

    In float32 each output is compared. In fewer bits, rounding can send a token to another expert, so that it differs
    much where nothing is wrong: there the root mean square over a token's outputs counts, and the median over tokens.

    Args:
        model: reads it.

    Attributes:
        config: of the model's text.
        leaves: the ends of the tree's two paths.
        expected: the outputs over each path alone, (tokens, outputs), once they were read.
        tolerance: the largest difference that rounding makes.

    Raises:
        GradatimError: if the model reads only shorter paths.
    """

    def __init__(self, model: Any) -> None:
        self.config = model.config.get_text_config()
        coarsest = max(torch.finfo(each.dtype).eps for each in model.parameters() if each.is_floating_point())
        self._is_coarse = coarsest > 1e-5 or bool(getattr(model, "is_quantized", False))
        self.tolerance = 0.1 if self._is_coarse else 1e-3
        self._model = model
        source = random.Random(0)
        special = {value for name, value in self.config.to_dict().items() if name.endswith("_token_id")}
        usable = [token for token in range(3, min(int(self.config.vocab_size), 1000)) if token not in special] or [0]

        def tokens(count: int) -> tuple[int, ...]:
            return tuple(source.choice(usable) for _ in range(count))

        prompt = min(9, longest_path(self.config) - 12)
        if prompt < 1:
            raise GradatimError(f"it reads at most {longest_path(self.config)} tokens, too few to be checked")
        tree = Tree(Problem("self-check", ""), prompt_tokens=tokens(prompt))
        firsts = [tree.add(tree.root, Step(tokens(count), "")) for count in (4, 8)]
        self.leaves = [tree.add(first, Step(tokens(4), "")) for first in firsts]
        self.expected: list[Tensor] = []

    def read_alone(self) -> None:
        """Read each path alone.

        Raises:
            GradatimError: if the outputs are not numbers, or what follows a token changes its output.
        """
        device = input_device(self._model)
        self.expected = [
            self._model(input_ids=torch.tensor([leaf.tokens], device=device), use_cache=False).logits[0].float()
            for leaf in self.leaves
        ]
        if any(bool(output.isnan().any()) for output in self.expected):
            raise GradatimError("its outputs are not numbers")
        shared = len(self.leaves[0].tree.root.tokens)
        if self._apart(*(outputs[:shared] for outputs in self.expected)) > self.tolerance:
            raise GradatimError("what it computes for a token depends on the tokens that follow")

    def difference(self, number: int, outputs: Tensor) -> float:
        """How far ``outputs`` (n, outputs), at the last n tokens of path ``number``, are from the expected ones.

        It is a share of the spread of the expected ones (their standard deviation).
        """
        return self._apart(outputs.float(), self.expected[number][-len(outputs) :])

    def _apart(self, outputs: Tensor, expected: Tensor) -> float:
        everything = torch.cat(self.expected)
        spread = everything[everything.isfinite()].std().clamp_min(1e-12)
        expected = expected.to(outputs.device)
        apart = torch.where(outputs == expected, 0.0, (outputs - expected).abs()) / spread.to(outputs.device)
        if bool(apart.isnan().any()):
            return float("inf")
        return float(apart.square().mean(dim=-1).sqrt().median() if self._is_coarse else apart.max())


def _read_by_engine(tree_model: TreeModel, leaves: Sequence[Node]) -> list[Tensor]:
    """The outputs at the end of each leaf's parent, read in segments, and of the leaf's tokens, read one by one by two
    branches of a batch: (1 + tokens, outputs) for each leaf."""
    parents = [leaf.parent for leaf in leaves if leaf.parent is not None]
    batch = BranchBatch(tree_model)
    paths = tree_model.compute(parents)
    for parent, leaf, states in zip(parents, leaves, paths, strict=True):
        batch.join(parent.tree, parent, states, leaf.step.tokens[0])
    outputs = [tree_model.outputs(torch.stack([states[-1].hidden[-1] for states in paths]))]
    for place in range(len(leaves[0].step.tokens)):
        if place:
            batch.continue_with([leaf.step.tokens[place] for leaf in leaves])
        outputs.append(batch.step())
    return list(torch.stack(outputs, dim=1).float())
