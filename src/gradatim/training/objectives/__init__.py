"""Training objectives: one a file, each a pure function of per-step quantities."""

from gradatim.training.objectives.base import Metrics, Objective, StepQuantities
from gradatim.training.objectives.dpo import Dpo, dpo_loss
from gradatim.training.objectives.process_reward import ProcessReward, process_reward_loss
from gradatim.training.objectives.sft import SupervisedFineTuning, sft_loss
from gradatim.training.objectives.step_dpo import StepDpo

__all__ = [
    "Dpo",
    "Metrics",
    "Objective",
    "ProcessReward",
    "StepDpo",
    "StepQuantities",
    "SupervisedFineTuning",
    "dpo_loss",
    "process_reward_loss",
    "sft_loss",
]
