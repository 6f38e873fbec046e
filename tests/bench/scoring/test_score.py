"""log p(x) of a model that was trained anywhere."""

import dataclasses
import functools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import bench
import datasets
from bench.common.errors import UsageError
from bench.metrics.likelihood import TrueModel, learned_likelihood, true_likelihood
from bench.scoring.score import Score
from datasets.base import draw
from datasets.curves import circle
from datasets.linear import linear_gaussian
from methods.common.posteriors import Prior
from methods.contract.method import Fitted, Posterior

ROWS = 40
NOISE = 0.1
LATENT = (1, 2, 8)


@functools.cache
def linear(latent_dim):
    """The weights and offset of linear_gaussian, points, and their log p(x) in closed form."""
    problem = linear_gaussian(latent_dim)
    offset = problem.decoder(torch.zeros(1, latent_dim, dtype=torch.float64))
    weight = problem.decoder(torch.eye(latent_dim, dtype=torch.float64)) - offset
    x = draw(problem, 0, 1, 1, ROWS).test
    return weight, offset, x, problem.exact_log_prob(x).numpy()


@functools.cache
def scored(latent_dim):
    """Its score by a function of tensors."""
    weight, offset, x, _ = linear(latent_dim)
    return bench.score(lambda z: z @ weight + offset, x, latent_dim=latent_dim, noise_variance=NOISE)


class Affine(nn.Module):
    """x = W z + m in 32 bits, with dropout."""

    def __init__(self, weight, offset):
        super().__init__()
        self.linear = nn.Linear(*weight.shape)
        self.linear.load_state_dict({"weight": weight.T.float(), "bias": offset[0].float()})
        self.dropout = nn.Dropout(0.5)

    def forward(self, z):
        return self.dropout(self.linear(z))

    def decode(self, z):
        return self(z)


@pytest.mark.parametrize("latent_dim", LATENT)
def test_the_closed_form_is_within_the_stated_error(latent_dim):
    found, exact = scored(latent_dim), linear(latent_dim)[3]
    in_errors = (found.log_p - exact) / found.error
    assert np.abs(in_errors).max() < 3.5
    assert np.sqrt(np.square(in_errors).mean()) < 1.3
    assert found.error.max() < 0.1
    assert found.mean == pytest.approx(exact.mean(), abs=0.01)
    assert found.stderr == pytest.approx(exact.std(ddof=1) / math.sqrt(ROWS), rel=0.02)
    quadrature = latent_dim <= 2
    assert found.method == (
        "adaptive quadrature" if quadrature else "importance sampling from a mixture fitted to each row"
    )
    expected = {"numerical_error"} if quadrature else {"ess_median", "khat_median", "khat_above_0.7", "bias"}
    assert expected <= set(found.diagnostics)


def test_it_agrees_with_the_metrics_of_the_harness():
    problem = circle()
    x = draw(problem, 0, 1, 1, ROWS).test
    found = bench.score(problem.decoder, x, latent_dim=1, noise_variance=problem.noise_variance)
    expected = learned_likelihood(Fitted(TrueModel(problem), Prior(1)), x, 1, 0)
    np.testing.assert_allclose(found.log_p, expected.value)
    np.testing.assert_allclose(found.error, expected.error)


def test_it_agrees_with_them_in_high_dimension():
    x = linear(8)[2]
    problem = dataclasses.replace(linear_gaussian(8), exact_log_prob=None)
    expected = true_likelihood(problem, x, 0)
    np.testing.assert_allclose(scored(8).log_p, expected.value, atol=1e-9)
    np.testing.assert_allclose(scored(8).bias, expected.error, atol=1e-9)


@pytest.mark.parametrize("latent_dim", [1, 8])
def test_a_wrong_model_is_scored_lower(latent_dim):
    weight, offset, x, _ = linear(latent_dim)
    wrong = (
        (lambda z: z @ weight + offset + 0.5, NOISE),
        (lambda z: 0.5 * z @ weight + offset, NOISE),
        (lambda z: z @ weight + offset, 4 * NOISE),
    )
    for decode, noise in wrong if latent_dim == 1 else wrong[:1]:
        found = bench.score(decode, x[:20], latent_dim=latent_dim, noise_variance=noise)
        assert found.mean < scored(latent_dim).log_p[:20].mean() - 0.1


@pytest.mark.parametrize("latent_dim", LATENT)
def test_functions_of_arrays_agree_with_those_of_tensors(latent_dim):
    weight, offset, x, _ = linear(latent_dim)
    weight, offset = weight.numpy(), offset.numpy()
    found = bench.score(lambda z: z @ weight + offset, x.numpy(), latent_dim=latent_dim, noise_variance=NOISE)
    np.testing.assert_allclose(found.log_p, scored(latent_dim).log_p, atol=1e-9)
    np.testing.assert_allclose(found.error, scored(latent_dim).error, atol=1e-9)


def only_32_bits(z):
    if z.dtype != np.float32:
        raise TypeError(f"expected float32, got {z.dtype}")
    return z @ linear(2)[0].numpy().astype(np.float32) + linear(2)[1].numpy()


@pytest.mark.parametrize(
    "of",
    [
        lambda module: module,
        lambda module: module.decode,
        lambda module: lambda z: 1 * module.linear(z),
        lambda module: lambda z: module.linear(z).detach(),
        lambda _: only_32_bits,
    ],
    ids=["module", "method", "function", "detached", "arrays of 32 bits"],
)
def test_modules_and_functions_of_32_bits(of):
    weight, offset, x, exact = linear(2)
    module = Affine(weight, offset)
    frame = pd.DataFrame(x.numpy())
    found = bench.score(of(module), frame, latent_dim=2, noise_variance=np.float64(NOISE))
    np.testing.assert_allclose(found.log_p, exact, atol=1e-4)
    assert all(part.training for part in module.modules())


def test_annealing_takes_over_where_a_decoder_of_arrays_has_modes_that_proposals_miss():
    x = 1 + torch.rand(10, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = 3 * math.log(2) + torch.distributions.Normal(0, math.sqrt(1.01)).log_prob(x).sum(1).numpy()
    found = bench.score(np.abs, x, latent_dim=3, noise_variance=0.01)
    assert found.method == "annealed importance sampling"
    assert found.diagnostics["importance_less_annealed"] < -0.5
    assert abs(found.mean - exact.mean()) < 0.3


@functools.cache
def orthogonal(latent_dim):
    """A linear decoder with orthogonal columns of length 2, whose posterior is a diagonal Gaussian, and points."""
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(latent_dim + 1, latent_dim, generator=generator, dtype=torch.float64)
    weight = 2 * torch.linalg.qr(random).Q.T
    z = torch.randn(ROWS, latent_dim, generator=generator, dtype=torch.float64)
    noise = torch.randn(ROWS, latent_dim + 1, generator=generator, dtype=torch.float64)
    return weight, z @ weight + math.sqrt(NOISE) * noise


def exact_posterior(latent_dim, factor=1.0):
    """An encoder whose means are those of the posterior, and whose scales are so many times those of the posterior."""
    weight, _ = orthogonal(latent_dim)
    precision = 1 + 4 / NOISE

    def encode(x):
        mean = x @ weight.T / NOISE / precision
        return mean, torch.full_like(mean, math.log(factor) - math.log(precision) / 2)

    return encode


@functools.cache
def with_posterior(latent_dim, posterior):
    weight, x = orthogonal(latent_dim)
    return bench.score(lambda z: z @ weight, x, latent_dim=latent_dim, noise_variance=NOISE, posterior=posterior)


def test_a_posterior_as_proposal_makes_the_error_smaller():
    without, found = with_posterior(8, None), with_posterior(8, exact_posterior(8))
    assert without.elbo is without.inference_gap is None
    assert found.method == "importance sampling from the posterior"
    assert found.error.max() < 1e-4 < 1e-3 < without.error.min()
    assert np.abs(without.log_p - found.log_p).max() < 4 * without.error.max()
    assert np.abs(found.log_p - found.elbo).max() < 1e-4
    assert found.inference_gap.value == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("latent_dim", [2, 8])
def test_the_gap_of_a_posterior_that_is_too_wide(latent_dim):
    found = with_posterior(latent_dim, exact_posterior(latent_dim, factor=2.0))
    assert found.inference_gap.value == pytest.approx(latent_dim * (1.5 - math.log(2)), rel=0.1)
    assert found.inference_gap.stderr < 0.2
    assert found.mean == pytest.approx(with_posterior(latent_dim, None).mean, abs=0.02)


def test_posteriors_of_the_contract_and_encoders_of_arrays():
    found = with_posterior(2, lambda x: (np.zeros_like(x)[:, :2], np.float32(0) * x[:, 1:]))
    np.testing.assert_allclose(found.elbo, with_posterior(2, Prior(2)).elbo, rtol=1e-6)


def test_one_row_by_two_seeds():
    weight, offset, x, exact = linear(8)
    one, other = (
        bench.score(lambda z: z @ weight + offset, x[:1], latent_dim=8, noise_variance=NOISE, seed=seed)
        for seed in (0, 1)
    )
    assert one.method == "importance sampling from a mixture fitted to each row"
    assert abs(one.log_p[0] - exact[0]) < 4 * one.error[0]
    assert math.isnan(one.stderr)
    assert one.log_p[0] != other.log_p[0]


def test_the_result():
    found = Score(np.array([-1.0, -3.0]), np.full(2, 0.1), np.full(2, 0.01), np.array([-2.0, -4.5]), "a way", {"n": 1})
    pd.testing.assert_frame_equal(
        found.to_frame(), pd.DataFrame({"log_p": [-1.0, -3.0], "error": [0.1, 0.1], "elbo": [-2.0, -4.5]})
    )
    assert list(dataclasses.replace(found, elbo=None).to_frame()) == ["log_p", "error"]
    assert (found.mean, found.stderr) == (-2.0, pytest.approx(math.hypot(1, 0.01)))
    assert (found.inference_gap.value, found.inference_gap.stderr) == (1.25, pytest.approx(math.hypot(0.25, 0.01)))
    assert repr(found).splitlines() == [
        "2 rows by a way",
        "  mean log p(x)            -2.0000 ± 1 nats",
        "  mean ELBO                -3.2500 nats",
        "  inference gap            1.2500 ± 0.25 nats",
        "  n                        1",
    ]
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.method = "another"


class Misshapen(Posterior):
    def sample(self, x, count, generator):
        return torch.zeros(count, len(x), 3), torch.zeros(count, len(x))


def zeros(x):
    return torch.zeros(len(x), 2)


BAD = {
    "unknown likelihood 'student' (available: gaussian, bernoulli, poisson)": {"likelihood": "student"},
    "unknown likelihood 'gausian' - did you mean 'gaussian'?": {"likelihood": "gausian"},
    "likelihood 'poisson' has no noise_variance, got 0.1": {"likelihood": "poisson"},
    "x cannot be bernoulli: row 2, column 1 has 2; expected 0 or 1": {
        "likelihood": "bernoulli",
        "noise_variance": None,
        "x": torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 1.0]]),
    },
    "x cannot be poisson: row 1, column 2 has -1; expected a whole number from 0 on": {
        "likelihood": "poisson",
        "noise_variance": None,
        "x": torch.tensor([[0.0, -1.0, 0.5]]),
    },
    "likelihood 'gaussian' needs noise_variance, a positive number": {"noise_variance": None},
    "noise_variance must be a positive number in squared units of x, or 3 of them, one for each coordinate; got 0": {
        "noise_variance": 0
    },
    "one for each coordinate; got nan": {"noise_variance": math.nan},
    "one for each coordinate; got [1.0, 0.0, 2.0]": {"noise_variance": [1.0, 0.0, 2.0]},
    "one for each coordinate; got 'much'": {"noise_variance": "much"},
    "one for each coordinate; got array([1., 1.])": {"noise_variance": np.ones(2)},
    "one for each coordinate; got '0.1'": {"noise_variance": "0.1"},
    "one for each coordinate; got True": {"noise_variance": True},
    "latent_dim must be a whole number from 1 to 1000, got 0": {"latent_dim": 0},
    "latent_dim must be a whole number from 1 to 1000, got 2.0": {"latent_dim": 2.0},
    "latent_dim must be a whole number from 1 to 1000, got 1001": {"latent_dim": 1001},
    "seed must be a whole number from 0 to 9223372036854775807, got '1'": {"seed": "1"},
    "seed must be a whole number from 0 to 9223372036854775807, got True": {"seed": True},
    "got -1": {"seed": -1},
    "x must be numbers of shape (n, D), got Tensor: TypeError: it holds complex64": {"x": torch.zeros(2, 3) + 1j},
    "TypeError: it holds datetime64[D], expected real numbers": {"x": np.zeros((2, 3), dtype="datetime64[D]")},
    "on tensors TypeError: it gives complex numbers": {"decode": lambda z: torch.cat([z, z], 1)[:, :3] + 1j},
    "log p(x) is not finite for 2 of 2 rows: rows are far from all that decode gives": {
        "x": torch.full((2, 3), 1e10, dtype=torch.float64)
    },
    "log p(x) is not found for 10 of 10 rows: the adaptive quadrature is wrong by up to": {
        "decode": lambda z: torch.cat([z, z], 1),
        "x": np.random.default_rng(0).standard_normal((10, 2)),
        "latent_dim": 1,
        "noise_variance": 1e-12,
    },
    "the ELBO is not finite for 2 of 2 rows: the posterior's codes": {
        "posterior": lambda x: (x[:, :2], 0 * x[:, :2] + 800)
    },
    "x must have shape (n, D) with a row or more, got shape (3,)": {"x": torch.zeros(3)},
    "x must have shape (n, D) with a row or more, got shape (0, 3)": {"x": torch.zeros(0, 3)},
    "x must be finite; 1 of 2 rows are not": {"x": [[0.0, 0, 0], [math.nan, math.inf, 0]]},
    "x must be finite; 1 of 3 rows are not": {"x": np.ma.masked_equal([[0.0, 0, 0], [1, 1, 9], [0, 0, 1]], 9)},
    "x must be numbers of shape (n, D), got str": {"x": "data"},
    "decode must be a module or a function, got Tensor": {"decode": torch.zeros(3)},
    "decode does not take codes of shape (8, 2), for latent_dim=2: on tensors RuntimeError": {
        "decode": nn.Linear(5, 3)
    },
    "on arrays ValueError: matmul": {"decode": lambda z: z @ np.zeros((5, 3))},
    "decode gives shape (8, 4) for 8 rows, expected shape (8, 3) from the columns of x, 3": {"decode": nn.Linear(2, 4)},
    "decode gives a tuple for 8 rows, expected shape (8, 3)": {"decode": lambda z: (zeros(z), zeros(z))},
    "on tensors TypeError: it gives str, expected Tensor": {"decode": str},
    "decode gives values that are not finite": {"decode": lambda z: z[:, :1].expand(-1, 3) / 0},
    "decode gives other values for the same row in another call; is a module in training mode?": {
        "decode": lambda z: z[:, :1] + torch.randn(len(z), 3)
    },
    "log p(x) is not finite for 2 of 2 rows: decode gives values that are not finite, as at z = [": {
        "decode": lambda z: torch.where(z[:, :1] > 2.5, math.nan, z[:, :1]).expand(-1, 3)
    },
    "posterior must be a module or a function, got str": {"posterior": "encoder"},
    "posterior does not take rows of shape (2, 3)": {"posterior": nn.Linear(4, 4)},
    "posterior gives shape (2, 2), expected a pair: mean and log_scale, (n, L) each": {"posterior": zeros},
    "posterior's mean gives shape (2, 1) for 2 rows, expected shape (2, 2) from latent_dim=2": {
        "posterior": lambda x: (x[:, :1], x[:, :1])
    },
    "posterior's log_scale gives values that are not finite": {"posterior": lambda x: (x[:, :2], x[:, :2].log())},
    "posterior.sample gives shapes ((2, 2, 3), (2, 2)), expected ((2, 2, 2), (2, 2)) for latent_dim=2": {
        "posterior": Misshapen()
    },
}


@pytest.mark.parametrize(("name", "latent_dim"), [("binary_curve", 1), ("count_curve", 1), ("binary_surface", 2)])
def test_bits_and_counts_agree_with_the_truth(name, latent_dim):
    problem = datasets.load(name)
    x = draw(problem, 0, 1, 1, 30).test
    found = bench.score(problem.decoder, x, latent_dim=latent_dim, likelihood=problem.family)
    expected = problem.log_prob(x)
    assert (np.abs(found.log_p - expected.value.numpy()) <= found.error + expected.error.numpy() + 1e-9).all()
    assert found.method == "adaptive quadrature"


def test_bits_in_many_latent_dimensions_agree_with_quadrature_in_two():
    """The same model with six codes that nothing depends on."""
    problem = datasets.load("count_surface")
    x = draw(problem, 0, 1, 1, 20).test
    found = bench.score(lambda z: problem.decoder(z[..., :2]), x, latent_dim=8, likelihood="poisson")
    expected = problem.log_prob(x).value.numpy()
    assert abs(found.log_p - expected).mean() < 4 * found.error.mean() + 0.01
    assert found.error.mean() < 0.1


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
def test_a_noise_variance_for_each_coordinate_has_the_closed_form(latent_dim):
    weight, offset, x, _ = linear(latent_dim)
    noise = NOISE * torch.logspace(-1, 1, len(offset[0]), dtype=torch.float64)
    found = bench.score(lambda z: z @ weight + offset, x, latent_dim=latent_dim, noise_variance=noise.tolist())
    exact = torch.distributions.MultivariateNormal(offset[0], weight.T @ weight + torch.diag(noise)).log_prob(x)
    assert np.abs((found.log_p - exact.numpy()) / found.error).max() < 3.5
    assert found.error.max() < 0.1


@pytest.mark.parametrize("message", BAD)
def test_what_does_not_fit_is_refused_in_one_line(message):
    good = {"decode": lambda z: z[:, :1].expand(-1, 3), "x": torch.zeros(2, 3), "latent_dim": 2, "noise_variance": 0.1}
    asked = good | BAD[message]
    with pytest.raises(UsageError) as raised:
        bench.score(asked.pop("decode"), asked.pop("x"), **asked)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("x", [torch.zeros(2, 3, dtype=torch.bfloat16), [[0, 0, 0]] * 2, np.zeros((2, 3), dtype=bool)])
def test_real_numbers_of_any_kind_are_points(x):
    found = bench.score(
        lambda z: z[:, :1].expand(-1, 3), x, latent_dim=1, noise_variance=np.float32(0.1), seed=np.int64(3)
    )
    assert found.log_p == pytest.approx(found.log_p[0])


def test_a_large_error_of_random_draws_is_told_and_not_refused(monkeypatch):
    """A few draws in many dimensions leave rows uncertain by more than a tenth of a nat."""
    monkeypatch.setattr("bench.metrics.likelihood.IMPORTANCE_DRAWS", 3)
    x = np.random.default_rng(0).standard_normal((40, 3))
    found = bench.score(lambda z: torch.tanh(2 * z[:, :3]), x, latent_dim=6, noise_variance=0.1)
    assert (found.error > 0.1 * np.maximum(np.abs(found.log_p), 1)).any()


def test_a_lack_of_memory_is_told_as_one(monkeypatch):
    def greedy(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 16000000000 bytes.")

    monkeypatch.setattr("bench.scoring.score.estimated", greedy)
    with pytest.raises(UsageError, match=r"latent_dim=3 needs more memory than there is: .*16000000000 bytes"):
        bench.score(nn.Linear(3, 3), torch.zeros(2, 3), latent_dim=3, noise_variance=0.1)


def test_a_function_of_a_module_in_training_mode_is_refused():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    good = {"x": torch.zeros(2, 3), "latent_dim": 2, "noise_variance": 0.1}
    with pytest.raises(UsageError, match="is a module in training mode"):
        bench.score(lambda z: 1 * module(z), **good)
    assert np.isfinite(bench.score(module, **good).log_p).all()
