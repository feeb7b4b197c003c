"""A policy behind HTTP: any server that speaks OpenAI's completions or chat completions."""

from typing import TYPE_CHECKING

from gradatim.lazy_names import lazy_names
from gradatim.policies.server.options import ServerOptions, is_server_url

if TYPE_CHECKING:
    from gradatim.policies.server.policy import ServerPolicy
else:
    __getattr__ = lazy_names(__name__, {"ServerPolicy": "gradatim.policies.server.policy"})

__all__ = ["ServerOptions", "ServerPolicy", "is_server_url"]
