"""What a program in the sandbox may use."""

from __future__ import annotations

from dataclasses import dataclass

from gradatim.errors import GradatimError

_LEAST_MEMORY = 64 * 2**20


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """The resources of one program.

    Attributes:
        cpu_seconds: processor time of all its threads. It decides on fast and slow machines alike, so this is what
            stops a program that computes too long.
        wall_seconds: time on the clock. It stops programs that wait for nothing; give it room for a loaded machine.
        memory_bytes: address space, interpreter included. Python raises ``MemoryError`` at the limit.
        output_bytes: of standard output and of standard error, each. A program that prints more is stopped.
        file_bytes: all that it may keep in its scratch folder.
        open_files: descriptors.
        threads: those that run at once. Not enforced for an ordinary user without namespaces (memory bounds it there).

    Raises:
        GradatimError: if a limit is not positive, or the memory is too small for the interpreter.
    """

    cpu_seconds: int = 5
    wall_seconds: float = 20.0
    memory_bytes: int = 512 * 2**20
    output_bytes: int = 2**20
    file_bytes: int = 16 * 2**20
    open_files: int = 64
    threads: int = 64

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise GradatimError(f"the sandbox's {name} must be above 0, got {getattr(self, name)}")
        if not isinstance(self.cpu_seconds, int):
            raise GradatimError(f"the sandbox's cpu_seconds must be whole seconds, got {self.cpu_seconds}")
        if self.memory_bytes < _LEAST_MEMORY:
            raise GradatimError(
                f"the sandbox's memory_bytes must be at least {_LEAST_MEMORY} for the interpreter itself, "
                f"got {self.memory_bytes}"
            )
