"""What is known of the servers that people run, beyond what OpenAI's API says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ServerKind:
    """One kind of server.

    Attributes:
        matched: the field of a choice that holds the stop string which ended it (or something else where the end of
            the text did); ``None`` where the server does not tell.
        many: whether one request can ask for several choices.
        continues: whether it is known to continue a partial assistant message; where it is not, answers are looked at.
        plain: the settings that switch off what the server or the model's files would do to the distribution unasked,
            so that steps are sampled from the model itself.
    """

    matched: str | None = None
    many: bool = False
    continues: bool = False
    plain: Mapping[str, Any] = field(default_factory=dict)


UNKNOWN = ServerKind()

_KINDS = {  # by what their lists of models call the owner
    "vllm": ServerKind("stop_reason", True, True, {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}),
    "sglang": ServerKind("matched_stop", True, True, {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}),
    "llamacpp": ServerKind(None, False, True, {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}),
}


def kind_of(model: Mapping[str, Any]) -> ServerKind:
    """The kind of server that lists this model."""
    return _KINDS.get(str(model.get("owned_by")), UNKNOWN)
