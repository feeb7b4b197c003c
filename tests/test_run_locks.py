"""One process at a time uses a folder of a run or a training, or a store of trees; a killed one blocks nobody."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.small_runs import small_recipe

from gradatim.errors import GradatimError
from gradatim.run import RunFolder
from gradatim.run.training_folder import TrainingFolder
from gradatim.store import TreeStore
from gradatim.tree import Problem, Tree


def take_run_folder(place: Path) -> RunFolder:
    return RunFolder(place / "run", small_recipe())


def take_training_folder(place: Path) -> TrainingFolder:
    return TrainingFolder(place / "model", {"seed": 0})


def take_store(place: Path) -> TreeStore:
    store = TreeStore(place / "trees.jsonl")
    store.append(Tree(Problem("a", "Question a")))
    return store


TAKERS: list[tuple[Callable[[Path], Any], str]] = [
    (take_run_folder, "another run is using .*/run'; wait for it to end, or choose another --output"),
    (take_training_folder, "another training is using .*/model'; wait for it to end, or choose another output"),
    (take_store, r"another run is writing .*/trees.jsonl'; wait for it to end, or write to another folder"),
]


@pytest.mark.parametrize(("take", "sentence"), TAKERS)
def test_a_second_process_is_refused_until_the_first_is_killed(
    take: Callable[[Path], Any], sentence: str, tmp_path: Path
) -> None:
    ready, said = os.pipe()
    child = os.fork()
    if not child:
        try:
            held = take(tmp_path)
            os.write(said, b"ready")
            signal.pause()
        finally:
            os._exit(int("held" not in locals()))
    os.close(said)
    try:
        assert os.read(ready, 5) == b"ready"
        for _ in range(2):  # being refused lets nobody in afterwards
            with pytest.raises(GradatimError, match=sentence):
                take(tmp_path)
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    take(tmp_path).close()
    take(tmp_path).close()


def test_a_refused_training_leaves_the_folder_of_the_other_as_it_is(tmp_path: Path) -> None:
    with take_training_folder(tmp_path) as folder:
        folder.check_data("digest")
        with pytest.raises(GradatimError, match="another training"):
            take_training_folder(tmp_path)
        assert {path.name for path in folder.work.iterdir()} == {".lock", "training.json"}


def test_nothing_stays_of_a_training_that_never_began(tmp_path: Path) -> None:
    take_training_folder(tmp_path).close()
    assert list(tmp_path.iterdir()) == []
