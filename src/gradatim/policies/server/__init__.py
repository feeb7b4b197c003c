"""A policy behind HTTP: any server that speaks OpenAI's completions or chat completions."""

from gradatim.policies.server.client import is_server_url
from gradatim.policies.server.policy import ServerPolicy

__all__ = ["ServerPolicy", "is_server_url"]
