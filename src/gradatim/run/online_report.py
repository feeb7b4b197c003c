"""What the report says of an online training: its course, against rounds and against the tokens that it generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from gradatim.evaluation import wording
from gradatim.evaluation.page import Section, Table
from gradatim.run.context import Run
from gradatim.run.journal import Journal
from gradatim.run.outcomes import Outcomes
from gradatim.run.stages import ONLINE

_ROWS = 20  # of the table, about, where there are no evaluations


def course(run: Run) -> dict[str, Any] | None:
    """The rounds of a run's online training for its report; ``None`` where it has none.

    ``points`` has a point for each evaluation (without validation problems, for about every twentieth part of the
    rounds): its ``round``, the tokens ``generated`` until then by the policy in growing trees, ``accuracy`` and
    ``reward`` of the solutions since the point before, the mean ``losses`` of what learned, and ``held_out``, the share
    of right solutions of the validation problems.
    """
    online = run.recipe.online
    if online is None:
        return None
    rounds = Journal(run.folder.journal).until(run.recipe.rounds)
    grown = [each for each in rounds if each["round"]]
    every = online.evaluate_every if run.problems("validation") else max(1, len(grown) // _ROWS)
    points, since, generated = [], list[dict[str, Any]](), 0
    for each in rounds:
        if each["round"]:
            since.append(each)
            generated += each["generated"]
        if each["round"] % every == 0 or each is rounds[-1]:
            points.append(
                {"round": each["round"], "generated": generated, **_means(since), "held_out": _held_out(each)}
            )
            since = []
    evaluations = [each["evaluation"] for each in rounds if "evaluation" in each]
    return {
        "points": points,
        "rounds": len(grown),
        "problems": online.problems,
        "generated": generated,
        "tokens": sum(sum(each["tokens"].values()) for each in grown),
        "evaluation_tokens": sum(each["tokens"] for each in evaluations),
        "learned_nothing": sum(not any(entry["updates"] for entry in each["learned"]) for each in grown),
        "rolled_back": {str(each["round"]): each["rolled_back_to"] for each in grown if "rolled_back_to" in each},
        "kept": run.folder.record(ONLINE).get("best_round"),
    }


def summed(rounds: Sequence[Mapping[str, Any]]) -> Outcomes:
    """What became of the solutions of all rounds."""
    total: dict[str, Any] = {}
    for each in rounds:
        for field in fields(Outcomes):
            value = each["outcomes"][field.name]
            if isinstance(value, dict):
                before = total.setdefault(field.name, {})
                total[field.name] = {name: before.get(name, 0) + count for name, count in value.items()}
            else:
                total[field.name] = None if value is None else total.get(field.name, 0) + value
    return Outcomes(**total)


def online_sections(value: Mapping[str, Any]) -> list[Section]:
    """The course of an online training as a section of the page; none where there was no such training."""
    online = value.get("online")
    if online is None:
        return []
    text = (
        f"{online['rounds']:,} rounds of {online['problems']:,} problems, in which the policy generated "
        f"{online['generated']:,} tokens ({online['tokens']:,} were read or written in all); evaluations on validation "
        f"problems read and wrote {online['evaluation_tokens']:,} more. Kept is the state after round "
        f"{online['kept']:,}."
    )
    if online["learned_nothing"]:
        text += f" In {online['learned_nothing']:,} rounds there was nothing to learn from."
    if online["rolled_back"]:
        places = ", ".join(f"{number} to {back}" for number, back in online["rolled_back"].items())
        text += f" Rolled back after rounds: {places}."
    rows = [
        [
            f"{point['round']:,}",
            f"{point['generated']:,}",
            *("" if point[name] is None else f"{wording.percent(point[name])} %" for name in ("held_out", "accuracy")),
            "" if point["reward"] is None else wording.number(point["reward"]),
            ", ".join(f"{name} {wording.number(loss)}" for name, loss in point["losses"].items()),
        ]
        for point in online["points"]
    ]
    header = ["round", "tokens generated", "right, held out", "right, while growing", "reward", "loss"]
    return [Section("Rounds", [text, Table(header, rows)])]


def curves(online: Mapping[str, Any], by: str) -> dict[str, list[tuple[float, float]]]:
    """The lines of the plot of accuracy against ``by``, one of ``round`` and ``generated``."""
    names = {"held out": "held_out", "while growing": "accuracy"}
    lines = {
        label: [(float(point[by]), point[name]) for point in online["points"] if point[name] is not None]
        for label, name in names.items()
    }
    return {label: points for label, points in lines.items() if len(points) > 1}


def _means(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the solutions of some rounds, and over their updates; ``None`` and nothing where there are none."""
    if not rounds:
        return {"accuracy": None, "reward": None, "losses": {}}
    solutions = sum(each["outcomes"]["solutions"] for each in rounds)
    losses: dict[str, list[float]] = {}
    for entry in (entry for each in rounds for entry in each["learned"] if entry["updates"]):
        losses.setdefault(entry["model"], []).append(entry["loss"])
    return {
        "accuracy": sum(each["outcomes"]["right"] for each in rounds) / max(solutions, 1),
        "reward": sum(each["reward"] for each in rounds) / len(rounds),
        "losses": {model: sum(of) / len(of) for model, of in losses.items()},
    }


def _held_out(record: Mapping[str, Any]) -> float | None:
    accuracy: float | None = record.get("evaluation", {}).get("accuracy")
    return accuracy
