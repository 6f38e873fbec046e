"""What plugins and study files name cannot do: break a page, leave the folder, or run as code when results are read."""

import json
import pickle
import re
from collections import defaultdict
from pathlib import Path

import msgspec
import pytest
from markdown_it import MarkdownIt

import bench
from bench.report.page import markdown, write
from bench.store import files, schema, tables
from bench.store.records import Cost, Row, RunResult, RunSpec
from bench.study import status
from bench.study.merge import merge

ROOT = Path(__file__).parents[3]
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a | b",
    "`code` ``` ~~~",
    "two\n\n# lines\n| a | b |",
    "[x](javascript:alert(1)) ![y](http://example.org/y.png)",
    "../../../outside",
    "/tmp/outside",
    "..\\outside",
    "$\\frac{$ **bold** _it_",
    "{{ 7 * 7 }} {% raw %}",
    "&lt;b&gt; \\| \\",
    "[/red] [link=x]",
]


@pytest.fixture(scope="module")
def report(tmp_path_factory, hostile_study):
    """A folder with the report of a study in which every name, message and summary is hostile; what lies around it."""
    around = tmp_path_factory.mktemp("around")
    hostile_study(around / "study")
    write(around / "study")
    return around


@pytest.fixture(scope="module")
def hostile_study():
    def make(folder):
        (folder / "runs").mkdir(parents=True)
        pairs = [(HOSTILE[0], text) for text in HOSTILE] + [(text, "vae") for text in HOSTILE[6:10]]
        results = []
        for dataset, method in pairs:
            spec = RunSpec(dataset=dataset, method=method, seed=0, n_train=40, n_test=50)
            rows = [Row(n, m, -1.0, 0.1, "nats", Cost(n + 1, 1, 9)) for n in (0, 1) for m in ("test_ll", "oracle_gap")]
            results.append(RunResult(spec, rows=rows, cost=Cost(2, 1, 9), message=method, notes=method))
            failed = msgspec.structs.replace(spec, seed=1)
            results.append(RunResult(failed, status="failed", message=method))
        tables.write_tables(folder, results)
        described = {
            text: {"summary": text, "source": text, "role": "method", "colour_group": text} for text in HOSTILE
        }
        info = {"schema": schema.SCHEMA, "name": HOSTILE[0], "command": HOSTILE[4], "settings": {}, "tuned": None,
                "provenance": dict(enumerate(HOSTILE)), "datasets": described, "methods": described}  # fmt: skip
        files.write_json(folder / "study.json", info)

    return make


def test_no_file_leaves_the_folder(report):
    paths = [path.relative_to(report).parts for path in report.rglob("*")]
    assert {parts[0] for parts in paths} == {"study"}
    figures = [parts[-1] for parts in paths if "figures" in parts and len(parts) == 3]
    assert len(figures) > 5
    assert all(re.fullmatch(r"[a-z0-9-]+\.svg", name) for name in figures)


def test_no_name_is_html_in_the_page(report):
    html = (report / "study" / "report.html").read_text()
    own = r'<script type="application/json" id="rows-data">[^<]*</script>\n<script>(?!alert)'
    assert len(re.findall(own, html)) == 1
    others = re.sub(own, "", re.sub(r"base64,[^\"]*", "", html))
    assert not re.search(r"<script|<img src=x|<b>|href=.javascript|src=.http", others)
    assert "{{ 7 * 7 }} {% raw %}" in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 5


def test_no_name_is_markup_in_the_markdown(report):
    text = (report / "study" / "report.md").read_text()
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    tokens = [inner for token in parser.parse(text) for inner in (token, *(token.children or ()))]
    kinds = {token.type for token in tokens}
    assert not kinds & {"html_inline", "html_block", "em_open", "code_fence", "fence"}
    links = {token.attrs["href"] for token in tokens if token.type == "link_open"}
    images = {token.attrs["src"] for token in tokens if token.type == "image"}
    assert links <= {"#what-did-not-finish"}
    assert all(re.fullmatch(r"figures/[a-z0-9-]+\.svg", source) for source in images)
    headings = [token for token in tokens if token.type == "heading_open" and token.tag == "h1"]
    assert len(headings) == 1


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_shown_literally_by_markdown(text):
    (paragraph,) = (t for t in MarkdownIt("commonmark").parse(f"x {markdown(text)}") if t.type == "inline")
    assert {child.type for child in paragraph.children} <= {"text", "text_special"}
    assert "".join(child.content for child in paragraph.children) == f"x {' '.join(text.split())}"


@pytest.mark.parametrize("text", ["[/red]", "[link=x]y[/link]", "<script>", "[bold]"])
def test_a_summary_is_listed_as_it_is(cli, tmp_path, text):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom methods.contract.method import Method\n"
        f"@dataclass(frozen=True)\nclass Mine(Method):\n    '''{text}'''\n"
        "    def fit(self, task): yield\nMETHODS = {'mine': Mine}\n"
    )
    end = cli("list", "methods", "--plugin", tmp_path / "mine.py")
    assert end.code == 0
    assert text in end.out
    end = cli("list", "mine", "--plugin", tmp_path / "mine.py")
    assert end.code == 0
    assert text in end.out


@pytest.mark.parametrize("package", ["bench", "methods", "datasets"])
def test_no_source_can_unpickle(package):
    unsafe = (
        r"\b(un)?pickle\w*\.|import (cloud)?pickle|read_pickle|torch\.load|joblib\.load|\bshelve\b|\bmarshal\b|\bdill\b"
    )
    loads = r"\bnp\.load\((?![^)]*allow_pickle=False)"
    for path in (ROOT / package).rglob("*.py"):
        assert not re.search(f"{unsafe}|{loads}", path.read_text()), path


def test_reading_results_unpickles_nothing(tmp_path, invented, monkeypatch):
    small = {"seeds": 1, "n_train": 40, "n_test": 50}
    bench.compare(methods="vae", datasets="circle", **small, out=tmp_path / "out", report=False)
    (tmp_path / "out" / "runs" / "evil.pkl").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")

    def refuse(*args, **kwargs):
        raise AssertionError("unpickled")

    monkeypatch.setattr("bench.report.page.gallery", lambda *_: defaultdict(list))  # figures read nothing themselves
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    status.read(tmp_path / "out")
    merge([tmp_path / "out"], tmp_path / "merged", "merge")
    write(tmp_path / "out")
    assert json.loads((tmp_path / "merged" / "study.json").read_text())["sources"]
