"""A run that is killed inside each of its writers ends as one that nobody disturbed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import killed_runs


def test_a_run_killed_inside_every_writer_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    """In a process of its own: it forks, which a process that has computed on several threads must not."""
    done = subprocess.run(
        [sys.executable, killed_runs.__file__, str(tmp_path / "runs")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for result in json.loads(done.stdout).values():
        assert result.get("stuck") is None, result
        assert result["missed"] == []
        assert result["faults"] == []
