"""The tool that times the fits of a stored study again, on one machine."""

import pandas as pd
import pytest

from bench.execution import scheduler
from bench.store.files import read_json
from bench.store.records import RunResult
from tests.test_replace import made
from tools.retime import SECONDS, retime

METHODS = ("iwae", "oracle")
DATASETS = ("circle", "absolute")


@pytest.fixture
def stored(tmp_path):
    """A study of two datasets and two seeds, with seconds of another machine."""
    folder = made(tmp_path / "stored", METHODS, datasets=DATASETS, seeds=2, set={"iwae": {"steps": 20}})
    for name in ("measurements", "runs"):
        table = pd.read_parquet(folder / f"{name}.parquet")
        table[SECONDS] += 1e6
        table.to_parquet(folder / f"{name}.parquet")
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


def table(folder, name):
    return pd.read_parquet(folder / f"{name}.parquet").set_index(["dataset", "method", "seed"])


def asked_of(rows):
    return rows.index.get_level_values("dataset") == "absolute"


def test_seconds_alone_change_and_on_the_datasets_alone_that_are_asked_for(stored):
    before = {name: table(stored, name) for name in ("runs", "measurements")}
    assert "2 fits were timed" in retime(stored, ["absolute"])
    for name, old in before.items():
        new = table(stored, name)
        asked = asked_of(new)
        assert (new.loc[asked, SECONDS] < 1e3).all(axis=None)
        pd.testing.assert_frame_equal(new[~asked], old[~asked])
        other = [column for column in old if column not in (*SECONDS, "concurrent", "timed_seed")]
        pd.testing.assert_frame_equal(new[other], old[other])
        written = pd.read_csv(stored / f"{name}.csv")
        assert written["wall_s"].tolist() == pytest.approx(new["wall_s"].tolist())
    assert set(table(stored, "runs")["timed_seed"][asked_of(table(stored, "runs"))]) == {0}
    info = read_json(stored / "study.json")
    assert info["retimed"][0]["datasets"] == ["absolute"]
    assert info["retimed"][0]["provenance"]["platform"]
    assert "absolute, 2" in info["provenance"]["retimed"]


def test_seconds_are_those_of_the_timed_fit_for_as_many_flops(stored, monkeypatch):
    monkeypatch.setattr(
        scheduler, "time_alone", lambda specs: [RunResult(s, alone=[(1e6, 2.0, 1.0), (2e6, 4.0, 2.0)]) for s in specs]
    )
    assert "4 fits were timed" in retime(stored)
    for name in ("runs", "measurements"):
        found = table(stored, name)
        assert found["wall_s"].tolist() == pytest.approx((found["flops"] * 2e-6).tolist())
        assert found["cpu_s"].tolist() == pytest.approx((found["flops"] * 1e-6).tolist())
        assert not found["concurrent"].any()
        assert found["flops"].max() > 0


def test_a_fit_that_cannot_be_timed_changes_nothing(stored, monkeypatch):
    files = {path: path.read_bytes() for path in stored.iterdir() if path.is_file()}
    monkeypatch.setattr(scheduler, "time_alone", lambda specs: [RunResult(specs[0], alone=[(1.0, 1.0, 1.0)])])
    with pytest.raises(ValueError, match="absolute / oracle / seed 0"):
        retime(stored)
    with pytest.raises(ValueError, match="has circle, absolute, not torus"):
        retime(stored, ["torus"])
    assert files == {path: path.read_bytes() for path in files}
