"""The comparison as a Python function."""

import subprocess
import sys
from importlib import metadata

import numpy as np
import pandas as pd
import pytest

import bench
from bench.common.errors import UsageError
from bench.store import tables
from bench.store.schema import TABLES

SMALL = {"n_train": 40, "n_test": 50, "max_flops": 10**7}


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    monkeypatch.setattr("bench.report.page.write", lambda folder: folder / "report.html")


def test_comparing_gives_the_table_of_measurements(in_process, tmp_path):
    table = bench.compare(methods=["vae", "untrained"], datasets="circle", seeds=1, **SMALL, out=tmp_path)
    assert tuple(table.columns) == TABLES["measurements"]
    assert len(in_process) == 2
    assert set(table["method"]) == {"vae", "untrained"}
    assert {"test_ll", "oracle_gap", "elbo", "inference_gap", "signal_w2", "sample_w2"} <= set(table["metric"])
    pd.testing.assert_frame_equal(table, tables.read_table(tmp_path, "measurements"))


def test_python_and_the_command_line_share_their_results(compare, invented, tmp_path):
    bench.compare(methods=["untrained"], datasets=["circle"], seeds=1, **SMALL, out=tmp_path)
    assert compare(tmp_path, "untrained", "circle", 1).code == 0
    assert len(invented) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"methods": ["mpaa"]}, "did you mean 'mapa'"),
        ({"datasets": "circel"}, "did you mean 'circle'"),
        ({"methods": []}, "no methods are named"),
        ({"plugins": ["nowhere.py"]}, r"nowhere\.py is not a file"),
        ({"baseline": "oracle"}, "unknown baseline 'oracle'"),
        ({"data": None}, "data must be a path, a DataFrame, an array"),
        ({"out": 3}, "out must be the path of a folder, got 3"),
        ({"problems": 1}, "problems needs against"),
        ({"data": [[1.0]], "columns": 3}, "columns must be a list of names, got 3"),
        ({"metod": "vae"}, "unknown setting 'metod' - did you mean 'methods'"),
    ],
)
def test_mistakes_are_told_and_nothing_is_made(invented, unchanged, tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    with unchanged(tmp_path), pytest.raises(UsageError, match=message):
        bench.compare(**{"methods": ["vae"], "datasets": ["circle"], **given})
    assert invented == []


def test_numbers_of_numpy_are_numbers(in_process, tmp_path):
    small = {name: np.int64(value) for name, value in SMALL.items()} | {"hidden": np.array([4, 5])}
    bench.compare(methods=np.array(["vae"]), datasets="circle", seeds=np.int64(1), out=tmp_path, **small,
                  set={"vae": {"steps": np.int64(2), "learning_rate": np.float64(1e-3)}})  # fmt: skip
    (run,) = tables.read_table(tmp_path, "runs").to_dict("records")
    assert (run["n_train"], run["p_steps"], run["p_learning_rate"], run["hidden"]) == (40, 2, 1e-3, "4x5")


def test_settings_are_keywords():
    with pytest.raises(TypeError, match="positional"):
        bench.compare(["vae"])


SCRIPT = """
import bench
few = {"seeds": 2, "n_train": 20, "n_test": 20}
table = bench.compare(methods="untrained", datasets="circle", **few, jobs=2, out="out", report=False)
print("seeds", *table["seed"].unique())
"""


def test_a_script_without_a_guard(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    end = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (end.returncode, end.stderr) == (0, "")
    assert end.stdout == "seeds 0 1\n"


def test_the_names_that_bench_has():
    assert bench.compare.__module__ == "bench.api"
    assert bench.__version__ == metadata.version("mapa-bench")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        bench.nothing  # noqa: B018
