"""All searches there are, for tests that hold for every one of them."""

from __future__ import annotations

from gradatim.part import make, names
from gradatim.search import Search

EVERY_SEARCH: dict[str, Search] = {name: make("search", name) for name in names("search")}
"""Each by its name, with its default options."""
