"""A tiny random model of every kind that transformers loads as a causal language model, and what Gradatim does with it.

Run as a program, this writes the table of the page ``docs/model-families.md``.
"""

from __future__ import annotations

import inspect
import random
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from gradatim.engine.branch_batch import BranchBatch
from gradatim.engine.self_check import checked_tree_model
from gradatim.engine.tree_model import TreeModel
from gradatim.errors import GradatimError
from gradatim.supervision.terms import Group, Term
from gradatim.training.forward import token_log_probabilities
from gradatim.training.rows import build_row
from gradatim.training.self_check import blockwise_attention, check_training
from gradatim.tree import Node, Problem, Step, Tree

PAGE = Path(__file__).resolve().parents[1] / "docs" / "model-families.md"
VOCABULARY = 64

# Under every name that configurations have for a size; each configuration takes those that it knows.
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "vocab_size_per_layer_input": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "sliding_window": 5, "attention_chunk_size": 6,
    **dict.fromkeys(("hidden_size", "n_embd", "d_model"), 32),
    **dict.fromkeys(("intermediate_size", "intermediate_size_mlp", "ffn_dim", "d_ff", "decoder_ffn_dim"), 48),
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"), 2
    ),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads", "num_experts",
         "encoder_attention_heads", "num_local_experts", "n_routed_experts", "linear_num_value_heads",
         "mamba_dt_rank", "rotary_dim"), 4,
    ),
    **dict.fromkeys(
        ("num_key_value_heads", "num_experts_per_tok", "linear_num_key_heads", "mamba_expand"), 2
    ),
    **dict.fromkeys(
        ("head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "linear_key_head_dim", "mamba_d_head",
         "linear_value_head_dim", "mamba_d_state", "mamba_n_heads", "state_size", "hidden_size_per_layer_input",
         "chunk_size"), 8,
    ),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("n_group", "topk_group", "n_groups", "mamba_n_groups", "first_k_dense_replace",
                     "n_shared_experts"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 128),
    "mamba_d_ssm": 64,
}  # fmt: skip

_MIXED = {"layer_types": ["sliding_attention", "full_attention"]}
_TWICE_MIXED = {"layer_types": _MIXED["layer_types"] * 2, "num_hidden_layers": 4, "num_kv_shared_layers": 2}
_GLOBAL = {"global_head_dim": 16, "num_global_key_value_heads": 1}
_SHARDS = {"image_size": 16, "patch_size": 8, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
           "num_attention_heads": 4}  # fmt: skip
# What a kind needs beside the sizes, to be whole and to show all that it does.
_MORE: dict[str, dict[str, Any]] = {
    "cohere2": _MIXED,
    "cohere2_moe": _MIXED,
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10_000.0, "clip_qkv": 8.0},
             "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2}},
    "exaone4": _MIXED,
    "gemma3_text": _MIXED,
    "gemma3n_text": _TWICE_MIXED | {"activation_sparsity_pattern": [0.0] * 4, "laurel_rank": 4,
                                    "intermediate_size": [48] * 4},
    "gemma4_text": _TWICE_MIXED | _GLOBAL,
    "gemma4_unified_text": _GLOBAL,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "llama4_text": {"layer_types": ["chunked_attention", "full_attention"], "no_rope_layers": [1, 0]},
    "longcat_flash": {"ffn_hidden_size": 32, "expert_ffn_hidden_size": 16, "zero_expert_num": 2, "moe_topk": 2,
                      "num_layers": 1, "head_dim": 8},
    "mamba2": {"num_heads": 8, "expand": 2},
    "minicpm3": {"scale_emb": 1, "dim_model_base": 32},
    "ministral3": {
        "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "beta_fast": 32.0,
                            "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
                            "original_max_position_embeddings": 4},
    },
    "moshi": {"sliding_window": 100},  # read when the model is made only, so that it cannot be narrowed to be checked
    "olmo3": _MIXED,
    "qwen2": {"use_sliding_window": True, "max_window_layers": 1},
    "qwen3": {"use_sliding_window": True, "max_window_layers": 1},
    "roc_bert": {"pronunciation_vocab_size": 9, "shape_vocab_size": 9, "pronunciation_embed_dim": 8,
                 "shape_embed_dim": 8},
    "smollm3": {"no_rope_layers": [1, 0]},
    "xlm": {"emb_dim": 32},
    "xmod": {"default_language": "en_XX"},
    "zamba2": {"layer_types": ["linear_attention", "hybrid"]},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip
# Models of text and pictures: the kind of their text model, and their other parts.
_AROUND: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma3": ("gemma3_text", {"vision_config": _SHARDS | {"model_type": "siglip_vision_model"}}),
    "gemma4": ("gemma4_text", {"vision_config": None, "audio_config": None}),
    "llama4": ("llama4_text", {}),
    "qwen3_5": ("qwen3_5_text", {"vision_config": None}),
}

LEFT_OUT = (
    "blt", "cohere_compass_text", "dots3_note", "dots3_note_text", "emu3", "fuyu", "gemma3n", "gemma4_assistant",
    "gemma4_unified", "gemma4_unified_assistant", "git", "got_ocr2", "mllama", "moss_transcribe_diarize", "musicgen",
    "musicgen_melody", "phi4_multimodal", "qwen3_5_moe", "qwen4_exp", "reformer", "zamba",
)  # fmt: skip
"""Kinds that no small configuration is known of here."""


def families() -> list[str]:
    """The kinds of the table."""
    return sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(LEFT_OUT))


def config_of(kind: str, **more: Any) -> Any:
    """A tiny configuration of a kind of models, with ``more`` set."""
    config_class = CONFIG_MAPPING[kind]
    if kind in _AROUND:
        text, others = _AROUND[kind]
        return config_class(text_config=config_of(text).to_dict(), **others | more)
    known = set(inspect.signature(config_class.__init__).parameters)
    known |= set(getattr(config_class, "__dataclass_fields__", ()))
    sizes = {name: size for name, size in _SIZES.items() if name in known}
    if "qk_rope_head_dim" in known:  # the size of a head is the sum of two parts, and keys are not shared
        sizes.pop("head_dim", None)
        sizes["num_key_value_heads"] = 4
    return config_class(**sizes | _MORE.get(kind, {}) | more)


def model_of(kind: str, **more: Any) -> Any:
    """A tiny random model of a kind, in evaluation mode, its weights large enough that context matters."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(kind, **more))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.2)
    return model.eval()


@dataclass(frozen=True)
class Outcome:
    """What became of a kind of models in one of the two ways to run it.

    Attributes:
        refused: the whole error; ``None`` where the model runs.
        difference: the largest difference of a log-probability from that over the path alone; 0 where it was refused.
    """

    refused: str | None
    difference: float

    @property
    def summary(self) -> str:
        """What the table says."""
        if self.refused is None:
            return "exact"
        reason = self.refused.split(": ", 1)[1].removesuffix("; choose a model of another type")
        return "refused: " + re.sub(r" \([^()]*(\([^()]*\))?[^()]*\)", "", reason)  # without figures


@dataclass(frozen=True)
class Family:
    """What became of a kind of models."""

    engine: Outcome
    training: Outcome

    @property
    def training_summary(self) -> str:
        """What the table says of training, beside what it says of the engine."""
        same = self.training.refused is not None and self.training.summary == self.engine.summary
        return "refused as well" if same else self.training.summary


@cache
def outcome(kind: str) -> Family:
    """What becomes of a tiny model of a kind."""
    return outcome_of(lambda: model_of(kind))


def outcome_of(make: Callable[[], Any]) -> Family:
    """Run a model, if it is not refused, and compare it with reading each path alone; ``make`` makes it anew."""
    model = make()
    tree = _tree()
    training = _outcome(lambda: check_training(model), lambda: _training_difference(model, tree))
    engine = _outcome(lambda: _run(model), lambda: _engine_difference(model, tree, make()))
    return Family(engine, training)


def _outcome(check: Callable[[], object], difference: Callable[[], float]) -> Outcome:
    try:
        check()
    except GradatimError as error:
        return Outcome(str(error), 0.0)
    return Outcome(None, difference())


def _run(model: Any) -> TreeModel:
    return checked_tree_model(model, 1 << 30)


def _tree() -> Tree:
    """A tree whose paths pass every window and chunk of the tiny models."""
    source = random.Random(1)

    def step(length: int) -> Step:
        return Step(tuple(source.randrange(5, VOCABULARY - 4) for _ in range(length)), "")

    tree = Tree(Problem("p", ""), prompt_tokens=step(5).tokens)
    near, far = tree.add(tree.root, step(2)), tree.add(tree.root, step(7))
    for parent, length in ((near, 6), (near, 3), (far, 1), (far, 5)):
        tree.add(parent, step(length))
    return tree


def _alone(model: Any, tokens: list[int]) -> Tensor:
    """Log-probabilities after each token of a path, (tokens, vocabulary)."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    return torch.as_tensor(logits.log_softmax(-1))


def _training_difference(model: Any, tree: Tree) -> float:
    nodes = tree.nodes[1:]
    expected = []
    for node in nodes:
        following = torch.tensor(node.step.tokens)
        distributions = _alone(model, node.tokens)[-len(following) - 1 : -1]
        expected.append(distributions.gather(-1, following[:, None])[:, 0])
    row = build_row([Term((Group((node,)),)) for node in nodes])
    with torch.no_grad():
        found = [token_log_probabilities(model, row)]
        with blockwise_attention(model):
            found.append(token_log_probabilities(model, row))
    return max(float((each - torch.cat(expected)).abs().max()) for each in found)


def _engine_difference(model: Any, tree: Tree, plain: Any) -> float:
    """The largest difference at each node's end and along branches that go on below each parent of leaves."""
    tree_model = _run(model)
    ends: list[Node] = [node for node in tree.nodes if node.depth == 1]
    differences = []
    for node, states in zip(ends, tree_model.compute(ends), strict=True):
        outputs = tree_model.outputs(states[-1].hidden[-1:])
        differences.append(outputs[0].log_softmax(-1) - _alone(plain, node.tokens)[-1])
    batch = BranchBatch(tree_model)
    paths = []
    for number, node in enumerate(ends * 2):
        paths.append([*node.tokens, 7 + number])
        batch.join(tree, node, tree_model.compute([node])[0], paths[-1][-1])
    for _ in range(5):
        for path, logits in zip(paths, batch.step(), strict=True):
            differences.append(logits.log_softmax(-1) - _alone(plain, path)[-1])
            path.append(path[-1] + 9)
        batch.continue_with([path[-1] for path in paths])
    return max(float(difference.abs().max()) for difference in differences)


def table() -> str:
    """The table of the page, in Markdown."""
    rows = [(kind, outcome(kind)) for kind in families()]
    lines = [
        f"Verified with transformers {transformers.__version__}.",
        "",
        "| model type | engine and reward models | training |",
        "|---|---|---|",
        *(f"| `{kind}` | {row.engine.summary} | {row.training_summary} |" for kind, row in rows),
    ]
    return "\n".join(lines) + "\n"


def page_with(table: str) -> str:
    """The page, with ``table`` in the place of its own."""
    text = PAGE.read_text(encoding="utf-8")
    return text[: text.index("Verified with transformers")] + table


if __name__ == "__main__":
    PAGE.write_text(page_with(table()), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
