"""What became of the solutions of a stage: how they ended, what is wrong with that, and what to change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gradatim.counts import total_counts
from gradatim.run.context import Run
from gradatim.scorers.verdicts import off_format_counts
from gradatim.search.regrowth.base import REGROWN
from gradatim.tasks.base import Task
from gradatim.tree import EndReason, Node, Tree
from gradatim.values.scored import UNVALUED

STEP_LENGTH, STEPS, CONTEXT, BUDGET = "step length", "steps", "context", "budget"
FINISHED = {
    EndReason.END_OF_TEXT: "end token",
    EndReason.ANSWER: "complete answer",
    EndReason.STOP: "next problem",
}
NO_END = (
    "say what ends a solution where the policy itself does not (solution_end of the task's class, or stop in its file)"
)
_MANY = 0.03  # the share of solutions from which on a run warns of them


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of the solutions that searches drew, over a set of trees; each counts as often as it was drawn.

    Attributes:
        problems: how many were searched.
        asked: how many the recipe asks for.
        failed: how many of those could not be searched to their end.
        solutions: leaves in all.
        right: those of them that the verifier calls right.
        finished: whole solutions, by what ended them.
        cut_off: solutions that a limit ended, by the limit.
        open: leaves that the search left as they are: further steps could follow.
        without_value: leaves without a value, of trees that are grown to learn from.
        repeated: problems of which more than one solution was drawn.
        identical: those of them whose draws are all the same.
    """

    problems: int
    asked: int
    failed: int
    solutions: int
    right: int
    finished: dict[str, int]
    cut_off: dict[str, int]
    open: int
    without_value: int | None
    repeated: int
    identical: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def outcomes_of(
    trees: Sequence[Tree],
    *,
    asked: int,
    max_step_tokens: int,
    max_steps: int,
    value: str | None = None,
    failed: int = 0,
) -> Outcomes:
    """Count what became of the solutions of ``trees``.

    Args:
        trees: graded.
        asked: problems that the recipe asks for.
        max_step_tokens: tokens at which a step was cut off.
        max_steps: steps at which a solution was cut off.
        value: the name of the values that the trees were grown to have.
        failed: problems whose search failed, so that there is no tree of them.
    """
    leaves = [leaf for tree in trees for leaf in tree.leaves() if not leaf.is_root and REGROWN not in leaf.notes]
    finished: Counter[str] = Counter()
    cut_off: Counter[str] = Counter()
    for leaf in leaves:
        if leaf.finished:
            finished[FINISHED[leaf.step.end]] += leaf.multiplicity
        elif leaf.step.end.cuts_off:
            cut_off[limit_of(leaf, max_step_tokens, max_steps)] += leaf.multiplicity
    repeated = [tree for tree in trees if sum(child.multiplicity for child in tree.root.children) > 1]
    return Outcomes(
        problems=len(trees),
        asked=asked,
        failed=failed,
        solutions=_count(leaves),
        right=_count(leaf for leaf in leaves if leaf.correct),
        finished={name: finished[name] for name in FINISHED.values()},
        cut_off={name: cut_off[name] for name in (STEP_LENGTH, STEPS, CONTEXT, BUDGET)},
        open=_count(leaf for leaf in leaves if leaf.open),
        without_value=None if value is None else _count(leaf for leaf in leaves if value not in leaf.scores),
        repeated=len(repeated),
        identical=sum(len(list(tree.leaves())) == 1 for tree in repeated),
    )


def limit_of(leaf: Node, max_step_tokens: int, max_steps: int) -> str:
    """The limit that cut a solution off. Of a step whose tokens nobody knows, the step's length is taken to be it."""
    step = leaf.step
    if step.end is EndReason.BUDGET:
        return BUDGET
    if step.end is EndReason.STEPS:
        return STEPS
    written = len(step.tokens) or len(step.log_probabilities)
    if not written or written >= max_step_tokens:
        return STEP_LENGTH
    # before a limit of steps had its own reason, a whole last step was marked as too long
    return STEPS if leaf.depth >= max_steps else CONTEXT


def note_outcomes(
    run: Run,
    name: str,
    title: str,
    trees: Sequence[Tree],
    split: str,
    *,
    budget_key: str = "evaluation.budget",
    value: str | None = None,
    temperature: float | None = None,
    scored_by: str | None = None,
) -> None:
    """Keep what became of a stage's solutions in its record, with what passes over its trees counted, and warn of what
    is wrong with it.

    Args:
        run: the run.
        name: of the stage.
        title: of the stage, for people.
        trees: that it made.
        split: of the problems.
        budget_key: the recipe's key of what a tree may cost.
        value: the name of the values that the trees were grown to have.
        temperature: at which solutions were sampled, if not the recipe's.
        scored_by: the scorer that was asked for all finished solutions.
    """
    sampling = run.recipe.policy.sampling
    failed: dict[str, str] = run.folder.record(name).get("failed", {})
    outcomes = outcomes_of(
        trees,
        asked=getattr(run.recipe.problems, split),
        max_step_tokens=sampling.max_step_tokens,
        max_steps=sampling.max_steps,
        value=value,
        failed=len(failed),
    )
    drawn_at = sampling.temperature if temperature is None else temperature
    # only another program's draws can be the same by mistake; here a policy may be that sure of its answers
    drawn_elsewhere = run.recipe.policy.is_server or run.recipe.policy.engine == "vllm"
    warnings = [
        f"{title}: {text}"
        for text in warnings_of(
            outcomes, budget_key, varied=drawn_elsewhere and drawn_at > 0, ends=says_what_ends(run.task)
        )
    ]
    if outcomes.solutions > outcomes.open and not outcomes.right:
        warnings.append(f"{title}: {nothing_solved(outcomes, trees)}")
    if failed:
        warnings.append(
            f"{title}: {_share(len(failed), len(trees) + len(failed))} of the problems failed and are missing from all "
            f"figures; run the same command again to try them again (the first is {next(iter(failed))!r}: "
            f"{next(iter(failed.values()))})"
        )
    warnings += [f"{title}: {text}" for text in off_format_warnings(trees)]
    if scored_by is not None:
        warnings += [f"{title}: {text}" for text in unscored_warnings(trees, scored_by)]
    warnings += [f"{title}: {text}" for text in _unvalued_warnings(trees)]
    if outcomes.problems + outcomes.failed < outcomes.asked:
        warnings.append(
            f"problems.{split} asks for {outcomes.asked:,} problems, but there are "
            f"{outcomes.problems + outcomes.failed:,} different ones"
        )
    for text in warnings:
        run.warn(text)
    kept = {"outcomes": outcomes.to_json(), "warnings": warnings, "counts": total_counts(trees)}
    record = run.folder.record(name)
    if any(record.get(key) != content for key, content in kept.items()):
        run.folder.update(name, 0.0, **kept)


def says_what_ends(task: Task) -> bool:
    """Whether a task knows a complete final answer, or a text that ends a solution where the policy writes no end."""
    end = task.solution_end
    return bool(end.line or end.box or end.stop)


def warnings_of(outcomes: Outcomes, budget_key: str, *, varied: bool, ends: bool = True) -> list[str]:
    """What is wrong with how solutions ended, each with what to change.

    Args:
        outcomes: what became of the solutions.
        budget_key: the recipe's key of what a tree may cost.
        varied: whether another program was asked for random draws, so that they should differ.
        ends: whether the task says what ends a solution.
    """
    advice = {
        STEP_LENGTH: ("at the longest step", "raise policy.sampling.max_step_tokens"),
        STEPS: ("at the most steps", "raise policy.sampling.max_steps" + ("" if ends else f", or {NO_END}")),
        CONTEXT: ("at the end of the model's context", "take shorter prompts, or a model with a longer context"),
        BUDGET: ("by the budget", f"raise {budget_key}"),
    }
    total = outcomes.solutions
    found = [
        f"{_share(count, total)} of the solutions were cut off {advice[limit][0]}; {advice[limit][1]}"
        for limit, count in outcomes.cut_off.items()
        if count > _MANY * total
    ]
    if outcomes.without_value is not None and outcomes.without_value > _MANY * total:
        found.append(
            f"{_share(outcomes.without_value, total)} of the leaves have no value and teach nothing, since no solution "
            "was completed from there; set search.rollouts (of the search grow), or take values: [{name: scored, "
            "scorer: rollouts}]"
        )
    if varied and outcomes.repeated and outcomes.identical == outcomes.repeated:
        found.append(
            f"all draws of each of {outcomes.repeated:,} problems are identical although the temperature is above 0; "
            "see whether the server heeds temperature and seed (policy.sampling says what is asked for), or its model "
            "is that sure of its answers"
        )
    return found


def off_format_warnings(trees: Sequence[Tree]) -> list[str]:
    """What judges said that could not be read as a verdict, by kind, each with what to change."""
    found = []
    for name, (kinds, total) in off_format_counts(trees).items():
        if kinds:
            listed = ", ".join(f"{kind} ({count:,})" for kind, count in kinds.most_common())
            found.append(
                f"{_share(kinds.total(), total)} of the judgements of {name!r} are off-format: {listed}; read some "
                "(gradatim show --why) and change the scorer's template or verdict, or raise its max_tokens"
            )
    return found


def unscored_warnings(trees: Sequence[Tree], name: str) -> list[str]:
    """That a scorer left finished solutions without a score, though the budget was not spent."""
    finished = [leaf for tree in trees if not tree.budget.spent for leaf in tree.solutions()]
    unscored = _count(leaf for leaf in finished if name not in leaf.scores)
    if not unscored:
        return []
    return [
        f"{_share(unscored, _count(finished))} of the finished solutions have no score of {name!r}, and rank below all "
        "others; see which (gradatim show --why), and what the scorer needs that they lack"
    ]


def _unvalued_warnings(trees: Sequence[Tree]) -> list[str]:
    """That a scorer gave many steps no value."""
    found = []
    for key in dict.fromkeys(key for tree in trees for key in tree.metadata.get(UNVALUED, {})):
        counts = [tree.metadata[UNVALUED][key] for tree in trees if key in tree.metadata.get(UNVALUED, {})]
        missing, total = (sum(each) for each in zip(*counts, strict=True))
        if missing > _MANY * total:
            found.append(
                f"{_share(missing, total)} of the steps have no value {key!r} and teach nothing: the scorer could "
                "not say it or the budget ended; raise trees.budget, or see which (gradatim show --why)"
            )
    return found


def nothing_solved(outcomes: Outcomes, trees: Sequence[Tree]) -> str:
    """That nothing was solved, and why: the verifier's reasons by count, and an example of the commonest."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for leaf in (leaf for tree in trees for leaf in tree.solutions()):
        reason = leaf.notes.get("verdict", "")
        kind = reason.split(":")[0]
        counts[kind] += 1
        examples.setdefault(kind, f"{leaf.tree.problem.id}: {reason}")
    text = f"nothing was solved, none of {outcomes.solutions:,} solutions is right"
    if not counts:
        return f"{text}, and none was finished"
    kinds = ", ".join(f"{kind} ({count:,})" for kind, count in counts.most_common(4))
    return f"{text}; the verifier says: {kinds}; for instance {examples[counts.most_common(1)[0][0]]}"


def _count(leaves: Iterable[Node]) -> int:
    return sum(leaf.multiplicity for leaf in leaves)


def _share(count: int, total: int) -> str:
    return f"{count:,} of {total:,} ({100 * count / total:.1f} %)"
