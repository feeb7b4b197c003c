"""A stand-in for the ``vllm`` package: the parts of it that the policy uses, in vLLM's shapes, over transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: Sequence[int]
    cumulative_logprob: float | None
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool = True


@dataclass(kw_only=True)
class SamplingParams:
    """The parameters that the policy sets, with vLLM's defaults and checks."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int | None = 16
    seed: int | None = None
    logprobs: int | None = None
    stop: list[str] | None = None
    include_stop_str_in_output: bool = False
    detokenize: bool = True

    def __post_init__(self) -> None:
        if self.stop and not self.detokenize:
            raise ValueError("stop strings are only supported when detokenize is True.")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}.")


class LLM:
    """Writes one token after the other, without any cache.

    Attributes:
        rounds: how many requests each call of ``generate`` had.
        options: what it was made with.
        extra: tokens written after a stop string, as engines do that check it late.
        fails: what the next call raises.
    """

    def __init__(self, model: Any, tokenizer: Any = None, **options: Any) -> None:
        if isinstance(model, str):
            tokenizer = AutoTokenizer.from_pretrained(model)
            model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        self.model, self.tokenizer, self.options = model, tokenizer, options
        self.rounds: list[int] = []
        self.extra = 0
        self.fails: Exception | None = None
        self.llm_engine = SimpleNamespace(
            model_config=SimpleNamespace(hf_config=model.config, max_model_len=model.config.max_position_embeddings)
        )

    def generate(
        self, prompts: Sequence[Any], sampling_params: Sequence[SamplingParams], *, use_tqdm: bool = True
    ) -> list[RequestOutput]:
        assert len(prompts) == len(sampling_params)
        assert not use_tqdm
        if self.fails is not None:
            raise self.fails
        self.rounds.append(len(prompts))
        return [
            RequestOutput(prompt["prompt_token_ids"], [self._complete(prompt["prompt_token_ids"], parameters)])
            for prompt, parameters in zip(prompts, sampling_params, strict=True)
        ]

    @torch.inference_mode()
    def _complete(self, prompt: list[int], parameters: SamplingParams) -> CompletionOutput:
        generator = torch.Generator().manual_seed(parameters.seed or 0)
        tokens: list[int] = []
        entries: list[dict[int, Logprob]] = []
        text, finish, matched, late = "", None, None, self.extra
        while finish is None or (matched is not None and late):
            late -= matched is not None
            logits = self.model(torch.tensor([[*prompt, *tokens]])).logits[0, -1].float()
            if parameters.temperature == 0:
                token = int(logits.argmax())
            else:
                token = int(torch.multinomial((logits / parameters.temperature).softmax(-1), 1, generator=generator))
            tokens.append(token)
            entries.append({token: Logprob(float(logits.log_softmax(-1)[token]))})
            if matched is not None:
                continue
            text = self.tokenizer.decode(tokens, skip_special_tokens=True)
            matched = next((stop for stop in parameters.stop or [] if stop in text), None)
            if matched is not None or token == self.tokenizer.eos_token_id:
                finish = "stop"
            elif (
                len(tokens) == parameters.max_tokens
                or len(prompt) + len(tokens) >= self.llm_engine.model_config.max_model_len
            ):
                finish = "length"
        return CompletionOutput(
            0, text, tokens, None, entries if parameters.logprobs is not None else None, finish, matched
        )
