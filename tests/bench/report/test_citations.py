"""References: each built-in method, dataset and measure has its own, which says what the code states of its source."""

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from pybtex.database import parse_file

import datasets
import methods
from bench.report.citations import KINDS, SUMMARIES, cited, known, write
from bench.store.schema import METRICS, PAIRED
from bench.store.study_tables import Study

ARXIV = re.compile(r"\d{4}\.\d{5}|(?<=arXiv )\d{4}\.\d{4}")
SOURCES = {
    "methods": {name: entry.source for name, entry in methods.BUILTIN.items()},
    "datasets": {name: entry.source for name, entry in datasets.BUILTIN.items()},
    "measures": {metric.name: metric.source for metric in METRICS},
}
OURS = "mapabench"


def study_of(methods=(), datasets=(), metrics=(), folder=Path("study"), info=None):
    pairs = [(d, m) for d in datasets or ("circle",) for m in methods or ("vae",)]
    runs = pd.DataFrame(pairs, columns=["dataset", "method"]).assign(role="method")
    return Study(folder, pd.DataFrame({"metric": metrics or ["test_ll"]}), runs, *[pd.DataFrame()] * 5, info or {})


def test_every_entry_has_a_title_an_author_and_something_that_it_is_cited_for():
    assert len(known()) > 20
    for entry in known():
        assert entry.authors
        assert "title" in entry.fields
        assert set(entry.fields) & set(KINDS)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in SOURCES[kind]])
def test_each_has_an_entry_with_the_number_that_its_source_states(kind, name):
    found = [entry.fields for entry in known() if name in entry.fields.get(kind, "").split(", ")]
    stated = set(ARXIV.findall(SOURCES[kind][name]))
    numbers = {fields["eprint"] for fields in found if "eprint" in fields}
    assert stated <= numbers
    if kind != "measures":
        assert found
        assert numbers == stated or "our own addition to mapa" in SOURCES[kind][name]


SHORT = re.compile(r"([A-Z]\w+)(?: et al\.| & ([A-Z]\w+))? (\d{4})")  # 'Cremer et al. 2018', 'Peyré & Cuturi 2019'


@pytest.mark.parametrize("definition", [*METRICS, *PAIRED], ids=lambda definition: definition.name)
def test_the_papers_that_a_definition_names_are_in_the_bibliography(definition):
    for first, second, year in SHORT.findall(definition.source):
        (entry,) = [
            entry
            for entry in known()
            if entry.fields.get("year") == year
            and entry.authors[0].last_names == [first]
            and definition.name in entry.fields.get("measures", "").split(", ")
        ]
        assert not second or entry.authors[1].last_names == [second]


def test_what_is_named_is_there():
    for entry in known():
        for kind in KINDS:
            named = {name for name in entry.fields.get(kind, "").split(", ") if name}
            assert named <= {*SOURCES[kind], *SUMMARIES}


def test_what_no_paper_describes_is_said_to_be_ours():
    (ours,) = [entry for entry in known() if entry.key == OURS]
    assert ours.fields["note"].startswith("Our own")
    for kind in ("methods", "datasets"):
        for name in ours.fields[kind].split(", "):
            assert re.search(r"^our own|^ceiling|^floor|folklore", SOURCES[kind][name])


def test_a_study_cites_what_it_used_and_no_more():
    found = {
        entry.key: entry.cited_for for entry in cited(study_of(["vae[steps=8]"], ["circle @ a", "circle[n_train=9]"]))
    }
    assert found == {
        "kingma2014auto": ("vae",),
        "yacoby2020failure": ("circle",),
        "wu2017quantitative": ("test_ll",),
        "efron1993introduction": ("difference",),
        "westfall1993resampling": ("verdict",),
        "cui2005improved": ("verdict",),
        "schuirmann1987comparison": ("verdict",),
        "kaplan1958nonparametric": ("cost_to_target",),
        "dolan2002benchmarking": ("ranking",),
        "agarwal2021deep": ("ranking",),
    }


def test_a_third_party_is_cited_by_what_it_states():
    told = {"mine": {"summary": "a {new} method, 5 % better", "source": "plugin my_file.py"}}
    info = {"methods": told, "datasets": {"mine[a=1]": {"source": None}}}
    study = study_of(["Mine", "mine"], ["mine"], info=info)
    found = {entry.key: entry for entry in cited(study) if entry.kind == "misc" and entry.key.startswith(("me", "da"))}
    assert list(found) == ["method-mine", "method-mine-2", "dataset-mine"]
    assert found["method-mine-2"].fields == {
        "title": r"{mine: a \textbraceleft{}new\textbraceright{} method, 5 \% better}",
        "note": r"plugin my\_file.py",
    }
    assert found["dataset-mine"].fields["note"] == "no source is stated"


def test_an_entry_is_told_to_readers():
    told = {entry.key: entry.text for entry in known()}
    assert told["li2016renyi"] == (
        "Yingzhen Li, Richard E. Turner (2016). Rényi Divergence Variational Inference. "
        "Advances in Neural Information Processing Systems. arXiv 1602.02311."
    )
    assert told["efron1993introduction"].endswith("An Introduction to the Bootstrap. Chapman & Hall.")
    assert told[OURS].startswith("The mapa-bench authors. mapa-bench: which inference scheme")


def everything(folder):
    """A study of all that is built in, and of a third party's."""
    names = {kind: [*each, "a_b%{"] for kind, each in SOURCES.items()}
    return study_of(names["methods"], names["datasets"], names["measures"], folder)


def test_what_is_written_is_read_as_it_was_meant(tmp_path):
    write(everything(tmp_path))
    written = parse_file(str(tmp_path / "references.bib"), "bibtex").entries
    found = {key: dict(entry.fields) for key, entry in written.items()}
    used = {entry.key for entry in known() if {"methods", "datasets"} & set(entry.fields)}
    assert [str(person) for person in written["kingma2014auto"].persons["author"]] == [
        "Kingma, Diederik P.",
        "Welling, Max",
    ]
    assert used | {"method-a-b", "dataset-a-b", "cremer2018inference"} <= set(found)
    assert found["kingma2014auto"]["keywords"] == "vae, elbo"
    assert not any(set(fields) & set(KINDS) for fields in found.values())


@pytest.mark.skipif(shutil.which("bibtex") is None, reason="no BibTeX is installed here")
def test_bibtex_and_latex_take_it(tmp_path):
    write(everything(tmp_path))
    document = r"""\documentclass{article}\usepackage[utf8]{inputenc}
    \begin{document}\nocite{*}\bibliographystyle{plain}\bibliography{references}\end{document}"""
    (tmp_path / "paper.tex").write_text(document)
    latex = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    for command in (latex, ["bibtex", "paper"], latex):
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
        assert run.returncode == 0, run.stdout[-1500:]
    assert "error" not in (tmp_path / "paper.blg").read_text().lower()
