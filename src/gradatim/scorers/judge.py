"""A language model as judge: it reasons about a step in words, and then gives a verdict."""

from __future__ import annotations

from typing import ClassVar

from gradatim.part import part
from gradatim.scorers.base import Context
from gradatim.scorers.verdicts import VerdictOptions, VerdictScorer
from gradatim.text.prompts import question_of
from gradatim.tree import Node


@part
class JudgePart(VerdictOptions):
    """A judge that writes its reasons before its verdict (StepWiser: Xiong et al., 2025, arXiv:2508.19229).

    Several verdicts that are averaged are the majority voting of generative verifiers (Zhang et al., 2024,
    arXiv:2408.15240). What differs between the steps of a tree stands last in the prompt, so that an engine that caches
    prompts reads the rest once. The task `judgements` asks the same of a policy, which so learns to judge.
    """

    placeholders: ClassVar[tuple[str, ...]] = ("problem", "before", "step", "number")

    template: str = """\
Judge the last step of an unfinished solution: is it right, given the problem and the steps before it? A step is right \
if its reasoning and its calculations are. Write down first what you check. Then end with one line that says either \
"Verdict: correct" or "Verdict: incorrect".

Problem:
{problem}

Solution:
{before}

Step to judge:
{step}

Check:
"""
    """The prompt: the `{problem}`, the steps `{before}`, the `{step}` to judge and its `{number}`, counted from 1."""

    def open(self, context: Context) -> JudgeScorer:
        return JudgeScorer(context.policy(self.model), self)

    def question(self, node: Node) -> str:
        """What a judge is asked about a step."""
        assert node.parent is not None, "the root is no step"
        return self.filled(
            {
                "problem": question_of(node.tree.problem).strip(),
                "before": node.parent.text.strip(),
                "step": node.step.text.strip(),
                "number": str(node.depth),
            }
        )


class JudgeScorer(VerdictScorer):
    """Scores a step by what a judge says of it, who sees the problem and all steps up to it.

    Args:
        policy: the judge.
        options: how it is asked and read.
        account: what is charged; by default what the options say.
    """

    options: JudgePart

    def question(self, node: Node) -> str:
        return self.options.question(node)
