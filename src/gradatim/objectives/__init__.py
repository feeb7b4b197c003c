"""What a training minimizes: one loss a file, each a part, a pure function of what a model says of steps."""

from typing import TYPE_CHECKING

from gradatim.lazy_names import lazy_names
from gradatim.objectives.advantage_calibrated import AdvantageCalibrated
from gradatim.objectives.base import Loss, Objective
from gradatim.objectives.contribution import Contribution
from gradatim.objectives.direct_advantage import DirectAdvantage
from gradatim.objectives.dpo import Dpo
from gradatim.objectives.full_step_dpo import FullStepDpo
from gradatim.objectives.hidden_verifier import HiddenVerifier
from gradatim.objectives.implicit_reward import ImplicitReward
from gradatim.objectives.ipo import Ipo
from gradatim.objectives.kto import Kto, kto_loss
from gradatim.objectives.oreo import Oreo
from gradatim.objectives.path_contrast import PathContrast, odds_ratio_loss
from gradatim.objectives.policy_gradient import PolicyGradient, clipped_surrogate
from gradatim.objectives.preference import Preference, dpo_loss
from gradatim.objectives.process_reward import ProcessReward
from gradatim.objectives.ranking import Ranking, comparison_loss
from gradatim.objectives.sft import Sft
from gradatim.objectives.step_dpo import StepDpo
from gradatim.objectives.step_judgement import judgement_loss
from gradatim.objectives.svpo import Svpo
from gradatim.objectives.tgdpo import Tgdpo
from gradatim.objectives.tpo import Tpo, lambda_loss, plackett_luce_loss
from gradatim.objectives.value import Value

if TYPE_CHECKING:
    from gradatim.objectives.quantities import Quantities, TermIndex
else:
    _MODULE = "gradatim.objectives.quantities"
    __getattr__ = lazy_names(__name__, {"Quantities": _MODULE, "TermIndex": _MODULE})

__all__ = [
    "AdvantageCalibrated",
    "Contribution",
    "DirectAdvantage",
    "Dpo",
    "FullStepDpo",
    "HiddenVerifier",
    "ImplicitReward",
    "Ipo",
    "Kto",
    "Loss",
    "Objective",
    "PathContrast",
    "Oreo",
    "PolicyGradient",
    "Preference",
    "ProcessReward",
    "Quantities",
    "Ranking",
    "Sft",
    "StepDpo",
    "Svpo",
    "TermIndex",
    "Tgdpo",
    "Tpo",
    "Value",
    "clipped_surrogate",
    "comparison_loss",
    "dpo_loss",
    "judgement_loss",
    "kto_loss",
    "lambda_loss",
    "odds_ratio_loss",
    "plackett_luce_loss",
]
