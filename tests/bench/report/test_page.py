"""The report against synthetic tables whose medians, verdicts and levels are known."""

import json
import math
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from bench.cli.tables import print_summary
from bench.report.comparison_tables import _by_seed, differences_table, matches_table
from bench.report.gallery import gallery
from bench.report.page import markdown, write
from bench.report.sentences import answers, matching, sentence
from bench.stats.bootstrap import _bounds
from bench.stats.comparisons import comparisons, pairs
from bench.stats.estimates import ranks
from bench.stats.summary import aggressive_shares, best, final, oracle_levels, summary
from bench.stats.verdicts import interval
from bench.store.schema import SCHEMA
from bench.store.study_tables import read

HOSTILE = "<script>alert(1)</script>|x"
ROLES = {"oracle": "ceiling", "untrained": "floor"}
COSTS = {"wall_s": 2.0, "cpu_s": 3.0, "flops": 4e9, "decoder_passes": 5e5, "encoder_passes": 6e5}
METRICS = ("test_ll", "oracle_gap", "elbo", "inference_gap")


@dataclass
class Tables:
    """Synthetic tables: `run` adds a run that ends at a test_ll, `study` writes them to a folder."""

    looks: int = 4
    oracle: float = -1.0
    measurements: list[dict] = field(default_factory=list)
    runs: list[dict] = field(default_factory=list)

    def run(self, dataset, method, seed=0, test_ll=-2.0, cost=1.0, status="done", message=""):
        costs = {name: value * cost * (method != "oracle") for name, value in COSTS.items()}
        run = {"dataset": dataset, "method": method, "seed": seed}
        about = {"role": ROLES.get(method, "method"), "status": status, "message": message, "notes": ""}
        more = {"peak_memory_mb": 1.0, "concurrent": False, "key": f"key-{len(self.runs)}", "max_flops": None}
        self.runs.append({**run, **about, **costs, **more})
        for look in range(self.looks if status in ("done", "timeout") else 0):
            quality = test_ll - (self.looks - 1 - look)
            spent = {name: value * (look + 1) / self.looks for name, value in costs.items()}
            values = (quality, self.oracle - quality, quality - 0.5, 0.5)
            self.measurements += [
                {
                    **run,
                    "checkpoint": look,
                    "metric": m,
                    "value": v,
                    "stderr": np.nan,
                    "unit": "nats",
                    **spent,
                    "concurrent": False,
                }
                for m, v in zip(METRICS, values, strict=True)
            ]
        return self

    def frames(self):
        columns = ["dataset", "method", "seed", "checkpoint", "metric", "value", "stderr", "unit", *COSTS, "concurrent"]
        return pd.DataFrame(self.measurements, columns=columns), pd.DataFrame(self.runs)

    def study(self, folder, densities=None, posteriors=None, **info):
        measurements, runs = self.frames()
        if posteriors is not None:
            posteriors.to_parquet(folder / "posteriors.parquet")
        measurements.to_parquet(folder / "measurements.parquet")
        runs.to_parquet(folder / "runs.parquet")
        if densities is not None:
            densities.to_parquet(folder / "densities.parquet")
        (folder / "study.json").write_text(json.dumps({"schema": 3, "name": "a study", **info}))
        return folder


def typical():
    """Three seeds of two methods on two datasets, with every kind of trouble."""
    tables = Tables()
    for seed, (mapa, other) in enumerate(((-1.5, -1.7), (-1.2, -1.9), (-1.9, -2.5))):
        for dataset in ("circle", HOSTILE):
            tables.run(dataset, "mapa", seed, mapa, cost=0.5).run(dataset, "oracle", seed, -1.0)
            tables.run(dataset, "iterative", seed, other, cost=2)
    tables.run("circle", HOSTILE, 0, status="failed", message=f"`{HOSTILE}`\nsecond line")
    tables.run("circle", "gone", 0, status="skipped", message="needs two dimensions")
    tables.run("circle", "short", 0, -3).run("circle", "short", 1, -4, status="timeout", message="too slow")
    return tables


def grid(dataset="circle", methods=("truth", "mapa"), seeds=(0,), n=8):
    x1, x2 = np.meshgrid(np.linspace(-2, 2, n), np.linspace(-2, 2, n))
    log = -0.5 * (x1**2 + x2**2) - np.log(2 * np.pi)
    flat = {"x1": x1.ravel(), "x2": x2.ravel(), "log_density": log.ravel()}
    parts = [pd.DataFrame({"dataset": dataset, "method": m, "seed": s, **flat}) for m in methods for s in seeds]
    return pd.concat(parts, ignore_index=True)


class Page(HTMLParser):
    """What a browser would see: elements, what they load, and text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.loads, self.text = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [
            value for key, value in attrs if key in ("src", "srcset", "href", "xlink:href", "data", "poster")
        ]

    def handle_data(self, data):
        self.text += data


def row(table, dataset, method):
    return table[(table["dataset"] == dataset) & (table["method"] == method)].iloc[0]


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the figures out of a report, which take most of its time, where only its text is looked at."""
    monkeypatch.setattr("bench.report.page.gallery", lambda *_: defaultdict(list))


# The summary


def test_summary_has_medians_ranges_and_costs_by_hand():
    found = row(summary(*typical().frames()), "circle", "mapa")
    assert found["test_ll_median"] == pytest.approx(-1.5)
    assert (found["test_ll_low"], found["test_ll_high"]) == pytest.approx((-1.9, -1.2))
    assert found["oracle_gap_median"] == pytest.approx(0.5)
    assert found["inference_gap_median"] == pytest.approx(0.5)
    assert (found["wall_s"], found["flops"], found["encoder_passes"]) == pytest.approx((1.0, 2e9, 3e5))
    assert (found["seeds_done"], found["seeds_total"]) == (3, 3)


def test_summary_keeps_the_order_of_appearance():
    table = summary(*typical().frames())
    assert list(table["dataset"].unique()) == ["circle", HOSTILE]
    expected = ["mapa", "oracle", "iterative", HOSTILE, "gone", "short"]
    assert list(table.loc[table["dataset"] == "circle", "method"]) == expected


def test_summary_counts_only_finished_seeds():
    table = summary(*typical().frames())
    short, gone = row(table, "circle", "short"), row(table, "circle", "gone")
    assert (short["seeds_done"], short["seeds_total"], short["test_ll_median"]) == (1, 2, -3)
    assert (gone["seeds_done"], gone["seeds_total"]) == (0, 1)
    assert np.isnan(gone["test_ll_median"])
    assert np.isnan(gone["wall_s"])


def test_summary_takes_the_last_look_in_whatever_order_rows_come():
    measurements, runs = Tables().run("a", "mapa", 0, -2.0).frames()
    assert row(summary(measurements[::-1], runs), "a", "mapa")["test_ll_median"] == -2.0


def test_final_does_not_fall_back_on_an_earlier_look():
    measurements, runs = Tables().run("a", "mapa", 0, -2.0).frames()
    lost = (measurements["checkpoint"] == 3) & (measurements["metric"] == "elbo")
    assert np.isnan(final(measurements[~lost], runs)["elbo"].iloc[0])


def test_a_seed_that_is_nan_is_not_left_out_of_the_median():
    tables = Tables().run("a", "mapa", 0, -2.0).run("a", "mapa", 1, np.nan).run("a", "other", 0, -9.0)
    table = summary(*tables.frames())
    assert np.isnan(row(table, "a", "mapa")["test_ll_median"])
    assert list(table["best"]) == [False, True]


@pytest.mark.parametrize("reference", ["oracle", "untrained"])
def test_best_is_the_highest_fitted_method(reference):
    tables = Tables().run("a", reference, 0, -0.1).run("a", "mapa", 0, -2).run("a", "other", 0, -1.5)
    tables.run("b", "mapa", 0, -2).run("b", "other", 0, -2.5)
    table = summary(*tables.frames())
    assert set(zip(*(table.loc[table["best"], c] for c in ("dataset", "method")), strict=True)) == {
        ("a", "other"),
        ("b", "mapa"),
    }
    assert np.isnan(row(table, "a", reference)["flops"])


def test_oracle_level_is_its_own_or_else_recovered_from_the_gap():
    with_oracle = Tables(oracle=-1.25).run("a", "oracle", 0, -1.0).run("a", "mapa", 0, -3)
    without = Tables(oracle=-1.25).run("a", "mapa", 0, -3).run("a", "mapa", 1, -4)
    assert oracle_levels(*with_oracle.frames()) == pytest.approx({"a": -1.0})
    assert oracle_levels(*without.frames()) == pytest.approx({"a": -1.25})


# The comparisons


def duel(differences, dataset="a", tables=None, other=-2.0):
    """mapa against iterative, seed by seed, at half the cost."""
    tables = tables or Tables()
    for seed, difference in enumerate(differences):
        tables.run(dataset, "mapa", seed, other + difference, cost=0.5).run(dataset, "iterative", seed, other)
    return tables


AHEAD = (0.21, 0.25, 0.22, 0.3, 0.27, 0.24, 0.26)
LEVEL = (0.1, -0.1, 0.2, -0.3, 0.0, 0.3, -0.2)


def said(tables):
    return answers(*tables.frames(), pd.DataFrame())[0]


def test_seeds_without_a_result_are_told_with_whom_they_favour():
    """A value that is no number is no result."""
    tables = duel([0.2] * 10)
    ended = {(each["method"], each["seed"]): each for each in tables.runs}
    ended["iterative", 8]["status"] = ended["iterative", 9]["status"] = "failed"
    for row in tables.measurements:
        if (row["method"], row["seed"], row["metric"]) == ("mapa", 0, "test_ll"):
            row["value"] = math.nan
    assert (
        "over 7 seeds. Seeds without a result are left out, which favours the method that has none: 1 seed of mapa on "
        "a and 2 seeds of iterative on a."
    ) in said(tables)
    assert "left out" not in said(duel([0.2] * 10, tables=Tables().run("a", "mapa", 10)))


def test_the_verdict_flips_with_the_values():
    ahead, behind, level, same = (said(duel(d)) for d in (AHEAD, [-d for d in AHEAD], LEVEL, [d / 1000 for d in LEVEL]))
    whole = " over 7 seeds. Its fits take 0.5× the FLOPs and 0.5× the wall time."
    assert ahead.startswith(
        f"mapa is better than iterative on 1 of 1 dataset (a +0.250 nats), worse or equivalent on none,{whole}"
    )
    assert behind.startswith(
        f"mapa is worse than iterative on 1 of 1 dataset (a -0.250 nats), better or equivalent on none,{whole}"
    )
    assert level.startswith(
        "mapa is undecided against iterative on 1 of 1 dataset (a 0.000 nats), worse, better or equivalent on none, "
        "over 7 seeds. Seeds with which a new study would decide, roughly, with probability 0.8: a "
    )
    assert same.startswith(
        f"mapa is equivalent to iterative on 1 of 1 dataset (a 0.000 nats), worse or better on none,{whole}"
    )


def test_losses_come_first_and_wins_stand_beside_them():
    tables = duel(LEVEL, "c", duel([-1 - d for d in AHEAD], "b", duel(AHEAD)))
    assert said(tables).startswith(
        "mapa is worse than iterative on 1 of 3 datasets (b -1.250 nats), better on 1 (a +0.250 nats), undecided on 1 "
        "(c 0.000 nats), equivalent on none, over 7 seeds."
    )


def test_the_margin_is_the_users():
    frames = duel([d / 20 for d in AHEAD]).frames()
    assert [answers(*frames, pd.DataFrame(), margin=m)[0].split()[2] for m in (0.05, 0.0)] == ["equivalent", "better"]


def test_a_few_seeds_give_no_verdict_however_far_apart():
    text = said(duel([5.0] * 4, "b", duel(AHEAD)))
    assert "better than iterative on 1 of 2 datasets (a " in text
    assert "undecided on 1 (b +5.000 nats), worse or equivalent on none, over 4 to 7 shared seeds" in text
    assert "Too few seeds for a verdict on b: 6 are needed." in text
    assert "Too few seeds for a verdict: 6 are needed." in said(duel(AHEAD[:4]))


def test_many_comparisons_are_a_table_with_losses_before_it(tmp_path, undrawn):
    """mapa is ahead of six rivals and behind a seventh: no paragraph each, and the loss is said."""
    tables = Tables()
    for seed, ahead in enumerate(AHEAD):
        tables.run("a", "mapa", seed, -2.0)
        for rival in range(6):
            tables.run("a", f"rival-{rival}", seed, -2.0 - ahead - rival)
        tables.run("a", "best", seed, -2.0 + ahead)
    page = write(tables.study(tmp_path))
    terminal = " ".join(answers(*tables.frames(), pd.DataFrame()))
    for text in (terminal, Page(page.read_text()).text, (tmp_path / "report.md").read_text()):
        assert (
            "mapa is worse than best (a -0.250 nats). In 7 comparisons by method and dataset it is worse in 1, "
            "better in 6, equivalent in 0, undecided in 0."
        ) in text.replace("\\", "")
        assert text.count("Its fits take") == 0
    text = Page(page.read_text()).text
    assert text.count("mapa against rival-3") >= 2
    assert text.index("mapa against best") < text.index("mapa against rival-0")
    few = write(duel(AHEAD).study(tmp_path))
    assert "comparisons by method and dataset" not in few.read_text()


def test_the_sentence_gives_seeds_medians_and_cost_ratios():
    text = sentence(comparisons(*typical().frames())[0])
    reaches = "final log-likelihood less 0.01 nats"
    assert text == (
        f"mapa is undecided against iterative on 2 of 2 datasets (circle +0.600, {HOSTILE} +0.600 nats), "
        "worse, better or equivalent on none, over 3 seeds. Too few seeds for a verdict: 6 are needed. "
        "Its fits take 0.25× the FLOPs and 0.25× the wall time. "
        f"mapa reaches iterative's {reaches} at 0.25× the FLOPs and 0.25× the wall time that iterative needs for it "
        "(median over 2 datasets; iterative first has it after 100 % of its FLOPs). "
        f"iterative never reaches mapa's {reaches}, on any of 2 datasets."
    )


def test_a_comparison_is_over_shared_seeds():
    tables = Tables()
    for seed, value in enumerate((-1.0, -3.0, -9.0)):
        tables.run("a", "mapa", seed, value)
    tables.run("a", "other", 0, -2).run("a", "other", 1, -2).run("a", "other", 2, status="failed")
    found = comparisons(*tables.frames())[0].differences[0]
    assert (found.seeds, found.nats, found.match.seeds) == (2, 0.0, (0, 1))


def test_misses_count_in_the_median_over_all_datasets():
    """On b it never gets there. The median over a and b would leave b out, were misses not infinite."""
    assert "mapa never reaches iterative's final log-likelihood less 0.01 nats, on the one dataset." in said(
        duel([-0.5] * 5)
    )
    some = said(duel((0.1, 0.1, -0.5, -0.5, -0.5)))
    assert (
        "mapa misses iterative's final log-likelihood less 0.01 nats at half of the seeds or more on the one dataset; "
        "2 of 5 runs reach it." in some
    )
    two = said(duel([-0.5] * 7, "b", duel(AHEAD)))
    assert (
        "mapa does not reach iterative's final log-likelihood less 0.01 nats at half of the seeds or more on b, so "
        "that its median cost is infinite (median over 2 datasets)."
    ) in two
    three = said(duel([-0.5] * 7, "b", duel(AHEAD, "c", duel(AHEAD))))
    assert (
        "mapa reaches iterative's final log-likelihood less 0.01 nats at 0.5× the FLOPs and 0.5× the wall time that"
        " iterative needs for it (median over 3 datasets; iterative first has it after 100 % of its FLOPs; infinite "
        "on b, where it misses it at half of the seeds or more)."
    ) in three


def test_the_interval_of_the_cost_to_match_resamples_datasets_and_ends_at_never():
    tables = Tables()
    for place, (cost, ahead) in enumerate(((0.5, 0), (0.1, 0), (0.1, 0), (0.1, -1), (0.2, 0), (0.3, 0))):
        for seed in range(6):
            tables.run(str(place), "mapa", seed, -2 + ahead, cost=cost).run(str(place), "vae", seed, -2)
    (found,) = comparisons(*tables.frames())
    assert found.match.flops == pytest.approx(0.25)
    low, high = found.match.flops_interval
    assert low == pytest.approx(0.1, rel=0.3)
    assert high == np.inf
    assert "at 0.25× [0.1×, never] the FLOPs" in matching(found)[0]
    assert found.match.missed == ("3",)


def test_the_share_at_which_a_method_first_reaches_its_own_end_is_told():
    """The other has its final value from its second of four looks on."""
    measurements, runs = duel(AHEAD).frames()
    mine = (measurements["method"] == "iterative") & (measurements["metric"] == "test_ll")
    late = mine & (measurements["checkpoint"] >= 1)
    measurements.loc[late, "value"] = measurements.loc[mine & (measurements["checkpoint"] == 3), "value"].iloc[0]
    assert "iterative first has it after 50 % of its FLOPs" in sentence(comparisons(measurements, runs)[0])


def test_near_the_truth_a_target_that_neither_reaches_is_left_out():
    """The truth is -1. mapa ends within 0.1 of it on a alone, the other within 0.2 on both."""
    tables = Tables()
    for seed in range(6):
        tables.run("a", "mapa", seed, -1.08, cost=0.5).run("a", "vae", seed, -1.15)
        tables.run("b", "mapa", seed, -1.3).run("b", "vae", seed, -1.15)
    (found,) = comparisons(*tables.frames())
    targets = [row.cells[1].text for row in matches_table([found]).rows]
    assert targets == ["the other's end", "exchanged", "within 0.1 nats of the truth", "within 0.2 nats of the truth"]
    near = dict(found.near)
    assert (near[0.05].neither, near[0.05].missed) == (("a", "b"), ())
    assert np.isnan(near[0.05].flops)
    assert (near[0.1].flops, near[0.1].missed, near[0.1].neither) == (0.0, (), ("b",))
    assert (near[0.2].flops, near[0.2].missed, near[0.2].neither) == (np.inf, ("b",), ())


def test_the_verdicts_are_decided_over_all_comparisons_of_the_report():
    """Seven seeds of which six agree, beside three comparisons that show nothing: their maximum enters."""
    some = (0.3, 0.1, 0.25, -0.15, 0.3, 0.2, -0.05)
    (alone,) = comparisons(*duel(some).frames())[0].differences
    tables = duel(some)
    for name in "bcd":
        for seed, ahead in enumerate(LEVEL):
            tables.run(name, "mapa", seed, -2 + ahead).run(name, "third", seed, -2)
    found = {each.other: each.differences for each in comparisons(*tables.frames())}
    assert {each.verdict for each in found["third"]} == {"undecided"}
    assert found["iterative"][0].decision.p > alone.decision.p
    assert found["iterative"][0].interval == alone.interval


def test_the_best_is_marked_by_differences_at_the_same_seeds():
    """mapa is ahead at two of three seeds, but has the lower median, as seeds differ in their data."""
    tables = Tables()
    for seed, (mapa, other) in enumerate(((-1.0, -1.1), (-3.0, -2.0), (-4.0, -4.1))):
        tables.run("a", "mapa", seed, mapa).run("a", "other", seed, other)
    table = summary(*tables.frames())
    assert row(table, "a", "mapa")["test_ll_median"] < row(table, "a", "other")["test_ll_median"]
    assert list(table["best"]) == [True, False]


def test_a_seed_at_which_a_rival_fails_does_not_move_the_mark():
    """Were values compared with the mean of all methods, a method that fails at a seed would change the order there."""
    values = pd.DataFrame(
        {0: [-1.0, -1.1, -1.2], 1: [-1.0, -1.1, -500.0], 2: [-2.0, -2.1, -2.2]}, index=["first", "second", "wild"]
    )
    assert best(values) == ["first"]
    assert best(values.assign(extra=[np.nan, -0.5, np.nan])) == ["first"]
    assert best(values.iloc[[0, 0]].set_axis(["x", "y"])) == ["x", "y"]
    assert best(values.iloc[:0]) == []


def test_what_cannot_be_compared_is_said():
    tables = duel([0.1]).run("b", "mapa", 0, -2).run("b", "iterative", 0, status="failed")
    assert "Not compared on b" in sentence(comparisons(*tables.frames())[0])
    nothing = Tables().run("b", "mapa", 0, -2).run("b", "iterative", 0, status="failed")
    assert "nothing to compare" in sentence(comparisons(*nothing.frames())[0])


def test_uncounted_flops_are_not_a_ratio():
    measurements, runs = duel([0.1]).frames()
    text = sentence(comparisons(measurements.assign(flops=np.nan), runs.assign(flops=np.nan))[0])
    assert "an unknown share of the FLOPs and 0.5× the wall time" in text
    assert "at an unknown share of the FLOPs and 0.5× the wall time" in text


@pytest.mark.parametrize(
    ("methods", "baseline", "expected"),
    [
        (["a", "b", "oracle", "c"], ["b"], {("b", "a"), ("b", "c")}),
        (["a", "b", "oracle", "c"], ["b", "c"], {("b", "a"), ("c", "a")}),
        (["oracle", "a", "untrained", "b"], [], {("a", "b")}),
        (["a", "b"], ["elsewhere"], {("a", "b")}),
        (["a", "b"], ["a", "b"], {("a", "b")}),
        (["mapa", "vae"], ["vae"], {("vae", "mapa")}),
        (["oracle", "a"], ["a"], set()),
    ],
)
def test_each_baseline_is_compared_with_every_other_method(methods, baseline, expected):
    tables = Tables()
    for method in methods:
        tables.run("d", method)
    measurements, runs = tables.frames()
    assert set(pairs(runs, baseline)) == expected
    assert {(each.baseline, each.other) for each in comparisons(measurements, runs, baseline)} == expected


@pytest.mark.parametrize("read", [comparisons, ranks])
def test_runs_without_roles_are_refused(read):
    measurements, runs = duel([0.1]).frames()
    with pytest.raises(ValueError, match="lacks the column 'role'"):
        read(measurements, runs.drop(columns="role"))


def test_a_lone_method_is_set_against_the_truth():
    tables = Tables().run("a", "mapa", 0, -1.5).run("b", "mapa", 0, -1.7)
    frames = tables.frames()
    assert "0.600 nats below the true model (median over 2 datasets)" in answers(*frames, summary(*frames))[0]
    failed = Tables().run("a", "mapa", 0, status="failed").frames()
    assert "finished no seed" in answers(*failed, summary(*failed))[0]


# The page


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    hostile = {HOSTILE: {"summary": HOSTILE, "source": None}}
    typical().study(
        folder,
        grid(),
        name=HOSTILE,
        command=f"mapa-bench run --name '{HOSTILE}'",
        datasets=hostile,
        methods=hostile,
        settings={"n_train": 500, "observation_noise": "known", "max_flops": None, "odd": HOSTILE},
        provenance={"commit": HOSTILE},
    )
    return write(folder)


def test_the_files_are_there_and_no_other(page):
    names = sorted(p.relative_to(page.parent).as_posix() for p in page.parent.rglob("*") if p.is_file())
    stems = ("progress", "overview", "ranking", "decomposition", "circle-cost", "circle-density")
    figures = [f"figures/{stem}.svg" for stem in (*stems, "script-alert-1-script-x-cost")]
    tables = ["runs.parquet", "densities.parquet", "measurements.parquet", "study.json"]
    assert names == sorted([*figures, *tables, "report.html", "report.md"])


def test_the_page_loads_nothing_from_anywhere(page):
    html = page.read_text()
    loads = Page(html).loads
    assert len(loads) > 3
    assert all(load.startswith(("data:image/png;base64,", "#")) for load in loads)
    assert not re.search(r"url\((?!#)|@import|https?://", html)


def test_no_interval_of_a_report_is_drawn_twice(tmp_path, monkeypatch):
    """The page, its figures and its tables in LaTeX share them; drawing them takes most of the time of many seeds."""
    tables = Tables()
    for seed, apart in enumerate(np.random.default_rng(5).standard_normal(7)):
        for dataset in ("circle", "torus"):
            tables.run(dataset, "mapa", seed, -1.5 + apart / 9).run(dataset, "vae", seed, -1.6 - apart / 7)
    drawn, bootstrap = [], scipy.stats.bootstrap

    def counted(samples, statistic, **how):
        drawn.append((*(each.tobytes() for each in samples), statistic, how["n_resamples"]))
        return bootstrap(samples, statistic, **how)

    monkeypatch.setattr(scipy.stats, "bootstrap", counted)
    _bounds.cache_clear()
    write(tables.study(tmp_path), ("html", "md", "latex"))
    assert 0 < len(drawn) == len(set(drawn))


def test_names_and_messages_are_escaped_in_html(page):
    parsed = Page(page.read_text())
    assert parsed.tags.count("script") == 2  # the page's own: its rows and its program
    assert parsed.text.count(HOSTILE) > 8
    assert f"`{HOSTILE}`\nsecond line" in parsed.text


def test_names_and_messages_are_escaped_in_markdown(page):
    text = page.with_name("report.md").read_text()
    code = [line for line in text.splitlines() if line.startswith("    ")]
    prose = "\n".join(line for line in text.splitlines() if line not in code)
    assert "<script" not in prose
    assert code == [line for line in code if not line.startswith("    |")]
    rows = [re.split(r"(?<!\\)\|", line) for line in prose.splitlines() if line.startswith("|")]
    assert {len(runs) for runs in rows if "second line" in "".join(runs)} == {7}
    assert prose.count("second line") == 1


def test_a_ceiling_is_not_drawn_beside_the_truth_that_it_is(tmp_path):
    tables = Tables().run("circle", "mapa").run("circle", "oracle").run("circle", "untrained")
    folder = tables.study(tmp_path, grid(methods=("truth", "mapa", "oracle")), overlay("circle", "mapa", "oracle"))
    study = read(folder)
    pictures = gallery(study, summary(study.measurements, study.runs))
    (density,) = pictures["densities"]
    assert re.findall(rb">(true model|mapa|oracle|untrained)<", density.images["svg"]) == [b"true model", b"mapa"]
    assert density.caption.endswith("none for untrained")
    (posterior,) = pictures["index_posteriors"]
    assert "the index posterior of mapa over" in posterior.caption


def test_the_page_says_at_once_what_did_not_finish(page):
    text = Page(page.read_text()).text
    incident = "3 of 22 runs did not finish: 1 failed, 1 skipped and 1 timed out."
    assert text.index(incident) < text.index("Where each method ended")
    assert "needs two dimensions" in text
    assert incident.split(":")[0] in page.with_name("report.md").read_text()


def test_the_page_shows_the_numbers_of_the_summary(page):
    html = page.read_text()
    text = Page(html).text
    assert "-1.900 … -1.200" in text
    assert "2 GFLOP" in text
    assert len(re.findall('<b class="best"><a href="#rows:[^"]*:mapa:test_ll">-1.500</a></b>', html)) == 2
    assert page.with_name("report.md").read_text().count("**-1.500**") == 2


def test_writing_again_gives_the_same_bytes_and_leaves_nothing_behind(page):
    before = {p: p.read_bytes() for p in page.parent.rglob("*") if p.is_file()}
    assert write(page.parent) == page
    assert {p: p.read_bytes() for p in page.parent.rglob("*") if p.is_file()} == before


def test_a_bare_study_of_one_method_without_densities(tmp_path, undrawn):
    text = Page(write(Tables(looks=1).run("a", "mapa", 0, -1.5).study(tmp_path)).read_text()).text
    assert "only fitted method" in text
    assert "Every run finished." in text
    assert "Learned densities" not in text


def test_a_study_in_which_nothing_finished(tmp_path, undrawn):
    tables = Tables().run("a", "mapa", 0, status="failed", message=None).run("a", "vae", 0, status="timeout")
    text = Page(write(tables.study(tmp_path, grid().iloc[:0])).read_text()).text
    assert "2 of 2 runs did not finish: 1 failed and 1 timed out." in text
    assert "no reason given" in text


def test_a_metric_that_is_not_known_gets_its_own_column(tmp_path, undrawn):
    measurements, runs = Tables().run("a", "mapa", 0, -1.5).frames()
    extra = measurements[measurements["metric"] == "elbo"].assign(metric="novelty", value=42.0, unit="bananas")
    Tables(measurements=pd.concat([measurements, extra]).to_dict("records"), runs=runs.to_dict("records")).study(
        tmp_path
    )
    text = Page(write(tmp_path).read_text()).text
    assert "novelty" in text
    assert "42.000" in text
    assert "bananas" in text


def test_the_page_tells_what_it_costs_to_come_near_the_truth_and_who_ranks_first(tmp_path):
    tables = Tables()
    for seed in range(6):
        tables.run("a", "mapa", seed, -1.08, cost=0.5).run("a", "vae", seed, -1.3)
    text = " ".join(re.sub(r"<[^>]*>", " ", write(tables.study(tmp_path)).read_text()).split())
    near = text[text.rindex("Cost to come near the true model") :]
    seen = "2 GFLOP [2 GFLOP, 2 GFLOP] 6/6 2 GFLOP [2 GFLOP, 2 GFLOP] 6/6 inf 0/6 1 s [1 s, 1 s] 6/6 1 s [1 s, 1 s] 6/6"
    assert f"a mapa inf 0/6 {seen}" in near
    assert f"a vae{' inf 0/6' * 6}" in near
    assert "mapa 0.080 1.00 6 0 vae 0.300 2.00 6 0" in text


def test_the_share_of_steps_that_train_one_network_alone_is_over_runs():
    columns = ["dataset", "method", "seed", "name", "calls", "flops", "by"]
    rows = [
        ("a", "iterative", seed, name, calls, 1.0, "operators")
        for seed, taken in enumerate([(60, 4, 36), (80, 10, 10), (95, 5, 0)])
        for name, calls in zip(("encoder step", "decoder step", "joint step"), taken, strict=True)
    ]
    rows += [("a", "vae", 0, "joint step", 100, 1.0, "operators"), ("a", "mapa", 0, "loss", 5, 1.0, "operators")]
    found = aggressive_shares(pd.DataFrame(rows, columns=columns))
    assert found.to_dict("index") == {"iterative": {"median": 0.9, "low": 0.64, "high": 1.0}}
    assert aggressive_shares(pd.DataFrame(columns=columns)).empty


def test_the_page_shows_what_a_query_costs_and_which_steps_were_aggressive(tmp_path, undrawn):
    tables = Tables()
    for seed in range(2):
        tables.run("a", "iterative", seed, -1.5)
        tables.runs[-1] |= {"query_flops": 12_300.0 + seed, "query_s": 4.5e-5}
    folder = tables.study(tmp_path)
    columns = ["dataset", "method", "seed", "name", "calls", "flops", "by"]
    steps = [
        ("a", "iterative", 0, "encoder step", 3, 9.0, "operators"),
        ("a", "iterative", 0, "joint step", 1, 1.0, "x"),
    ]
    pd.DataFrame(steps, columns=columns).to_parquet(folder / "work.parquet")
    text = " ".join(Page(write(folder).read_text()).text.split())
    assert "FLOPs per query" in text
    assert "12.3 kFLOP" in text
    assert "45 µs" in text
    assert "Steps of encoder or decoder alone: 75 % (median over runs, 75 % to 75 %)." in text


def test_contended_wall_times_are_owned_up_to(tmp_path, undrawn):
    tables = Tables().run("a", "mapa", 0, -1.5)
    tables.runs[0]["concurrent"] = True
    assert "contended" in write(tables.study(tmp_path)).read_text()


@pytest.mark.parametrize("differences", [AHEAD, (0.1, 0.1, 0.1, 0.1, -0.5)], ids=["all reach it", "one misses it"])
def test_of_contended_wall_times_no_ratio_is_given(differences):
    """FLOPs are compared all the same, and the seeds that reach a target are counted by them."""
    found = []
    for beside in (False, True):
        tables = duel(differences)
        for row in [*tables.runs, *tables.measurements]:
            row["concurrent"] = beside and row["method"] == "mapa"
        (one,) = comparisons(*tables.frames())
        (first, *_) = one.differences
        cell = next(row for row in differences_table([one]).rows).cells[5]
        found.append((first, sentence(one), json.loads(_by_seed(first.match)), cell))
    (known, text, lines, cell), (unknown, text_beside, lines_beside, cell_beside) = found
    assert (known.wall, known.match.wall) == (0.5, 0.5)
    assert np.isnan([unknown.wall, unknown.match.wall]).all()
    assert (unknown.flops, unknown.match.flops) == (known.flops, known.match.flops)
    assert "an unknown share of the wall time" not in text
    assert "an unknown share of the wall time" in text_beside
    assert "never the wall time" not in text_beside
    assert [line[2] for line in lines_beside] == [line[2] for line in lines]
    assert [line[1] for line in lines_beside] == [None if line[2] is None else "not known" for line in lines]
    assert (cell.text, bool(cell.rows), cell_beside.text, bool(cell_beside.rows)) == ("0.5×", True, "–", False)


def test_contended_are_only_runs_that_finished(tmp_path, undrawn):
    tables = Tables().run("a", "mapa", 0, -1.5).run("a", "vae", 0, -1.5)
    tables.runs[1] |= {"concurrent": True, "status": "failed"}
    assert "contended" not in write(tables.study(tmp_path)).read_text()


def test_datasets_whose_names_fall_together_keep_their_own_files(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.report.figures.style.image", lambda *_: b"")  # their names alone are looked at
    write(Tables().run("a/b", "mapa").run("a b", "mapa").run("../..", "mapa").study(tmp_path), ("md",))
    names = {path.name for path in (tmp_path / "figures").glob("*.svg")}
    assert names == {"overview.svg", "a-b-cost.svg", "a-b-2-cost.svg", "dataset-cost.svg", "decomposition.svg"}


def overlay(dataset, *methods):
    """Index posteriors of one x over three training data."""
    each = {"dataset": dataset, "seed": 0, "point": 1, "index": range(3), "code": (-1.0, 0.0, 1.0)}
    parts = [
        pd.DataFrame({**each, "method": m, "x": [[0.0, 1.0]] * 3, "probability": (0.25, 0.5, 0.25)})
        for m in ("truth", "floor", *methods)
    ]
    return pd.concat(parts, ignore_index=True)


LABELS = ("mapa[kernel_width=2]", "mapa[kernel_width=2,noise_variance='x']", "vae[steps=8]")
WITH_SIZE = "circle[n_train=10000]"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A study of labels with brackets, of which one is better than another, and worse on a second dataset."""
    tables = Tables(looks=2)
    for seed, ahead in enumerate(AHEAD):
        for dataset, mine in ((WITH_SIZE, -2 + ahead), ("a", -9.0)):
            tables.run(dataset, LABELS[0], seed, mine, cost=0.5).run(dataset, LABELS[2], seed, -2.0)
    tables.run(WITH_SIZE, LABELS[1], 0)
    for seed, (kl, floor) in enumerate(
        ((0.6, 0.3), (0.9, 0.3), (0.8, 0.8), (0.3, 0.3), (0.9, 0.3), (0.6, 0.3), (0.6, 0.3))
    ):
        last = {**tables.measurements[0], "checkpoint": 1, "seed": seed}
        values = (("index_kl", kl), ("index_kl_floor", floor))
        tables.measurements += [{**last, "metric": name, "value": value} for name, value in values]
    folder = tmp_path_factory.mktemp("labelled")
    tables.study(folder, grid(WITH_SIZE, ("truth", LABELS[0])), overlay(WITH_SIZE, *LABELS[:2]))
    write(folder)
    return folder


def test_labels_with_brackets_go_through_the_whole_report(labelled):
    parsed, text = Page((labelled / "report.html").read_text()), (labelled / "report.md").read_text()
    links = re.findall(r"\]\((figures/[^)]*)\)", text)
    stems = ("overview", "a-cost", *(f"circle-n-train-10000-{kind}" for kind in ("cost", "density", "posterior")))
    assert {f"figures/{stem}.svg" for stem in stems} <= set(links)
    assert all((labelled / link).is_file() for link in links)
    assert all(label in parsed.text for label in (WITH_SIZE, *LABELS))
    assert "mapa\\[kernel\\_width=2\\]" in text
    assert "Posteriors against the true one" in parsed.text


def test_the_table_of_comparisons_shows_each_margin(labelled):
    """Of 2^7 signs of seven seeds that agree, two give as much: p is 2/128."""
    low, high = interval(AHEAD)
    ahead = (
        f"+0.250 [{low:.3f}, {high:.3f}]",
        ("better", "p 0.016"),
        "7",
        "0.5×",
        "0.5×",
        "0.5×",
        "0.5×",
        "7/7",
        "never",
        "0/7",
    )
    behind = "-7.000 [-7.000, -7.000]", ("worse", "p 0.016"), "7", "0.5×", "0.5×", "never", "never", "0/7", "1×", "7/7"
    html, text = ((labelled / name).read_text() for name in ("report.html", "report.md"))
    shown = re.sub(r"<[^>]*>", "|", html)
    for dataset, (difference, verdict, *rest) in ((WITH_SIZE, ahead), ("a", behind)):
        assert re.search(r"[|\s]+".join(map(re.escape, (dataset, difference, *verdict, *rest))), shown)
        cells = (dataset, difference, " ".join(verdict), *rest)
        assert f"| {' | '.join(map(markdown, cells))} |" in text
    assert "cost to match" in Page(html).text


def test_the_floor_of_the_index_kl_has_its_column_and_its_ratio_seed_by_seed(labelled):
    study = read(labelled)
    found = row(summary(study.measurements, study.runs), WITH_SIZE, LABELS[0])
    assert found["index_kl_ratio_median"] == pytest.approx(2)
    assert (found["index_kl_ratio_low"], found["index_kl_ratio_high"]) == pytest.approx((1, 3))
    text = Page((labelled / "report.html").read_text()).text
    assert "index KL floor" in text
    assert "index KL by floor" in text
    assert "index_kl_ratio_median" not in summary(*typical().frames())


@pytest.mark.parametrize("missing", ["study.json", "runs.parquet", "measurements.parquet"])
def test_a_missing_table_is_named(tmp_path, missing):
    (Tables().run("a", "mapa").study(tmp_path) / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing):
        write(tmp_path)


@pytest.mark.parametrize(
    ("schema", "advice"), [(1, "make the study again"), (2, "make the study again"), (9, "version")]
)
def test_a_folder_of_another_schema_is_refused_by_name(tmp_path, schema, advice):
    folder = Tables().run("a", "mapa").study(tmp_path, schema=schema)
    with pytest.raises(ValueError, match=rf"^{folder} has schema {schema}, but .* reads schema {SCHEMA}; .*{advice}"):
        read(folder)


def test_a_table_without_a_column_is_refused(tmp_path):
    folder = Tables().run("a", "mapa").study(tmp_path)
    whole = pd.read_parquet(tmp_path / "runs.parquet")
    for column in ("role", "status"):
        whole.drop(columns=column).to_parquet(tmp_path / "runs.parquet")
        with pytest.raises(ValueError, match=rf"lacks the columns \['{column}'\]"):
            read(folder)


def test_markdown_shows_text_literally_on_one_line():
    assert markdown("a|b\n`c` <d> *e* [f](g) & h_i") == (
        r"a\|b \`c\` &lt;d&gt; \*e\* \[f\](g) &amp; h\_i"
    )  # fmt: skip


def run(code):
    root = Path(__file__).resolve().parents[3]
    return subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout


def test_importing_the_report_is_light():
    modules = "bench.report, bench.report.sentences, bench.report.study_notes, bench.store.schema"
    loaded = set(run(f"import sys, {modules}; print(*sys.modules)").split())
    assert not {"matplotlib", "seaborn", "jinja2", "torch", "methods", "datasets"} & loaded


@pytest.mark.parametrize("metric", ["test_ll", "oracle_gap", "elbo"])
def test_the_best_are_marked_where_the_best_test_log_likelihood_is_shown(tmp_path, capsys, metric):
    folder = duel(AHEAD).study(tmp_path, settings={"margin": 0.02, "baseline": ["mapa"]})
    print_summary(folder, metric)
    shown = capsys.readouterr().out
    assert (" * " in shown.partition("\n")[2], "best in bold" in shown) == ((metric == "test_ll"),) * 2
