"""How a method is drawn, in every figure alike: the hue of its colour group, and its own dash and marker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.store.schema import LEARNS

INK, MUTED, GRID = "#24292f", "#6e7781", "#d8dee4"
HUES = ("#0b39a7", "#c38719", "#297d6a", "#e938b2", "#64441a", "#34025d", "#0392ef", "#510000")
_DARK_HUES = ("#6a99d6", "#fd911d", "#06c98d", "#e0b5e9", "#f7e95e", "#8e62fe", "#98ffd6", "#b76c59")
DARK = {INK: "#dfe4ea", MUTED: "#9aa4af", GRID: "#3a424c", **dict(zip(HUES, _DARK_HUES, strict=True))}
_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)))
_MARKERS = "osD^vPX*"


@dataclass(frozen=True)
class Style:
    """How a method is drawn in every figure.

    Args:
        color: Its colour on a light ground; `DARK` has the one on a dark ground.
        dash: The style of its lines, as matplotlib takes it.
        marker: Its marker; empty for a ceiling or floor, which are horizontal lines.
        mark: Its name within a drawing, by which the page finds it.
        role: "method", "reference", "ceiling" or "floor".
    """

    color: str
    dash: Any
    marker: str
    mark: str
    role: str = "method"


CEILING = Style(INK, (0, (6, 2)), "", "ceiling", "ceiling")
FLOOR = Style(MUTED, (0, (1, 2)), "", "floor", "floor")


def styles(roles: Mapping[str, str], groups: Mapping[str, str] | None = None) -> dict[str, Style]:
    """A style for each method. Groups get hues in order of appearance; from the ninth group on, hues are shared.

    The hues are distinct under simulated deuteranopia, protanopia and tritanopia (Machado et al. 2009), and stand out
    from a light and a dark ground. Methods of one hue differ in dash and marker.

    Args:
        roles: The role of each method, in order of appearance.
        groups: The colour group of each method; without one, its label is its group.
    """
    groups = {name: (groups or {}).get(name, name) for name, role in roles.items() if role in LEARNS}
    hues = {group: place % len(HUES) for place, group in enumerate(dict.fromkeys(groups.values()))}
    drawn: Counter[int] = Counter()
    found = {}
    for place, (name, role) in enumerate(roles.items()):
        if role not in LEARNS:
            found[name] = CEILING if role == "ceiling" else FLOOR
            continue
        hue = hues[groups[name]]
        dash, marker = _DASHES[drawn[hue] % len(_DASHES)], _MARKERS[(hue + 3 * drawn[hue]) % len(_MARKERS)]
        found[name] = Style(HUES[hue], dash, marker, f"m{place}")
        drawn[hue] += 1
    return found
