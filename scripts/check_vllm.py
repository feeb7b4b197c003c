"""Compare the vLLM policy with the transformers engine on a machine with a GPU.

Both walk the likeliest steps of the same problems; the script compares every step's tokens and why it ended, and the
log-probability of every token. Where the two likeliest tokens are nearly equal, the engines may choose differently:
such a difference is told with the log-probabilities of both choices and counts as a difference. Use float32 to see
whether the policy is right, and the model's own type to see how far apart the kernels are.

    python scripts/check_vllm.py shipped:countdown --dtype float32
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

import torch

from gradatim.errors import GradatimError
from gradatim.policies.base import Policy, Sampling
from gradatim.policies.transformers import TransformersPolicy
from gradatim.policies.vllm import VllmPolicy
from gradatim.tasks.countdown import Countdown
from gradatim.tree import Node, Problem, Tree


async def likeliest_path(policy: Policy, problem: Problem, sampling: Sampling) -> list[Node]:
    """The nodes of the likeliest steps below the root."""
    node = Tree(problem).root
    while node.open and node.depth < sampling.max_steps:
        [node] = await policy.extend([node], sampling=sampling)
    return node.path()[1:]


def difference(problem: Problem, mine: Sequence[Node], engines: Sequence[Node], tolerance: float) -> str | None:
    """What differs first between two paths, or ``None``."""
    for number, (ours, theirs) in enumerate(zip(mine, engines, strict=False), start=1):
        place = f"{problem.id}, step {number}"
        if (ours.step.tokens, ours.step.end) != (theirs.step.tokens, theirs.step.end):
            return (
                f"{place}: the steps differ: vLLM wrote {ours.step.text!r} ({ours.step.end}, "
                f"{sum(ours.step.log_probabilities):.4f}), transformers {theirs.step.text!r} ({theirs.step.end}, "
                f"{sum(theirs.step.log_probabilities):.4f})"
            )
        pairs = zip(ours.step.log_probabilities, theirs.step.log_probabilities, strict=True)
        largest = max(abs(one - other) for one, other in pairs)
        if largest > tolerance:
            return f"{place}: log-probabilities differ by {largest:.2e}, more than {tolerance:.0e}"
    return None if len(mine) == len(engines) else f"{problem.id}: {len(mine)} steps differ from {len(engines)}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a hub id, a folder, or shipped:NAME")
    parser.add_argument("--problems", type=int, default=20, help="countdown problems to compare on")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cuda", help="of the transformers engine")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="largest difference of log-probabilities")
    options = parser.parse_args(arguments)
    sampling = Sampling(temperature=0.0, max_steps=16)
    problems = Countdown().problems("test", options.problems)
    try:
        policies = (
            VllmPolicy.from_pretrained(options.model, dtype=options.dtype, gpu_memory_utilization=0.5),
            TransformersPolicy.from_pretrained(
                options.model, device=options.device, dtype=getattr(torch, options.dtype)
            ),
        )
        mine, engines = (asyncio.run(_paths(policy, problems, sampling)) for policy in policies)
    except GradatimError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = [difference(*each, options.tolerance) for each in zip(problems, mine, engines, strict=True)]
    for line in filter(None, found):
        print(line)
    if any(found):
        print(f"{sum(map(bool, found))} of {len(problems)} problems differ")
        return 1
    print(f"OK: {sum(map(len, mine))} steps of {len(problems)} problems, tokens and log-probabilities alike")
    return 0


async def _paths(policy: Policy, problems: Sequence[Problem], sampling: Sampling) -> list[list[Node]]:
    return await asyncio.gather(*(likeliest_path(policy, problem, sampling) for problem in problems))


if __name__ == "__main__":
    sys.exit(main())
