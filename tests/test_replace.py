"""The tool that puts the runs of one study into a stored one."""

import shutil

import pandas as pd
import pytest

from bench.config.schema import Execution, Settings
from bench.store.files import read_json, write_json
from bench.study.execute import execute
from bench.study.folder import held
from bench.study.log import Silent, StudyLog
from bench.study.plan import resolve
from tools.replace import replace

CONDITIONS = {"datasets": ("circle",), "seeds": 1, "n_train": 50, "n_test": 50}


def made(out, methods, **changed):
    """A study of methods that need no time."""
    settings = Settings(methods=methods, **CONDITIONS | changed)
    with StudyLog(out, "test", Silent()) as log:
        execute(resolve(settings), out, Execution(jobs=1), log, "test")
    return out


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Two methods; one of them again with values that tell it apart; and a third one."""
    folder = tmp_path_factory.mktemp("replace")
    both = made(folder / "both", ("untrained", "oracle"))
    for path in both.glob("measurements.*"):
        table = pd.read_parquet(both / "measurements.parquet") if path.suffix == ".parquet" else pd.read_csv(path)
        table["value"] += 1000
        table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)
    return (
        both,
        made(folder / "untrained", ("untrained",)),
        made(folder / "other", ("iwae",), set={"iwae": {"steps": 2}}, baseline=("iwae",), margin=0.5),
    )


@pytest.fixture
def into(studies, tmp_path):
    return shutil.copytree(studies[0], tmp_path / "both")


def values(folder, method):
    table = pd.read_parquet(folder / "measurements.parquet")
    return table[table["method"] == method].set_index(["checkpoint", "metric"])["value"]


def test_only_the_runs_of_the_same_methods_are_others_afterwards(studies, into):
    before, new, _ = studies
    assert "1 runs of untrained are those of" in replace(new, into)
    pd.testing.assert_series_equal(values(into, "untrained"), values(new, "untrained"))
    pd.testing.assert_series_equal(values(into, "oracle"), values(before, "oracle"))
    runs = pd.read_parquet(into / "runs.parquet")
    assert runs["method"].tolist() == pd.read_parquet(before / "runs.parquet")["method"].tolist()
    written = pd.read_csv(into / "measurements.csv")
    assert written["value"].tolist() == pytest.approx(pd.read_parquet(into / "measurements.parquet")["value"].tolist())
    info = read_json(into / "study.json")
    assert info["replaced"][0]["methods"] == ["untrained"]
    assert "untrained, 2" in info["provenance"]["replaced"]
    assert info["provenance"]["started"] == read_json(before / "study.json")["provenance"]["started"]


def test_a_method_is_added_with_its_settings(studies, into):
    _, _, new = studies
    replace(new, into)
    settings = held(into).settings
    assert settings.methods == ("iwae", "untrained", "oracle")  # ceilings and floors last
    assert settings.set == {"iwae": {"steps": 2}}
    before = held(studies[0]).settings
    assert (settings.baseline, settings.margin) == (before.baseline, before.margin)
    assert pd.read_parquet(into / "runs.parquet")["method"].tolist() == ["iwae", "untrained", "oracle"]
    assert "iwae" in read_json(into / "study.json")["methods"]
    assert '"iwae"' in (into / "study.toml").read_text()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"n_test": 60}, "--n-test 50"),
        ({"datasets": ("figure8",)}, "has datasets that"),
        ({"seeds": 2}, "would lack 1 runs"),
    ],
    ids=["conditions", "datasets", "seeds"],
)
def test_a_study_of_something_else_changes_nothing(into, tmp_path, changed, told):
    files = {path: path.read_bytes() for path in into.iterdir() if path.is_file()}
    with pytest.raises(ValueError, match=told):
        replace(made(tmp_path / "else", ("untrained",), **changed), into)
    assert files == {path: path.read_bytes() for path in files}


def test_datasets_take_the_place_of_others(studies, into, tmp_path):
    new = made(tmp_path / "new", ("untrained", "oracle"), datasets=("figure8",))
    with pytest.raises(ValueError, match="has circle, not torus"):
        replace(new, into, ["torus"])
    replace(new, into, ["circle"])
    assert held(into).settings.datasets == ("figure8",)
    for name in ("runs", "measurements"):
        assert set(pd.read_parquet(into / f"{name}.parquet")["dataset"]) == {"figure8"}
        assert set(pd.read_csv(into / f"{name}.csv")["dataset"]) == {"figure8"}
    pd.testing.assert_series_equal(values(into, "oracle"), values(new, "oracle"))
    info = read_json(into / "study.json")
    assert list(info["datasets"]) == ["figure8"]
    assert "on figure8 instead of circle, 2" in info["provenance"]["replaced"]
    assert '"circle"' not in (into / "study.toml").read_text()


def test_datasets_that_take_the_place_of_others_have_all_methods(into, tmp_path):
    with pytest.raises(ValueError, match="would lack 1 runs"):
        replace(made(tmp_path / "new", ("untrained",), datasets=("figure8",)), into, ["circle"])


def test_runs_with_tuned_hyperparameters_do_not_stand_among_defaults(studies, into, tmp_path):
    tuned = shutil.copytree(studies[1], tmp_path / "tuned")
    info = read_json(tuned / "study.json")
    write_json(tuned / "study.json", info | {"tuned": {"file": "tuned.json", "sha256": "0" * 64}})
    with pytest.raises(ValueError, match="--tuned"):
        replace(tuned, into)
