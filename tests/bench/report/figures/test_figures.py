import html
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.lines import Line2D

from bench.report.figures import style
from bench.report.figures.decomposition import PARTS, decomposition, limit, loss_parts
from bench.report.figures.densities import beside_truth, seed_shown
from bench.report.figures.inline import VARIABLES, colours, inlined
from bench.report.figures.palette import DARK, HUES, INK, MUTED, Style
from bench.report.figures.palette import styles as styles_of
from bench.report.figures.ranking import progress, ranking
from bench.report.page import write
from bench.stats.curves import Curve, curve, curves, limits, mean_curves, step_values

METRICS = ("test_ll", "oracle_gap", "elbo", "inference_gap")

ROLES = {"oracle": "ceiling", "untrained": "floor"}


def styles(methods, groups=None):
    return styles_of({name: ROLES.get(name, "method") for name in methods}, groups)


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


def test_a_mean_curve_by_hand():
    """Of datasets the mean, of seeds the median; a run that did not finish is infinitely bad."""
    gaps = {("a", 0): (9, 1), ("a", 1): (8, 2), ("a", 2): (7, 9), ("b", 0): (5, 3), ("b", 1): (5, 5), ("b", 2): None}
    runs = pd.DataFrame([(*run, "m", "method") for run in gaps], columns=["dataset", "seed", "method", "role"])
    rows = pd.DataFrame(
        [(*run, "m", k, v, 10.0**k) for run, values in gaps.items() for k, v in enumerate(values or ())],
        columns=["dataset", "seed", "method", "checkpoint", "value", "flops"],
    )
    (found,) = mean_curves(rows, runs)
    np.testing.assert_array_equal(found.cost, [1, 10])
    np.testing.assert_array_equal(found.median, [(8 + 5) / 2, (2 + 5) / 2])
    np.testing.assert_array_equal((found.low, found.high), [found.median] * 2)  # three seeds have no interval
    assert mean_curves(rows[rows["seed"] == 0], runs) == mean_curves(rows[rows["dataset"] == "c"], runs) == []


def test_the_interval_of_a_mean_curve_is_at_its_end():
    runs = pd.DataFrame({"dataset": "a", "seed": range(9), "method": "m", "role": "method"})
    ends = np.arange(1.0, 10)
    rows = pd.concat([runs.assign(checkpoint=k, flops=k + 1.0, value=ends + 9 * (1 - k)) for k in (0, 1)])
    (found,) = mean_curves(rows, runs)
    np.testing.assert_array_equal(found.median, [14, 5])
    assert found.low[0] == found.high[0] == 14
    assert 1 <= found.low[1] < 5 < found.high[1] <= 9


def looks(method, seed=0, cost=1.0, worst=-1000.0):
    k = np.arange(1, 9)
    spent = dict.fromkeys(style.AXES, cost * k)
    value = np.where(k == 1, worst, -2 - 1 / k)
    return pd.DataFrame({"method": method, "seed": seed, "checkpoint": k, "value": value, **spent})


def horizontals(ax):
    return [line for line in ax.lines if len(line.get_ydata()) == 2 and len(set(line.get_ydata())) == 1]


def test_the_oracle_is_a_line_at_its_level_in_every_panel():
    rows = pd.concat([looks("mapa", s) for s in range(3)])
    with style.figure_style():
        fig = style.against_cost(rows, styles(["mapa"]), -1.75, "circle")
    assert len(fig.axes) == len(style.AXES)
    for ax in fig.axes:
        assert ax.get_xscale() == "log"
        assert [line.get_ydata()[0] for line in horizontals(ax)] == [-1.75]
        assert ax.get_ylim()[0] > -10
        assert ax.get_ylim()[1] > -1.75
    assert any("below the axis" in text.get_text() for text in fig.texts)


def test_a_method_keeps_its_style_whatever_else_is_on_the_figure():
    known = styles(["mapa", "iterative", "oracle"])
    with style.figure_style():
        alone = style.against_cost(looks("iterative"), known, None, "a")
        both = style.against_cost(pd.concat([looks("mapa"), looks("iterative")]), known, None, "b")
    assert {line.get_color() for line in alone.axes[0].lines} == {known["iterative"].color}
    assert {known["iterative"].color, known["mapa"].color} <= {line.get_color() for line in both.axes[0].lines}


def test_lines_show_through_all_bands():
    methods = [f"m{i}" for i in range(style.BANDS)]
    with style.figure_style():
        fig = style.against_cost(looks_of(methods), styles(methods), None, "a")
    shades = [band.get_alpha() for band in fig.axes[0].collections]
    assert len(shades) == style.BANDS
    assert 1 - np.prod(1 - np.array(shades)) < 0.3


def level_curves():
    with style.figure_style():
        return style.against_cost(looks("mapa", worst=-2.5), styles(["mapa"]), -2.0, "a")


def test_an_axis_that_shows_everything_claims_no_cut():
    assert not any("below the axis" in text.get_text() for text in level_curves().texts)


def test_styles_are_distinct_for_many_methods():
    known = styles([f"m{i}" for i in range(20)])
    assert len({(s.color, s.dash, s.marker) for s in known.values()}) == 20


def test_curves_read_seeds_in_checkpoint_order():
    rows = pd.concat([looks("mapa", 0), looks("mapa", 1, cost=2)]).iloc[::-1]
    (found,) = curves(rows, "wall_s")
    assert found.cost[0] == 2
    assert found.median[-1] == pytest.approx(-2 - 1 / 8)


@pytest.mark.parametrize("name", ["$x_{1$", "_hidden", "a\nb", "x" * 200, "名"])
def test_any_name_can_be_drawn(name):
    with style.figure_style():
        fig = style.against_cost(looks(name), styles([name]), -1.0, name)
        assert style.image(fig, "png").startswith(b"\x89PNG")
        assert b"<svg" in style.image(fig, "svg")


LONG = [f"vae[batch_size=250,learning_rate=0.0{n}]" for n in range(13)]


def looks_of(methods):
    return pd.concat([looks(name, cost=10.0 * (i + 1)) for i, name in enumerate(methods)])


@pytest.mark.parametrize("methods", [["mapa"], LONG])
@pytest.mark.parametrize("datasets", [1, 2, 9])
def test_nothing_of_the_overview_is_cut_off_or_lies_over_anything_else(misplaced, methods, datasets):
    rows = looks_of(methods)
    panels = pd.concat(
        [rows.assign(dataset=f"d{i}", value=rows["value"].abs() * 10.0 ** (i % 3 - 3)) for i in range(datasets)]
    )
    with style.figure_style():
        fig = style.overview(panels, styles(methods))
        fig.draw_without_rendering()
        assert misplaced(fig) == []


@pytest.mark.parametrize(("panels", "columns"), [(1, 1), (5, 5), (6, 3), (7, 4), (8, 4), (9, 3), (10, 5), (12, 4)])
def test_few_places_of_a_grid_stay_empty(panels, columns):
    assert style.columns_for(panels, 5) == columns


def test_the_overview_names_its_axis_in_each_row_and_shows_the_ends():
    rows = looks_of(["mapa", "vae"]).assign(value=lambda each: each["value"].abs() - 2 + 1e-3)
    rows.loc[rows["method"] == "vae", "value"] *= 2
    with style.figure_style():
        fig = style.overview(pd.concat([rows.assign(dataset=f"d{i}") for i in range(6)]), styles(["mapa", "vae"]))
    assert [ax.get_ylabel() for ax in fig.axes] == ["oracle gap (nats)", "", ""] * 2
    assert {ax.get_xlabel() for ax in fig.axes} == {"FLOPs"}
    for ax in fig.axes:
        bottom, top = ax.get_ylim()
        ends = [line.get_ydata()[-1] for line in ax.lines]
        assert bottom < min(ends) < max(ends) < top <= 4 * max(ends)
        assert ax.get_xlim()[0] > 1  # the first checkpoint is far above


@pytest.mark.parametrize("methods", [["mapa"], LONG])
def test_nothing_is_cut_off_or_lies_over_anything_else(misplaced, methods):
    with style.figure_style():
        fig = style.against_cost(looks_of(methods), styles(methods), -1.0, "circle")
        fig.draw_without_rendering()
        assert misplaced(fig) == []


def test_labels_of_many_digits_are_not_cut_off(misplaced):
    rows = looks("mapa")
    with style.figure_style():
        fig = style.against_cost(rows.assign(value=rows["value"] / 20 - 12), styles(["mapa"]), None, "circle")
        fig.draw_without_rendering()
        assert {len(label.get_text()) for label in fig.axes[0].get_yticklabels()} == {len("-12.150")}
        assert misplaced(fig) == []


@pytest.mark.parametrize("methods", [["mapa"], ["mapa", "flow"], LONG])
@pytest.mark.parametrize("datasets", [1, 3])
def test_nothing_of_what_is_lost_is_cut_off_or_lies_over_anything_else(misplaced, methods, datasets):
    names = {"dataset": [f"d{i}" for i in range(datasets)], "method": methods, "seed": [0, 1]}
    parts = pd.DataFrame(dict.fromkeys(PARTS, 0.1), pd.MultiIndex.from_product(names.values(), names=names))
    parts.loc[parts.index[-1], "oracle_gap"] = 246.9
    with style.figure_style():
        fig = decomposition(parts, styles(methods))
        fig.draw_without_rendering()
        assert misplaced(fig) == []


def test_what_is_lost_has_no_element_for_each_seed():
    """A tick per seed is drawn, but thousands of seeds must not fill the page."""

    def drawn(seeds):
        names = {"dataset": ["a"], "method": ["mapa", "vae"], "seed": range(seeds)}
        parts = pd.DataFrame(dict.fromkeys(PARTS, 0.1), pd.MultiIndex.from_product(names.values(), names=names))
        parts["oracle_gap"] += np.linspace(0, 0.1, len(parts))
        with style.figure_style():
            fig = decomposition(parts, styles(["mapa", "vae"]))
            return fig, style.image(fig, "svg")

    (_, few), (fig, many) = drawn(2), drawn(300)
    assert many.count(b"<") < few.count(b"<") + 300
    assert [int(np.isnan(line.get_ydata()).sum()) for line in fig.axes[0].lines] == [300, 300]


@pytest.mark.parametrize("error", [np.nan, None])
def test_a_study_whose_standard_errors_are_missing_has_figures_of_the_same_size(tmp_path, error):
    """Studies of one test point, which are no longer made, have none."""

    def sizes(folder, stderr):
        folder.mkdir()
        runs = pd.DataFrame([(m, s) for m in ("mapa", "vae", "oracle") for s in range(2)], columns=["method", "seed"])
        about = {"status": "done", "message": "", "notes": "", "concurrent": False, "peak_memory_mb": 1.0, "key": ""}
        runs = runs.assign(dataset="circle", role=runs["method"].map(ROLES).fillna("method"), **about)
        runs = runs.assign(**dict.fromkeys((*style.AXES, "encoder_passes"), 2.0))
        looks = pd.concat([runs.assign(checkpoint=0, metric=m, value=0.5) for m in METRICS], ignore_index=True)
        looks.assign(stderr=stderr, unit="nats").to_parquet(folder / "measurements.parquet")
        runs.to_parquet(folder / "runs.parquet")
        (folder / "study.json").write_text('{"schema": 3}')
        figures = write(folder).parent / "figures"
        return {path.stem: box(path.read_text()) for path in figures.glob("*.svg")}

    found = sizes(tmp_path / "without", error)
    assert found == sizes(tmp_path / "with", 0.1)
    assert found.keys() == {"overview", "ranking", "circle-cost", "decomposition"}
    for each in found.values():
        assert all(50 < float(side) < 1500 for side in each.split('"')[1].split()[2:])


def box(svg):
    return re.search('viewBox="[^"]*"', svg)[0]


def densities(methods, seeds=(0,), peak=0.0):
    x1, x2 = (each.ravel() for each in np.meshgrid(np.linspace(0, 3, 6), np.linspace(0, 1, 4)))
    return pd.concat(
        pd.DataFrame({"method": m, "seed": s, "x1": x1, "x2": x2, "log_density": peak - x1 - 2 * x2})
        for m in methods
        for s in seeds
    )


@pytest.mark.parametrize("constant", [("x1",), ("x1", "x2")])
def test_densities_of_test_points_that_share_a_coordinate_are_drawn(constant):
    rows = densities(["mapa"]).assign(**dict.fromkeys(constant, 1.0))
    with style.figure_style():
        fig = beside_truth(rows, ["mapa"], "own")
    assert np.isfinite(fig.get_size_inches()).all()


def test_densities_share_the_scale_of_the_truth():
    rows = pd.concat([densities(["truth"]), densities(["mapa"], peak=3.0)])
    with style.figure_style():
        fig = beside_truth(rows, ["absent", "mapa"], "circle")
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


# Colours: as they are seen by people who lack one kind of cone (Machado et al. 2009, severity 1, in linear light)
MACHADO = {
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "none": np.eye(3),
}
TO_CONES = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
TO_LAB = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
          [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
GROUNDS = {"light": "#ffffff", "dark": "#14181d"}
PALETTES = {"light": list(HUES), "dark": [DARK[hue] for hue in HUES]}


def linear(colors):
    value = np.array([[int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)] for color in colors])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(color, ground):
    high, low = sorted(linear([color, ground]) @ [0.2126, 0.7152, 0.0722], reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("sight", MACHADO)
def test_no_two_hues_look_alike_to_anyone(sight, ground):
    """Differences in Oklab (Ottosson 2020), where 0.02 can just be told apart side by side."""
    seen = np.clip(linear(PALETTES[ground]) @ np.transpose(MACHADO[sight]), 0, 1)
    lab = np.cbrt(seen @ np.transpose(TO_CONES)) @ np.transpose(TO_LAB)
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    assert apart[np.triu_indices(len(HUES), 1)].min() > 0.09


@pytest.mark.parametrize("ground", GROUNDS)
def test_every_hue_stands_out_from_its_ground(ground):
    """Three to one, which WCAG 2.2 (1.4.11) asks of graphics; 4.5 for the ink of labels (1.4.3)."""
    assert min(contrast(color, GROUNDS[ground]) for color in PALETTES[ground]) >= 3
    inks = [INK, MUTED] if ground == "light" else [DARK[INK], DARK[MUTED]]
    assert min(contrast(color, GROUNDS[ground]) for color in inks) >= 4.5


@pytest.mark.parametrize("ground", GROUNDS)
def test_the_text_of_the_page_can_be_read_on_what_lies_under_it(ground):
    css = (Path(style.__file__).parents[1] / "templates" / "report.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    given = dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[0 if ground == "light" else 1]))
    pairs = [(ink, "ground") for ink in ("ink", "muted", "accent", "warn")]
    pairs += [(ink, f"{ink}-wash") for ink in ("better", "worse", "same", "warn")] + [("ink", "mark"), ("ink", "wash")]
    assert {pair: round(contrast(*(given[name] for name in pair)), 2) for pair in pairs if
            contrast(*(given[name] for name in pair)) < 4.5} == {}  # fmt: skip


def test_methods_of_a_colour_group_share_a_hue_and_differ_in_dash_and_marker():
    names = ["one", "other", "one-more", "oracle", "untrained"]
    known = styles(names, {"one": "group", "one-more": "group"})
    assert known["one"].color == known["one-more"].color == HUES[0]
    assert known["other"].color == HUES[1]
    assert len({(known[name].dash, known[name].marker) for name in ("one", "one-more")}) == 2
    assert (known["oracle"].role, known["untrained"].role) == ("ceiling", "floor")
    assert known["oracle"].color not in HUES


def test_no_name_decides_how_a_method_is_drawn_or_compared():
    names = ["mapa", "vae", "mapa-polished"]
    renamed = dict(zip(names, ("x", "y", "z"), strict=True))
    here, there = styles(names), styles(renamed.values())
    assert [here[name] for name in names] == [there[renamed[name]] for name in names]


# In the page


@pytest.mark.parametrize("name", ["a-cost", "2024-cost", "7", "1d"])
def test_a_figure_in_the_page_takes_its_colours_and_names_from_it(name):
    with style.figure_style():
        svg = style.image(level_curves(), "svg")
    found = inlined(svg, name, 'curves of "a" & <b>')
    assert 'aria-label="curves of &#34;a&#34; &amp; &lt;b&gt;"' in found
    assert not [color for color in DARK if color in found]
    assert all(f"{variable}: {color};" in colours() for color, variable in VARIABLES.items())
    names = set(re.findall(r' id="([^"]*)"', found))
    assert names
    assert names == {each for each in names if each.startswith(f"{name}-")}
    assert set(re.findall(r'(?:xlink:href="#|url\(#)([^")]*)', found)) <= names
    assert '<g class="m0">' in found
    assert len(found) < 0.8 * len(svg)


@pytest.mark.parametrize("name", ["0.123456 #24292f", 'font: 9px " id="x', "</svg><script>", "url(#a) <g id='m1'>"])
def test_the_page_shows_the_text_of_a_figure_as_it_is(name):
    with style.figure_style():
        fig = style.against_cost(looks(name), styles([name]), -1.0, "a")
        found = inlined(style.image(fig, "svg"), "a-cost", "")
    assert name in [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", found)]


# What is lost


def losses(**parts):
    index = pd.MultiIndex.from_tuples([("a", "vae", 0), ("a", "vae", 1), ("a", "exact-mle", 0), ("a", "oracle", 0)],
                                      names=["dataset", "method", "seed"])  # fmt: skip
    return pd.DataFrame({name: pd.Series(values, index) for name, values in parts.items()})


def bars(ax):
    return {(round(bar.get_x(), 6), round(bar.get_width(), 6), bar.get_y()) for bar in ax.patches}


def test_what_is_lost_is_drawn_part_by_part_end_to_end():
    nan = np.nan
    ends = losses(
        oracle_gap=[0.2, 0.4, 0.1, 0],
        approximation_gap=[0.1, 0.1, nan, 0],
        amortisation_gap=[0.2, 0.6, nan, 0],
        inference_gap=[0.3, 0.7, nan, 0],
    )
    parts = loss_parts(ends, ["a"], ["exact-mle", "vae"])
    assert list(parts.index.get_level_values("method")) == ["exact-mle", "vae", "vae"]
    with style.figure_style():
        fig = decomposition(parts, styles(["exact-mle", "vae"]))
    (ax,) = fig.axes
    assert {(x, width) for x, width, _ in bars(ax)} == {(0, 0.1), (0, 0.3), (0.3, 0.1), (0.4, 0.4)}
    assert [text.get_text() for text in ax.texts] == ["0.100", "0.800"]
    seeds = [sorted(np.round(line.get_xdata()[::3], 6)) for line in ax.lines]
    assert seeds == [[0.1], [0.5, 1.1]]


def test_an_inference_gap_that_was_not_parted_is_drawn_whole_and_far_losses_leave_the_axis():
    nan = np.nan
    ends = losses(oracle_gap=[0.2, 0.2, 0.1, 0], approximation_gap=[nan] * 4, inference_gap=[90.0, 90.0, nan, 0])
    parts = loss_parts(ends, ["a"], ["vae", "exact-mle"])
    assert parts["inference_gap"].tolist()[:2] == [90, 90]
    with style.figure_style():
        fig = decomposition(parts, styles(["exact-mle", "vae"]))
    assert [text.get_text() for text in fig.legends[0].get_texts()] == [PARTS["oracle_gap"], PARTS["inference_gap"]]
    assert limit(np.array([0.1, 0.2, 0.3, 90.2])) == 0.3
    assert limit(np.array([0.0])) > 0


# Over all datasets


def places(**columns):
    return pd.DataFrame({"method": ["vae", "mapa", "gone"], **columns, "missing": [0, 0, 3]})


def test_methods_stand_in_the_order_of_their_gaps_with_intervals_and_what_is_missing():
    ranks = places(rank=[1.2, 1.8, 3.0], low=[1.0, 1.5, 3.0], high=[1.5, 2.0, 3.0])
    means = places(mean=[0.1, 0.2, np.inf], low=[0.1, np.nan, np.inf], high=[0.4, np.nan, np.inf]).iloc[[1, 0, 2]]
    steps = [pd.DataFrame({"method": m, "tau": [1.0, 10.0], "rho": [0.2, r], "low": 0.1, "high": 0.9})
             for m, r in (("mapa", 0.9), ("vae", 0.4), ("gone", 0.2))]  # fmt: skip
    with style.figure_style():
        fig = ranking(pd.concat(steps), means, ranks, styles(["mapa", "vae", "gone"]))
        style.image(fig, "svg")
    left, middle, right = fig.axes
    assert all(ax.get_title() and ax.get_xlabel() for ax in fig.axes)
    assert "within 0.1 nats of the truth" in left.get_ylabel()
    assert [line.get_ydata()[-1] for line in left.lines] == [0.4, 0.9, 0.2]
    assert [label.get_text() for label in middle.get_yticklabels()] == ["vae", "mapa", "gone (3 missing)"]
    assert [list(line.get_xdata()) for line in right.lines if len(line.get_xdata()) == 2] == [
        [1.0, 1.5],
        [1.5, 2.0],
        [3.0, 3.0],
    ]
    assert [list(line.get_xdata()) for line in middle.lines if len(line.get_xdata()) == 2] == [[0.1, 0.4], [0.2, 0.2]]
    assert [text.get_text() for text in middle.texts] == ["infinite "]


def line_of(method, value, spread=0.0):
    ends, at_end = np.array([9.0, 3 * value, value]), np.array([0, 0, spread])
    return Curve(method, np.array([1e9, 1e10, 5e10]), ends, ends - at_end, ends + at_end)


@pytest.mark.parametrize("methods", [["mapa", "mapa-plain", "vae"], LONG])
def test_progress_says_what_it_shows_and_draws_each_method_as_everywhere(misplaced, methods):
    known = styles(methods, {"mapa-plain": "mapa"})
    n = np.arange(1.0, len(methods) + 1)
    ranks = pd.DataFrame({"method": methods, "rank": n, "low": n - 0.2, "high": n + 0.2, "missing": 0})
    panels = {f"latent dimension {dim}": [line_of(m, dim * k / 10, 0.02) for m, k in zip(methods, n, strict=True)]
              for dim in (1, 2)}  # fmt: skip
    with style.figure_style():
        fig = progress(panels, ranks, known, 5e10)
        fig.draw_without_rendering()
        assert misplaced(fig) == []
    axes = fig.axes[:2]
    assert [ax.get_title() for ax in fig.axes] == [*panels, "all datasets"]
    assert axes[0].get_ylabel() == "mean oracle gap (nats), 95% interval"
    assert [ax.get_xlabel() for ax in fig.axes] == ["FLOPs"] * 2 + ["mean rank, 95% interval"]
    for ax, lines in zip(axes, panels.values(), strict=True):
        assert ax.lines[-1].get_xdata()[0] == 5e10
        bars, drawn = ax.lines[:-1:2], ax.lines[1:-1:2]
        assert [looks_like(each) for each in drawn] == [looks_like(known[m]) for m in methods]
        assert [tuple(bar.get_ydata()) for bar in bars] == [(line.low[-1], line.high[-1]) for line in lines]
    assert [looks_like(handle) for handle in fig.legends[0].legend_handles] == [looks_like(known[m]) for m in methods]


def test_progress_of_few_seeds_claims_no_interval():
    ranks = pd.DataFrame({"method": ["a", "b"], "rank": [1.0, 2.0], "low": np.nan, "high": np.nan, "missing": 0})
    with style.figure_style():
        fig = progress({"2 datasets": [line_of("a", 0.1), line_of("b", -0.2)]}, ranks, styles(["a", "b"]))
    assert not any("95" in ax.get_xlabel() + ax.get_ylabel() for ax in fig.axes)
    assert fig.axes[0].get_ylim()[0] > 0


def looks_like(drawn):
    """Colour, dash and marker of a line or of a style."""
    if isinstance(drawn, Style):
        drawn = Line2D([], [], color=drawn.color, linestyle=drawn.dash, marker=drawn.marker, linewidth=1.5)
    return drawn.get_color(), drawn._unscaled_dash_pattern, drawn.get_marker()


def test_the_legend_of_how_methods_stand_is_not_cut_off(misplaced):
    n = np.arange(1.0, len(LONG) + 1)
    ranks = pd.DataFrame({"method": LONG, "rank": n, "mean": n, "low": n - 0.5, "high": n + 0.5, "missing": 0})
    steps = pd.DataFrame({"method": "none", "tau": [1.0], "rho": [0.0], "low": [0.0], "high": [0.0]})
    with style.figure_style():
        fig = ranking(steps, ranks, ranks, styles([*LONG, "none"]))
        fig.draw_without_rendering()
        assert "Legend" not in misplaced(fig)
