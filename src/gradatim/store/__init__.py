"""Trees on disk, exports to other formats, and published data sets of process supervision."""

from gradatim.store.export import RowFormat, row_format, write_jsonl
from gradatim.store.files import atomic_path, atomic_writer, write_json, write_text
from gradatim.store.published import read_published, write_published
from gradatim.store.trees import TreeStore

__all__ = [
    "RowFormat",
    "TreeStore",
    "atomic_path",
    "atomic_writer",
    "read_published",
    "row_format",
    "write_json",
    "write_jsonl",
    "write_published",
    "write_text",
]
