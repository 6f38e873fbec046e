import numpy as np
import pandas as pd
import pytest

from bench.report import figures
from bench.report.curves import curve, curves, limits, step_values
from bench.report.densities import beside_truth, seed_shown


def costs_and_values(*pairs):
    return tuple(np.array(each, dtype=float) for each in zip(*pairs, strict=True))


def test_steps_hold_the_value_of_the_last_checkpoint_reached():
    cost, value = costs_and_values((1, 10), (2, 20), (4, 40))
    found = step_values(cost, value, np.array([0.5, 1, 1.9, 2, 3, 4, 100]))
    np.testing.assert_array_equal(found, [np.nan, 10, 10, 20, 20, 40, 40])


def test_a_curve_is_the_median_over_seeds_once_all_have_begun():
    seeds = [
        costs_and_values((1, -9.0), (4, -3.0)),
        costs_and_values((2, -8.0), (5, -1.0)),
        costs_and_values((3, -7.0), (6, -2.0)),
    ]
    found = curve("mapa", seeds)
    np.testing.assert_array_equal(found.cost, [3, 4, 5, 6])
    np.testing.assert_array_equal(found.median, [-8, -7, -3, -2])
    np.testing.assert_array_equal(found.low, [-9, -8, -7, -3])
    np.testing.assert_array_equal(found.high, [-7, -3, -1, -1])


def test_a_look_at_no_cost_is_not_drawn_but_the_rest_is():
    found = curve("mapa", [costs_and_values((0, -9), (1, -2))])
    np.testing.assert_array_equal(found.cost, [1])
    assert curve("mapa", [costs_and_values((0, -9))]) is None
    assert curve("mapa", [costs_and_values((np.nan, -9))]) is None


def test_limits_show_the_end_of_training_and_not_its_worst_start():
    values = np.array([-1e6, -5e3, -40, -3.4, -3.3, -3.2, -3.1, -3.05, -3.02, -3.0])
    bottom, top = limits(values, np.array([-3.0]), -2.9)
    assert -4.5 < bottom < -3.1
    assert -2.9 < top < -2.7


def test_limits_reach_down_to_where_a_method_ended_unless_it_ended_far_off():
    values = np.linspace(-3.5, -3.0, 11)
    assert limits(np.append(values, -4.0), np.array([-3.0, -4.0]))[0] < -4.0
    assert -4.0 < limits(np.append(values, -1e6), np.array([-3.0, -1e6]))[0] <= -3.5


@pytest.mark.parametrize("values", [[], [np.nan, -np.inf], [-3.0], [-3.0, -3.0]])
def test_limits_are_an_interval_whatever_the_values(values):
    bottom, top = limits(np.array(values), np.array(values))
    assert bottom < top


def looks(method, seed=0, cost=1.0, worst=-1000.0):
    k = np.arange(1, 9)
    spent = dict.fromkeys(figures.AXES, cost * k)
    value = np.where(k == 1, worst, -2 - 1 / k)
    return pd.DataFrame({"method": method, "seed": seed, "checkpoint": k, "value": value, **spent})


def horizontals(ax):
    return [line for line in ax.lines if len(line.get_ydata()) == 2 and len(set(line.get_ydata())) == 1]


def test_the_oracle_is_a_line_at_its_level_in_every_panel():
    rows = pd.concat([looks("mapa", s) for s in range(3)])
    with figures.look():
        fig = figures.against_cost(rows, figures.styles(["mapa"]), -1.75, "circle")
    assert len(fig.axes) == len(figures.AXES)
    for ax in fig.axes:
        assert ax.get_xscale() == "log"
        assert [line.get_ydata()[0] for line in horizontals(ax)] == [-1.75]
        assert ax.get_ylim()[0] > -10
        assert ax.get_ylim()[1] > -1.75
    assert any("below the axis" in text.get_text() for text in fig.texts)


def test_a_method_keeps_its_style_whatever_else_is_on_the_figure():
    known = figures.styles(["mapa", "iterative", "oracle"])
    with figures.look():
        alone = figures.against_cost(looks("iterative"), known, None, "a")
        both = figures.against_cost(pd.concat([looks("mapa"), looks("iterative")]), known, None, "b")
    assert {line.get_color() for line in alone.axes[0].lines} == {known["iterative"].color}
    assert {known["iterative"].color, known["mapa"].color} <= {line.get_color() for line in both.axes[0].lines}


def level_curves():
    with figures.look():
        return figures.against_cost(looks("mapa", worst=-2.5), figures.styles(["mapa"]), -2.0, "a")


def test_an_axis_that_shows_everything_claims_no_cut():
    assert not any("below the axis" in text.get_text() for text in level_curves().texts)


def test_styles_are_distinct_for_many_methods():
    known = figures.styles([f"m{i}" for i in range(20)])
    assert len({(s.color, s.dash, s.marker) for s in known.values()}) == 22


def test_curves_read_seeds_in_checkpoint_order():
    rows = pd.concat([looks("mapa", 0), looks("mapa", 1, cost=2)]).iloc[::-1]
    (found,) = curves(rows, "wall_s")
    assert found.cost[0] == 2
    assert found.median[-1] == pytest.approx(-2 - 1 / 8)


@pytest.mark.parametrize("name", ["$x_{1$", "_hidden", "a\nb", "x" * 200, "名"])
def test_any_name_can_be_drawn(name):
    with figures.look():
        fig = figures.against_cost(looks(name), figures.styles([name]), -1.0, name)
        assert figures.image(fig, "png").startswith(b"\x89PNG")
        assert b"<svg" in figures.image(fig, "svg")


def densities(methods, seeds=(0,), peak=0.0):
    x1, x2 = (each.ravel() for each in np.meshgrid(np.linspace(0, 3, 6), np.linspace(0, 1, 4)))
    return pd.concat(
        pd.DataFrame({"method": m, "seed": s, "x1": x1, "x2": x2, "log_density": peak - x1 - 2 * x2})
        for m in methods
        for s in seeds
    )


def test_densities_share_the_scale_of_the_truth_and_leave_out_the_oracle():
    rows = pd.concat([densities(["truth", "oracle"]), densities(["mapa"], peak=3.0)])
    with figures.look():
        fig = beside_truth(rows, ["oracle", "mapa"], "circle")
    panels = [ax for ax in fig.axes if ax.images and ax.get_title()]
    assert [ax.get_title() for ax in panels] == ["true model", "mapa"]
    assert [ax.images[0].get_clim() for ax in panels] == [(0, 1.0)] * 2
    first = panels[0].images[0].get_array()
    assert first.shape == (4, 6)
    assert panels[0].images[0].get_extent() == pytest.approx([-0.3, 3.3, -1 / 6, 7 / 6])
    assert first[3, 5] == pytest.approx(np.exp(-5))
    assert first[0, 1] == pytest.approx(np.exp(-0.6))


def test_the_seed_shown_is_the_one_with_most_methods_and_then_the_lowest():
    rows = pd.concat([densities(["truth", "mapa"], seeds=(1, 2)), densities(["truth"], seeds=(0,))])
    assert seed_shown(rows) == 1


def test_dark_figures_differ_in_ink_alone():
    with figures.look():
        svg = figures.image(level_curves(), "svg")
    dark = figures.darkened(svg)
    assert figures.INK.encode() in svg
    assert figures.INK.encode() not in dark
    assert len(dark) == len(svg)
