"""How numbers are written, on the page and in the terminal.

Most functions take a number or None and return text; None and NaN give MISSING.
"""

from __future__ import annotations

import math
import re

MISSING = "–"
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def _absent(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _scaled(value: float) -> tuple[str, str]:
    """Three significant digits and their SI prefix."""
    value = float(f"{value:.3g}")
    power = 0 if value == 0 else math.floor(math.log10(abs(value)) / 3)
    power = min(max(power, 0), len(_PREFIXES) - 1)
    return f"{value / 1000**power:.3g}", _PREFIXES[power]


def number(value: float | None, digits: int = 3) -> str:
    """A number with fixed decimals; from 10,000 on with an exponent."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    text = f"{value:.{digits}f}" if abs(value) < 1e4 else f"{value:.2e}"
    return text.removeprefix("-") if float(text) == 0 else text


def signed(value: float | None, digits: int = 3) -> str:
    """A number with its sign, plus included."""
    text = number(value, digits)
    return f"+{text}" if value is not None and value > 0 and float(text) != 0 else text


def with_interval(value: float, bounds: tuple[float, float] | None) -> str:
    """A difference and its interval, '+0.012 [0.007, 0.018]', with enough digits to show its side of zero."""
    if bounds is None:
        return signed(value)
    low, high = bounds
    least = min(abs(low), abs(high)) if low * high > 0 else 1.0
    digits = min(max(3, math.ceil(-math.log10(least))), 9)
    return f"{signed(value, digits)} [{number(low, digits)}, {number(high, digits)}]"


def interval(low: float, high: float, digits: int = 3) -> str:
    """An interval, '[0.007, 0.018]'; empty if an end is NaN."""
    return "" if math.isnan(low + high) else f"[{number(low, digits)}, {number(high, digits)}]"


def spread(low: float | None, high: float | None) -> str:
    """The range from low to high; MISSING if an end is missing."""
    return MISSING if _absent(low) or _absent(high) else f"{number(low)} … {number(high)}"


def count(value: float | None) -> str:
    """A count: whole below 10,000, then three significant digits with k, M or G."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "inf"
    if abs(value) < 1e4:
        return f"{value:.0f}"
    digits, prefix = _scaled(value)
    return f"{digits} {prefix}"


def flops(value: float | None) -> str:
    """Floating-point operations in human units: 6.4e9 is '6.4 GFLOP'."""
    if value is None or not math.isfinite(value):
        return MISSING if _absent(value) else "inf"
    digits, prefix = _scaled(value)
    return f"{digits} {prefix}FLOP"


def seconds(value: float | None) -> str:
    """A duration in seconds, shown in a unit from µs to hours."""
    if value is None or not math.isfinite(value):
        return MISSING if _absent(value) else "inf"
    if value == 0:
        return "0 s"
    for below, factor, unit in ((1e-3, 1e6, "µs"), (1, 1e3, "ms"), (120, 1, "s"), (7200, 1 / 60, "min")):
        if value < below:
            return f"{float(f'{value * factor:.3g}'):g} {unit}"
    return f"{float(f'{value / 3600:.3g}'):g} h"


def megabytes(value: float | None) -> str:
    """Memory in MB (1e6 bytes): '250 kB', '12.3 MB', '1.5 GB'."""
    if value is None or math.isnan(value):
        return MISSING
    digits, prefix = _scaled(value * 1e6)
    return f"{digits} {prefix}B"


def ratio(value: float | None) -> str:
    """A ratio of costs with two significant digits: '0.21×'; 'never' if it is infinite.

    Zero is a finite cost over an infinite one: 'other never'.
    """
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "never"
    if value == 0:
        return "other never"
    return f"{float(f'{value:.2g}'):g}×"


def percent(share: float | None) -> str:
    """A share as a percentage: '12 %', '0.3 %', '<0.1 %'."""
    if share is None or math.isnan(share):
        return MISSING
    return "<0.1 %" if 0 < share < 1e-3 else f"{float(f'{100 * share:.2g}'):g} %"


def plural(n: int, noun: str) -> str:
    """'1 seed', '3 seeds'."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def listed(items: list[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return items[0] if len(items) == 1 else " and ".join(filter(None, (", ".join(items[:-1]), *items[-1:])))


def quantity(name: str, value: float | None) -> str:
    """A value of a column: a cost in its own unit, anything else as a number."""
    return _FORMATS.get(name, number)(value)


_FORMATS = {
    "wall_s": seconds,
    "cpu_s": seconds,
    "evaluation_s": seconds,
    "query_s": seconds,
    "flops": flops,
    "query_flops": flops,
    "peak_memory_mb": megabytes,
    "decoder_passes": count,
    "encoder_passes": count,
}


UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZE = re.compile(r"(?P<number>[0-9]*\.?[0-9]+(?:e[0-9]+)?) *(?P<unit>[kmgt]b|)", re.IGNORECASE)


def in_bytes(text: str) -> int:
    """The number of bytes in a text such as 2GB, 512MB or 1.5e9.

    Raises:
        ValueError: For any other text.
    """
    found = SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(text)
    return int(float(found["number"]) * UNITS[found["unit"].upper()])


def in_words(size: int) -> str:
    """A number of bytes in the largest unit that is not larger than it."""
    unit = next(unit for unit, least in reversed(UNITS.items()) if size >= least or not unit)
    return f"{size / UNITS[unit]:.4g} {unit or 'bytes'}"
