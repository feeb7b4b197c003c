"""A whole beam search against that of ThinkBooster (github.com/IINemo/thinkbooster), its own code, on transformers.

Its folder is named by the environment variable ``THINKBOOSTER``. Two things of it are made here: its transformers
generator lacks the method by which its beam asks for candidates (it has that for one path, which is called for each),
and its library of uncertainty measures, of which nothing runs here, is only named where it is imported.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from benchmarks.beam_vs_rereading import (
    BRANCH,
    DEPTH,
    PROMPT,
    STEP,
    WIDTH,
    make_policy,
    searched,
    written_tokens,
)
from benchmarks.measure import (
    THREADS,
    VOCABULARY,
    SkippedError,
    alternate,
    llama_config,
    random_model,
    random_trees,
    result,
    teacher_forced_difference,
    word_tokenizer,
)
from gradatim.scorers.base import StepScorer
from gradatim.search.beam import Beam
from gradatim.tree import Node, Tree

TARGET = 2.0
_NAMED_ONLY = (
    "latex2sympy2",
    "lm_polygraph",
    "lm_polygraph.estimators",
    "lm_polygraph.estimators.estimator",
    "lm_polygraph.generation_metrics",
    "lm_polygraph.generation_metrics.alignscore_utils",
    "lm_polygraph.generation_metrics.generation_metric",
    "lm_polygraph.stat_calculators",
    "lm_polygraph.stat_calculators.extract_claims",
    "lm_polygraph.utils",
    "lm_polygraph.utils.api_with_uncertainty",
    "lm_polygraph.utils.generation_parameters",
    "lm_polygraph.utils.token_restoration",
)


class Even(StepScorer):
    """Finds all steps equally good, so that only the search is measured."""

    async def judged(self, nodes: Sequence[Node]) -> list[float | None]:
        return [0.0] * len(nodes)

    def release(self, tree: Tree) -> None:
        pass


def run(quick: bool = False) -> list[dict[str, object]]:
    """One problem, and four at once. Both searches write as many tokens, in steps of one length, and all candidates
    are equally good to both. Ratios are of the time for a written token."""
    torch.set_num_threads(THREADS)
    peer = ThinkBooster()
    return [_compare(peer, problems, repeats=1 if quick else 3) for problems in (1, 4)]


def _compare(peer: ThinkBooster, problems: int, repeats: int) -> dict[str, object]:
    policy, scorer = make_policy(), Even("even")
    search = Beam(width=WIDTH, branch=(1, BRANCH))  # ThinkBooster begins with as few

    def ours() -> list[Tree]:
        return asyncio.run(searched(policy, scorer, problems, search))

    trees, before = ours(), policy.statistics.tokens
    ours()
    written = {"tree": sum(map(written_tokens, trees))}
    computed = {"tree": policy.statistics.tokens - before}
    prompts = [list(tree.root.tokens) for tree in random_trees(problems, PROMPT)]
    written["thinkbooster"], computed["thinkbooster"] = peer.beam(prompts)
    expected = problems * (BRANCH + WIDTH * BRANCH * (DEPTH - 1)) * STEP
    assert all(abs(each / expected - 1) < 0.1 for each in written.values()), f"not {expected} tokens: {written}"
    difference = max(teacher_forced_difference(peer.model, node) for tree in trees[:2] for node in tree.leaves())
    assert difference < 1e-4, f"recorded log-probabilities differ from the model's by {difference}"
    seconds = alternate({"tree": ours, "thinkbooster": lambda: peer.beam(prompts)}, repeats)
    each = {name: seconds[name] / written[name] for name in written}
    return result(
        "beam_vs_thinkbooster",
        "ThinkBooster's StrategyBeamSearch on transformers",
        each["thinkbooster"] / each["tree"],
        difference,
        TARGET,
        what=f"{problems} problem{'s' * (problems > 1)} at once",
        parameters=peer.model.num_parameters(),
        width=WIDTH,
        branch=BRANCH,
        depth=DEPTH,
        prompt_tokens=PROMPT,
        step_tokens=STEP,
        seconds=seconds,
        tokens_written=written,
        tokens_computed_for_a_written_one={name: round(computed[name] / written[name], 2) for name in written},
        tokens_per_second={name: round(1 / value, 1) for name, value in each.items()},
    )


class ThinkBooster:
    """Its beam on a random model of 16M parameters, every step of which has one length.

    Raises:
        SkippedError: where it is not there, or cannot be imported.
    """

    def __init__(self) -> None:
        folder = os.environ.get("THINKBOOSTER")
        if not folder:
            raise SkippedError("name the folder of a copy of github.com/IINemo/thinkbooster by THINKBOOSTER=FOLDER")
        sys.path.append(folder)
        sys.modules.update({name: _Named(name) for name in _NAMED_ONLY})
        try:
            beam = importlib.import_module("llm_tts.strategies.strategy_beam_search")
            generators = importlib.import_module("llm_tts.generators.huggingface")
            detectors = importlib.import_module("llm_tts.step_boundary_detectors")
        except ImportError as error:
            raise SkippedError(f"ThinkBooster needs what is not installed here ({error})") from error
        logging.getLogger("llm_tts").setLevel(logging.ERROR)
        self.model: Any = random_model(AutoModelForCausalLM, llama_config("16M"))
        self.computed = 0
        self.model.register_forward_pre_hook(self._count, with_kwargs=True)
        self.tokenizer = word_tokenizer(VOCABULARY)
        self.tokenizer.chat_template = "{{ messages[0]['content'] }}"
        self.tokenizer.model_input_names = ["input_ids", "attention_mask"]
        never: Any = {"step_patterns": ["never"], "answer_patterns": ["never"], "eos_patterns": ["<eos>"]}
        generator = _with_batches(generators.StepCandidateGeneratorThroughHuggingface)(
            model=self,
            detector=detectors.StructuredStepDetector(**never, max_tokens_per_step=STEP),
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            max_new_tokens=STEP,
            max_length=2048,
            disable_thinking_mode=False,  # True writes an empty thought before the answer
            generation_batch_size=WIDTH * BRANCH,
        )
        self.generator = generator
        self.search = beam.StrategyBeamSearch(
            generator, scorer=None, beam_size=WIDTH, candidates_per_beam=BRANCH, max_steps=DEPTH
        )

    def beam(self, prompts: list[list[int]]) -> tuple[int, int]:
        """Search from these prompts; returns how many tokens were written, and how many the model computed."""
        self.computed, self.generator.written = 0, 0
        self.search.generate_trajectories_batch(
            [[{"role": "user", "content": self.tokenizer.decode(prompt)}] for prompt in prompts]
        )
        return self.generator.written, self.computed

    def _count(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.computed += kwargs["input_ids"].numel()

    # What it asks of a model.

    def device(self) -> torch.device:
        return torch.device("cpu")

    def generate(self, **options: Any) -> Any:
        return self.model.generate(**options)


class _Named(ModuleType):
    """A module of which any name can be imported and nothing used."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def _with_batches(generator: Any) -> Any:
    """ThinkBooster's generator with the method that its beam calls: each path in turn, as its other searches do."""

    class Generator(generator):
        written = 0

        def generate_step_candidates_batch(
            self, requests: Any, trajectories: Any, candidates_per_step: int = 1, **ignored: Any
        ) -> list[Any]:
            found = [
                self.generate_step_candidates(request, trajectory, candidates_per_step)
                for request, trajectory in zip(requests, trajectories, strict=True)
            ]
            self.written += sum(len(candidate.token_ids) for candidates in found for candidate in candidates)
            return found

    return Generator
