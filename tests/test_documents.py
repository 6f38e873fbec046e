"""The documents: generated tables are up to date, commands parse, examples run, and links lead somewhere.

`python -m tests.test_documents` writes the generated tables again.
"""

import ast
import inspect
import json
import re
import shlex
import textwrap
import tomllib
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import click
import pandas as pd
import pyro
import pytest
import torch

import bench
import datasets
import methods
from bench.cli.app import cli
from bench.cli.options import LAST, SettingsCommand
from bench.common.units import listed, number, ratio
from bench.config import schema
from bench.config.fields import choices, fields, read
from bench.config.labels import spell_value
from bench.fit.cost_model import cost_table
from bench.fit.flop_counter import CountingLedger
from bench.fit.runner import run_one
from bench.fit.task import make_task
from bench.registry.registry import registry
from bench.stats.comparisons import comparisons
from bench.stats.estimates import aggregate
from bench.stats.summary import final, ranked
from bench.stats.verdicts import BETTER, EQUIVALENT, UNDECIDED, WORSE
from bench.store.records import RunSpec
from bench.store.schema import METRICS, RUN_COSTS, TABLES
from bench.store.study_tables import read as read_study
from datasets.base import draw
from methods.mapa import deconvolution, layouts, placement, rff_lvm
from tools import anytime
from tools.equal_flops import ends, path_of

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *sorted(DOCS.glob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(ROOT / "results" / name for name in ("README.md", "reference/README.md")),
]
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
WIDTH = 120
README_LINES = 110
GROUPS = ("all", "curves", "surfaces")
STEPS = {
    "vae": ("joint step",),
    "iwae": ("joint step",),
    "iwae-dreg": ("joint step",),
    "iterative": ("encoder step", "decoder step"),
    "semi-amortised": ("joint step",),
    "flow": ("joint step",),
    "full-covariance": ("joint step",),
    "wake-sleep": ("joint step",),
    "svi": ("joint step",),
    "map-codes": ("joint step",),
    "particles": ("joint step",),
    "langevin": ("joint step",),
    "pyro-vae": ("joint step",),
    "pyro-iwae": ("joint step",),
    "gtm": ("likelihood",),
    "mapa": ("loss",),
    "mapa-polished": ("likelihood",),
}


# Generated tables


def markdown(head, rows):
    """A table of Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def operators():
    """The cost model."""
    return markdown(("operators", "FLOPs", "per"), cost_table())


def charges():
    """What MAPA's work outside torch is charged."""
    return markdown(
        ("work", "FLOPs"), {**deconvolution.CHARGES, **placement.CHARGES, **layouts.CHARGES, **rff_lvm.CHARGES}.items()
    )


def cost_of(method, work):
    """Decoder passes, encoder passes and FLOPs of one piece of work, once a fit repeats it."""
    known, ledger = registry(), CountingLedger()
    problem = known.make_problem("circle", None)
    split = draw(problem, 0, 500, 500, 1)
    spec = RunSpec(dataset="circle", method=method, seed=0, n_train=500, n_test=1)
    made = known.make_method(method)
    ledger.start()
    before = None
    for _ in made.fit(make_task(made, problem, split, spec, ledger)):
        calls, flops = next(((w.calls, w.flops) for w in ledger.account() if w.name == work), (0, 0.0))
        now = calls, ledger.decoder_passes, ledger.encoder_passes, flops
        if before and before[0] > 2 and now[0] == before[0] + 1:
            break
        before = now
    ledger.stop()
    return tuple(int(b - a) for a, b in zip(before[1:], now[1:], strict=True))


def steps():
    """What a step of each method costs."""
    rows = []
    for method, works in STEPS.items():
        for work in works:
            decoder, encoder, flops = cost_of(method, work)
            name = {"loss": "evaluation", "likelihood": "evaluation of the likelihood"}.get(work, work)
            rows.append((f"`{method}`", name, f"{decoder:,}", f"{encoder:,}", f"{flops / 1e6:.3g}"))
    return markdown(("method", "step", "decoder passes", "encoder passes", "MFLOP"), rows)


def default(field):
    """The default of a setting, in words."""
    if "default" in field.extra:
        return field.extra["default"]
    if field.default is None or field.default is False or field.default in ((), {}):
        return ""
    if isinstance(field.default, float):
        return f"`{field.default:g}`".replace("e+", "e")
    values = field.default if isinstance(field.default, tuple) else (field.default,)
    return f"`{','.join(map(spell_value, values))}`"


def settings(kind, beyond=()):
    """The fields of a schema, those of others aside unless they differ."""
    known = {(field.name, field.help) for other in beyond for field in fields(other)}
    rows = []
    for field in sorted(fields(kind), key=lambda field: (field.name in schema.CONDITIONS) + 2 * (field.name in LAST)):
        if (field.name, field.help) not in known:
            values = field.extra.get("metavar") or "|".join(choices(field))
            spelled = f"`{field.flag} {values}`" if values else f"`{field.flag}`"
            rows.append((f"`{field.name}`", spelled, default(field), field.help))
    return markdown(("key, argument", "flag", "default", "meaning"), rows)


def sources():
    """The built-in datasets."""
    rows = []
    for name, entry in datasets.BUILTIN.items():
        expected = "{:.4f} ± {:.4f}".format(*entry.expected_log_prob) if entry.expected_log_prob else ""
        rows.append((f"`{name}`", entry.summary, entry.latent_dim or "any", entry.data_dim or "any", expected))
    return markdown(("dataset", "what it is", "L", "D", "E log p(x)"), rows)


@cache
def compared(name):
    """A study of the reference and its comparisons."""
    study = read_study(ROOT / "results" / "reference" / name)
    return study, comparisons(study.measurements, study.runs, study.baseline, study.margin)


WORDS = ("better", "equivalent", "undecided", "worse")


def reference(folder="study"):
    """Gaps and costs on curves and on surfaces, the verdicts of the first baseline, and what it costs it to match."""
    study, found = compared(folder)
    baseline = found[0].baseline
    known = {each.other: each for each in found if each.baseline == baseline}
    dims = [registry().make_problem(name, None).latent_dim for name in study.datasets]
    families = [[name for name, dim in zip(study.datasets, dims, strict=True) if dim == each] for each in (1, 2)]
    shown = ranked(study.runs)
    rows = {name: [f"`{name}`"] for name in shown}
    runs = study.runs[study.runs["status"] == "done"]
    for own in families:
        of = runs[runs["dataset"].isin(own)]
        means = aggregate(study.measurements[study.measurements["dataset"].isin(own)], of).set_index("method")
        costs = of.groupby(["method", "dataset"])[["flops", "wall_s"]].median().groupby("method").mean()
        for name in shown:
            match = name in known and replace(
                known[name], differences=tuple(each for each in known[name].differences if each.dataset in own)
            )
            rows[name] += [
                number(means["mean"][name]),
                f"{costs['flops'][name] / 1e9:.0f}",
                f"{costs['wall_s'][name]:.1f}",
                ratio(match.match.flops) if match else "",
            ]
    for name in shown:
        words = (str(len(known[name].having(word))) for word in WORDS) if name in known else ()
        rows[name].append(" / ".join(words))
    order = aggregate(study.measurements, study.runs).set_index("method")["mean"]
    heads = [f"{of}: {what}" for of in ("curves", "surfaces") for what in ("gap", "GFLOP", "s", "to match")]
    return markdown(
        ("method", *heads, f"`{baseline}` against it"), [rows[name] for name in sorted(shown, key=order.get)]
    )


def chosen():
    """What the tuning of the rivals chose, and what speaks for it."""
    content = json.loads((ROOT / "results" / "reference" / "tune" / "tuned.json").read_text(encoding="utf-8"))
    rows = []
    for each in content["choices"]:
        given = content["budget"]["set"].get(each["method"], {})
        changed = {k: v for k, v in each["parameters"].items() if k not in given and v != default_of(each["method"], k)}
        fresh = each["confirmation"]
        told = "" if fresh is None else "{ahead} of {seeds}, {gain:+.3f} ± {stderr:.3f}".format(**fresh)
        what = ", ".join(f"{name} {spell_value(value)}" for name, value in changed.items()) or "the defaults"
        rows.append((f"`{each['method']}`", each["trials"], what, told))
    return markdown(("method", "trials", "chosen", "best trial ahead of the defaults on fresh seeds, nats"), rows)


def default_of(method, name):
    """The default of a hyperparameter."""
    return getattr(registry().make_method(method), name)


def defaults():
    """The mean oracle gaps of the reference study at defaults, where tuning chose other settings, and in the study."""
    before = pd.read_csv(ROOT / "results" / "reference" / "gaps" / "defaults.csv")
    after = ends(compared("study")[0]).reset_index()
    after = after[after["method"].isin(before["method"])]
    tables = [
        each.assign(of=each["dataset"].str.partition("[")[0])
        .groupby(["method", "of", "dataset"])["oracle_gap"]
        .median()
        .groupby(["method", "of"])
        .mean()
        .unstack()
        for each in (before, after)
    ]
    rows = [
        (f"`{name}`", *(number(table.loc[name, of]) for of in ("random_curve", "random_surface") for table in tables))
        for name in tables[1].mean(axis=1).sort_values().index
    ]
    heads = [f"{of}: {what}" for of in ("curves", "surfaces") for what in ("defaults", "tuned")]
    return markdown(("gap", *heads), rows)


SIGNS = {BETTER: "▲", WORSE: "▼", EQUIVALENT: "≈", UNDECIDED: "?"}


def problem_names(datasets):
    """Names of problems as heads of columns: those drawn by a seed without their family's long name."""
    return [f"`{name.removeprefix('random_')}`" for name in datasets]


def differences(folder="study", intervals=False):
    """The median difference in nats of the first baseline from each method on each problem, with its verdict."""
    study, found = compared(folder)
    baseline = found[0].baseline
    known = {each.other: each for each in found if each.baseline == baseline}
    order = aggregate(study.measurements, study.runs).set_index("method")["mean"]
    rows = []
    for name in sorted(known, key=order.get):
        of = {
            each.dataset: f"{each.nats:+.3f} {SIGNS[each.verdict]}"
            + ("" if not intervals else " [{:+.3f}, {:+.3f}]".format(*each.interval))
            for each in known[name].differences
        }
        rows.append((f"`{name}`", *(of[dataset] for dataset in study.datasets)))
    return markdown((f"`{baseline}` less", *problem_names(study.datasets)), rows)


def at_equal_cost(folder):
    """The oracle gap of each fit that ended at the FLOPs of the first baseline at the same seed: a column a method."""
    table = pd.read_csv(path_of(compared(folder)[0]))
    return table.pivot(index=["dataset", "seed"], columns="method", values="oracle_gap")


def leads_at_equal_cost(folder, rival):
    """The median paired difference by which the first baseline is ahead at its own FLOPs, for each problem."""
    gaps, baseline = at_equal_cost(folder), compared(folder)[1][0].baseline
    return (gaps[rival] - gaps[baseline]).groupby("dataset").median().to_dict()


def table_at_equal_cost(folder):
    """The median gap of each method at the FLOPs of the first baseline, and which lead it where."""
    study, found = compared(folder)
    baseline = found[0].baseline
    middle = at_equal_cost(folder).groupby("dataset").median().T
    table = markdown(
        (f"gap at `{baseline}`'s FLOPs", *problem_names(study.datasets)),
        [
            (f"`{name}`", *map(number, middle.loc[name, study.datasets]))
            for name in middle.mean(axis=1).sort_values().index
        ],
    )
    leads = {rival: leads_at_equal_cost(folder, rival) for rival in middle.index if rival != baseline}
    ahead = {rival: sorted(-lead for lead in of.values() if lead < 0) for rival, of in leads.items()}
    told = [
        f"`{rival}` on {len(of)} of {len(study.datasets)} by {of[0]:.3f}" + (f" to {of[-1]:.3f}" if len(of) > 1 else "")
        for rival, of in sorted(ahead.items(), key=lambda each: -len(each[1]))
        if of
    ]
    text = f"Ahead of `{baseline}` by the median difference at the same seeds: {listed(told)} nats."
    return "\n".join([table, "", *textwrap.wrap(text, 120, break_on_hyphens=False, break_long_words=False)])


def cells_of_match(match):
    """The ratios of FLOPs, with its interval, and of seconds, and how many problems are missed."""
    flops = f"{ratio(match.flops)} [{', '.join(map(ratio, match.flops_interval))}]"
    return flops, ratio(match.wall), f"{len(match.missed)} of {match.datasets}"


def to_match():
    """The first baseline's cost to reach the end of each method over that method's, on named and held-out problems."""
    rows = {}
    for folder in ("named", "study"):
        _, found = compared(folder)
        for each in found:
            if each.baseline == found[0].baseline:
                rows.setdefault(each.other, {})[folder] = each.match
    both = {name: of for name, of in rows.items() if len(of) == 2}
    shown = [
        (f"`{name}`", *(cell for match in (of["named"], of["study"]) for cell in cells_of_match(match)))
        for name, of in sorted(both.items(), key=lambda item: item[1]["named"].flops)
    ]
    heads = [f"{of}: {what}" for of in ("named", "held out") for what in ("FLOPs", "seconds", "missed")]
    return markdown(("to match", *heads), shown)


def gaps():
    """Median oracle and inference gaps of MAPA, on the grid alone, its plain form and its ceilings."""
    table = pd.read_csv(ROOT / "results" / "reference" / "gaps" / "mapa.csv")
    middle = table.groupby(["dataset", "method"])[["oracle_gap", "inference_gap"]].median()
    shown = "mapa", "mapa[releases=0]", "mapa-plain", "mapa[placement=truth]", "mapa[placement=truth,releases=0]"
    inferred = "mapa", "mapa-plain"

    def of(name, column, methods):
        return (f"{middle[column][name, method]:.3f}" if (name, method) in middle.index else "–" for method in methods)

    rows = [
        (name, *of(name, "oracle_gap", shown), *of(name, "inference_gap", inferred))
        for name in (*datasets.CURVES, *datasets.SURFACES)
    ]
    oracle, inference = (tuple(f"`{method}`" for method in each) for each in (shown, inferred))
    return markdown(("oracle gap", *oracle, *(f"inference gap, {each}" for each in inference)), rows)


def of_anytime(method):
    """The median gaps of a method by dataset and cost, along both schedules, and its rows."""
    rows = pd.read_csv(ROOT / "results" / "reference" / "anytime" / f"{method}.csv")
    names = [name for name in (*datasets.CURVES, *datasets.SURFACES) if name in set(rows["dataset"])]
    return rows, rows.groupby(["dataset", "flops", "schedule"])["gap"].median().unstack().loc[names]


def anytime_gaps():
    """What `vae` reaches at each cost, by one anytime run and by a cosine run of that length."""
    _, middle = of_anytime("vae")
    cells = (middle["anytime"].map("{:.3f}".format) + " / " + middle["cosine"].map("{:.3f}".format)).unstack()
    heads = ("dataset", *(f"{cost / 1e9:.2g}" for cost in cells.columns))
    return markdown(heads, [(name, *row) for name, row in cells.loc[middle.index.unique("dataset")].iterrows()])


def anytime_verdicts():
    """For each method, where one anytime run is behind, and how sure its difference at the end is."""
    rows = []
    for path in sorted((ROOT / "results" / "reference" / "anytime").glob("*.csv")):
        every, middle = of_anytime(path.stem)
        behind = anytime.behind(middle)
        ends = behind.groupby(level=0, sort=False).last()
        differences = [anytime.difference_at_the_end(of) for _, of in every.groupby("dataset")]
        rows.append(
            (
                f"`{path.stem}`",
                f"{int((~behind).groupby(level=0).all().sum())} of {len(ends)}",
                f"{int((~behind).sum())} of {len(behind)}",
                ratio(float(anytime.ratios(middle).max())),
                ", ".join(ends.index[ends]) or "none",
                sum(low > 0 for _, low, _, _ in differences),
                sum(high < 0 for _, _, high, _ in differences),
            )
        )
    heads = ("level at all costs", "level at", "at most", "behind at the end", "interval above 0", "below 0")
    return markdown(("method", *heads), rows)


def dimensions():
    """Medians of log p(x) at equal FLOPs, and of MAPA's lead at the same seeds, where posteriors are sampled."""
    table = pd.read_csv(ROOT / "results" / "reference" / "gaps" / "high-dimension.csv")
    rows = []
    for name, of in table.groupby("dataset", sort=False):
        value, loss = (
            of.pivot_table(index="seed", columns="method", values=each) for each in ("test_ll", "inference_gap")
        )
        leads = (f"{(value['mapa'] - value[rival]).median():+.2f}" for rival in ("vae", "iwae"))
        cost = of[of["method"] == "mapa"]["flops"].median() / 1e9
        each = (f"{loss[method].median():.2f}" for method in ("mapa", "vae", "iwae"))
        rows.append((f"`{name}`", f"{value['mapa'].median():.2f}", *leads, *each, f"{cost:.0f}"))
    heads = ("problem", "log p(x), `mapa`", "lead over `vae`", "over `iwae`")
    gaps = tuple(f"inference gap, `{method}`" for method in ("mapa", "vae", "iwae"))
    return markdown((*heads, *gaps, "GFLOP"), rows)


def images():
    """Bounds on log p(x) of images by method, and the verdict of MAPA against each."""
    study, found = compared("images")
    middle = final(study.measurements, study.runs).groupby(["dataset", "method"], sort=False).median()
    verdicts = {(of.dataset, each.other): of for each in found if each.baseline == "mapa" for of in each.differences}
    names = ("test_ll", "elbo", "annealing_gap", "active_units")
    rows = []
    for dataset, method in middle.index:
        values = (f"{value:.1f}" for value in middle.loc[(dataset, method), list(names)])
        known = verdicts.get((dataset, method))
        against = f"{known.verdict}, {known.nats:+.0f}" if known else ""
        rows.append((f"`{dataset}`", f"`{method}`", *values, against))
    return markdown(("problem", "method", "test_ll", "ELBO", *names[2:], "`mapa` against it"), rows)


GENERATED = {
    ("docs/datasets.md", "images"): images,
    ("docs/anytime.md", "gaps"): anytime_gaps,
    ("docs/anytime.md", "verdicts"): anytime_verdicts,
    ("docs/mapa.md", "gaps"): gaps,
    ("docs/mapa.md", "match"): to_match,
    ("docs/mapa.md", "dimensions"): dimensions,
    ("README.md", "reference"): reference,
    ("results/reference/README.md", "differences"): differences,
    ("results/reference/README.md", "equal"): partial(table_at_equal_cost, "study"),
    ("results/reference/README.md", "fresh"): partial(differences, "fresh", intervals=True),
    ("results/reference/README.md", "unseen"): partial(differences, "unseen", intervals=True),
    ("results/reference/README.md", "surfaces_7_9"): partial(differences, "surfaces-7-9", intervals=True),
    ("results/reference/README.md", "equal_fresh"): partial(table_at_equal_cost, "fresh"),
    ("results/reference/README.md", "equal_unseen"): partial(table_at_equal_cost, "unseen"),
    ("results/reference/README.md", "equal_surfaces_7_9"): partial(table_at_equal_cost, "surfaces-7-9"),
    ("results/reference/README.md", "earlier"): partial(reference, "earlier"),
    ("results/reference/README.md", "differences_earlier"): partial(differences, "earlier"),
    ("results/reference/README.md", "named"): partial(reference, "named"),
    ("results/reference/README.md", "differences_named"): partial(differences, "named"),
    ("results/reference/README.md", "discrete"): partial(reference, "discrete"),
    ("results/reference/README.md", "defaults"): defaults,
    ("docs/costs.md", "operators"): operators,
    ("docs/costs.md", "charges"): charges,
    ("docs/methods.md", "steps"): steps,
    ("docs/datasets.md", "datasets"): sources,
    ("docs/studies.md", "settings"): lambda: settings(schema.Settings),
    ("docs/several-machines.md", "execution"): lambda: settings(schema.Execution),
    ("docs/tune.md", "rivals"): chosen,
    ("docs/tune.md", "tune"): lambda: settings(schema.TuneSettings, [schema.Settings]),
    ("docs/sweep.md", "sweep"): lambda: settings(schema.SweepSettings, [schema.Settings]),
    ("docs/timing.md", "timing"): lambda: settings(schema.TimingSettings, [schema.Conditions]),
}


@pytest.mark.parametrize("folder", ["study", "fresh", "unseen", "surfaces-7-9"])
def test_fits_at_equal_cost_end_at_that_of_the_baseline_at_their_seed(folder):
    """Of every problem and seed; the baseline's rows are those of the study."""
    study, found = compared(folder)
    table = pd.read_csv(path_of(study)).set_index(["method", "dataset", "seed"]).sort_index()
    stored = ends(study).sort_index().loc[table.index.unique("method")]
    assert {*table.index} == {*stored.index}
    mine = found[0].baseline
    pd.testing.assert_frame_equal(table.loc[[mine]], stored.loc[[mine]])
    share = table["flops"] / stored.loc[mine]["flops"]
    assert share.max() < 1.05
    own_end = stored["flops"] < 1.01 * table["flops"]
    assert (own_end | (share >= 1)).all()


def between(text, name):
    """The text before a generated table, the table, and the text after it."""
    begin, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
    before, _, rest = text.partition(begin)
    table, ended, after = rest.partition(end)
    if not ended:
        raise ValueError(f"{end.strip()} is missing, or begins the line after {begin.strip()}")
    return before + begin, table, end + after


@pytest.mark.parametrize(("page", "name"), GENERATED)
def test_generated_tables_are_up_to_date(page, name):
    _, table, after = between(TEXTS[page], name)
    assert after
    assert table.strip() == GENERATED[page, name](), "run python -m tests.test_documents"


def test_every_marker_has_a_table():
    found = [
        (page, name) for page, text in TEXTS.items() for name in re.findall(r"^<!-- /(\w+) -->$", text, re.MULTILINE)
    ]
    assert sorted(found) == sorted(GENERATED)


# What must be described


def test_every_method_and_dataset_is_described():
    for name in methods.BUILTIN:
        assert f"**`{name}`**" in TEXTS["docs/methods.md"]
        assert f"`{name}`" in TEXTS["README.md"]
    for name in datasets.BUILTIN:
        assert f"`{name}`" in TEXTS["README.md"]


@pytest.mark.parametrize("definition", [*METRICS, *RUN_COSTS], ids=lambda definition: definition.name)
def test_every_metric_and_cost_is_explained(definition):
    assert definition.name in TEXTS["docs/measures.md" if definition in METRICS else "docs/costs.md"]


@pytest.mark.parametrize("table", TABLES)
def test_every_table_is_described(table):
    assert f"`{table}.parquet`" in TEXTS["docs/first-comparison.md"]


def test_every_page_is_in_the_index():
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", TEXTS["docs/README.md"]))
    assert linked == {page.name for page in DOCS.glob("*.md")} - {"README.md"}


# Form


@pytest.mark.parametrize("page", TEXTS)
def test_lines_are_short(page):
    lines = TEXTS[page].splitlines()
    assert [line for line in lines if len(line) > WIDTH and not line.startswith("|")] == []


def test_the_readme_is_short_and_says_where_mapa_comes_from():
    text = TEXTS["README.md"]
    assert len(text.splitlines()) <= README_LINES
    assert "re-derived here from the abstract" in text.partition("\n## ")[0]
    for command in (
        "pip install -c constraints.txt -e . && python -m bench compare --methods mapa,iterative",
        "pip install tox && tox",
    ):
        assert command in text


def slugs(text):
    """The anchors of a page's headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page):
    prose = re.sub(r"^```.*?^```|`[^`]*`", "", TEXTS[page], flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)]+)\)", prose):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in slugs(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("page", [page for page in TEXTS if page != "CHANGELOG.md"])
def test_files_that_are_named_exist(page):
    named = re.findall(r"`((?:bench|methods|datasets|tests|benchmarks)/[\w/.-]+)`", TEXTS[page])
    planned = {
        "methods/mine.py",
        "bench/metrics/mine.py",
        "tests/bench/metrics/test_mine.py",
        "tests/methods/test_mine.py",
    }
    assert [name for name in named if name not in planned and not (ROOT / name).exists()] == []


# Commands and examples


def commands(text):
    """The commands of mapa-bench on a page, in blocks of shell and in the prose."""
    shell = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    inline = re.findall(r"`(python\s+-m\s+bench [^`]*)`", text)
    for line in [*shell.splitlines(), *(" ".join(each.split()) for each in inline)]:
        for command in line.split("&&"):
            words = shlex.split(command, comments=True)
            if words[:3] == ["python", "-m", "bench"]:
                yield tuple(words[3:])


COMMANDS = sorted({(page, line) for page, text in TEXTS.items() for line in commands(text)})


@pytest.mark.parametrize(
    ("page", "line"), COMMANDS, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_commands_are_read_by_the_command_line(page, line):
    if "--help" in line:
        line = line[:-1]
    known = registry()
    group = click.Context(cli)
    name, command, rest = cli.resolve_command(group, list(line))
    context = command.make_context(name, rest, parent=group, resilient_parsing=not rest)
    if not isinstance(command, SettingsCommand):
        return
    given = {key: value for key, value in context.params.items() if value not in (None, (), False)}
    for kind in map(vars(schema).get, command.schemas):
        own = {field.name: given[field.name] for field in fields(kind) if field.name in given}
        asked = read(kind, own, lambda field: field.flag, text=True)
        if given.get("plugins"):
            continue
        for label in getattr(asked, "methods", ()):
            assert label in GROUPS or known.method(label)
        for label in getattr(asked, "datasets", ()) or ():
            assert label in GROUPS or known.dataset(label)


def options(command):
    """All flags of a command."""
    context = click.Context(command, info_name=command.name)
    return {flag for parameter in command.get_params(context) for flag in getattr(parameter, "opts", ())}


def test_flags_that_are_named_exist():
    known = {"--help", *(flag for command in cli.commands.values() for flag in options(command))}
    for page, text in TEXTS.items():
        named = {
            flag for span in re.findall(r"`([^`\n]*)`", text) for flag in re.findall(r"(?<!\S)--[a-z][\w-]*", span)
        }
        foreign = {"--version", "--fix", "--quick"}
        assert page == "CHANGELOG.md" or named - foreign <= known, page


def examples(page, language):
    """The code blocks of a language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXTS[page], re.MULTILINE | re.DOTALL)


def test_the_study_file_has_keys_that_exist():
    (text,) = examples("docs/studies.md", "toml")
    given = tomllib.loads(text)
    for key in ("name", "methods", "datasets"):
        given.pop(key)
    read(schema.Settings, given, lambda field: field.name)


@pytest.mark.parametrize("page", ["README.md", "docs/first-comparison.md"])
def test_calls_from_python_have_arguments_that_exist(page):
    calls = [
        node
        for block in examples(page, "python")
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "bench.compare"
    ]
    assert calls
    for call in calls:
        given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        inspect.signature(bench.compare).bind(*call.args, **given)


def test_the_fit_of_the_page_runs(capsys):
    (code,) = [block for block in examples("docs/first-comparison.md", "python") if "bench.fitted" in block]
    found = {"bench": bench}
    exec(compile(code, "first-comparison.md", "exec"), found)
    assert found["means"].shape == (1000, 2)
    assert (found["codes"].shape, found["log_q"].shape) == ((5, 1000, 1), (5, 1000))
    assert capsys.readouterr() == ("", "")


def test_the_method_of_the_readme_runs(tmp_path):
    (code,) = [block for block in examples("README.md", "python") if "METHODS" in block]
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    file = tmp_path / "mine.py"
    file.write_text(code)
    spec = RunSpec(dataset="circle", method="mine", seed=1, n_train=50, n_test=50, max_flops=3e7, plugins=(str(file),))
    result = run_one(spec)
    assert (result.status, result.notes) == ("done", "")
    assert {row.metric for row in result.rows} >= {"test_ll", "elbo"}


NUMBER = r"-?\d[\d.e-]*"


@pytest.mark.parametrize(("example", "printed"), [(0, 0), (1, 1), (2, None)], ids=["torch", "pyro", "numpy"])
def test_the_models_of_others_are_scored_as_printed(example, printed, capsys):
    with torch.random.fork_rng(), pyro.get_param_store().scope():
        exec(examples("docs/score.md", "python")[example], {"__name__": "example"})
    got = capsys.readouterr().out
    expected = "" if printed is None else examples("docs/score.md", "text")[printed]
    assert re.sub(NUMBER, "#", got) == re.sub(NUMBER, "#", expected)
    for key in ("mean log p(x)", "mean ELBO", "inference gap"):
        values = [re.findall(rf"{re.escape(key)} +({NUMBER})", text) for text in (got, expected)]
        assert [float(value) for value in values[0]] == pytest.approx([float(value) for value in values[1]], abs=0.05)


def write():
    """Write the generated tables again."""
    for (page, name), table in GENERATED.items():
        path = ROOT / page
        before, _, after = between(path.read_text(encoding="utf-8"), name)
        path.write_text(before + table() + after, encoding="utf-8")


if __name__ == "__main__":
    write()
