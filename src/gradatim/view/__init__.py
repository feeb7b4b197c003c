"""Trees for people: in the terminal and as pictures.

The picture needs matplotlib and lives in :mod:`gradatim.view.figure`; nothing here imports it.
"""

from gradatim.view.text import render

__all__ = ["render"]
