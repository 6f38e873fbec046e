"""The report against synthetic tables whose medians, verdicts and levels are known."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.report import summary, write
from bench.report.compare import answers, comparisons, rivals, sentence
from bench.report.page import markdown
from bench.report.study import read
from bench.report.summary import final, oracle_levels

HOSTILE = "<script>alert(1)</script>|x"
COSTS = {"wall_s": 2.0, "cpu_s": 3.0, "flops": 4e9, "decoder_passes": 5e5, "encoder_passes": 6e5}
METRICS = ("test_ll", "oracle_gap", "elbo", "inference_gap")


@dataclass
class Tables:
    """Synthetic tables: `cell` adds a cell that ends at a test_ll, `study` writes them to a folder."""

    looks: int = 4
    oracle: float = -1.0
    measurements: list[dict] = field(default_factory=list)
    cells: list[dict] = field(default_factory=list)

    def cell(self, dataset, method, seed=0, test_ll=-2.0, cost=1.0, status="done", message=""):
        costs = {name: value * cost * (method != "oracle") for name, value in COSTS.items()}
        cell = {"dataset": dataset, "method": method, "seed": seed}
        self.cells.append({**cell, "status": status, "message": message, **costs, "concurrent": False})
        for look in range(self.looks if status in ("done", "timeout") else 0):
            quality = test_ll - (self.looks - 1 - look)
            spent = {name: value * (look + 1) / self.looks for name, value in costs.items()}
            values = (quality, self.oracle - quality, quality - 0.5, 0.5)
            self.measurements += [
                {
                    **cell,
                    "checkpoint": look,
                    "metric": m,
                    "value": v,
                    "stderr": np.nan,
                    "unit": "nats",
                    **spent,
                }
                for m, v in zip(METRICS, values, strict=True)
            ]
        return self

    def frames(self):
        columns = ["dataset", "method", "seed", "checkpoint", "metric", "value", "stderr", "unit", *COSTS]
        return pd.DataFrame(self.measurements, columns=columns), pd.DataFrame(self.cells)

    def study(self, folder, densities=None, **info):
        measurements, cells = self.frames()
        measurements.to_parquet(folder / "measurements.parquet")
        cells.to_parquet(folder / "cells.parquet")
        if densities is not None:
            densities.to_parquet(folder / "densities.parquet")
        (folder / "study.json").write_text(json.dumps({"schema": 2, "name": "a study", **info}))
        return folder


def typical():
    """Three seeds of two methods on two datasets, with every kind of trouble."""
    tables = Tables()
    for seed, (mapa, other) in enumerate(((-1.5, -1.7), (-1.2, -1.9), (-1.9, -2.5))):
        for dataset in ("circle", HOSTILE):
            tables.cell(dataset, "mapa", seed, mapa, cost=0.5).cell(dataset, "oracle", seed, -1.0)
            tables.cell(dataset, "iterative", seed, other, cost=2)
    tables.cell("circle", HOSTILE, 0, status="failed", message=f"`{HOSTILE}`\nsecond line")
    tables.cell("circle", "gone", 0, status="skipped", message="needs two dimensions")
    tables.cell("circle", "short", 0, -3).cell("circle", "short", 1, -4, status="timeout", message="too slow")
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
        self.loads += [value for key, value in attrs if key in ("src", "srcset", "href", "data", "poster")]

    def handle_data(self, data):
        self.text += data


def row(table, dataset, method):
    return table[(table["dataset"] == dataset) & (table["method"] == method)].iloc[0]


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
    measurements, cells = Tables().cell("a", "mapa", 0, -2.0).frames()
    assert row(summary(measurements[::-1], cells), "a", "mapa")["test_ll_median"] == -2.0


def test_final_does_not_fall_back_on_an_earlier_look():
    measurements, cells = Tables().cell("a", "mapa", 0, -2.0).frames()
    lost = (measurements["checkpoint"] == 3) & (measurements["metric"] == "elbo")
    assert np.isnan(final(measurements[~lost], cells)["elbo"].iloc[0])


def test_a_seed_that_is_nan_is_not_left_out_of_the_median():
    tables = Tables().cell("a", "mapa", 0, -2.0).cell("a", "mapa", 1, np.nan).cell("a", "other", 0, -9.0)
    table = summary(*tables.frames())
    assert np.isnan(row(table, "a", "mapa")["test_ll_median"])
    assert list(table["best"]) == [False, True]


@pytest.mark.parametrize("reference", ["oracle", "untrained"])
def test_best_is_the_highest_fitted_method(reference):
    tables = Tables().cell("a", reference, 0, -0.1).cell("a", "mapa", 0, -2).cell("a", "other", 0, -1.5)
    tables.cell("b", "mapa", 0, -2).cell("b", "other", 0, -2.5)
    table = summary(*tables.frames())
    assert set(zip(*(table.loc[table["best"], c] for c in ("dataset", "method")), strict=True)) == {
        ("a", "other"),
        ("b", "mapa"),
    }
    assert np.isnan(row(table, "a", reference)["flops"])


def test_oracle_level_is_its_own_or_else_recovered_from_the_gap():
    with_oracle = Tables(oracle=-1.25).cell("a", "oracle", 0, -1.0).cell("a", "mapa", 0, -3)
    without = Tables(oracle=-1.25).cell("a", "mapa", 0, -3).cell("a", "mapa", 1, -4)
    assert oracle_levels(*with_oracle.frames()) == pytest.approx({"a": -1.0})
    assert oracle_levels(*without.frames()) == pytest.approx({"a": -1.25})


# The sentences


def duel(difference, **kwargs):
    return Tables().cell("a", "mapa", 0, -2 + difference, cost=0.5).cell("a", "iterative", 0, -2, **kwargs)


def test_the_verdict_flips_with_the_values():
    ahead, behind = (answers(*duel(d).frames(), pd.DataFrame())[0] for d in (0.25, -0.25))
    assert "mapa is ahead of iterative on 1 of 1 dataset (a +0.250 nats), over 1 seed" in ahead
    assert "behind" not in ahead
    assert "mapa is behind iterative on 1 of 1 dataset (a -0.250 nats), over 1 seed" in behind
    assert "ahead" not in behind
    assert "mapa is level with iterative on 1 of 1 dataset (a), over" in answers(*duel(0.0).frames(), pd.DataFrame())[0]


def test_wins_and_losses_stand_side_by_side():
    tables = duel(0.25).cell("b", "mapa", 0, -3).cell("b", "iterative", 0, -2)
    text = answers(*tables.frames(), pd.DataFrame())[0]
    assert "ahead of iterative on 1 of 2 datasets (a +0.250 nats) and behind on 1 (b -1.000 nats), over" in text


def test_the_sentence_gives_seeds_medians_and_cost_ratios():
    text = sentence(comparisons(*typical().frames())[0])
    assert text == (
        f"mapa is ahead of iterative on 2 of 2 datasets (circle +0.600, {HOSTILE} +0.600 nats), "
        "over 3 seeds, at 0.25× the FLOPs and 0.25× the wall time."
    )


def test_a_comparison_is_over_shared_seeds_and_says_where_seeds_disagree():
    tables = Tables()
    for seed, value in enumerate((-1.0, -3.0, -9.0)):
        tables.cell("a", "mapa", seed, value)
    tables.cell("a", "other", 0, -2).cell("a", "other", 1, -2).cell("a", "other", 2, status="failed")
    found = comparisons(*tables.frames())[0]
    assert (found.margins[0].seeds, found.margins[0].nats, found.margins[0].agree) == (2, 0.0, False)
    assert "The seeds disagree on a." in sentence(found)


def test_what_cannot_be_compared_is_said():
    tables = duel(0.1).cell("b", "mapa", 0, -2).cell("b", "iterative", 0, status="failed")
    assert "Not compared on b" in sentence(comparisons(*tables.frames())[0])
    nothing = Tables().cell("b", "mapa", 0, -2).cell("b", "iterative", 0, status="failed")
    assert "nothing to compare" in sentence(comparisons(*nothing.frames())[0])


def test_uncounted_flops_are_not_a_ratio():
    measurements, cells = duel(0.1).frames()
    text = sentence(comparisons(measurements, cells.assign(flops=np.nan))[0])
    assert "an unknown share of the FLOPs and 0.5× the wall time" in text


@pytest.mark.parametrize(
    ("methods", "pairs"),
    [
        (["vae", "mapa", "oracle", "iwae", "mapa-polished"], {("mapa", "vae"), ("mapa", "iwae")}),
        (["vae", "iwae", "untrained", "wake"], {("vae", "iwae"), ("vae", "wake")}),
        (["mapa", "mapa-polished"], {("mapa", "mapa-polished")}),
        (["oracle", "mapa"], set()),
    ],
)
def test_who_is_compared_with_whom(methods, pairs):
    polished = {("mapa-polished", other) for _, other in pairs if "vae" in methods and "mapa" in methods}
    assert set(rivals(methods)) == pairs | polished


def test_a_lone_method_is_set_against_the_truth():
    tables = Tables().cell("a", "mapa", 0, -1.5).cell("b", "mapa", 0, -1.7)
    frames = tables.frames()
    assert "0.600 nats below the true model (median over 2 datasets)" in answers(*frames, summary(*frames))[0]
    failed = Tables().cell("a", "mapa", 0, status="failed").frames()
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
        settings={"size": 500, "noise": "known", "max_flops": None, "odd": HOSTILE},
        provenance={"commit": HOSTILE},
    )
    return write(folder)


def test_the_files_are_there_and_no_other(page):
    names = sorted(p.relative_to(page.parent).as_posix() for p in page.parent.rglob("*") if p.is_file())
    figures = [f"figures/{s}.{k}" for s in ("overview", "circle-cost", "circle-density", "script-alert-1-script-x-cost")
               for k in ("png", "svg")]  # fmt: skip
    tables = ["cells.parquet", "densities.parquet", "measurements.parquet", "study.json"]
    assert names == sorted([*figures, *tables, "report.html", "report.md"])


def test_the_page_loads_nothing_from_anywhere(page):
    html = page.read_text()
    loads = Page(html).loads
    assert len(loads) > 3
    assert all(load.startswith(("data:image/svg+xml;base64,", "#")) for load in loads)
    assert not re.search(r"url\(|@import|https?://", html)


def test_names_and_messages_are_escaped_in_html(page):
    parsed = Page(page.read_text())
    assert "script" not in parsed.tags
    assert parsed.text.count(HOSTILE) > 8
    assert f"`{HOSTILE}`\nsecond line" in parsed.text


def test_names_and_messages_are_escaped_in_markdown(page):
    text = page.with_name("report.md").read_text()
    code = [line for line in text.splitlines() if line.startswith("    ")]
    prose = text.replace("\n".join(code), "")
    assert "<script" not in prose
    assert len(code) == 1
    rows = [re.split(r"(?<!\\)\|", line) for line in prose.splitlines() if line.startswith("|")]
    assert {len(cells) for cells in rows if "second line" in "".join(cells)} == {7}
    assert prose.count("second line") == 1


def test_the_page_says_at_once_what_did_not_finish(page):
    text = Page(page.read_text()).text
    incident = "3 of 22 cells did not finish: 1 failed, 1 skipped and 1 timed out."
    assert text.index(incident) < text.index("Where each method ended")
    assert "needs two dimensions" in text
    assert incident.split(":")[0] in page.with_name("report.md").read_text()


def test_the_page_shows_the_numbers_of_the_summary(page):
    html = page.read_text()
    text = Page(html).text
    assert "-1.900 … -1.200" in text
    assert "2 GFLOP" in text
    assert html.count('<b class="best">-1.500</b>') == 2
    assert page.with_name("report.md").read_text().count("**-1.500**") == 2


def test_writing_again_gives_the_same_bytes_and_leaves_nothing_behind(page):
    before = {p: p.read_bytes() for p in page.parent.rglob("*") if p.is_file()}
    assert write(page.parent) == page
    assert {p: p.read_bytes() for p in page.parent.rglob("*") if p.is_file()} == before


def test_a_bare_study_of_one_method_without_densities(tmp_path):
    text = Page(write(Tables(looks=1).cell("a", "mapa", 0, -1.5).study(tmp_path)).read_text()).text
    assert "only fitted method" in text
    assert "Every cell finished." in text
    assert "Learned densities" not in text


def test_a_study_in_which_nothing_finished(tmp_path):
    tables = Tables().cell("a", "mapa", 0, status="failed", message=None).cell("a", "vae", 0, status="timeout")
    text = Page(write(tables.study(tmp_path, grid().iloc[:0])).read_text()).text
    assert "2 of 2 cells did not finish: 1 failed and 1 timed out." in text
    assert "no reason given" in text


def test_a_metric_that_is_not_known_gets_its_own_column(tmp_path):
    measurements, cells = Tables().cell("a", "mapa", 0, -1.5).frames()
    extra = measurements[measurements["metric"] == "elbo"].assign(metric="novelty", value=42.0, unit="bananas")
    Tables(measurements=pd.concat([measurements, extra]).to_dict("records"), cells=cells.to_dict("records")).study(
        tmp_path
    )
    text = Page(write(tmp_path).read_text()).text
    assert "novelty" in text
    assert "42.000" in text
    assert "bananas" in text


def test_contended_wall_times_are_owned_up_to(tmp_path):
    tables = Tables().cell("a", "mapa", 0, -1.5)
    tables.cells[0]["concurrent"] = True
    assert "contended" in write(tables.study(tmp_path)).read_text()


def test_datasets_whose_names_fall_together_keep_their_own_files(tmp_path):
    write(Tables().cell("a/b", "mapa").cell("a b", "mapa").cell("../..", "mapa").study(tmp_path))
    names = {path.name for path in (tmp_path / "figures").glob("*.png")}
    assert names == {"overview.png", "a-b-cost.png", "a-b-2-cost.png", "dataset-cost.png"}


@pytest.mark.parametrize("missing", ["study.json", "cells.parquet", "measurements.parquet"])
def test_a_missing_table_is_named(tmp_path, missing):
    (Tables().cell("a", "mapa").study(tmp_path) / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing):
        write(tmp_path)


def test_what_cannot_be_read_is_refused(tmp_path):
    folder = Tables().cell("a", "mapa").study(tmp_path, schema=9)
    with pytest.raises(ValueError, match="schema 9; this version reads schema 2"):
        read(folder)
    Tables().cell("a", "mapa").study(tmp_path)
    pd.DataFrame({"dataset": ["a"]}).to_parquet(tmp_path / "cells.parquet")
    with pytest.raises(ValueError, match="lacks the columns"):
        read(folder)


def test_markdown_shows_text_literally_on_one_line():
    assert markdown("a|b\n`c` <d> *e* [f](g) & h_i") == (
        r"a\|b \`c\` &lt;d&gt; \*e\* \[f\](g) &amp; h\_i"
    )  # fmt: skip


def run(code):
    root = Path(__file__).resolve().parents[2]
    return subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout


def test_the_report_never_imports_torch_methods_or_datasets(tmp_path):
    folder = Tables().cell("a", "mapa", 0, -1.5).study(tmp_path)
    code = f"import sys; from bench import report; report.write({str(folder)!r}); print(*sys.modules)"
    assert not {"torch", "methods", "datasets"} & {name.split(".")[0] for name in run(code).split()}


def test_importing_the_report_is_light():
    loaded = set(run("import sys, bench.report, bench.report.format; print(*sys.modules)").split())
    assert not {"pandas", "matplotlib", "seaborn", "jinja2", "torch"} & loaded
