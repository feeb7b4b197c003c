"""Running untrusted Python programs: one process each, without network, the user's files or more than its share.

A launcher (a fresh interpreter, so that threaded parents are safe) shuts itself in, starts the program as its only
child, waits for it and reports how it ended. Protection comes in layers, each of which the kernel enforces:

- *system calls* (``system_calls.py``): a list of what a program may ask of the kernel. No sockets, no further
  processes, no signals to others, no folders or links, no change of permissions.
- *namespaces* (``namespaces.py``), where the machine allows them: a file system in which only the interpreter and an
  empty scratch folder exist, an empty network, a process tree that dies as one.
- *Landlock* (``landlock.py``): the same file rules without namespaces, as inside most containers.
- *resource limits* (``launcher.py``): processor time, memory, file sizes, open files, threads.
- *identity* (``identity.py``): root becomes nobody, and no privilege can be gained.

The launcher starts once for every program, so its modules import little: no ``typing``, ``dataclasses`` or ``json``.

System calls and limits are always in force, and namespaces or Landlock besides; where a machine has neither, programs
are refused with a :class:`SandboxError`. What a program prints or exits with is data; nothing that it does can be taken
for a report.
"""

from gradatim_sandbox.limits import SandboxLimits
from gradatim_sandbox.run import Channel, Execution, SandboxError, run_program, sandbox_layers

__all__ = ["Channel", "Execution", "SandboxError", "SandboxLimits", "run_program", "sandbox_layers"]
