"""What a study may say: claims of papers, and the comparison that tests them here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from gradatim.errors import GradatimError
from gradatim.recipes.comparison import Comparison
from gradatim.recipes.overrides import apply_override
from gradatim.recipes.recipe import NAME
from gradatim.recipes.section import Section
from gradatim.suggestions import suggestion

PREPARED = "prepared:"
"""What the name of a model begins with that a study trains first: `prepared:NAME/scorer` is the model `scorer` of the
run `NAME`."""
Size = Literal["smoke", "full"]
_PLACE = re.compile(f"{PREPARED}([A-Za-z0-9][A-Za-z0-9._-]*)")


class Preparation(Section):
    """A recipe that is run before the comparison, since the comparison names a model of it."""

    recipe: str
    """A shipped recipe."""
    set: list[str] = Field(default=[])
    """Keys that are changed, as `key=value`; a value may be `prepared:NAME`, the run of a preparation above it, such as
    one whose trees several learn from. A list within the list stands for its elements, so that several preparations can
    share some by a YAML anchor."""

    @field_validator("set", mode="before")
    @classmethod
    def _flat(cls, given: Any) -> Any:
        return list(_flattened(given)) if isinstance(given, list) else given


class Claim(Section):
    """One thing that a paper says, as something that can be won or lost here."""

    text: str
    """What is claimed, as a sentence."""
    paper: str = ""
    """Where it is claimed, and the size of the effect there."""
    first: str
    """The method (or scorer) that is claimed to be better."""
    second: str
    """What it is claimed to be better than."""
    by: Annotated[str, Field(pattern=r"^(accuracy|auc|pass@[1-9][0-9]*|distinct|tokens)$")] = "accuracy"
    """`accuracy` of methods at equal tokens; the `auc` of scorers against the truth about partial solutions; of what
    policies write without search, `pass@1` or `pass@k`, how many solutions are `distinct`, or that they are of fewer
    `tokens`."""


class Extent(Section):
    """How large a study is."""

    comparison: list[str] = Field(default=[])
    """Keys of the comparison that are changed."""
    prepare: dict[str, list[str]] = Field(default={})
    """Keys of the recipes of `prepare` that are changed, by the name of the preparation."""
    every: list[str] = Field(default=[])
    """Keys that are changed of all of those recipes."""
    testbeds: list[str] | None = None
    """The testbeds that are run; `null` for all."""
    training_seeds: list[int] = Field(default=[])
    """Everything is prepared once with each of these seeds, and compared with it: what is found is a mean over
    trainings. Empty to prepare once, with the recipes' own seeds."""


class Study(Section):
    """Claims of one or more papers, tested on one or more testbeds."""

    kind: Literal["study"]
    """A study."""
    name: Annotated[str, Field(pattern=NAME)]
    """Of the study."""
    summary: str
    """The question, in one line."""
    systems: list[str] = Field(default=[])
    """The ids of the systems that it is about."""
    prepare: dict[Annotated[str, Field(pattern=NAME)], Preparation] = Field(default={})
    """Runs whose models the comparison names."""
    comparison: dict[str, Any]
    """A comparison (`kind: compare` is understood), whose models may be `prepared:NAME/MODEL`."""
    testbeds: dict[Annotated[str, Field(pattern=NAME)], list[str]] = Field(min_length=1)
    """Keys of the comparison that are changed on each testbed."""
    claims: list[Claim] = Field(min_length=1)
    """What is tested."""
    smoke: Extent
    """A size that only shows that everything works."""
    full: Extent
    """A size that shows something."""

    def at(self, size: Size) -> Extent:
        """The study's extent at a size."""
        return self.smoke if size == "smoke" else self.full

    def testbeds_at(self, size: Size) -> list[str]:
        """The testbeds that are run at a size."""
        chosen = self.at(size).testbeds
        return list(self.testbeds) if chosen is None else chosen

    def prepared_for(self, testbed: str, size: Size) -> list[str]:
        """The preparations whose models the comparison names on a testbed, and those that they build on."""
        names = {name: f"{PREPARED}{name}" for name in self.prepare}
        comparison = self.comparison_on(testbed, size, names)
        used = [options.model for options in (comparison.policy, *comparison.models.values())]
        needed = {name for name, place in names.items() if any(f"{model}/".startswith(f"{place}/") for model in used)}
        for name in reversed(names):  # each builds on those above it alone
            if name in needed:
                needed |= {each for change in self.overrides(name, size) for each in _PLACE.findall(change)}
        return [name for name in names if name in needed]

    def overrides(self, preparation: str, size: Size, seed: int | None = None) -> list[str]:
        """What is changed of a preparation's recipe, which is trained with ``seed`` in the place of its own."""
        changed = [
            *self.prepare[preparation].set,
            *self.at(size).every,
            *self.at(size).prepare.get(preparation, ()),
        ]
        return changed if seed is None else [*changed, f"seed={seed}"]

    def comparison_on(
        self, testbed: str, size: Size, prepared: Mapping[str, str], seed: int | None = None
    ) -> Comparison:
        """The comparison on a testbed.

        Args:
            testbed: its name.
            size: of the study.
            prepared: the folders of the preparations' runs, by their names.
            seed: of the training that is compared, if there are several.

        Raises:
            GradatimError: if the comparison is none, or names a preparation that is not there, or a claim is about what
                it does not compare.
        """
        from gradatim.recipes.load import parse_recipe

        content = {"kind": "compare", "name": f"{self.name}-{testbed}", **deepcopy(self.comparison)}
        for override in (*self.testbeds[testbed], *self.at(size).comparison):
            apply_override(content, override)
        if seed is not None:
            content["seeds"] = [seed]
        made = parse_recipe(_placed(content, prepared), f"{self.name} on {testbed}")
        if not isinstance(made, Comparison):
            raise GradatimError(f"the study {self.name!r} needs a comparison; leave kind out, or set it to compare")
        for place, claim in enumerate(self.claims):
            what, known = compared_by(made, claim.by)
            for name in (claim.first, claim.second):
                if name not in known:
                    raise GradatimError(
                        f"{self.name} on {testbed}: claims.{place} is about the {what} {name!r}, which is not "
                        f"compared; {suggestion(name, known)}"
                    )
        return made

    @model_validator(mode="after")
    def _fits(self) -> Study:
        for size in ("smoke", "full"):
            extent = self.at(size)
            for name in extent.testbeds or ():
                if name not in self.testbeds:
                    raise ValueError(f"{size}.testbeds names {name!r}, which is not in testbeds")
            for name in extent.prepare:
                if name not in self.prepare:
                    raise ValueError(f"{size}.prepare names {name!r}, which is not in prepare")
        return self


def _flattened(given: list[Any]) -> Iterator[Any]:
    for each in given:
        yield from _flattened(each) if isinstance(each, list) else (each,)


def compared_by(comparison: Comparison, by: str) -> tuple[str, list[str]]:
    """What a measure is of, in a word, and the names of those that a comparison measures by it."""
    if by == "accuracy":
        return "method", [method.name for method in comparison.methods]
    if by == "auc":
        return "scorer", list(comparison.scorers)
    policies = comparison.policies
    return "policy", policies.names if policies is not None and by in policies.measures else []


def placed_in(override: str, prepared: Mapping[str, str]) -> str:
    """An override with the folders of prepared runs in the place of their names."""
    return _PLACE.sub(lambda found: _folder(found[1], prepared), override)


def _folder(name: str, prepared: Mapping[str, str]) -> str:
    if name not in prepared:
        raise GradatimError(
            f"{PREPARED + name!r} names the preparation {name!r}, which the study does not have before it is needed"
        )
    return prepared[name]


def _placed(value: Any, prepared: Mapping[str, str]) -> Any:
    """The same content with the folders of prepared models in the place of their names."""
    if isinstance(value, dict):
        return {key: _placed(each, prepared) for key, each in value.items()}
    if isinstance(value, list):
        return [_placed(each, prepared) for each in value]
    if not isinstance(value, str) or not value.startswith(PREPARED):
        return value
    name, slash, rest = value.removeprefix(PREPARED).partition("/")
    return _folder(name, prepared) + slash + rest
