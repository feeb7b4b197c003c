"""Calls of the C library that Python has no function for."""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long


def libc(function: str, *arguments: Any) -> int:
    """Call a function of the C library that returns -1 where it fails. Integers are passed as 64 bits.

    Raises:
        OSError: with the error number that the function left, and its name.
    """
    converted = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = getattr(_LIBC, function)(*converted)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), function)
    return result


def prctl(option: int, value: int = 0, address: Any = 0) -> int:
    """``prctl`` of the calling process.

    Raises:
        OSError: if the kernel refuses.
    """
    return libc("prctl", option, value, address, 0, 0)
