"""The tool that makes some runs of a stored study again, with today's code and its own settings."""

import pandas as pd
import pytest

from bench.common.errors import UsageError
from bench.store.files import read_json
from tests.test_replace import made
from tools.remake import part, remake

METHODS = ("iwae", "untrained", "oracle")
PAIR = ["dataset", "method"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A study of two datasets whose values tell it apart from what today's code gives."""
    settings = {"datasets": ("circle", "absolute"), "set": {"iwae": {"steps": 2}}, "baseline": ("iwae",)}
    folder = made(tmp_path_factory.mktemp("remake") / "stored", METHODS, **settings)
    for name in ("measurements", "runs"):
        table = pd.read_parquet(folder / f"{name}.parquet")
        table["value" if name == "measurements" else "flops"] += 1e6
        table.to_parquet(folder / f"{name}.parquet")
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


def test_the_runs_asked_for_are_made_again_under_their_settings_and_no_others(stored, tmp_path):
    before = pd.read_parquet(stored / "runs.parquet").set_index(PAIR)
    told = remake(stored, part(stored, ["iwae", "untrained"], ["absolute"]), tmp_path / "new", jobs=1)
    assert "2 runs of iwae, untrained" in told
    after = pd.read_parquet(stored / "runs.parquet").set_index(PAIR)
    assert after.index.tolist() == before.index.tolist()
    changed = after.index[after["flops"] != before["flops"]].tolist()
    assert changed == [("absolute", "iwae"), ("absolute", "untrained")]
    assert (after["flops"] == before["flops"] - 1e6)[changed].all()
    assert set(after["p_steps"].dropna()) == {2}
    assert "iwae, untrained on absolute, 2" in read_json(stored / "study.json")["provenance"]["replaced"]
    values = pd.read_parquet(stored / "measurements.parquet").set_index(PAIR)["value"]
    assert (values[changed] < 1e5).all()
    assert (values.drop(changed) > 1e5).all()


@pytest.mark.parametrize("asked", [(["vae"],), (["iwae"], ["torus"])], ids=["method", "dataset"])
def test_what_a_study_has_not_is_named_with_what_it_has(stored, asked):
    with pytest.raises(UsageError, match=r"has iwae, untrained, oracle on circle, absolute"):
        part(stored, *asked)
