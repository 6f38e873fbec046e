"""A sweep: which runs it needs, what it writes of them, and what its figure shows."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.common.errors import UsageError
from bench.config.schema import SweepSettings
from bench.report.figures.sweep import draw, growth
from bench.store import tables
from bench.study import sweep


def planned(*varied, methods=("vae[steps=9]",)):
    small = {"seeds": 2, "n_train": 20, "n_test": 20}
    return sweep.planned(SweepSettings(methods=methods, datasets=("circle", "figure8"), vary=varied, **small))[:2]


def test_one_factor_varies_at_a_time():
    plan, points = planned("batch_size=5, 7", "n_train=30,60", "hidden=8x8")
    methods = ("vae[steps=9]", "vae[steps=9,batch_size=5]", "vae[steps=9,batch_size=7]")
    assert set(plan.methods) == set(methods)
    pairs = {(d, m) for d in ("circle", "figure8") for m in methods[1:]}
    pairs |= {(f"{d}[{v}]", methods[0]) for d in ("circle", "figure8") for v in ("n_train=30", "n_train=60")}
    pairs |= {(f"{d}[hidden=8x8]", methods[0]) for d in ("circle", "figure8")}
    assert set(plan.pairs) == pairs
    assert len(plan.runs) == 2 * len(pairs)
    assert [(p.factor, p.level, p.dataset) for p in points[:2]] == [
        ("batch_size", "5", "circle"),
        ("batch_size", "7", "circle"),
    ]
    assert {run.n_train for run in plan.runs} == {20, 30, 60}


def test_a_level_in_place_of_what_the_label_says():
    plan, _ = planned("steps=3,9")
    assert tuple(plan.methods) == ("vae[steps=3]", "vae[steps=9]")


def test_noise_is_a_variance_or_a_multiple_of_the_datasets_own():
    plan, points = planned("noise_variance=0.5x,2x")
    assert tuple(plan.datasets) == (
        "circle[noise_variance=0.005]",
        "circle[noise_variance=0.02]",
        "figure8[noise_variance=0.01]",
        "figure8[noise_variance=0.04]",
    )
    assert {point.dataset for point in points} == {"circle", "figure8"}
    fixed, _ = planned("noise_variance=0.3")
    assert tuple(fixed.datasets) == ("circle[noise_variance=0.3]", "figure8[noise_variance=0.3]")


def test_without_factors_the_methods_ablation_and_then_the_conditions_are_varied():
    plan, points = planned(methods=("mapa",))
    declared = plan.registry.make_method("mapa").ablation
    assert tuple(dict.fromkeys(point.factor for point in points)) == (*declared, *sweep.LEVELS)
    assert declared


def test_an_ablation_leaves_out_what_a_dataset_cannot_have_and_says_so():
    """Bits have no noise, and digits have 1,797 points and no true noise. What is asked for is refused instead."""
    datasets = ("circle", "binary_curve", "digits")
    _, points, left_out = sweep.planned(SweepSettings(methods=("mapa",), datasets=datasets))
    of_noise = [
        f"noise_variance={level} on {name}" for name in datasets[1:] for level in sweep.LEVELS["noise_variance"]
    ]
    assert left_out == ["n_train=2000 on digits", *of_noise]
    kept = {(point.dataset, point.factor) for point in points}
    assert {(name, "n_train") for name in datasets} | {("circle", "noise_variance")} <= kept
    with pytest.raises(UsageError, match="'digits' has no true noise to vary; leave noise_variance out"):
        sweep.planned(SweepSettings(methods=("mapa",), datasets=("digits",), vary=("noise_variance=2x",)))


@pytest.mark.parametrize(
    ("varied", "methods", "named"),
    [
        (("steps",), ("vae",), "'steps'"),
        (("steps=",), ("vae",), "'steps='"),
        (("=3",), ("vae",), "'=3'"),
        (("steps=3", "steps=4"), ("vae",), "'steps=4'"),
        (("noise_variance=0.1,2x",), ("vae",), "noise_variance"),
        (("noise_variance=twox",), ("vae",), "noise_variance=twox"),
        (("stesp=3",), ("vae",), "did you mean 'steps'"),
        (("n_train=0",), ("vae",), "n_train of 'circle[n_train=0]'"),
        (("activation=cosine",), ("vae",), "activation of"),
        ((), ("untrained",), "'untrained' declares no ablation"),
        (("steps=3",), ("vae", "mapa"), "exactly one method, got vae, mapa"),
    ],
)
def test_what_cannot_be_varied_is_refused(varied, methods, named):
    with pytest.raises(UsageError, match=re.escape(named)):
        planned(*varied, methods=methods)


@pytest.mark.parametrize("exponent", [-0.5, 1.0, 2.0])
def test_growth_recovers_an_exponent(exponent):
    size = np.array([250.0, 500.0, 1000.0])
    assert growth(size, 3.7 * size**exponent) == pytest.approx(exponent)


def test_growth_of_one_size_is_not_known():
    assert np.isnan(growth(np.array([5.0, 5.0]), np.array([1.0, 2.0])))


def table(**changes):
    """A sweep over size and steps with gaps 1 / level, and seconds and memory that grow as N^1 and N^2."""
    rows = [
        {
            "factor": factor, "level": str(level), "value": float(level), "dataset": dataset, "seed": seed,
            "method": "m",
            "test_ll": -1.0, "oracle_gap": (1 + seed) / level, "wall_s": 0.01 * level, "flops": 1.0,
            "peak_memory_mb": 1e-3 * level**2, "concurrent": False, "status": "done", "message": "",
        }
        for factor, levels in (("steps", (10, 20)), ("n_train", (100, 200, 400)))
        for dataset in ("a", "b") for level in levels for seed in (0, 1, 2)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**changes)


def test_the_figure_shows_medians_and_ranges_of_finished_seeds():
    rows = table()
    rows.loc[(rows["seed"] == 2) & (rows["level"] == "20"), "status"] = "failed"
    axes = draw(rows).axes
    assert [(ax.get_xlabel(), ax.get_ylabel()) for ax in axes] == [
        ("steps", "oracle gap (nats)"),
        ("training points N", "oracle gap (nats)"),
        ("training points N", "wall time"),
        ("training points N", "peak memory"),
    ]
    line, other = axes[0].get_lines()
    np.testing.assert_allclose(line.get_xydata(), [[10, 2 / 10], [20, 1.5 / 20]])
    np.testing.assert_allclose(line.get_xydata(), other.get_xydata())
    heights = axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((1 / 20, 3 / 10))


def test_the_figure_tells_how_costs_grow():
    *_, wall, memory = draw(table()).axes
    assert (wall.get_title(), memory.get_title()) == ("a: N^1.00, b: N^1.00", "a: N^2.00, b: N^2.00")
    assert draw(table(concurrent=True)).axes[2].get_ylabel() == "wall time (contended)"


def test_the_one_legend_lies_beside_the_panels_and_sizes_are_written_alike(misplaced):
    rows = table()
    size = rows["factor"] == "n_train"
    rows.loc[size, "value"] *= 10_000
    rows.loc[size, "level"] += "0000"
    fig = draw(rows)
    fig.draw_without_rendering()
    (legend,) = fig.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert [ax.get_legend() for ax in fig.axes] == [None] * 4
    assert misplaced(fig) == []
    first, *others = [[label.get_text() for label in ax.get_xticklabels()] for ax in fig.axes[1:]]
    assert others == [first] * 2 == [["1000000", "2000000", "4000000"]] * 2


def test_levels_that_are_no_numbers_stand_side_by_side():
    rows = table().query("factor == 'steps'").assign(value=np.nan)
    (ax,) = draw(rows).axes
    assert [text.get_text() for text in ax.get_xticklabels()] == ["10", "20"]
    np.testing.assert_allclose(ax.get_lines()[0].get_xdata(), [0, 1])


def test_where_nothing_finished_there_is_still_a_figure():
    assert len(draw(table(status="failed")).axes) == 4


def test_costs_that_are_all_nil_are_drawn_on_a_linear_axis_without_a_warning():
    *_, wall, memory = draw(table().assign(wall_s=0.0)).axes
    assert (wall.get_yscale(), memory.get_yscale()) == ("linear", "log")


def test_a_sweep_from_the_command_line(cli, invented, tmp_path):
    out = tmp_path / "out"
    varied = ("--vary", "n_train=20,40", "--vary", "noise_variance=1x,2x")
    args = ("sweep", "-m", "untrained", "-d", "circle", *varied, "--seeds", 1)
    args = (*args, "--n-train", 30, "--n-test", 20, "--jobs", 1, "--out", out)
    end = cli(*args)
    assert (end.code, len(invented)) == (0, 4)
    assert Path(out / "figures" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    rows = tables.read_table(out, "sweep")
    levels = [("n_train", "20"), ("n_train", "40"), ("noise_variance", "1x"), ("noise_variance", "2x")]
    assert rows.groupby(["factor", "level"]).size().to_dict() == dict.fromkeys(levels, 1)
    measured = tables.read_table(out, "measurements").query("metric == 'test_ll'")
    last = measured.groupby(["dataset", "seed"])["value"].last()
    for row in rows.itertuples():
        value = row.level if row.factor == "n_train" else f"{0.01 * row.value:g}"
        assert row.test_ll == last[f"circle[{row.factor}={value}]", row.seed]
    assert cli(*args).code == 0
    assert len(invented) == 4
    assert set(pd.read_csv(out / "sweep.csv")["status"]) == {"done"}
