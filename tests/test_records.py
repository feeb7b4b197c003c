"""Records come from any file as they were written, are found again by their place, and bad ones say what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradatim.errors import GradatimError
from gradatim.hub import Sight
from gradatim.records import MalformedRecordError, check_local, open_file, open_hub, open_hub_splits

RECORDS = st.lists(
    st.dictionaries(st.sampled_from(["a", "b"]), st.text("x\n\r\u2028\u0085\ud800é", max_size=4)),
    min_size=1,
    max_size=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(RECORDS, st.booleans(), st.booleans(), st.booleans())
def test_lines_and_arrays_hold_the_same_records(
    tmp_path: Path, records: list[Any], array: bool, mark: bool, carriage_returns: bool
) -> None:
    text = json.dumps(records) if array else "\n\n".join(map(json.dumps, records))
    content = (b"\xef\xbb\xbf" if mark else b"") + text.encode()
    path = tmp_path / "data.jsonl"
    path.write_bytes(content.replace(b"\n", b"\r\n") if carriage_returns else content)
    source = open_file(path)
    entries = list(source)
    assert [entry.record for entry in entries] == records
    assert [source.at(entry.place) for entry in entries] == entries
    assert [entry.number for entry in entries] == [
        number if array else 2 * number - 1 for number in range(1, len(records) + 1)
    ]


def test_line_separators_of_unicode_do_not_end_a_line(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"a": "x\u2028y\u0085z"}\n{"a": "\u2029"}', encoding="utf-8")
    assert [entry.record for entry in open_file(path)] == [{"a": "x\u2028y\u0085z"}, {"a": "\u2029"}]


def test_an_indented_object_is_one_record(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"a": [1]}, indent=2))
    (entry,) = open_file(path)
    assert (entry.record, entry.where) == ({"a": [1]}, f"the file {str(path)!r}")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": ', r"is not valid JSON \(Expecting value\)"),
        (b"[" * 100_000, "is not valid JSON"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "is not valid JSON"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"3", "is not a JSON object"),
        (b"null", "is not a JSON object"),
    ],
)
def test_a_bad_line_says_what_it_is(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + line + b"\n{}\n")
    first, bad, last = open_file(path)
    assert (first.record, last.record) == ({"a": 1}, {})
    assert bad.where == f"line 3 of {str(path)!r}"
    with pytest.raises(MalformedRecordError, match=f"^{reason}"):
        _ = bad.record


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GradatimError, match=r"nowhere\.jsonl' cannot be read \(no such file"):
        open_file(tmp_path / "nowhere.jsonl")
    (tmp_path / "torn.json").write_text('[{"a": 1},')
    with pytest.raises(GradatimError, match=r"torn\.json' is not one whole JSON array"):
        open_file(tmp_path / "torn.json")
    with pytest.raises(GradatimError, match=r"there is no file or folder './data'"):
        check_local("./data")
    check_local("owner/data")


def test_rows_of_the_hub_are_named_by_their_split(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load_dataset(name: str, config: str | None, *, split: str | None) -> Any:
        if name == "nobody/nothing":
            raise datasets.exceptions.DatasetNotFoundError("It does not exist.\nmore")
        rows = [{"config": config, "split": split}]
        return rows if split else {"dev": rows}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("gradatim.records.look", lambda *_: Sight())
    (entry,) = open_hub("some/set", "test", "main")
    assert (entry.record, entry.where) == (
        {"config": "main", "split": "test"}, "row 1 of the test split of 'some/set'",
    )  # fmt: skip
    assert {split: source.name for split, source in open_hub_splits("some/set").items()} == {
        "dev": "the dev split of 'some/set'"
    }
    with pytest.raises(GradatimError, match=r"^cannot load the data set 'nobody/nothing': It does not exist; check"):
        open_hub_splits("nobody/nothing")
