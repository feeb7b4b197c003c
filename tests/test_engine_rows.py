"""Blocks of a row hold each query once, and see what the whole row's mask shows, whatever is cached of it."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.engine.attention_pattern import EVERYTHING, AttentionPattern
from gradatim.engine.row_attention import divided
from gradatim.engine.tree_row import TreeRow
from gradatim.training.packing import pack_row
from test_scorers_process_reward import random_tree

DEVICES = [torch.device("cpu"), torch.device("meta")]  # whose limits differ


@settings(max_examples=50, deadline=None)
@given(
    trees=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 500)), max_size=20), device=st.sampled_from(DEVICES)
)
def test_blocks_hold_each_query_once_with_its_tree(trees: list[tuple[int, int]], device: torch.device) -> None:
    sizes = [(queries, queries + cached) for queries, cached in trees]
    place = 0
    tree_of = [number for number, (queries, _) in enumerate(sizes) for _ in range(queries)]
    for queries, members in divided(sizes, device):
        assert queries.start == place
        assert 0 < queries.stop - queries.start <= (128 if device.type == "cpu" else 2048)
        assert set(tree_of[queries]) <= set(range(len(sizes))[members])
        place = queries.stop
    assert place == len(tree_of)


def test_trees_share_a_block_where_that_is_cheaper_than_another_call() -> None:
    cpu = torch.device("cpu")
    assert len(divided([(1, 20)] * 10, cpu)) == 1
    assert len(divided([(60, 600)] * 10, cpu)) == 10
    assert [queries.stop for queries, _ in divided([(300, 300)], cpu)] == [128, 256, 300]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), data=st.data())
def test_what_a_few_queries_meet_is_what_the_whole_mask_shows(seed: int, data: st.DataObject) -> None:
    packed = pack_row([*random_tree(seed).nodes, *random_tree(seed + 1).nodes])
    row = TreeRow(packed.position_ids, packed.visible_until)
    window = AttentionPattern(lambda batch, head, query, key: (key <= query) & (key > query - 5))
    chosen = st.sets(st.integers(0, len(packed) - 1), min_size=1).map(sorted)
    queries, keys = torch.tensor(data.draw(chosen)), torch.tensor(data.draw(chosen))
    for pattern in (EVERYTHING, window):
        whole = row.sees(pattern, row.places, row.places)[queries][:, keys]
        met, mask = row.met(pattern, queries, keys)
        assert torch.equal(met, whole.any(dim=0).nonzero()[:, 0])
        assert torch.equal(mask, whole[:, met])
