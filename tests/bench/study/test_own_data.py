"""Studies of a user's own table: the same values however it is given, and repeated only where its numbers changed."""

import re
import shlex
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

import bench
from bench.common.errors import UsageError
from bench.config.schema import Settings
from bench.fit.runner import run_one
from bench.store import tables
from bench.study import file
from bench.study.folder import held
from bench.study.plan import resolve

ROWS = 150
FRAME = pd.DataFrame(np.random.default_rng(1).normal(size=(ROWS, 3)), columns=["a", "b", "c"])
FRAME["c"] = FRAME["a"] ** 2 + 0.1 * FRAME["c"]
EDITED = FRAME.assign(b=FRAME["b"] + (FRAME.index == 3))
PAGE = (Path(__file__).parents[3] / "docs" / "own-data.md").read_text(encoding="utf-8")
TRUTH = {"oracle_gap", "oracle_gap_trimmed", "oracle_gap_worst", "signal_w2"}
SMALL = {"methods": "untrained", "seeds": 1, "max_flops": 1e7}


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    monkeypatch.setattr("bench.report.page.write", lambda folder: folder / "report.html")


@pytest.fixture
def files(tmp_path):
    """A folder with the same table in a file of each kind."""
    FRAME.to_csv(tmp_path / "data.csv", index=False)
    FRAME.to_parquet(tmp_path / "data.parquet")
    np.savez(tmp_path / "data.npz", FRAME.to_numpy())
    return tmp_path


def test_files_frames_and_arrays_give_the_same_values(in_process, files, values):
    given = {"csv": files / "data.csv", "parquet": str(files / "data.parquet"), "npz": files / "data.npz"}
    given |= {"frame": FRAME.assign(word="x"), "array": FRAME.to_numpy(), "matrix": FRAME.to_numpy().view(np.matrix)}
    for name, data in given.items():
        methods = ["vae", "untrained", "mapa"] if name == "csv" else ["untrained"]
        table = bench.compare(data=data, out=files / name, **{**SMALL, "methods": methods})
        assert not TRUTH & set(table["metric"])
        of_means = table[table["metric"].isin(["test_ll", "elbo", "inference_gap"])]
        assert (of_means["stderr"] > 0).all()
    runs, _ = values(files / "csv")
    assert runs["status"].tolist() == ["done"] * 3
    assert set(zip(runs["n_train"], runs["n_test"], strict=True)) == {(90, 30)}
    assert (runs["observation_noise"] == "learned").all()
    expected = [_of_untrained(table) for table in values(files / "csv")]
    for name in given:
        for one, other in zip(expected, map(_of_untrained, values(files / name)), strict=True):
            shared = [column for column in other if column in one]  # but the hyperparameters of other methods
            pd.testing.assert_frame_equal(other[shared], one[shared], check_dtype=False)


def _of_untrained(table):
    return table[table["method"] == "untrained"].reset_index(drop=True)


def test_moving_a_file_repeats_nothing_and_editing_it_does(cli, invented, files):
    def made(path):
        invented.clear()
        words = ("--data", path, "-m", "untrained", "--seeds", 2, "--out", files / "out", "--quiet")
        assert cli("compare", *words).code == 0
        return len(invented)

    assert made(files / "data.csv") == 2
    assert made(files / "data.csv") == 0
    (files / "elsewhere").mkdir()
    moved = Path(shutil.move(files / "data.csv", files / "elsewhere" / "data.csv"))
    assert made(moved) == 0
    assert held(files / "out").settings.data == (str(moved),)
    EDITED.to_csv(moved, index=False)
    assert made(moved) == 2


def test_a_frame_that_changed_is_run_again_and_the_old_one_is_kept(invented, files):
    for frame, made in ((FRAME, 1), (FRAME, 1), (EDITED, 2), (FRAME, 2)):
        bench.compare(data=frame, out=files / "out", **SMALL)
        assert len(invented) == made
    assert len([*(files / "out" / "data").iterdir()]) == 2


def test_the_study_file_makes_the_same_runs(cli, invented, files):
    given = {"data": {"mine": FRAME}, "columns": ["a", "b"], "datasets": "mine[latent_dim=1]"}
    bench.compare(out=files / "out", **given, **SMALL)
    moved = Path(shutil.move(files / "out", files / "moved"))  # its data go with it
    plan, _ = file.read_plan(moved / "study.toml")
    assert [(spec.latent_dim, spec.columns) for spec in plan.runs] == [(1, ("a", "b"))]
    assert [spec.key for spec in plan.runs] == tables.read_table(moved, "runs")["key"].tolist()
    assert "1 run: 1 done" in cli("status", moved).out
    assert cli("run", moved / "study.toml", "--out", moved, "--quiet").code == 0
    assert len(invented) == 1


def test_a_study_file_names_files_from_its_own_folder(files):
    text = 'methods = ["untrained"]\ndata = ["data.csv"]\ncolumns = ["b", "{}"]\n'
    (files / "study.toml").write_text(text.format("c"))
    plan, _ = file.read_plan(files / "study.toml")
    assert plan.settings.data == (str(files / "data.csv"),)
    assert [*plan.datasets] == ["data"]
    (files / "study.toml").write_text(text.format("x"))
    with pytest.raises(UsageError, match=r"study\.toml, line 2: data .*data\.csv: unknown column 'x'"):
        file.read_plan(files / "study.toml")


def test_own_data_are_added_to_a_study_of_other_datasets(invented, files):
    shutil.copy(files / "data.csv", files / "two.csv")
    bench.compare(datasets="circle", out=files / "out", **SMALL)
    bench.compare(data=[files / "data.csv", files / "two.csv"], out=files / "out", **SMALL)
    assert len(invented) == 3
    runs = tables.read_table(files / "out", "runs").set_index("dataset")
    assert runs["n_train"].to_dict() == {"circle": 500, "data": 90, "two": 90}
    assert runs["n_test"].to_dict() == {"circle": 2000, "data": 30, "two": 30}
    assert runs["observation_noise"].to_dict() == {"circle": "known", "data": "learned", "two": "learned"}
    for name, flag, value in (("n_train", "--n-train", 60), ("columns", "--columns", ["a"])):
        with pytest.raises(UsageError, match=f"holds a study with {flag} none, got"):
            bench.compare(data=files / "data.csv", out=files / "out", **SMALL, **{name: value})


def test_a_study_that_states_the_defaults_goes_on(invented, files):
    """As those do that were made before the sizes could depend on the dataset."""
    stated = {"n_train": 500, "n_test": 2000, "observation_noise": "known"}
    bench.compare(datasets="circle", out=files / "out", **SMALL, **stated)
    bench.compare(datasets="circle", out=files / "out", **SMALL)
    assert len(invented) == 1


def test_studies_of_different_data_are_not_merged(cli, invented, files):
    for name, frame, seed in (("one", FRAME, 0), ("same", FRAME, 1), ("other", EDITED, 1)):
        bench.compare(data=frame, first_seed=seed, out=files / name, **SMALL)
    end = cli("merge", files / "one", files / "other", "--out", files / "both")
    assert (end.code, "different data called data" in end.err) == (2, True)
    assert cli("merge", files / "one", files / "same", "--out", files / "both", "--quiet").code == 0
    assert len(tables.read_table(files / "both", "runs")) == 2


def test_data_that_change_under_a_study_fail_its_runs(files):
    (spec,) = resolve(Settings(methods=("untrained",), data=(str(files / "data.csv"),), seeds=1)).runs
    EDITED.to_csv(files / "data.csv", index=False)
    result = run_one(msgspec.structs.replace(spec, n_test=20))
    assert (result.status, "were changed since the study began" in result.message) == ("failed", True)


def test_more_test_points_than_are_left_are_refused(files):
    with pytest.raises(UsageError, match="90 training points leave 30 for the test set, got --n-test 31"):
        bench.compare(data=files / "data.csv", out=files / "out", **SMALL, n_test=31)
    assert not (files / "out" / "runs").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([FRAME, FRAME.to_numpy()], "several DataFrames or arrays need names"),
        ({"my data": FRAME}, "data needs names of letters"),
        ({"mine": "text.csv"}, "data mine is a path, whose file names the dataset already; give paths in a list"),
        (3.0, r"data data: it must be an array of real numbers, \(n, D\), got float64 \(\)"),
        ([], "no data are given"),
        ({}, "no data are given"),
        (np.ma.masked_greater(FRAME.to_numpy(), 3), r"data data: row \d+, column '\d': the value is missing"),
        (FRAME * 1e-30, r"data data: column 'a' spans \d\.\d+e-30, below 1e-15: take a smaller unit"),
        (FRAME.assign(b=np.nan, d=[None, *range(ROWS - 1)]), "data data: row 1, column 'd': the value is missing"),
    ],
)
def test_data_of_another_kind_are_refused_and_nothing_is_made(invented, unchanged, tmp_path, data, message):
    with unchanged(tmp_path), pytest.raises(UsageError, match=message):
        bench.compare(data=data, out=tmp_path / "out", **SMALL)


def test_counts_are_fitted_as_counts(in_process, tmp_path):
    counts = pd.DataFrame(np.random.default_rng(0).poisson(3.0, (ROWS, 3)), columns=["a", "b", "c"])
    table = bench.compare(data=counts, likelihood="poisson", out=tmp_path / "out", **SMALL)
    assert set(table.dataset) == {"data[likelihood=poisson]"}
    again = resolve(held(tmp_path / "out").settings)
    assert [*again.datasets] == ["data[likelihood=poisson]"]


def test_the_page_runs(cli, invented, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = FRAME.set_axis(["height", "width", "depth"], axis=1)
    frame.to_csv("measurements.csv", index=False)
    frame.to_parquet("others.parquet")
    shell, python = (
        "".join(re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
        for language in ("sh", "python")
    )
    for line in shell.splitlines():
        end = cli(*shlex.split(line)[3:], "--quiet")
        assert (end.code, end.err) == (0, "")
    exec(python)
    settings = {out.name: held(out).settings for out in (tmp_path / "results").iterdir()}
    found = {name: set(resolve(each).datasets) for name, each in settings.items()}
    assert found == {
        "compare": {"measurements"},
        "two": {"measurements"},
        "files": {"measurements", "others"},
        "frame": {"data"},
        "array": {"mine"},
    }
