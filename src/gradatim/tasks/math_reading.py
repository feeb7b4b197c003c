r"""Reading one formula with ``math-verify``'s reader of LaTeX, and all that has to be done around that reader.

This is the one place for what it reads wrongly (as of 0.9, with latex2sympy2-extended 1.11):

- a number beside a number or a fraction is added, not multiplied: ``2(3)`` is 5. Mixed numbers are made plain sums
  before, and what stands side by side is a product;
- decimals are binary floating point: they are read as exact fractions here;
- the index of a number is dropped, so ``12_5`` is 12, and so are primes, so ``f'(x)`` is ``f(x)``: both are refused;
- ``i`` is a variable, ``1e5`` is a product with Euler's number, ``0.\overline{3}`` with a variable;
- degrees are dropped within functions: ``\sin 30^\circ`` is the sine of 30;
- letters lose their case;
- ``\binom`` and operators of linear algebra compute at once, at any size.

Runs in the process that :mod:`gradatim.tasks.math_worker` describes.
"""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import accumulate
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, _Latex2Sympy
from latex2sympy2_extended.math_normalization import NormalizationConfig, normalize_latex
from sympy.core.function import AppliedUndef

_DEEPEST_NESTING = 10
_LARGEST_FACTORIAL = 2000
_LONGEST_SUM = 1000
_MOST_BITS = 20_000
"""Largest power that is computed, in binary digits."""

_NORMALIZATION = NormalizationConfig(units=False, malformed_operators=False, nits=False, boxed="none")
_CONVERSION = ConversionConfig(lowercase_symbols=False)

_REFUSED = re.compile(
    r"\\(?:sqrt|frac)\s*\d|['\"#&@?:]|!!|(?<=\d)_|(?<![_^]\d)(?<=\d)\s+\.?\d|\\q?quad|\\text(?!\{[A-Za-z]\})|(?<![\\a-zA-Z])d[a-z](?![a-z])|"
    r"\\(?:int|lim|partial|ldots|cdots|dots|operatorname|xrightarrow|begin|det|nabla|Gamma|gamma|boxed|fbox|prime|equiv|"
    r"pmod|mid|to|pm|mp|dot|overline|bar)(?![a-zA-Z])"
)
_MIXED = re.compile(r"(?<![\d.\w}])(\d+)\s*(\\frac\{\d+\}\{\d+\})(?!\s*\^)")
_SCIENTIFIC = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?|\.\d+)[eE]([-+]?\d{1,4})(?![\w.])")
_REPEATING = re.compile(r"(?<![\w.])(\d*)\.(\d*)\\(?:overline|bar|dot)\s*\{\s*(\d+)\s*\}")
_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")
_DEGREE = "^\\circ"


class UnreadableError(ValueError):
    """The formula is none, or nothing that is computed here."""


def read_formula(latex: str) -> Any:
    """The expression that a tidied formula states, evaluated: a ``sympy.Expr``.

    Raises:
        UnreadableError: if it is no single formula, or too large to be computed. The reader may raise anything else.
    """
    latex = _prepared(latex)
    if _REFUSED.search(latex) or _nesting(latex) > _DEEPEST_NESTING:
        raise UnreadableError("it is no single formula, or nested too deeply")
    expression = _reader().parse(normalize_latex(latex, _NORMALIZATION))
    if not isinstance(expression, sympy.Expr):
        raise UnreadableError("it is no single value")
    return _evaluated(expression)


def _prepared(latex: str) -> str:
    """The formula without the notations that the reader does not read."""
    latex = _SCIENTIFIC.sub(r"(\1 \\cdot 10^{\2})", latex)
    latex = _REPEATING.sub(_as_fraction, latex)
    latex = _MIXED.sub(r"(\1+\2)", latex)
    angle = r"\\cdot\\frac{\\pi}{180}" if _FUNCTION.search(latex) else ""
    return re.sub(r"\s*\^\\circ(?![a-zA-Z])", angle, latex).strip()


def _as_fraction(found: re.Match[str]) -> str:
    r"""``\frac{1}{6}`` for ``0.1\overline{6}``."""
    whole, fixed, repeated = found.groups()
    value = Fraction(f"{whole or 0}.{fixed or 0}") + Fraction(
        int(repeated), 10 ** len(fixed) * (10 ** len(repeated) - 1)
    )
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def _nesting(latex: str) -> int:
    depths = accumulate((character in "([{") - (character in ")]}") for character in latex)
    return max(depths, default=0)


def _reader() -> Any:
    """The library's reader, with its wrong readings replaced."""
    reader = _Latex2Sympy(None, True, False, config=_CONVERSION)

    def product(factors: list[Any], start: int = 0) -> Any:
        values = [reader.convert_postfix(factor) for factor in factors[start:]]
        if not all(isinstance(value, sympy.Expr) for value in values):
            raise UnreadableError("it multiplies what are no numbers")
        return values[0] if len(values) == 1 else sympy.Mul(*values, evaluate=False)

    def binomial(found: Any) -> Any:
        above, below = (_evaluated(reader.convert_expr(part)) for part in (found.upper, found.lower))
        if not (above.is_Integer and below.is_Integer and max(abs(above), abs(below)) <= _LARGEST_FACTORIAL):
            raise UnreadableError("its binomial coefficient is too large, or none of numbers")
        return sympy.binomial(above, below)

    reader.convert_postfix_list = product
    reader.convert_binom = binomial
    reader.parse_number = lambda text: sympy.Rational(text.replace(",", ""))
    return reader


def _evaluated(expression: Any) -> Any:
    """The expression computed from its innermost parts on.

    Raises:
        UnreadableError: if a part would be too large, or is nothing that answers are made of.
    """
    if expression == sympy.Symbol("i", real=True):
        return sympy.I
    if not expression.args:
        return expression
    if isinstance(expression, sympy.Sum | sympy.Product):
        return _evaluated_sum(expression)
    if isinstance(expression, sympy.Integral | sympy.Limit | sympy.Derivative | AppliedUndef):
        raise UnreadableError("it is a calculation, or a function that nobody knows")
    parts = [_evaluated(part) for part in expression.args]
    if isinstance(expression, sympy.UnevaluatedExpr):
        return parts[0]
    if isinstance(expression, sympy.Pow | sympy.exp):
        _check_power(*(parts if len(parts) == 2 else (sympy.E, parts[0])))
    if isinstance(expression, sympy.factorial) and not (parts[0].is_Integer and 0 <= parts[0] <= _LARGEST_FACTORIAL):
        raise UnreadableError("its factorial is too large, or none of a whole number")
    return expression.func(*parts)


def _check_power(base: Any, exponent: Any) -> None:
    if exponent.is_number and exponent.is_finite is not False:
        size = abs(complex(exponent.evalf(15)))
        bits = max(abs(base.p).bit_length(), base.q.bit_length()) if base.is_Rational else 1
        if size * bits > _MOST_BITS:
            raise UnreadableError("its power is too large")
    elif base.is_number and exponent.count_ops() > 50:
        raise UnreadableError("its power is too large")


def _evaluated_sum(expression: Any) -> Any:
    function, (index, start, end) = expression.args
    if len(expression.args) != 2 or not (start.is_Integer and end.is_Integer and 0 <= end - start < _LONGEST_SUM):
        raise UnreadableError("its sum is too long, or without an end")
    terms = (_evaluated(function.xreplace({index: sympy.Integer(start + step)})) for step in range(end - start + 1))
    return (sympy.Add if isinstance(expression, sympy.Sum) else sympy.Mul)(*terms)
