"""What is grown on in a tree that was searched and graded, before its values are told: one way a file, each a part."""

from gradatim.search.regrowth.base import Regrowth
from gradatim.search.regrowth.controlled_errors import ControlledErrors
from gradatim.search.regrowth.corrections import Corrections

__all__ = ["ControlledErrors", "Corrections", "Regrowth"]
