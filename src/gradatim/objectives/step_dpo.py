"""Direct preference optimization over single steps."""

from __future__ import annotations

from gradatim.objectives.preference import Preference
from gradatim.part import part
from gradatim.supervision.terms import Term, parted


@part
class StepDpo(Preference):
    r"""Prefer a step to its sibling, given the prefix that they share (Step-DPO, Lai et al., 2024, arXiv:2406.18629).

    .. math:: L = - \frac{\sum_i w_i \log \sigma(\beta [\Delta(s^c_i \mid p_i) - \Delta(s^r_i \mid p_i)] - m_i)}
              {\sum_i |w_i|}, \qquad \Delta(s \mid p) = \log \pi(s \mid p) - \log \rho(s \mid p)

    with prefix :math:`p`, chosen and rejected step :math:`s^c, s^r`, policy :math:`\pi`, reference :math:`\rho`,
    weight :math:`w` and margin :math:`m`; label smoothing and likelihood term as in
    :func:`~gradatim.objectives.preference.dpo_loss`. Sides of several steps are compared from where their paths part.
    With values as targets and a `margin`, it is Step-APO (Wang et al., 2024, arXiv:2409.08642), which takes advantages
    into DPO: those of two steps after one prefix differ as their values do. The sign and scale of the offset are ours.
    """

    def prepared(self, term: Term) -> Term:
        return parted(super().prepared(term))
