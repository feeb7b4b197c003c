"""What a step is worth, over a whole tree; one way a file."""

from gradatim.values.base import Values

__all__ = ["Values"]
