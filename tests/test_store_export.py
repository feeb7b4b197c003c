"""Exported rows have the ecosystem's column names and come back as they were."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim import GradatimError
from gradatim.store import RowFormat, row_format, write_jsonl

EXAMPLES: dict[RowFormat, dict[str, Any]] = {
    RowFormat.STEPWISE_SUPERVISION: {"prompt": "p", "completions": ["a\n", "é"], "labels": [True, False]},
    RowFormat.RANKING: {"prompt": "p", "completions": ["a\n", "é", "b"], "scores": [1.0, 0.5, 0.5]},
    RowFormat.PREFERENCE: {"prompt": "p", "chosen": "c", "rejected": "r"},
    RowFormat.UNPAIRED_PREFERENCE: {"prompt": "p", "completion": "c", "label": False},
    RowFormat.PROMPT_COMPLETION: {"prompt": "p", "completion": "c"},
}
ROWS = st.lists(
    st.lists(st.tuples(st.text(), st.booleans()), max_size=3).map(
        lambda steps: {
            "prompt": "p\u2028",
            "completions": [text for text, _ in steps],
            "labels": [label for _, label in steps],
        }
    ),
    min_size=1,
    max_size=4,
)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("kind", RowFormat)
def test_each_format_is_known_by_its_columns_and_kept(kind: RowFormat, tmp_path: Path) -> None:
    row = EXAMPLES[kind]
    assert set(row) == kind.value
    for rows in ([row, row], [row | {"weight": 0.5, "problem_id": "1"}]):
        assert row_format(rows) is kind
        write_jsonl(rows, tmp_path / "rows.jsonl")
        assert read_lines(tmp_path / "rows.jsonl") == rows


@settings(max_examples=25, deadline=None)
@given(ROWS)
def test_any_text_survives_json_lines(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_jsonl(rows, path)
        assert read_lines(path) == rows
        assert path.read_bytes().count(b"\n") == len(rows)


def test_half_characters_are_escaped_and_all_others_stay_readable(tmp_path: Path) -> None:
    row = EXAMPLES[RowFormat.PROMPT_COMPLETION] | {"prompt": "é\ud800\\"}
    write_jsonl([row], tmp_path / "rows.jsonl")
    assert "é\\ud800\\\\" in (tmp_path / "rows.jsonl").read_text(encoding="utf-8")
    assert read_lines(tmp_path / "rows.jsonl") == [row]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows to export"),
        ([{"prompt": "p", "answer": "a"}], r"columns \['answer', 'prompt'\] are of no known format"),
        ([EXAMPLES[RowFormat.PREFERENCE], EXAMPLES[RowFormat.PROMPT_COMPLETION]], "row 1 has the columns"),
        ([{"prompt": "p", "completions": ["a"], "labels": []}], "row 0 has 1 completions but 0 labels"),
    ],
)
def test_rows_of_no_format_are_refused_and_nothing_is_written(
    rows: list[dict[str, Any]], message: str, tmp_path: Path
) -> None:
    for export in (row_format, lambda rows: write_jsonl(rows, tmp_path / "rows.jsonl")):
        with pytest.raises(GradatimError, match=message):
            export(rows)
    assert not list(tmp_path.iterdir())
