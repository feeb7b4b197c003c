"""What a tree teaches, as terms of a loss and as rows: one construction a file, each a part."""

from gradatim.supervision.advantage_pairs import AdvantagePairs
from gradatim.supervision.advantages import Advantages, relative
from gradatim.supervision.anchor_advantages import AnchorAdvantages
from gradatim.supervision.base import Construction
from gradatim.supervision.controlled_pairs import ControlledPairs
from gradatim.supervision.convincing_errors import ConvincingErrors
from gradatim.supervision.depth_advantages import DepthAdvantages
from gradatim.supervision.dropped_steps import DroppedSteps
from gradatim.supervision.first_error_pairs import FirstErrorPairs
from gradatim.supervision.generalized_advantages import GeneralizedAdvantages
from gradatim.supervision.internalised_steps import InternalisedSteps
from gradatim.supervision.merged_step_labels import MergedStepLabels
from gradatim.supervision.pruned_solutions import PrunedSolutions
from gradatim.supervision.reference_branches import ReferenceBranches
from gradatim.supervision.right_solutions import RightSolutions
from gradatim.supervision.rows import (
    PreferenceRow,
    PromptCompletionRow,
    RankedRow,
    StepwiseRow,
    UnpairedPreferenceRow,
    advantage_rows,
    labelled_paths,
    preference_rows,
    prompt_completion_rows,
    ranked_rows,
    stepwise_rows,
    unpaired_preference_rows,
)
from gradatim.supervision.self_backtracking import SelfBacktracking
from gradatim.supervision.shorter_solutions import ShorterSolutions
from gradatim.supervision.sibling_advantages import SiblingAdvantages
from gradatim.supervision.sibling_lists import SiblingLists
from gradatim.supervision.sibling_pairs import SiblingPairs
from gradatim.supervision.solution_labels import SolutionLabels
from gradatim.supervision.solution_lists import SolutionLists
from gradatim.supervision.solution_pairs import SolutionPairs
from gradatim.supervision.step_labels import StepLabels
from gradatim.supervision.stream_of_search import StreamOfSearch
from gradatim.supervision.subtree_advantages import SubtreeAdvantages
from gradatim.supervision.terms import Group, Term, labelled_step, margin, pair, path_term
from gradatim.supervision.trajectory_advantages import TrajectoryAdvantages
from gradatim.supervision.value_advantages import ValueAdvantages
from gradatim.supervision.values import has_value

__all__ = [
    "AdvantagePairs",
    "Advantages",
    "AnchorAdvantages",
    "Construction",
    "ControlledPairs",
    "ConvincingErrors",
    "DepthAdvantages",
    "DroppedSteps",
    "FirstErrorPairs",
    "GeneralizedAdvantages",
    "Group",
    "InternalisedSteps",
    "MergedStepLabels",
    "PreferenceRow",
    "PromptCompletionRow",
    "PrunedSolutions",
    "RankedRow",
    "ReferenceBranches",
    "RightSolutions",
    "SelfBacktracking",
    "ShorterSolutions",
    "SiblingAdvantages",
    "SiblingLists",
    "SiblingPairs",
    "SolutionLabels",
    "SolutionLists",
    "SolutionPairs",
    "StepLabels",
    "StepwiseRow",
    "StreamOfSearch",
    "SubtreeAdvantages",
    "Term",
    "TrajectoryAdvantages",
    "UnpairedPreferenceRow",
    "ValueAdvantages",
    "advantage_rows",
    "has_value",
    "labelled_paths",
    "labelled_step",
    "margin",
    "pair",
    "path_term",
    "preference_rows",
    "prompt_completion_rows",
    "ranked_rows",
    "relative",
    "stepwise_rows",
    "unpaired_preference_rows",
]
