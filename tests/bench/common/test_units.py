import math
import re

import pytest

from bench.common import units
from bench.common.units import in_bytes, in_words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 FLOP"),
        (999, "999 FLOP"),
        (6.4e9, "6.4 GFLOP"),
        (999.96e6, "1 GFLOP"),
        (1.234e15, "1.23 PFLOP"),
        (1e22, "1e+04 EFLOP"),
        (math.nan, units.MISSING),
        (None, units.MISSING),
    ],
)
def test_flops(value, text):
    assert units.flops(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 s"), (2e-6, "2 µs"), (0.0123, "12.3 ms"), (3.456, "3.46 s"), (600, "10 min"), (9000, "2.5 h")],
)
def test_seconds(value, text):
    assert units.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(-3.21449, "-3.214"), (-0.0001, "0.000"), (-12345.6, "-1.23e+04"), (-math.inf, "-inf"), (math.nan, "–")],
)
def test_number(value, text):
    assert units.number(value) == text


def test_differences_carry_their_sign():
    assert [units.signed(v) for v in (0.25, -0.25, 0.0, math.inf)] == [
        "+0.250",
        "-0.250",
        "0.000",
        "+inf",
    ]


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (9999, "9999"), (12345, "12.3 k"), (3e6, "3 M")])
def test_count(value, text):
    assert units.count(value) == text


def test_ratio_and_spread():
    assert [units.ratio(v) for v in (0.2134, 1, 123.4, math.nan)] == ["0.21×", "1×", "120×", "–"]
    assert units.spread(-2, -1) == "-2.000 … -1.000"
    assert units.spread(math.nan, 1) == "–"


def test_quantities_take_the_unit_of_their_column():
    assert units.quantity("flops", 2e9) == "2 GFLOP"
    assert units.quantity("cpu_s", 0.5) == "500 ms"
    assert units.quantity("decoder_passes", 12345) == "12.3 k"
    assert units.quantity("index_tv", 0.5) == "0.500"


def test_lists_and_plurals():
    assert [units.listed(list(items)) for items in ("", "a", "ab", "abc")] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert (units.plural(1, "seed"), units.plural(3, "seed")) == ("1 seed", "3 seeds")


@pytest.mark.parametrize(
    ("value", "bounds", "text"),
    [
        (0.0123, (0.0071, 0.0182), "+0.012 [0.007, 0.018]"),
        (-0.0001, (-0.002, 0.001), "0.000 [-0.002, 0.001]"),
        (0.0003, (0.00002, 0.0005), "+0.00030 [0.00002, 0.00050]"),
        (-0.25, (-0.3, -0.2), "-0.250 [-0.300, -0.200]"),
        (0.1, (0.0, 0.2), "+0.100 [0.000, 0.200]"),
        (0.1, None, "+0.100"),
    ],
)
def test_a_difference_shows_on_which_side_of_zero_its_interval_is(value, bounds, text):
    assert units.with_interval(value, bounds) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 10**9), ("512 MB", 512 * 10**6), ("1.5e9", 1_500_000_000), ("100", 100), ("1kb", 1000)],
)
def test_a_number_of_bytes(text, size):
    assert in_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "two", "2 gigabytes", "nan", "1GiB", "1,5GB"])
def test_no_number_of_bytes(text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        in_bytes(text)


@pytest.mark.parametrize(("size", "text"), [(2 * 10**9, "2 GB"), (512_000_000, "512 MB"), (999, "999 bytes")])
def test_bytes_in_words(size, text):
    assert in_words(size) == text
