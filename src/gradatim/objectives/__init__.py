"""Training objectives: one a file, each a pure function of the quantities of steps."""

from gradatim.objectives.base import Loss, Objective, Quantities, term_sizes
from gradatim.objectives.dpo import Dpo, dpo_loss
from gradatim.objectives.process_reward import ProcessReward, process_reward_loss
from gradatim.objectives.sft import SupervisedFineTuning, sft_loss
from gradatim.objectives.step_dpo import StepDpo

__all__ = [
    "Dpo",
    "Loss",
    "Objective",
    "ProcessReward",
    "Quantities",
    "StepDpo",
    "SupervisedFineTuning",
    "dpo_loss",
    "process_reward_loss",
    "sft_loss",
    "term_sizes",
]
