"""Trees on disk and exports to other formats."""

from gradatim.store.export import RowFormat, read_jsonl, row_format, to_dataset, write_jsonl
from gradatim.store.files import atomic_path, atomic_writer, write_json, write_text
from gradatim.store.trees import TreeStore

__all__ = [
    "RowFormat",
    "TreeStore",
    "atomic_path",
    "atomic_writer",
    "read_jsonl",
    "row_format",
    "to_dataset",
    "write_json",
    "write_jsonl",
    "write_text",
]
