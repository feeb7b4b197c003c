"""Where problems come from, what is answered and what is right: one task a file, each a part.

Tasks are imported when they are first asked for.
"""

from typing import TYPE_CHECKING

from gradatim.lazy_names import lazy_names
from gradatim.tasks.base import Task, Verdict, grade, grade_nodes

if TYPE_CHECKING:
    from gradatim.tasks.code import Code
    from gradatim.tasks.countdown import Countdown
    from gradatim.tasks.gsm8k import Gsm8k
    from gradatim.tasks.math import Math
    from gradatim.tasks.multiple_choice import MultipleChoice
    from gradatim.tasks.own import Own
    from gradatim.tasks.records import Records
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
            "Own": "gradatim.tasks.own",
            "Records": "gradatim.tasks.records",
            "WordProblems": "gradatim.tasks.word_problems",
        },
    )

__all__ = [
    "Code",
    "Countdown",
    "Gsm8k",
    "Math",
    "MultipleChoice",
    "Own",
    "Records",
    "Task",
    "Verdict",
    "WordProblems",
    "grade",
    "grade_nodes",
]
