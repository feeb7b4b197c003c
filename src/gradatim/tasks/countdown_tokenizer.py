"""A word-level tokenizer for countdown: one token per number, operator and line end."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

_WORDS = ("Make", " from", "\n", " +", " -", " *", " /", " =", " |")


def make_countdown_tokenizer(largest_number: int) -> PreTrainedTokenizerFast:
    """A tokenizer that knows the numbers from 0 to ``largest_number``, each with the space before it.

    Decoding is lossless for every text of the task whose numbers it knows: the pieces, joined, are the text.
    """
    pieces = ["<pad>", "<eos>", "<unk>", *_WORDS, *(f" {number}" for number in range(largest_number + 1))]
    tokenizer = Tokenizer(WordLevel({piece: index for index, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split(Regex(r" ?[^\s]+|\n"), behavior="isolated")
    tokenizer.decoder = Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
