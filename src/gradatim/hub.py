"""One quick look at the hub: whether something is there and may be read, before another library tries for a minute.

Whoever loads from the hub looks first. What the hub does not give may still lie in its cache, from where it is loaded
without any request (``local_files_only``).
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from typing import Any, Literal

from gradatim.errors import GradatimError

Kind = Literal["model", "dataset"]

LOOK_SECONDS = 4.0
"""How long a look may take, name look-up included."""

_KEPT_SECONDS = 10.0  # what was seen is taken for granted so long, so that several files of one model cost one look
_LOOKED_FOR = {"model": "config.json", "dataset": "dataset_infos.json"}  # no file that is shown to everybody
_CONNECT = "check the connection"
_ANY: tuple[str, Kind] = ("", "model")  # stands for whatever is looked for
_seen: dict[tuple[str, Kind], tuple[float, Sight]] = {}


@dataclass(frozen=True, slots=True)
class Sight:
    """What a look showed.

    Attributes:
        lack: why the hub does not give it, as a clause: "the hub has no model of that name"; empty if it does.
        remedy: what to do about that.
    """

    lack: str = ""
    remedy: str = ""


_SILENCE = Sight("the hub is silent", _CONNECT)


def look(name: str, kind: Kind = "model") -> Sight:
    """Ask the hub for one file of a model or data set, once and for :data:`LOOK_SECONDS` at most."""
    now = time.monotonic()
    for key in ((name, kind), _ANY):
        if key in _seen and now - _seen[key][0] < _KEPT_SECONDS:
            return _seen[key][1]
    sight = _look(name, kind)
    _seen[_ANY if sight is _SILENCE else (name, kind)] = time.monotonic(), sight
    return sight


def is_hub_id(name: str) -> bool:
    """Whether a name can be one on the hub: ``name`` or ``owner/name``."""
    return re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name, re.ASCII) is not None and ".." not in name and "--" not in name


def cached_file(name: str, *files: str) -> str | None:
    """The place of the first of these files of a model that lies in the hub's cache, if any does."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(name, file) for file in files)
    return next((path for path in found if isinstance(path, str)), None)


def fetched_file(name: str, file: str) -> str | None:
    """The place of a file of a model in the hub's cache, fetched if need be; ``None`` if the model has none.

    Raises:
        GradatimError: if it cannot be fetched.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    if (found := cached_file(name, file)) or look(name).lack:
        return found
    try:
        return hf_hub_download(name, file)
    except EntryNotFoundError:
        return None
    except OSError as error:
        raise GradatimError(f"cannot fetch {file} of {name!r} from the hub ({error}); try again") from error


def _look(name: str, kind: Kind) -> Sight:
    """Look in another thread, since nothing bounds the time that the system takes to look up a host's name."""
    import huggingface_hub.file_download  # noqa: F401  # takes its time, which is not the hub's

    found: list[Sight] = []
    thread = threading.Thread(target=lambda: found.append(_ask(name, kind)), daemon=True)
    thread.start()
    thread.join(LOOK_SECONDS)
    return found[0] if found else _SILENCE


def _ask(name: str, kind: Kind) -> Sight:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        get_hf_file_metadata(hf_hub_url(name, _LOOKED_FOR[kind], repo_type=kind), timeout=2 * LOOK_SECONDS)
    except OfflineModeIsEnabled:
        return Sight("the hub is not asked (HF_HUB_OFFLINE is set)", "unset it")
    except HfHubHTTPError as error:
        return _refused(error, f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}", kind)
    except Exception as error:  # of whichever library makes the connection
        return Sight(f"the hub cannot be reached ({_reason(error)})", _CONNECT)
    return Sight()


def _refused(error: Any, page: str, kind: Kind) -> Sight:
    """What an error status says."""
    from huggingface_hub.errors import (
        DisabledRepoError,
        GatedRepoError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
    )

    status, noun = error.response.status_code, "model" if kind == "model" else "data set"
    if isinstance(error, RemoteEntryNotFoundError):
        return Sight()  # the hub has it, without that file
    if isinstance(error, GatedRepoError):
        return Sight(
            "the hub gives it only to those who accepted its licence",
            f"accept it at {page} and log in with: hf auth login",
        )
    if isinstance(error, RepositoryNotFoundError | DisabledRepoError) or status == 404:
        return Sight(f"the hub has no {noun} of that name", "check the name, or log in if it is private: hf auth login")
    if status in (401, 403):
        return Sight(f"the hub refuses the token (it answers {status})", "log in anew with: hf auth login")
    return Sight(f"the hub answers {status}", "try again later")


def _reason(error: BaseException) -> str:
    """What the deepest error says."""
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
