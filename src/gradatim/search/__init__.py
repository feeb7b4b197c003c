"""How compute is spent on a problem: one search a file, each a part."""

from gradatim.search.a_star import AStarSearch
from gradatim.search.ab_mcts import AbMcts
from gradatim.search.backtracking import Backtracking
from gradatim.search.base import Search
from gradatim.search.beam import Beam
from gradatim.search.best_first import BestFirstSearch
from gradatim.search.choosing import (
    best_of_majority,
    best_of_majority_k,
    best_of_n,
    by_answer,
    give_answers,
    majority,
    weighted_majority,
)
from gradatim.search.controlled_decoding import ControlledDecoding
from gradatim.search.correction import Correction
from gradatim.search.deepconf import DeepConf
from gradatim.search.dvts import Dvts
from gradatim.search.early_stopping import EarlyStopping
from gradatim.search.grow import Grow
from gradatim.search.lookahead import Lookahead
from gradatim.search.many import search_many
from gradatim.search.mcts import Mcts
from gradatim.search.momentum import Momentum
from gradatim.search.particles import Particles
from gradatim.search.phi_decoding import PhiDecoding
from gradatim.search.pool import Pool
from gradatim.search.ranking import path_score
from gradatim.search.rebase import Rebase
from gradatim.search.sampling import IndependentSampling
from gradatim.search.self_backtracking import SelfBacktrackingSearch
from gradatim.search.vg_search import VgSearch

__all__ = [
    "AStarSearch",
    "AbMcts",
    "Backtracking",
    "Beam",
    "BestFirstSearch",
    "ControlledDecoding",
    "Correction",
    "DeepConf",
    "Dvts",
    "EarlyStopping",
    "Grow",
    "IndependentSampling",
    "Lookahead",
    "Mcts",
    "Momentum",
    "Particles",
    "PhiDecoding",
    "Pool",
    "Rebase",
    "Search",
    "SelfBacktrackingSearch",
    "VgSearch",
    "best_of_majority",
    "best_of_majority_k",
    "best_of_n",
    "by_answer",
    "give_answers",
    "majority",
    "path_score",
    "search_many",
    "weighted_majority",
]
