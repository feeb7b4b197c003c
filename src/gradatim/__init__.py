"""Gradatim: search, score and train language models one step at a time.

``import gradatim`` brings the plain data types; models, tasks and training are imported from their own packages, so
that this import is quick and loads no torch.
"""

from gradatim.budget import Account, Budget
from gradatim.errors import GradatimError
from gradatim.tree import EndReason, Node, Problem, Step, Tree

__version__ = "0.1.0"

__all__ = ["Account", "Budget", "EndReason", "GradatimError", "Node", "Problem", "Step", "Tree", "__version__"]
