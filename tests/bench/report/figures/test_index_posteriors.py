"""Index posteriors over the true one: the numbers beside the panels, and what is drawn."""

import math

import numpy as np
import pandas as pd
import pytest

from bench.report.figures import style
from bench.report.figures.index_posteriors import divergences, over_truth, probabilities
from bench.report.figures.palette import styles

CODES = np.linspace(-2, 2, 41)


def normal(mean, scale):
    weight = np.exp(-0.5 * ((CODES - mean) / scale) ** 2)
    return weight / weight.sum()


def rows(method, probability, point=20, least=1e-6, dim=2):
    kept = (probability > least) | (np.arange(41) == point)
    place = [[float(code)] * dim for code in CODES[kept]]
    table = pd.DataFrame({"index": np.flatnonzero(kept), "code": CODES[kept], "x": place})
    return table.assign(method=method, point=point, probability=probability[kept])


def shown(*methods, points=(20,), dim=2):
    """The truth, the floor and methods a little off, shuffled."""
    parts = []
    for point in points:
        centre = CODES[point]
        parts += [
            rows("truth", normal(centre, 0.3), point, dim=dim),
            rows("floor", normal(centre, 0.4), point, dim=dim),
        ]
        parts += [rows(name, normal(centre + 0.1, 0.5), point, dim=dim) for name in methods]
    return pd.concat(parts, ignore_index=True).sample(frac=1, random_state=0)


def test_divergences_are_those_of_the_whole_distributions():
    truth, floor, method = normal(0, 0.3), normal(0, 0.4), normal(0.1, 0.5)
    found = divergences(probabilities(shown("mapa"), "mapa"))
    for name, q in (("floor", floor), ("mapa", method)):
        assert found["kl"][name] == pytest.approx(float((truth * np.log(truth / q)).sum()), abs=1e-4)
        assert found["tv"][name] == pytest.approx(float(np.abs(truth - q).sum() / 2), abs=1e-4)


def test_a_method_that_gives_the_true_codes_nothing_diverges_by_much():
    table = probabilities(pd.concat([shown(), rows("mapa", normal(2, 1e-3), 20)]), "mapa")
    found = divergences(table)
    assert found["tv"]["mapa"] == pytest.approx(1, abs=1e-5)
    assert 100 < found["kl"]["mapa"] < math.inf


def test_probabilities_are_in_the_order_of_codes_and_absent_ones_are_zero():
    table = probabilities(shown("mapa"), "mapa")
    assert list(table.columns) == ["truth", "floor", "mapa"]
    assert table.index.is_monotonic_increasing
    expected = np.where(normal(0, 0.3) > 1e-6, normal(0, 0.3), 0)
    np.testing.assert_allclose(table["truth"], expected[np.isin(CODES, table.index)])


def draw(posteriors, names):
    with style.figure_style():
        fig = over_truth(posteriors, names, styles(dict.fromkeys(names, "method")), "circle")
        fig.draw_without_rendering()
    return fig


def test_each_method_has_a_row_and_each_x_a_panel_in_the_order_of_codes():
    names = ["mapa", "mapa[kernel_width=2]"]
    fig = draw(shown(*names, points=(30, 10)), names)
    assert len(fig.axes) == 2 * 3
    own = [line.get_xdata()[0] for ax in fig.axes for line in ax.lines if line.get_marker() == "^"]
    assert own == pytest.approx([CODES[10], CODES[30]] * 2)
    assert [text.get_text() for text in fig.legends[0].get_texts()][1:3] == names
    mapa = divergences(probabilities(shown("mapa", points=(10,)), "mapa")).loc["mapa"]
    assert fig.axes[1].get_title().startswith(f"x1: KL {mapa['kl']:.2f} (floor ")
    assert f"TV {mapa['tv']:.2f} (floor " in fig.axes[1].get_title()


def test_the_line_of_a_method_is_the_mean_over_nine_neighbours_and_dots_are_single():
    fig = draw(shown("mapa"), ["mapa"])
    color = styles({"mapa": "method"})["mapa"].color
    dots, line = (line for line in fig.axes[1].lines if line.get_color() == color)
    probability = normal(0.1, 0.5)[np.isin(CODES, dots.get_xdata())]
    np.testing.assert_allclose(dots.get_ydata(), np.where(probability > 1e-6, probability, 0))
    np.testing.assert_allclose(line.get_ydata()[10], probability[6:15].mean())


def test_methods_of_one_colour_differ_in_dash_in_their_panels_and_in_the_legend():
    names = ["mapa", "mapa-plain"]
    known = styles(dict.fromkeys(names, "method"), dict.fromkeys(names, "mapa"))
    with style.figure_style():
        fig = over_truth(shown(*names), names, known, "circle")
    rows = [[line for line in ax.lines if line.get_color() == known["mapa"].color][-1] for ax in fig.axes[1::2]]
    handles = fig.legends[0].legend_handles[1:3]
    assert [line.is_dashed() for line in rows] == [line.is_dashed() for line in handles] == [False, True]


def test_data_that_are_not_in_the_plane_have_no_map():
    assert len(draw(shown("mapa", dim=3), ["mapa"]).axes) == 1


@pytest.mark.parametrize("names", [["mapa"], [f"vae[batch_size=250,learning_rate={n}]" for n in range(5)]])
@pytest.mark.parametrize("dim", [2, 3])
def test_nothing_is_cut_off_or_lies_over_anything_else(misplaced, names, dim):
    assert misplaced(draw(shown(*names, points=(5, 15, 25, 35), dim=dim), names)) == []


def test_codes_that_are_all_equal_still_have_an_axis():
    table = shown("mapa")
    fig = draw(table[table["index"] == 20], ["mapa"])
    low, high = fig.axes[1].get_xlim()
    assert low < CODES[20] < high
