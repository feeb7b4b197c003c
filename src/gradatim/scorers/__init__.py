"""What judges a step while a search runs: one scorer a file, each a part.

``ProcessRewardScorer`` is imported when it is first asked for.
"""

from typing import TYPE_CHECKING

from gradatim.lazy_names import lazy_names
from gradatim.scorers.base import Scorer
from gradatim.scorers.rollouts import RolloutScorer

if TYPE_CHECKING:
    from gradatim.scorers.process_reward import ProcessRewardScorer
else:
    __getattr__ = lazy_names(__name__, {"ProcessRewardScorer": "gradatim.scorers.process_reward"})

__all__ = ["ProcessRewardScorer", "RolloutScorer", "Scorer"]
