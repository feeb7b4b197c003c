"""``python -m experiments.real_text --data DIR --output DIR``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from transformers.utils import logging

from experiments.real_text.pipeline import run
from experiments.real_text.settings import Settings
from experiments.real_text.tables import tables
from gradatim.errors import GradatimError
from gradatim.store.files import write_text


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.real_text", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds gsm8k/ and prmbench/")
    parser.add_argument("--output", type=Path, required=True, help="where everything is kept; a later call goes on")
    parser.add_argument("--threads", type=int, default=1, help="cores to compute on")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        results = run(arguments.data, arguments.output, Settings())
    except GradatimError as error:
        print(error, file=sys.stderr)
        return 1
    text = tables(results)
    write_text(arguments.output / "tables.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
