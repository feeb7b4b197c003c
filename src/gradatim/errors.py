"""The one exception that users see: a clear sentence that says what is wrong and what to do."""

from __future__ import annotations


class GradatimError(Exception):
    """Something the user can put right: bad input, a bad recipe, a missing extra, a full disk.

    The message is one sentence (or two) without a traceback's help; the command line prints it as it is and exits
    with status 1.
    """
