"""Direct preference optimization over whole solutions."""

from __future__ import annotations

from gradatim.objectives.preference import Preference
from gradatim.part import part
from gradatim.supervision.terms import Term, from_prompt


@part
class Dpo(Preference):
    """Prefer whole solutions (DPO, Rafailov et al., 2023, arXiv:2305.18290).

    Each side is everything that the policy wrote from the prompt to the end of its group. The steps that both sides
    share cancel in the preference (see :func:`~gradatim.objectives.preference.dpo_loss`) and count in the likelihood
    term.
    """

    def prepared(self, term: Term) -> Term:
        return from_prompt(super().prepared(term))
