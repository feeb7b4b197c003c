"""Parts: found by their file's name, made of a recipe's content, described without being imported, or refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, PositiveInt, ValidationError

from gradatim import part as parts
from gradatim.errors import GradatimError
from gradatim.part import Option, PartOf, content_of, find, is_part, kinds, make, name_of, names, pages, part

BEAM = '''
"""A file of parts for tests."""
from __future__ import annotations
from typing import Annotated, Any
from pydantic import Field, PositiveInt
from gradatim.part import PartOf, part

@part
class {name}:
    """Keep the best partial solutions (Somebody et al., 2024, arXiv:2408.03314).

    More of it.
    """

    width: PositiveInt = 4
    """Partial solutions
    that are kept."""
    branch: tuple[PositiveInt, ...] = (4, 2)
    rate: Annotated[float, Field(ge=0, le=1)] = 0.5
    """A share."""
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder with two kinds: ``toys`` (a beam, a wrapper, and a file that is no part) and ``deep/rules``."""
    toys = tmp_path / "toys"
    rules = tmp_path / "deep" / "rules"
    for folder in (toys, rules):
        folder.mkdir(parents=True)
    (toys / "__init__.py").write_text('"""Things to play with.\n\nMore."""\n')
    (toys / "beam.py").write_text(BEAM.format(name="Beam"))
    (toys / "helpers.py").write_text("from gradatim.part import part  # the word @part alone makes none\n")
    (toys / "around.py").write_text(
        "from __future__ import annotations\nfrom typing import Annotated, Any\n"
        "from gradatim.part import PartOf, part\n\n@part\nclass Around:\n    'Around another.'\n\n"
        "    inner: Annotated[Any, PartOf('toys')]\n"
    )
    (rules / "line.py").write_text(BEAM.format(name="Line"))
    forget()
    monkeypatch.setattr(parts, "_PACKAGE", tmp_path)
    monkeypatch.setattr(parts, "_ROOT", "toy_house")
    root = tmp_path / "toy_house.py"
    root.write_text(f"__path__ = [{str(tmp_path)!r}]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    forget()
    for name in [name for name in sys.modules if name.startswith("toy_house")]:
        del sys.modules[name]


def forget() -> None:
    for cached in (parts._files, parts._part_class, parts._entry_points):
        cached.cache_clear()


@pytest.mark.usefixtures("package")
def test_a_part_is_made_of_every_notation() -> None:
    made = make("toys", {"name": "beam", "width": 8, "branch": [3, 1]})
    assert (made.width, made.branch, made.rate) == (8, (3, 1), 0.5)
    assert make("toys", {"beam": {"width": 8, "branch": [3, 1]}}) == made
    assert make("toys", made) is made
    assert make("toys", "beam") == make("toys", {"beam": None}) == make("toys", {"name": "beam"})
    assert make("deep/rules", "line").width == 4
    with pytest.raises(AttributeError):
        made.width = 3


@pytest.mark.usefixtures("package")
def test_a_part_is_written_as_it_is_read() -> None:
    made = make("toys", {"around": {"inner": {"beam": {"width": 2}}}})
    content = content_of(made)
    assert content == {"name": "around", "inner": {"name": "beam", "width": 2, "branch": [4, 2], "rate": 0.5}}
    assert make("toys", json.loads(json.dumps(content))) == made
    assert name_of(made.inner) == "beam"


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("baem", "there is no toy 'baem'; did you mean 'beam'? (valid: around, beam)"),
        ({"name": "beam", "widht": 3}, "the toy 'beam': has no option 'widht'; did you mean 'width'?"),
        ({"beam": {"width": 0}}, "the toy 'beam': width must be greater than 0, got 0"),
        ({"beam": {"rate": 2}}, "the toy 'beam': rate must be less than or equal to 1, got 2"),
        (
            {"around": {"inner": {"beam": {"width": 0}}}},
            "the toy 'around': inner.width must be greater than 0, got 0",
        ),
        ({"around": {"inner": "bean"}}, "the toy 'around': inner: there is no toy 'bean'; did you mean"),
        (7, "a toy is a name, or a section with the key 'name'"),
        ("nowhere.py:Beam", "there is no file 'nowhere.py'"),
    ],
)
def test_what_fits_no_part_is_one_sentence(value: Any, said: str) -> None:
    with pytest.raises(GradatimError) as caught:
        make("toys", value)
    assert str(caught.value).startswith(said), str(caught.value)


@pytest.mark.usefixtures("package")
def test_a_kind_that_is_not_there_is_said() -> None:
    with pytest.raises(GradatimError, match=r"there is no kind of parts 'toy'; did you mean 'toys'\?"):
        make("toy", "beam")
    assert kinds() == {"deep/rules": "", "toys": "Things to play with"}


@pytest.mark.usefixtures("package")
def test_parts_are_described_without_being_imported() -> None:
    assert names("toys") == {
        "around": "Around another",
        "beam": "Keep the best partial solutions (Somebody et al., 2024, arXiv:2408.03314)",
    }
    page = pages("toys")[1]
    assert page.paper == "arXiv:2408.03314"
    assert page.options[0] == Option("width", "PositiveInt", "4", "Partial solutions that are kept.")
    assert page.options[1] == Option("branch", "tuple[PositiveInt, ...]", "(4, 2)", "")
    assert pages("toys")[0].options[0].default is None
    assert not any(name.startswith("toy_house.toys.") for name in sys.modules)


def test_a_file_outside_the_package_is_a_part(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(BEAM.format(name="Mine") + "\nclass Plain:\n    pass\n")
    made = make("search", {"name": f"{file}:Mine", "width": 2})
    assert content_of(made)["name"] == f"{file}:Mine"
    assert make("search", content_of(made)) == made  # the file is one module, however often it is named
    with pytest.raises(GradatimError, match="has no class 'Mien'; did you mean 'Mine'"):
        find("search", f"{file}:Mien")
    with pytest.raises(GradatimError, match=r"is no part; decorate the class with gradatim\.part\.part"):
        find("search", f"{file}:Plain")


@pytest.mark.usefixtures("package")
def test_two_parts_in_one_file_are_refused(package: Path) -> None:
    (package / "toys" / "two.py").write_text("@part\nclass A:\n    ''\n\n@part\nclass B:\n    ''\n")
    with pytest.raises(GradatimError, match=r"two.py holds 2 parts \(A, B\); a part is one file"):
        names("toys")


def test_an_installed_distribution_brings_parts(tmp_path: Path) -> None:
    """In a process of its own, with a distribution on its path as an installer leaves one."""
    (tmp_path / "other_parts.py").write_text(BEAM.format(name="Other"))
    information = tmp_path / "other_parts-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: other-parts\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[gradatim.parts]\nsearch.other = other_parts:Other\n")
    program = (
        "from gradatim.part import make, names, content_of\n"
        "made = make('search', {'name': 'other', 'width': 3})\n"
        "print(made.width, content_of(made)['name'], names('search')['other'])\n"
    )
    path = [str(tmp_path), *filter(None, sys.path)]
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": ":".join(path)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("3 other Keep the best partial solutions")


class Holder(BaseModel):
    """A recipe's section that holds a part."""

    toy: Annotated[Any, PartOf("toys")]


@pytest.mark.usefixtures("package")
def test_a_field_of_a_section_is_a_part() -> None:
    held = Holder.model_validate({"toy": {"name": "beam", "width": 3}})
    assert held.toy.width == 3
    assert held.model_dump(mode="json") == {"toy": {"name": "beam", "width": 3, "branch": [4, 2], "rate": 0.5}}
    with pytest.raises(ValidationError) as caught:
        Holder.model_validate({"toy": {"name": "beam", "width": 0}})
    assert caught.value.errors()[0]["loc"] == ("toy", "width")
    with pytest.raises(ValidationError, match="there is no toy 'baem'; did you mean 'beam'"):
        Holder.model_validate({"toy": "baem"})
    shown = Holder.model_json_schema()["properties"]["toy"]
    assert (shown["title"], shown["parts"]) == ("toys", ["around", "beam"])


SHARED = '''
"""What toys share."""
from __future__ import annotations
from pydantic import PositiveInt
from gradatim.part import options

@options
class Wheels:
    """Wheels."""

    spokes: PositiveInt = 8
    """In each."""

@options
class Shared:
    """A base."""

    seed: int = 0
    """Of all that is drawn."""
    size: int = 1
    """How large."""
'''
CART = '''
from __future__ import annotations
from gradatim.part import part
from toy_house.toys.shared import Shared, Wheels

@part
class Cart(Shared):
    """A cart."""

    size: int = 5
    wheels: Wheels = Wheels()
    """What it runs on."""
'''


def test_parts_share_options_of_a_base_and_hold_sections(package: Path) -> None:
    (package / "toys" / "shared.py").write_text(SHARED)
    (package / "toys" / "cart.py").write_text(CART)
    forget()
    assert "shared" not in names("toys")
    page = next(each for each in pages("toys") if each.name == "cart")
    assert page.options == (
        Option("seed", "int", "0", "Of all that is drawn."),
        Option("size", "int", "5", "How large."),
        Option("wheels", "Wheels", "Wheels()", "What it runs on."),
    )
    made = make("toys", {"cart": {"seed": 2, "wheels": {"spokes": 3}}})
    assert (made.seed, made.size, made.wheels.spokes) == (2, 5, 3)
    assert content_of(made)["wheels"] == {"spokes": 3}
    with pytest.raises(GradatimError, match=r"the toy 'cart': wheels\.spokes must be greater than 0, got 0"):
        make("toys", {"cart": {"wheels": {"spokes": 0}}})
    with pytest.raises(GradatimError, match="the toy 'cart': wheels has no option 'spoke'; did you mean 'spokes'"):
        make("toys", {"cart": {"wheels": {"spoke": 3}}})


def test_what_is_missing_or_fits_no_part_as_a_whole_is_said_in_a_sentence() -> None:
    @part
    class Toy:
        """A toy."""

        size: int
        low: int = 0

        def __post_init__(self) -> None:
            if self.low > self.size:
                raise ValueError("low is above size")

    with pytest.raises(GradatimError, match=r"^Toy: needs 'size', which must be given$"):
        Toy()  # type: ignore[call-arg]
    with pytest.raises(GradatimError, match=r"^Toy: low is above size$"):
        Toy(size=1, low=2)


def test_a_part_calls_the_methods_of_its_base() -> None:
    class Base:
        def told(self) -> str:
            return "base"

        @property
        def shown(self) -> str:
            return "base"

    @part
    class Toy(Base):
        """A toy."""

        @property
        def shown(self) -> str:
            return f"toy of {super().shown}"

        def told(self) -> str:
            return f"toy of {super().told()}"

    assert Toy().told() == Toy().shown == "toy of base"


def test_a_part_takes_keywords_alone_and_no_others() -> None:
    @part
    class Toy:
        """A toy."""

        size: PositiveInt = 1
        share: Annotated[float, Field(ge=0)] = 0.0

    made = Toy(size=2)
    assert is_part(made)
    assert is_part(Toy)
    assert made == Toy(size=2)
    with pytest.raises(GradatimError, match="Toy: size must be greater than 0, got 0"):
        Toy(size=0)
    with pytest.raises(GradatimError, match="Toy: has no option 'length'"):
        Toy(length=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Toy(2)  # type: ignore[misc]
    assert not hasattr(made, "__dict__")


def test_a_part_without_what_its_kind_must_have_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "half.py"
    file.write_text(
        "from gradatim.part import part\nfrom gradatim.search import Search\n\n"
        "@part\nclass Half(Search):\n    'Does nothing.'\n"
    )
    with pytest.raises(GradatimError, match=r"^the search '.*half.py:Half' is not whole: write its __call__$"):
        make("search", f"{file}:Half")
