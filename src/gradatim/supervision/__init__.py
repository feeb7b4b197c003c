"""Supervision: what a tree teaches, as pure functions from trees to labels, pairs and rows."""

from gradatim.supervision.labels import StepLabel, has_value, step_labels
from gradatim.supervision.pairs import StepPair, path_pairs, sibling_pairs, step_dpo_pairs
from gradatim.supervision.rows import (
    PreferenceRow,
    PromptCompletionRow,
    StepwiseRow,
    UnpairedPreferenceRow,
    labelled_paths,
    preference_rows,
    prompt_completion_rows,
    right_solutions,
    stepwise_rows,
    unpaired_preference_rows,
)

__all__ = [
    "PreferenceRow",
    "PromptCompletionRow",
    "StepLabel",
    "StepPair",
    "StepwiseRow",
    "UnpairedPreferenceRow",
    "has_value",
    "labelled_paths",
    "path_pairs",
    "preference_rows",
    "prompt_completion_rows",
    "right_solutions",
    "sibling_pairs",
    "step_dpo_pairs",
    "step_labels",
    "stepwise_rows",
    "unpaired_preference_rows",
]
