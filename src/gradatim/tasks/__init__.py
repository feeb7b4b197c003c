"""Where problems come from, how text divides into steps, and how an answer is verified.

Tasks are imported when they are first asked for.
"""

from typing import TYPE_CHECKING

from gradatim.lazy_names import lazy_names
from gradatim.tasks.base import Task, Verdict, grade, grade_node

if TYPE_CHECKING:
    from gradatim.tasks.code import Code
    from gradatim.tasks.countdown import Countdown
    from gradatim.tasks.gsm8k import Gsm8k
    from gradatim.tasks.loading import load_own_task
    from gradatim.tasks.math import Math
    from gradatim.tasks.multiple_choice import MultipleChoice
    from gradatim.tasks.own import OwnTask
    from gradatim.tasks.word_problems import WordProblems
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "Code": "gradatim.tasks.code",
            "Countdown": "gradatim.tasks.countdown",
            "Gsm8k": "gradatim.tasks.gsm8k",
            "Math": "gradatim.tasks.math",
            "MultipleChoice": "gradatim.tasks.multiple_choice",
            "OwnTask": "gradatim.tasks.own",
            "WordProblems": "gradatim.tasks.word_problems",
            "load_own_task": "gradatim.tasks.loading",
        },
    )

__all__ = [
    "Code",
    "Countdown",
    "Gsm8k",
    "Math",
    "MultipleChoice",
    "OwnTask",
    "Task",
    "Verdict",
    "WordProblems",
    "grade",
    "grade_node",
    "load_own_task",
]
