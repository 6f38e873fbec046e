"""The reference study that is kept with the code, and what the README says that it found."""

import json
import re
from pathlib import Path

import pytest

from bench.common.units import interval, number
from bench.report.sentences import matching
from bench.stats.comparisons import comparisons
from bench.stats.estimates import aggregate, ranks
from bench.stats.paired import BETTER, INDISTINGUISHABLE, WORSE
from bench.store.study_tables import read
from bench.study import file

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "results" / "reference" / "study"
LIMIT = 2_000_000


@pytest.fixture(scope="module")
def study():
    return read(FOLDER)


@pytest.fixture(scope="module")
def found(study):
    return comparisons(study.measurements, study.runs, study.baseline)


def standing(study):
    """Ranks and gaps over all problems, as a table of Markdown."""
    tables = study.measurements, study.runs
    means = aggregate(*tables).set_index("method")
    rows = ["| method | mean rank | oracle gap (nats), interquartile mean |", "|---|---:|---:|"]
    for row in ranks(*tables).to_dict("records"):
        mean = means.loc[row["method"]]
        rank = f"{number(row['rank'], 2)} {interval(row['low'], row['high'], 2)}"
        rows.append(f"| {row['method']} | {rank} | {number(mean['iqm'])} {interval(mean['low'], mean['high'])} |")
    return "\n".join(rows)


def verdicts(found):
    """On how many problems MAPA is better, indistinguishable or worse, as a table of Markdown."""
    subjects = list(dict.fromkeys(each.baseline for each in found))
    rows = ["| against | " + " | ".join(f"{name}: better / indistinguishable / worse" for name in subjects) + " |"]
    rows.append("|---|" + "---|" * len(subjects))
    for rival in dict.fromkeys(each.other for each in found):
        runs = []
        for each in (each for each in found if each.other == rival):
            counts = " / ".join(str(len(each.having(verdict))) for verdict in (BETTER, INDISTINGUISHABLE, WORSE))
            worse = ", ".join(f"{m.dataset} {m.nats:+.3f}" for m in each.having(WORSE))
            runs.append(counts + (f" ({worse})" if worse else ""))
        rows.append(f"| {rival} | {' | '.join(runs)} |")
    return "\n".join(rows)


def matches(found):
    """What MAPA spends to match each baseline, as a list of Markdown."""
    return "\n".join(
        f"- {matching(each, each.baseline)}" for each in found if each.other in ("vae", "iwae", "iterative")
    )


def test_the_readme_says_what_the_tables_say(study, found):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert standing(study) in readme
    assert verdicts(found) in readme
    assert matches(found) in readme
    (figure,) = re.findall(r"!\[[^\]]*\]\((results/reference/[^)]*)\)", readme)
    assert (ROOT / figure).is_file()


def test_the_study_is_whole(study):
    assert len(study.methods) >= 11
    assert len(study.datasets) == 9
    assert set(study.runs.groupby(["dataset", "method"])["seed"].nunique()) == {10}
    assert set(study.runs["status"]) == {"done"}


def test_the_study_can_be_run_again_and_names_no_machine():
    settings, _, name = file.read(FOLDER / "study.toml", ())
    described = json.loads((FOLDER / "study.json").read_text(encoding="utf-8"))
    assert name == "reference"
    assert list(settings.methods) == described["settings"]["methods"]
    assert (settings.seeds, settings.tuned is not None) == (10, True)
    texts = [path.read_text(encoding="utf-8") for path in FOLDER.rglob("*") if path.suffix in (".json", ".toml", ".md")]
    assert not re.search(r"/(home|root|tmp|work)/", "".join(texts))


def test_the_tables_are_small_and_the_report_is_there():
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.suffix in (".parquet", ".csv")) < LIMIT
    linked = re.findall(r"\]\((figures/[^)]*)\)", (FOLDER / "report.md").read_text(encoding="utf-8"))
    assert len(linked) > 20
    assert all((FOLDER / link).is_file() for link in linked)
    assert (FOLDER / "report.html").is_file()
