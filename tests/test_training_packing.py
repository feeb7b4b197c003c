from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.engine.attention_pattern import EVERYTHING
from gradatim.errors import GradatimError
from gradatim.supervision.terms import Group, Term, labelled_step
from gradatim.training import block_attention as block_module
from gradatim.training.attention import check_attention
from gradatim.training.block_attention import BLOCK_ATTENTION, block_attention, tree_blocks
from gradatim.training.forward import token_log_probabilities
from gradatim.training.packing import pack_row, scored_tokens
from gradatim.training.row_masks import RowMasks
from gradatim.training.rows import build_row, plan_rows
from gradatim.training.self_check import blockwise_attention
from gradatim.tree import Node, Problem, Step, Tree
from training_models import CONFIGS, path_log_probabilities, random_tree, tiny_model


def one_step(node: Node) -> Term:
    return Term((Group((node,)),))


seeds = st.integers(0, 10_000)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(2, 25), st.data())
def test_every_token_sees_exactly_its_path(seed: int, size: int, data: st.DataObject) -> None:
    trees = [random_tree(seed + i, nodes=size) for i in range(2)]
    candidates = [node for tree in trees for node in tree.nodes]
    chosen = data.draw(st.lists(st.sampled_from(candidates), min_size=1, unique_by=id))
    row = pack_row(chosen)
    assert {id(node) for node in row.nodes} == {id(node) for end in chosen for node in end.path()}
    index = torch.arange(len(row))
    mask = (index[None] <= index[:, None]) & (index[:, None] < row.visible_until[None])
    for i, node in enumerate(row.nodes):
        start, end = int(row.step_starts[i]), int(row.step_ends[i])
        assert row.input_ids[start:end].tolist() == list(node.step.tokens)
        before = [] if node.parent is None else node.parent.tokens
        for offset, position in enumerate(range(start, end)):
            seen = mask[position].nonzero()[:, 0]
            assert row.input_ids[seen].tolist() == before + list(node.step.tokens[: offset + 1])
            assert row.position_ids[seen].tolist() == list(range(len(before) + offset + 1))


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("seed", [0, 1])
def test_packed_log_probabilities_and_gradients_equal_those_of_single_paths(family: str, seed: int) -> None:
    model = tiny_model(family)
    trees = [random_tree(10 * seed + i, nodes=9) for i in range(2)]
    nodes = [node for tree in trees for node in tree.nodes[1:]]
    weights = torch.randn(len(nodes), generator=torch.Generator().manual_seed(seed))
    row = build_row([one_step(node) for node in nodes])
    packed = token_log_probabilities(model, row)
    sums = row.sums(packed)
    (weights * sums).sum().backward()
    packed_gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    single = torch.cat([path_log_probabilities(model, node) for node in nodes])
    torch.testing.assert_close(packed, single, atol=1e-5, rtol=0)
    total = sum(weight * path_log_probabilities(model, node).sum() for weight, node in zip(weights, nodes, strict=True))
    total.backward()
    for packed_gradient, parameter in zip(packed_gradients, model.parameters(), strict=True):
        scale = parameter.grad.abs().max().clamp(min=1.0)
        torch.testing.assert_close(packed_gradient / scale, parameter.grad / scale, atol=1e-5, rtol=0)


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_random_trees_are_exact_with_windows_and_soft_caps(seed: int) -> None:
    model = tiny_model("gemma2")
    tree = random_tree(seed, nodes=10)
    row = build_row([one_step(node) for node in tree.nodes[1:]])
    with torch.no_grad():
        single = torch.cat([path_log_probabilities(model, node) for node in tree.nodes[1:]])
        torch.testing.assert_close(token_log_probabilities(model, row), single, atol=1e-5, rtol=0)


def test_eager_and_sdpa_agree() -> None:
    model = tiny_model("llama")
    row = build_row([one_step(node) for node in random_tree(3).nodes[1:]])
    with torch.no_grad():
        first = token_log_probabilities(model, row)
        model.set_attn_implementation("eager")
        torch.testing.assert_close(token_log_probabilities(model, row), first, atol=1e-5, rtol=0)


def test_the_packed_row_computes_less_than_the_paths() -> None:
    tree = random_tree(5, nodes=20)
    row = build_row([one_step(node) for node in tree.nodes[1:]])
    needed = sum(len(node.step.tokens) for node in tree.nodes[1:])
    assert row.token_ids.shape[0] == needed
    assert row.predictors.shape[0] < needed  # siblings share the prediction of their first tokens


def test_observations_condition_but_are_never_scored() -> None:
    tree = Tree(Problem("p", ""), prompt_tokens=(3, 4))
    first = tree.add(tree.root, Step((5, 6), "a", observation=(7, 8), observation_text="o"))
    second = tree.add(first, Step((9,), "b", observation=(10,), observation_text="o"))
    row = pack_row([second])
    assert row.input_ids.tolist() == [3, 4, 5, 6, 7, 8, 9]  # nothing follows the last observation
    tokens = scored_tokens(row, [1, 2])
    assert tokens.token_ids.tolist() == [5, 6, 9]
    assert tokens.predictors[tokens.predictor_of].tolist() == [1, 2, 5]


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(8, 80))
def test_rows_hold_every_example_once_and_keep_to_the_limit(seed: int, limit: int) -> None:
    examples = [one_step(node) for i in range(4) for node in random_tree(seed + i, nodes=3 + 7 * (i % 2)).nodes[1:]]
    rows = plan_rows(examples, limit, seed=seed)
    assert Counter(id(example) for row in rows for example in row) == Counter(id(example) for example in examples)
    for row in rows:
        assert len(row) == 1 or build_row(row).input_ids.shape[0] <= limit


def test_a_divided_tree_has_the_same_log_probabilities() -> None:
    model = tiny_model("qwen3")
    tree = random_tree(8, nodes=25)
    examples = [one_step(node) for node in tree.nodes[1:]]
    rows = plan_rows(examples, 30)
    assert len(rows) > 2
    with torch.no_grad():
        for part in rows:
            row = build_row(part)
            sums = row.sums(token_log_probabilities(model, row))
            for value, example in zip(sums, part, strict=True):
                expected = path_log_probabilities(model, example.ends[0]).sum()
                torch.testing.assert_close(value, expected, atol=1e-5, rtol=0)


def test_trees_that_fit_stay_whole() -> None:
    trees = [random_tree(i, nodes=6) for i in range(6)]
    rows = plan_rows([one_step(node) for tree in trees for node in tree.nodes[1:]], 90)
    where: dict[int, set[int]] = {}
    for i, row in enumerate(rows):
        for example in row:
            where.setdefault(id(example.ends[0].tree), set()).add(i)
    assert all(len(places) == 1 for places in where.values())
    assert len(rows) < len(trees)


def test_prompts_are_refused_as_targets() -> None:
    tree = random_tree(0)
    with pytest.raises(GradatimError, match="prompt is not a step"):
        build_row([one_step(tree.root)])
    empty = Tree(Problem("p", ""))
    step = empty.add(empty.root, Step((5,), "a"))
    with pytest.raises(GradatimError, match="prompt without tokens"):
        build_row([one_step(step)])


def test_models_that_cannot_read_trees_are_refused() -> None:
    config = CONFIGS["qwen2"]()
    config._attn_implementation = "flash_attention_2"
    with pytest.raises(GradatimError, match="flash_attention_2"):
        check_attention(config)
    config._attn_implementation = "gradatim_tree"
    with pytest.raises(GradatimError, match="load a second copy"):
        check_attention(config)


def test_a_row_survives_its_dictionary() -> None:
    nodes: list[Node] = random_tree(1).nodes[1:]
    row = build_row([labelled_step(node, 0.5, weight=2.0) for node in nodes])
    again = type(row)(**row.tensors())
    for name, value in row.tensors().items():
        torch.testing.assert_close(again.tensors()[name], value, equal_nan=True, atol=0, rtol=0)
    assert row.weight.tolist() == [2.0] * len(nodes)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "gpt2", "gemma", "gemma3"])
def test_blockwise_attention_is_exact(family: str) -> None:
    model = tiny_model(family)
    nodes = [node for seed in range(8) for node in random_tree(seed, nodes=14).nodes[1:]]
    row = build_row([one_step(node) for node in nodes])
    assert len(row.input_ids) > 2 * 128  # several blocks
    dense = token_log_probabilities(model, row)
    dense.square().sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    with blockwise_attention(model):
        assert model.config._attn_implementation == BLOCK_ATTENTION
        blocks = token_log_probabilities(model, row)
        blocks.square().sum().backward()
        plain = model(torch.tensor([[3, 4, 5]])).logits
    assert model.config._attn_implementation == "sdpa"
    torch.testing.assert_close(blocks, dense, atol=1e-5, rtol=0)
    for gradient, parameter in zip(gradients, model.parameters(), strict=True):
        scale = gradient.abs().max().clamp(min=1.0)
        torch.testing.assert_close(parameter.grad / scale, gradient / scale, atol=1e-5, rtol=0)
    torch.testing.assert_close(plain, model(torch.tensor([[3, 4, 5]])).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_blocks_attend_as_a_mask_does(fused: bool, heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By PyTorch's fused kernels, and where those are not to be had; for any number of heads that share keys."""
    if not fused:
        monkeypatch.setattr(block_module, "_KERNELS", None)
    packed = pack_row(node for seed in range(6) for node in random_tree(seed, nodes=14, longest=9).nodes)
    masks = RowMasks(packed.position_ids, packed.visible_until)
    assert len(packed) > 2 * 128
    torch.manual_seed(0)
    inputs = [
        torch.randn(1, count, len(packed), 8, dtype=torch.float64, requires_grad=True) for count in (4, heads, heads)
    ]
    layer = torch.nn.Module()
    layer.num_key_value_groups = 4 // heads
    found, expected = (
        block_attention(layer, *inputs, mask, scaling=0.3)[0]
        for mask in (tree_blocks(masks, EVERYTHING), masks.whole(EVERYTHING))
    )
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    weights = torch.randn_like(expected)
    gradients = [torch.autograd.grad((each * weights).sum(), inputs) for each in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_blocks_keep_no_copies_of_what_they_meet() -> None:
    packed = pack_row(node for seed in range(6) for node in random_tree(seed, nodes=30, longest=9).nodes)
    blocks = tree_blocks(RowMasks(packed.position_ids, packed.visible_until), EVERYTHING)
    inputs = [torch.randn(1, 2, len(packed), 8, requires_grad=True) for _ in range(3)]
    kept = 0

    def note(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, note):
        block_attention(torch.nn.Module(), *inputs, blocks)
    assert kept <= 4 * inputs[0].numel() + 2 * len(packed)  # queries, keys, values, outputs; a number a query and head


def test_where_a_model_squashes_its_scores_masks_remain() -> None:
    """transformers' scaled dot-product attention has no soft cap, so the model attends eagerly."""
    model = tiny_model("gemma2")
    with blockwise_attention(model):
        assert model.config._attn_implementation == "eager"


def test_a_model_that_knows_no_logits_to_keep_is_read_at_the_right_tokens() -> None:
    model = tiny_model("llama")
    row = build_row([one_step(node) for node in random_tree(3).nodes[1:]])
    with torch.no_grad():
        expected = token_log_probabilities(model, row)
        forward = model.forward
        model.forward = lambda logits_to_keep=0, **inputs: forward(**inputs)
        torch.testing.assert_close(token_log_probabilities(model, row), expected, atol=1e-5, rtol=0)
