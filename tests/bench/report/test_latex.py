"""Tables for a paper against synthetic studies whose medians, verdicts and costs are known."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from bench.report.figures import style
from bench.report.latex import STEMS, tables, write
from bench.stats.bootstrap import bounds
from bench.store.study_tables import Study

ROLES = {"oracle": "ceiling"}
HOSTILE = "a_b%#&~^\\{}[x] Ωµ þ <--> $"
ENDS = {  # test_ll by method and seed: b is the best, c hardly behind, mapa clearly so
    "mapa": (-1.30, -1.22, -1.42, -1.34, -1.24, -1.28, -1.36, -1.40),
    "b": (-1.10, -1.01, -1.22, -1.13, -1.04, -1.07, -1.16, -1.19),
    "c": (-1.15, -1.00, -1.27, -1.12, -1.05, -1.05, -1.19, -1.20),
    "oracle": (-1.0,) * 8,
}
COSTS = ("wall_s", "cpu_s", "flops", "decoder_passes", "encoder_passes")


def study_of(ends, folder=Path("study"), oracle=-1.0, **settings):
    """A study of test_ll by (dataset, method) and seed, each shown at half the cost, one nat lower, and at the end."""
    measurements, runs = [], []
    for (dataset, method), values in ends.items():
        for seed, value in enumerate(values):
            run = {"dataset": dataset, "method": method, "seed": seed}
            total = 1.0 if method.startswith("mapa") else 4.0
            about = {"role": ROLES.get(method, "method"), "status": "done", "message": ""}
            runs.append({**run, **about, **dict.fromkeys(COSTS, total)})
            for look, quality in enumerate((value - 1, value)):
                spent = dict.fromkeys(COSTS, total * (look + 1) / 2)
                rows = (("test_ll", quality), ("oracle_gap", oracle - quality))
                measurements += [{**run, **spent, "checkpoint": look, "metric": m, "value": v} for m, v in rows]
    nothing = pd.DataFrame(columns=["dataset", "method", "seed"])
    info = {"name": HOSTILE, "settings": settings}
    return Study(folder, pd.DataFrame(measurements), pd.DataFrame(runs), *[nothing] * 5, info)


def on(*datasets, ends=ENDS):
    return {(dataset, method): values for dataset in datasets for method, values in ends.items()}


def rows_of(table):
    """The rows of each tabular, as cells without what only sizes them."""
    found = []
    for spec, inner in re.findall(r"\\begin\{tabular\}\{@\{\}(\w+)@\{\}\}(.*?)\\end\{tabular\}", table, re.DOTALL):
        body = re.sub(r"\\(toprule|midrule|bottomrule|addlinespace)\n", "\n", inner)
        lines = [line for line in body.split("\\\\\n") if line.strip()]
        cells = [[cell.strip() for cell in re.split(r"(?<!\\)&", line)] for line in lines]
        found.append((len(spec), [[re.sub(r"^\{\\scriptsize (.*)\}$", r"\1", c) for c in row] for row in cells]))
    return found


def table_of(text):
    """Of the only tabular: its head, and by name the cells above and below."""
    ((_, (head, *body)),) = rows_of(text)
    return head[1:], {body[i][0]: list(zip(body[i][1:], body[i + 1][1:], strict=True)) for i in range(0, len(body), 2)}


def shown(values):
    low, high = bounds((np.asarray(values),), np.median)
    return f"$[{low:.3f}, {high:.3f}]$"


def test_medians_intervals_and_marks_of_the_final_quality():
    head, rows = table_of(tables(study_of(on("circle")))["test-ll"])
    assert head == ["circle"]
    assert rows["mapa"] == [("$-1.320$", shown(ENDS["mapa"]))]
    assert rows["b"] == [(r"$\mathbf{-1.115}$", shown(ENDS["b"]))]
    assert rows["c"] == [(r"\underline{$-1.135$}", shown(ENDS["c"]))]
    assert rows["oracle"] == [("$-1.000$", "$[-1.000, -1.000]$")]


def test_the_best_oracle_gap_is_the_lowest():
    ends = {("d", "mapa"): [-1.3] * 8, ("d", "far"): [-2.0] * 8}
    _, rows = table_of(tables(study_of(ends))["oracle-gap"])
    assert rows == {
        "mapa": [(r"$\mathbf{0.300}$", "$[0.300, 0.300]$")],
        "far": [("$1.000$", "$[1.000, 1.000]$")],
    }


def test_a_few_seeds_have_neither_interval_nor_verdict():
    found = tables(study_of({("d", "mapa"): [-1.0] * 4, ("d", "b"): [-1.5] * 4}))
    ((_, (_, *quality)),) = rows_of(found["test-ll"])
    assert quality == [["mapa", r"$\mathbf{-1.000}$"], ["b", "$-1.500$"]]
    ((_, (_, *differences)),) = rows_of(found["differences"])
    assert differences == [["b", "$+0.500$"]]


def test_verdicts_are_arrows():
    noise = np.array([-0.1, 0.1, -0.2, 0.2, -0.3, 0.3, -0.4, 0.4])
    ends = {
        ("d", "mapa"): -1 + 0 * noise,
        ("d", "low"): -2 + 0 * noise,
        ("d", "high"): 0 * noise,
        ("d", "as"): -1 + noise,
    }
    _, rows = table_of(tables(study_of(ends))["differences"])
    assert rows["low"] == [(r"$+1.000$ $\uparrow$", "$[1.000, 1.000]$")]
    assert rows["high"] == [(r"$-1.000$ $\downarrow$", "$[-1.000, -1.000]$")]
    assert rows["as"] == [("$0.000$ ?", shown(-noise))]


def test_an_equivalent_difference_has_a_mark_of_its_own():
    ends = {("d", "mapa"): [-1.0] * 8, ("d", "as"): [-1.001] * 8}
    _, rows = table_of(tables(study_of(ends))["differences"])
    assert rows["as"][0][0] == r"$+0.0010$ $\approx$"


def test_the_cost_to_match_is_in_units_of_the_others_total():
    ends = {
        ("d", "mapa"): [-1.0] * 8,
        ("d", "early"): [-2.5] * 8,
        ("d", "level"): [-1.0] * 8,
        ("d", "never"): [0.0] * 8,
    }
    _, rows = table_of(tables(study_of(ends))["cost-to-match"])
    assert rows["early"] == [(r"$0.12\times$", r"$0.12\times$, 8/8")]
    assert rows["level"] == [(r"$0.25\times$", r"$0.25\times$, 8/8")]
    assert rows["never"] == [(r"$\infty$", r"$\infty$, 0/8")]


def test_the_cost_to_come_near_the_truth_is_in_gflop():
    ends = {("d", "mapa"): [-1.05] * 8, ("d", "short"): [-1.05] * 3 + [-1.5] * 5, ("d", "far"): [-3.0] * 8}
    study = study_of(ends)
    dearer = replace(study, measurements=study.measurements.assign(flops=study.measurements["flops"] * 1e9))
    _, rows = table_of(tables(dearer)["cost-to-target"])
    assert rows["mapa"] == [(r"$1$ {\scriptsize 8/8}", "$[1, 1]$")]
    assert rows["short"][0][0] == r"$\infty$ {\scriptsize 3/8}"
    assert rows["far"] == [(r"$\infty$ {\scriptsize 0/8}", r"$[\infty, \infty]$")]


def test_what_was_not_run_is_a_dash():
    ends = {("a", "mapa"): [-1.0], ("a", "b"): [-2.0], ("c", "b"): [-2.0]}
    ((_, (head, *rows)),) = rows_of(tables(study_of(ends))["test-ll"])
    assert head == ["method", "a", "c"]
    assert rows[0] == ["mapa", r"$\mathbf{-1.000}$", "--"]


def test_many_datasets_are_shared_out_evenly():
    text = tables(study_of(on(*"vwxyz")))["test-ll"]
    assert [columns for columns, _ in rows_of(text)] == [4, 3]
    assert re.findall(r"\\label\{(.*)\}", text) == ["tab:test-ll-1", "tab:test-ll-2"]
    assert [part in text for part in ("Part 1 of 2.", "Part 2 of 2.")] == [True, True]


def test_the_caption_says_what_is_shown():
    text = tables(study_of(on("circle"), n_train=500, n_test=2000, observation_noise="known"))["test-ll"]
    (caption,) = re.findall(r"\\caption\{(.*)\}", text)
    assert caption.startswith("Final test log-likelihood (nats, higher is better): median over seeds, with its 95\\%")
    assert caption.endswith("8 seeds, 500 training points, 2000 test points, known observation noise.")


def hostile():
    return study_of(on(HOSTILE, "circle", ends={**ENDS, HOSTILE: ENDS["c"]}), observation_noise=HOSTILE)


def test_rows_are_complete_and_braces_balanced_whatever_names_hold():
    found = tables(hostile())
    assert set(found) == set(STEMS)
    for text in found.values():
        for columns, rows in rows_of(text):
            assert {len(row) for row in rows} == {columns}
        bare = re.sub(r"\\[{}%]", "", text)
        assert bare.count("{") == bare.count("}")
        assert re.findall(r"\\begin\{(\w+)\}", text) == ["table", "tabular"] * text.count("\\label")
        assert text.isascii()


def test_a_table_that_there_is_nothing_for_is_removed(tmp_path):
    write(study_of(on("circle"), tmp_path))
    assert sorted(path.stem for path in (tmp_path / "tables").iterdir()) == sorted(STEMS)
    write(study_of({("circle", "mapa"): [-1.0]}, tmp_path))
    assert sorted(path.stem for path in (tmp_path / "tables").iterdir()) == ["cost-to-target", "oracle-gap", "test-ll"]


def compiled(study, folder):
    """The log of a paper that takes in all tables."""
    write(replace(study, folder=folder))
    inputs = "\n".join(rf"\input{{tables/{stem}}}" for stem in STEMS)
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{inputs}\end{{document}}"
    (folder / "paper.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    run = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    assert run.returncode == 0, run.stdout[-2000:]
    return (folder / "paper.log").read_text(errors="replace")


needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX is installed here")


@needs_latex
def test_the_tables_compile_whatever_names_hold(tmp_path):
    compiled(hostile(), tmp_path)


@needs_latex
def test_four_datasets_fit_on_a_page(tmp_path):
    ends = {method: [value - 20 for value in values] for method, values in ENDS.items()}
    datasets = ("figure8", "s_curve", "absolute", "spiral_dots")
    assert "Overfull" not in compiled(study_of(on(*datasets, ends={**ends, "semi-amortised": ends["b"]})), tmp_path)


def test_figures_for_a_paper_are_vectors_with_truetype_fonts():
    with style.figure_style():
        fig = Figure()
        fig.subplots().set_title("test log-likelihood")
        pdf = style.image(fig, "pdf")
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf
