"""The pages of the documentation as programs: their blocks, run from top to bottom.

What a page shows is what happens:

- a ``python`` block is executed; blocks of a page share their names and a temporary working folder;
- in a ``console`` block, each ``$ gradatim ...`` is run, and every other command is checked to exist;
- a ``text`` block after either of them is what it prints;
- a block with a ``title`` is a file of that name, and one with a ``policy`` section alone must be a valid one;
- at ``SERVER`` the pages find the shipped policy behind a scripted server that answers as vLLM does.

A comment before a block says where that would take too long or cannot be exact:

- ``<!-- with: ARGUMENTS -->`` adds arguments to each command of a console block, to make it small;
- ``<!-- not run -->`` only checks the block: Python must compile, commands and recipes must be valid;
- ``<!-- numbers within SHARE -->`` lets each number of an output differ by that share of its size.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import typer
import yaml
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from failing_server import serving
from gradatim.cli.main import app
from gradatim.engine.loading import load_model, load_tokenizer
from gradatim.recipes import load_recipe
from gradatim.recipes.recipe import ModelOptions

ROOT = Path(__file__).parents[1]
SERVER = "http://127.0.0.1:8000/v1"
WIDTH = "80"  # columns of what is printed: the default where there is no terminal

_BLOCK = re.compile(
    r"(?:<!--(?P<comment>(?:(?!-->).)*)-->\s*\n)?^```(?P<head>[^\n`]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
_OTHER_COMMANDS = {"cd", "git", "llama-server", "pip", "tensorboard", "torchrun", "vllm"}


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page.

    Attributes:
        language: as it is written, empty for none.
        title: the name of the file that it shows, if any.
        comment: what the comment just before it says.
        code: its content.
        line: where it begins in the page, from 1.
        follows: whether nothing but a comment stands between the block before it and this one.
    """

    language: str
    title: str | None
    comment: str
    code: str
    line: int
    follows: bool


def blocks_of(text: str) -> list[Block]:
    """The blocks of a page, from top to bottom."""
    blocks = []
    end = 0
    for match in _BLOCK.finditer(text):
        language, _, options = match["head"].strip().partition(" ")
        title = re.search(r'title="([^"]+)"', options)
        line = text.count("\n", 0, match.start("head")) + 1
        follows = not text[end : match.start()].strip()
        comment = (match["comment"] or "").strip()
        blocks.append(Block(language, title and title[1], comment, match["code"], line, follows))
        end = match.end()
    return blocks


class PageRun:
    """Runs the blocks of one page in the current folder.

    Args:
        name: what the page is called in tracebacks.
        server: where ``SERVER`` is in truth.
    """

    def __init__(self, name: str, server: str = SERVER) -> None:
        self.name = name
        self.server = server
        self.namespace: dict[str, Any] = {"__name__": "__main__"}

    def run(self, blocks: list[Block]) -> Iterator[tuple[Block, str]]:
        """Run all blocks; gives each block that shows an output, and what was printed in truth."""
        printed = None
        for block in blocks:
            if block.language in {"", "text"}:
                if block.follows and printed is not None:
                    yield block, printed
                elif block.language == "":
                    self._check_commands(block)
                printed = None
                continue
            printed = self._run_block(replace(block, code=block.code.replace(SERVER, self.server)))
            printed = printed and printed.replace(self.server, SERVER)

    def _run_block(self, block: Block) -> str | None:
        if block.title is not None:
            Path(block.title).write_text(block.code, encoding="utf-8")
        if block.language == "python":
            code = compile("\n" * block.line + block.code, self.name, "exec")
            return None if block.comment == "not run" else self._python(code)
        if block.language == "console":
            return self._console(block)
        if block.language == "yaml":
            content = yaml.safe_load(block.code)
            assert isinstance(content, dict), f"{self.name}:{block.line} is no mapping"
            if content.keys() == {"policy"}:
                ModelOptions(**content["policy"])
        elif block.language == "json":
            for line in block.code.splitlines():
                json.loads(line)
        else:
            raise AssertionError(f"{self.name}:{block.line}: nothing checks a block of {block.language!r}")
        return None

    def _python(self, code: Any) -> str:
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
            exec(code, self.namespace)
        return output.getvalue()

    def _console(self, block: Block) -> str | None:
        added = shlex.split(block.comment.removeprefix("with:")) if block.comment.startswith("with:") else []
        printed = ""
        for command in _commands(block.code, prompt="$ "):
            words = shlex.split(command, comments=True)
            if words[0] == "gradatim":
                check_command(words[1:])
                if block.comment != "not run":
                    printed += _run_command([*words[1:], *added])
            else:
                check_other_command(words)
        return printed if block.comment != "not run" else None

    def _check_commands(self, block: Block) -> None:
        """Commands in a block without a language, as in the README, are checked and not run."""
        for command in _commands(block.code, prompt=""):
            words = shlex.split(command, comments=True)
            if words and words[0] == "gradatim":
                check_command(words[1:], files=False)
            elif words and words[0] == "make":
                check_other_command(words)


@contextmanager
def countdown_server() -> Iterator[str]:
    """The shipped policy behind a scripted server; gives its URL."""
    tokenizer = load_tokenizer("shipped:countdown")
    model = load_model(AutoModelForCausalLM, "shipped:countdown", dtype=torch.float32).eval()

    def writes(text: str, seed: int) -> list[str]:
        generator = torch.Generator().manual_seed(seed)
        tokens = tokenizer(text)["input_ids"]
        written: list[str] = []
        while True:
            with torch.no_grad():
                probabilities = model(torch.tensor([tokens])).logits[0, -1].softmax(dim=-1)
            token = int(torch.multinomial(probabilities, 1, generator=generator))
            if token == tokenizer.eos_token_id or len(written) == 64:
                return written
            tokens.append(token)
            written.append(tokenizer.decode([token]))

    with serving(writes) as server:
        server.owner, server.names = "vllm", ["countdown"]
        yield server.url


def check_command(words: list[str], *, files: bool = True) -> None:
    """Check the arguments of a ``gradatim`` command, and the recipe that it names, without running it."""
    group: Any = typer.main.get_command(app)
    assert words[0] in group.commands, f"there is no command {words[0]!r}"
    context = group.commands[words[0]].make_context(words[0], list(words[1:]))
    if words[0] in {"run", "pretrain"} and (files or not context.params["recipe"].endswith(".yaml")):
        load_recipe(context.params["recipe"], context.params["set_"] or ())


def check_other_command(words: list[str]) -> None:
    """Check that ``make`` knows its target; other programs must be among those that everybody has."""
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(words[1:]) <= set(targets), f"the Makefile does not know {words[1:]}"
    else:
        assert words[0] in _OTHER_COMMANDS, f"is there a command {words[0]!r}?"


def _commands(code: str, prompt: str) -> Iterator[str]:
    """The commands of a console block, those continued with a backslash joined."""
    for line in code.replace("\\\n", " ").splitlines():
        if line.startswith(prompt):
            yield line.removeprefix(prompt)


def _run_command(words: list[str]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = CliRunner().invoke(app, words, env={"COLUMNS": WIDTH})
    assert result.exit_code == 0, f"gradatim {shlex.join(words)}\n{result.output}"
    return str(result.stdout)


def differences(shown: str, printed: str, comment: str) -> list[str]:
    """The lines in which what a page shows is not what was printed; ends of lines do not count."""
    found = re.fullmatch(r"numbers within ([\d.]+)", comment)
    share = float(found[1]) if found else 0.0
    ours, theirs = ([line.rstrip() for line in text.strip("\n").splitlines()] for text in (shown, printed))
    if len(ours) != len(theirs):
        return [f"{len(ours)} lines are shown, but {len(theirs)} were printed:", *theirs]
    return [
        f"shown:   {our}\nprinted: {their}"
        for our, their in zip(ours, theirs, strict=True)
        if our != their and not _alike(our, their, share)
    ]


def _alike(first: str, second: str, share: float) -> bool:
    if not share or _NUMBER.sub("#", first) != _NUMBER.sub("#", second):
        return False
    pairs = zip(_NUMBER.findall(first), _NUMBER.findall(second), strict=True)
    values = [(float(ours.replace(",", "")), float(theirs.replace(",", ""))) for ours, theirs in pairs]
    return all(abs(ours - theirs) <= share * max(abs(ours), abs(theirs)) for ours, theirs in values)
