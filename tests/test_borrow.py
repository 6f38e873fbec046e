"""The tool that begins a study with the runs of a stored one."""

import json

import pandas as pd
import pytest

from bench.config.schema import Execution, Settings
from bench.store import run_files
from bench.study.execute import execute
from bench.study.file import read_plan
from bench.study.log import Silent, StudyLog
from bench.study.plan import resolve
from methods.iwae import IWAE
from tools.borrow import borrow

CONDITIONS = {"seeds": 2, "n_train": 50, "n_test": 50}
SET = {"iwae": {"steps": 2}}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A study of fits of two steps, and of the true model."""
    out = tmp_path_factory.mktemp("borrow") / "stored"
    settings = Settings(methods=("iwae", "oracle"), datasets=("circle", "figure8"), set=SET, **CONDITIONS)
    with StudyLog(out, "test", Silent()) as log:
        execute(resolve(settings), out, Execution(jobs=1), log, "test")
    return out


def study_file(folder, batch_size, **changed):
    """A study whose tuned.json has a batch size for each dataset, as TOML."""
    tuned = {"datasets": {name: {"iwae": {"batch_size": size}} for name, size in batch_size.items()}}
    (folder / "tuned.json").write_text(json.dumps(tuned))
    settings = {
        "methods": ["iwae", "oracle"],
        "datasets": [*batch_size],
        "tuned": "tuned.json",
        **CONDITIONS,
        **changed,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    (folder / "study.toml").write_text("\n".join([*lines, "[set.iwae]", "steps = 2"]))
    return folder / "study.toml"


def test_runs_with_the_same_hyperparameters_are_taken_and_no_others(stored, tmp_path):
    file, out = study_file(tmp_path, {"circle": IWAE().batch_size, "figure8": 17}), tmp_path / "out"
    assert borrow(stored, file, out) == f"6 of 8 runs are those of {stored}"
    plan, _ = read_plan(file, ())
    taken = {(spec.dataset, spec.method) for spec in plan.runs if run_files.read_run(out, spec)}
    assert taken == {("circle", "iwae"), ("circle", "oracle"), ("figure8", "oracle")}
    with StudyLog(out, "test", Silent()) as log:
        execute(plan, out, Execution(jobs=1), log, "test")
    runs, before = (pd.read_parquet(each / "runs.parquet").set_index(["dataset", "method"]) for each in (out, stored))
    assert set(runs["source"].fillna("")) == {"", "the study stored, at the same hyperparameters"}
    assert (runs["source"].fillna("") == "").sum() == 2
    assert runs.loc[("circle", "iwae"), "flops"].tolist() == before.loc[("circle", "iwae"), "flops"].tolist()
    assert runs.loc[("figure8", "iwae"), "p_batch_size"].tolist() == [17, 17]
    assert borrow(stored, file, out) == f"0 of 8 runs are those of {stored}"


def test_studies_of_other_conditions_are_refused(stored, tmp_path):
    file = study_file(tmp_path, {"circle": 17}, n_test=60)
    with pytest.raises(ValueError, match=r"has --n-test 50, .* has 60"):
        borrow(stored, file, tmp_path / "out")
    assert not (tmp_path / "out").exists()
