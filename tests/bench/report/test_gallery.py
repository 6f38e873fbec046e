"""Figures that are drawn by two processes."""

import os
import time
from functools import partial

import pytest
from matplotlib.figure import Figure

from bench.report import gallery
from bench.report.gallery import Picture, draw


def picture(number, act=lambda: None):
    """A figure of a number; what else is done first is done in a copy of this process only."""
    here = os.getpid()

    def make():
        if os.getpid() != here:
            act()
        fig = Figure((1, 1))
        fig.text(0.5, 0.5, str(number))
        return fig

    return Picture(f"figure-{number}", "", "", f"The number {number}.", make)


@pytest.fixture
def gone(monkeypatch):
    """Whether the one copy that was made is gone."""
    made, fork = [], os.fork

    def look():
        (copy,) = made
        try:
            os.kill(copy, 0)
        except ProcessLookupError:
            return True
        return False

    monkeypatch.setattr(os, "fork", lambda: made.append(fork()) or made[-1])
    return look


@pytest.mark.parametrize("count", [0, 1, 2, 5])
@pytest.mark.parametrize("inline", [False, True])
def test_every_second_figure_is_drawn_in_a_copy(count, inline):
    pictures, alike = [picture(i) for i in range(count)], [picture(i) for i in range(count)]
    draw(pictures, inline)
    for number, (each, other) in enumerate(zip(pictures, alike, strict=True)):
        assert {"svg", "inline"} & vars(each).keys() == ({"svg", "inline"} if inline else {"svg"})
        assert ("figure" in vars(each)) == (number % 2 == 0)
        assert (each.svg, each.inline) == (other.svg, other.inline)
        assert f">{number}</text>" in each.svg.decode()


@pytest.mark.parametrize("act", [partial(os._exit, 1), partial(time.sleep, 60), lambda: 1 / 0])
def test_what_the_copy_does_not_draw_is_drawn_when_needed(monkeypatch, gone, act):
    monkeypatch.setattr(gallery, "PATIENCE_S", 0.2)
    pictures = [picture(0), picture(1, act)]
    draw(pictures, False)
    assert "svg" not in vars(pictures[1])
    assert pictures[1].svg == picture(1).svg
    assert gone()


def test_an_error_of_a_figure_is_raised_and_leaves_no_process(gone):
    fails = Picture("", "", "", "", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        draw([fails, picture(1, partial(time.sleep, 60))], False)
    assert gone()
