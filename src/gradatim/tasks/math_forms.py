r"""The forms of a mathematical answer: one text for all that is equal.

Structure (lists, tuples, sets, intervals, relations, matrices) is read here, each formula in it by
:mod:`gradatim.tasks.math_reading`. A form depends on the value alone, never on how it was written:

- a rational number is itself in lowest terms; other constants are computed to :data:`DIGITS` digits and told by their
  value, as ``2*sqrt(3)``, ``3*pi/4`` or digits;
- polynomials and fractions of polynomials have their expanded form, and other expressions the one in which sympy's
  simplification ends;
- sets are sorted; inequalities in one variable are intervals; ``x=5`` has the form of 5.

Runs in the process that :mod:`gradatim.tasks.math_worker` describes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import mpmath
import sympy

from gradatim.tasks.math_notation import plain_number, without_unit
from gradatim.tasks.math_reading import UnreadableError, read_formula

DIGITS = 100
"""Digits to which constants are computed."""

_SHOWN_DIGITS = 75
_LARGEST_COEFFICIENT = 10**24
_USUAL_SIZE = 8
_MOST_SIGNS = 3
_MOST_TERMS = 1000
"""Terms into which an expression is multiplied out at most."""

_SEPARATOR = re.compile(r",|;|\\text\s*\{\s*,?\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")
_RELATION = re.compile(r"\\(?:le|ge|ne|in|approx)(?![a-zA-Z])|[<>=]")
_UNION = re.compile(r"\\(?:cup|cap|setminus|backslash)(?![a-zA-Z])")
_SIGN = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])")
_MATRIX = re.compile(
    r"(?P<factor>.*?)\\begin\{(?P<kind>[pbvBV]?matrix|array)\}(?:\{[^{}]*\})?(?P<rows>.*)\\end\{(?P=kind)\}"
)
_BRACKET = re.compile(r"\\(?:[{}]|[lr]angle(?![a-zA-Z]))|[()\[\]{}]")
_ALL_REALS = re.compile(r"\\mathbb\s*\{?\s*R\s*\}?|\\R")
_NAME = re.compile(r"(?:\\(?!sqrt|text|pm|mp|cdot|times|pi(?![a-z]))[a-zA-Z]+|\\text\{[^{}]*\}|[A-Za-z{}|/\s])+")
_NAME_PARTS = re.compile(r"_(?:\{[^{}]*\}|\w)|'|(?<=[A-Za-z}])\([^()]*\)")
_SET_NAMES = {"N": "Naturals", "Z": "Integers", "Q": "Rationals", "C": "Complexes"}
_TURNED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}


@dataclass(frozen=True, slots=True)
class Form:
    """What an answer is read as.

    Attributes:
        form: the first reading, by which answers are counted.
        others: further readings where the writing leaves several open: ``50\\%`` is 1/2, and perhaps 50.
        relation: of an equation or a relation, all of it, in one form; ``x=5`` is not ``y=5``.
        name: what a relation gives a value to.
        value: of a real constant that is no fraction, its decimals.
        expression: the sympy expression, of single formulas.
    """

    form: str
    others: tuple[str, ...] = ()
    relation: str | None = None
    name: str | None = None
    value: str | None = None
    expression: Any = None


def read_answer(latex: str) -> Form:
    """The forms of a tidied answer.

    Raises:
        UnreadableError: if it is nothing that has one; parts may raise any other exception.
    """
    latex = _without_group(latex)
    pieces = _split(latex, _SEPARATOR)
    if len(pieces) > 1:
        return _list([form for piece in pieces for form in _members(piece)])
    if len(_split(latex, _RELATION)) > 1:
        return _relation(latex)
    if (parts := _split(latex, _UNION)) != [latex]:
        return Form(_set_form(_sets(latex, parts)))
    if (matrix := _MATRIX.fullmatch(latex)) is not None:
        return _matrix(matrix)
    if (structure := _bracketed(latex)) is not None:
        return structure
    members = _members(latex)
    return members[0] if len(members) == 1 else _list(members)


# Lists, tuples, sets, matrices


def _list(forms: Sequence[Form]) -> Form:
    """The form of several values. Without brackets the order does not count, unless they have names: x=1, y=2."""
    names = sorted({form.name for form in forms if form.name is not None})
    if len(names) < 2:
        found = [form.form for form in forms]
        return Form(_sorted_set(found), (f"({', '.join(found)})",) if len(set(found)) > 1 else ())
    if len(names) < len(forms):
        raise UnreadableError("some values have names and others have none")
    named = sorted(forms, key=lambda form: form.name or "")
    relation = f"{{{', '.join(f'{form.name} = {form.form}' for form in named)}}}"
    return Form(relation, (f"({', '.join(form.form for form in named)})",), relation)


def _sorted_set(forms: Sequence[str]) -> str:
    unique = sorted(set(forms), key=_order)
    return unique[0] if len(unique) == 1 else f"{{{', '.join(unique)}}}"


def _order(form: str) -> tuple[int, Fraction, str]:
    try:
        return 0, Fraction(form), form
    except (ValueError, ZeroDivisionError):
        return 1, Fraction(0), form


def _members(latex: str) -> list[Form]:
    """The values that one member of a list stands for: two where it holds a plus-minus sign."""
    signs = list(_SIGN.finditer(latex))
    if not signs:
        return [read_answer(latex) if _has_structure(latex) else _formula(latex)]
    if len(signs) > _MOST_SIGNS:
        raise UnreadableError("it has too many signs")
    if _RELATION.search(latex):
        name, _, latex = latex.partition("=")
        if not _is_name(name) or _RELATION.search(latex):
            raise UnreadableError("it has a sign within a relation")
        values = _members(latex)
        return [Form(value.form, name=_compact(name)) for value in values]
    together = any(sign[0] == "\\mp" for sign in signs)
    choices = [("+",) * len(signs), ("-",) * len(signs)] if together else list(_products(len(signs)))
    return [_formula(_with_signs(latex, choice)) for choice in choices]


def _products(count: int) -> list[tuple[str, ...]]:
    return [()] if count == 0 else [(sign, *rest) for sign in "+-" for rest in _products(count - 1)]


def _with_signs(latex: str, choice: Sequence[str]) -> str:
    signs = iter(choice)

    def sign(found: re.Match[str]) -> str:
        chosen = next(signs)
        return chosen if found[0] == "\\pm" else {"+": "-", "-": "+"}[chosen]

    return _SIGN.sub(sign, latex).strip().removeprefix("+")


def _has_structure(latex: str) -> bool:
    enclosed = _enclosed(latex)
    in_brackets = enclosed is not None and (enclosed[0] == "\\{" or len(_split(enclosed[1], _SEPARATOR)) > 1)
    return in_brackets or bool(_RELATION.search(latex) or _UNION.search(latex)) or "\\begin" in latex


def _bracketed(latex: str) -> Form | None:
    """The form of a tuple, an interval or a set in brackets; ``None`` if it is none."""
    enclosed = _enclosed(latex)
    if enclosed is None:
        return None
    left, body, right = enclosed
    pieces = _split(body, _SEPARATOR)
    if left == "\\{":
        return Form("{}") if not body.strip() else Form(_sorted_set([m.form for p in pieces for m in _members(p)]))
    if len(pieces) < 2:
        return None
    opening = "(" if left == "\\langle" else left
    closing = ")" if right == "\\rangle" else right
    return Form(f"{opening}{', '.join(_one_value(piece).form for piece in pieces)}{closing}")


def _one_value(latex: str) -> Form:
    members = _members(latex)
    if len(members) > 1:
        raise UnreadableError("it is several values in the place of one")
    return members[0]


def _matrix(matrix: re.Match[str]) -> Form:
    factor = matrix["factor"].strip()
    rows = [row.split("&") for row in re.split(r"\\\\", matrix["rows"]) if row.strip()]
    if len({len(row) for row in rows}) != 1:
        raise UnreadableError("its rows have different lengths")
    entries = [[_formula(f"({factor})\\cdot({cell})" if factor else cell).form for cell in row] for row in rows]
    return Form(f"Matrix([{', '.join('[' + ', '.join(row) + ']' for row in entries)}])")


# Sets of numbers


def _sets(latex: str, parts: Sequence[str]) -> Any:
    operators = [found[0] for found in _UNION.finditer(latex)]
    if len(operators) != len(parts) - 1:
        raise UnreadableError("it has sets within sets")
    result = _set(parts[0])
    for operator, part in zip(operators, parts[1:], strict=True):
        other = _set(part)
        if operator == "\\cup":
            result = sympy.Union(result, other)
        else:
            result = sympy.Intersection(result, other) if operator == "\\cap" else sympy.Complement(result, other)
    return result


def _set(latex: str) -> Any:
    latex = _without_group(latex)
    if _ALL_REALS.fullmatch(latex):
        return sympy.S.Reals
    if latex == "\\emptyset":
        return sympy.S.EmptySet
    enclosed = _enclosed(latex)
    if enclosed is None:
        raise UnreadableError("it is no set")
    left, body, right = enclosed
    if left == "(" and len(_split(body, _UNION)) > 1:
        return _sets(body, _split(body, _UNION))
    values = [member.expression for piece in _split(body, _SEPARATOR) for member in _members(piece)]
    if any(value is None for value in values):
        raise UnreadableError("it is a set of other things than numbers")
    if left == "\\{":
        return sympy.FiniteSet(*values)
    if len(values) != 2 or left not in "([" or right not in ")]":
        raise UnreadableError("it is no interval")
    return sympy.Interval(*values, left_open=left == "(", right_open=right == ")")


def _set_form(found: Any) -> str:
    if found is sympy.S.EmptySet:
        return "{}"
    if found is sympy.S.Reals:
        return "(-oo, oo)"
    if isinstance(found, sympy.FiniteSet):
        return _sorted_set([str(value) for value in found.args])
    if isinstance(found, sympy.Interval):
        left, right = "(" if found.left_open else "[", ")" if found.right_open else "]"
        return f"{left}{found.start}, {found.end}{right}"
    if isinstance(found, sympy.Union):
        return " U ".join(sorted(map(_set_form, found.args)))
    raise UnreadableError("it is no set of numbers")


# Relations


def _relation(latex: str) -> Form:
    operators = _split_operators(latex)
    sides = [_without_group(side) for side in _split(latex, _RELATION)]
    if "\\approx" in operators:
        operators, sides = _before_approximation(operators, sides)
        if not operators:
            return read_answer(sides[0])
    if any(not side for side in sides):
        raise UnreadableError("it has an empty side")
    if set(operators) == {"="}:
        return _equation(sides)
    if operators == ["\\in"]:
        found = _one_value(sides[1]) if "," not in sides[1] else read_answer(sides[1])
        return Form(found.form, relation=f"{_compact(sides[0])}: {found.form}", name=_compact(sides[0]))
    return _inequality(operators, sides)


def _before_approximation(operators: list[str], sides: list[str]) -> tuple[list[str], list[str]]:
    r"""What is exact in ``x = \sqrt{2} \approx 1.41``; ``x \approx 1.41`` is read as an equation."""
    place = operators.index("\\approx")
    if place == 0 and _is_name(sides[0]):
        return ["=", *operators[1:]], sides
    return operators[:place], sides[: place + 1]


def _equation(sides: Sequence[str]) -> Form:
    """The form of ``x = 5`` is that of 5, where what stands left is only a name; else the equation's own."""
    first, last = sides[0], sides[-1]
    if len(sides) > 2 and any(_is_name(side) for side in sides[1:-1]):
        raise UnreadableError("it gives one value to several names")
    relation = _equation_form(first, last)
    if _is_name(first):
        members = _members(last)
        found = members[0] if len(members) == 1 else _list(members)
        return Form(found.form, found.others, relation, _compact(first), found.value, found.expression)
    value = _formula(last)
    if relation == "0 = 0" and not value.expression.free_symbols:
        return value  # a calculation that is right: 2 + 3 = 5
    if relation is None or re.fullmatch(r"-?1 = 0|0 = 0", relation):
        raise UnreadableError("it is no equation")
    return Form(relation, relation=relation)


def _equation_form(left: str, right: str) -> str:
    """One text for an equation, whatever stands on which side and by what it was multiplied."""
    try:
        sides = read_formula(without_unit(left)), read_formula(without_unit(right))
    except Exception:  # the name is no formula, or the value is no number
        return f"{_compact(left)}: {read_answer(right).form}"
    numerator = sympy.fraction(sympy.cancel(sympy.together(sides[0] - sides[1])))[0]
    symbols = sorted(numerator.free_symbols, key=str)
    if not symbols:
        return f"{0 if _constant(numerator) == 0 else 1} = 0"
    try:
        polynomial = sympy.Poly(numerator, *symbols)
    except sympy.PolynomialError:
        return f"{_canonical(sides[0])} = {_canonical(sides[1])}"
    return f"{_canonical(polynomial.as_expr() / polynomial.LC())} = 0"


def _inequality(operators: Sequence[str], sides: Sequence[str]) -> Form:
    """The interval of the values that satisfy it, of inequalities between one variable and constants."""
    values = [_formula(side).expression for side in sides]
    named = [place for place, value in enumerate(values) if value.free_symbols]
    if len(named) != 1 or not values[named[0]].is_Symbol:
        raise UnreadableError("it is no inequality in one variable")
    place = named[0]
    found = sympy.S.Reals
    for index, operator in enumerate(operators):
        if place not in (index, index + 1):
            raise UnreadableError("it compares constants")
        bound = values[index + 1 if place == index else index]
        found = sympy.Intersection(
            found, _half_line(operator if place == index else _TURNED.get(operator, operator), bound)
        )
    form = _set_form(found)
    return Form(form, relation=f"{values[place]}: {form}", name=str(values[place]))


def _half_line(operator: str, bound: Any) -> Any:
    """The numbers that stand in a relation to a bound."""
    below, above = (
        sympy.Interval(-sympy.oo, bound, False, "e" not in operator),
        sympy.Interval(bound, sympy.oo, "e" not in operator),
    )
    if operator == "\\ne":
        return sympy.Complement(sympy.S.Reals, sympy.FiniteSet(bound))
    if operator in ("<", "\\le"):
        return below
    if operator in (">", "\\ge"):
        return above
    raise UnreadableError("it mixes relations")


def _is_name(latex: str) -> bool:
    """Whether what stands left of an equals sign only names what stands right: ``x``, ``f(x)``, ``\\angle ABC``."""
    latex = latex.strip()
    if (enclosed := _enclosed(latex)) is not None and enclosed[0] == "(":
        return all(map(_is_name, _split(enclosed[1], _SEPARATOR)))
    return bool(re.search(r"[A-Za-z]", latex)) and _NAME.fullmatch(_NAME_PARTS.sub("", latex)) is not None


# Single formulas


def _formula(latex: str) -> Form:
    """The form of one number or expression, perhaps with a unit or a per cent sign."""
    latex = _without_group(latex)
    if (number := plain_number(latex)) is not None:
        value = sympy.Rational(number.value.numerator, number.value.denominator)
        return percentage(value) if number.percent else Form(str(value), expression=value)
    if _ALL_REALS.fullmatch(latex):
        return Form("(-oo, oo)")
    if (named := re.fullmatch(r"\\mathbb\s*\{?([NZQC])\}?", latex)) is not None:
        return Form(_SET_NAMES[named[1]])
    if latex == "\\emptyset":
        return Form("{}")
    if (ratio := _ratio(latex)) is not None:
        return ratio
    bare = re.sub(r"\s*\\?%\Z", "", latex)
    expression = _canonical(read_formula(without_unit(bare)))
    if bare != latex:
        return percentage(expression)
    value = None
    if expression.is_number and expression.is_real and not expression.is_Rational:
        value = mpmath.nstr(_real_value(expression), _SHOWN_DIGITS, min_fixed=-mpmath.inf, max_fixed=mpmath.inf)
    return Form(str(expression), value=value, expression=expression)


def percentage(value: Any) -> Form:
    """The form of so many per cent: a share, which may have been meant in per cent."""
    return Form(str(_canonical(value / 100)), (str(value),), expression=value / 100)


def _ratio(latex: str) -> Form | None:
    r"""The form of ``3:4:5``; a ratio of two numbers is a fraction."""
    parts = latex.split(":")
    if len(parts) < 2:
        return None
    values = [read_formula(part) for part in parts]
    if not all(value.is_Rational and value for value in values):
        raise UnreadableError("it is no ratio of numbers")
    if len(values) == 2:
        return Form(str(values[0] / values[1]))
    scale = sympy.ilcm(*(value.q for value in values)) / sympy.igcd(*(value.p for value in values))
    return Form(":".join(str(value * scale) for value in values))


def _canonical(expression: Any) -> Any:
    """One expression for all that are equal, as far as it can be told.

    Raises:
        UnreadableError: if it has no value.
    """
    if expression.has(sympy.zoo, sympy.nan):
        raise UnreadableError("it divides by zero")
    if not expression.free_symbols:
        return _constant(expression)
    if _terms(expression) > _MOST_TERMS:
        return expression
    found = _rational_function(expression)
    if found is not None:
        return found
    simplified = sympy.simplify(expression)
    if not simplified.free_symbols:
        return _constant(simplified)
    found = _rational_function(simplified)
    return simplified if found is None else found


def _terms(expression: Any) -> int:
    """How many terms an expression has at most when it is multiplied out."""
    parts = [_terms(part) for part in expression.args]
    if expression.is_Add:
        return sum(parts)
    if expression.is_Mul:
        return math.prod(parts)
    if expression.is_Pow and expression.exp.is_Integer:
        power = min(abs(int(expression.exp)), 10 * _MOST_TERMS)
        return math.comb(parts[0] + power - 1, power) if parts[0] > 1 else 1
    return 1


def _rational_function(expression: Any) -> Any | None:
    """The expanded form of a polynomial or a fraction of polynomials with constant coefficients; else ``None``."""
    above, below = sympy.fraction(sympy.cancel(sympy.together(expression)))
    symbols = sorted(expression.free_symbols, key=str)
    try:
        polynomials = [sympy.Poly(part, *symbols) for part in (above, below)]
    except sympy.PolynomialError:
        return None
    scale = polynomials[1].LC()
    above, below = (_with_constants(polynomial, scale) for polynomial in polynomials)
    return above / below


def _with_constants(polynomial: Any, scale: Any) -> Any:
    terms = []
    for powers, coefficient in polynomial.terms():
        factors = (symbol**power for symbol, power in zip(polynomial.gens, powers, strict=True))
        terms.append(_constant(coefficient / scale) * sympy.Mul(*factors))
    return sympy.Add(*terms)


# Constants


def _constant(expression: Any) -> Any:
    """The constant of a value, told by its digits: equal values give equal expressions.

    Raises:
        UnreadableError: if it cannot be computed.
    """
    if expression.is_Rational or expression in (sympy.oo, -sympy.oo):
        return expression
    if not expression.is_number:
        raise UnreadableError("it has no value")
    real, imaginary = (_real_constant(part) for part in expression.as_real_imag())
    return real + imaginary * sympy.I


def _real_constant(expression: Any) -> Any:
    if expression.is_Rational:
        return expression
    with mpmath.workdps(DIGITS):
        return _known(_real_value(expression))


def _real_value(expression: Any) -> Any:
    """The value to :data:`DIGITS` digits; what vanishes to four times as many is zero."""
    value = expression.evalf(DIGITS + 10, maxn=14 * DIGITS)
    if value.is_zero:
        return mpmath.mpf(0)
    if not value.is_Float:
        raise UnreadableError("it has no real value")
    with mpmath.workdps(DIGITS):
        return mpmath.mpf(0) if value._prec < DIGITS else mpmath.mpf(value._mpf_)


def _known(value: Any) -> Any:
    """The first of these that a value is: rational, quadratic, a multiple of pi or e or one plus it, a root, a
    logarithm; else its digits."""
    if not value:
        return sympy.Integer(0)
    size = int(mpmath.floor(mpmath.log10(abs(value))))
    power = 0 if abs(size) < _USUAL_SIZE else size  # so that no relation is found between values near zero
    scaled = value / mpmath.mpf(10) ** power
    attempts: tuple[Callable[[Any], Any | None], ...] = (
        _as_rational,
        _as_quadratic,
        _as_multiples,
        _as_root,
        _as_logarithm,
    )
    for attempt in attempts:
        found = attempt(scaled)
        if found is not None and abs(mpmath.mpf(found.evalf(DIGITS)._mpf_) - scaled) < abs(scaled) * mpmath.mpf(10) ** (
            20 - DIGITS
        ):
            return sympy.expand(found * sympy.Integer(10) ** power)
    return sympy.Float(mpmath.nstr(value, _SHOWN_DIGITS), _SHOWN_DIGITS)


def _linear_relation(values: Sequence[Any]) -> list[int] | None:
    found = mpmath.pslq(values, maxcoeff=_LARGEST_COEFFICIENT, maxsteps=5000, tol=mpmath.mpf(10) ** (30 - DIGITS))
    return None if found is None or not found[0] else found


def _as_rational(value: Any) -> Any | None:
    found = _linear_relation([value, mpmath.mpf(1)])
    return None if found is None else sympy.Rational(-found[1], found[0])


def _as_quadratic(value: Any) -> Any | None:
    found = _linear_relation([value * value, value, mpmath.mpf(1)])
    if found is None:
        return None
    a, b, c = map(sympy.Integer, found)
    solutions = [(-b + sign * sympy.sqrt(b * b - 4 * a * c)) / (2 * a) for sign in (1, -1)]
    return sympy.expand(min(solutions, key=lambda solution: abs(mpmath.mpf(solution.evalf(DIGITS)._mpf_) - value)))


def _as_multiples(value: Any) -> Any | None:
    for name, unit in ((sympy.pi, mpmath.pi), (sympy.E, mpmath.e), (sympy.pi**2, mpmath.pi**2)):
        if (found := _linear_relation([value, mpmath.mpf(1), +unit])) is not None:
            return sympy.Rational(-found[1], found[0]) + sympy.Rational(-found[2], found[0]) * name
        if (factor := _as_quadratic(value / unit)) is not None:
            return factor * name
    for name, unit in ((1 / sympy.pi, 1 / mpmath.pi), (sympy.exp(-1), 1 / mpmath.e), (sympy.exp(2), mpmath.e**2)):
        if (found := _linear_relation([value, mpmath.mpf(1), unit])) is not None:
            return sympy.Rational(-found[1], found[0]) + sympy.Rational(-found[2], found[0]) * name
    return None


def _as_root(value: Any) -> Any | None:
    for order in (3, 4, 5, 6):
        if (found := _as_rational(value**order)) is not None:
            return sympy.sign(value) * sympy.root(abs(found), order)
    return None


def _as_logarithm(value: Any) -> Any | None:
    if abs(value) > 30 or (found := _as_rational(mpmath.exp(value))) is None:
        return None
    return sympy.log(found)


# Text


def _compact(latex: str) -> str:
    return latex.replace(" ", "")


def _without_group(latex: str) -> str:
    """The text without braces around all of it."""
    latex = latex.strip()
    while (enclosed := _enclosed(latex)) is not None and enclosed[0] == "{":
        latex = enclosed[1].strip()
    return latex


def _enclosed(latex: str) -> tuple[str, str, str] | None:
    """The first bracket, what it encloses, and the last one, if one pair of brackets encloses all."""
    depth = 0
    first = None
    for bracket in _BRACKET.finditer(latex):
        first = first or bracket
        depth += 1 if _opens(bracket[0]) else -1
        if depth == 0:
            return (
                (first[0], latex[first.end() : bracket.start()], bracket[0])
                if (first.start(), bracket.end()) == (0, len(latex))
                else None
            )
    return None


def _opens(bracket: str) -> bool:
    return bracket in ("(", "[", "{", "\\{", "\\langle")


def _outside(latex: str, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    """The matches of a pattern outside of all brackets."""
    depths = [0] * (len(latex) + 1)
    depth = place = 0
    for bracket in _BRACKET.finditer(latex):
        depths[place : bracket.start() + 1] = [depth] * (bracket.start() + 1 - place)
        depth += 1 if _opens(bracket[0]) else -1
        place = bracket.start() + 1
        depths[place : bracket.end()] = [1] * (bracket.end() - place)
    depths[place:] = [depth] * (len(depths) - place)
    return [found for found in pattern.finditer(latex) if depths[found.start()] == 0]


def _split(latex: str, pattern: re.Pattern[str]) -> list[str]:
    pieces, place = [], 0
    for found in _outside(latex, pattern):
        pieces.append(latex[place : found.start()].strip())
        place = found.end()
    pieces.append(latex[place:].strip())
    return [piece for piece in pieces if piece] if pattern is _SEPARATOR else pieces


def _split_operators(latex: str) -> list[str]:
    return [found[0] for found in _outside(latex, _RELATION)]
