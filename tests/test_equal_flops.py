"""Fits that end at the FLOPs of the baseline at their seed."""

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pandas as pd
import pytest

import bench
from bench.store.study_tables import read
from tools import equal_flops
from tools.equal_flops import ends, main, path_of


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study in which the second method takes twice as many steps as the first."""
    monkeypatch.setattr(equal_flops, "OUT", tmp_path)
    given = {"datasets": ["circle"], "seeds": 2, "n_train": 50, "n_test": 500, "jobs": 1, "block": 1, "report": False}
    methods = {"vae": {"steps": 30}, "iwae": {"steps": 60, "samples": 1}}
    bench.compare(methods=[*methods], baseline="vae", set=methods, out=tmp_path / "s", **given)
    monkeypatch.setattr(sys, "argv", ["equal_flops", str(tmp_path / "s"), "--jobs", "1"])
    return read(tmp_path / "s")


def test_each_fit_ends_at_the_cost_of_the_baseline_at_its_seed(study, capsys):
    main()
    table = pd.read_csv(path_of(study)).set_index(["method", "dataset", "seed"]).sort_index()
    stored = ends(study).sort_index()
    assert {*table.index} == {*stored.index}
    pd.testing.assert_frame_equal(table.loc[["vae"]], stored.loc[["vae"]])
    share = table.loc["iwae"]["flops"] / stored.loc["vae"]["flops"]
    assert ((share >= 1) & (share < 1.1)).all()
    assert (stored.loc["iwae"]["flops"] > 1.5 * table.loc["iwae"]["flops"]).all()
    assert (table.loc["iwae"]["oracle_gap"] > stored.loc["iwae"]["oracle_gap"]).all()
    assert capsys.readouterr().out.count("\n") == 2


def test_fits_have_the_hyperparameters_of_the_study(study, monkeypatch):
    """Those of --set here; those of --tuned in the same way, for each dataset and seed."""
    asked = []

    def fitted(label, *of):
        asked.append(label)
        return {"dataset": of[0], "seed": of[1], "oracle_gap": 0.0, "flops": 1.0}

    monkeypatch.setattr(equal_flops, "fitted", fitted)
    monkeypatch.setattr(equal_flops, "ProcessPoolExecutor", lambda _: nullcontext(SimpleNamespace(map=map)))
    main()
    assert asked == ["iwae[steps=60,samples=1]"] * 2


def test_what_is_there_is_not_fitted_again(study, monkeypatch):
    main()
    before = path_of(study).read_bytes()
    monkeypatch.setattr(equal_flops, "fitted", lambda *_: pytest.fail("it was fitted again"))
    main()
    assert path_of(study).read_bytes() == before
