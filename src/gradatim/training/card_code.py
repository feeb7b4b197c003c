"""The code of a model card: how to read a model as it was trained, with ``transformers`` alone and with this library.

A model reads a problem as its training put it, as plain text or as a conversation, and the code says which. What it
gives is what :class:`~gradatim.scorers.process_reward.ProcessRewardScorer` and
:class:`~gradatim.policies.transformers.TransformersPolicy` give.
"""

from __future__ import annotations

from typing import Literal

from gradatim.part import content_of
from gradatim.text.boundaries.base import Boundary
from gradatim.text.prompts import ChatFormat
from gradatim.tree import Problem

PLACE = "path/or/hub-id"
"""Stands for the model: whoever reads the card has it in a folder of their own, or on the hub."""

_PROBABILITIES = {1: "logits[:, 0].sigmoid()", 2: "logits.softmax(dim=-1)[:, 1]"}


def reward_model_use(labels: Literal[1, 2], chat: ChatFormat | None, boundary: Boundary) -> str:
    """How the scores of steps are read from a process reward model."""
    return f'''\
```python
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{PLACE}")
model = AutoModelForTokenClassification.from_pretrained("{PLACE}").eval()


{_prompt_function(chat)}


def step_tokens(step: str) -> list[int]:
    """The tokens that a step has behind a line end, as within a solution."""
    line_end = tokenizer.encode("\\n", add_special_tokens=False)
    tokens = tokenizer.encode("\\n" + step, add_special_tokens=False)
    if line_end and tokens[: len(line_end)] == line_end:
        return tokens[len(line_end) :]
    return tokenizer.encode(step, add_special_tokens=False)


def score_steps({_problem(chat)}: str, steps: list[str], finished: bool = False) -> list[float]:
    """The probability that each step is right.

    Joined, the steps are the solution: each keeps what ends it ({boundary.words}).
    Behind the last one of a finished solution stands the end token.
    """
    tokens, ends = prompt_tokens({_problem(chat)}), []
    for number, step in enumerate(steps, 1):
        tokens = tokens + step_tokens(step)
        if finished and number == len(steps):
            tokens = [*tokens, tokenizer.eos_token_id]
        ends.append(len(tokens) - 1)
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0, ends]
    return {_PROBABILITIES[labels]}.tolist()
```

With Gradatim, as the scorer of a search:

```python
from gradatim.scorers.process_reward import ProcessRewardScorer

scorer = ProcessRewardScorer.from_pretrained("{PLACE}")
```

Served by vLLM, which gives the probabilities of every token (`POST /pooling` with `"task": "token_classify"`):

```sh
vllm serve {PLACE} --runner pooling --convert classify --pooler-config.task token_classify
```'''


def policy_use(chat: ChatFormat | None, boundary: Boundary) -> str:
    """How solutions are sampled from a policy."""
    formats = "" if chat is None else "from gradatim.text.prompts import ChatFormat\n"
    given = "" if chat is None else f", chat={chat!r}"
    return f'''\
```python
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{PLACE}")
model = AutoModelForCausalLM.from_pretrained("{PLACE}").eval()


{_prompt_function(chat)}


def solve({_problem(chat)}: str, max_new_tokens: int = 512, temperature: float = 1.0) -> str:
    """One solution, sampled from the model as it is; with temperature 0 the likeliest tokens."""
    tokens = torch.tensor([prompt_tokens({_problem(chat)})])
    configured = model.generation_config.eos_token_id or []
    ends = {{tokenizer.eos_token_id, *([configured] if isinstance(configured, int) else configured)}}
    how = {{"do_sample": False}}
    if temperature > 0:
        how = {{"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}}
    output = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=max_new_tokens,
        repetition_penalty=1.0,
        eos_token_id=sorted(ends),
        **how,
    )
    return tokenizer.decode(output[0, tokens.shape[1] :], skip_special_tokens=True)
```

With Gradatim, as the policy of a search:

```python
from gradatim.part import make
from gradatim.policies import Sampling
{formats}from gradatim.policies.transformers import TransformersPolicy

boundary = make("text/boundaries", {content_of(boundary)!r})
policy = TransformersPolicy.from_pretrained("{PLACE}", sampling=Sampling(boundary=boundary){given})
```

Served by vLLM:

```sh
vllm serve {PLACE}
```'''


def _problem(chat: ChatFormat | None) -> str:
    """What the functions call what they are given of a problem."""
    return "prompt" if chat is None else "question"


def _prompt_function(chat: ChatFormat | None) -> str:
    if chat is None:
        return '''\
def prompt_tokens(prompt: str) -> list[int]:
    """A problem as the model was trained on it: plain text, which the solution continues."""
    tokens = list(tokenizer(prompt)["input_ids"])
    while len(tokens) > 1 and tokens[-1] == tokenizer.eos_token_id:
        tokens.pop()  # some tokenizers close every text
    return tokens'''
    before = chat.messages(Problem("", ""))[:-1]
    return f'''\
def prompt_tokens(question: str) -> list[int]:
    """A problem as the model was trained on it: a conversation, up to where the answer begins."""
    messages = {[*before, {"role": "user"}]!r}
    messages[-1]["content"] = question
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))'''
