"""How a method is drawn, in every figure alike: the colour of its family, and a dash and a marker of its own."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain, cycle
from typing import Any

from bench.stats.summary import ORACLE, fitted

INK, MUTED, GRID = "#24292f", "#6e7781", "#d8dee4"
HUES = ("#0b39a7", "#c38719", "#297d6a", "#e938b2", "#64441a", "#34025d", "#0392ef", "#510000")
_DARK_HUES = ("#6a99d6", "#fd911d", "#06c98d", "#e0b5e9", "#f7e95e", "#8e62fe", "#98ffd6", "#b76c59")
DARK = {INK: "#dfe4ea", MUTED: "#9aa4af", GRID: "#3a424c", **dict(zip(HUES, _DARK_HUES, strict=True))}
FLOOR = "untrained"
_FAMILIES = ("mapa", "vae", "iwae", "iterative", "semi-amortised", "flow", "exact-mle")  # each the hue of its place
_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)))
_MARKERS = "osD^vPX*"


@dataclass(frozen=True)
class Style:
    """How one method is drawn, in every figure alike; `mark` names it in a drawing, so that the page can find it."""

    color: str
    dash: Any
    marker: str
    mark: str


def family(method: str) -> str:
    """The family of a method, by its name: 'pyro-vae' and 'vae[steps=8]' are of vae; an unknown one is its own."""
    name = method.partition("[")[0]
    return next((f for f in _FAMILIES if name == f or name.startswith(f"{f}-") or name.endswith(f"-{f}")), name)


def styles(methods: list[str]) -> dict[str, Style]:
    """A style for each fitted method: a hue for each family, which two share only where there are more than eight.

    The hues are kept apart under simulated deuteranopia, protanopia and tritanopia (Machado et al. 2009) and from a
    light and a dark ground; methods of one hue differ in dash and marker.
    """
    names = fitted(methods)
    hues = _hues(list(dict.fromkeys(family(name) for name in names)))
    drawn: Counter[int] = Counter()
    found = {}
    for name in names:
        hue = hues[family(name)]
        place = drawn[hue]
        dash, marker = _DASHES[place % len(_DASHES)], _MARKERS[(hue + 3 * place) % len(_MARKERS)]
        found[name] = Style(HUES[hue], dash, marker, f"m{methods.index(name)}")
        drawn[hue] += 1
    return found | {ORACLE: Style(INK, (0, (6, 2)), "", "oracle"), FLOOR: Style(MUTED, (0, (1, 2)), "", FLOOR)}


def _hues(families: list[str]) -> dict[str, int]:
    """The hue of each family: its own where it is known, else one that is free, then all in turn."""
    known = {name: _FAMILIES.index(name) for name in families if name in _FAMILIES}
    free = [hue for hue in reversed(range(len(HUES))) if hue not in known.values()]
    others = chain(free, cycle(range(len(HUES))))
    return {name: known[name] if name in known else next(others) for name in families}
