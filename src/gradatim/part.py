"""The one registry: a part is one file with one frozen dataclass; its fields are its options, its folder is its kind.

    @part
    class Beam(Search):
        \"\"\"Step beam search: keep the best partial solutions (Snell et al., 2024, arXiv:2408.03314).\"\"\"

        width: PositiveInt = 4
        \"\"\"Partial solutions that are kept in each round.\"\"\"

A file ``search/beam.py`` that holds this is the part ``beam`` of the kind ``search``, everywhere: in recipes, on the
command line, in the reference, and in the tests that run over all parts. A part outside the package is named
``path/to/file.py:Class``, or comes from an installed distribution by an entry point of the group ``gradatim.parts``
whose name is the kind, a dot and the part's name (``search.mine``).
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform, get_args, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.annotated_handlers import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.dataclasses import dataclass as checked_dataclass
from pydantic_core import ArgsKwargs, core_schema

from gradatim.errors import GradatimError
from gradatim.own_code import import_own
from gradatim.suggestions import suggestion

ENTRY_POINTS = "gradatim.parts"
_ROOT = "gradatim"
_PACKAGE = Path(__file__).parent
_IS_PART = "__is_part__"
_CHECKS = ConfigDict(extra="forbid", use_attribute_docstrings=True, arbitrary_types_allowed=True)
_PAPER = re.compile(r"arXiv:\d{4}\.\d{4,5}")
_UNKNOWN = "unexpected_keyword_argument"  # the type of error of an option that is not there
_WORDS = {"supervision": "construction", "published": "published format"}  # where it is not the kind's singular
_TYPE_LABELS = {"str", "int", "float", "bool", "list", "dict"}
_names: dict[type, str] = {}  # of the classes that were found by name

Cls = TypeVar("Cls")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field,))
def part(cls: type[Cls]) -> type[Cls]:
    """Make a class a part: a frozen dataclass whose fields are checked, given by keyword alone, and no others beside.

    The text below a field says what the option means. Making one raises :class:`GradatimError` where a value does not
    fit.
    """
    made = _checked(cls, slots=True)
    setattr(made, _IS_PART, True)
    return made


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field,))
def options(cls: type[Cls]) -> type[Cls]:
    """Make a class a frozen dataclass of options as :func:`part` does, but no part: what several parts have in common
    (a base class, of which a part may have several), or a section within a part (the type of a field)."""
    return _checked(cls, slots=False)  # a class cannot have several bases with slots


def _checked(cls: type[Cls], *, slots: bool) -> type[Cls]:
    made: Any = checked_dataclass(frozen=True, slots=slots, kw_only=True, config=_CHECKS)(cls)
    _let_super_find(made, cls)
    checked = made.__init__

    @functools.wraps(checked)
    def init(self: Any, **options: Any) -> None:
        try:
            checked(self, **options)
        except ValidationError as error:
            raise GradatimError(f"{cls.__name__}: {_sentence(error, made)}") from error

    made.__init__ = init
    checked_class: type[Cls] = made
    return checked_class


def _let_super_find(made: type, written: type) -> None:
    """Have ``super()`` in the methods mean the class with slots, which took the place of the one that was written."""
    for value in vars(made).values():
        function = getattr(value, "func", None) or getattr(value, "fget", None) or getattr(value, "__func__", value)
        for cell in getattr(function, "__closure__", None) or ():
            with suppress(ValueError):  # a cell that nothing was put into yet
                if cell.cell_contents is written:
                    cell.cell_contents = made


def make(kind: str, value: Any) -> Any:
    """The part that ``value`` describes.

    Args:
        kind: the folder that holds parts of this kind, such as ``"search"`` or ``"text/boundaries"``.
        value: a name (``"beam"``), a name with options (``{"beam": {"width": 4}}`` or ``{"name": "beam", "width":
            4}``), or a part, which is returned as it is. In the place of a name may stand ``"path/to/file.py:Class"``.

    Raises:
        GradatimError: if there is no such part, an option is unknown or its value does not fit; names the nearest
            right name.
    """
    if is_part(value):
        return value
    name, options = split_content(kind, value)
    found = find(kind, name)
    try:
        return _validated(found, options)
    except ValidationError as error:
        raise GradatimError(f"the {_words(kind)} {name!r}: {_sentence(error, found)}") from error


def names(kind: str) -> dict[str, str]:
    """The parts of a kind: their names with the first lines of their docstrings. None of the package's is imported."""
    return {page.name: page.summary for page in pages(kind)}


def kinds() -> dict[str, str]:
    """The kinds of which the package has parts, with the first lines of their folders' docstrings."""
    folders = {file.parent for file in _PACKAGE.rglob("*.py") if _part_class(file) is not None}
    return {folder.relative_to(_PACKAGE).as_posix(): _summary(folder / "__init__.py") for folder in sorted(folders)}


def _summary(file: Path) -> str:
    """The first line of a file's docstring."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) if file.is_file() else None
    return (text or "").split("\n", 1)[0].rstrip(".")


def find(kind: str, name: str) -> type:
    """The class of a part.

    Raises:
        GradatimError: if there is none (names the nearest one), or it lacks a method that its kind must have.
    """
    if ":" in name:
        found = _own(name)
    elif name in (files := _files(kind)):
        module = importlib.import_module(".".join((_ROOT, *kind.split("/"), name)))
        found = getattr(module, str(_part_class(files[name])))
    elif name in (points := _entry_points(kind)):
        found = points[name].load()
    else:
        known = [*files, *points]
        raise GradatimError(f"there is no {_words(kind)} {name!r}; {suggestion(name, known)}")
    if not is_part(found):
        raise GradatimError(f"{name!r} is no part; decorate the class with gradatim.part.part")
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise GradatimError(f"the {_words(kind)} {name!r} is not whole: write its {' and its '.join(missing)}")
    return _named(found, name)


def name_of(value: Any) -> str:
    """What a recipe calls a part: its file's name, or ``path/to/file.py:Class``."""
    cls = value if isinstance(value, type) else type(value)
    return _names.get(cls) or str(cls.__module__).rpartition(".")[2]


def content_of(value: Any) -> dict[str, Any]:
    """A part as a recipe writes it: its name and all its options, as JSON has them."""
    return {"name": name_of(value), **TypeAdapter(type(value)).dump_python(value, mode="json")}


def chosen_options(value: Any) -> dict[str, Any]:
    """The options of a part that are not their defaults, as JSON has them: what tells it from others of its name. So of
    a part within it too."""
    content = content_of(value)
    chosen = {}
    for field in fields(value):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        option = getattr(value, field.name)
        if default is MISSING or option != default:
            within = {"name": name_of(option), **chosen_options(option)} if is_part(option) else None
            chosen[field.name] = within or content[field.name]
    return chosen


def is_part(value: Any) -> bool:
    """Whether ``value`` is a part or the class of one."""
    return bool(getattr(value, _IS_PART, False))


def split_content(kind: str, value: Any) -> tuple[str, dict[str, Any]]:
    """The name and the options in what a recipe says of a part; see :func:`make`.

    Raises:
        GradatimError: if it says no name.
    """
    if isinstance(value, str):
        return value, {}
    if isinstance(value, Mapping) and "name" in value:
        return str(value["name"]), {str(key): each for key, each in value.items() if key != "name"}
    if isinstance(value, Mapping) and len(value) == 1:
        name, options = next(iter(value.items()))
        if isinstance(options, Mapping) or options is None:
            return str(name), dict(options or {})
    raise GradatimError(f"a {_words(kind)} is a name, or a section with the key 'name' and its options; got {value!r}")


# What the reference says of parts


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a part.

    Attributes:
        name: its name.
        type: what it may be, as it is written in the code.
        default: as it is written in the code; ``None`` where it must be given.
        meaning: the text below the field.
    """

    name: str
    type: str
    default: str | None
    meaning: str


@dataclass(frozen=True, slots=True)
class Page:
    """What a part's file says of it.

    Attributes:
        kind, name: of the part.
        summary: the first line of its docstring.
        paper: where it is from (``arXiv:...``), if its docstring says so.
        options: its fields.
    """

    kind: str
    name: str
    summary: str
    paper: str | None
    options: tuple[Option, ...]


def pages(kind: str) -> list[Page]:
    """The parts of a kind, in the order of their names. Those of the package are read without being imported."""
    found = {name: _page(kind, name, file) for name, file in _files(kind).items()}
    for name, point in _entry_points(kind).items():
        module = importlib.util.find_spec(point.module)
        if module is not None and module.origin is not None:
            found.setdefault(name, _page(kind, name, Path(module.origin), point.attr))
    return [found[name] for name in sorted(found)]


def _page(kind: str, name: str, file: Path, class_name: str | None = None) -> Page:
    module = ast.parse(file.read_text(encoding="utf-8"))
    body = _class(module, class_name)
    text = ast.get_docstring(body) or ""
    papers = _PAPER.findall(text)
    summary = text.split("\n", 1)[0].rstrip(".")
    return Page(kind, name, summary, papers[0] if papers else None, tuple(_all_options(module, body).values()))


def _class(module: ast.Module, name: str | None) -> ast.ClassDef:
    """The class of a name in a file, or the one that is a part."""
    found = (each for each in module.body if isinstance(each, ast.ClassDef))
    return next(each for each in found if (each.name == name if name else _is_decorated(each)))


def _all_options(module: ast.Module, body: ast.ClassDef) -> dict[str, Option]:
    """The options of a class by name, those of its bases first, as far as the package has them."""
    found: dict[str, Option] = {}
    for base in reversed([each.id for each in body.bases if isinstance(each, ast.Name)]):
        above = _module_of(module, base)
        if above is not None:
            found |= _all_options(above, _class(above, base))
    for each in _options(body):
        told = each.meaning or (found[each.name].meaning if each.name in found else "")
        found[each.name] = replace(each, meaning=told)
    return found


def _module_of(module: ast.Module, name: str) -> ast.Module | None:
    """The file that defines a class which ``module`` names: itself, or the package's file that it is imported from."""
    for each in module.body:
        if isinstance(each, ast.ClassDef) and each.name == name:
            return module
        if isinstance(each, ast.ImportFrom) and each.module and name in {alias.name for alias in each.names}:
            root, *place = each.module.split(".")
            file = _PACKAGE.joinpath(*place).with_suffix(".py")
            return ast.parse(file.read_text(encoding="utf-8")) if root == _ROOT and file.is_file() else None
    return None


def _options(body: ast.ClassDef) -> Iterator[Option]:
    for each, below in zip(body.body, [*body.body[1:], None], strict=True):
        if not isinstance(each, ast.AnnAssign) or not isinstance(each.target, ast.Name):
            continue
        if ast.unparse(each.annotation).startswith("ClassVar"):
            continue
        text = below.value if isinstance(below, ast.Expr) else None
        meaning = " ".join(str(text.value).split()) if isinstance(text, ast.Constant) else ""
        default = None if each.value is None else ast.unparse(each.value)
        yield Option(each.target.id, ast.unparse(each.annotation), default, meaning)


@dataclass(frozen=True, slots=True)
class NamesModel:
    """Marks an option that names a model of the recipe: ``Annotated[str, NamesModel()]``."""


@dataclass(frozen=True, slots=True)
class NamesFile:
    """Marks an option that names a file: ``Annotated[str, NamesFile()]``."""


def models_of(value: Any) -> set[str]:
    """The models that the options of a part name, those of parts within it included."""
    return _marked(value, NamesModel)


def files_of(value: Any) -> set[str]:
    """The files that the options of a part name, those of parts within it included."""
    return _marked(value, NamesFile)


def parts_within(value: Any) -> Iterator[Any]:
    """A part and all that its options hold, lists of parts included; of a list, those of each."""
    if isinstance(value, list | tuple):
        for each in value:
            yield from parts_within(each)
    elif is_part(value):
        yield value
        for field in fields(value):
            yield from parts_within(getattr(value, field.name))


def _marked(value: Any, mark: type) -> set[str]:
    """What those options of a part, and of parts within it, say that are marked."""
    found: set[str] = set()
    for part in parts_within(value):
        hints = get_type_hints(type(part), include_extras=True)
        for field in fields(part):
            if _has_mark(hints[field.name], mark):
                option = getattr(part, field.name)
                found |= {str(each) for each in ([option] if isinstance(option, str) else option or ())}
    return found


def _has_mark(hint: Any, mark: type) -> bool:
    """Whether an option is marked, itself or what it holds."""
    marks = getattr(hint, "__metadata__", ())
    return any(isinstance(each, mark) for each in marks) or any(_has_mark(each, mark) for each in get_args(hint))


# Parts as fields of recipes and of other parts


@dataclass(frozen=True, slots=True)
class PartOf:
    """Marks a field that holds a part of a kind: ``search: Annotated[Any, PartOf("search")]``."""

    kind: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        def validate(value: Any) -> Any:
            made = value if is_part(value) else of_content(value)
            if isinstance(source, type) and source is not Any and not isinstance(made, source):
                raise ValueError(
                    f"{name_of(made)!r} is no {source.__name__}, as must be what is used here; name another"
                )
            return made

        def of_content(value: Any) -> Any:
            try:
                name, options = split_content(self.kind, value)
                found = find(self.kind, name)
            except GradatimError as error:
                raise ValueError(str(error)) from error
            try:
                return _validated(found, options)  # its errors get this field's place in front of theirs
            except GradatimError as error:
                raise ValueError(str(error)) from error
            except ValidationError as error:
                if all(detail["type"] != _UNKNOWN for detail in error.errors()):
                    raise
                said = _sentence(error, found)
                between = " " if said.startswith("has") else ": "
                raise ValueError(f"the {_words(self.kind)} {name!r}{between}{said}") from error

        return core_schema.no_info_plain_validator_function(
            validate, serialization=core_schema.plain_serializer_function_ser_schema(content_of)
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "object", "title": self.kind, "parts": list(names(self.kind))}


def _validated(found: Any, options: Mapping[str, Any]) -> Any:
    return found.__pydantic_validator__.validate_python(ArgsKwargs((), dict(options)))


def _sentence(error: ValidationError, found: Any) -> str:
    """What is wrong first with the options of a part; a misspelt one before all that is missing for its sake."""
    details = error.errors()
    first = min(details, key=lambda detail: detail["type"] != _UNKNOWN)
    keys = [str(key) for key in first["loc"] if not is_type_label(str(key))]
    place = ".".join(keys)
    if first["type"] == _UNKNOWN:
        return _unknown(keys, found)
    if first["type"] in {"missing", "missing_keyword_only_argument"}:
        return f"needs {place!r}, which must be given"
    message = first["msg"].removeprefix("Value error, ").replace("Input should", "must").replace("Tuple should", "must")
    if first["type"] == "value_error":
        return f"{place}: {message}" if place else message
    return f"{place} {message}, got {first['input']!r}"


def _unknown(keys: Sequence[str], found: Any) -> str:
    """What is wrong with an option, the last of ``keys``, that a part or the section within it does not have."""
    *within, option = keys
    for key in within:
        found = found.__pydantic_fields__[key].annotation if hasattr(found, "__pydantic_fields__") else None
    known = [each.name for each in fields(found)] if is_dataclass(found) else []
    owner = f"{'.'.join(within)} " if within else ""
    return f"{owner}has no option {option!r}; {suggestion(option, known) if known else 'it has none'}"


def is_type_label(place: str) -> bool:
    """Whether a place in an error is none that a person wrote, but pydantic's name of a type among several."""
    return "[" in place or place.startswith("constrained-") or place in _TYPE_LABELS


# Where parts are


@functools.cache
def _files(kind: str) -> dict[str, Path]:
    """The files of a folder that hold a part."""
    folder = _PACKAGE / kind
    if not folder.is_dir():
        raise GradatimError(f"there is no kind of parts {kind!r}; {suggestion(kind, list(kinds()))}")
    return {file.stem: file for file in sorted(folder.glob("*.py")) if _part_class(file) is not None}


@functools.cache
def _part_class(file: Path) -> str | None:
    """The name of the class in a file that is decorated as a part; the file is not imported."""
    source = file.read_text(encoding="utf-8")
    if "@part" not in source:
        return None
    found = [each.name for each in ast.parse(source).body if isinstance(each, ast.ClassDef) and _is_decorated(each)]
    if len(found) > 1:
        raise GradatimError(f"{file.name} holds {len(found)} parts ({', '.join(found)}); a part is one file")
    return found[0] if found else None


def _is_decorated(body: ast.ClassDef) -> bool:
    return any(ast.unparse(each) in {"part", "gradatim.part.part"} for each in body.decorator_list)


@functools.cache
def _entry_points(kind: str) -> dict[str, EntryPoint]:
    """The parts of other distributions, by name."""
    found = ((point.name.rpartition("."), point) for point in entry_points(group=ENTRY_POINTS))
    return {name: point for (place, _, name), point in found if place == kind.replace("/", ".")}


def _own(name: str) -> Any:
    """The class that ``path/to/file.py:Class`` or ``package.module:Class`` names."""
    place, _, attribute = name.rpartition(":")
    module = import_own(place)
    if not hasattr(module, attribute):
        classes = [key for key, each in vars(module).items() if isinstance(each, type) and is_part(each)]
        raise GradatimError(f"{place!r} has no class {attribute!r}; {suggestion(attribute, classes)}")
    return getattr(module, attribute)


def _named(found: type, name: str) -> type:
    _names.setdefault(found, name)
    return found


def _words(kind: str) -> str:
    """What errors call one part of a kind: a ``scorer``, a ``boundary``."""
    last = kind.rpartition("/")[2]
    if last in _WORDS:
        return _WORDS[last]
    return f"{last[:-3]}y" if last.endswith("ies") else last.removesuffix("s")
