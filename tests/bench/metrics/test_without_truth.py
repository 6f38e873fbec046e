"""What is measured on observations, whose true model is not known, and what is not."""

import math

import pytest
import torch

from bench.fit.runner import run_one
from bench.metrics import Evaluator, TrueModel
from datasets.base import Observations, draw
from datasets.linear import linear_gaussian
from methods.common.posteriors import Prior
from methods.contract.method import Fitted


def by_name(measurements):
    return {m.metric: m for m in measurements}


def without_truth(problem, n=600):
    return Observations("own", problem.latent_dim, draw(problem, 0, 1, 1, n).test)


@pytest.mark.parametrize("latent", [1, 3])
def test_without_a_truth_what_needs_none_is_measured_and_the_rest_left_out(latent):
    problem = linear_gaussian(latent)
    data = without_truth(problem)
    split = draw(data, 0, 100, 100, 60)
    fitted = Fitted(TrueModel(problem), Prior(latent), lambda x: torch.full((len(x), 100), -math.log(100)))
    evaluator = Evaluator(data, split, 0)
    found = by_name(evaluator.evaluate_checkpoint(fitted))
    assert list(found) == ["test_ll", "elbo", "inference_gap", "mutual_information", "active_units", "kl_to_prior"]
    exact = problem.exact_log_prob(split.test)
    assert found["test_ll"].value == pytest.approx(float(exact.mean()), abs=5e-3)
    assert found["test_ll"].diagnostics["test_points"] == 60
    last = by_name(evaluator.evaluate_final(fitted))
    gaps = ["approximation_gap", "amortisation_gap"]
    assert list(last) == [*gaps, "sample_w2", "sample_w2_floor", *["annealing_gap"] * (latent > 2)]
    assert evaluator.nuts is None
    assert evaluator.true_posterior is None
    assert evaluator.index_posteriors("own", fitted) == []


@pytest.mark.parametrize(
    ("method", "noise", "reason"),
    [
        ("untrained", "known", "--observation-noise learned"),
        ("oracle", "learned", "no known true model, which oracle needs"),
        ("oracle", "known", "no known true model, which oracle needs"),
    ],
)
def test_what_needs_the_truth_is_skipped_on_digits(run_spec, method, noise, reason):
    result = run_one(run_spec(method=method, dataset="digits", observation_noise=noise))
    assert (result.status, reason in result.message) == ("skipped", True)


def test_what_needs_no_truth_runs_on_digits(run_spec):
    sizes = {"n_train": 100, "n_test": 20}
    result = run_one(run_spec(method="untrained", dataset="digits", observation_noise="learned", latent_dim=2, **sizes))
    assert result.status == "done"
    assert {"test_ll", "elbo", "sample_w2"} <= {row.metric for row in result.rows}
    assert not {"oracle_gap", "index_kl", "signal_w2"} & {row.metric for row in result.rows}


def test_too_many_training_data_of_digits_fail_in_one_line(run_spec):
    result = run_one(run_spec(method="untrained", dataset="digits", observation_noise="learned", n_train=1500))
    assert (result.status, "at least 200" in result.message) == ("failed", True)
