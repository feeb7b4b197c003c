"""Reward models in the published layouts score as their authors' own code does, on models made here.

The expected scores follow the code of each model card: write the whole solution, run the model once, read the marks.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from gradatim.errors import GradatimError
from gradatim.scorers.layouts import (
    DialogueLayout,
    OwnLayout,
    SeparatorLayout,
    StepTagLayout,
    StepTokenLayout,
    ValueHeadLayout,
)
from gradatim.scorers.loading import (
    LAYOUT_FILE,
    LAYOUTS,
    detect_layout,
    load_scoring_model,
    write_layout_file,
)
from gradatim.scorers.process_reward import ProcessRewardScorer
from gradatim.text.prompts import ChatFormat
from gradatim.text.transcript import Transcript, own_tokens, tokenized
from gradatim.training.adapters import add_adapters
from gradatim.training.saving import save_process_reward_model
from gradatim.training.settings import LoraSettings
from gradatim.tree import EndReason, Node, Problem, Step, Tree
from tiny_models import byte_pair_tokenizer, tiny_causal, tiny_classifier

QUESTION = "Ann has 3 apples and buys 4 more. How many?"
STEPS = ["She begins with 3.\n", "She buys 4, so 3 + 4 = 7.\n", "The answer is 7.\n"]
OTHER = "She buys 4, so 3 + 4 = 8.\n"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chat_tokenizer(*more: str) -> PreTrainedTokenizerFast:
    tokenizer = byte_pair_tokenizer([QUESTION, *STEPS, OTHER], size=320)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", *more]})
    tokenizer.chat_template = CHATML
    return tokenizer


def sentence_piece_tokenizer() -> PreTrainedTokenizerFast:
    """Puts a space before what it is given, as the tokenizers of Llama 2 and Mistral do."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", behavior="isolated"),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="first")
    tagged = f"{QUESTION} " + "\n".join(f"Step {i}: {step.strip()} ки" for i, step in enumerate([*STEPS, OTHER], 1))
    trainer = trainers.BpeTrainer(vocab_size=250, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator([tagged + " + - ки + -"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>", unk_token="<unk>")


def saved(tokenizer: Any, folder: Path) -> Any:
    """The tokenizer as it is loaded for the model of the folder (a Qwen model has Qwen's rules for dividing text)."""
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def text_tree() -> Tree:
    """Two solutions that share their first step, as text."""
    tree = Tree(Problem("p", f"{QUESTION}\n", data={"question": QUESTION}))
    first = tree.add(tree.root, Step((), STEPS[0]))
    right = tree.add(first, Step((), STEPS[1]))
    tree.add(right, Step((), STEPS[2], end=EndReason.END_OF_TEXT))
    wrong = tree.add(first, Step((), OTHER))
    tree.add(wrong, Step((), STEPS[2], end=EndReason.END_OF_TEXT))
    return tree


def score(scorer: ProcessRewardScorer, tree: Tree) -> dict[int, float]:
    async def run() -> None:
        for node in tree.nodes[1:]:  # one at a time, as a search does
            await scorer.score([node])

    asyncio.run(run())
    return {node.id: node.scores[scorer.name] for node in tree.nodes[1:]}


def outputs(model: Any, tokens: list[int]) -> torch.Tensor:
    model.set_attn_implementation("eager")
    with torch.no_grad():
        result: torch.Tensor = model(torch.tensor([tokens])).logits[0].float()
    return result


def check(folder: Path, expected: Callable[[list[str]], list[float]], *, layout: str) -> ProcessRewardScorer:
    """The scores of every step of the tree are those of ``expected``, which reads whole solutions."""
    scorer = ProcessRewardScorer.from_pretrained(folder)
    assert scorer.layout is not None
    assert scorer.layout.name == layout
    tree = text_tree()
    found = score(scorer, tree)
    for leaf in tree.leaves():
        path = leaf.path()[1:]
        wanted = expected([node.step.text for node in path])
        assert [found[node.id] for node in path] == pytest.approx(wanted, abs=1e-5)
    assert len(set(found.values())) == len(found)
    assert tree.budget.read("scorer") == scorer.statistics.tokens, "each token is read once"
    return scorer


def test_a_special_token_after_each_step_with_a_two_way_head(tmp_path: Path) -> None:
    """Qwen2.5-Math-PRM: ``<extra_0>`` after each step, softmax over two labels, a head with a hidden layer."""
    tokenizer = chat_tokenizer("<extra_0>")
    model = tiny_classifier("qwen2", labels=2, vocabulary=len(tokenizer))
    size = model.config.hidden_size
    torch.manual_seed(1)
    model.score = torch.nn.Sequential(torch.nn.Linear(size, size), torch.nn.ReLU(), torch.nn.Linear(size, 2))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["Qwen2ForProcessRewardModel"]
    config["auto_map"] = {
        "AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel"
    }  # remote code, which we do not run
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokenizer = saved(tokenizer, tmp_path)
    mark = tokenizer.convert_tokens_to_ids("<extra_0>")

    def expected(steps: list[str]) -> list[float]:
        messages = [
            {"role": "system", "content": "Please reason step by step, and put your final answer within \\boxed{}."},
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": "<extra_0>".join(step.strip() for step in steps) + "<extra_0>"},
        ]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
        tokens = tokenizer.encode(text)
        probabilities = outputs(model, tokens).softmax(dim=-1)[:, 1]
        return [float(probabilities[place]) for place, token in enumerate(tokens) if token == mark]

    check(tmp_path, expected, layout="step-token")


def test_step_tags_scored_by_plus_against_minus(tmp_path: Path) -> None:
    """Math-Shepherd: ``ки`` after each step of one text, the language model's logits of + and - there."""
    tokenizer = sentence_piece_tokenizer()
    model = tiny_causal("mistral", vocabulary=len(tokenizer))
    model.config.sliding_window = None
    model.save_pretrained(tmp_path / "shepherd")
    tokenizer = saved(tokenizer, tmp_path / "shepherd")
    good, bad, tag = (tokenizer.convert_tokens_to_ids(mark) for mark in ("▁+", "▁-", "▁ки"))

    def expected(steps: list[str]) -> list[float]:
        output = "\n".join(f"Step {number}: {step.strip()} ки" for number, step in enumerate(steps, 1))
        tokens = tokenizer.encode(f"{QUESTION} {output}")
        weights = outputs(model, tokens)[:, [good, bad]].softmax(dim=-1)[:, 0]
        return [float(weights[place]) for place, token in enumerate(tokens) if token == tag]

    check(tmp_path / "shepherd", expected, layout="step-tag")


def test_a_dialogue_that_answers_plus_or_minus(tmp_path: Path) -> None:
    """RLHFlow: a user's turn for each step, an assistant's "+" after it; read where the answer is predicted."""
    tokenizer = chat_tokenizer()
    model = tiny_causal("llama_grouped", vocabulary=len(tokenizer), positions=512)
    model.save_pretrained(tmp_path / "tiny-prm")
    tokenizer = saved(tokenizer, tmp_path / "tiny-prm")
    good, bad = (tokenizer.encode(mark)[-1] for mark in "+-")

    def expected(steps: list[str]) -> list[float]:
        conversation: list[dict[str, str]] = []
        scores = []
        for number, step in enumerate(steps):
            content = f"{QUESTION} {step.strip()}" if number == 0 else step.strip()
            conversation += [{"role": "user", "content": content}, {"role": "assistant", "content": "+"}]
            tokens = tokenizer.apply_chat_template(conversation, return_dict=False)
            # ... <|im_start|>assistant \n | + <|im_end|> \n: what predicts the "+" stands before it
            place = len(tokens) - len(tokenizer.encode("+<|im_end|>\n")) - 1
            scores.append(float(outputs(model, tokens)[place, [good, bad]].softmax(dim=-1)[0]))
        return scores

    check(tmp_path / "tiny-prm", expected, layout="dialogue")


def test_token_classification_after_a_separator(tmp_path: Path) -> None:
    """TRL's PRMTrainer: prompt and steps tokenized apart, a separator after each step, label 1 is right."""
    tokenizer = byte_pair_tokenizer([QUESTION, *STEPS], size=320)
    model = tiny_classifier("llama", labels=2, vocabulary=len(tokenizer))
    model.save_pretrained(tmp_path)
    tokenizer = saved(tokenizer, tmp_path)

    def expected(steps: list[str]) -> list[float]:
        tokens, places = tokenizer.encode(f"{QUESTION}\n"), []
        for step in steps:
            tokens += tokenizer.encode(step.rstrip("\n")) + tokenizer.encode("\n")
            places.append(len(tokens) - 1)
        return [float(value) for value in outputs(model, tokens).softmax(dim=-1)[places, 1]]

    check(tmp_path, expected, layout="separator")


def test_a_value_head_at_step_ends(tmp_path: Path) -> None:
    """Skywork-o1-Open-PRM: a causal model's weights with ``v_head.summary``, sigmoid at each step's line end."""
    tokenizer = byte_pair_tokenizer([QUESTION, *STEPS], size=320)
    tokenizer.bos_token = "<pad>"
    model = tiny_classifier("qwen2", vocabulary=len(tokenizer))
    causal = tiny_causal("qwen2", vocabulary=len(tokenizer))
    causal.model.load_state_dict(model.model.state_dict())
    weights = dict(causal.state_dict())
    weights["v_head.summary.weight"], weights["v_head.summary.bias"] = model.score.weight, model.score.bias
    causal.config.architectures = ["Qwen2ForPrmModel"]
    causal.save_pretrained(tmp_path, state_dict=weights)
    config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": ["Qwen2ForPrmModel"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokenizer = saved(tokenizer, tmp_path)

    def expected(steps: list[str]) -> list[float]:
        tokens, places = tokenizer.encode(f"<pad>{QUESTION}\n"), []
        for step in "".join(steps).strip().split("\n"):
            tokens += [*tokenizer.encode(step), tokenizer.encode("\n")[-1]]
            places.append(len(tokens) - 1)
        return [float(value) for value in outputs(model, tokens)[places, 0].sigmoid()]

    check(tmp_path, expected, layout="value-head")


@pytest.mark.parametrize("chat", [None, ChatFormat(system="Be brief.", examples=(("1 + 1?", "2"),))])
def test_a_model_trained_here_reads_text_as_it_reads_its_own_tokens(tmp_path: Path, chat: ChatFormat | None) -> None:
    tokenizer = chat_tokenizer()
    model = tiny_classifier("llama", vocabulary=len(tokenizer))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    write_layout_file(tmp_path, chat)
    scorer = ProcessRewardScorer.from_pretrained(tmp_path)
    assert isinstance(scorer.layout, OwnLayout)
    texts = text_tree()
    found = score(scorer, texts)

    prompt = scorer.layout.path_tokens(texts.problem, ())
    tree = Tree(texts.problem, prompt_tokens=prompt)
    for node in texts.nodes[1:]:
        tokens = tokenizer.encode(node.step.text) + ([tokenizer.eos_token_id] if node.finished else [])
        assert node.parent is not None
        tree.add(tree.nodes[node.parent.id], Step(tuple(tokens), node.step.text, end=node.step.end))
    passes = scorer.statistics.tokens
    assert score(scorer, tree) == pytest.approx(found, abs=1e-6)
    assert (
        tree.budget.read("scorer") == scorer.statistics.tokens - passes == sum(len(n.step.tokens) for n in tree.nodes)
    )


def test_a_path_that_is_no_continuation_is_read_anew() -> None:
    """A layout whose tokens change with what follows is still read exactly."""

    def path_tokens(problem: Problem, steps: Any) -> list[int]:
        return [4, *(10 + len(step.text) % 7 for step in steps), len(steps)]  # the last token is another each time

    tree = text_tree()
    transcript = Transcript(path_tokens)
    for node in tree.nodes:
        counterpart: Node = transcript.counterpart(node)
        assert counterpart.tokens == path_tokens(tree.problem, [each.step for each in node.path()[1:]])
        assert counterpart.tree.budget is tree.budget
    assert len(transcript.forget(tree)) > 1
    assert transcript.forget(tree) == []


def observed_tree() -> Tree:
    """As :func:`text_tree`, and the environment answers each step but one, the first twice in the same way."""
    tree = Tree(Problem("p", f"{QUESTION}\n", data={"question": QUESTION}))
    first = tree.add(tree.root, Step((), STEPS[0], observation_text="3 = 3\n"))
    right = tree.add(first, Step((), STEPS[1], observation_text="3 + 4 = 7\n"))
    tree.add(right, Step((), STEPS[2], end=EndReason.END_OF_TEXT, observation_text="right\n"))
    wrong = tree.add(first, Step((), OTHER))
    tree.add(wrong, Step((), STEPS[2], end=EndReason.END_OF_TEXT, observation_text="wrong\n"))
    return tree


LAYOUTS_MADE: dict[str, Callable[[], Any]] = {
    "own": lambda: OwnLayout(chat_tokenizer()),
    "step-token": lambda: StepTokenLayout(chat_tokenizer("<extra_0>")),
    "step-tag": lambda: StepTagLayout(sentence_piece_tokenizer()),
    "separator": lambda: SeparatorLayout(chat_tokenizer()),
    "dialogue": lambda: DialogueLayout(chat_tokenizer()),
    "value-head": lambda: ValueHeadLayout(chat_tokenizer()),
}


@pytest.mark.parametrize("name", LAYOUTS_MADE)
def test_a_step_is_read_before_its_observation_and_followed_with_it(name: str) -> None:
    layout, tree = LAYOUTS_MADE[name](), observed_tree()
    transcript = Transcript(layout.path_tokens)
    for node in reversed(tree.nodes):
        steps = [each.step for each in node.path()[1:]]
        bare = [*steps[:-1], *(replace(step, observation_text="") for step in steps[-1:])]
        assert transcript.counterpart(node).tokens == layout.path_tokens(tree.problem, bare)
        assert transcript.followed(node).tokens == layout.path_tokens(tree.problem, steps)
    for node in tree.nodes:
        if node.parent is not None and name == "own":
            assert transcript.counterpart(node).parent is transcript.followed(node.parent), "each token is there once"


def test_what_the_environment_writes_later_is_followed() -> None:
    layout, tree = OwnLayout(chat_tokenizer()), observed_tree()
    transcript = Transcript(layout.path_tokens)
    wrong = tree.nodes[4]
    before = transcript.followed(wrong)
    wrong.step = replace(wrong.step, observation_text="3 + 4 = 7\n")
    assert transcript.followed(wrong).parent is before is transcript.counterpart(wrong)
    assert transcript.followed(wrong).tokens == layout.path_tokens(
        tree.problem, [each.step for each in wrong.path()[1:]]
    )


def test_a_transcript_and_a_copy_in_tokens_are_the_same() -> None:
    tokenizer, tree = chat_tokenizer(), observed_tree()
    transcript, copy = Transcript(own_tokens(tokenizer)), tokenized(tree, tokenizer)
    for node, other in zip(tree.nodes, copy.nodes, strict=True):
        assert transcript.counterpart(node).tokens == other.tokens_before_observation
        assert transcript.followed(node).tokens == other.tokens


def test_clear_errors(tmp_path: Path) -> None:
    tokenizer = byte_pair_tokenizer([QUESTION], size=300)
    with pytest.raises(GradatimError, match="does not have '<extra_0>' as one token"):
        StepTokenLayout(tokenizer)
    with pytest.raises(GradatimError, match="no chat template"):
        DialogueLayout(tokenizer)
    tiny_causal("llama", vocabulary=len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(GradatimError, match=r"no layout 'shepherd'.*step-tag"):
        load_scoring_model(tmp_path, "shepherd")
    with pytest.raises(GradatimError, match="lacks the weights score"):
        load_scoring_model(tmp_path, "separator")
    (tmp_path / LAYOUT_FILE).write_text("{")
    with pytest.raises(GradatimError, match="damaged"):
        load_scoring_model(tmp_path)
    with pytest.raises(GradatimError, match="text without tokens"):
        score(ProcessRewardScorer(tiny_classifier("llama")), text_tree())
    short = ProcessRewardScorer(
        tiny_classifier("llama", vocabulary=len(tokenizer)), layout=SeparatorLayout(byte_pair_tokenizer([], size=260))
    )
    long = Tree(Problem("long", "x" * 300))
    long.add(long.root, Step((), "y\n"))
    with pytest.warns(UserWarning, match="the reward model reads at most 256, so it stays unscored"):
        asyncio.run(short.score(long.nodes[1:]))
    assert short.too_long.count == 1
    assert not long.nodes[1].scores
    assert long.budget.total == 0
    assert set(LAYOUTS) == {"own", "step-token", "step-tag", "dialogue", "separator", "value-head"}


def test_steps_that_are_numbered_already_keep_their_numbers() -> None:
    layout = StepTagLayout(sentence_piece_tokenizer())
    problem = Problem("p", QUESTION)
    numbered = layout.path_tokens(problem, [Step((), "Step 1: She begins."), Step((), "Step 2: 7.")])
    assert numbered == layout.path_tokens(problem, [Step((), "She begins.\n"), Step((), "7.\n")])


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("chat", [None, ChatFormat(system="Be brief.")])
def test_a_saved_model_scores_as_it_did(tmp_path: Path, chat: ChatFormat | None, adapted: bool) -> None:
    tokenizer = chat_tokenizer()
    model: Any = tiny_classifier("llama", vocabulary=len(tokenizer))
    if adapted:
        model = add_adapters(model, LoraSettings(rank=2)).eval()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)  # as if it had been trained
    layout = OwnLayout(tokenizer, chat)
    tree = text_tree()
    places, expected = [], []
    for leaf in tree.leaves():
        path = leaf.path()[1:]
        tokens = layout.path_tokens(tree.problem, [node.step for node in path])
        with torch.no_grad():
            logit = model(input_ids=torch.tensor([tokens])).logits[0, -1, 0]
        places.append(leaf.id)
        expected.append(float(logit.sigmoid()))
    save_process_reward_model(model, tokenizer, tmp_path / "judge", chat)
    found = score(ProcessRewardScorer.from_pretrained(tmp_path / "judge"), tree)
    assert [found[place] for place in places] == pytest.approx(expected, abs=1e-5)
    assert len(set(expected)) == len(expected)


@pytest.mark.parametrize("kind", ["chat", "tag"])
def test_an_ordinary_language_model_is_refused_and_taken_where_its_layout_is_named(tmp_path: Path, kind: str) -> None:
    tokenizer = chat_tokenizer() if kind == "chat" else sentence_piece_tokenizer()
    layout = "dialogue" if kind == "chat" else "step-tag"
    folder = tmp_path / "Qwen2.5-7B-Instruct"
    tiny_causal("llama_grouped", vocabulary=len(tokenizer), positions=512).save_pretrained(folder)
    tokenizer = saved(tokenizer, folder)
    with pytest.raises(GradatimError) as error:
        ProcessRewardScorer.from_pretrained(folder)
    assert "is an ordinary language model" in str(error.value)
    assert f"if it is one, name its layout with layout={layout!r}" in str(error.value)
    assert error.value.options == (f"layout={layout!r}",)
    named = ProcessRewardScorer.from_pretrained(folder, layout=layout)
    assert named.layout is not None
    assert named.layout.name == layout
    config = AutoConfig.from_pretrained(folder)
    for name in ("RLHFlow/Llama3.1-8B-PRM-Mistral-Data", "peiyi9979/math-shepherd-mistral-7b-prm", "my_reward_model"):
        assert detect_layout(name, config, tokenizer) == layout
    for name in ("meta-llama/Llama-3.1-8B-Instruct", "prm/policy", "mistralai/Mistral-7B-v0.3", "/prm/supremo"):
        with pytest.raises(GradatimError, match="is an ordinary language model"):
            detect_layout(name, config, tokenizer)
