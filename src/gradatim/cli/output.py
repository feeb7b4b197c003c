"""What every command writes, and where: results and progress of its own, and nothing of other libraries."""

from __future__ import annotations

import codecs
import logging
import os
import sys
import warnings
from enum import Enum
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape

_LOG_WIDTH = 120
_LIBRARIES = ("accelerate", "datasets", "filelock", "httpx2", "huggingface_hub", "peft", "tokenizers", "torch",
              "transformers", "urllib3", "vllm")  # fmt: skip
_QUIET_ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DATASETS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
_ASCII = {
    "✓": "+", "✗": "x", "✂": "/", "⏎": "/", "…": "...", "×": "x", "→": "->", "–": "-", "—": "-", "−": "-", "±": "+-",
    "≥": ">=", "≤": "<=", "“": '"', "”": '"', "‘": "'", "’": "'", "█": "#", "━": "-", "╸": "-", "╺": "-", "•": "*",
}  # fmt: skip


class Amount(Enum):
    """How much a command says."""

    QUIET = "quiet"  # errors and the result
    NORMAL = "normal"
    VERBOSE = "verbose"  # also other libraries' messages, and tracebacks


_amount = Amount.NORMAL


def set_amount(amount: Amount) -> None:
    """Say how much all that follows writes; other libraries are silenced unless it is verbose."""
    global _amount
    _amount = amount
    if amount is Amount.VERBOSE:
        warnings.simplefilter("default")
        return
    _silence_libraries()
    if amount is Amount.QUIET:
        warnings.simplefilter("ignore")


def is_verbose() -> bool:
    return _amount is Amount.VERBOSE


def result_console() -> Console:
    """For a command's result, on standard output."""
    console = Console()
    # Tables in a log file should not be broken at 80 columns.
    return console if console.is_terminal else Console(width=max(_LOG_WIDTH, console.width))


def progress_console() -> Console:
    """For what is said on the way, which ``--quiet`` leaves out."""
    return Console(quiet=True, force_terminal=False) if _amount is Amount.QUIET else result_console()


def say(kind: str, style: str, sentence: str) -> None:
    """Print ``kind: sentence`` on standard error."""
    Console(stderr=True).print(f"[{style}]{kind}:[/] {escape(sentence)}", highlight=False, soft_wrap=True)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """In the place of :func:`warnings.showwarning`: a warning as one sentence."""
    say("warning", "yellow", str(message))


def silence_process() -> None:
    """Say nothing in a process that helps another one: neither results nor warnings, which the first process says."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (open as long as the process)
    warnings.showwarning = lambda *said, **options: None


def fit_streams() -> None:
    """Write ASCII where a terminal or an encoding can do no more, with other signs in the place of those it lacks."""
    codecs.register_error("gradatim_ascii", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is None:
            continue
        if stream.isatty() and _is_plain_terminal():
            reconfigure(encoding="ascii", errors="gradatim_ascii")
        elif not (stream.encoding or "").lower().replace("-", "").startswith("utf"):
            reconfigure(errors="gradatim_ascii")


def _is_plain_terminal() -> bool:
    locale = next((os.environ[name] for name in ("LC_ALL", "LANG") if os.environ.get(name)), "")
    return os.environ.get("TERM") == "dumb" or locale in {"C", "POSIX"}


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """What an encoding lacks, in ASCII: a sign that looks like it, or its number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_ASCII.get(sign, sign.encode("ascii", "backslashreplace").decode()) for sign in lacking), error.end


def _silence_libraries() -> None:
    """Keep messages and progress bars of other libraries away, whether they are imported already or not yet."""
    for name, value in _QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("transformers.utils.logging", "huggingface_hub.utils", "datasets"):
        module: Any = sys.modules.get(name)
        for switch in ("disable_progress_bar", "disable_progress_bars"):
            if hasattr(module, switch):
                getattr(module, switch)()
                break
