r"""One spelling for what mathematical answers are written in: LaTeX as models write it, and plain text.

What has no meaning goes (delimiters, sizes, thin spaces, currency signs), Unicode becomes LaTeX, arguments of macros
get their braces, upright letters and names become those of mathematics, and digits in groups become numbers. Text only:
nothing here computes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

LONGEST_ANSWER = 500
"""Longest answer, in characters, that is read: what is longer is a derivation."""

_LARGEST_EXPONENT = 1000
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_LETTERS = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau",
    "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega", "Δ": "Delta", "Σ": "Sigma", "Φ": "Phi", "Ω": "Omega",
}  # fmt: skip
_UNICODE = str.maketrans(
    {letter: f"\\{name} " for letter, name in _LETTERS.items()}
    | {
        "\u2212": "-", "\u2013": "-", "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "∙": "\\cdot ", "÷": "/",
        "∞": "\\infty ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "±": "\\pm ", "∓": "\\mp ", "≈": "\\approx ",
        "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "∅": "\\emptyset ", "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}",
        "°": "^\\circ ", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "’": "'", "′": "'", "\u2044": "/",
        "½": "\\frac{1}{2}", "⅓": "\\frac{1}{3}", "⅔": "\\frac{2}{3}", "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}",
        "⅕": "\\frac{1}{5}", "⅖": "\\frac{2}{5}", "⅗": "\\frac{3}{5}", "⅘": "\\frac{4}{5}", "⅙": "\\frac{1}{6}",
        "⅚": "\\frac{5}{6}", "⅛": "\\frac{1}{8}", "⅜": "\\frac{3}{8}", "⅝": "\\frac{5}{8}", "⅞": "\\frac{7}{8}",
    }
)  # fmt: skip
_Replacements = list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]]
# Roots and raised digits, before their signs are replaced.
_PLAIN_TEXT: _Replacements = [
    (re.compile(r"[⁰¹²³⁴-⁹⁻⁺]+"), lambda found: f"^{{{found[0].translate(_SUPERSCRIPTS)}}}"),
    (re.compile(r"[₀-₉]+"), lambda found: f"_{{{found[0].translate(_SUBSCRIPTS)}}}"),
    (re.compile(r"√\s*(?:\(([^()]*)\)|(\d+|[^\W\d_]))"), r"\\sqrt{\1\2}"),
    (re.compile(r"∛\s*(?:\(([^()]*)\)|(\d+|[^\W\d_]))"), r"\\sqrt[3]{\1\2}"),
    (re.compile(r"√\s*(?=\{)"), r"\\sqrt"),
]
_TIDIED: _Replacements = [
    (re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])\.?|\\(?:display|text)style(?![a-zA-Z])"), ""),
    (re.compile(r"(?<=\d)\{,\}(?=\d{3}(?!\d))|(?<=\d),?\\!\s*(?=\d)|\\!\s*"), ""),
    (re.compile(r"(?<=\d)\{,\}(?=\d)"), "."),  # a decimal comma
    (re.compile(r"(?<!\\)\\[,;: ]|~|[\t\n\r\f\v]"), " "),
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\[dt]binom(?![a-zA-Z])"), r"\\binom"),
    (re.compile(r"\{([^{}\\]*)\\choose(?![a-zA-Z])([^{}\\]*)\}"), r"\\binom{\1}{\2}"),
    (re.compile(r"\{([^{}\\]*)\\over(?![a-zA-Z])([^{}\\]*)\}"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\varnothing(?![a-zA-Z])"), r"\\emptyset"),
    (re.compile(r"\\(?:lbrace|\{)(?![a-zA-Z])\s*"), r"\\{"),
    (re.compile(r"\s*\\(?:rbrace(?![a-zA-Z])|\})"), r"\\}"),
    (re.compile(r"\\(?:leq(?:slant)?|leqq)(?![a-zA-Z])"), r"\\le "),
    (re.compile(r"\\(?:geq(?:slant)?|geqq)(?![a-zA-Z])"), r"\\ge "),
    (re.compile(r"\\neq(?![a-zA-Z])"), r"\\ne "),
    (re.compile(r"\\lt(?![a-zA-Z])"), "<"),
    (re.compile(r"\\gt(?![a-zA-Z])"), ">"),
    (re.compile(r"(?<=\d)\s?\^?\{?\s*\\(?:text|mathrm|mbox)\s*\{(?:st|nd|rd|th)\}\s*\}?"), ""),
    (re.compile(r"\\?[$€£¥]|\\(?:euro|pounds)(?![a-zA-Z])"), ""),
    (re.compile(r"\\degrees?(?![a-zA-Z])|\^\s*\{\s*\\circ\s*\}|\^\s*\\circ(?![a-zA-Z])"), r"^\\circ "),
]
_DELIMITERS = re.compile(r"\A(?:\\[(\[]|(?<!\\)\$)+|(?:\\[)\]]|(?<!\\)\$)+\Z")

_FUNCTION = re.compile(r"(?:arc)?(?:sin|cos|tan)h?|cot|sec|csc|ln|log|exp|gcd|lcm|max|min")
_UPRIGHT = re.compile(
    r"\\(?P<kind>mathrm|mathit|mathbf|operatorname\*?|text(?:bf|it|rm|normal)?|mbox)\s*"
    r"(?:\{(?P<inside>\s*(?:[A-Za-z]+|\\[A-Za-z]+)\s*)\}|(?P<letter>[A-Za-z])(?![A-Za-z]))"
)
_UNIT_LETTERS = "mgshlLJNWVACFK"
"""Upright letters that stand for units; all others are letters of the formula: ``2\\mathrm{e}`` is not 2."""

_GROUPED = re.compile(r"(?<![\d.,])(?<!\d )(\d{1,3})((?:(?: | ?\\, ?)\d{3})+)(?![\d,]|\.\d{4}| \d|/)")
_THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3})((?:,\d{3})+)(?![\d,])")
_ARGUMENTS = {"\\frac": 2, "\\sqrt": 1, "\\binom": 2}
_AMBIGUOUS = re.compile(r"\\(?:sqrt\s*\d\d|frac\s*\d\d\d)")
"""To TeX ``\\sqrt12`` is the root of 1, to its writer it is not."""

_PIECE = re.compile(r"\\[a-zA-Z]+|\\.|\s+|.", re.DOTALL)


def tidy(latex: str) -> str:
    """The answer without delimiters, and one spelling of what can be written in several ways. Never raises."""
    latex = latex[: 4 * LONGEST_ANSWER].strip()
    latex = _DELIMITERS.sub("", latex).strip()
    for pattern, replacement in _PLAIN_TEXT:
        latex = pattern.sub(replacement, latex)
    latex = latex.translate(_UNICODE)
    for pattern, replacement in _TIDIED:
        latex = pattern.sub(replacement, latex)
    latex = latex.strip().rstrip(".,;").strip()
    latex = _UPRIGHT.sub(_upright, latex)
    latex = _GROUPED.sub(lambda found: re.sub(r"\D", "", found[0]), latex)
    latex = _without_thousands(latex)
    if _AMBIGUOUS.search(latex) is None:
        latex = _with_braces(latex)
    return re.sub(r" +", " ", latex)[: 4 * LONGEST_ANSWER]


def _upright(found: re.Match[str]) -> str:
    """What upright letters stand for: a function's name, a letter of the formula, or (unchanged) words and units."""
    inside = found["letter"] or found["inside"]
    name = inside.strip()
    if _FUNCTION.fullmatch(name):
        return f"\\{name} "
    if name == "\\pi" or (found["kind"] in ("mathit", "mathbf") and len(name) == 1):
        return f"{name} " if name[0] == "\\" else name
    is_letter = len(name) == 1 and name not in _UNIT_LETTERS
    alone = found[0] == found.string
    return name if is_letter and not alone else f"\\text{{{inside}}}"


def _without_thousands(latex: str) -> str:
    """The text without commas of thousands; within brackets a comma separates: ``(1,234)`` is a pair."""

    def joined(found: re.Match[str]) -> str:
        opened = _innermost_bracket(latex[: found.start()])
        return found[1] + found[2].replace(",", "") if opened in ("", "{") else found[0]

    return _THOUSANDS.sub(joined, latex)


def _innermost_bracket(text: str) -> str:
    r"""The last bracket that ``text`` opens and does not close: ``(``, ``[``, ``{``, ``\{`` or nothing."""
    opened: list[str] = []
    for piece in re.findall(r"\\[{}]|[()\[\]{}]", text):
        if piece in ("(", "[", "{", "\\{"):
            opened.append(piece)
        elif opened:
            opened.pop()
    return opened[-1] if opened else ""


def _with_braces(latex: str) -> str:
    r"""The text with braces around every argument of ``\frac``, ``\sqrt`` and ``\binom``: ``\frac{\pi}{4}`` for
    ``\frac\pi4``."""
    pieces = _PIECE.findall(latex)
    written: list[str] = []
    place = 0
    while place < len(pieces):
        piece = pieces[place]
        written.append(piece)
        place += 1
        if piece == "\\sqrt" and pieces[place : place + 1] == ["["] and "]" in pieces[place:]:
            end = pieces.index("]", place) + 1
            written += pieces[place:end]
            place = end
        for _ in range(_ARGUMENTS.get(piece, 0)):
            argument, place = _argument(pieces, place)
            written.append(argument)
    return "".join(written)


def _argument(pieces: list[str], place: int) -> tuple[str, int]:
    """The argument that begins at a place, in braces, and the place behind it; nothing where there is none."""
    while place < len(pieces) and pieces[place].isspace():
        place += 1
    if place == len(pieces) or pieces[place] in (")", "]", "}"):
        return "", place
    if pieces[place] != "{":
        return f"{{{pieces[place]}}}", place + 1
    end = _group_end(pieces, place)
    return f"{{{_with_braces(''.join(pieces[place + 1 : end - 1]))}}}", end


def _group_end(pieces: list[str], start: int) -> int:
    """The place after the brace that closes the one at ``start``; the end where none does."""
    depth = 0
    for place in range(start, len(pieces)):
        depth += (pieces[place] == "{") - (pieces[place] == "}")
        if depth == 0:
            return place + 1
    return len(pieces)


# Plain numbers, and units behind them.

_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
_RATIONAL = re.compile(
    r"(?P<sign>[-+]?)\s*(?:(?P<whole>\d+)(?:\s*(?=\\frac)|\s+(?=\d+/\d)))?"
    rf"(?:\\frac\s*\{{\s*(?P<above>-?\s*{_NUMBER})\s*\}}\s*\{{\s*(?P<below>{_NUMBER})\s*\}}"
    rf"|(?P<number>{_NUMBER})(?:[eE](?P<exponent>[-+]?\d{{1,4}})(?![\w.])"
    rf"|\s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*(?:\{{\s*(?P<power>[-+]?\s?\d{{1,4}})\s*\}}|(?P<digit>[-+]?\d+))"
    r"|\s*/\s*(?P<denominator>\d+))?)"
    r"(?:\s*(?P<percent>\\?%|percent\b|\\text\s*\{\s*percent\s*\}))?(?P<unit>.*)",
    re.ASCII | re.DOTALL,
)
_DEGREE = re.compile(r"\^\\circ(?![a-zA-Z])\s*[CF]?")
_UNIT = re.compile(r"[A-Za-z]{2,}(?:[ /.-]+[A-Za-z]{2,})*\.?(?:\s*\^\s*\{?[23]\}?)?")
# Words after which a number goes on or is no plain number; what is none of them is a unit.
_NO_UNIT = re.compile(
    r"\b(?:sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|root|pi|mod|choose|over|times|plus|minus|and|or|to|of|at|by|more|less|"
    r"than|half|hundred|thousand|million|billion|trillion|dozen|if|not|base|where|for|percent|[a-z]{2})\b",
    re.IGNORECASE,
)
_SHORT_UNIT = re.compile(
    r"\b(?:mm|cm|km|ft|in|yd|mi|mg|kg|lb|oz|ml|hr|sq|cu|nm|ms|Hz|eV|Pa|mA|kW|kJ|mL|dB)\b", re.IGNORECASE
)
_UPRIGHT_UNIT = re.compile(
    r"(?P<space>\s*)(?:\\text\s*\{(?P<words>[^{}\\0-9]*)\}|\\mbox\s*\{(?P<more>[^{}\\0-9]*)\})\s*"
    r"(?:\^\s*(?:\{\s*-?\s*[1-4]\s*\}|[1-4]))?\s*\Z"
)


@dataclass(frozen=True, slots=True)
class PlainNumber:
    """A rational number, its text if it is written as a decimal (else empty), and whether it is a percentage."""

    value: Fraction
    decimal: str
    percent: bool


def plain_number(latex: str) -> PlainNumber | None:
    """The number that a tidied answer is, perhaps with its unit; ``None`` for all else."""
    match = None if len(latex) > LONGEST_ANSWER else _RATIONAL.fullmatch(without_unit(latex).strip())
    if match is None or not _is_unit(match["unit"]):
        return None
    above = Fraction((match["above"] or match["number"]).replace(" ", ""))
    below = Fraction(match["below"] or match["denominator"] or 1)
    exponent = int((match["exponent"] or match["power"] or match["digit"] or "0").replace(" ", ""))
    if not below or abs(exponent) > _LARGEST_EXPONENT:
        return None
    value = int(match["whole"] or 0) + above / below * Fraction(10) ** exponent
    is_decimal = match["number"] and "." in match["number"] and not (match["denominator"] or exponent)
    return PlainNumber(
        -value if match["sign"] == "-" else value, match["number"] if is_decimal else "", bool(match["percent"])
    )


def without_unit(latex: str) -> str:
    r"""A tidied formula without the upright unit behind it: ``8\pi`` for ``8\pi\text{ cm}^2``."""
    while (unit := _UPRIGHT_UNIT.search(latex)) is not None:
        words = (unit["words"] if unit["words"] is not None else unit["more"]).strip()
        before = latex[: unit.start()].rstrip()
        is_letter = len(words) == 1 and words in _UNIT_LETTERS
        if not before or not (is_letter or _is_unit(f" {words}")):
            break
        latex = re.sub(r"(?:/|\\cdot)\s*\Z", "", before).rstrip()
    return latex


def _is_unit(text: str) -> bool:
    """Whether what follows a number is only its unit. Variables are no unit: ``5xyz`` is not 5."""
    text = _SHORT_UNIT.sub(" unit", _DEGREE.sub("", text)).rstrip()
    return not text or (text[0] == " " and _UNIT.fullmatch(text.strip()) is not None and _NO_UNIT.search(text) is None)
