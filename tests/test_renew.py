"""The tool that renews a stored study: what it repeats, and that it renews nothing whose values have changed."""

import shutil
from collections import Counter

import pandas as pd
import pytest

from bench.config.schema import Execution, Settings
from bench.store.files import read_json
from bench.store.records import RunSpec
from bench.store.tables import write_table
from bench.study.execute import execute
from bench.study.log import Silent, StudyLog
from bench.study.plan import resolve
from tools import renew


def test_each_method_is_repeated_for_each_latent_dimension_and_each_dataset_once_at_least():
    dims = {"a": 1, "b": 1, "c": 1, "d": 2}
    specs = [RunSpec(dataset=d, method=m, seed=s) for d in dims for m in ("one", "two") for s in range(3)]
    for _ in range(20):
        found = renew.drawn(specs, dims)
        assert {spec.dataset for spec in found} == set(dims)
        counts = Counter((spec.method, dims[spec.dataset]) for spec in found)
        assert set(counts) == {("one", 1), ("one", 2), ("two", 1), ("two", 2)}
        assert len(found) == len({spec.name for spec in found}) <= 5
    assert len({spec.seed for _ in range(20) for spec in renew.drawn(specs, dims)}) == 3


def test_datasets_whose_runs_have_todays_keys_are_not_drawn_from():
    specs = [RunSpec(dataset="torus", method="vae", seed=seed) for seed in range(3)]
    assert [spec.dataset for spec in renew.drawn(specs, {"circle": 1, "torus": 2})] == ["torus"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A study of the untrained model whose runs have the keys of other code."""
    out = tmp_path_factory.mktemp("renew") / "study"
    settings = Settings(methods=("untrained",), datasets=("circle",), seeds=1, n_train=50, n_test=50)
    with StudyLog(out, "test", Silent()) as log:
        execute(resolve(settings), out, Execution(jobs=1), log, "test")
    runs = pd.read_parquet(out / "runs.parquet")
    write_table(out / "runs.parquet", runs.assign(key="0" * 16))
    return out, runs["key"].tolist()


@pytest.fixture
def study(stored, tmp_path):
    return shutil.copytree(stored[0], tmp_path / "study")


def test_the_same_values_give_the_keys_of_todays_code(study, stored):
    assert "1 of 1 runs renewed, after 1 were repeated" in renew.renew(study)
    assert pd.read_parquet(study / "runs.parquet")["key"].tolist() == stored[1]
    assert pd.read_csv(study / "runs.csv")["key"].tolist() == stored[1]
    info = read_json(study / "study.json")
    assert info["renewed"][0]["repeated"] == ["circle / untrained / seed 0"]
    assert "1 runs were repeated with the same values" in info["provenance"]["renewed"]
    assert "has the keys of today's code" in renew.renew(study)


@pytest.mark.parametrize("metric", ["test_ll", "elbo"])
def test_another_value_in_its_last_digits_renews_nothing(study, metric):
    table = pd.read_parquet(study / "measurements.parquet")
    table.loc[table["metric"] == metric, "value"] *= 1 + 1e-14
    write_table(study / "measurements.parquet", table)
    before = {path.name: path.read_bytes() for path in study.iterdir() if path.is_file()}
    with pytest.raises(ValueError, match=r"circle / untrained / seed 0 of .* has other values; make the study again"):
        renew.renew(study)
    assert {path.name: path.read_bytes() for path in study.iterdir() if path.is_file()} == before
