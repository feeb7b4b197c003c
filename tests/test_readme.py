"""What the README shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_python_example_prints_what_the_readme_shows() -> None:
    match = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert match is not None
    code, shown = match.groups()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True, timeout=120
    )
    # The steps themselves could differ in the last bit on another processor; the frame does not.
    assert done.stdout.splitlines()[0] == shown.splitlines()[0] == "Make 46 from 3 5 7 8"
    assert re.search(r"policy_prefill=8,\s+policy_generated=\d+,\s+scorer_prefill=0", done.stdout)
    assert "✓" in shown
    assert "│   └── " in done.stdout


def test_linked_files_exist() -> None:
    text = README.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    missing = [link for link in links if "://" not in link and not (README.parent / link).exists()]
    assert links
    assert not missing
