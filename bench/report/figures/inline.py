"""Drawings inside the page: they use its font and colours, so they are dark in dark mode."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

from bench.report.figures.palette import DARK

VARIABLES = {color: f"--c{place}" for place, color in enumerate(DARK)}
PIXELS = 1.37  # to a point, at the figure's full size
_UNUSED = re.compile(r"<metadata>.*?</metadata>|<style [^>]*>.*?</style>|<!--.*?-->", re.DOTALL)
_TAG = re.compile(r"<[^<>]*>")  # within text and attributes matplotlib escapes both
_BOX = re.compile(r'viewBox="0 0 ([\d.]+) [^"]*"')
_EDITS = tuple(
    (re.compile(found), put)
    for found, put in (
        (r"\s+", " "),
        (r'<g id="(m\d+)"', r'<g class="\1"'),
        (r'<g id="[^"]*"', "<g"),
        (r"font: (\d+|bold) ([\d.]+px) [^;\"]*", r"font-weight: \1; font-size: \2"),
        (r"font: ([\d.]+px) [^;\"]*", r"font-size: \1"),
        (r"font-family: [^;\"]*; ", ""),
        (r' transform="rotate\(-0 [^"]*"', ""),
        (r"(?<![\w#.])(-?\d+\.\d\d)\d+", r"\1"),
        (r"(?<=[\d.]) ([LQCMz])\b ?", r"\1"),
    )
)


def inlined(svg: bytes, name: str, alternative: str) -> Markup:
    """An SVG of matplotlib as an element of HTML, with its alternative text.

    Groups that are marked as a method's keep the mark as a class. Coordinates are rounded to a hundredth of a point.

    Args:
        svg: The SVG file.
        name: Letters, digits and hyphens, unique on the page, to make identifiers unique.
        alternative: What the drawing shows, in words.
    """
    text = svg.decode()
    text = _UNUSED.sub("", text[text.index("<svg") :])
    text = re.sub(r">\s+<", "><", _TAG.sub(lambda tag: _edited(tag[0], name), text))
    opening, drawing = text.split(">", 1)
    box = next(_BOX.finditer(opening))
    width = f"max-width: {PIXELS * float(box[1]):.0f}px"
    return Markup(f'<svg {box[0]} style="{width}" role="img" aria-label="{escape(alternative)}">{drawing}')


def _edited(tag: str, name: str) -> str:
    """A tag without what the page defines, with unique identifiers and the page's variables for colours."""
    for found, put in _EDITS:
        tag = found.sub(put, tag)
    tag = re.sub(r'( id="| xlink:href="#|url\(#)', rf"\g<1>{name}-", tag)
    for color, variable in VARIABLES.items():
        tag = tag.replace(color, f"var({variable})")
    return tag


def colours() -> Markup:
    """The page's variables for the colours of drawings, in light and in dark mode."""
    light = " ".join(f"{variable}: {color};" for color, variable in VARIABLES.items())
    dark = " ".join(f"{VARIABLES[color]}: {other};" for color, other in DARK.items())
    return Markup(f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}")
