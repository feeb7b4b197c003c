"""The tree store: what was appended is found, and no crash, damage or full disk takes more than its own line."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradatim import GradatimError, Problem, Step, Tree
from gradatim.store import TreeStore, atomic_path, atomic_writer, write_json, write_text
from gradatim.store.trees import decode_problem_id, encode_line
from random_trees import trees

few = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def new_tree(problem_id: str, token: int = 1) -> Tree:
    tree = Tree(Problem(problem_id, "é:"))
    tree.add(tree.root, Step((token,), 'a "quoted"\nline\u2028'))
    return tree


def stored(path: Path, *problem_ids: str) -> Path:
    with TreeStore(path) as store:
        for token, problem_id in enumerate(problem_ids):
            store.append(new_tree(problem_id, token))
    return path


def contents(store: TreeStore) -> dict[str, int]:
    """The first token of each stored tree."""
    return {tree.problem.id: tree.nodes[1].step.tokens[0] for tree in store}


def fail_with(monkeypatch: pytest.MonkeyPatch, function: str, code: int) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, function, fail)


# What was appended


@few
@given(st.lists(st.sampled_from("abc").flatmap(lambda name: trees(problem_id=name, max_steps=4)), max_size=5))
def test_the_last_tree_of_each_problem_is_found_in_the_order_of_the_first(grown: list[Tree]) -> None:
    expected = {tree.problem.id: tree.to_json() for tree in grown}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new" / "trees.jsonl"
        with TreeStore(path) as store:
            for tree in grown:
                store.append(tree)
        for reader in (store, TreeStore(path)):
            assert reader.ids() == list(expected)
            assert len(reader) == len(expected)
            assert [tree.to_json() for tree in reader] == list(expected.values())
            for name in ("a", "b", "c"):
                found = reader.get(name)
                assert (found and found.to_json()) == expected.get(name)
                assert (name in reader) is (name in expected)
        lines = path.read_bytes().splitlines() if grown else []
        assert [json.loads(line)["tree"] for line in lines] == [tree.to_json() for tree in grown]


@given(st.text())
def test_any_problem_id_makes_one_line_that_names_it(problem_id: str) -> None:
    line = encode_line(new_tree(problem_id))
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert decode_problem_id(line) == problem_id


def test_a_reader_beside_a_writer_sees_each_append_and_a_replaced_file(tmp_path: Path) -> None:
    path = tmp_path / "trees.jsonl"
    reader = TreeStore(path)
    assert len(reader) == 0
    with TreeStore(path) as writer:
        for problem_id in ("a", "b"):
            writer.append(new_tree(problem_id))
            assert problem_id in reader
    write_text(path, stored(tmp_path / "other.jsonl", "c").read_text())
    assert reader.ids() == ["c"]


# Crashes and damage


def test_a_crash_at_any_byte_loses_no_whole_tree_and_the_store_goes_on(tmp_path: Path) -> None:
    whole = stored(tmp_path / "whole.jsonl", "a", "b", "a").read_bytes()
    ends = [0] + [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    path = tmp_path / "torn.jsonl"
    last = range(ends[2], len(whole) + 1)  # every point in the last line, and some before
    for cut in [*range(0, ends[2], 31), ends[1] - 1, ends[1], ends[2] - 1, *last]:
        path.write_bytes(whole[:cut])
        kept = {name: number for number, name in enumerate("aba") if ends[number + 1] - 1 <= cut}
        is_torn = cut not in ends and cut + 1 not in ends
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            store = TreeStore(path)
            assert contents(store) == kept
        assert [("not whole" in str(warning.message)) for warning in caught] == [True] * is_torn
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with store:
                store.append(new_tree("new", 9))
                store.append(new_tree("b", 8))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert contents(store) == contents(TreeStore(path)) == kept | {"new": 9, "b": 8}
        assert all(decode_problem_id(line) for line in path.read_bytes().splitlines())


def test_a_reader_follows_a_store_whose_last_line_lost_only_its_end(tmp_path: Path) -> None:
    path = stored(tmp_path / "trees.jsonl", "a")
    path.write_bytes(path.read_bytes()[:-1])
    reader = TreeStore(path)
    assert reader.ids() == ["a"]
    stored(path, "b", "c")
    assert contents(reader) == {"a": 0, "b": 0, "c": 1}


@few
@given(number=st.integers(0, 2), place=st.integers(0), bit=st.integers(0, 7))
def test_damage_in_the_middle_is_named_by_its_line_and_can_be_skipped(number: int, place: int, bit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = stored(Path(folder) / "trees.jsonl", "a", "b", "c", "d")
        lines = path.read_bytes().splitlines(keepends=True)
        line = bytearray(lines[number])
        line[place % (len(line) - 1)] ^= 1 << bit
        if b"\n" in line[:-1]:  # then these are two lines
            return
        lines[number] = bytes(line)
        path.write_bytes(b"".join(lines))
        with pytest.raises(GradatimError, match=rf"line {number + 1} of .* is damaged.*damaged='skip'"):
            TreeStore(path)
        with pytest.warns(UserWarning, match=f"line {number + 1} of"):
            store = TreeStore(path, damaged="skip")
        expected = {name: token for token, name in enumerate("abcd") if token != number}
        assert contents(store) == expected
        with store:
            store.append(new_tree("e", 4))
        assert contents(store) == expected | {"e": 4}
        assert path.read_bytes().startswith(b"".join(lines))


def test_skipping_damage_before_a_torn_line_warns_of_each_once_and_cuts_off_only_the_torn_one(tmp_path: Path) -> None:
    path = stored(tmp_path / "trees.jsonl", "a", "b", "c")
    first, second, third = path.read_bytes().splitlines(keepends=True)
    damaged = second.replace(b"quoted", b"quotes")
    path.write_bytes(first + damaged + third[:20])
    with pytest.warns(UserWarning, match=r"line 2 of|last line") as caught:
        store = TreeStore(path, damaged="skip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.ids() == ["a"]
    assert ["is damaged" in str(warning.message) for warning in caught] == [True, False]
    with store:
        store.append(new_tree("d", 3))
    assert path.read_bytes() == first + damaged + encode_line(new_tree("d", 3))


def test_a_file_changed_behind_an_open_store_is_reported(tmp_path: Path) -> None:
    path = stored(tmp_path / "trees.jsonl", "a")
    store = TreeStore(path)
    with path.open("r+b") as file:
        file.seek(40)
        file.write(b"#")
    with pytest.raises(GradatimError, match=r"line 1 of .* was changed while the store was open"):
        store.get("a")


# Writers


def test_two_writers_are_refused_until_the_first_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "trees.jsonl"
    first, second = TreeStore(path), TreeStore(path)
    first.append(new_tree("a"))
    with pytest.raises(GradatimError, match="another run is writing"):
        second.append(new_tree("b"))
    assert second.ids() == ["a"]
    first.close()
    second.append(new_tree("b"))
    with pytest.raises(GradatimError, match="another run is writing"):
        first.append(new_tree("c"))
    second.close()
    assert TreeStore(path).ids() == ["a", "b"]


@pytest.mark.parametrize("function", ["fsync", "pwrite"])
def test_a_full_disk_is_a_clear_error_and_the_store_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    path = stored(tmp_path / "trees.jsonl", "a")
    before = path.read_bytes()
    with TreeStore(path) as store:
        with monkeypatch.context() as full:
            fail_with(full, function, errno.ENOSPC)
            with pytest.raises(GradatimError, match=r"no space left to write .*; free some space and run again"):
                store.append(new_tree("b"))
        assert path.read_bytes() == before
        assert store.ids() == ["a"]
        store.append(new_tree("b"))
    assert TreeStore(path).ids() == ["a", "b"]


def test_a_disk_that_fills_up_inside_a_line_leaves_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stored(tmp_path / "trees.jsonl", "a")
    before, pwrite, calls = path.read_bytes(), os.pwrite, []

    def half(descriptor: int, data: memoryview, offset: int) -> int:
        calls.append(offset)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "full")
        return pwrite(descriptor, data[: len(data) // 2], offset)

    monkeypatch.setattr(os, "pwrite", half)
    with TreeStore(path) as store, pytest.raises(GradatimError, match="no space left"):
        store.append(new_tree("b"))
    assert len(calls) == 2
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_a_store_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(GradatimError, match="cannot be read or written"):
        TreeStore(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(GradatimError, match="cannot be read or written"):
        TreeStore(tmp_path / "file" / "trees.jsonl")


# Atomic files


def test_an_atomic_write_replaces_the_file_and_makes_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_text(path, "old\n")
    write_text(path, "né\n")
    assert path.read_bytes() == "né\n".encode()
    write_json(path, {"b": [float("nan"), 1.5, (float("inf"),)], "a": "é"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"b": [None, 1.5, [None]], "a": "é"}
    assert list(path.parent.iterdir()) == [path]


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.txt"
    unwritable: list[Any] = [None]  # what no text file can hold
    write_text(path, "old")
    with pytest.raises(TypeError), atomic_writer(path) as file:
        file.writelines(["half", *unwritable])
    with pytest.raises(GradatimError, match="cannot be read or written"), atomic_path(path):
        pass  # nothing was written
    with monkeypatch.context() as full:
        fail_with(full, "fsync", errno.ENOSPC)
        with pytest.raises(GradatimError, match=r"no space left to write .*file\.txt"):
            write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GradatimError, match="cannot be read or written"):
        write_text(tmp_path / "file" / "below.txt", "x")
    fail_with(monkeypatch, "fsync", errno.EACCES)
    with pytest.raises(GradatimError, match="lack of permission; choose another place"):
        write_text(tmp_path / "other.txt", "x")
