"""A method against a stored study: it alone is run, beside runs that this code and this machine would give too."""

import dataclasses
import json
import math
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest

# For tools, which is not installed. It is last, so that all else is what is installed.
sys.path.append(str(Path(__file__).parents[3]))

import bench
from bench.cli.tables import print_summary
from bench.fit.runner import run_block
from bench.report import latex
from bench.report.blocks import Table
from bench.report.document import document
from bench.stats.comparisons import comparisons
from bench.stats.cost_to_target import targets
from bench.stats.summary import summary
from bench.store import run_files, stored, study_tables, tables
from bench.store.records import RunResult, RunSpec
from bench.study import against
from bench.study.against import PACKED, agreement
from bench.study.agreement import difference
from tools.pack import KEPT, pack

ROOT = Path(__file__).parents[3]
MINE = "vae[learning_rate=0.002]"
OTHERS = ("vae", "untrained")
RUN = ["dataset", "method", "seed"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("reference")


@pytest.fixture
def reference(kept, tmp_path, compare, invented):
    """A stored study of two problems and three seeds, as it is kept: packed, without the files of runs."""
    if not (kept / "packed").exists():
        assert compare(kept / "whole", ",".join(OTHERS), "circle,figure8", 3).code == 0
        pack(kept / "whole", kept / "packed")
    del invented[:]
    return shutil.copytree(kept / "packed", tmp_path / "packed")


@pytest.fixture
def beside(cli, monkeypatch, tmp_path, reference):
    """`compare --against` the reference, with the report left out."""
    monkeypatch.setattr("bench.report.page.write", lambda folder: folder / "report.html")
    base = ("compare", "--against", reference, "--out", tmp_path / "out", "--jobs", 1, "--quiet", "-m")
    return lambda *more, methods=MINE: cli(*base, methods, *more)


def rewrite(folder, name, act):
    """Change a table."""
    table = tables.read_table(folder, name)
    changed = act(table)
    tables.write_table(folder / f"{name}.parquet", table if changed is None else changed)


def edit(folder, act):
    """Change study.json."""
    info = json.loads((folder / "study.json").read_text())
    act(info)
    (folder / "study.json").write_text(json.dumps(info))


def test_it_alone_is_run_and_the_study_is_as_made_whole(beside, reference, kept, tmp_path, invented, compare, values):
    assert beside().code == 0
    own = [f"{dataset} / {MINE} / seed {seed}" for dataset in ("circle", "figure8") for seed in range(3)]
    (repeated,) = invented[:1]
    assert invented[1:] == own
    assert "/ vae / seed 0" in repeated
    assert compare(tmp_path / "whole", f"{MINE},vae,untrained", "circle,figure8", 3).code == 0
    (runs, rows), (all_runs, all_rows) = values(tmp_path / "out"), values(tmp_path / "whole")
    borrowed = runs["source"] != ""
    assert set(runs[borrowed]["method"]) == {*OTHERS}
    assert runs[~borrowed]["method"].eq(MINE).all()
    assert runs[borrowed]["source"].str.contains(f"{repeated}, was repeated here: it has the same values").all()
    pd.testing.assert_frame_equal(runs.drop(columns="source"), all_runs.drop(columns="source"), check_exact=True)
    of_others = all_rows["method"] != MINE
    expected = pd.concat([all_rows[~of_others], stored.thinned(all_rows[of_others])])
    expected = expected.sort_values([*RUN, "checkpoint", "metric"], ignore_index=True)
    pd.testing.assert_frame_equal(rows, expected, check_exact=True)
    info = json.loads((tmp_path / "out" / "study.json").read_text())
    there = json.loads((reference / "study.json").read_text())
    assert info["settings"]["baseline"] == [MINE]
    assert [each["provenance"] for each in info["sources"]] == [there["provenance"]]
    del invented[:]
    assert beside().code == 0
    assert invented == []  # what is there is neither checked nor run again


def test_all_problems_are_added_to_a_few(beside, tmp_path, invented):
    assert beside("--problems", 1).code == 0
    assert len(invented) == 1 + 3
    del invented[:]
    assert beside().code == 0
    assert len(invented) == 1 + 3
    assert {name.split(" / ")[0] for name in invented} == {"figure8"}
    assert len(tables.read_table(tmp_path / "out", "runs")) == 2 * 3 * 3


def test_from_python(reference, tmp_path, invented):
    settings = {"methods": [MINE], "against": reference, "problems": 1, "out": tmp_path / "out", "report": False}
    table = bench.compare(**settings)
    assert set(table["method"]) == {MINE, *OTHERS}
    assert set(table["dataset"]) == {"circle"}
    assert len(invented) == 1 + 3


def test_the_terminal_marks_the_borrowed(beside, tmp_path, capsys):
    assert beside("--problems", 1).code == 0
    print_summary(tmp_path / "out", "test_ll")
    shown = capsys.readouterr().out
    assert "vae † " in shown
    assert f"{MINE} †" not in shown
    assert "† Not run here, but borrowed from" in shown


def test_the_borrowed_are_marked_where_they_are_shown(beside, tmp_path):
    assert beside("--problems", 1).code == 0
    study = study_tables.read(tmp_path / "out")
    sections = document(study, summary(study.measurements, study.runs), defaultdict(list))
    tables_ = [block for section in sections for block in section.blocks if isinstance(block, Table)]
    named = {cell.text for table in tables_ for row in table.rows for cell in row.cells[:2]}
    assert named >= {MINE, "vae †", "untrained †", f"{MINE} against vae †"}
    assert not named & {"vae", f"{MINE} †"}
    (note,) = [text for section in sections for block in section.blocks if (text := str(block)).count("† Not run here")]
    assert "borrowed from" in note
    assert "was repeated here" in note
    assert "Borrowed from another study: vae and untrained." in latex.tables(study)["test-ll"]


@pytest.mark.parametrize(
    ("name", "act", "told"),
    [
        ("runs", lambda runs: runs.drop(0), "1 of its runs are missing, such as circle / vae / seed 0"),
        ("runs", lambda runs: runs.__setitem__("key", "0" * 16), "packages of vae, untrained have changed since"),
        (
            "study",
            lambda info: info["datasets"]["circle"].update(data="other"),
            "the data that this code draws of circle",
        ),
        ("study", lambda info: info["evaluation"].update(code="other"), "it was made by other code of evaluation"),
        ("study", lambda info: info.pop("evaluation"), "it was made by other code of evaluation"),
        ("study", lambda info: info["evaluation"]["versions"].append("torch 1"), "packages differ: torch 1"),
    ],
    ids=["missing", "method", "data", "evaluation", "unknown", "packages"],
)
def test_what_this_code_would_not_make_is_refused_in_one_line(beside, reference, tmp_path, invented, name, act, told):
    rewrite(reference, "runs", act if name == "runs" else lambda runs: runs.__setitem__("key", "0" * 16))
    if name == "study":
        edit(reference, act)
    end = beside()
    assert end.code == 2
    assert told in end.err
    assert len(end.err.splitlines()) == 1
    assert invented == []
    assert not (tmp_path / "out").exists()


def test_a_method_whose_code_changed_can_be_run_here(beside, reference, tmp_path, invented):
    def other(runs):
        runs.loc[runs["method"] == "untrained", "key"] = "0" * 16

    rewrite(reference, "runs", other)
    assert "name them in --methods" in beside().err
    assert beside("--problems", 1, methods=f"{MINE},untrained").code == 0
    assert {name.split(" / ")[1] for name in invented} == {MINE, "vae", "untrained"}
    runs = tables.read_table(tmp_path / "out", "runs")
    assert set(runs[runs["source"] != ""]["method"]) == {"vae"}


def test_a_run_that_has_other_values_here_stops_it(beside, reference, tmp_path):
    def move(rows):
        rows.loc[rows["metric"] == "test_ll", "value"] += 1e-12

    rewrite(reference, "measurements", move)
    end = beside()
    assert end.code == 1
    assert "repeated here: value of test_ll at checkpoint 0 is" in end.err
    assert not (tmp_path / "out").exists()


def test_another_processor_may_round_otherwise_up_to_the_margin(run_spec):
    (here,) = run_block([run_spec(method="untrained")])
    rows = [dataclasses.replace(row, value=row.value + 0.01) for row in here.rows]
    other = dataclasses.replace(here, rows=rows)
    assert agreement(here, here, 0.02, True) == (True, "it has the same values to the last digit")
    assert agreement(here, other, 0.02, True)[0] is False
    assert agreement(here, other, 0.02, False) == (
        True,
        "on another processor, its final log-likelihood differs by 0.01 nats",
    )
    assert agreement(here, other, 0.005, False)[0] is False


@pytest.fixture
def timed(reference, monkeypatch):
    """A function that lets two timings of the repeated fit differ by a factor; the faster takes twice what is stored.

    CPU seconds are three times those stored. It returns what is timed.
    """
    there = tables.read_table(reference, "runs").set_index(RUN)

    def make(slower):
        seen = []

        def twice(specs):
            for spec in specs:
                run, factor = there.loc[(spec.dataset, "vae", spec.seed)], slower if seen else 1.0
                seen.append(spec)
                yield against.RunResult(spec, alone=[(run.flops, 2 * factor * run.wall_s, 3 * factor * run.cpu_s)])

        monkeypatch.setattr("bench.execution.scheduler.time_alone", twice)
        return seen

    return make


def test_seconds_are_scaled_by_the_fit_that_is_timed_here(beside, reference, tmp_path, timed):
    there = tables.read_table(reference, "runs").set_index(RUN)
    seen = timed(1.1)
    assert beside().code == 0
    assert seen[0].method == "vae"
    runs = tables.read_table(tmp_path / "out", "runs").set_index(RUN).loc[there.index]
    assert runs["wall_s"].to_numpy() == pytest.approx(2 * there["wall_s"].to_numpy())
    assert runs["cpu_s"].to_numpy() == pytest.approx(3 * there["cpu_s"].to_numpy())
    told = "Seconds are those stored, times 2.00: what its fit takes here, over there"
    assert runs["source"].str.endswith(told).all()
    rows = [
        tables.read_table(folder, "measurements").query("method == 'vae'") for folder in (reference, tmp_path / "out")
    ]
    one, two = (each.set_index([*RUN, "checkpoint", "metric"]).sort_index() for each in rows)
    assert two["wall_s"].to_numpy() == pytest.approx(2 * one["wall_s"].to_numpy())


def test_on_a_busy_machine_no_seconds_are_compared(beside, reference, tmp_path, timed):
    """Values and FLOPs are. The runs stay as they are when the study is taken up again."""
    there = tables.read_table(reference, "runs").set_index(RUN)
    timed(1.5)
    assert beside().code == 0
    out = tmp_path / "out"
    runs = tables.read_table(out, "runs").set_index(RUN).loc[there.index]
    assert runs["wall_s"].to_numpy() == pytest.approx(there["wall_s"].to_numpy())
    assert runs["concurrent"].all()
    assert runs["source"].str.contains("are not compared: two timings of its fit here are 1.5 times apart").all()
    known = comparisons(tables.read_table(out, "measurements"), tables.read_table(out, "runs"), ["vae"], 0.02)
    assert all(math.isnan(each.wall) and each.flops > 0 for one in known for each in one.differences)
    before = (out / "runs.csv").read_bytes()
    assert beside().code == 0
    assert (out / "runs.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("count", "chosen"),
    [(None, "abcdefghi"), (1, "a"), (2, "ai"), (3, "aei"), (4, "adfi"), (9, "abcdefghi"), (20, "abcdefghi")],
)
def test_problems_are_spread_over_those_of_the_study(count, chosen):
    assert "".join(against.chosen(tuple("abcdefghi"), None, count, "it")) == chosen


def test_settings_that_are_the_studys_are_refused(beside, cli, reference):
    assert "--n-train cannot be given with --against" in beside("--n-train", 40).err
    assert "unknown dataset of" in beside("-d", "torus").err
    assert "--against needs --methods" in cli("compare", "--against", reference).err
    assert "--problems needs --against" in cli("compare", "--problems", 2).err
    assert "nothing is left to borrow" in beside(methods=",".join(OTHERS)).err
    assert "holds no study" in cli("compare", "-m", "vae", "--against", reference / "runs").err


def test_a_repeated_run_is_compared_without_what_is_not_stored():
    pictures = {
        "images": [("vae", "draw", 0, 1, [0.5])],
        "densities": [("vae", 0.0, 0.0, 0.0)],
        "alone": [(1.0, 1.0, 1.0)],
    }
    there = RunResult(RunSpec(dataset="digits", method="vae", seed=0))
    here = dataclasses.replace(there, **pictures)
    assert difference(*(run_files.content_of(stored.alike(each, there)) for each in (here, there)))[0] == ""


def test_what_is_kept_gives_the_same_verdicts_costs_and_table():
    study = study_tables.read(ROOT / "results" / "reference" / "study")
    some = {"dataset": ["random_curve[seed=4]", "random_surface[seed=6]"], "method": ["mapa", "vae", "untrained"]}
    runs, rows = (table[table[[*some]].isin(some).all(axis=1)] for table in (study.runs, study.measurements))
    thin = stored.thinned(rows)
    assert {*rows["metric"]} == {*thin["metric"]}
    found = comparisons(rows, runs)
    assert str(found) == str(comparisons(thin, runs))  # nan differs from itself
    assert found[0].differences[0].match.reached
    for of in (targets, summary):
        pd.testing.assert_frame_equal(of(rows, runs), of(thin, runs))
    assert len(stored.thinned(thin)) == len(thin)
    along = rows[(rows["metric"] == "elbo") & (rows["method"] == "vae")].assign(metric="other", checkpoint=0)
    assert "other" not in {*stored.thinned(pd.concat([rows, along]))["metric"]}


def test_a_borrowed_run_gives_way_to_the_run_itself_when_studies_are_merged(beside, kept, cli, tmp_path, monkeypatch):
    assert beside("--problems", 1).code == 0
    end = cli("merge", tmp_path / "out", kept / "whole", "--out", tmp_path / "both")
    assert (end.code, end.err) == (0, "")
    runs = tables.read_table(tmp_path / "both", "runs")
    assert len(runs) == 2 * 2 * 3 + 3
    assert (runs["source"] == "").all()


def test_the_package_carries_the_reference():
    study = ROOT / "results" / "reference" / "study"
    files = sorted(path.relative_to(study) for kind in KEPT for path in study.glob(kind))
    assert {"study.json", "study.toml", "measurements.parquet", "runs.parquet", "work.parquet"} <= set(map(str, files))
    assert sum((study / file).stat().st_size for file in files) < 5_000_000
    for file in files:
        assert (PACKED / file).read_bytes() == (study / file).read_bytes()
    assert json.loads((PACKED / "study.json").read_text())["kind"] == "compare"
    setuptools = pytest.importorskip("setuptools")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        made = setuptools.Distribution()
        made.parse_config_files()
        command = made.get_command_obj("build_py")
        command.ensure_finalized()
        command.manifest_files = {}
        carried = {Path(each).relative_to("bench/reference") for each in command.find_data_files("bench", "bench")}
    assert carried == {*files}


def test_the_study_itself_is_no_place_for_the_comparison(cli, reference, unchanged):
    with unchanged(reference):
        for more in ((), ("--fresh",)):
            end = cli("compare", "--against", reference, "-m", MINE, "--out", reference / ".." / "packed", *more)
            assert end.code == 2
            assert "is the study to compare with; give another --out" in end.err
