"""What a tree teaches, as terms of a loss and as rows: one construction a file, each a part."""

from gradatim.supervision.base import Construction
from gradatim.supervision.convincing_errors import ConvincingErrors
from gradatim.supervision.first_error_pairs import FirstErrorPairs
from gradatim.supervision.merged_step_labels import MergedStepLabels
from gradatim.supervision.right_solutions import RightSolutions
from gradatim.supervision.rows import (
    PreferenceRow,
    PromptCompletionRow,
    StepwiseRow,
    UnpairedPreferenceRow,
    labelled_paths,
    preference_rows,
    prompt_completion_rows,
    stepwise_rows,
    unpaired_preference_rows,
)
from gradatim.supervision.self_backtracking import SelfBacktracking
from gradatim.supervision.sibling_pairs import SiblingPairs
from gradatim.supervision.solution_labels import SolutionLabels
from gradatim.supervision.solution_pairs import SolutionPairs
from gradatim.supervision.step_labels import StepLabels
from gradatim.supervision.stream_of_search import StreamOfSearch
from gradatim.supervision.terms import Group, Term, labelled_step, margin, pair, path_term
from gradatim.supervision.values import has_value

__all__ = [
    "Construction",
    "ConvincingErrors",
    "FirstErrorPairs",
    "Group",
    "MergedStepLabels",
    "PreferenceRow",
    "PromptCompletionRow",
    "RightSolutions",
    "SelfBacktracking",
    "SiblingPairs",
    "SolutionLabels",
    "SolutionPairs",
    "StepLabels",
    "StepwiseRow",
    "StreamOfSearch",
    "Term",
    "UnpairedPreferenceRow",
    "has_value",
    "labelled_paths",
    "labelled_step",
    "margin",
    "pair",
    "path_term",
    "preference_rows",
    "prompt_completion_rows",
    "stepwise_rows",
    "unpaired_preference_rows",
]
