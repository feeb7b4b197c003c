"""The published formats by their names."""

from __future__ import annotations

from gradatim.errors import GradatimError
from gradatim.store.published.base import PublishedFormat
from gradatim.store.published.math_aps import MathAps
from gradatim.store.published.math_shepherd import MathShepherd
from gradatim.store.published.omega_prm import OmegaPrm
from gradatim.store.published.prm800k import Prm800k
from gradatim.store.published.rlhflow import RlhFlow
from gradatim.store.published.stepwise import StepwiseSupervision

_ALL: tuple[PublishedFormat, ...] = (
    Prm800k(), MathShepherd(), MathAps(), OmegaPrm(), StepwiseSupervision(), RlhFlow(),
)  # fmt: skip

FORMATS: dict[str, PublishedFormat] = {layout.name: layout for layout in _ALL}
"""Every format with its defaults. No row has the fields of two of them."""


def published_format(format: str | PublishedFormat) -> PublishedFormat:
    """A format by its name; a format is given back as it is.

    Raises:
        GradatimError: if there is none of that name.
    """
    if not isinstance(format, str):
        return format
    if format not in FORMATS:
        raise GradatimError(f"there is no published format {format!r}; choose one of {', '.join(FORMATS)}")
    return FORMATS[format]
