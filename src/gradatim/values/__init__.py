"""What a step is worth, over a whole tree: one way a file, each a part."""

from gradatim.values.base import Values

__all__ = ["Values"]
