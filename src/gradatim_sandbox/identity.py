"""Giving up privileges: root becomes a user that owns nothing, or at least loses every capability."""

from __future__ import annotations

import os

from gradatim_sandbox.kernel import prctl

_NOBODY = 65534
_FIRST_OWN_ID = 0x40000000  # far above the ids of people and of containers
_CHANGE_OWNER, _SET_GROUPS, _SET_USERS = 1 << 0, 1 << 6, 1 << 7  # bits of the capabilities
_PR_CAPBSET_READ, _PR_SET_SECUREBITS, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 23, 28, 38, 47
_NO_ROOT_LOCKED = 0b11
_CLEAR_ALL = 4


def free_identity(number: int) -> int | None:
    """A user id that root can take on, or ``None`` where the caller is not root or cannot change.

    Where the machine has enough ids, each program gets one of its own, chosen by ``number``: programs that run at the
    same time then share nothing, not even the limit of threads.
    """
    needed = _CHANGE_OWNER | _SET_GROUPS | _SET_USERS
    if os.geteuid() != 0 or _effective_capabilities() & needed != needed:
        return None
    ids = [line.split() for line in _lines("/proc/self/uid_map")]
    mapped = max(int(first) + int(count) for first, _, count in ids)
    own = _FIRST_OWN_ID + number
    return own if own < mapped else _NOBODY if mapped > _NOBODY else None


def readable_by_all(executable: str) -> bool:
    """Whether any user can run the interpreter: it may lie in a home folder that is closed to others."""
    for file, needed in ((executable, 0o5), (os.path.realpath(os.__file__), 0o4)):
        if os.stat(file).st_mode & needed != needed:
            return False
        while file != "/":
            file = os.path.dirname(file)
            if not os.stat(file).st_mode & 0o1:
                return False
    return True


def is_shared(identity: int) -> bool:
    """Whether other processes may run under ``identity`` too."""
    return identity < _FIRST_OWN_ID


def give_up_privileges(identity: int | None) -> None:
    """Take on ``identity`` if there is one, and make sure that nothing executed from here on has or gains a privilege.
    Irrevocable.

    Raises:
        OSError: if privileges cannot be given up.
    """
    prctl(_PR_CAP_AMBIENT, _CLEAR_ALL)
    if identity is not None:
        os.setgroups([])
        os.setresgid(identity, identity, identity)
        os.setresuid(identity, identity, identity)
    elif os.geteuid() == 0:
        _make_root_ordinary()
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _make_root_ordinary() -> None:
    """What root executes from here on has no capability."""
    try:
        prctl(_PR_SET_SECUREBITS, _NO_ROOT_LOCKED)
    except PermissionError:
        if any(map(_can_be_gained, range(64))):
            raise


def _can_be_gained(capability: int) -> bool:
    try:
        return bool(prctl(_PR_CAPBSET_READ, capability))
    except OSError:  # the kernel knows no such capability
        return False


def _effective_capabilities() -> int:
    for line in _lines("/proc/self/status"):
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _lines(path: str) -> list[str]:
    with open(path) as file:
        return file.readlines()
