"""Text and numbers as LaTeX."""

import pytest

from bench.report.typeset import number, text


@pytest.mark.parametrize(
    ("shown", "latex"),
    [
        ("a_b & 5% #1 $x$", r"a\_b \& 5\% \#1 \$x\$"),
        ("~ ^ \\", r"\textasciitilde{} \textasciicircum{} \textbackslash{}"),
        ("{x}", r"\textbraceleft{}x\textbraceright{}"),
        ("mapa[a=1]", "mapa{[}a=1{]}"),
        ("<b>|", r"\textless{}b\textgreater{}\textbar{}"),
        ("--set a---b", r"-{}-set a-{}-{}-b"),
        ("α Λ ς µ", r"\ensuremath{\alpha} \ensuremath{\Lambda} \ensuremath{\varsigma} \textmu{}"),
        ("Α ο Ο ρ Ρ", r"A o O \ensuremath{\rho} P"),
        ("Rényi, Łoś", r"R\'enyi, \L{}o\'s"),
        ("中 🙂 þ", "{[}U+4E2D{]} {[}U+1F642{]} {[}U+00FE{]}"),
        ("two\nlines\tand \x00", "two lines and "),
        ("1 – 2…", r"1 \textendash{} 2\textellipsis{}"),
    ],
)
def test_text_is_literal(shown, latex):
    assert text(shown) == latex


@pytest.mark.parametrize(
    ("shown", "latex"),
    [
        ("-0.912", "$-0.912$"),
        ("–", "--"),
        ("", ""),
        ("-2.34e+05", r"$-2.34\times 10^{5}$"),
        ("1.00e-07", r"$1.00\times 10^{-7}$"),
        ("never", r"$\infty$"),
        ("[-inf, 0.250]", r"$[-\infty, 0.250]$"),
    ],
)
def test_numbers_are_mathematics(shown, latex):
    assert number(shown) == latex


def test_a_number_may_be_bold():
    assert number("0.250", "mathbf") == r"$\mathbf{0.250}$"
