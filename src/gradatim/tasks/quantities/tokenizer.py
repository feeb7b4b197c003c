"""A byte-pair tokenizer for word problems, trained on the task's own demonstrations."""

from __future__ import annotations

from itertools import islice

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from gradatim.tasks.word_problems import WordProblems

_PIECE = r"\n| ?[0-9]| ?[A-Za-z']+| ?[^\sA-Za-z0-9']+|\s"
_TRAINING_TEXTS = 2000


def make_word_problem_tokenizer(task: WordProblems, vocabulary_size: int = 512) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer for ``task``; the same task gives the same tokenizer.

    Every text can be encoded and decodes to itself. Words become single tokens as far as the vocabulary allows; each
    digit is a token of its own (the first with the space before it), and so is the line end, so that steps end where
    tokens end.

    Args:
        task: whose train demonstrations it is trained on.
        vocabulary_size: tokens at most, at least 258 (all bytes, padding and the end of the text).
    """
    texts = (problem.prompt + solution for problem, solution in islice(task.demonstrations("train"), _TRAINING_TEXTS))
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = Sequence(
        [Split(Regex(_PIECE), behavior="isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.train_from_iterator(
        texts,
        BpeTrainer(
            vocab_size=vocabulary_size,
            special_tokens=["<pad>", "<eos>"],
            initial_alphabet=sorted(ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", clean_up_tokenization_spaces=False
    )
