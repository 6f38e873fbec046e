"""Text and numbers as LaTeX: whatever a name holds, it compiles with any engine and is seen as it is."""

from __future__ import annotations

import re
import unicodedata

from bench.common.units import MISSING

_JOINER = "\u2060"  # between hyphens, which LaTeX else makes a dash of
_SPECIAL = {
    _JOINER: "{}",
    **{mark: f"\\{mark}" for mark in "&%$#_"},
    "\\": r"\textbackslash{}",
    "{": r"\textbraceleft{}",  # not \{, since BibTeX would count it as a brace
    "}": r"\textbraceright{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # which else might be taken for an option of what stands before it
    "]": "{]}",
    '"': "''",
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "×": r"$\times$",
    "±": r"$\pm$",
    "−": "$-$",
    "∞": r"$\infty$",
    "≈": r"$\approx$",
    "µ": r"$\mu$",
}  # fmt: skip
_ROMAN = {
    "OMICRON": "Oo",
    "ALPHA": "A",
    "BETA": "B",
    "EPSILON": "E",
    "ZETA": "Z",
    "ETA": "H",
    "IOTA": "I",
    "KAPPA": "K",
    "MU": "M",
    "NU": "N",
    "RHO": "P",
    "TAU": "T",
    "CHI": "X",
}  # capital, and small one, as LaTeX lacks them
_ACCENTS = set("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327")
_LETTERS = set("ßæøåÆØÅœŒłŁı")
_GREEK = re.compile(r"GREEK (SMALL|CAPITAL) LETTER (FINAL )?(\w+)")


def text(value: object) -> str:
    """Text on one line of LaTeX, shown literally; a character that LaTeX has no glyph for as its code point."""
    line = " ".join(unicodedata.normalize("NFC", str(value)).split())
    return "".join(map(_character, re.sub("-(?=-)", f"-{_JOINER}", line)))


def _character(mark: str) -> str:
    if mark in _SPECIAL:
        return _SPECIAL[mark]
    if mark.isascii():
        return mark if mark.isprintable() else ""
    base, *accents = list(unicodedata.normalize("NFD", mark))
    if mark in _LETTERS or (base.isascii() and base.isalpha() and len(accents) == 1 and accents[0] in _ACCENTS):
        return mark
    found = _GREEK.fullmatch(unicodedata.name(base, ""))
    return _greek(*found.groups()) if found else f"{{[}}U+{ord(mark):04X}{{]}}"


def _greek(case: str, final: str | None, name: str) -> str:
    """A Greek letter; those that look like Roman ones have no command of their own."""
    capital = case == "CAPITAL"
    look = _ROMAN.get(name, "")
    if look[1:] or (look and capital):
        return look[not capital]
    spelled = ("var" if final else "") + name.lower().replace("lamda", "lambda")
    return f"$\\{spelled.capitalize() if capital else spelled}$"


def number(value: str, style: str = "") -> str:
    """A number or an interval as `bench.common.units` writes it, in mathematics; style: a command such as 'mathbf'."""
    if value in ("", MISSING):
        return "--" if value else ""
    shown = re.sub(r"e([+-])0*(\d+)", lambda found: rf"\times 10^{{{found[1].strip('+')}{found[2]}}}", value)
    shown = shown.replace("inf", r"\infty").replace("×", r"\times").replace(" … ", r" \dots ")
    return f"$\\{style}{{{shown}}}$" if style else f"${shown}$"
