"""Search: how compute is spent on a problem. One algorithm a file."""

from gradatim.search.beam import beam_search
from gradatim.search.grow import back_up_values, grow
from gradatim.search.many import search_many
from gradatim.search.mcts import mcts
from gradatim.search.sampling import independent_sampling
from gradatim.search.selection import best_of_n, majority, path_score, weighted_majority

__all__ = [
    "back_up_values",
    "beam_search",
    "best_of_n",
    "grow",
    "independent_sampling",
    "majority",
    "mcts",
    "path_score",
    "search_many",
    "weighted_majority",
]
