"""What proposes next steps: engines that run a model, servers, and a scripted policy for tests and teaching.

``TransformersPolicy``, ``ServerPolicy`` and ``VllmPolicy`` are imported when they are first asked for.
"""

from typing import TYPE_CHECKING

from gradatim.lazy_names import lazy_names
from gradatim.policies.base import Policy, Sampling
from gradatim.policies.scripted import ScriptedPolicy, ScriptedStep
from gradatim.text.prompts import ChatFormat

if TYPE_CHECKING:
    from gradatim.policies.server import ServerPolicy
    from gradatim.policies.transformers import TransformersPolicy
    from gradatim.policies.vllm import VllmPolicy
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "ServerPolicy": "gradatim.policies.server",
            "TransformersPolicy": "gradatim.policies.transformers",
            "VllmPolicy": "gradatim.policies.vllm",
        },
    )

__all__ = [
    "ChatFormat",
    "Policy",
    "Sampling",
    "ScriptedPolicy",
    "ScriptedStep",
    "ServerPolicy",
    "TransformersPolicy",
    "VllmPolicy",
]
