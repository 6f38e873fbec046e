"""Text and numbers as LaTeX. Whatever a name contains, it compiles with any engine and is shown literally."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

from bench.common.units import MISSING

_SPECIAL = {
    "{": r"\textbraceleft{}",  # not \{, which BibTeX counts as a brace
    "}": r"\textbraceright{}",
    "[": "{[}",  # otherwise an option of the macro before it
    "]": "{]}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
}
_ACCENTS = set("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327")
_OTHERS = set("ßæøåÆØÅœŒłŁı–—…‘’“”×±−∞≈µ")


def text(value: object) -> str:
    """Text as one line of LaTeX, shown literally. A character without a glyph is shown as its code point."""
    line = " ".join(unicodedata.normalize("NFC", str(value)).split())
    return _encoder().unicode_to_latex("".join(mark for mark in line if mark.isprintable() or not mark.isascii()))


@cache
def _encoder() -> Any:
    """pylatexenc's encoder, restricted to characters that need no package and no font encoding."""
    from pylatexenc.latexencode import (
        RULE_CALLABLE,
        RULE_DICT,
        RULE_REGEX,
        UnicodeToLatexConversionRule,
        UnicodeToLatexEncoder,
    )

    def rule(kind: int, content: object) -> Any:
        return UnicodeToLatexConversionRule(kind, content, replacement_latex_protection="none")

    hyphens = [(re.compile("-(?=-)"), "-{}")]  # otherwise LaTeX makes a dash of two hyphens
    special = {ord(mark): latex for mark, latex in _SPECIAL.items()}
    return UnicodeToLatexEncoder(
        conversion_rules=[
            rule(RULE_REGEX, hyphens),
            rule(RULE_DICT, special),
            rule(RULE_CALLABLE, _without_glyph),
            "defaults",
        ],
        replacement_latex_protection="braces-after-macro",
        unknown_char_policy=_code_point,
        unknown_char_warning=False,
    )


def _without_glyph(line: str, place: int) -> tuple[int, str] | None:
    """The code point in place of a character that LaTeX cannot show by itself."""
    mark = line[place]
    base, *accents = list(unicodedata.normalize("NFD", mark))
    letter = base.isascii() and base.isalpha() and len(accents) == 1 and accents[0] in _ACCENTS
    greek = not accents and unicodedata.name(base, "").startswith("GREEK")
    return None if mark.isascii() or mark in _OTHERS or letter or greek else (1, _code_point(mark))


def _code_point(mark: str) -> str:
    return f"{{[}}U+{ord(mark):04X}{{]}}"


def number(value: str, style: str = "") -> str:
    """A number or an interval in mathematics.

    Args:
        value: As `bench.common.units` writes it.
        style: A command around it, such as 'mathbf'.
    """
    if value in ("", MISSING):
        return "--" if value else ""
    shown = re.sub(r"e([+-])0*(\d+)", lambda found: rf"\times 10^{{{found[1].strip('+')}{found[2]}}}", value)
    shown = re.sub("inf|never", r"\\infty", shown).replace("×", r"\times").replace(" … ", r" \dots ")
    return f"$\\{style}{{{shown}}}$" if style else f"${shown}$"
