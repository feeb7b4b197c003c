"""Kill runs of a small recipe at random, over and over, and count what is stuck, torn or doubled in the end.

    python scripts/kill_runs.py [--kills 100] [--seed 0] [--output FOLDER]

The recipe has a scorer, an objective, checkpoints every two updates and measurements after every one. Every second kill
comes at a random operation on the file system, in the middle of what is written; the others at a random moment. The
killed run is started again in its folder, and killed again, three times out of four; then it runs to its end and is
compared with an undisturbed run: trees, records of all stages, figures, and the weights bit for bit.

It prints a line for each run and the sums, and ends with 1 if anything was wrong. On one core a kill takes about three
seconds.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from killed_runs import attempt, faults, outcome, tiny_recipe


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="where the runs go; by default a folder that is deleted")
    arguments = parser.parse_args()
    source = random.Random(arguments.seed)
    place = arguments.output or Path(tempfile.mkdtemp())
    place.mkdir(parents=True, exist_ok=True)
    recipe = tiny_recipe()
    started = time.perf_counter()
    whole = attempt(recipe, place / "whole")
    if whole["status"] != 0:
        print(whole["error"])
        return 1
    seconds, expected = time.perf_counter() - started, outcome(place / "whole")
    kills, runs, wrong, stuck = 0, 0, 0, 0
    while kills < arguments.kills:
        folder = place / f"run-{runs}"
        runs, before = runs + 1, kills
        while True:
            to_the_end = kills == arguments.kills or (kills > before and source.random() < 0.25)
            if to_the_end:
                made = attempt(recipe, folder)
            elif kills % 2:
                number = source.randrange(1, whole["operations"])
                made = attempt(recipe, folder, lambda count, kind, path, number=number: count == number)
            else:
                made = attempt(recipe, folder, seconds=source.uniform(0.02, 1.0) * seconds)
            if made["status"] != -signal.SIGKILL:
                break
            kills += 1
        if made["status"] != 0:
            stuck += 1
            print(f"run {runs}: {kills - before} kills, STUCK\n{made['error']}", flush=True)
            continue
        found = faults(folder, expected)
        wrong += bool(found)
        print(f"run {runs}: {kills - before} kills, {'; '.join(found) or 'as undisturbed'}", flush=True)
        shutil.rmtree(folder)
    print(f"{kills} kills in {runs} runs: {stuck} stuck, {wrong} torn, doubled or otherwise not as undisturbed")
    if arguments.output is None:
        shutil.rmtree(place)
    return int(bool(stuck or wrong))


if __name__ == "__main__":
    sys.exit(main())
