"""What of the terms that constructions give is learned from: one filter a file, each a part."""

from gradatim.supervision.filters.base import Filter

__all__ = ["Filter"]
