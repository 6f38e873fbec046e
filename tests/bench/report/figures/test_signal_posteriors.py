"""Signal posteriors over the true one: the numbers in the titles, what is drawn, and what the report says of it."""

import json
from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from bench.report.figures import style
from bench.report.figures.palette import MUTED, styles
from bench.report.figures.signal_posteriors import distance, outside, over_truth, overlaid, plane, window
from bench.report.gallery import gallery
from bench.report.page import write
from bench.stats.summary import summary
from bench.store.study_tables import read

GROUPS = {name: {"colour_group": "vae"} for name in ("vae", "pyro-vae")}
HOSTILE = "<script>alert(1)</script>|x"
COSTS = {"wall_s": 2.0, "cpu_s": 3.0, "flops": 4e9, "decoder_passes": 5e5, "encoder_passes": 6e5}
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def rows(method, signals, point=0, x=(0.5, 0.5), dataset="circle"):
    return pd.DataFrame(
        {
            "dataset": dataset,
            "method": method,
            "seed": 0,
            "point": point,
            "draw": range(len(signals)),
            "x": [list(map(float, x))] * len(signals),
            "signal": signals.tolist(),
        }
    )


def table(methods, points=4, dataset="circle"):
    """The corners of a square for each x, which a method has moved to the right by 0.1."""
    parts = []
    for point in range(points):
        x = (float(-point), 0.5)
        moved = CORNERS + np.array([x[0] - 0.5, 0])
        parts.append(rows("truth", moved, point, x, dataset))
        parts += [rows(name, moved + np.array([0.1, 0]), point, x, dataset) for name in methods]
    return pd.concat(parts, ignore_index=True)


def study(folder, methods, signals=None, datasets=("circle",)):
    runs = pd.DataFrame([{"dataset": d, "method": m, "seed": 0} for d in datasets for m in methods])
    roles = runs["method"].map(lambda name: "ceiling" if name == "oracle" else "method")
    about = {"status": "done", "message": "", "notes": "", "concurrent": False, "peak_memory_mb": 1.0, "key": ""}
    runs = runs.assign(role=roles, **about, **COSTS)
    looks = runs.assign(checkpoint=0, metric="signal_w2", value=0.25, stderr=0.0, unit="data units")
    runs.to_parquet(folder / "runs.parquet")
    pd.concat([looks, looks.assign(metric="test_ll", value=-2.0)]).to_parquet(folder / "measurements.parquet")
    if signals is not None:
        signals.to_parquet(folder / "signals.parquet")
    (folder / "study.json").write_text(json.dumps({"schema": 3, "name": "a study", "methods": GROUPS}))
    return folder


def draw(signals, names):
    with style.figure_style():
        fig = over_truth(signals, names, styles(dict.fromkeys(names, "method")), "circle")
        fig.draw_without_rendering()
    return fig


@pytest.mark.parametrize("names", [["mapa"], [f"vae[batch_size=250,learning_rate={n}]" for n in range(5)]])
@pytest.mark.parametrize("points", [1, 4])
def test_nothing_is_cut_off_or_lies_over_anything_else(misplaced, names, points):
    far = table(names, points)
    far["signal"] = far["signal"].map(lambda signal: [-12.3 + value / 10 for value in signal])
    assert misplaced(draw(table(names, points), names)) == misplaced(draw(far, names)) == []


def test_the_distance_by_hand():
    assert distance(CORNERS, CORNERS[::-1]) == 0
    assert distance(CORNERS, CORNERS + np.array([3, 4])) == pytest.approx(5)
    assert distance(np.array([[0.0], [10.0]]), np.array([[11.0], [2.0]])) == pytest.approx(np.sqrt((4 + 1) / 2))
    assert np.isnan(distance(CORNERS, np.full((4, 2), np.nan)))


def test_the_distance_is_that_of_the_best_of_all_assignments():
    first, second = np.random.default_rng(0).normal(size=(2, 5, 3))
    costs = [np.square(first - second[list(order)]).sum(1).mean() for order in permutations(range(5))]
    assert distance(first, second) == pytest.approx(np.sqrt(min(costs)))


def test_the_plane_is_that_in_which_truth_and_x_spread_most():
    true = np.array([[0.0, 0.0, 0.0], [0.1, 1.0, 2.0]])
    assert plane(true, np.array([0.0, 0.5, 1.0])).tolist() == [1, 2]
    assert plane(true, np.array([9.0, 0.5, 1.0])).tolist() == [0, 2]
    assert plane(true[:, :2], np.zeros(2)).tolist() == [0, 1]


def test_the_window_holds_truth_and_x_and_what_is_not_in_it_is_outside():
    limits = window(CORNERS, np.array([0.5, 3.0]))
    assert np.ptp(limits, axis=1) == pytest.approx([3 * 1.36] * 2)
    assert limits.mean(1) == pytest.approx([0.5, 1.5])
    points = np.array([[0.5, 1.5], [0.5, 9.0], [-9.0, 1.5], [np.nan, 1.5]])
    assert outside(points, limits) == 0.75
    assert outside(CORNERS, limits) == 0


def test_each_method_has_a_row_and_each_x_a_column_with_its_own_limits():
    names = ["mapa", "vae[steps=8]"]
    fig = draw(table(names).sample(frac=1, random_state=0), names)
    assert len(fig.axes) == 2 * 4
    for upper, lower in zip(fig.axes[:4], fig.axes[4:], strict=True):
        assert upper.get_xlim() == pytest.approx(lower.get_xlim())
        assert upper.get_ylim() == pytest.approx(lower.get_ylim())
    crosses = [line.get_xdata()[0] for ax in fig.axes for line in ax.lines if line.get_marker() == "x"]
    assert crosses == [-3, -2, -1, 0] * 2
    assert {ax.get_title() for ax in fig.axes} == {"W2 0.100"}
    assert [ax.texts[0].get_text() for ax in fig.axes[::4]] == names
    assert [ax.get_xlabel() for ax in fig.axes] == [""] * 4 + ["x1"] * 4


def test_a_panel_holds_the_true_signals_and_the_methods_and_tells_how_many_are_clipped():
    far = CORNERS + np.array([0, 0.1])
    far[0] = [0.0, -5.0]
    fig = draw(pd.concat([rows("truth", CORNERS), rows("vae", far)], ignore_index=True), ["vae"])
    truth, learned, _ = fig.axes[0].lines
    assert (truth.get_color(), learned.get_color()) == (MUTED, styles({"vae": "method"})["vae"].color)
    np.testing.assert_array_equal(truth.get_xydata(), CORNERS)
    np.testing.assert_array_equal(learned.get_xydata(), far)
    assert fig.axes[0].get_title() == f"W2 {np.sqrt((25 + 3 * 0.01) / 4):.3f}, 25 % outside"


def test_in_space_the_axes_say_which_two_coordinates_are_drawn():
    true = np.insert(CORNERS, 1, 7.0, axis=1)
    fig = draw(
        pd.concat([rows(name, true, x=(0.5, 7.0, 0.5)) for name in ("truth", "vae")], ignore_index=True), ["vae"]
    )
    assert (fig.axes[0].get_xlabel(), fig.axes[0].get_ylabel()) == ("x1", "x3")


def test_signals_that_are_not_finite_are_told_and_not_drawn():
    broken = rows("vae", CORNERS)
    broken["signal"] = [[None, None]] * 4
    fig = draw(pd.concat([rows("truth", CORNERS), broken], ignore_index=True), ["vae"])
    assert fig.axes[0].get_title() == "W2 –, 100 % outside"


def test_baselines_are_drawn_and_the_first_of_each_other_colour_group_up_to_five():
    methods = ["own", "flow", "pyro-vae", "vae", "iwae", "one[k=2]", "one-more", "late"]
    groups = {**{name: name for name in methods}, "pyro-vae": "vae", "one[k=2]": "one", "one-more": "one"}
    names = overlaid(table(methods), methods, groups, ["one-more", "one[k=2]"])
    assert names == ["one[k=2]", "one-more", "own", "flow", "pyro-vae"]
    assert overlaid(table(["vae", "pyro-vae"]), methods, groups, []) == ["pyro-vae"]
    assert overlaid(table(["oracle"]), methods, groups, []) == []


def test_the_caption_names_who_is_not_drawn(tmp_path):
    methods = ["mapa", "vae", "pyro-vae", "iwae", "oracle"]
    found = read(study(tmp_path, methods, table(["mapa", "vae", "pyro-vae", "oracle"])))
    picture = gallery(found, summary(found.measurements, found.runs))["signal_posteriors"][0]
    assert picture.stem == "circle-signals"
    assert "signal posterior of mapa and vae over the true one" in picture.caption
    assert "not drawn: pyro-vae;" in picture.caption
    assert picture.caption.endswith("none is recorded for iwae")
    assert "mapa 0.250" in picture.words


def test_the_report_shows_the_figures_of_each_dataset_and_escapes_their_names(tmp_path):
    datasets = ("circle", HOSTILE)
    signals = pd.concat([table(["mapa", HOSTILE], dataset=d) for d in datasets], ignore_index=True)
    html = write(study(tmp_path, ["mapa", HOSTILE], signals, datasets)).read_text()
    text = (tmp_path / "report.md").read_text()
    assert "<script>alert" not in html + text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;|x: the signal posterior of mapa" in html
    for stem in ("circle-signals", "script-alert-1-script-x-signals"):
        assert (tmp_path / "figures" / f"{stem}.svg").is_file()
        assert f"(figures/{stem}.svg)" in text
    assert text.count("Posteriors against the true one") == 1
    assert '<h3 id="signals">' in html
    assert "training point's code" not in html + text


def test_a_study_without_signals_has_no_such_part(tmp_path):
    html = write(study(tmp_path, ["mapa"])).read_text()
    assert "The signal behind x" not in html + (tmp_path / "report.md").read_text()
    assert "Posteriors against the true one" not in html
