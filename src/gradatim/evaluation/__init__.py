"""Metrics, intervals, comparison at equal compute, benchmarks of step scoring, plots and reports.

The plots need matplotlib and live in :mod:`gradatim.evaluation.plots`; nothing here imports it.
"""

from gradatim.evaluation.benchmarks.base import StepBenchmark
from gradatim.evaluation.benchmarks.best_of_n import BestOfN, BestOfNResult, best_of_n_selection
from gradatim.evaluation.benchmarks.labelled_steps import LabelledSteps, LabelledStepsResult, labelled_steps
from gradatim.evaluation.benchmarks.mp_bench import MpBench, MpBenchResult, mp_bench
from gradatim.evaluation.benchmarks.prmbench import Prmbench, PrmBenchResult, prmbench
from gradatim.evaluation.benchmarks.process_bench import ProcessBench, ProcessBenchResult, process_bench
from gradatim.evaluation.bootstrap import (
    Estimate,
    bootstrap_difference,
    bootstrap_mean,
    bootstrap_ratio,
    bootstrap_share,
    bootstrap_statistic,
    clustered_auc,
)
from gradatim.evaluation.compare import (
    Cost,
    MethodResult,
    accuracy_at_tokens,
    curves,
    estimated_flops,
    mean_spending,
    method_result,
    spending_of,
    tokens_to_reach,
)
from gradatim.evaluation.metrics import (
    FirstErrorScore,
    Sample,
    accuracy_at,
    auc,
    best_of_n,
    best_threshold,
    first_below,
    first_error_f1,
    majority,
    weighted_majority,
)
from gradatim.evaluation.policies import PolicyResult, policy_result, samples_of
from gradatim.evaluation.record_scoring import ScoreFile, model_digest, score_records
from gradatim.evaluation.report import Report
from gradatim.evaluation.step_records import StepRecord
from gradatim.evaluation.steps import (
    ScoredStates,
    StepScoreResult,
    Thresholds,
    choose_thresholds,
    scored_states,
    step_score_result,
)
from gradatim.proportions import pass_at_k

__all__ = [
    "BestOfN",
    "BestOfNResult",
    "Cost",
    "Estimate",
    "FirstErrorScore",
    "LabelledSteps",
    "LabelledStepsResult",
    "MethodResult",
    "MpBench",
    "MpBenchResult",
    "PolicyResult",
    "PrmBenchResult",
    "Prmbench",
    "ProcessBench",
    "ProcessBenchResult",
    "Report",
    "Sample",
    "ScoreFile",
    "ScoredStates",
    "StepBenchmark",
    "StepRecord",
    "StepScoreResult",
    "Thresholds",
    "accuracy_at",
    "accuracy_at_tokens",
    "auc",
    "best_of_n",
    "best_of_n_selection",
    "best_threshold",
    "bootstrap_difference",
    "bootstrap_mean",
    "bootstrap_ratio",
    "bootstrap_share",
    "bootstrap_statistic",
    "choose_thresholds",
    "clustered_auc",
    "curves",
    "estimated_flops",
    "first_below",
    "first_error_f1",
    "labelled_steps",
    "majority",
    "mean_spending",
    "method_result",
    "model_digest",
    "mp_bench",
    "pass_at_k",
    "policy_result",
    "prmbench",
    "process_bench",
    "samples_of",
    "score_records",
    "scored_states",
    "spending_of",
    "step_score_result",
    "tokens_to_reach",
    "weighted_majority",
]
