"""Rows of supervision as JSON lines, in the column names that the ecosystem already uses."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from gradatim.errors import GradatimError
from gradatim.store.files import atomic_writer

Row = Mapping[str, Any]

_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a character, as broken text has it: UTF-8 cannot hold it, a JSON escape can."""


class RowFormat(Enum):
    """A row format and the columns that make it; rows may carry further columns (weights, problem ids)."""

    STEPWISE_SUPERVISION = frozenset({"prompt", "completions", "labels"})
    RANKING = frozenset({"prompt", "completions", "scores"})
    PREFERENCE = frozenset({"prompt", "chosen", "rejected"})
    UNPAIRED_PREFERENCE = frozenset({"prompt", "completion", "label"})
    PROMPT_COMPLETION = frozenset({"prompt", "completion"})


def row_format(rows: Sequence[Row]) -> RowFormat:
    """The format that all ``rows`` share.

    Raises:
        GradatimError: if there are no rows, a row has other columns than the first, the columns make no known format,
            or a row has not one label or score for each completion.
    """
    if not rows:
        raise GradatimError("there are no rows to export; grow more trees or loosen the selection")
    columns = set(rows[0])
    known = next((kind for kind in RowFormat if kind.value <= columns), None)
    if known is None:
        raise GradatimError(
            f"rows with the columns {sorted(columns)} are of no known format; the formats need "
            + ", or ".join(str(sorted(kind.value)) for kind in RowFormat)
        )
    for number, row in enumerate(rows):
        if set(row) != columns:
            raise GradatimError(f"row {number} has the columns {sorted(row)}, but the first row has {sorted(columns)}")
        said = {RowFormat.STEPWISE_SUPERVISION: "labels", RowFormat.RANKING: "scores"}.get(known)
        if said is not None and len(row["completions"]) != len(row[said]):
            raise GradatimError(
                f"row {number} has {len(row['completions'])} completions but {len(row[said])} {said}; give one for "
                "each completion"
            )
    return known


def write_jsonl(rows: Sequence[Row], path: str | os.PathLike[str]) -> None:
    """Write ``rows`` as UTF-8 JSON lines; the file appears whole or not at all.

    Raises:
        GradatimError: as :func:`row_format`, or if the file cannot be written.
    """
    row_format(rows)
    with atomic_writer(path) as file:
        for row in rows:
            line = json.dumps(dict(row), ensure_ascii=False)
            file.write(_SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", line) + "\n")
