"""Published data sets of step labels, read as trees and written from them: one format a file, each a part."""

from gradatim.records import MalformedRecordError
from gradatim.store.published.answers import final_answer
from gradatim.store.published.base import PublishedFormat, TreeBuilder
from gradatim.store.published.math_aps import MathAps
from gradatim.store.published.math_shepherd import MathShepherd
from gradatim.store.published.omegaprm import OmegaPrm
from gradatim.store.published.prm800k import Prm800k
from gradatim.store.published.reading import read_published
from gradatim.store.published.rlhflow import RlhFlow
from gradatim.store.published.stepwise import StepwiseSupervision
from gradatim.store.published.writing import write_published

__all__ = [
    "MalformedRecordError",
    "MathAps",
    "MathShepherd",
    "OmegaPrm",
    "Prm800k",
    "PublishedFormat",
    "RlhFlow",
    "StepwiseSupervision",
    "TreeBuilder",
    "final_answer",
    "read_published",
    "write_published",
]
