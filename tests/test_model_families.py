"""Every kind of model is exact in engine and training, or refused with a sentence; and the documentation says which."""

from __future__ import annotations

import pytest
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from model_families import LEFT_OUT, PAGE, families, outcome, page_with, table

IN_USE = (
    "llama", "mistral", "mixtral", "ministral", "ministral3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe",
    "gemma", "gemma2", "gemma3", "gemma3_text", "gemma4_text", "phi", "phi3", "phimoe", "gpt2", "gpt_neox",
    "gpt_oss", "opt", "llama4_text", "olmo", "olmo2", "olmo3", "olmoe", "smollm3", "starcoder2", "stablelm",
    "nemotron", "granite", "granitemoe", "cohere", "cohere2", "deepseek_v2", "deepseek_v3", "glm", "glm4",
    "glm4_moe", "exaone4", "helium", "falcon", "gptj",
)  # fmt: skip


@pytest.mark.parametrize("kind", families())
def test_a_model_is_exact_or_refused_with_a_sentence(kind: str) -> None:
    for result in (outcome(kind).engine, outcome(kind).training):
        assert result.difference <= 1e-5
        if result.refused is not None:
            assert result.refused.startswith("models of the type '")
            assert "\n" not in result.refused
            assert result.refused.endswith("; choose a model of another type")


def test_the_kinds_that_people_use_run() -> None:
    """What was exact stays so: a kind that is refused by mistake would pass the test above."""
    refused_by_the_engine = {"falcon", "gptj"}  # whose layers do not let their attention be replaced
    for kind in IN_USE:
        assert outcome(kind).training.refused is None, kind
        assert (outcome(kind).engine.refused is not None) == (kind in refused_by_the_engine), kind


def test_kinds_are_left_out_by_name_only() -> None:
    assert set(LEFT_OUT) <= set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def test_the_documented_table_is_what_is_found() -> None:
    text = PAGE.read_text(encoding="utf-8")
    if f"transformers {transformers.__version__}." not in text:
        pytest.skip("the table is of another version of transformers")
    assert text == page_with(table()), "write the table anew with: python tests/model_families.py"
