"""The engine against llama.cpp, which many take who have no GPU: 32 branches of one prompt, equal weights in float32.

llama.cpp runs through the batch interface of ``llama-cpp-python``, as its parallel examples use it: the prompt is
computed once, its cached keys and values are shared by sequence ids, and each call computes one token of every branch.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from benchmarks.engine_vs_generate import assert_same
from benchmarks.measure import THREADS, SkippedError, alternate, result
from gradatim.engine.loading import load_tokenizer
from gradatim.policies.base import Sampling
from gradatim.policies.transformers import TransformersPolicy
from gradatim.text.boundaries.delimiter import Delimiter
from gradatim.tree import EndReason, Problem, Step, Tree

MODEL = Path("models/smollm2-135m-instruct")
PREFIX, BRANCHES, NEW = 256, 32, 32
TARGET = 1.0
TEXT = """A farmer has twelve fields. On each of them stand three rows of apple trees, and each row has nine trees. In \
a good year a tree bears forty kilograms of apples, in a bad one fifteen. The farmer sells two thirds of what he \
harvests on the market of the next town, gives a tenth of it to his neighbours, and makes juice of what is left. How \
much juice does he make? Let us think step by step, and write down what we know before we start. """


def run(quick: bool = False) -> list[dict[str, object]]:
    """Both write on greedily behind the 32 likeliest first tokens and must write the same, from logits that agree."""
    torch.set_num_threads(THREADS)
    library, gguf = _library("llama_cpp", "llama-cpp-python"), _library("gguf", "gguf")
    if not MODEL.is_dir():
        raise SkippedError(f"it needs the model in {MODEL}: run `make smollm2` once")
    model: Any = AutoModelForCausalLM.from_pretrained(MODEL).eval()
    tokenizer = load_tokenizer(MODEL)
    prefix = tokenizer(TEXT * 4)["input_ids"][:PREFIX]
    with torch.inference_mode():
        logits = model(torch.tensor([prefix]), use_cache=False).logits[0, -1]
    heads = logits.topk(BRANCHES).indices.tolist()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write_gguf(gguf, model, path)
        peer = LlamaCpp(library, path, model.config.vocab_size, exact=True)
        usual = LlamaCpp(library, path, model.config.vocab_size, exact=False)
    theirs = torch.from_numpy(peer.begin(prefix).copy())
    difference = float((theirs.log_softmax(-1) - logits.log_softmax(-1)).abs().max())
    assert difference < 1e-3, f"the log-probabilities behind the prompt differ by {difference}"
    policy = TransformersPolicy(AutoModelForCausalLM.from_pretrained(MODEL).eval(), tokenizer)
    ends = set(tokenizer.convert_tokens_to_ids([tokenizer.eos_token]))
    ours, written = _engine(policy, prefix, heads), peer.branches(prefix, heads, ends)
    for head, one, other in zip(heads, ours, written, strict=True):
        assert_same(model, [*prefix, head], one, other, ends)
    counts = {"engine": sum(map(len, ours)), "llama.cpp": sum(map(len, written))}
    counts["llama.cpp as it is set"] = sum(map(len, usual.branches(prefix, heads, ends)))
    seconds = alternate(
        {
            "engine": lambda: _engine(policy, prefix, heads),
            "llama.cpp": lambda: peer.branches(prefix, heads, ends),
            "llama.cpp as it is set": lambda: usual.branches(prefix, heads, ends),
        },
        repeats=1 if quick else 5,
    )
    return [
        result(
            "engine_vs_llama_cpp",
            "llama.cpp, batches with a shared prefix",
            seconds["llama.cpp"] / seconds["engine"],
            difference,
            TARGET,
            what=f"{BRANCHES} branches of {NEW} tokens, SmolLM2-135M",
            parameters=model.num_parameters(),
            prefix_tokens=PREFIX,
            branches=BRANCHES,
            tokens_written=counts,
            tokens_per_second={name: round(counts[name] / value, 1) for name, value in seconds.items()},
            seconds=seconds,
            llama_cpp_python=library.__version__,
        )
    ]


def _library(name: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SkippedError(f"it needs the package {package}, which is not installed here") from error


def _engine(policy: TransformersPolicy, prefix: Sequence[int], heads: Sequence[int]) -> list[list[int]]:
    """What the engine writes behind each head, on a fresh tree."""
    tree = Tree(Problem("bench", ""), prompt_tokens=prefix)
    nodes = [tree.add(tree.root, Step((head,), "", (), EndReason.BOUNDARY)) for head in heads]
    sampling = Sampling(temperature=0, max_step_tokens=NEW, boundary=Delimiter(at=("never",)))
    written = [list(node.step.tokens) for node in asyncio.run(policy.extend(nodes, sampling=sampling))]
    policy.release(tree)
    return written


class LlamaCpp:
    """llama.cpp over branches of one prompt.

    Args:
        library: ``llama_cpp``.
        path: of the GGUF file, which may be deleted once it is open.
        vocabulary: the model's.
        exact: compute in float32 throughout; as it is set, keys, values and attention are rounded to float16.
    """

    def __init__(self, library: ModuleType, path: Path, vocabulary: int, *, exact: bool) -> None:
        self._lib: Any = library
        self._vocabulary = vocabulary
        self._quiet = library.llama_log_callback(lambda level, text, data: None)
        library.llama_log_set(self._quiet, ctypes.c_void_p(0))
        library.llama_backend_init()
        self._model = library.llama_model_load_from_file(str(path).encode(), library.llama_model_default_params())
        options = library.llama_context_default_params()
        options.n_ctx = PREFIX + BRANCHES * (NEW + 1)
        options.n_batch = options.n_ubatch = PREFIX
        options.n_seq_max = BRANCHES
        options.n_threads = options.n_threads_batch = THREADS
        if exact:
            options.type_k = options.type_v = library.GGML_TYPE_F32
            options.flash_attn_type = library.LLAMA_FLASH_ATTN_TYPE_DISABLED
        options.kv_unified = True  # what branches share is held and read once
        self._context = library.llama_init_from_model(self._model, options)
        if not self._context:
            raise SkippedError("llama.cpp could not set up its context on this machine")
        self._batch = library.llama_batch_init(PREFIX, 0, 1)

    def begin(self, prefix: Sequence[int]) -> NDArray[np.float32]:
        """Compute a prompt anew and let all branches share it; returns the logits behind it, (vocabulary,)."""
        memory = self._lib.llama_get_memory(self._context)
        self._lib.llama_memory_clear(memory, True)
        count = len(prefix)
        [logits] = self._decode(prefix, range(count), [0] * count, [place == count - 1 for place in range(count)])
        for branch in range(1, BRANCHES):
            self._lib.llama_memory_seq_cp(memory, 0, branch, -1, -1)
        found: NDArray[np.float32] = logits
        return found

    def branches(self, prefix: Sequence[int], heads: Sequence[int], ends: set[int]) -> list[list[int]]:
        """What it writes greedily behind each head, up to an end token."""
        self.begin(prefix)
        written: list[list[int]] = [[] for _ in heads]
        running, last = list(range(len(heads))), list(heads)
        for position in range(len(prefix), len(prefix) + NEW):
            logits = self._decode(last, [position] * len(running), running, [True] * len(running))
            chosen = torch.from_numpy(logits).argmax(-1).tolist()  # several times as quick as numpy's
            for branch, token in zip(running, chosen, strict=True):
                written[branch].append(token)
            running = [branch for branch in running if written[branch][-1] not in ends]
            last = [written[branch][-1] for branch in running]
            if not running:
                break
        return written

    def _decode(
        self, tokens: Sequence[int], positions: Sequence[int], sequences: Sequence[int], asked: Sequence[bool]
    ) -> NDArray[np.float32]:
        """One call: logits at the tokens of which they are asked, (asked, vocabulary)."""
        batch = self._batch
        batch.n_tokens = len(tokens)
        for place, (token, position, sequence, wanted) in enumerate(
            zip(tokens, positions, sequences, asked, strict=True)
        ):
            batch.token[place] = token
            batch.pos[place] = position
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = sequence
            batch.logits[place] = wanted
        assert self._lib.llama_decode(self._context, batch) == 0, "llama.cpp has no room left"
        pointer = ctypes.cast(self._lib.llama_get_logits(self._context), ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(pointer, shape=(sum(asked), self._vocabulary))


def write_gguf(gguf: Any, model: Any, path: Path) -> None:
    """Write a llama model's weights as they are, in float32, without its tokenizer."""
    config = model.config
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.float().numpy()
        count = next((count for part, count in heads.items() if part in name), None)
        if count is not None:  # llama.cpp turns neighbouring dimensions, transformers the two halves of a head
            values = values.reshape(count, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
