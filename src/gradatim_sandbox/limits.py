"""What a program in the sandbox may use."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid", use_attribute_docstrings=True))
class SandboxLimits:
    """The resources of one program; a number that cannot be is refused with a ``ValueError``."""

    cpu_seconds: PositiveInt = 5
    """Processor time of all threads of a program. It decides on fast and slow machines alike, so this is what stops a
    program that computes too long."""
    wall_seconds: PositiveFloat = 20.0
    """Time on the clock. It stops programs that wait for nothing; give it room for a loaded machine."""
    memory_bytes: Annotated[int, Field(ge=64 * 2**20)] = 512 * 2**20
    """Address space, the interpreter included, which needs 64 MiB itself. Python raises `MemoryError` at the limit."""
    output_bytes: PositiveInt = 2**20
    """Of standard output and of standard error, each. A program that prints more is stopped."""
    file_bytes: PositiveInt = 16 * 2**20
    """All that a program may keep in its scratch folder."""
    open_files: PositiveInt = 64
    """Files that are open at once."""
    threads: PositiveInt = 64
    """Threads that run at once. Not enforced for an ordinary user without namespaces (memory bounds it there)."""
