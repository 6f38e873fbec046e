"""A fit from Python is that of a study, and what cannot be fitted is refused."""

import numpy as np
import pandas as pd
import pytest
import torch

import bench
from bench.common.errors import UsageError
from bench.metrics.likelihood import learned_likelihood
from bench.registry.registry import registry
from datasets.base import draw

SMALL = {"n_train": 40, "max_flops": 2 * 10**7}


@pytest.mark.parametrize(("method", "dataset"), [("vae", "circle"), ("mapa", "circle"), ("iterative", "s_curve")])
def test_a_fit_has_the_values_of_a_run_of_a_study(method, dataset, tmp_path, in_process):
    given = {**SMALL, "set": {method: {"steepness": 2.0}} if method == "vae" else {}}
    table = bench.compare(
        methods=method,
        datasets=dataset,
        seeds=1,
        first_seed=3,
        n_test=500,
        block=1,
        report=False,
        out=tmp_path,
        **given,
    )
    (told,) = table[table["metric"] == "test_ll"].nlargest(1, "checkpoint")["value"]
    found = bench.fitted(method, dataset, seed=3, **given)
    source = registry().make_problem(dataset, None)
    with torch.no_grad():
        test = draw(source, 3, 40, 40, 500).test
        assert learned_likelihood(found, test, source.latent_dim, 3).value.mean().item() == pytest.approx(
            told, abs=1e-9
        )
        codes, _ = found.posterior.sample(test.float(), 1, torch.Generator().manual_seed(0))
        assert found.model.decode(codes.reshape(500, source.latent_dim)).shape == test.shape


def test_the_global_generator_is_left_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    bench.fitted("vae", "circle", n_train=20, max_flops=1.0)
    assert torch.rand(1) == expected


@pytest.mark.parametrize(
    ("method", "dataset", "given", "message"),
    [
        ("mpaa", "circle", {}, "did you mean 'mapa'"),
        ("vae", "circel", {}, "did you mean 'circle'"),
        ("vae", "circle", {"n_trian": 3}, "unknown setting 'n_trian' - did you mean 'n_train'"),
        ("vae", "circle", {"seed": -1}, "seed must be a whole number from 0 to 2147483647, got -1"),
        ("vae", "circle", {"seeds": 3}, "fitted takes one method, dataset and seed, and no seeds"),
        ("vae", "circle", {"max_seconds": 3}, "and no max_seconds"),
        ("all", "circle", {}, "fitted takes one method and one dataset, got 'all' and 'circle': 21 fits"),
        ("vae", "curves", {}, "fitted takes one method and one dataset, got 'vae' and 'curves': 5 fits"),
        (
            "oracle",
            "digits",
            {"observation_noise": "learned"},
            "oracle declines digits: digits has no known true model",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused(method, dataset, given, message):
    with pytest.raises(UsageError, match=message):
        bench.fitted(method, dataset, **given)


def test_data_of_ones_own_are_a_table_an_array_or_a_file(tmp_path):
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=["a", "b"])
    frame.to_csv(tmp_path / "t.csv", index=False)
    states = [
        bench.fitted("vae[steps=5]", name, data=data).model.state_dict()
        for name, data in (("data", frame), ("data", frame.to_numpy()), ("t", str(tmp_path / "t.csv")))
    ]
    for state in states[1:]:
        assert all(torch.equal(state[key], value) for key, value in states[0].items())
