"""The reference study that is kept with the code, and what the README says that it found."""

import hashlib
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from bench.common.units import listed, number
from bench.registry.declared import search
from bench.registry.registry import registry
from bench.report import sentences
from bench.stats.comparisons import comparisons
from bench.stats.estimates import aggregate
from bench.stats.verdicts import BETTER, WORSE
from bench.store import stored
from bench.store.study_tables import read
from bench.study import file
from bench.study.folder import held
from bench.study.hyperparameters import EVERY
from bench.study.plan import resolve
from datasets import CURVES, SURFACES
from datasets import DISCRETE as DISCRETE_PROBLEMS
from tests.test_documents import compared, defaults, differences, leads_at_equal_cost, reference

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "results" / "reference" / "study"
FRESH, UNSEEN, LATER, EARLIER, NAMED, DISCRETE = (
    ROOT / "results" / "reference" / name
    for name in ("fresh", "unseen", "surfaces-7-9", "earlier", "named", "discrete")
)
HELD_BEFORE, HELD_OUT, HELD_LATER, HELD_LAST = (
    [f"random_{kind}[seed={seed}]" for kind in ("curve", "surface") for seed in range(first, first + 3)]
    for first in (1, 4, 7, 10)
)
STUDIES = (FOLDER, FRESH, UNSEEN, LATER, EARLIER, NAMED, DISCRETE)
LATER_LOOKS = ("fresh", "unseen", "surfaces-7-9")
SITE = ROOT / "results" / "reference" / "site"
LIMIT, SITE_LIMIT = 2_000_000, 800_000
WORDS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "all")


@pytest.fixture(scope="module")
def study():
    return read(FOLDER)


@pytest.fixture(scope="module")
def found(study):
    return comparisons(study.measurements, study.runs, study.baseline, study.margin)


def losses_in(text):
    """The losses that a text names, such as 'swiss_roll (-0.132'."""
    return sorted(re.findall(r"([\w=\[\]]+) \((-\d\.\d{3})", text))


def losses_of(found):
    """The losses that comparisons find."""
    return sorted((d.dataset, f"{d.nats:.3f}") for each in found for d in each.having(WORSE))


def test_the_readme_names_every_loss(found):
    """Those of the study, of its problems on fresh seeds and of the surfaces that were drawn later."""
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    loses = readme.partition("**Loses**")[2].partition("**Wins**")[0]
    others = (compared(name)[1] for name in LATER_LOOKS)
    assert losses_in(loses) == sorted(loss for each in (found, *others) for loss in losses_of(each))
    (figure,) = re.findall(r"!\[[^\]]*\]\((results/reference/[^)]*)\)", readme)
    assert (ROOT / figure).is_file()


def cells(table):
    """The numbers of a generated table by the name in its first column."""
    rows = (line.strip("| ").split(" | ") for line in table.splitlines()[2:])
    return {name.strip("`"): [float(cell.split()[0]) for cell in rest if cell != "–"] for name, *rest in rows}


def span(values):
    return "{:.2f} to {:.2f}".format(*(f(map(abs, values)) for f in (min, max)))


def test_the_figures_in_the_sentences_of_the_readme_are_those_of_the_tables():
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    fresh = {each.other: each for each in compared("fresh")[1]}
    lost = [each for name in LATER_LOOKS for of in compared(name)[1] for each in of.having(WORSE)]
    times = [1 / each.flops for each in lost]
    assert f"at {min(times):.1f} to {max(times):.1f} times its FLOPs" in readme
    leads = {rival: leads_at_equal_cost("fresh", rival) for rival in ("exact-mle", "gtm", "vae", "iterative")}
    ahead = {rival: [-lead for lead in of.values() if lead < 0] for rival, of in leads.items()}
    told = f"`exact-mle` leads on {WORDS[len(ahead['exact-mle'])]} of six by {span(ahead['exact-mle'])}"
    assert f"At `mapa`'s FLOPs, by medians of differences: on fresh seeds {told}" in readme
    polished = [-lead for name, lead in leads_at_equal_cost("study", "mapa-polished").items() if "surface" in name]
    assert min(polished) > 0
    assert f"in the study `mapa-polished` on the surfaces by {span(polished)}" in readme
    verdicts = [[*map(int, row.split("|")[-2].split("/"))] for row in reference().splitlines() if "/ " in row]
    total = " / ".join(map(str, map(sum, zip(*verdicts, strict=True))))
    assert f"of the {sum(map(sum, verdicts))} in all, {total}" in readme
    ((rival, (lead,)),) = [(name, ahead[name]) for name in ("gtm", "vae", "iterative") if ahead[name]]
    assert f"`{rival}` on one surface by {lead:.2f}" in readme
    curves = [lead for rival in ("vae", "iterative") for name, lead in leads[rival].items() if "curve" in name]
    assert f"both, tuned for more, are behind on curves by {min(curves):.2f} nats or more" in readme
    both = [each for rival in ("vae", "iterative") for each in fresh[rival].differences]
    won = [each for each in both if each.verdict == BETTER]
    assert not [each for each in both if each.verdict == WORSE]
    told = f"{WORDS[len(won)]} of twelve comparisons, by {span([each.nats for each in won])} nats"
    shares = span([each.flops for each in won if "curve" in each.dataset])
    assert f"against `vae` and `iterative`, run there twice, in {told}, on curves at {shares} of their FLOPs" in readme
    others = [each for each in both if each.nats < 0]
    assert f"In {WORDS[len(others)]} of the others they lead by {span([each.nats for each in others])}, undec" in readme
    winners: dict[tuple[str, str], list[str]] = {}
    for each in compared("discrete")[1]:
        for lost in each.having(WORSE):
            winners.setdefault((lost.dataset, f"{-lost.nats:.2f}"), []).append(f"`{each.other}`")
    told = [f"{listed(names)} on {dataset} ({nats})" for (dataset, nats), names in winners.items()]
    assert len(told) == 1
    assert all(each in readme for each in told), told
    query = compared("study")[0].runs.groupby(["method", "dataset"])["query_flops"].median()
    times = query["mapa"] / query["vae"]
    low, high = (float(f"{each:.2g}") for each in (times.min(), times.max()))
    assert f"Encoding x costs {low:.0f} to {high:.0f} times more" in readme
    (plain,) = (each for each in compared("study")[1] if each.other == "mapa-plain")
    gains = sorted(each.nats for each in plain.having(BETTER))
    assert len(gains) == 3
    assert "{:.2f}, {:.2f} and {:.2f} nats on surfaces".format(*gains) in readme


def test_what_tuning_gives_is_told_as_the_tables_have_it():
    text = " ".join((FOLDER.parent / "README.md").read_text(encoding="utf-8").split())
    gaps = cells(defaults())
    (mine,) = (line.strip("| ").split(" | ") for line in reference().splitlines() if line.startswith("| `mapa` "))
    assert f"`mapa` has {mine[1]} on curves and {mine[5]} on surfaces" in text
    behind = [[gaps[name][place] - float(mine[5]) for name in ("vae", "iwae", "iterative")] for place in (2, 3)]
    assert min(behind[1]) >= 0
    told = ("{:.3f} to {:.3f}".format(*(f(each) for f in (min, max))) for each in behind)
    assert "they are behind by {} at defaults, and by {} in the study".format(*told) in text
    page = (ROOT / "docs" / "tune.md").read_text(encoding="utf-8")
    gain = max(max(a - b, c - d) for name, (a, b, c, d) in gaps.items() if name != "langevin")
    assert f"fall by up to {gain:.2f} nats" in " ".join(page.split())


def test_on_the_named_problems_only_two_methods_are_ahead_by_more_than_the_text_says():
    ahead = {name: -min(each) for name, each in cells(differences("named")).items()}
    most = f"{max(value for name, value in ahead.items() if name not in ('exact-mle', 'mapa-polished')):.3f}"
    for page in (ROOT / "docs" / "mapa.md", FOLDER.parent / "README.md"):
        text = " ".join(page.read_text(encoding="utf-8").split())
        assert re.search(rf"[Nn]o other method is ahead (there|of it) by more than {most} nats on any", text)


def test_the_study_is_whole(study):
    assert len(study.methods) >= 8
    assert list(study.datasets) == HELD_OUT  # the rule in docs/datasets.md
    assert set(study.runs.groupby(["dataset", "method"])["seed"].nunique()) == {10}
    assert set(study.runs["status"]) == {"done"}


@pytest.mark.parametrize(
    ("folder", "problems"),
    [
        (FRESH, HELD_OUT),
        (UNSEEN, HELD_LAST[3:]),
        (LATER, HELD_LATER[3:]),
        (EARLIER, HELD_BEFORE),
        (NAMED, (*CURVES, *SURFACES)),
        (DISCRETE, DISCRETE_PROBLEMS),
    ],
)
def test_the_other_studies_are_whole_under_the_same_conditions(study, folder, problems):
    other = read(folder)
    assert other.datasets == list(problems)
    assert set(other.methods) <= set(study.methods)
    assert set(other.runs.groupby(["dataset", "method"])["seed"].nunique()) == {10}
    assert set(other.runs["status"]) == {"done"}
    plan, name = file.read_plan(folder / "study.toml")
    assert name == folder.name
    settings, reference = other.section("settings"), study.section("settings")
    assert {key for key in settings if settings[key] != reference[key]} <= {
        "datasets",
        "methods",
        "set",
        "tuned",
        *(["first_seed"] if folder == FRESH else []),
    }
    assert other.info["evaluation"] == study.info["evaluation"]
    assert list(plan.methods) == other.methods
    told = (FOLDER.parent / "README.md").read_text(encoding="utf-8").partition(f"**`{name}/`**")[2]
    found = comparisons(other.measurements, other.runs, other.baseline, other.margin)
    assert losses_in(told.partition("<!--")[0]) == losses_of(found)


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_todays_code_gives_the_stored_runs_their_keys(folder):
    """Else `compare --against` refuses them: `python -m tools.renew` repeats some and renews the keys."""
    before = held(folder)
    plan = resolve(before.settings, before.pairs)
    assert stored.keys(read(folder)) == {spec.name: spec.key for spec in plan.runs}


@pytest.mark.parametrize("folder", [FOLDER, FRESH, UNSEEN, LATER], ids=lambda folder: folder.name)
def test_the_studies_took_what_the_kept_tuning_chose_on_other_problems(study, folder):
    """One choice for every rival that declares a search."""
    content = (FOLDER.parent / "tune" / "tuned.json").read_bytes()
    found, chosen = read(folder), json.loads(content)
    assert (folder / "tuned" / "tuned.json").read_bytes() == content
    assert found.info["tuned"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert {each["dataset"] for each in chosen["choices"]} == {EVERY}
    rivals = {each["method"] for each in chosen["choices"]}
    assert rivals == {name for name in study.methods if search(registry(), name)}
    trials = pd.read_csv(FOLDER.parent / "tune" / "trials.csv")
    assert {*trials["dataset"]} == {*HELD_BEFORE}
    assert not {*trials["seed"]} & {*found.runs["seed"]}
    runs = found.runs[found.runs["method"].isin(rivals)]
    for each in chosen["choices"]:
        own = runs[runs["method"] == each["method"]]
        if own.empty:
            continue
        for name, value in each["parameters"].items():
            assert name == "steps" or {*own[f"p_{name}"]} <= {value}, (each["method"], name)


def test_the_study_can_be_run_again_and_names_no_machine():
    plan, name = file.read_plan(FOLDER / "study.toml")
    described = json.loads((FOLDER / "study.json").read_text(encoding="utf-8"))
    assert name == "reference"
    assert list(plan.methods) == described["settings"]["methods"]
    assert (plan.settings.seeds, plan.tuned.file) == (10, "tuned.json")
    texts = [path.read_text(encoding="utf-8") for path in FOLDER.rglob("*") if path.suffix in (".json", ".toml", ".md")]
    assert not re.search(r"/(home|root|tmp|work)/", "".join(texts))


def test_the_tables_are_small_and_the_report_is_there():
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.suffix in (".parquet", ".csv")) < LIMIT
    linked = re.findall(r"\]\((figures/[^)]*)\)", (FOLDER / "report.md").read_text(encoding="utf-8"))
    assert len(linked) > 20
    assert all((FOLDER / link).is_file() for link in linked)


@pytest.mark.parametrize("folder", [FOLDER, FRESH])
def test_the_site_is_that_of_the_study_and_is_small(folder):
    """`site.json` has the command that makes it again."""
    study, site = read(folder), SITE if folder == FOLDER else SITE / folder.name
    made = json.loads((site / "site.json").read_text(encoding="utf-8"))
    (source,) = made["studies"]
    for name in ("runs.parquet", "measurements.parquet"):
        assert source[name] == hashlib.sha256((folder / name).read_bytes()).hexdigest(), "publish the study again"
    every = {str(path.relative_to(site)): path for path in site.rglob("*") if path.is_file()}
    files = {name: path for name, path in every.items() if not name.startswith("fresh/")}
    assert set(files) == {*made["files"], "site.json"}
    assert sum(path.stat().st_size for path in files.values()) < SITE_LIMIT
    assert not re.search(
        r"/(home|root|tmp|work)/", "".join(path.read_text(encoding="utf-8") for path in files.values())
    )
    front = files["index.html"].read_text(encoding="utf-8")
    for text in sentences.overview(comparisons(study.measurements, study.runs, study.baseline, study.margin), []):
        assert text in front
    for row in aggregate(study.measurements, study.runs).to_dict("records"):
        gap = re.escape(f"{number(row['mean'])}<small>[{number(row['low'])}, {number(row['high'])}]")
        assert re.search(rf">{row['method']}</a>(</th>)?\s*<td[^>]*>{gap}", front), row["method"]


def test_the_site_begins_with_the_losses_on_fresh_seeds_and_unseen_surfaces():
    front = (SITE / "index.html").read_text(encoding="utf-8")
    note, *_ = re.findall(r'<p class="lead">(.*?)</p>', front)
    assert losses_in(note) == sorted(loss for name in LATER_LOOKS for loss in losses_of(compared(name)[1]))
    assert 'href="fresh/index.html"' in note
