"""A real server process on this machine: ``transformers serve`` with the model that ships with the package."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import TypeVar

import httpx2
import pytest
from transformers.utils.import_utils import is_serve_available

from failing_server import asking
from gradatim import Budget, GradatimError, Tree
from gradatim.models import resolve_model
from gradatim.policies.base import Sampling
from gradatim.policies.server import ServerPolicy
from gradatim.policies.transformers import TransformersPolicy
from gradatim.tasks.base import grade
from gradatim.tasks.countdown import Countdown
from gradatim.tree import Node

pytestmark = pytest.mark.skipif(
    not is_serve_available(), reason="transformers serve needs its extra: pip install 'transformers[serving]'"
)
Result = TypeVar("Result")
GREEDY = Sampling(temperature=0.0)
STARTING_SECONDS = 120


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model, set to sample: the server samples only where the model's generation settings say so."""
    folder = tmp_path_factory.mktemp("models") / "countdown"
    shutil.copytree(resolve_model("shipped:countdown"), folder)
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | {"do_sample": True, "top_k": 0}))
    return folder


@pytest.fixture(scope="module")
def url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", str(model)),
                *("--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait(timeout=30)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + STARTING_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.fail(f"the server ended with status {process.returncode}: {log.read_text()[-2000:]}")
        try:
            if httpx2.get(url, trust_env=False).status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.2)
    pytest.fail(f"the server did not start within {STARTING_SECONDS} s: {log.read_text()[-2000:]}")


def run(policy: ServerPolicy, work: Awaitable[Result]) -> Result:
    async def main() -> Result:
        try:
            return await work
        finally:
            await policy.close()

    return asyncio.run(main())


async def walk(policy: ServerPolicy | TransformersPolicy, tree: Tree) -> Node:
    """The end of the path of likeliest steps."""
    node = tree.root
    while node.open:
        [node] = await policy.extend([node], sampling=GREEDY)
    return node


@pytest.fixture
def policy(url: str, model: Path, monkeypatch: pytest.MonkeyPatch) -> ServerPolicy:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return asking(url, model=str(model), retries=3)


def test_greedy_steps_are_those_of_the_engine_and_tokens_are_counted_alike(policy: ServerPolicy) -> None:
    engine = TransformersPolicy.from_pretrained("shipped:countdown")
    for problem in Countdown().problems("test", 3):
        there, here, whole = Tree(problem), Tree(problem), Tree(problem)
        server_leaf, engine_leaf = run(policy, walk(policy, there)), asyncio.run(walk(engine, here))
        [rolled] = run(policy, policy.extend([whole.root], steps=None, sampling=GREEDY))
        for leaf in (server_leaf, rolled):
            assert [(node.step.text, node.step.end) for node in leaf.path()[1:]] == [
                (node.step.text, node.step.end) for node in engine_leaf.path()[1:]
            ]
        for budget in (there.budget, whole.budget):  # of a server's model nobody here knows the size
            assert budget.read("policy") == here.budget.read("policy")
            assert budget.written("policy") == here.budget.written("policy")


def test_sampled_steps_are_the_tasks_within_the_budget(policy: ServerPolicy) -> None:
    task = Countdown()
    tree = Tree(task.problems("test", 1)[0], budget=Budget(150))
    children = list(dict.fromkeys(run(policy, policy.extend([tree.root], 4))))
    leaves = run(policy, policy.extend(children, steps=None))
    grade(tree, task)
    assert len(tree.root.children) > 1
    assert all(node.step.text.count("\n") <= 1 for node in tree.nodes)
    assert any(leaf.finished and leaf.reward is not None for leaf in leaves)
    assert all("=" in child.step.text and child.step.text.endswith("\n") for child in children if child.open)
    assert 0 < tree.budget.written("policy") <= tree.budget.total <= 150


def test_another_model_is_refused(url: str) -> None:
    policy = asking(url, model="other", retries=3)
    with pytest.raises(GradatimError, match=r"answers 400 \(Server is pinned to"):
        run(policy, policy.extend([Tree(Countdown().problems("test", 1)[0]).root]))
