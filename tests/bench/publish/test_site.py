"""The site against the tables of synthetic studies: what it shows, what it links to, and what it leaves alone."""

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest

from bench.common import units
from bench.common.errors import UsageError
from bench.publish import site as module
from bench.publish.drawing import HEIGHT, LEAST, TOP, _steps, _thinned, axis_end, drawings, interval_bar
from bench.publish.site import write
from bench.report import sentences
from bench.report.figures.palette import styles
from bench.stats.comparisons import comparisons
from bench.stats.estimates import aggregate, ranks
from bench.stats.summary import summary
from bench.store.study_tables import read

HOSTILE = "</script><script>window.hurt=1</script><img src=x onerror=window.hurt=1>:'\"|x"
COSTS = {"wall_s": 2.0, "cpu_s": 3.0, "flops": 4e9, "decoder_passes": 5e5, "encoder_passes": 6e5}
ROLES = {"oracle": "ceiling", "untrained": "floor"}
LEVELS = {"mapa": -1.5, "vae": -1.7, "mapa[boxes=0]": -1.4, HOSTILE: -1.9, "oracle": -1.0}
DATASETS = ("circle", "torus")
COMMAND = "python -m bench publish DIR --out site"
COST_OF_PASSES = list(COSTS).index("decoder_passes")


def study_in(folder, levels=LEVELS, datasets=DATASETS, seeds=6, truth=-1.0, failed=(), **info):
    """A study whose runs end near the level of their method, a hundredth apart; runs of `failed` did not finish."""
    runs, looks = [], []
    for dataset in datasets:
        for place, (method, level) in enumerate(levels.items()):
            for seed in range(seeds):
                run = {"dataset": dataset, "method": method, "seed": seed}
                spent = {name: (method not in ROLES) * value * (place + 1) for name, value in COSTS.items()}
                ended = (dataset, method, seed) in failed
                about = {"status": "failed" if ended else "done", "message": f"it broke {HOSTILE}" if ended else ""}
                about |= {"role": ROLES.get(method, "method"), "notes": "", "peak_memory_mb": 1.0, "concurrent": False}
                runs.append({**run, **about, **spent, "key": f"{place}-{seed}", "n_train": info.get("n_train", 500)})
                for look in range(0 if ended else 3):
                    end = level + 0.01 * seed * (place + 1) - (2 - look)
                    values = {"test_ll": end, "elbo": end - 0.5} | (
                        {} if truth is None else {"oracle_gap": truth - end}
                    )
                    cost = {name: value * (look + 1) / 3 for name, value in spent.items()}
                    more = {"checkpoint": look, "stderr": 0.01, "unit": "nats", "concurrent": False, **cost}
                    looks += [{**run, "metric": name, "value": value, **more} for name, value in values.items()]
    folder.mkdir(exist_ok=True)
    pd.DataFrame(runs).to_parquet(folder / "runs.parquet")
    columns = ["dataset", "method", "seed", "checkpoint", "metric", "value", "stderr", "unit", "concurrent", *COSTS]
    pd.DataFrame(looks, columns=columns).to_parquet(folder / "measurements.parquet")
    settings = {"n_train": info.pop("n_train", 500)}
    about = {"schema": 3, "name": folder.name, "settings": settings, "provenance": {"torch": "2"}, **info}
    (folder / "study.json").write_text(json.dumps(about))
    return folder


class Page(HTMLParser):
    """What a browser would see: addresses, anchors, texts of elements by tag, and tables by their label."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.ids, self.text, self.open = [], [], [], "", None
        self.tables, self.label = {}, ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if tag == "a" else []
        self.loads += [given[name] for name in ("src", "href") if name in given and tag != "a"]
        if given.get("role") == "region":
            self.label = given["aria-label"]
        if tag == "tr":
            self.tables.setdefault(self.label, []).append([])
        if tag in ("td", "th"):
            self.tables[self.label][-1].append("")

    def handle_endtag(self, tag):
        if tag == "table":
            self.label = ""

    def handle_data(self, data):
        self.text += data
        rows = self.tables.get(self.label)
        if rows and rows[-1]:
            rows[-1][-1] += data.strip()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A site of one study in which a run failed, with the study."""
    folder = study_in(tmp_path_factory.mktemp("one") / "study", failed=[("torus", "vae", 5)])
    index = write([folder], folder.parent / "site", COMMAND)
    return SimpleNamespace(root=index.parent, study=read(folder), folder=folder)


@pytest.fixture(scope="module")
def little(tmp_path_factory):
    """The folder of a study of one run, whose site is written in a moment."""
    return study_in(tmp_path_factory.mktemp("little") / "study", {"vae": -1.0}, ("circle",), seeds=1)


def test_the_leaderboard_marks_what_was_borrowed(tmp_path):
    """Its seconds are those of another machine or day."""
    folder = study_in(tmp_path / "study", {"mapa": -1.5, "vae": -1.7})
    runs = pd.read_parquet(folder / "runs.parquet")
    runs.assign(source=np.where(runs["method"] == "vae", "the reference study", "")).to_parquet(folder / "runs.parquet")
    page = Page(write([folder], tmp_path / "site", COMMAND))
    assert {row[0] for row in page.tables["Leaderboard"][1:]} == {"mapa", "vae †"}
    assert "† Not run here, but borrowed from the reference study." in page.text


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A site of two studies by two authors, who disagree on the number of training points of a dataset."""
    top = tmp_path_factory.mktemp("two")
    ours = study_in(top / "anna", {"mapa": -1.5, "vae": -1.7})
    theirs = study_in(top / "bob", {"mapa": -1.6, "flow": -1.3}, ("circle", "mine"), n_train=1000)
    write([ours, theirs], top / "site", COMMAND)
    return top / "site"


def files(root):
    return {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}


def pages(root):
    return {name: Page(path) for name, path in files(root).items() if name.endswith(".html")}


def content(root):
    """The tables of the explorer by name."""
    text = (root / "explore.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="tables-data">(.*?)</script>', text, re.DOTALL)[1])
    return {each["name"]: each for each in data["tables"]}


@pytest.mark.parametrize("which", ["made", "two"])
def test_every_link_leads_somewhere_and_nothing_is_asked_for_elsewhere(which, request):
    root = request.getfixturevalue(which)
    root = root.root if which == "made" else root
    found = pages(root)
    for name, page in found.items():
        assert len(page.ids) == len(set(page.ids)), name
        for load in page.loads:
            assert load == "data:," or (root / name).parent.joinpath(load).resolve() in (
                root.resolve() / "site.css", root.resolve() / "site.js")  # fmt: skip
        for link in page.links:
            path, _, anchor = link.partition("#")
            target = ((root / name).parent / unquote(path)).resolve().relative_to(root.resolve()) if path else name
            assert str(target) in found, (name, link)
            assert "=" in anchor or not anchor or anchor in found[str(target)].ids, (name, link)
    css = (root / "site.css").read_text()
    assert "url(" not in css
    assert "@import" not in css


def test_each_method_and_problem_has_a_page(made, two):
    assert {"methods/mapa.html", "methods/mapa-boxes-0.html", "problems/circle.html", "problems/torus.html"} < set(
        files(made.root)
    )
    assert len([name for name in files(made.root) if name.startswith("methods/")]) == len(LEVELS)
    assert {name for name in files(two) if name.startswith("problems/")} == {
        f"problems/{name}.html" for name in ("circle", "torus", "mine")
    }


def test_the_leaderboard_shows_what_python_computes(made):
    study, rows = made.study, Page(made.root / "index.html").tables["Leaderboard"]
    means = aggregate(study.measurements, study.runs).set_index("method")
    placed = ranks(study.measurements, study.runs).set_index("method")
    found = {each.other: each for each in comparisons(study.measurements, study.runs, study.baseline, study.margin)}
    assert [row[0] for row in rows[1:]] == list(means.sort_values("mean").index)
    for method, gap, _, rank, against, match, flops, _, done in rows[1:]:
        assert gap == units.number(means.loc[method, "mean"]) or means.loc[method, "missing"]
        assert rank.startswith(units.number(placed.loc[method, "rank"], 2))
        assert done == f"{means.loc[method, 'runs'] - means.loc[method, 'missing']}/{means.loc[method, 'runs']}"
        if method in found:
            words = [sentences.verdict_of(each) for each in found[method].differences]
            shown = {word: int(n) for word, n in re.findall(r"([a-z ]+)(\d+)", against)}
            assert shown == {word: words.count(word) for word in words}
            assert match.startswith(units.ratio(found[method].match.flops))
        assert flops == units.flops(4e9 * (list(LEVELS).index(method) + 1))


def test_every_number_of_the_pages_and_of_the_explorer_is_that_of_the_summary(made):
    table = summary(made.study.measurements, made.study.runs).set_index(["dataset", "method"])
    _, *rows = Page(made.root / "index.html").tables["Every method on every problem"]
    for row in rows:
        for dataset, text in zip(("circle", "torus"), row[1:], strict=True):
            assert text.startswith(units.number(table.loc[(dataset, row[0]), "oracle_gap_median"]))
    results = content(made.root)["results"]
    names = [column[0] for column in results["columns"]]
    for dataset, method, *cells in results["rows"]:
        texts = dict(zip(names, [cell if isinstance(cell, str) else cell[0] for cell in cells], strict=True))
        row = table.loc[(dataset, method)]
        assert texts["test log-likelihood"] == units.number(row["test_ll_median"])
        assert texts["oracle gap"] == units.number(row["oracle_gap_median"])
        assert texts["FLOPs"] == units.quantity("flops", row["flops"])
        assert texts["wall time"] == units.quantity("wall_s", row["wall_s"])
    (torus,) = [rows for label, rows in pages(made.root)["problems/torus.html"].tables.items() if "ended" in label]
    assert [row[0] for row in torus[1:]] == ["mapa[boxes=0]", "mapa", "vae", HOSTILE, "oracle"]
    for row in torus[1:]:
        assert row[2].startswith(units.number(table.loc[("torus", row[0]), "test_ll_median"]))


def test_comparisons_are_those_of_the_report(made):
    study = made.study
    expected = {
        (each.baseline, each.other, difference.dataset): difference
        for each in comparisons(study.measurements, study.runs, study.baseline, study.margin)
        for difference in each.differences
    }
    shown = content(made.root)["comparisons"]
    assert len(shown["rows"]) == len(expected)
    for dataset, other, _, _, difference, verdict, *_ in shown["rows"]:
        own = expected["mapa", other, dataset]
        assert difference == units.with_interval(own.nats, own.interval)
        assert (verdict if isinstance(verdict, str) else verdict[0]) == sentences.verdict_of(own)


def test_losses_are_said_first(made):
    study = made.study
    found = comparisons(study.measurements, study.runs, study.baseline, study.margin)
    told = sentences.overview(found, [])[0]
    assert "is worse in 2, better in" in told
    text = " ".join(Page(made.root / "index.html").text.split())
    assert text.index(" ".join(told.split())) < text.index("Leaderboard Search") < text.index("Every method")


def test_no_name_becomes_markup(made):
    for name, path in files(made.root).items():
        if name.endswith(".html"):
            text = path.read_text(encoding="utf-8")
            assert "<img" not in text, name
            assert "<script>" not in text, name
    assert HOSTILE in Page(made.root / "index.html").text


def test_failures_have_their_reasons_everywhere(made):
    found = pages(made.root)
    reason = " ".join(f"it broke {HOSTILE}".split())
    for name in ("failures.html", "methods/vae.html", "problems/torus.html"):
        assert reason in " ".join(found[name].text.split()), name
    assert "it broke" not in found["methods/mapa.html"].text
    assert "1 of 60 runs did not finish: 1 failed." in found["index.html"].text
    assert "failures.html" in found["index.html"].links


def test_what_differs_between_studies_is_named_where_it_matters(two):
    found = {name: " ".join(page.text.split()) for name, page in pages(two).items()}
    differing = Page(two / "studies.html").tables
    assert ["n train", "500", "1000"] in next(iter(differing.values()))
    for name in ("studies.html", "problems/circle.html"):
        assert re.search(r"n_train is 500 in \S*anna and 1000 in \S*bob\.", found[name])
    assert "n_train is" not in found["problems/mine.html"]
    for label in ("circle @ anna", "circle @ bob"):
        assert label in found["problems/circle.html"]
    head = [column[0] for column in content(two)["results"]["columns"]]
    studies = {(row[0], row[1]): row[2 + head.index("study")][0] for row in content(two)["results"]["rows"]}
    assert studies["circle @ bob", "mapa"] == "bob"
    assert studies["torus", "mapa"] == "anna"
    rows = Page(two / "index.html").tables["Leaderboard"]
    assert {row[0]: row[1] for row in rows[1:]}["vae"] == "–not on every problem"


SHAPES = {
    "one seed and dataset": {"levels": {"mapa": -1.0, "vae": -2.0}, "datasets": ("circle",), "seeds": 1},
    "one method": {"levels": {"mapa": -1.0}},
    "only a ceiling": {"levels": {"oracle": -1.0}},
    "own data without a true model": {"levels": {"mapa": -1.5, "vae": -1.7}, "datasets": ("data.csv",), "truth": None},
    "nothing finished": {
        "levels": {"mapa": -1.0, "vae": -2.0}, "datasets": ("circle",), "seeds": 1,
        "failed": [("circle", "mapa", 0), ("circle", "vae", 0)],
    },
    "forty methods": {"levels": {f"m[a={k}]": -1 - 0.1 * k for k in range(40)}, "datasets": ("circle",), "seeds": 1},
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_any_study_makes_a_site(shape, tmp_path):
    folder = study_in(tmp_path / "study", **SHAPES[shape])
    root = write([folder], tmp_path / "site", COMMAND).parent
    front = Page(root / "index.html")
    assert "nan" not in re.findall(r"\bnan\b", front.text)
    assert len([name for name in files(root) if name.startswith("methods/")]) == len(SHAPES[shape]["levels"])
    if shape == "own data without a true model":
        assert "oracle gap" not in front.text.replace("Oracle gap: nats", "").lower()
        assert front.tables["Every method on every problem"][1][:2] == ["mapa", "-1.475[-1.495, -1.450]"]


# What is written, and what is left alone


def test_an_earlier_site_is_replaced_and_other_files_stay(little, tmp_path):
    out = tmp_path / "site"
    write([study_in(tmp_path / "a", {"mapa": -1.0}, ("torus",), seeds=1)], out, COMMAND)
    (out / "CNAME").write_text("example.org")
    write([little], out, COMMAND)
    assert {name for name in files(out) if "/" in name} == {"methods/vae.html", "problems/circle.html"}
    assert (out / "CNAME").read_text() == "example.org"
    assert set(json.loads((out / "site.json").read_text())["files"]) == set(files(out)) - {"CNAME", "site.json"}


def test_the_same_tables_make_the_same_bytes(made, tmp_path, tree):
    write([made.folder], tmp_path / "again", COMMAND)
    assert tree(tmp_path / "again") == tree(made.root)


def test_a_site_that_is_cut_short_can_be_written_again(little, tmp_path, monkeypatch):
    out, plain = tmp_path / "site", module.atomic_write

    def failing(path, text):
        if path.name == "index.html":
            raise OSError(28, "No space left on device")
        plain(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(module, "atomic_write", failing)
        with pytest.raises(OSError, match="No space"):
            write([little], out, COMMAND)
    assert not (out / "index.html").exists()
    assert write([little], out, COMMAND).is_file()


def test_what_is_not_its_own_is_not_overwritten(little, tmp_path, unchanged):
    thesis, site = tmp_path / "thesis", tmp_path / "site"
    thesis.mkdir()
    (thesis / "index.html").write_text("mine")
    with unchanged(thesis), pytest.raises(UsageError, match="is not empty and holds no site"):
        write([little], thesis, COMMAND)
    write([little], site, COMMAND)
    other = study_in(tmp_path / "other", {"mapa": -1.0}, ("torus",), seeds=1)
    (site / "methods" / "mapa.html").write_text("mine")
    with unchanged(site), pytest.raises(UsageError, match=r"mapa.html is there already"):
        write([other], site, COMMAND)
    (site / "methods" / "mapa.html").unlink()
    (site / "problems" / "torus.html").symlink_to(thesis / "index.html")
    with unchanged(thesis), pytest.raises(UsageError, match="is a symbolic link"):
        write([other], site, COMMAND)
    listed = json.loads((site / "site.json").read_text()) | {"files": ["../thesis/index.html"]}
    (site / "problems" / "torus.html").unlink()
    (site / "site.json").write_text(json.dumps(listed))
    with unchanged(thesis), pytest.raises(UsageError, match="is outside the site"):
        write([little], site, COMMAND)


@pytest.mark.parametrize("case", ["missing", "empty", "damaged", "study", "file"])
def test_a_bad_folder_is_one_line_and_exit_code_2(case, little, tmp_path, cli):
    folder, out = tmp_path / "study", tmp_path / "site"
    if case in ("empty", "damaged"):
        folder.mkdir()
    if case == "damaged":
        (folder / "study.json").write_text("{")
    if case in ("study", "file"):
        folder = little
    out = little if case == "study" else out
    if case == "file":
        out.write_text("mine")
    found = cli("publish", folder, "--out", out)
    assert found.code == 2
    assert len(found.err.splitlines()) == 1
    assert found.err.startswith("error: ")
    assert str(out if case == "file" else folder) in found.err
    assert case in ("file", "study") or not out.exists()


def test_the_command_writes_and_says_where(little, tmp_path, cli, unchanged):
    found = cli("publish", little, "--out", tmp_path / "site")
    assert (found.code, found.out) == (0, f"Site:  {tmp_path}/site/index.html\n")
    note = "Of <ten> [fresh seeds](fresh/a.html)"
    assert cli("publish", little, "--out", tmp_path / "site", "--note", note, "--quiet").out == ""
    expected = '<p class="lead">Of &lt;ten&gt; <a href="fresh/a.html">fresh seeds</a></p>'
    with unchanged(tmp_path):
        refused = cli("publish", little, "--out", tmp_path / "site", "--note", "[not](javascript:this)")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--note has a link that is neither [TEXT](https://...) nor [TEXT](FILE)" in refused.err
    assert expected in (tmp_path / "site/index.html").read_text()
    told = cli("publish", "--help").out
    assert "python -m bench publish results/compare --out site" in told


# Drawings


def test_a_path_of_moves_passes_through_the_steps():
    x, y = [3, 5, 5, 9, 12], [7, 7, 4, 6, 6]
    at, corners = [x[0], y[0]], [(x[0], y[0])]
    for name, length in re.findall(r"([hv])(-?\d+)", _steps(x, y)):
        at["hv".index(name)] += int(length)
        corners.append(tuple(at))
    assert corners == [(3, 7), (5, 7), (5, 4), (9, 4), (9, 6), (12, 6)]
    assert _steps(x[::-1], y[::-1], backwards=True) == "h-3v-2h-4v3h-2"


def test_heights_are_thinned_by_less_than_a_visible_step():
    y = np.random.default_rng(0).integers(0, 30, 200)
    thin = _thinned(y)
    assert np.abs(np.array(thin) - y).max() < LEAST
    assert (thin[0], thin[-1]) == (y[0], y[-1])


@pytest.mark.parametrize("metric", ["oracle_gap", "test_ll"])
def test_each_cost_has_a_drawing_in_which_the_better_end_is_further_on(made, metric):
    rows = made.study.measurements
    rows = rows[(rows["dataset"] == "circle") & rows["metric"].isin([metric])]
    known = styles(made.study.roles)
    found = drawings(rows, known, -1.0, "circle")
    assert [each.cost.name for each in found] == list(COSTS)
    for each in found:
        ends = {mark: float(y) for mark, y in re.findall(r'class="(m\d)">.*?class="end" d="M\d+ (\d+)', each.svg)}
        height = [ends[known[name].mark] for name in ("mapa[boxes=0]", "mapa", "vae", HOSTILE)]
        order = sorted(height, reverse=metric == "oracle_gap")
        assert height == order
        assert len(set(height)) == 4
        assert all(0 <= y <= HEIGHT for y in height)


def test_markers_stand_where_the_ticks_say(made):
    """Both axes are logarithmic: the end of each method read off the ticks is its final gap and its total cost."""
    rows = made.study.measurements
    rows = rows[(rows["dataset"] == "circle") & (rows["metric"] == "oracle_gap")]
    svg = drawings(rows, styles(made.study.roles), -1.0, "circle")[COST_OF_PASSES].svg
    table = summary(made.study.measurements, made.study.runs).set_index(["dataset", "method"]).loc["circle"]
    across, up = (
        np.array([(float(text.replace(" k", "e3").replace(" M", "e6")), float(at)) for at, text in found])
        for found in (
            re.findall(r'<text x="(\d+)" y="389">([\d.]+(?: [kM])?)</text>', svg),
            [(float(y) - 4, text) for y, text in re.findall(r'<text x="58" y="(\d+)">([\d.]+)</text>', svg)],
        )
    )
    for place, method in enumerate(("mapa", "vae", "mapa[boxes=0]")):
        x, y = map(float, re.search(rf'class="m{place}">.*?class="end" d="M(\d+) (\d+)m', svg).groups())
        for ticks, at, value in ((across, x, "decoder_passes"), (up, y, "oracle_gap_median")):
            line = np.polyfit(ticks[:, 1], np.log10(ticks[:, 0]), 1)
            assert np.polyval(line, at) == pytest.approx(np.log10(table.loc[method, value]), abs=2 * abs(line[0]))


def test_values_that_are_no_numbers_are_drawn_at_the_worse_edge(made):
    rows = made.study.measurements
    rows = rows[(rows["dataset"] == "circle") & (rows["metric"] == "oracle_gap")].copy()
    rows.loc[rows["method"] == "vae", "value"] = np.nan
    (svg,) = [
        each.svg for each in drawings(rows, styles(made.study.roles), -1.0, "circle") if each.cost.name == "flops"
    ]
    assert "nan" not in svg
    assert re.search(r'class="m1">.*?class="end" d="M\d+ ' + f"{TOP}m", svg)


# In a browser


@pytest.fixture
def page(browser, made):
    """A function that opens a page; in the end nothing may have been asked for elsewhere, nor stand in the console."""
    browser.call("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)
    seen = []

    def open_(address):
        seen.extend([browser.told()] if browser.events else [])
        path, _, rest = address.partition("#")
        browser.open((made.root / path).as_uri() + (f"#{rest}" if rest else ""))
        return browser

    browser.events.clear()
    yield open_
    for asked, console in [*seen, browser.told()]:
        known = ("data:", "about:", made.root.as_uri())
        assert [each for each in asked if not each.startswith(known)] == []
        assert console == []


SHOWN = ".explorer tbody tr"


def test_the_explorer_sorts_filters_and_its_address_keeps_the_view(page):
    browser = page("explore.html")
    assert browser.texts(".explorer output") == ["10 of 10 rows"]
    heads = "[...document.querySelectorAll('.explorer thead button')]"
    for _ in range(2):
        browser.run(f"{heads}.find((each) => each.innerText.includes('test log')).focus()")
        browser.press("Enter", "\r")
    browser.run("document.querySelector('.explorer form [name=dataset]').value = 'torus'")
    browser.run("document.querySelector('.explorer form').dispatchEvent(new Event('input', {bubbles: true}))")
    browser.run("document.querySelector('.columns-of').open = true; document.querySelector('[name=ELBO]').click()")
    view = {"heads": browser.texts(".explorer thead th"), "rows": browser.texts(".explorer tbody th")}
    assert view["rows"] == ["oracle", "mapa[boxes=0]", "mapa", "vae", HOSTILE]
    assert "ELBO\nnats" not in [text.replace("↕\u00a0", "") for text in view["heads"]]
    link = browser.run("location.hash")
    assert "sort=-test+log-likelihood" in link
    again = page(f"explore.html{link}")
    assert again.texts(".explorer tbody th") == view["rows"]
    assert again.texts(".explorer thead th") == view["heads"]
    assert again.run("location.hash") == link
    other = page("explore.html#table=comparisons&method=vae&text=nothing+like+it")
    assert other.texts(".explorer output") == ["0 of 6 rows"]


def test_the_cost_of_curves_is_chosen_and_methods_are_highlighted_by_an_address(page):
    browser = page("problems/circle.html")
    assert browser.run("[...document.querySelectorAll('.panel figure')].filter((e) => e.checkVisibility()).length") == 1
    assert browser.run("document.querySelector('.axis-flops').checkVisibility()")
    browser.run("document.querySelector('.axes [value=wall_s]').click()")
    browser.run("document.querySelector('.legend [data-method=\"mapa[boxes=0]\"]').click()")
    assert browser.run("document.querySelector('.axis-wall_s').checkVisibility()")
    link = browser.run("location.hash")
    again = page(f"problems/circle.html{link}")
    assert again.run("document.querySelector('.axis-wall_s').checkVisibility()")
    assert again.texts('.legend [aria-pressed="true"]') == ["mapa[boxes=0]\n0.325"]
    assert again.run("document.querySelectorAll('.axis-wall_s g.dim').length") == 3


def test_a_method_leads_to_its_curves(page):
    browser = page("methods/vae.html")
    browser.run("document.querySelector('.links a[href*=\"torus.html#methods\"]').click()")
    browser.until("location.pathname.endsWith('torus.html') && document.readyState === 'complete'")
    assert browser.texts('.legend [aria-pressed="true"]')[0].startswith("vae")


PAGES = ("index.html", "explore.html", "costs.html", "problems/circle.html", "methods/mapa.html", "studies.html")


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_is_not_exceeded_and_everything_has_a_name(page, name):
    browser = page(name)
    browser.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    unnamed = (
        "[...document.querySelectorAll('.scroll, form, nav, input, select, button, svg, fieldset, a')].filter((e) =>"
        " !e.ariaLabel && !e.closest('label, [aria-hidden]') && !e.innerText && !e.querySelector('legend') &&"
        " e.checkVisibility()).map((e) => e.outerHTML)"
    )
    assert browser.run(unnamed) == []
    assert browser.run("document.querySelectorAll('h1').length") == 1
    levels = browser.run("[...document.querySelectorAll('h1, h2, h3')].map((e) => Number(e.tagName[1]))")
    assert all(after - before <= 1 for before, after in pairwise(levels))


def contrast(one, other):
    """The contrast of two colours by WCAG 2.1."""
    light = []
    for text in (one, other):
        channels = [int(value) / 255 for value in re.findall(r"\d+", text)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        light.append(sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True)) + 0.05)
    return max(light) / min(light)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_have_enough_contrast(page, scheme):
    browser = page("index.html")
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    ground = "getComputedStyle(document.body).backgroundColor"
    looks = {
        selector: browser.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); const s = getComputedStyle(e);"
            f" return [s.color, s.backgroundColor === 'rgba(0, 0, 0, 0)' ? {ground} : s.backgroundColor]; }})()"
        )
        for selector in (
            "p.lead",
            ".muted",
            ".chip.better",
            ".chip.undecided, .chip.worse",
            "nav a",
            "td small",
            "td a",
        )
    }
    browser.call("Emulation.setEmulatedMedia", features=[])
    assert {selector: pair for selector, pair in looks.items() if contrast(*pair) < 4.5} == {}
    dark = contrast(looks["p.lead"][1], "rgb(0, 0, 0)") < 2
    assert dark == (scheme == "dark")


def test_in_print_every_cost_is_shown_and_nothing_is_left_to_act_on(page):
    browser = page("problems/circle.html")
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.run("[...document.querySelectorAll('.panel figure')].every((each) => each.checkVisibility())")
    assert browser.texts(".axes, body > nav, .filters, .links") == []
    assert browser.texts(".panel .legend") != []
    browser.call("Emulation.setEmulatedMedia", media="")


def test_pages_are_complete_without_a_program(browser, made):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open((made.root / "problems/circle.html").as_uri())
        assert browser.texts(".filters, .columns-of") == []
        assert len(browser.texts("#answers tbody tr")) == len(LEVELS)
        assert len(browser.texts(".panel figure")) == 1
        browser.open((made.root / "explore.html").as_uri())
        assert "needs JavaScript" in browser.texts("noscript, main")[0]
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("means", "highs", "end"),
    [
        ([0.1, 0.2, 0.3], [0.2, 0.5, 0.4], 0.5),
        ([0.1, 0.2, 0.3, 9.0], [0.2, 0.5, 0.4, 12.0], 0.5),  # 9 is beyond four medians of .25
        ([0.1, 0.2, 0.3], [NAN, INF, 0.4], 0.4),
        ([NAN, INF], [NAN, NAN], 0.0),
        ([], [], 0.0),
        ([0.2], [NAN], 0.2),
    ],
)
def test_an_axis_of_intervals_leaves_out_what_is_far_from_the_others(means, highs, end):
    assert axis_end(means, highs) == end


def test_a_value_beyond_the_axis_is_an_arrowhead_at_its_end():
    assert "<circle" in interval_bar(0.1, 0.2, 0.3, 0.5)
    beyond = interval_bar(4.0, 5.0, 6.0, 0.5)
    assert "<circle" not in beyond
    assert 'M158 7H158" class="range"' in beyond
    assert "M152 3l7 4-7 4z" in beyond
