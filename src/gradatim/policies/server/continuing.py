"""Whether a server's chat template leaves a message that is to be continued as it was written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

Side = Literal["beginning", "end"]
Count = Callable[[str], Awaitable[int | None]]

_BLANK = " \n\t" * 64  # which no tokenizer takes for a token or two


def lost_blanks(solution: str) -> list[Side]:
    """The sides on which a template that trims messages would take something off a solution."""
    sides: list[Side] = []
    if solution.strip():
        if solution[0].isspace():
            sides.append("beginning")
        if solution[-1].isspace():
            sides.append("end")
    return sides


class Continuing:
    """What is known of one server's template. Templates that trim messages (Llama 3, Gemma) would take the end of the
    last step off the solution so far, so that the model writes it again and each further step is blank."""

    def __init__(self) -> None:
        self._keeps: dict[Side, bool | None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._measuring = asyncio.Lock()  # of that loop

    def known(self, side: Side) -> bool:
        """Whether it is known what the template does on this side."""
        return self._keeps.get(side) is not None

    def learn(self, side: Side, *, keeps: bool) -> None:
        self._keeps[side] = keeps

    async def keeps(self, side: Side, count: Count) -> bool | None:
        """Whether the template keeps blank characters on this side of a message; ``None`` if the counts do not tell.

        Args:
            side: of the message.
            count: the tokens of a conversation with this partial message at its end, by the server. It is asked once.
        """
        if self._loop is not asyncio.get_running_loop():
            self._loop, self._measuring = asyncio.get_running_loop(), asyncio.Lock()
        async with self._measuring:
            if side not in self._keeps:
                self._keeps[side] = await _measure(side, count)
        return self._keeps[side]


async def _measure(side: Side, count: Count) -> bool | None:
    bare = await count("x")
    if bare is None:
        return None
    blank = await count(_BLANK + "x" if side == "beginning" else "x" + _BLANK)
    if blank is None:
        return None
    if blank > bare:
        return True
    within = await count("x" + _BLANK + "x")
    return False if within is not None and within > bare + 1 else None
