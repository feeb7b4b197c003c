"""One file for each kind of part, dropped into a folder or installed by another distribution, and one recipe that runs
all that recipes name: nothing else is touched."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gradatim import part as parts
from gradatim.part import make
from gradatim.recipes import Recipe, parse_recipe
from gradatim.run import Progress, run_recipe
from gradatim.store import TreeStore, read_published, write_published

PARTS = {
    "search": '''
from typing import Any, ClassVar

from gradatim.part import part
from gradatim.search.base import Search


@part
class Mine(Search):
    """Whole solutions, all of whose steps are scored."""

    title: ClassVar[str] = "my search"

    draws: int = 4
    """Solutions."""

    async def __call__(self, tree: Any, policy: Any, scorer: Any = None, **options: Any) -> None:
        await policy.extend([tree.root], self.draws, steps=None)
        if scorer is not None:
            await scorer.score(tree.nodes[1:])
''',
    "search/selection": '''
from gradatim.part import part
from gradatim.search.selection.base import Choice, Selection


@part
class Mine(Selection):
    """Whatever waits longest."""

    def select(self, state):
        root = [state.tree.root] if state.may_expand(state.tree.root) else []
        waiting = [node for node in state.waiting() if node.open]
        return Choice(next(iter(root + waiting), None), "it waits")
''',
    "search/regrowth": '''
from gradatim.part import part
from gradatim.search.regrowth.base import Regrowth


@part
class Mine(Regrowth):
    """One more solution."""

    async def __call__(self, tree, context):
        for leaf in await context.policy().extend([tree.root], steps=None):
            leaf.notes["mine"] = leaf.id
''',
    "scorers": '''
from gradatim.part import part
from gradatim.scorers.base import ScorerPart


class Lengths:
    def __init__(self, name: str, longest: int) -> None:
        self.name, self.longest = name, longest

    async def score(self, nodes):
        for node in nodes:
            node.scores[self.name] = 1 - min(1.0, len(node.step.tokens) / self.longest)

    def release(self, tree):
        pass


@part
class Mine(ScorerPart):
    """Short steps are good."""

    longest: int = 16
    """Tokens at which a step is worth nothing."""

    def open(self, context):
        assert context.task is not None
        return Lengths(self.name, self.longest)
''',
    "values": '''
from gradatim.part import part
from gradatim.values.base import Values


@part
class Mine(Values):
    """A step is worth how deep it lies."""

    async def __call__(self, tree, context):
        for node in tree.nodes[1:]:
            node.scores[self.key], node.counts[self.key] = 1 / (1 + node.depth), 1
''',
    "supervision": '''
from typing import ClassVar

from gradatim.part import part
from gradatim.supervision.base import Construction
from gradatim.supervision.rows import stepwise_rows
from gradatim.supervision.terms import labelled_step


@part
class Mine(Construction):
    """First steps."""

    what: ClassVar[str] = "first steps"
    groups: ClassVar[int] = 1
    has_targets: ClassVar[bool] = True
    rows: ClassVar = staticmethod(stepwise_rows)

    def __call__(self, tree):
        return [labelled_step(node, node.scores["value"]) for node in tree.root.children]
''',
    "supervision/filters": '''
from gradatim.part import part
from gradatim.supervision.filters.base import Filter


@part
class Mine(Filter):
    """All but the first."""

    @property
    def drops(self):
        return "comes first"

    def __call__(self, terms):
        return list(terms)[1:]
''',
    "objectives": '''
from typing import ClassVar

from gradatim.objectives.base import Loss, Objective
from gradatim.part import part


@part
class Mine(Objective):
    """Likelihood, weighted by what the step is worth."""

    needs: ClassVar = frozenset({"log_probabilities"})

    def loss(self, quantities):
        return Loss(-quantities.singles(quantities.sums(quantities.log_probabilities)) * quantities.target)
''',
    "tasks": '''
from gradatim.part import part
from gradatim.tasks.countdown import Countdown


@part
class Mine(Countdown):
    """Countdown under another name."""
''',
    "text/boundaries": '''
from gradatim.part import part
from gradatim.text.boundaries.base import Boundary


@part
class Mine(Boundary):
    """Every line ends a step."""

    def end(self, written):
        found = written.text.find("\\n")
        return None if found < 0 else written.at_character(found + 1)
''',
    "store/published": '''
from gradatim.part import part
from gradatim.store.published.base import PublishedFormat, Question


@part
class Mine(PublishedFormat):
    """One good step a row."""

    def matches(self, row):
        return row.keys() == {"asked", "step"}

    def question(self, row):
        return Question(row["asked"])

    def read(self, row, builder):
        builder.judge(builder.add(builder.tree.root, row["step"]), self.score, 1.0)

    def rows(self, tree, value):
        for node in tree.root.children:
            yield {"asked": tree.problem.data["question"], "step": node.step.text.strip()}
''',
    "evaluation/benchmarks": '''
from gradatim.evaluation.benchmarks.base import StepBenchmark
from gradatim.evaluation.step_records import StepRecord
from gradatim.part import part


@part
class Mine(StepBenchmark):
    """Steps that are all right."""

    def read(self, rows):
        told = [(f"{row.part}-{row.number}", row.values["asked"], row.values["step"]) for row in rows]
        return [StepRecord(name, asked, (step,), (True,), "all", name) for name, asked, step in told]

    def measure(self, records, scores):
        return sum(step for each in scores for step in each)
''',
}


def recipe(named: dict[str, str]) -> Recipe:
    made = parse_recipe(
        {
            "name": "mine",
            "task": named["tasks"],
            "policy": {
                "model": "shipped:countdown",
                "device": "cpu",
                "sampling": {"max_step_tokens": 16, "max_steps": 4, "boundary": named["text/boundaries"]},
            },
            "problems": {"train": 3, "test": 2},
            "search": named["search"],
            "scorer": named["scorers"],
            "regrow": [named["search/regrowth"]],
            "values": [named["values"]],
            "learn": [
                {
                    "objective": named["objectives"],
                    "data": [named["supervision"]],
                    "filters": [named["supervision/filters"]],
                    "training": {"learning_rate": 1e-3, "tokens_per_batch": 256},
                }
            ],
            "evaluation": {
                "samples": 2, "pass_at": [1], "best_of": [2], "majority": [], "greedy": False,
                "scorer": {"name": named["scorers"], "longest": 20}, "search": [
                    {"name": named["search"], "draws": 2},
                    {"name": "mcts", "simulations": 3, "selection": named["search/selection"]},
                ],
            },
        },
        "mine",
    )  # fmt: skip
    assert isinstance(made, Recipe)
    return made


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A file for each kind, by the name that a recipe gives it."""
    named = {}
    for kind, text in PARTS.items():
        file = tmp_path / f"my_{kind.replace('/', '_')}.py"
        file.write_text(text, encoding="utf-8")
        named[kind] = f"{file}:Mine"
    return named


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The same as a distribution that is installed, with an entry point for each kind."""
    place = tmp_path / "site"
    information = place / "others-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n", encoding="utf-8")
    lines = ["[gradatim.parts]"]
    for kind, text in PARTS.items():
        module = f"others_{kind.replace('/', '_')}"
        (place / f"{module}.py").write_text(text, encoding="utf-8")
        lines.append(f"{kind.replace('/', '.')}.others = {module}:Mine")
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(place))
    parts._entry_points.cache_clear()
    yield dict.fromkeys(PARTS, "others")
    parts._entry_points.cache_clear()


@pytest.mark.parametrize("how", ["files", "installed"])
def test_one_recipe_runs_a_part_of_every_kind(how: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    named = request.getfixturevalue(how)
    assert set(named) == set(parts.kinds()), "a kind of parts that nobody drops in"
    folder = tmp_path / "run"
    run_recipe(recipe(named), folder, progress=Progress(Console(file=io.StringIO())))
    grown = list(TreeStore(folder / "trees" / "round-1.jsonl"))
    scorer = named["scorers"]
    for tree in grown:
        assert sum(leaf.multiplicity for leaf in tree.leaves()) == 4 + 1, "the search and what grows on"
        assert sum("mine" in leaf.notes for leaf in tree.leaves()) == 1, "what grows on"
        for node in tree.nodes[1:]:
            assert node.scores["value"] == 1 / (1 + node.depth), "the values"
            assert scorer in node.scores or "mine" in node.notes or node.children, "the scorer"
    stages: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))["stages"]
    first = sum(len(tree.root.children) for tree in grown)
    assert stages["policy-1"]["examples"] == first - 1, "the construction and the filter"
    assert stages["policy-1"]["what"] == "first steps"
    assert stages["policy-1"]["updates"] > 0, "the objective"
    assert (folder / "policy" / "model.safetensors").is_file()
    (selected,) = (folder / "trees").glob("search-mcts-*.jsonl")
    whys = [node.notes["search"]["why"] for tree in TreeStore(selected) for node in tree.nodes if node.children]
    assert set(whys) == {"it waits"}, "the selection"


@pytest.mark.parametrize("how", ["files", "installed"])
def test_data_are_read_by_parts_that_no_recipe_names(how: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    named = request.getfixturevalue(how)
    path, again = tmp_path / "rows.jsonl", tmp_path / "again.jsonl"
    path.write_text('{"asked": "Q?", "step": "a"}\n{"asked": "Q?", "step": "b"}\n', encoding="utf-8")
    (tree,) = read_published(path, named["store/published"])
    assert [node.scores for node in tree.nodes[1:]] == [{"label": 1.0}] * 2
    assert write_published([tree], again, named["store/published"]) == 2
    assert again.read_text() == path.read_text()
    if how == "installed":
        assert [each.to_json() for each in read_published(path)] == [tree.to_json()], "told by the first row"
    benchmark = make("evaluation/benchmarks", {"name": named["evaluation/benchmarks"], "data": str(path), "limit": 1})
    records = benchmark.records()
    assert [record.labels for record in records] == [(True,)]
    assert benchmark.measure(records, [[0.5]]) == 0.5
