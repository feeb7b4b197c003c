"""A griffe extension: docstrings written with reStructuredText's roles, as the Markdown that the site is made of.

References become links to the page of what they name, and formulas become MathML, which browsers draw by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import griffe
from latex2mathml.converter import convert

_REFERENCE = re.compile(r":(?:class|data|func|meth|mod|attr):`(~?)([\w.]+)`")
_INLINE_FORMULA = re.compile(r":math:`([^`]+)`")
_FORMULA = re.compile(r"^([ \t]*)\.\. math::(.*(?:\n[ \t]*\S.*)*)", re.MULTILINE)
_LITERAL_BLOCK = re.compile(r"::(?=\n\n[ \t]+\S)")
_NAME = r"\w+(?: \(``[^)]*``\))?"
_SHARED_ENTRY = re.compile(
    rf"^(?P<indent> +)(?P<names>{_NAME}(?:, {_NAME})+): (?P<text>.*(?:\n(?P=indent) +\S.*)*)", re.MULTILINE
)


class Docstrings(griffe.Extension):
    """Rewrites every docstring of a package once the whole package is known, so that references can be looked up."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Rewrite the docstrings of ``pkg`` in place."""
        for each in list(_objects(pkg)):
            if each.docstring is not None:
                each.docstring.value = _to_markdown(each.docstring.value, each)


def _objects(parent: griffe.Object) -> Iterator[griffe.Object]:
    yield parent
    for member in parent.members.values():
        if isinstance(member, griffe.Object):
            yield from _objects(member)


def _to_markdown(text: str, owner: griffe.Object) -> str:
    text = _FORMULA.sub(lambda match: f"{match[1]}<div>{_mathml(match[2], 'block')}</div>", text)
    text = _INLINE_FORMULA.sub(lambda match: _mathml(match[1], "inline"), text)
    text = _REFERENCE.sub(lambda match: _link(match[2], owner, short=bool(match[1])), text)
    text = _SHARED_ENTRY.sub(_entry_for_each, text)
    return _LITERAL_BLOCK.sub(":", text)


def _mathml(formula: str, display: str) -> str:
    return convert(" ".join(formula.split()), display=display).replace("\n", "")


def _entry_for_each(match: re.Match[str]) -> str:
    """``a (``T``), b (``T``): text``, names described together, as an entry for each name."""
    names = match["names"].split(", ")
    return "\n".join(f"{match['indent']}{name}: {match['text']}" for name in names)


def _link(name: str, owner: griffe.Object, *, short: bool) -> str:
    """A link to the object that ``name`` means where it is written, or the name as code if it is not documented."""
    shown = name.rpartition(".")[2] if short or name.startswith("gradatim.") else name
    target = _find(name, owner)
    if target is None or any(part.startswith("_") for part in target.split(".")):
        return f"`{shown if target else name}`"
    return f"[`{shown}`][{target}]"


def _find(name: str, owner: griffe.Object) -> str | None:
    scope: griffe.Object | None = owner
    collection = owner.modules_collection
    candidates = [name]
    while scope is not None:
        candidates.append(f"{scope.path}.{name}")
        scope = scope.parent if isinstance(scope.parent, griffe.Object) else None
    for path in candidates:
        try:
            found = collection.get_member(path)
            return str(found.canonical_path) if found.docstring is not None else None
        except (KeyError, griffe.GriffeError):
            continue
    return None
