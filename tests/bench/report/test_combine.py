"""Several studies as one: everything once, and nothing together that was not measured alike."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from bench.report import page, study_notes
from bench.report.combine import check_out, combined, save
from bench.report.latex import STEMS
from bench.stats.summary import summary
from bench.store.join import conflicts
from bench.store.schema import TABLES
from bench.store.study_tables import Study, read

COSTS = ("wall_s", "cpu_s", "flops", "decoder_passes", "encoder_passes")
OUT = Path("both")
LOOK = {"stderr": 0.0, "unit": "nats", "concurrent": False}
DONE = {
    "role": "method",
    "status": "done",
    "message": "",
    "notes": "",
    "peak_memory_mb": 1.0,
    "concurrent": False,
    "stopped_by": "",
}
SETTINGS = {"n_train": 500, "observation_noise": "known", "tuned": None}
EMPTY = [pd.DataFrame(columns=list(TABLES[name])) for name in ("densities", "posteriors", "signals", "images", "work")]


def study_of(runs, name="one", parameters=None, truth=-1.0, keys="key", **settings):
    """A study of test_ll by (dataset, method, seed), its key of its name unless `keys` says otherwise."""
    ids = [dict(zip(("dataset", "method", "seed"), run, strict=True)) for run in runs]
    conditions = {**SETTINGS, **settings}
    del conditions["tuned"]
    given = {f"p_{key}": value for key, value in (parameters or {}).items()}
    rows = [
        {**run, "checkpoint": 0, "metric": metric, "value": value, **LOOK, **dict.fromkeys(COSTS, 1.0)}
        for run, end in zip(ids, runs.values(), strict=True)
        for metric, value in (("test_ll", end), ("oracle_gap", truth - end))
    ]
    table = [{**run, **DONE, **dict.fromkeys(COSTS, 1.0), "key": keys + str(run), **conditions, **given} for run in ids]
    told = {name: {"summary": name, "source": "a test"} for name in dict.fromkeys(run["dataset"] for run in ids)}
    about = {run["method"]: {"summary": "of a test", "source": "a test"} for run in ids}
    info = {"name": name, "command": f"run {name}", "settings": {**SETTINGS, **settings}, "datasets": told}
    info |= {"schema": 3, "methods": about, "provenance": {"commit": f"commit of {name}", "torch": "2"}}
    return Study(Path(f"results/{name}"), pd.DataFrame(rows), pd.DataFrame(table), *EMPTY, info)


def runs(*methods, dataset="circle", seeds=2):
    return {(dataset, method, seed): -2.0 - seed for method in methods for seed in range(seeds)}


def test_other_datasets_and_methods_stand_side_by_side():
    one, two = study_of(runs("mapa", "vae")), study_of(runs("vae", dataset="torus"), "two")
    found = combined([one, two], OUT, "report")
    assert (found.datasets, found.methods) == (["circle", "torus"], ["mapa", "vae"])
    pd.testing.assert_frame_equal(found.runs, pd.concat([one.runs, two.runs], ignore_index=True))
    expected = pd.concat([one.measurements, two.measurements], ignore_index=True)
    pd.testing.assert_frame_equal(found.measurements, expected)


def test_the_same_run_counts_once_and_keeps_the_first_seconds():
    one, two = study_of(runs("mapa", "vae")), study_of(runs("vae", "iwae"), "two")
    slower = replace(two, measurements=two.measurements.assign(wall_s=9.0), runs=two.runs.assign(wall_s=9.0))
    found = combined([one, slower], OUT, "report")
    assert found.datasets == ["circle"]
    assert found.runs.groupby("method", sort=False).size().to_dict() == {"mapa": 2, "vae": 2, "iwae": 2}
    assert found.measurements.groupby("method")["wall_s"].unique().map(list).to_dict() == {
        "mapa": [1.0], "vae": [1.0], "iwae": [9.0],
    }  # fmt: skip


def test_seeds_of_several_studies_are_told():
    """Seeds added after a look must not pass for seeds that were planned."""
    later = {("circle", "vae", seed): -2.0 for seed in (2, 3)}
    found = combined([study_of(runs("mapa", "vae")), study_of(later, "two")], OUT, "report")
    assert found.pooled == {"circle": ["one", "two"]}
    every = study_notes.notes(found, summary(found.measurements, found.runs), True)
    (told,) = [text for text in every if "Seeds" in text]
    assert told.startswith("Seeds of one and two are taken together on circle. The verdicts there hold only if")
    alike = combined([study_of(runs("mapa", "vae")), study_of(runs("vae", "iwae"), "two")], OUT, "report")
    assert (alike.pooled, study_notes.pooled(alike.pooled)) == ({}, [])


def split(one, two, *more):
    """What the datasets are called."""
    return combined([one, two, *more], OUT, "report").datasets


APART = ["circle @ one", "circle @ two"]


@pytest.mark.parametrize(
    "changed", [{"n_train": 1000}, {"observation_noise": "learned"}, {"max_flops": 1e9}, {"tuned": "t.json"}]
)
def test_other_conditions_are_another_dataset(changed):
    assert split(study_of(runs("mapa")), study_of(runs("vae"), "two", **changed)) == APART


def test_only_the_dataset_that_was_run_otherwise_is_renamed():
    one = study_of(runs("mapa") | runs("mapa", dataset="torus"))
    found = combined([one, study_of(runs("mapa"), "two", n_train=1000)], OUT, "report")
    assert found.datasets == ["circle @ one", "torus", "circle @ two"]
    assert set(found.section("datasets")) == {"torus", *APART}
    assert found.runs.groupby("dataset").size().to_dict() == {"circle @ one": 2, "circle @ two": 2, "torus": 2}


def test_other_hyperparameters_are_not_pooled_over_seeds():
    first, later = {("circle", "vae", 0): -2.0}, {("circle", "vae", 1): -2.0}
    plain = study_of(first, parameters={"steps": 6000, "rate": None})
    assert split(plain, study_of(later, "two", parameters={"steps": 8000})) == APART
    assert split(plain, study_of(later, "two", parameters={"steps": "6000"})) == ["circle"]
    assert split(plain, study_of({("circle", "iwae", 1): -2.0}, "two", parameters={"steps": 8000})) == ["circle"]


def test_runs_of_another_key_or_of_other_values_are_kept_apart():
    one = study_of(runs("vae"))
    assert split(one, study_of(runs("vae"), "two", keys="other")) == APART
    assert split(one, study_of({**runs("vae"), ("circle", "vae", 1): -3.1}, "two")) == APART
    failed = replace(one, runs=one.runs.assign(status="failed"), info={**one.info, "name": "two"})
    assert split(one, failed) == APART


def test_other_data_under_one_name_are_told_by_the_true_model():
    one, other = study_of(runs("mapa")), study_of(runs("vae"), "two", truth=-1.01)
    assert split(one, other) == APART
    assert split(one, study_of(runs("vae"), "two", truth=-1.0001)) == ["circle"]


def test_studies_that_agree_share_a_name():
    one, two = study_of(runs("mapa")), study_of(runs("vae"), "two")
    other = study_of(runs("vae"), "three", n_train=1000)
    assert split(one, other, two) == ["circle @ one + two", "circle @ three"]


def test_studies_of_one_name_are_told_by_their_folders():
    one, two = study_of(runs("mapa")), study_of(runs("mapa"), n_train=1000)
    found = combined([one, replace(two, folder=Path("elsewhere/one"))], OUT, "report")
    assert found.datasets == ["circle @ results/one", "circle @ elsewhere/one"]


def test_what_differs_is_told_for_each_study():
    found = combined([study_of(runs("mapa")), study_of(runs("vae"), "two", n_train=1000)], OUT, "the command")
    assert found.info["command"] == "the command"
    assert found.section("settings")["n_train"] == "one: 500; two: 1000"
    assert found.section("settings")["observation_noise"] == "known"
    assert found.section("provenance") == {"commit": "one: commit of one; two: commit of two", "torch": "2"}
    assert [(each["name"], each["command"]) for each in found.sources] == [("one", "run one"), ("two", "run two")]
    assert found.sources[1]["settings"]["n_train"] == 1000


def test_draws_of_the_truth_are_taken_from_one_study():
    grid = pd.DataFrame({"dataset": "circle", "method": "truth", "seed": 0, "x1": [0.0, 1.0], "x2": 0.0})
    one, two = (study_of(runs(method), name) for method, name in (("mapa", "one"), ("vae", "two")))
    studies = [
        replace(one, densities=grid.assign(log_density=-1.0)),
        replace(two, densities=grid.assign(log_density=-2)),
    ]
    assert combined(studies, OUT, "report").densities["log_density"].to_list() == [-1.0, -1.0]


def test_what_is_saved_is_read_again_and_can_be_combined(tmp_path):
    one = study_of(runs("mapa"), parameters={"rate": 0.1})
    found = combined([one, study_of(runs("vae"), "two", parameters={"rate": "auto"})], tmp_path / "both", "report")
    save(found)
    again = read(tmp_path / "both")
    pd.testing.assert_frame_equal(again.runs, found.runs, check_dtype=False)
    pd.testing.assert_frame_equal(again.measurements, found.measurements)
    assert again.runs["p_rate"].to_list() == ["0.1", "0.1", "auto", "auto"]
    assert again.info == json.loads(json.dumps(found.info))
    third = combined([again, study_of(runs("iwae", dataset="torus"), "three")], OUT, "report")
    assert [each["name"] for each in third.sources] == ["one", "two", "three"]


def test_where_a_combination_may_go(tmp_path):
    study, other, file, old = (tmp_path / name for name in ("study", "other", "file", "old"))
    for folder in (study, other, old):
        folder.mkdir()
    check_out(tmp_path / "new", [study])
    check_out(other, [study])
    file.write_text("")
    (other / "note").write_text("mine")
    save(combined([study_of(runs("mapa"))], old, "report"))
    check_out(old, [study])
    for out, told in ((tmp_path / "other/../study", "one of the studies"), (other, "is not empty"), (file, "a file")):
        with pytest.raises(ValueError, match=told):
            check_out(out, [study])
    (other / "study.json").write_text('{"kind": "compare"}')
    with pytest.raises(ValueError, match="is not empty"):
        check_out(other, [study])


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (study_of(runs("vae"), "two", n_train=1000), "n_train is 500 in results/one and 1000 in results/two"),
        (study_of(runs("vae"), "two", tuned="t.json"), "tuned is absent in results/one and t.json in results/two"),
        (
            study_of(runs("vae"), "two", parameters={"steps": 8}),
            "the hyperparameters of vae are defaults in results/one and steps=8 in results/two",
        ),
        (study_of(runs("vae"), "two", keys="other"), "circle / vae / seed 0: key is "),
        (study_of(runs("vae"), "two", truth=-1.01), "the test data of circle at seed 0 differ: the true model's "),
        (
            study_of({**runs("vae"), ("circle", "vae", 1): -3.1}, "two"),
            "circle / vae / seed 1: value at checkpoint 0, metric test_ll is -3.0 in results/one and -3.1 in ",
        ),
        (study_of(runs("vae"), "two"), None),
    ],
)
def test_a_conflict_names_both_folders_and_what_differs(other, expected):
    found = conflicts(study_of(runs("vae")), other, "circle")
    assert bool(found) == (expected is not None)
    assert all(each.startswith(expected) for each in found[:1])


def test_strict_agreement_counts_costs_and_seconds_may_differ():
    one, two = study_of(runs("vae")), study_of(runs("vae"), "two")
    slower = replace(two, runs=two.runs.assign(wall_s=9.0), measurements=two.measurements.assign(cpu_s=9.0))
    dearer = replace(two, measurements=two.measurements.assign(flops=9.0))
    assert conflicts(one, slower, "circle", strict=True) == conflicts(one, dearer, "circle") == []
    (found,) = conflicts(one, dearer, "circle", strict=True)
    assert "flops at checkpoint 0" in found


# The command


@pytest.fixture
def on_disk(tmp_path):
    """Two studies in folders, without their runs/."""

    def write(name, *methods, seeds=5, **settings):
        study = study_of(runs(*methods, seeds=seeds), name, **settings)
        save(replace(study, folder=tmp_path / name))
        return tmp_path / name

    return write


@pytest.fixture
def drawn_once(monkeypatch):
    """Draw the figures of a study once, however often its report is written."""
    plain, made = page.gallery, {}

    def gallery(study, table, formats):
        if study.folder not in made:
            made[study.folder] = plain(study, table, ("svg", "png", "pdf"))
        every = made[study.folder].items()
        return {kind: [asked(picture, formats) for picture in pictures] for kind, pictures in every}

    def asked(picture, formats):
        return replace(picture, images={each: picture.images[each] for each in formats})

    monkeypatch.setattr(page, "gallery", gallery)


TABLES = ("study.json", "runs.parquet", "measurements.parquet", "runs.csv")


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_report_is_written_anew_in_the_formats_asked_for(on_disk, cli, drawn_once):
    folder = on_disk("one", "mapa", "vae", seeds=1)
    before = {name: (folder / name).read_bytes() for name in files(folder)}
    assert cli("report", folder, "--format", "md").code == 0
    drawn = {Path(name).stem for name in files(folder / "figures")}
    assert drawn >= {"overview", "circle-cost"}
    made = {"report.md"} | {f"figures/{stem}.svg" for stem in drawn}
    assert files(folder) == {*before, *made}
    assert cli("report", folder, "--format", "latex").code == 0
    tables = {f"tables/{stem}.tex" for stem in STEMS}
    assert files(folder) == {*before, *made, *tables, "references.bib", *(f"figures/{stem}.pdf" for stem in drawn)}
    assert cli("report", folder, "--format", "png").code == 0
    assert all((folder / f"figures/{stem}.png").read_bytes().startswith(b"\x89PNG") for stem in drawn)
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_one_report_over_several_studies(on_disk, cli, unchanged, tmp_path, drawn_once):
    one, two = on_disk("one", "mapa", "vae", seeds=1), on_disk("two", "vae", seeds=1, n_train=1000)
    out = tmp_path / "both"
    for form in ("md", "latex"):  # it may be written over itself
        with unchanged(one), unchanged(two):
            end = cli("report", one, two, "--out", out, "--format", form, "--quiet")
        assert (end.code, end.err, end.out) == (0, "", "")
    text = (out / "report.md").read_text()
    assert "| circle @ one | mapa |" in text
    assert "| circle @ two | vae |" in text
    assert "commit of two" in text
    assert "mapa against others" in (out / "tables/differences.tex").read_text()


def damaged(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:200])


def blocked(folder):
    (folder / "figures").write_text("a file")


def of_tuning(folder):
    info = json.loads((folder / "study.json").read_text())
    info |= {"kind": "tune", "scored_on": "validation"}
    (folder / "study.json").write_text(json.dumps(info))


def edited(**changed):
    """Changes study.json."""

    def spoil(folder):
        info = json.loads((folder / "study.json").read_text())
        (folder / "study.json").write_text(json.dumps(info | changed))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (edited(datasets={"circle": {"expected_log_prob": "x"}}), "it holds values that no study has"),
        (edited(datasets={"circle": {"expected_log_prob": [1]}}), "it holds values that no study has"),
        (edited(datasets={"circle": {"test_points": "x"}}), "it holds values that no study has"),
        (edited(settings={"margin": -1}), "it holds values that no study has"),
        (edited(settings={"baseline": 3}), "it holds values that no study has"),
        (edited(tuned=3), "it holds values that no study has"),
        (edited(sources=[3]), "it holds values that no study has"),
        (lambda folder: (folder / "study.json").unlink(), "is not a study: study.json is missing"),
        (
            lambda folder: (folder / "study.json").write_text('{"schema": 9}'),
            "has schema 9, but this version reads schema 3",
        ),
        (lambda folder: (folder / "study.json").write_text('{"schema": 3, "methods": [1]}'), "does not describe"),
        (lambda folder: damaged(folder, "study.json"), "study.json is damaged"),
        (lambda folder: damaged(folder, "runs.parquet"), "runs.parquet is damaged"),
        (lambda folder: damaged(folder, "measurements.parquet"), "measurements.parquet is damaged"),
        (of_tuning, "holds results of `tune`"),
        (blocked, "cannot be written to"),
    ],
)
def test_bad_studies_are_told_in_a_line(on_disk, cli, spoil, told):
    folder = on_disk("one", "mapa", seeds=1)
    spoil(folder)
    end = cli("report", folder)
    assert end.code == 2
    assert told in end.err
    assert end.err.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("{one}", "{two}"), "needs a folder of its own: give --out DIR"),
        (("{one}", "{two}", "--out", "{two}"), "is one of the studies"),
        (("{one}", "--out", "{two}"), "is not empty and holds no report"),
        (("{one}", "--out", "{one}/study.json"), "is a file"),
        (("{one}", "--out", "{one}/study.json/below"), "cannot be written to"),
        (("{one}", "--format", "pdf"), "unknown format 'pdf'"),
        (("{one}", "--format", "latx"), "did you mean 'latex'? (available: html, md, latex, png, all)"),
        (("{one}", "nowhere", "--out", "{one}/new"), "nowhere is not a study"),
        ((), "Missing argument 'DIR...'"),
    ],
)
def test_bad_usage_is_told_in_a_line_and_writes_nothing(on_disk, cli, unchanged, tmp_path, args, told):
    folders = {name: on_disk(name, "mapa", seeds=1) for name in ("one", "two")}
    with unchanged(tmp_path):
        end = cli("report", *(each.format(**folders) for each in args))
    assert end.code == 2
    assert told in end.err
    assert end.err.count("\n") == 1


def test_the_command_never_imports_torch(on_disk):
    folder = on_disk("one", "mapa", seeds=1)
    code = f"""
import sys
from bench.cli.app import main
sys.argv = ["bench", "report", {str(folder)!r}, "--format", "all"]
try:
    main()
except SystemExit as end:
    print(end.code, *sys.modules)
"""
    root = Path(__file__).parents[3]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    _, *shown = run.stdout.splitlines()[-1].split()
    assert run.stdout.splitlines()[-1].startswith("0 ")
    assert "bench.report.latex" in shown
    assert not {"torch", "sklearn"} & set(shown)
