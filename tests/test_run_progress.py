"""Progress lines: how much is done, how long the rest takes, and that models are being loaded."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from gradatim.run import progress
from gradatim.run.progress import Progress, in_words


def test_plain_lines_say_how_long_the_rest_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    file = io.StringIO()
    with Progress(Console(file=file, width=120)).stage("Growing", total=10, done=4) as stage:
        now = 60.0
        stage.advance()
        now = 120.0
        stage.advance()
    lines = file.getvalue().splitlines()
    assert lines[0] == "… Growing: 5 of 10 problems (4 of them before), 60.0 s, about 5 min left"
    assert lines[1].endswith("about 4 min left")
    assert "left" not in lines[2]


@pytest.mark.parametrize(("seconds", "words"), [(40.4, "40 s"), (170, "3 min"), (7800, "2 h 10 min")])
def test_times_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_a_terminal_shows_time_left_and_loading() -> None:
    file = io.StringIO()
    shown = Progress(Console(file=file, width=120, force_terminal=True))
    with shown.loading("the model"):
        pass
    with shown.stage("Growing", total=2) as stage:
        stage.advance()
    assert "Loading the model" in file.getvalue()
    assert "-:--:--" in file.getvalue()


def test_rounds_are_counted_as_such_and_a_long_remark_leaves_room_for_what_is_left() -> None:
    file = io.StringIO()
    with Progress(Console(file=file, width=80, force_terminal=True)).stage("Learning", 200, 16, unit="rounds") as stage:
        stage.advance(1000)
        stage.note("reward 0.320, loss 0.1210, best 34.5 % (round 10), 5 of 16 trees")
    seen = file.getvalue()
    assert "17/200" in seen
    assert "-:--:--" in seen
    assert "tokens/s, rew" in seen
    assert "17 of 200 rounds (16 of them before)" in seen
