"""The reference study that is kept with the code, and what the README says that it found."""

import json
import re
from pathlib import Path

import pytest
from bench.stats.paired import BETTER, INDISTINGUISHABLE, WORSE

from bench.report.sentences import matching
from bench.stats.comparisons import comparisons
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


VERDICTS = (BETTER, INDISTINGUISHABLE, WORSE)


def verdicts(found):
    """On how many datasets each baseline is better, indistinguishable or worse, as a table of Markdown."""
    others = list(dict.fromkeys(each.other for each in found))
    rows = [f"| against | {' | '.join(others)} |", "|---|" + "---|" * len(others)]
    for subject in dict.fromkeys(each.baseline for each in found):
        counts = [[str(len(each.having(v))) for v in VERDICTS] for each in found if each.baseline == subject]
        rows.append(f"| {subject} | {' | '.join(' / '.join(each) for each in counts)} |")
    return "\n".join(rows)


def test_the_readme_says_what_the_tables_say(found):
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert " ".join(verdicts(found).split()) in readme
    loses = readme.partition("**Loses**")[2].partition("**Wins**")[0]
    stated = sorted(re.findall(r"(\w+)(?: on)? \((-\d\.\d{3})", loses))
    assert stated == sorted((m.dataset, f"{m.nats:.3f}") for each in found for m in each.having(WORSE))
    budget = readme.partition("**Budget**")[2]
    matched = {each.other: matching(each) for each in found if each.baseline == "mapa"}
    for other in ("vae", "iwae", "iterative"):
        flops, count = re.search(r"with (.*?) of the FLOPs .* on (\d+) of", matched[other]).groups()
        assert flops in budget
        assert re.search(rf"`{other}` \({count}[ )]", budget)
    (figure,) = re.findall(r"!\[[^\]]*\]\((results/reference/[^)]*)\)", readme)
    assert (ROOT / figure).is_file()


def test_the_study_is_whole(study):
    assert len(study.methods) >= 11
    assert len(study.datasets) == 9
    assert set(study.runs.groupby(["dataset", "method"])["seed"].nunique()) == {10}
    assert set(study.runs["status"]) == {"done"}


def test_the_study_can_be_run_again_and_names_no_machine():
    plan, name = file.read_plan(FOLDER / "study.toml")
    described = json.loads((FOLDER / "study.json").read_text(encoding="utf-8"))
    assert name == "reference"
    assert list(plan.methods) == described["settings"]["methods"]
    assert (plan.settings.seeds, plan.tuned is not None) == (10, True)
    texts = [path.read_text(encoding="utf-8") for path in FOLDER.rglob("*") if path.suffix in (".json", ".toml", ".md")]
    assert not re.search(r"/(home|root|tmp|work)/", "".join(texts))


def test_the_tables_are_small_and_the_report_is_there():
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.suffix in (".parquet", ".csv")) < LIMIT
    linked = re.findall(r"\]\((figures/[^)]*)\)", (FOLDER / "report.md").read_text(encoding="utf-8"))
    assert len(linked) > 20
    assert all((FOLDER / link).is_file() for link in linked)
