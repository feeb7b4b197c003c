"""What a person sees while a run is going on: one line a stage, alive in a terminal, plain anywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Column

_PLAIN_SECONDS = 30.0  # between two lines where there is no terminal


class StageProgress:
    """The progress of one stage.

    Args:
        title: what is being done.
        total: problems in all, or ``None`` where that is not known.
        done: problems that were done before.
        console: where lines go.
        bar: the terminal's bar, if there is one.
        unit: what is counted, in the plural.
    """

    def __init__(
        self,
        title: str,
        total: int | None,
        done: int,
        console: Console,
        bar: RichProgress | None,
        unit: str = "problems",
    ) -> None:
        self.title = title
        self.unit = unit
        self.total = total
        self.done = self.done_before = done
        self.tokens = 0
        self.remark = ""
        self.started = self._printed = time.perf_counter()
        self._console = console
        self._bar = bar
        self._task: TaskID | None = None
        if bar is not None:
            self._task = bar.add_task(title, total=total, completed=done, remark="")

    def advance(self, tokens: int = 0) -> None:
        """One problem (or whatever is counted) more is done, for which models read and wrote ``tokens``."""
        self.done += 1
        self.tokens += tokens
        self._show()

    def note(self, remark: str) -> None:
        """Say where the stage is, where it does not count problems."""
        self.remark = remark
        self._show()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    @property
    def seconds_left(self) -> float | None:
        """About how long the rest takes at the pace so far; ``None`` where nothing tells."""
        done = self.done - self.done_before
        return None if self.total is None or not done else self.seconds / done * max(0, self.total - self.done)

    def summary(self) -> str:
        """The stage on one line."""
        parts = []
        if self.total is not None:
            before = f" ({self.done_before} of them before)" if self.done_before else ""
            parts.append(f"{self.done:,} of {self.total:,} {self.unit}{before}")
        if self.tokens:
            parts.append(f"{self.tokens:,} tokens, {self.tokens / max(self.seconds, 1e-9):,.0f} tokens/s")
        if self.remark:
            parts.append(self.remark)
        parts.append(f"{self.seconds:.1f} s")
        return f"{self.title}: {', '.join(parts)}"

    def _show(self) -> None:
        if self._bar is not None and self._task is not None:
            rate = f"{self.tokens / max(self.seconds, 1e-9):,.0f} tokens/s" if self.tokens else ""
            self._bar.update(self._task, completed=self.done, remark=", ".join(filter(None, [rate, self.remark])))
        elif self._bar is None and time.perf_counter() - self._printed > _PLAIN_SECONDS:
            self._printed = time.perf_counter()
            left = "" if self.seconds_left is None else f", about {in_words(self.seconds_left)} left"
            self._console.print(f"… {self.summary()}{left}", highlight=False, soft_wrap=True)


def in_words(seconds: float) -> str:
    """A time that is only roughly known: ``40 s``, ``3 min``, ``2 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class Progress:
    """Shows stages one after the other on ``console``."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = Console() if console is None else console

    def line(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Say what a person should change; the text may come from a model and is shown as it is."""
        self.console.print(f"[yellow]warning:[/] {escape(text)}", highlight=False, soft_wrap=True)

    @contextmanager
    def loading(self, what: str) -> Iterator[None]:
        """Say that ``what`` is loaded, while it is; nothing stays on the screen."""
        if self.console.is_terminal:
            with self.console.status(f"Loading {what}"):
                yield
        else:
            yield

    @contextmanager
    def stage(
        self, title: str, total: int | None = None, done: int = 0, *, unit: str = "problems"
    ) -> Iterator[StageProgress]:
        """A stage from its beginning to its end; its summary stays on the screen if it was finished."""
        if not self.console.is_terminal:
            stage = StageProgress(title, total, done, self.console, None, unit)
            yield stage
        else:
            # Where there are remarks, they need the room at 80 columns.
            bar_width = 30 if total is not None and unit == "problems" else 6
            columns = [TextColumn("{task.description}"), BarColumn(bar_width=bar_width), TimeElapsedColumn()]
            if total is not None:
                columns.insert(2, MofNCompleteColumn())
                columns.append(TimeRemainingColumn())
            # a remark has the room that all others leave, and is cut off where it needs more
            rest = Column(no_wrap=True, overflow="ellipsis", ratio=1)
            columns.append(TextColumn("{task.fields[remark]}", table_column=rest))
            with RichProgress(*columns, console=self.console, transient=True, expand=True) as bar:
                stage = StageProgress(title, total, done, self.console, bar, unit)
                yield stage
        self.line(stage.summary())
