"""The one exception that users see: a clear sentence that says what is wrong and what to do."""

from __future__ import annotations


class GradatimError(Exception):
    """Something the user can put right: bad input, a bad recipe, a missing extra, a full disk.

    The message is one sentence (or two) without a traceback's help; the command line prints it and exits with status 1.

    Args:
        message: the sentence. Advice names arguments as Python writes them: ``api='chat'``, or ``max_step_tokens``
            alone where no value is advised.
        options: those arguments, exactly as they stand in the message, so that the command line can put its own words
            in their place (``--set policy.server.api=chat``; see ``gradatim.cli.advice``).
    """

    def __init__(self, message: str, *, options: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.options = options


class ProblemError(GradatimError):
    """One problem cannot be worked on to its end, and the others can.

    A server's answer stayed malformed however often it was asked for, or a prompt is longer than the model's context. A
    run counts the problem as failed and goes on with the others; any other :class:`GradatimError` ends the run.
    """


class HelperError(GradatimError):
    """What is wrong in one of several processes that train together, and not in the first of them."""
