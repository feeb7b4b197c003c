"""Packed Step-DPO training against TRL's DPOTrainer, on the same step pairs of the same trees.

Both trainers start from the same weights, see the same token ids, use the same reference and the same optimizer; the
losses and gradients of both are compared before anything is timed. TRL reads every pair as two texts (prefix and
step); the packed trainer reads every token of a tree once. How often TRL repeats a token is the *reuse* of a tree, and
trees of several reuses are timed. TRL's headline number has its reference log-probabilities computed beforehand and
not timed; time for packing counts against the packed trainer.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers
from datasets import Dataset, disable_progress_bars
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from benchmarks.measure import THREADS
from gradatim.objectives import StepDpo
from gradatim.supervision.terms import Term, pair
from gradatim.training import TrainingSettings, TreeTrainer, build_row, plan_rows
from gradatim.training.arguments import training_arguments
from gradatim.tree import Node, Problem, Step, Tree

NAME = "training_vs_trl_dpo"
PEER = "trl 1.16 DPOTrainer"
VOCABULARY = 2048
BETA = 0.1
TOKENS_PER_ROW = 1024
TRL_BATCH = 8  # pairs, the default of its settings


@dataclass(frozen=True)
class Shape:
    """A tree whose best step is expanded again and again, and whose other steps are rejected.

    Attributes:
        prompt: tokens of the prompt.
        depth: steps of the solution.
        branch: steps proposed at each place; the first is chosen against each of the others.
        step: tokens of a step.
    """

    prompt: int
    depth: int
    branch: int
    step: int


# Nominal reuse -> a shape that has it. Prompts and depths grow as they do from toy tasks to long solutions.
SHAPES = {
    1: Shape(prompt=8, depth=1, branch=2, step=64),
    2: Shape(prompt=32, depth=2, branch=2, step=24),
    4: Shape(prompt=96, depth=4, branch=2, step=24),
    8: Shape(prompt=192, depth=8, branch=2, step=24),
    16: Shape(prompt=384, depth=8, branch=3, step=24),
}


# Pairs to time: about as much work for TRL at every reuse.
PAIRS = {1: 64, 2: 48, 4: 32, 8: 24, 16: 16}


def make_model() -> LlamaForCausalLM:
    """A Llama of about 16 million parameters with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=2048,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


def make_reference(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """A slightly different model: with the model itself as reference, every DPO loss would be log 2."""
    reference = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.05 * parameter.std() * torch.randn(parameter.shape, generator=generator))
    return reference.eval()


def make_pairs(shape: Shape, count: int) -> list[Term]:
    """At least ``count`` step pairs from as many trees as that takes. Lengths vary by a quarter, as in real trees."""
    source = random.Random(0)
    pairs: list[Term] = []
    while len(pairs) < count:
        tree = Tree(Problem(str(len(pairs)), ""), prompt_tokens=_tokens(source, shape.prompt))
        node = tree.root
        for _ in range(shape.depth):
            steps = [tree.add(node, Step(_tokens(source, shape.step), "")) for _ in range(shape.branch)]
            pairs += [pair(steps[0], other) for other in steps[1:]]
            node = steps[0]
    return pairs


def _tokens(source: random.Random, mean: int) -> tuple[int, ...]:
    return tuple(source.randrange(3, VOCABULARY) for _ in range(source.randint(mean - mean // 4, mean + mean // 4)))


def reuse(pairs: list[Term]) -> float:
    """Tokens that TRL reads for the pairs, without its padding, over tokens in the packed rows."""
    read = sum(len(node.tokens) for term in pairs for node in term.ends)
    rows = plan_rows(pairs, TOKENS_PER_ROW)
    return read / sum(build_row(row).input_ids.shape[0] for row in rows)


@torch.no_grad()
def record(pairs: list[Term], reference: LlamaForCausalLM) -> None:
    """Write the reference's log-probabilities into the trees, one path at a time, as sampling would have."""
    nodes: dict[int, Node] = {id(node): node for term in pairs for node in term.ends}
    for node in nodes.values():
        ids = torch.tensor([node.tokens])
        start = ids.shape[1] - len(node.step.tokens)
        logits = reference(ids, logits_to_keep=len(node.step.tokens) + 1).logits[0, :-1]
        values = torch.log_softmax(logits, -1).gather(-1, ids[0, start:, None])[:, 0]
        node.step = Step(node.step.tokens, "", tuple(values.tolist()))


class TokenizedDPOTrainer(DPOTrainer):
    """TRL's trainer on token ids: text would be tokenized again, and an end token added to every step."""

    def _prepare_dataset(self, dataset: Dataset, *arguments: Any) -> Dataset:
        return dataset


def packed_trainer(model: LlamaForCausalLM, pairs: list[Term], folder: str) -> TreeTrainer:
    settings = TrainingSettings(learning_rate=1e-5, log_every=10, tokens_per_batch=TOKENS_PER_ROW)
    return TreeTrainer(
        model,
        training_arguments(settings, Path(folder)),
        objective=StepDpo(beta=BETA),
        terms=pairs,
        tokens_per_row=TOKENS_PER_ROW,
    )


def trl_trainer(
    model: LlamaForCausalLM,
    reference: LlamaForCausalLM,
    pairs: list[Term],
    folder: str,
    *,
    batch: int,
    precompute: bool,
) -> TokenizedDPOTrainer:
    rows = [
        {
            "prompt_ids": list(chosen.parent.tokens) if chosen.parent else [],
            "chosen_ids": list(chosen.step.tokens),
            "rejected_ids": list(rejected.step.tokens),
        }
        for chosen, rejected in (term.ends for term in pairs)
    ]
    arguments = DPOConfig(
        output_dir=folder,
        beta=BETA,
        learning_rate=1e-5,
        per_device_train_batch_size=batch,
        precompute_ref_log_probs=precompute,
        precompute_ref_batch_size=batch,
        num_train_epochs=1,
        max_length=None,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        save_strategy="no",
        logging_steps=10,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to="none",
    )
    trainer = TokenizedDPOTrainer(
        model, reference, arguments, train_dataset=Dataset.from_list(rows), processing_class=word_tokenizer()
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def word_tokenizer() -> PreTrainedTokenizerFast:
    """TRL asks for a tokenizer; only its padding token is used."""
    from tokenizers import Tokenizer, models

    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"t{i}": i for i in range(3, VOCABULARY)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, "<pad>")),
        pad_token="<pad>", bos_token="<s>", eos_token="</s>",
    )  # fmt: skip


def difference(model: LlamaForCausalLM, reference: LlamaForCausalLM, pairs: list[Term]) -> float:
    """The largest difference of the mean loss and of any weight's gradient (relative to the largest) between both."""
    with tempfile.TemporaryDirectory() as folder:
        packed: Any = packed_trainer(copy.deepcopy(model), pairs, folder)
        trl: Any = trl_trainer(copy.deepcopy(model), reference, pairs, folder, batch=len(pairs), precompute=True)
        batches = list(packed.get_train_dataloader())
        normalizer = packed._get_num_items_in_batch(batches, packed.args.device)
        losses = [packed.compute_loss(packed.model, batch, num_items_in_batch=normalizer) for batch in batches]
        ours = torch.stack(losses).sum()
        theirs = trl.compute_loss(trl.model, next(iter(trl.get_train_dataloader())))
        torch.autograd.backward([ours, theirs])
    worst = float((ours - theirs).detach().abs())
    pairs_of_gradients = zip(packed.model.parameters(), trl.model.parameters(), strict=True)
    gradients = [(first.grad, second.grad) for first, second in pairs_of_gradients]
    scale = max(float(second.abs().max()) for _, second in gradients)
    return max([worst] + [float((first - second).abs().max()) / scale for first, second in gradients])


def packed_seconds(model: LlamaForCausalLM, pairs: list[Term]) -> float:
    """Seconds for one epoch, packing included."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for part in plan_rows(pairs, TOKENS_PER_ROW):
            build_row(part)
        packing = time.perf_counter() - start
        trainer = packed_trainer(copy.deepcopy(model), pairs, folder)
        start = time.perf_counter()
        trainer.train()
        return time.perf_counter() - start + packing


def trl_seconds(
    model: LlamaForCausalLM, reference: LlamaForCausalLM, pairs: list[Term], *, batch: int, precompute: bool
) -> float:
    """Seconds for one epoch, without tokenization and without what was computed beforehand."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = trl_trainer(copy.deepcopy(model), reference, pairs, folder, batch=batch, precompute=precompute)
        start = time.perf_counter()
        trainer.train()
        return time.perf_counter() - start


def memory_per_pair(side: str, nominal: int) -> float:
    """Megabytes by which one update's forward and backward pass raise the peak of a fresh process, per pair."""
    command = [sys.executable, "-m", f"benchmarks.{NAME}", "--measure-memory", side, str(nominal)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output.strip().splitlines()[-1])


def _measure_memory(side: str, nominal: int) -> float:
    """Run in a process of its own. Both sides compute the pairs of one packed row in one forward pass."""
    model = make_model()
    pairs = make_pairs(SHAPES[nominal], 1)
    while (more := make_pairs(SHAPES[nominal], len(pairs) + 1)) and _tokens_packed(more) <= TOKENS_PER_ROW:
        pairs = more
    record(pairs, model)
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as folder:
        trainer: Any
        if side == "packed":
            trainer = packed_trainer(model, pairs, folder)
        else:
            trainer = trl_trainer(model, make_model().eval(), pairs, folder, batch=len(pairs), precompute=True)
            trainer.ref_model = None
        batch = next(iter(trainer.get_train_dataloader()))
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        before = process.memory_info().rss
        trainer.compute_loss(trainer.model, batch).backward()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return float(peak - before) / len(pairs) / 2**20


def _tokens_packed(pairs: list[Term]) -> int:
    return sum(build_row(row).input_ids.shape[0] for row in plan_rows(pairs, 1 << 40))


def measure(nominal: int, *, pair_count: int, repeats: int, memory: bool) -> dict[str, object]:
    """Time both trainers on trees of one reuse."""
    model = make_model()
    reference = make_reference(model)
    pairs = make_pairs(SHAPES[nominal], pair_count)
    record(pairs, reference)
    worst = difference(model, reference, pairs[:8])
    if worst > 1e-4:
        raise AssertionError(f"the trainers disagree by {worst}")
    packed: list[float] = []
    trl: list[float] = []
    for _ in range(repeats):  # in turn, and the best of each: other load on the machine must not decide
        packed.append(packed_seconds(model, pairs))
        trl.append(trl_seconds(model, reference, pairs, batch=TRL_BATCH, precompute=True))
    live = trl_seconds(model, reference, pairs, batch=TRL_BATCH, precompute=False)
    ours, theirs = min(packed), min(trl)
    settings: dict[str, object] = {
        "nominal_reuse": nominal,
        "reuse": round(reuse(pairs), 2),
        "pairs": len(pairs),
        "packed_pairs_per_second": round(len(pairs) / ours, 2),
        "trl_pairs_per_second": round(len(pairs) / theirs, 2),
        "ratio_with_live_reference_model": round(live / ours, 2),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens_per_row": TOKENS_PER_ROW,
        "trl_batch_size": TRL_BATCH,
        "threads": torch.get_num_threads(),
        "repeats": repeats,
    }
    if memory:
        settings["packed_memory_per_pair_mb"] = round(memory_per_pair("packed", nominal), 2)
        settings["trl_memory_per_pair_mb"] = round(memory_per_pair("trl", nominal), 2)
    return {"name": NAME, "peer": PEER, "ratio": round(theirs / ours, 2), "max_difference": worst, "settings": settings}


def run(quick: bool = False) -> list[dict[str, object]]:
    """Measure at reuse 1, 2, 4, 8 and 16 (quick: 1 and 4, fewer pairs, once, no memory)."""
    quiet()
    if quick:
        return [measure(nominal, pair_count=8, repeats=1, memory=False) for nominal in (1, 4)]
    return [measure(nominal, pair_count=PAIRS[nominal], repeats=2, memory=True) for nominal in SHAPES]


def quiet() -> None:
    """Let TRL and transformers say nothing beside the results."""
    torch.set_num_threads(THREADS)
    warnings.simplefilter("ignore", FutureWarning)  # TRL sets a name that transformers calls old
    os.environ["TQDM_DISABLE"] = "1"
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    disable_progress_bars()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--measure-memory", nargs=2, metavar=("SIDE", "REUSE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure_memory:
        quiet()
        print(_measure_memory(options.measure_memory[0], int(options.measure_memory[1])))
        return
    for result in run(options.quick):
        print(json.dumps(result))


if __name__ == "__main__":
    main()
