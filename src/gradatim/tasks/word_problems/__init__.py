"""Arithmetic word problems over random dependency graphs, with exact truth about every step.

A problem defines quantities by numbers and by each other, in shuffled order and varied words, and asks for one::

    Eve's rings are 3 fewer than Dan's coins. Leo has 5 kites. Dan's coins are 2 times Ann's pens. Ann's pens
    number 7. How many rings does Eve have?
    Dan's coins: Ann's pens 7 * 2 = 14
    Eve's rings: Dan's coins 14 - 3 = 11
    Answer: 11

Some quantities are distractors: the question does not depend on them. A step is wrong if it uses what is not known
yet or not what the problem defines, copies a number wrongly, or calculates wrongly; the oracle tells which. (After
iGSM: Ye et al., *Physics of Language Models: Part 2.1*, 2024.)
"""

from gradatim.tasks.word_problems.generation import Difficulty
from gradatim.tasks.word_problems.oracle import StepJudgement, StepKind
from gradatim.tasks.word_problems.task import WordProblems, make_problem

__all__ = ["Difficulty", "StepJudgement", "StepKind", "WordProblems", "make_problem"]
