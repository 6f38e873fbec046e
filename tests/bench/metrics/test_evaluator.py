"""Scores against closed forms, their standard errors against simulation, and both against planted errors."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch.distributions import Normal, kl_divergence

import methods
from bench.fit.runner import run_one
from bench.metrics import Evaluator, NotFiniteError, TrueModel, density_grid, likelihood, measurement
from bench.metrics import evaluator as evaluator_module
from bench.metrics.evaluator import DRAWS, LAST_DRAWS
from datasets import load
from datasets.base import draw, stream
from datasets.linear import linear_gaussian
from methods.common.latent_grid import exact_posterior
from methods.common.posteriors import Prior
from methods.contract.decoder import build_model
from methods.contract.method import Fitted, Posterior


def by_name(measurements):
    return {m.metric: m for m in measurements}


@dataclass(frozen=True)
class Linear:
    """A model that is not known to be the truth: decoder z W^T + m and a variance."""

    weight: torch.Tensor
    offset: torch.Tensor
    noise: float

    @classmethod
    def of(cls, problem, shift=0.0):
        zero = torch.zeros(1, problem.latent_dim, dtype=torch.float64)
        offset = problem.decoder(zero)[0]
        weight = problem.decoder(torch.eye(problem.latent_dim, dtype=torch.float64)) - offset
        return cls(weight.T, offset + shift, problem.noise_variance)

    def decode(self, z):
        return z.double() @ self.weight.T + self.offset

    def variance(self):
        return self.noise

    def posterior(self, x):
        """The exact p(z | x) of L = 1: means (n,) and standard deviation."""
        precision = 1 + self.weight.square().sum() / self.noise
        return ((x - self.offset) @ self.weight)[:, 0] / self.noise / precision, precision.rsqrt()


@dataclass(frozen=True)
class Near(Posterior):
    """q(z | x) = the exact posterior of a linear model, moved and widened; L = 1."""

    model: Linear
    moved: float = 0.0
    widened: float = 1.0

    def at(self, x):
        mean, scale = self.model.posterior(x)
        return Normal(mean + self.moved * scale, self.widened * scale)

    def gap(self, x):
        """KL(q || p(z | x)) of each x."""
        return kl_divergence(self.at(x), Normal(*self.model.posterior(x)))

    def sample(self, x, count, generator):
        q = self.at(x)
        z = q.mean + q.stddev * torch.randn(count, len(x), generator=generator, dtype=torch.float64)
        return z[..., None], q.log_prob(z)

    def log_prob(self, z, x):
        return self.at(x).log_prob(z)


def scores(posterior=None, model=None, n=500, seed=0):
    problem = linear_gaussian(1)
    model = model or TrueModel(problem)
    split = draw(problem, seed, 1, 1, n)
    posterior = posterior or Near(Linear.of(problem))
    return split.test, by_name(Evaluator(problem, split, seed).evaluate_checkpoint(Fitted(model, posterior)))


def bound_holds(found):
    """ELBO <= log-likelihood, but for what drawing explains."""
    gap = found["inference_gap"]
    return gap.value >= -3 * gap.stderr - 1e-9


def truth_has_no_gap(found):
    """The true model, scored as if it were learned, is no other than the truth."""
    return abs(found["oracle_gap"].value) <= found["oracle_gap"].stderr + 1e-9


@pytest.mark.parametrize(("moved", "widened"), [(0.0, 1.0), (0.5, 1.0), (0.0, 2.0), (-1.0, 0.5)])
def test_the_bound_of_a_known_posterior(moved, widened):
    posterior = Near(Linear.of(linear_gaussian(1)), moved, widened)
    test, found = scores(posterior)
    gap = posterior.gap(test).mean()
    exact = linear_gaussian(1).exact_log_prob(test)
    # Per x the gap varies over draws as a quadratic in one standard normal: its deviation is that of the draws.
    u = moved + widened * torch.randn(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spread = (u.square() / 2 - ((u - moved) / widened).square() / 2).std() / math.sqrt(len(test) * DRAWS)
    assert abs(found["inference_gap"].value - gap) <= 4 * spread + 1e-9
    assert abs(found["elbo"].value - (exact.mean() - gap)) <= 4 * spread + 1e-9
    assert found["test_ll"].value == pytest.approx(exact.mean())


def test_the_bound_is_tight_draw_by_draw_at_the_exact_posterior():
    _, found = scores()
    assert abs(found["inference_gap"].value) < 1e-9
    assert found["inference_gap"].stderr < 1e-9


@pytest.mark.parametrize("shift", [0.0, 0.1, 1.0])
def test_the_gap_to_the_truth_of_a_shifted_model(shift):
    problem = linear_gaussian(1)
    model = Linear.of(problem, shift)
    test, found = scores(Near(model), model)
    moved = problem.exact_log_prob(test - shift)
    assert found["test_ll"].value == pytest.approx(float(moved.mean()), abs=1e-3)
    assert found["oracle_gap"].value == pytest.approx(float((problem.exact_log_prob(test) - moved).mean()), abs=1e-3)
    assert abs(found["inference_gap"].value) < 1e-3


@pytest.mark.parametrize(
    "dataset",
    ["figure8", "circle", "absolute", "clusters", "spiral_dots", "linear_gaussian", "s_curve", "pinwheel"],
)
def test_the_oracle_has_no_gaps(dataset):
    problem = load(dataset)
    truth = TrueModel(problem)
    evaluator = Evaluator(problem, draw(problem, 0, 1, 1, 200), 0)
    found = by_name(evaluator.evaluate_checkpoint(Fitted(truth, exact_posterior(truth, problem.latent_dim))))
    assert found["oracle_gap"].value == 0
    assert bound_holds(found)
    assert found["inference_gap"].value < 0.05


@pytest.mark.parametrize("dataset", ["circle", "s_curve"])
@pytest.mark.parametrize("method", methods.BUILTIN)
def test_the_bound_holds_at_every_checkpoint(run_spec, method, dataset, monkeypatch):
    monkeypatch.setattr(Evaluator, "evaluate_final", lambda *_: [])  # takes time and gives no bounds
    n_train = {"circle": 100, "s_curve": 40}[dataset]
    result = run_one(run_spec(method=method, dataset=dataset, seed=1, n_train=n_train, max_flops=3e7, n_test=30))
    assert result.status == "done"
    checkpoints = {row.checkpoint for row in result.rows}
    for checkpoint in checkpoints:
        found = by_name(row for row in result.rows if row.checkpoint == checkpoint)
        assert bound_holds(found)
        assert found["oracle_gap"].value >= -3 * found["oracle_gap"].stderr
        assert found["inference_gap"].value == pytest.approx(found["test_ll"].value - found["elbo"].value)
    assert len(checkpoints) > (method in ("vae", "iterative"))


def test_standard_errors_are_the_spread_over_test_sets():
    problem = linear_gaussian(1)
    model = Linear.of(problem, 0.2)
    posterior = Near(model, 0.3, 1.5)
    found = [scores(posterior, model, n=40, seed=seed)[1] for seed in range(150)]
    for metric in ("test_ll", "oracle_gap", "elbo", "inference_gap", "mutual_information", "kl_to_prior"):
        values = torch.tensor([each[metric].value for each in found])
        claimed = torch.tensor([each[metric].stderr for each in found]).square().mean().sqrt()
        # The deviation of 150 values is known to 1 / sqrt(300) = 6 %.
        assert abs(float(values.std() / claimed) - 1) < 4 * 0.058


def test_a_standard_error_includes_the_numerical_error():
    each, error = torch.tensor([1.0, 2.0, 3.0, 6.0]), torch.full((4,), 0.25)
    found = measurement.mean("test_ll", each, error)
    assert found.value == 3.0
    assert found.stderr == pytest.approx(math.hypot(float(each.std()) / 2, 0.25))


def test_one_point_has_no_standard_error():
    _, found = scores(n=1)
    assert all(math.isfinite(m.value) for m in found.values())
    assert all(math.isnan(m.stderr) for m in found.values())


def test_evaluating_draws_from_no_generator_but_its_own():
    problem = linear_gaussian(1)
    split = draw(problem, 0, 1, 1, 20)
    evaluator = Evaluator(problem, split, 0)
    fitted = Fitted(TrueModel(problem), Prior(1))
    before = torch.random.get_rng_state()
    first, second = ([*evaluator.evaluate_checkpoint(fitted), *evaluator.evaluate_final(fitted)] for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first == second
    assert by_name(Evaluator(problem, split, 1).evaluate_checkpoint(fitted))["elbo"] != by_name(first)["elbo"]


def test_the_order_of_large_test_sets_is_kept(monkeypatch):
    _, whole = scores(n=50)
    monkeypatch.setattr(likelihood, "POINTS_AT_ONCE", 7)
    _, parts = scores(n=50)
    assert parts["test_ll"] == whole["test_ll"]
    assert parts["elbo"].value == pytest.approx(whole["elbo"].value)


def test_more_draws_give_the_same_bound_with_less_noise():
    problem = linear_gaussian(1)
    split, model = draw(problem, 0, 1, 1, 200), Linear.of(problem)
    posterior = Near(model, 0.5, 1.5)
    evaluators = [Evaluator(problem, split, seed) for seed in range(5)]

    def bounds(draws):
        return torch.tensor(
            [by_name(e.evaluate_checkpoint(Fitted(model, posterior), draws))["elbo"].value for e in evaluators]
        )

    few, many = bounds(DRAWS), bounds(LAST_DRAWS)
    assert many.std() < few.std()
    assert abs(float(few.mean() - many.mean())) < 4 * float(few.std())
    assert evaluators[0].evaluate_checkpoint(Fitted(model, posterior)) == evaluators[0].evaluate_checkpoint(
        Fitted(model, posterior), DRAWS
    )


def test_a_likelihood_is_computed_once_for_a_model_and_anew_for_another(monkeypatch):
    problem, asked = load("circle"), []
    evaluator = Evaluator(problem, draw(problem, 0, 1, 1, 20), 0)
    learned = evaluator_module.learned_likelihood
    monkeypatch.setattr(evaluator_module, "learned_likelihood", lambda *a: asked.append(len(a[1])) or learned(*a))
    model = build_model(problem.sample(20, stream("a", 0, "a")).float(), 1, 0.01, stream("a", 0, "b"))
    fitted = Fitted(model, Prior(1))
    first = evaluator.evaluate_checkpoint(fitted)
    assert evaluator.evaluate_checkpoint(fitted) == first
    evaluator.evaluate_final(fitted)
    assert asked == [20]
    with torch.no_grad():
        model.network[-1].bias += 0.1
    assert by_name(evaluator.evaluate_checkpoint(fitted))["test_ll"] != by_name(first)["test_ll"]
    assert asked == [20, 20]


def test_the_true_posterior_is_computed_once_for_a_problem_and_anew_for_another():
    posteriors = [
        Evaluator(load(name), draw(load(name), seed, 1, 1, 5), seed).true_posterior
        for name, seed in (("circle", 0), ("circle", 1), ("figure8", 0))
    ]
    assert posteriors[0] is posteriors[1]
    assert posteriors[0] is not posteriors[2]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_named(bad):
    problem = linear_gaussian(1)
    good = Linear.of(problem)

    class Lost(Near):
        def sample(self, x, count, generator):
            z, log_q = super().sample(x, count, generator)
            return z, log_q + bad

    with pytest.raises(NotFiniteError, match=r"^elbo is "):
        scores(Lost(good), good, n=20)
    with pytest.raises(NotFiniteError, match="decoder"):
        scores(Near(good), Linear(good.weight * bad, good.offset, good.noise), n=20)


@pytest.mark.parametrize("dataset", ["linear_gaussian", "circle", "pinwheel"])
def test_densities_are_right_where_there_is_anything_to_see(dataset):
    problem = load(dataset)
    test = draw(problem, 0, 1, 1, 200).test
    rows = torch.tensor(
        density_grid(TrueModel(problem), problem.latent_dim, test.amin(0), test.amax(0), 12),
        dtype=torch.float64,
    )
    exact = problem.log_prob(rows[:, :2], 0.1).value
    seen = exact > exact.max() - 4
    assert seen.sum() > 5
    assert (rows[seen, 2] - exact[seen]).abs().mean() < 0.05


def learned_truth(model=None):
    problem = linear_gaussian(1)
    return scores(Near(Linear.of(problem)), model or Linear.of(problem), n=300)[1]


def test_the_checks_pass_what_is_right():
    assert bound_holds(learned_truth())
    assert truth_has_no_gap(learned_truth())


def test_a_posterior_that_is_not_normalised_breaks_the_bound():
    good = Linear.of(linear_gaussian(1))

    class Unnormalised(Near):
        def sample(self, x, count, generator):
            z, log_q = super().sample(x, count, generator)
            return z, log_q - 1.0

    _, found = scores(Unnormalised(good), good, n=300)
    assert not bound_holds(found)


def test_a_precision_in_the_place_of_the_variance_shows_as_a_gap():
    good = Linear.of(linear_gaussian(1))
    assert not truth_has_no_gap(learned_truth(Linear(good.weight, good.offset, 1 / good.noise)))
