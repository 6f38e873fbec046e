"""The page in a browser."""

import json

import numpy as np
import pandas as pd
import pytest

from bench.report.page import write
from bench.stats.estimates import ranks

HOSTILE = "</script><script>window.hurt=1</script><img src=x onerror=window.hurt=1>:'\"|x"
UNIT = {"unit": "nats", "concurrent": False}
COSTS = ("wall_s", "cpu_s", "flops", "decoder_passes", "encoder_passes")
MINE = {("circle", "mapa"): -1.5, ("circle", "vae"): -1.7, ("circle", HOSTILE): -1.6, ("torus", "mapa"): -12.0,
        ("torus", "vae"): -2.5, ("circle", "oracle"): -1.0}  # fmt: skip
ENDS = '#table table.sortable [data-method="{}"][data-dataset="{}"]'


def tables(folder):
    """A study of six pairs whose finals are MINE, each seed a tenth of a nat apart; a seed of vae on torus failed."""
    runs, looks = [], []
    for place, ((dataset, method), level) in enumerate(MINE.items()):
        for seed in range(5):
            spent = dict.fromkeys(COSTS, (method != "oracle") * (place + 1) * 10.0)
            failed = (dataset, method, seed) == ("torus", "vae", 4)
            run = {"dataset": dataset, "method": method, "seed": seed}
            status = {"status": "failed", "message": HOSTILE} if failed else {"status": "done", "message": ""}
            about = {"role": "ceiling" if method == "oracle" else "method", "notes": "", "concurrent": False}
            more = {"peak_memory_mb": 1.0, "key": f"key-{place}-{seed}"}
            runs.append({**run, **about, **status, **spent, **more})
            ends = [("test_ll", level + 0.1 * (seed - 2)), ("oracle_gap", -1 - level), ("elbo", level - 1)]
            looks += [
                {
                    **run,
                    "checkpoint": look,
                    "metric": name,
                    "value": value - (1 - look),
                    "stderr": 0.01,
                    **UNIT,
                    **spent,
                }
                for look in (0, 1)
                for name, value in ends
                if not failed
            ]
    pd.DataFrame(runs).to_parquet(folder / "runs.parquet")
    pd.DataFrame(looks).to_parquet(folder / "measurements.parquet")
    info = {
        "schema": 3,
        "name": HOSTILE,
        "command": f"python -m bench compare -m {HOSTILE}",
        "provenance": {"cores": 2},
    }
    (folder / "study.json").write_text(json.dumps(info))
    return folder


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write(tables(tmp_path_factory.mktemp("study")))


@pytest.fixture
def page(browser, report):
    """The report, opened; in the end nothing may have been asked for elsewhere, nor stand in the console."""
    browser.call("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)
    browser.open(report.as_uri())
    yield browser
    asked, console = browser.told()
    assert [address for address in asked if not address.startswith(("data:", "about:", report.as_uri()))] == []
    assert console == []


HEADINGS = "#table table.sortable thead th"


def sort_by(page, label):
    page.run(
        f"[...document.querySelectorAll('{HEADINGS} button')].find((b) => b.innerText.includes('{label}')).focus()"
    )
    page.press("Enter", "\r")
    place = next(i for i, text in enumerate(page.texts(HEADINGS)) if label in text)
    column = page.texts(f"#table table.sortable tbody tr > :nth-child({place + 1})")
    order = page.run(f"document.querySelectorAll('{HEADINGS}')[{place}].ariaSort")
    return order, [text.split()[0] for text in column]


def test_a_column_is_sorted_from_the_keyboard_and_what_is_missing_comes_last(page):
    assert sort_by(page, "log-likelihood") == (
        "ascending",
        ["-12.000", "-2.550", "-1.700", "-1.600", "-1.500", "-1.000"],
    )
    assert sort_by(page, "log-likelihood") == (
        "descending",
        ["-1.000", "-1.500", "-1.600", "-1.700", "-2.550", "-12.000"],
    )
    assert sort_by(page, "wall time") == ("ascending", ["10", "20", "30", "40", "50", "–"])
    assert sort_by(page, "wall time") == ("descending", ["50", "40", "30", "20", "10", "–"])
    assert sort_by(page, "dataset")[1] == ["circle"] * 4 + ["torus"] * 2


def choose(page, field, value):
    at = f"document.querySelector('#table .filters [name={field}]')"
    page.run(f"{at}.value = {json.dumps(value)}; {at}.dispatchEvent(new Event('input', {{bubbles: true}}))")
    return page.texts("#table table.sortable tbody th"), page.texts("#table .filters output")


def test_the_table_is_filtered_by_dataset_method_and_text(page):
    assert choose(page, "dataset", "torus") == (["mapa", "vae"], ["2 of 6 rows"])
    assert choose(page, "method", "vae") == (["vae"], ["1 of 6 rows"])
    assert choose(page, "dataset", "")[1] == ["2 of 6 rows"]
    assert choose(page, "method", "")[1] == ["6 of 6 rows"]
    assert choose(page, "text", "HURT=1 circle") == ([HOSTILE], ["1 of 6 rows"])


def follow(page, method, dataset, name):
    """Open the rows of a number from the keyboard."""
    row = ENDS.format(method.replace('"', '\\"'), dataset)
    link = f"document.querySelector({json.dumps(row)}).querySelector('a[href$=\":{name}\"]')"
    page.run(f"{link}.focus()")
    page.press("Enter", "\r")
    page.until("document.querySelector('dialog').open")
    return link


def listed(page):
    """The rows in the dialog, by heading."""
    heads = page.texts("dialog thead th")
    runs = page.texts("dialog tbody th, dialog tbody td")
    return pd.DataFrame(np.reshape(runs, (-1, len(heads))), columns=[head.replace("\n", " ") for head in heads])


def selected(page, folder, monkeypatch):
    """What the dialog's lines of pandas select."""
    monkeypatch.chdir(folder)
    *lines, last = page.run("document.querySelector('#rows-code').textContent").splitlines()
    names = {}
    exec("\n".join(lines), names)
    return eval(last, names)


@pytest.mark.parametrize("pair", [("circle", "mapa"), ("circle", HOSTILE), ("torus", "vae")], ids=["a", "b", "c"])
def test_a_number_leads_to_its_rows_and_back(page, report, monkeypatch, pair):
    link = follow(page, pair[1], pair[0], "test_ll")
    rows = listed(page)
    seeds = 5 - (pair == ("torus", "vae"))
    expected = [f"{MINE[pair] + 0.1 * (seed - 2):.8g}" for seed in range(seeds)]
    assert list(rows["test log-likelihood (nats)"])[:seeds] == expected
    assert rows["run"].iloc[0] == f"key-{list(MINE).index(pair)}-0"
    assert list(rows["status"]) == ["done"] * seeds + ["failed"] * (5 - seeds)
    assert set(rows["standard error"][:seeds]) == {"0.01"}
    (summary,) = page.texts("#rows-what")
    assert summary.startswith(f"Over {seeds} finished seeds: median {np.median(np.array(expected, dtype=float)):.8g}, ")
    again = selected(page, report.parent, monkeypatch)
    np.testing.assert_allclose(again["value"], np.array(expected, dtype=float), rtol=1e-7)
    assert page.run("location.hash").startswith("#rows:")
    page.press("Escape")
    page.until(f"!document.querySelector('dialog').open && location.hash === '' && document.activeElement === {link}")


def test_a_cost_leads_to_its_runs(page, report, monkeypatch):
    follow(page, "vae", "circle", "flops")
    assert list(listed(page)["FLOPs (FLOP)"]) == ["20"] * 5
    assert list(selected(page, report.parent, monkeypatch)["flops"]) == [20.0] * 5


def test_a_difference_leads_to_pairs_of_rows_by_an_address_that_can_be_passed_on(browser, page, report):
    address = "#rows:circle:mapa:test_ll:vae"
    assert page.run(f"[...document.querySelectorAll('#comparisons a')].some((a) => a.hash === '{address}')")
    browser.open(report.as_uri() + address)
    assert browser.run("document.querySelector('dialog').open")
    rows = listed(browser)
    assert list(rows.columns)[:4] == ["seed", "mapa", "vae", "difference"]
    np.testing.assert_allclose(rows["difference"].astype(float), 0.2, atol=1e-7)


def open_rows(page, report, section, address):
    """Open the rows of a number of a section by its address."""
    assert page.run(f"[...document.querySelectorAll('#{section} a')].some((a) => a.hash === '{address}')")
    page.open(report.as_uri() + address)
    assert page.run("document.querySelector('dialog').open")
    return listed(page), page.texts("#rows-what")[0]


def test_a_ratio_of_costs_leads_to_both(page, report, monkeypatch):
    rows, says = open_rows(page, report, "comparisons", "#rows:circle:mapa:flops:vae")
    assert rows[["seed", "mapa", "vae", "times"]].astype(float).to_numpy().tolist() == [
        [seed, 10, 20, 0.5] for seed in range(5)
    ]
    assert says == "FLOPs (FLOP), over 5 shared seeds: medians 10 and 20, which is 0.5 times as much."
    assert sorted(selected(page, report.parent, monkeypatch)["flops"]) == [10.0] * 5 + [20.0] * 5


@pytest.mark.parametrize(("dataset", "each"), [("circle", "0.5"), ("torus", "not reached")])
def test_a_cost_to_match_leads_to_the_seeds(page, report, monkeypatch, dataset, each):
    rows, says = open_rows(page, report, "comparisons", f"#rows:{dataset}:mapa:match:vae")
    seeds = 5 - (dataset == "torus")
    assert rows.iloc[:, :3].to_numpy().tolist() == [[str(seed), each, each] for seed in range(seeds)]
    assert list(rows.iloc[:, 3:].loc[1]) == [
        f"key-{list(MINE).index((dataset, method))}-1" for method in ("mapa", "vae")
    ]
    assert f": {seeds * (dataset == 'circle')} of {seeds} shared seeds reach it" in says
    looks = selected(page, report.parent, monkeypatch)
    assert len(looks) == 2 * (5 + seeds)
    assert set(looks["metric"]) == {"test_ll"}


@pytest.mark.parametrize(("pair", "each"), [(("circle", "mapa"), "10"), (("torus", "mapa"), "not within 40")])
def test_what_it_costs_to_come_near_the_truth_leads_to_the_seeds(page, report, monkeypatch, pair, each):
    rows, says = open_rows(page, report, "cost", "#rows:{}:{}:near-0.1".format(*pair))
    assert rows[["wall time (s)", "FLOPs (FLOP)"]].to_numpy().tolist() == [[each, each]] * 5
    assert says == f"{5 * (each == '10')} of 5 finished seeds reached it."
    first = selected(page, report.parent, monkeypatch)
    assert list(first["flops"]) == [float(each)] * 5 if each == "10" else first.empty


@pytest.mark.parametrize("method", ["mapa", "vae"])
def test_a_mean_rank_leads_to_the_rank_of_each_run(page, report, monkeypatch, method):
    """Of three methods one is not on torus, and one failed there at a seed."""
    rows, says = open_rows(page, report, "ranking", f"#rows::{method}:rank")
    found = rows.set_index(["dataset", "seed"])["rank among 3"].astype(float)
    expected = {"mapa": [1] * 5 + [2] * 4 + [1], "vae": [3] * 5 + [1] * 4 + [2.5]}[method]
    assert found.to_list() == expected
    ranked = ranks(*(pd.read_parquet(report.parent / f"{name}.parquet") for name in ("measurements", "runs")))
    (mean,) = ranked.loc[ranked["method"] == method, "rank"]
    assert says == f"The mean over seeds, then over datasets: {mean:.8g}."
    again = selected(page, report.parent, monkeypatch)
    assert list(again.dropna()) == expected[: len(again.dropna())]


def test_a_mean_over_all_datasets_leads_to_every_run(page, report, monkeypatch):
    rows, says = open_rows(page, report, "ranking", "#rows::mapa:oracle_gap")
    assert list(rows["dataset"]) == ["circle"] * 5 + ["torus"] * 5
    assert says == "Over 10 finished seeds: mean over datasets of medians 5.75, least 0.5, greatest 11."
    assert len(selected(page, report.parent, monkeypatch)) == 10


def test_an_address_that_leads_nowhere_opens_nothing(browser, page, report):
    for address in (
        "#rows:nowhere:mapa:test_ll",
        "#rows:circle:mapa:nothing",
        "#rows:circle:mapa",
        "#rows:circle:mapa:near-7",
        "#table",
    ):
        browser.open(report.as_uri() + address)
        assert not browser.run("document.querySelector('dialog').open")


def test_no_name_runs_as_code(page):
    follow(page, HOSTILE, "circle", "test_ll")
    assert HOSTILE in page.texts("#rows-title")[0]
    assert page.run("window.hurt === undefined && document.images.length === 0")


def test_a_method_is_highlighted_in_every_figure(page):
    faint = "document.querySelectorAll('figure svg g.dim').length"
    assert page.run(faint) == 0
    page.run("document.querySelector('.legend button').click()")
    marked = page.run("document.querySelectorAll('figure svg g[class^=m]').length")
    own = page.run("document.querySelectorAll('figure svg g.m0').length")
    assert page.run(faint) == marked - own > 0
    page.run("document.querySelector('.legend button').click()")
    assert page.run(faint) == 0


@pytest.mark.parametrize("width", [375, 768])
def test_a_narrow_screen_is_not_exceeded(page, width):
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=True)
    assert page.run("document.documentElement.scrollWidth") <= width
    follow(page, "mapa", "circle", "test_ll")
    assert page.run("document.documentElement.scrollWidth") <= width


def test_the_page_and_its_figures_follow_the_scheme_of_colours(page):
    looks = {}
    for scheme in ("light", "dark"):
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        looks[scheme] = page.run(
            "[getComputedStyle(document.body).backgroundColor,"
            " getComputedStyle(document.querySelector('figure svg g.m0 path[style*=stroke-width]')).stroke]"
        )
    page.call("Emulation.setEmulatedMedia", features=[])
    assert looks["light"] == ["rgb(255, 255, 255)", "rgb(11, 57, 167)"]
    assert looks["dark"] == ["rgb(20, 24, 29)", "rgb(106, 153, 214)"]


def test_in_print_tables_are_whole_and_nothing_is_left_to_act_on(page):
    page.call("Emulation.setEmulatedMedia", media="print")
    style = "getComputedStyle(document.querySelector('{}')).{}"
    assert page.run(style.format("#table .tall", "overflow")) == "visible"
    assert page.run(style.format("#table .tall", "maxHeight")) == "none"
    assert page.run(style.format("#table thead button", "display")) == "contents"  # else no heading is repeated
    assert page.texts("nav, .filters, .legend, .code button") == []
    page.call("Emulation.setEmulatedMedia", media="")


def test_everything_that_acts_or_scrolls_can_be_reached_and_has_a_name(page):
    unnamed = (
        "[...document.querySelectorAll('figure svg, .scroll, form, nav, dialog, input, select')].filter((each) =>"
        " !each.ariaLabel && !each.closest('label') && !each.getAttribute('aria-labelledby')).map((e) => e.outerHTML)"
    )
    assert page.run(unnamed) == []
    assert page.run("[...document.querySelectorAll('.scroll')].every((each) => each.tabIndex === 0)")


def test_the_page_is_complete_without_its_program(browser, report):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(report.as_uri())
        assert len(browser.texts("#table table.sortable tbody tr")) == len(MINE)
        assert browser.texts(".filters, .legend, dialog") == []
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_the_page_runs_no_program_but_its_own(browser, report):
    browser.open(report.as_uri())
    browser.run(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.hurt = 1'}))"
    )
    assert browser.run("window.hurt === undefined")
    assert any("Content Security Policy" in json.dumps(each) for each in browser.told()[1])
