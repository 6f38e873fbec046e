"""Deliberate mistakes, each of which a named check must catch, and the same checks on the correct code.

A check is a small measurement with a known answer. It returns whether the answer is right.
"""

import itertools
import math
import operator
import time
from dataclasses import dataclass

import msgspec
import pytest
import torch
from torch.distributions import Normal, kl_divergence

import datasets
from bench.fit import block
from bench.fit.flop_counter import CountingLedger
from bench.fit.runner import run_one
from bench.fit.task import make_task
from bench.metrics import Evaluator, TrueModel, codes, importance, likelihood, measurement, posterior, wasserstein
from bench.metrics.shared import _computed
from bench.registry.registry import registry
from bench.store.records import RunSpec
from datasets import quadrature
from datasets.base import draw, stream
from datasets.linear import linear_gaussian
from methods.common import amortised, training
from methods.common.held_out import CODES
from methods.common.latent_grid import exact_posterior
from methods.common.posteriors import LocalGaussian, Prior, build_encoder
from methods.contract.decoder import build_model
from methods.contract.method import Fitted, NullLedger, Posterior, Task
from methods.likelihoods import Bernoulli, Poisson, gaussian

SPEC = RunSpec(dataset="circle", method="vae", seed=0, n_train=40, n_test=50, max_flops=2e7)


@dataclass(frozen=True)
class Linear(Posterior):
    """A linear-Gaussian model of L = 1 that is not known to be the truth, with its exact posterior."""

    problem: datasets.base.Problem

    def decode(self, z):
        return self.problem.decoder(z.double())

    def variance(self):
        return self.problem.noise_variance

    def at(self, x):
        zero = self.decode(torch.zeros(1, 1))
        slope = self.decode(torch.ones(1, 1)) - zero
        precision = 1 + slope.square().sum() / self.variance()
        return Normal((x - zero) @ slope.T / self.variance() / precision, precision.rsqrt())

    def sample(self, x, count, generator):
        q = self.at(x)
        z = q.mean + q.stddev * torch.randn(count, len(x), 1, generator=generator, dtype=torch.float64)
        return z, q.log_prob(z).sum(-1)


def linear_scores(n=300):
    problem = linear_gaussian(1)
    split = draw(problem, 0, 1, 1, n)
    model = Linear(problem)
    return {m.metric: m for m in Evaluator(problem, split, 0).evaluate_checkpoint(Fitted(model, model))}


def task(name="circle", n=60, train=None, ledger=None):
    problem = datasets.load(name)
    split = draw(problem, 0, n, n, 1)
    train = (split.train if train is None else train).float()
    model = build_model(train, problem.latent_dim, problem.noise_variance, stream("initial weights", 0, "decoder"))
    return Task(train, split.validation.float(), model, stream("training", 0, "draws"), ledger or NullLedger())


# The checks


def bound_is_below_the_likelihood_and_tight_at_the_exact_posterior():
    return abs(linear_scores()["inference_gap"].value) < 1e-9


def truth_scored_as_a_learned_model_has_no_gap():
    found = linear_scores()["oracle_gap"]
    return abs(found.value) <= found.stderr + 1e-9


def training_bound_is_the_expected_likelihood_less_the_kl_of_torch():
    model = task().model
    encoder, x = build_encoder(model, stream("check", 0, "encoder")), task().train
    noise = torch.randn(len(x), 1, generator=stream("check", 0, "noise"))
    with torch.no_grad():
        mean, log_scale = encoder.moments(x)
        q = Normal(mean, log_scale.exp())
        z = mean + log_scale.exp() * noise
        likelihood_of = Normal(model.decode(z), math.sqrt(model.variance())).log_prob(x).sum(-1)
        expected = likelihood_of - kl_divergence(q, Normal(0.0, 1.0)).sum(-1)
        return torch.allclose(training.elbo(model, encoder, x, noise), expected, atol=1e-3)


def importance_sampling_from_the_exact_posterior_is_exact():
    problem = linear_gaussian(1)
    x = draw(problem, 0, 1, 1, 20).test
    model = Linear(problem)
    found = importance.importance_log_prob(model, model, x, 50, torch.Generator().manual_seed(0))
    return torch.allclose(found.value, problem.exact_log_prob(x))


def all_work_is_counted_as_counting_everything_does():
    class Thorough(CountingLedger):
        def run(self, name, work, *args):
            return work(*args)

    def count(ledger):
        method, one = registry().make_method("iterative"), task(ledger=ledger)
        fit = method.fit(one)
        ledger.start()
        for _ in zip(range(40), fit, strict=False):
            pass
        ledger.stop()
        return ledger.flops

    return count(CountingLedger()) == count(Thorough())


def an_update_of_adam_is_charged_for():
    parameter = torch.nn.Parameter(torch.ones(100))
    parameter.grad = torch.ones(100)
    optimiser, ledger = torch.optim.Adam([parameter], fused=True), CountingLedger()
    ledger.start()
    optimiser.step()
    ledger.stop()
    return ledger.flops >= 5 * 100


def every_step_costs_the_same():
    """Of a method whose steps are all alike but for a look at validation data, also when the ledger knows them."""
    ledger, every = CountingLedger(), 100
    one = task(n=60, ledger=ledger)
    ledger.watch(decoder=one.model.network)
    fit = registry().make_method("vae").fit(one)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(amortised, "VALIDATE_EVERY", every)
        ledger.start()
        costs = [(ledger.flops, ledger.encoder_passes, ledger.decoder_passes) for _ in itertools.islice(fit, 250)]
        ledger.stop()
    each = [tuple(map(operator.sub, after, before)) for before, after in itertools.pairwise(costs)]
    looks = {each.pop(step - 2) for step in (2 * every, every)}  # the first cost is that of step 2
    (step, *passes), (look, *more), *others = *set(each), *looks
    return not others and 0 < step < look and (passes, more) == ([60, 60], [60, 60 + CODES])


def counting_is_off_the_clocks():
    """With an operator that takes 1 ms to count, a run of some 10 ms has seconds of its own only."""
    count, counted = CountingLedger._count, []

    def slow(self, *call):
        end = time.process_time() + 1e-3
        while time.process_time() < end:
            counted.append(1)
        count(self, *call)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CountingLedger, "_count", slow)
        cost = run_one(msgspec.structs.replace(SPEC, max_flops=1e6, n_test=5, seed=1)).cost
    return bool(counted) and max(cost.cpu_s, cost.wall_s) < 0.2


def evaluation_changes_nothing():
    """The last values of a run are those of a fit that is evaluated only at its end."""
    result = run_one(SPEC)
    method, problem = registry().make_method("vae"), datasets.load("circle")
    split = draw(problem, 0, 40, 40, 50)
    ledger = CountingLedger()
    fit = method.fit(make_task(method, problem, split, SPEC, ledger))
    ledger.start()
    while ledger.flops < SPEC.max_flops:
        fitted = next(fit)
    ledger.stop()
    expected = Evaluator(problem, split, 0).evaluate_checkpoint(fitted)[0].value
    last = [row.value for row in result.rows if row.metric == "test_ll"][-1]
    return len({row.checkpoint for row in result.rows}) > 3 and last == expected


@dataclass(frozen=True)
class Memory:
    """A model that generates the data that it was given, with little noise."""

    data: torch.Tensor

    def decode(self, z):
        n = len(self.data)
        return self.data[(torch.special.ndtr(z[..., 0]) * n).long().clamp(max=n - 1)]

    def variance(self):
        return 1e-3


def nothing_is_better_than_the_truth():
    problem = datasets.load("figure8")
    split = draw(problem, 0, 60, 60, 60)
    fitted = Fitted(Memory(given(split)), Prior(1))
    found = {m.metric: m for m in Evaluator(problem, split, 0).evaluate_checkpoint(fitted)}["oracle_gap"]
    return found.value >= -3 * found.stderr


def given(split):
    """The data that a method is given."""
    return split.train


def evaluation_is_off_the_clock():
    return run_one(SPEC).cost.wall_s < 0.5


def log_likelihood_is_that_of_brute_force():
    problem = datasets.load("spiral_dots")
    x = draw(problem, 0, 1, 1, 20).test
    z = torch.linspace(-9, 9, 400_001, dtype=torch.float64)[:, None]
    exponent = torch.cdist(x, problem.decoder(z)).square() / (-2 * problem.noise_variance) - z[:, 0].square() / 2
    normaliser = 0.5 * math.log(2 * math.pi) + math.log(2 * math.pi * problem.noise_variance)
    brute = torch.logsumexp(exponent, 1) + math.log(float(z[1] - z[0])) - normaliser
    return float((problem.log_prob(x).value - brute).abs().mean()) < 2e-3


def log_likelihood_of_bits_and_counts_is_that_of_brute_force():
    codes = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None]
    weight = Normal(0.0, 1.0).log_prob(codes[:, 0]) + math.log(16 / 4000)
    families = {"binary_curve": lambda o: torch.distributions.Bernoulli(logits=o), "count_curve": counts}
    off = []
    for name, family in families.items():
        problem = datasets.load(name)
        x = draw(problem, 0, 1, 1, 20).test
        terms = family(problem.decoder(codes)).log_prob(x[:, None]).sum(-1) + weight
        found = problem.log_prob(x)
        off.append(float((found.value - terms.logsumexp(1)).abs().max() - found.error.max()))
    return max(off) < 1e-3


def counts(log_rates):
    return torch.distributions.Poisson(log_rates.exp())


def standard_errors_are_the_spread_of_means():
    values = torch.randn(400, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = [measurement.mean("x", each) for each in values]
    spread = torch.tensor([m.value for m in found]).std()
    return 0.8 < float(spread) / found[0].stderr < 1.25


def signal_distance_does_not_see_the_parameterisation():
    problem = datasets.load("figure8")
    x = draw(problem, 0, 1, 1, 20).test

    class Mirrored(TrueModel):
        def decode(self, z):
            return super().decode(-z)

    truth = exact_posterior(TrueModel(problem), 1)
    mirrored = Mirrored(problem)
    fitted = Fitted(mirrored, exact_posterior(mirrored, 1))
    (found,) = posterior.signal_distance(fitted, problem, truth, x, 0)
    return found.value < 0.02


def signal_distance_is_the_root_of_the_mean_square():
    """Of posteriors on a line, of which every second one is moved by one unit of z."""
    problem = linear_gaussian(1)
    x = draw(problem, 0, 1, 1, 20).test
    truth = exact_posterior(TrueModel(problem), 1)

    class Moved(Posterior):
        def sample(self, x, count, generator):
            raise NotImplementedError

        def from_uniform(self, x, u):
            return truth.from_uniform(x, u) + (torch.arange(len(x)) % 2)[:, None]

    (found,) = posterior.signal_distance(Fitted(TrueModel(problem), Moved()), problem, truth, x, 0)
    unit = problem.decoder(torch.ones(1, 1).double()) - problem.decoder(torch.zeros(1, 1).double())
    return math.isclose(found.value, float(unit.norm()) / math.sqrt(2), rel_tol=1e-6)


def transport_does_not_see_the_order_of_points():
    points = torch.randn(1, 30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return float(wasserstein.squared_w2(points, points.flip(1))) < 1e-12


def index_divergence_of_the_uniform_posterior_is_the_missing_entropy():
    problem, n = datasets.load("figure8"), 40
    split = draw(problem, 0, n, 1, 1)
    fitted = Fitted(TrueModel(problem), Prior(1), lambda x: torch.full((len(x), n), -math.log(n)).double())
    found = posterior.index_divergence(fitted, problem, split.train, split.codes)[0]
    squared = torch.cdist(split.train, problem.decoder(split.codes)).square()
    entropy = torch.distributions.Categorical(logits=-squared / (2 * problem.noise_variance)).entropy().mean()
    return abs(found.value - (math.log(n) - float(entropy))) < 1e-6


def codes_of_two_widths():
    """What is measured of codes of 500 points: half of them have q = N(0, e^-4), half N(0, 1)."""
    log_scales = torch.tensor([-2.0, 0.0], dtype=torch.float64).repeat(250)[:, None]
    q, x = LocalGaussian(torch.zeros_like(log_scales), log_scales), torch.zeros_like(log_scales)
    found = codes.code_use(q, x, likelihood.encoded(Fitted(Linear(linear_gaussian(1)), q), x, 16, 0))
    return {m.metric: m for m in found}


def information_is_an_integral_over_codes():
    z = torch.linspace(-15, 15, 20_001, dtype=torch.float64)
    mixture = (Normal(0.0, math.exp(-2)).log_prob(z).exp() + Normal(0.0, 1.0).log_prob(z).exp()) / 2
    entropy = -torch.trapezoid(torch.special.xlogy(mixture, mixture), z)
    found = codes_of_two_widths()["mutual_information"]
    return abs(found.value - float(entropy) + Normal(0.0, 1.0).entropy() - 1.0) < 4 * found.stderr


def kl_to_the_prior_is_that_of_torch():
    expected = kl_divergence(Normal(0.0, math.exp(-2)), Normal(0.0, 1.0)) / 2
    return abs(codes_of_two_widths()["kl_to_prior"].value - float(expected)) < 0.05


def a_posterior_equal_to_the_prior_has_no_active_units():
    x, model = torch.zeros(500, 1, dtype=torch.float64), Linear(linear_gaussian(1))
    found = codes.code_use(Prior(1), x, likelihood.encoded(Fitted(model, Prior(1)), x, 16, 0))
    return {m.metric: m.value for m in found}["active_units"] == 0


def the_error_of_a_trimmed_mean_is_the_spread_of_such_means():
    """Of Cauchy variables, whose plain mean has no error."""
    normal = torch.randn(2, 400, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = [measurement.tails("x", each, torch.zeros_like(each))[0] for each in normal[0] / normal[1]]
    spread, claimed = (torch.tensor([getattr(m, name) for m in found]) for name in ("value", "stderr"))
    return abs(float(spread.std() / claimed.square().mean().sqrt()) - 1) < 0.15


def the_worst_points_of_a_gap_are_the_highest():
    gaps = torch.arange(200, dtype=torch.float64) - 50
    return measurement.tails("x", gaps, torch.zeros_like(gaps))[1].value == (149 + 148) / 200


# The mistakes


def flipped_kl(patch):
    right = training.elbo

    def wrong(model, encoder, x, noise):
        mean, log_scale = encoder.moments(x)
        kl = 0.5 * (mean.square() + (2 * log_scale).exp() - 1).sum(-1) - log_scale.sum(-1)
        return right(model, encoder, x, noise) + 2 * kl

    patch.setattr(training, "elbo", wrong)


def lost_constant(patch):
    def wrong(residual, log_noise):
        return -residual.square().sum(-1) / (2 * log_noise.exp()) - residual.shape[-1] / 2 * log_noise

    patch.setattr(gaussian, "gaussian_log_prob", wrong)


def lost_constant_of_the_prior(patch):
    patch.setattr(likelihood, "standard_normal_log_prob", lambda z: -z.square().sum(-1) / 2)


def deviation_for_variance(patch):
    patch.setattr(Linear, "variance", lambda self: math.sqrt(self.problem.noise_variance))


def unnormalised_weights(patch):
    right = importance.summarise

    def wrong(log_weight, khat):
        found = right(log_weight, khat)
        return importance.Estimate(found.value + math.log(len(log_weight)), found.error, found.ess, found.khat)

    patch.setattr(importance, "summarise", wrong)


def off_the_account(ledger, work, *args):
    ledger.stop()
    try:
        return work(*args)
    finally:
        ledger.start()


def skipped_inner_loop(patch):
    right = CountingLedger.run

    def wrong(self, name, work, *args):
        if name != "encoder step":
            return right(self, name, work, *args)
        return off_the_account(self, work, *args)

    patch.setattr(CountingLedger, "run", wrong)


def free_optimiser(patch):
    right = CountingLedger._count

    def wrong(self, function, *call):
        if "adam" not in function._schema.name:
            right(self, function, *call)

    patch.setattr(CountingLedger, "_count", wrong)


def free_after_a_hundred_calls(patch):
    right = CountingLedger.run
    calls = []

    def wrong(self, name, work, *args):
        calls.append(name)
        if len(calls) <= 100:
            return right(self, name, work, *args)
        return off_the_account(self, work, *args)

    patch.setattr(CountingLedger, "run", wrong)


def decoder_passes_free_after_a_hundred_calls(patch):
    right = CountingLedger._pass
    calls = []

    def wrong(self, network, forward, *args, **kwargs):
        calls.append(network)
        if network == "decoder" and len(calls) > 100:
            return forward(*args, **kwargs)
        return right(self, network, forward, *args, **kwargs)

    patch.setattr(CountingLedger, "_pass", wrong)


def cpu_seconds_that_include_counting(patch):
    right = block.Block._advance

    def wrong(self):
        (replica,) = self.replicas
        overhead = replica.ledger.overhead_s
        found = right(self)
        replica.spend(0.0, replica.ledger.overhead_s - overhead)
        return found

    patch.setattr(block.Block, "_advance", wrong)


def evaluation_with_the_training_generator(patch):
    make, evaluate_checkpoint = make_task, Evaluator.evaluate_checkpoint
    seen = []

    def remember(*args):
        made = make(*args)
        seen.append(made.generator)
        return made

    def wrong(self, fitted, *draws):
        torch.randn(3, generator=seen[-1])
        return evaluate_checkpoint(self, fitted, *draws)

    patch.setattr(block, "make_task", remember)
    patch.setattr(Evaluator, "evaluate_checkpoint", wrong)


def leaked_test_set(patch):
    patch.setitem(globals(), "given", lambda split: split.test)


def clock_that_runs_on(patch):
    evaluate_checkpoint = Evaluator.evaluate_checkpoint

    def slow(self, fitted, *draws):
        time.sleep(0.2)
        return evaluate_checkpoint(self, fitted, *draws)

    def wrong(self, fitted, *draws, evaluate=block.Replica._checkpoint):
        start = time.perf_counter()
        evaluate(self, fitted, *draws)
        self.spend(time.perf_counter() - start, 0.0)

    patch.setattr(Evaluator, "evaluate_checkpoint", slow)
    patch.setattr(block.Replica, "_checkpoint", wrong)


def quantiles_for_nodes(patch):
    """Midpoints of equal quantiles, which miss the tails."""

    def wrong(decode, family, x, latent_dim, tolerance):
        noise = family.dispersion
        centres = decode(quadrature.normal_codebook(180, latent_dim))
        value = torch.logsumexp(torch.cdist(x, centres).square() / (-2 * noise), 1) - math.log(180)
        value -= x.shape[1] / 2 * math.log(2 * math.pi * noise)
        return quadrature.LogProb(value, torch.zeros_like(value))

    patch.setattr(datasets.base, "log_marginal", wrong)


def lost_factorial(patch):
    patch.setattr(Poisson, "base", Bernoulli.base)


def flipped_bits(patch):
    right = Bernoulli.log_partition
    patch.setattr(Bernoulli, "log_partition", lambda self, outputs: right(self, -outputs))


def error_of_one_point(patch):
    patch.setattr(measurement, "standard_error", lambda each: float(each.std()) / len(each))


def distance_in_latent_space(patch):
    right = posterior._points

    def wrong(fitted, problem, truth, x, counts, seed, shared):
        sides = (right(q, x, counts, problem.latent_dim, seed) for q in (truth, fitted.posterior))
        return [tuple(z.transpose(0, 1) for z in pair) for pair in zip(*sides, strict=True)]

    patch.setattr(posterior, "signals", wrong)


def mean_of_roots(patch):
    def wrong(metric, squares, numerical_error, unit):
        return measurement.mean(metric, squares.sqrt(), torch.tensor(numerical_error), unit)

    patch.setattr(posterior, "root_mean", wrong)


def transport_in_order(patch):
    patch.setattr(wasserstein, "_cheapest", lambda first, second: (first - second).square().sum(1).mean())


def reversed_divergence(patch):
    right = posterior.index_divergence

    def wrong(fitted, problem, train, codes):
        squared = torch.cdist(train, problem.decoder(codes)).square()
        log_p = torch.log_softmax(-squared / (2 * problem.noise_variance), 1).clamp(min=-700)
        log_q = fitted.log_index(train)
        kl = (log_q.exp() * (log_q - log_p)).sum(1)
        return [measurement.mean("index_kl", kl), *right(fitted, problem, train, codes)[1:]]

    patch.setattr(posterior, "index_divergence", wrong)


def flipped_information(patch):
    right = LocalGaussian.log_prob
    patch.setattr(LocalGaussian, "log_prob", lambda self, z, x: -right(self, z, x))


def aggregate_over_codes(patch):
    """q(z) of each x is a mean over codes, where it is one over x."""
    right = LocalGaussian.log_prob
    patch.setattr(LocalGaussian, "log_prob", lambda self, z, x: right(self, z, x).T)


def flipped_kl_to_the_prior(patch):
    right = codes.mean
    patch.setattr(codes, "mean", lambda metric, each: right(metric, -each))


def variance_of_estimated_means(patch):
    right = codes._active_units
    patch.setattr(codes, "_active_units", lambda means, noise: right(means, torch.zeros_like(noise)))


def error_of_the_points_that_are_kept(patch):
    """The standard deviation without the tails, as if the points kept were all that were drawn."""

    def wrong(metric, each, error):
        g = len(each) // 100
        return [measurement.mean(metric, each.sort().values[g:-g], error)]

    patch.setattr(measurement, "tails", wrong)


def gaps_of_the_other_sign(patch):
    right = measurement.tails
    patch.setattr(measurement, "tails", lambda metric, each, error: right(metric, -each, error))


def stale_weights(patch):
    """Each evaluation sees the weights of the evaluation before."""
    evaluate_checkpoint = Evaluator.evaluate_checkpoint
    kept = {}

    def wrong(self, fitted, *draws):
        state = {k: v.clone() for k, v in fitted.model.state_dict().items()}
        before = kept.get("state", state)
        kept["state"] = state
        fitted.model.load_state_dict(before)
        try:
            return evaluate_checkpoint(self, fitted, *draws)
        finally:
            fitted.model.load_state_dict(state)

    patch.setattr(Evaluator, "evaluate_checkpoint", wrong)


PLANTED = {
    flipped_kl: training_bound_is_the_expected_likelihood_less_the_kl_of_torch,
    lost_constant: bound_is_below_the_likelihood_and_tight_at_the_exact_posterior,
    lost_constant_of_the_prior: bound_is_below_the_likelihood_and_tight_at_the_exact_posterior,
    deviation_for_variance: truth_scored_as_a_learned_model_has_no_gap,
    unnormalised_weights: importance_sampling_from_the_exact_posterior_is_exact,
    skipped_inner_loop: all_work_is_counted_as_counting_everything_does,
    free_optimiser: an_update_of_adam_is_charged_for,
    free_after_a_hundred_calls: every_step_costs_the_same,
    decoder_passes_free_after_a_hundred_calls: every_step_costs_the_same,
    cpu_seconds_that_include_counting: counting_is_off_the_clocks,
    evaluation_with_the_training_generator: evaluation_changes_nothing,
    stale_weights: evaluation_changes_nothing,
    leaked_test_set: nothing_is_better_than_the_truth,
    clock_that_runs_on: evaluation_is_off_the_clock,
    quantiles_for_nodes: log_likelihood_is_that_of_brute_force,
    lost_factorial: log_likelihood_of_bits_and_counts_is_that_of_brute_force,
    flipped_bits: log_likelihood_of_bits_and_counts_is_that_of_brute_force,
    error_of_one_point: standard_errors_are_the_spread_of_means,
    distance_in_latent_space: signal_distance_does_not_see_the_parameterisation,
    mean_of_roots: signal_distance_is_the_root_of_the_mean_square,
    transport_in_order: transport_does_not_see_the_order_of_points,
    flipped_information: information_is_an_integral_over_codes,
    aggregate_over_codes: information_is_an_integral_over_codes,
    flipped_kl_to_the_prior: kl_to_the_prior_is_that_of_torch,
    variance_of_estimated_means: a_posterior_equal_to_the_prior_has_no_active_units,
    error_of_the_points_that_are_kept: the_error_of_a_trimmed_mean_is_the_spread_of_such_means,
    gaps_of_the_other_sign: the_worst_points_of_a_gap_are_the_highest,
    reversed_divergence: index_divergence_of_the_uniform_posterior_is_the_missing_entropy,
}


@pytest.fixture(autouse=True)
def small_evaluation(monkeypatch):
    """Evaluate runs with coarse plots and few draws, which no check looks at, and remember nothing of other checks."""
    monkeypatch.setattr("bench.metrics.evaluator.GRID_POINTS", 20)
    monkeypatch.setattr("bench.metrics.samples.DRAWS", 100)
    monkeypatch.setattr("bench.metrics.shared._computed", _computed.__wrapped__)


@pytest.mark.parametrize("check", dict.fromkeys(PLANTED.values()), ids=lambda check: check.__name__)
def test_a_check_passes_the_correct_code(check):
    assert check()


@pytest.mark.parametrize("mistake", PLANTED, ids=lambda mistake: mistake.__name__)
def test_a_mistake_is_caught_by_its_check(mistake, monkeypatch):
    mistake(monkeypatch)
    assert not PLANTED[mistake]()
