"""How posteriors use their codes: against closed forms and integrals, at collapse, and errors against simulation."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch.distributions import Normal

from bench.metrics import codes as module
from bench.metrics.codes import code_use
from bench.metrics.likelihood import encoded
from methods.common.posteriors import LocalGaussian, Prior
from methods.contract.method import Fitted, Posterior
from methods.iterative import mutual_information


@dataclass(frozen=True)
class Axes:
    """x_l = w_l z_l + noise of variance 1 along each axis: p(z | x) and E log p(x) are known."""

    weights: torch.Tensor

    def decode(self, z):
        return z.double() * self.weights

    def variance(self):
        return 1.0

    @property
    def scale(self):
        """The standard deviation of p(z | x) along each axis."""
        return (1 + self.weights.square()).rsqrt()

    def sample(self, n, seed):
        generator = torch.Generator().manual_seed(10_000 + seed)  # no seed that codes are drawn with
        draws = torch.randn(2, n, len(self.weights), generator=generator, dtype=torch.float64)
        return draws[0] * self.weights + draws[1]

    def exact(self, x):
        return LocalGaussian(x * self.weights * self.scale.square(), self.scale.log().expand(len(x), -1))


def measured(model, posterior, x, draws=16, seed=0):
    found = code_use(posterior, x, encoded(Fitted(model, posterior), x, draws, seed))
    return {m.metric: m for m in found}


WEIGHTS = torch.tensor([1.5, 0.5, 0.05, 0.0], dtype=torch.float64)


@pytest.mark.parametrize("seed", range(3))
def test_a_linear_model_with_its_exact_posterior(seed):
    """I = KL to the prior = sum of log(1 + w^2) / 2, and E[z | x] varies by w^2 / (1 + w^2): .69, .2, .0025 and 0."""
    model = Axes(WEIGHTS)
    x = model.sample(500, seed)
    assert len(x) == module.INFORMATION_POINTS
    found = measured(model, model.exact(x), x)
    information = float((1 + WEIGHTS.square()).log().sum() / 2)
    for metric in ("mutual_information", "kl_to_prior"):
        assert 0 < found[metric].stderr < 0.1
        assert abs(found[metric].value - information) < 4 * found[metric].stderr
    assert abs(found["active_units"].value - 2) < 4 * found["active_units"].stderr
    more = measured(model, model.exact(x), x, draws=400)
    assert (more["active_units"].value, more["active_units"].stderr) == (2, pytest.approx(0, abs=1e-6))


def test_the_kl_is_that_of_each_gaussian_to_the_prior():
    model = Axes(WEIGHTS)
    x = model.sample(300, 0)
    q = model.exact(x)
    expected = torch.distributions.kl_divergence(Normal(q.mean, q.log_scale.exp()), Normal(0.0, 1.0)).sum(1)
    found = measured(model, q, x, draws=2000)["kl_to_prior"]
    assert found.value == pytest.approx(float(expected.mean()), abs=0.005)
    assert found.stderr == pytest.approx(float(expected.std()) / math.sqrt(300), rel=0.02)


@pytest.mark.parametrize("draws", [16, 400])
def test_at_collapse_all_is_zero(draws):
    model = Axes(WEIGHTS)
    found = measured(model, Prior(4), model.sample(2000, 0), draws)
    assert found["mutual_information"].value == pytest.approx(0, abs=1e-6)
    assert found["mutual_information"].stderr < 1e-6
    assert found["kl_to_prior"].value == pytest.approx(0, abs=1e-6)
    assert found["active_units"].value == 0
    assert found["active_units"].stderr < 1e-2


def test_the_information_of_a_channel_whose_width_depends_on_x():
    """Half of all x have a narrow q, half a wide one: I is an integral over z."""
    n, scales = 500, torch.tensor([0.1, 1.0], dtype=torch.float64)
    log_scale = scales.log().repeat(n // 2)[:, None]
    q = LocalGaussian(torch.zeros(n, 1, dtype=torch.float64), log_scale)
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    each = Normal(0.0, scales[:, None]).log_prob(z)
    mixture = torch.logsumexp(each, 0) - math.log(2)
    expected = float(torch.trapezoid(each.exp() * (each - mixture), z, dim=1).mean())
    values = [measured(Axes(WEIGHTS[:1]), q, torch.zeros(n, 1), seed=s)["mutual_information"] for s in range(20)]
    middle = sum(m.value for m in values) / 20
    assert abs(middle - expected) < 4 * values[0].stderr / math.sqrt(20)
    assert 0.1 < expected < math.log(2)


def test_the_information_of_codes_that_tell_all_is_the_log_of_the_number_of_points():
    q = LocalGaussian(torch.arange(80, dtype=torch.float64)[:, None], torch.full((80, 1), -9.0, dtype=torch.float64))
    found = measured(Axes(WEIGHTS[:1]), q, torch.zeros(80, 1))["mutual_information"]
    assert found.value == pytest.approx(math.log(80))
    assert found.stderr == pytest.approx(0, abs=1e-9)


def test_the_information_is_that_of_the_method_which_trains_by_it():
    """`iterative` has its own implementation, with other draws."""
    model = Axes(WEIGHTS)
    x = model.sample(500, 3)
    q = model.exact(x)
    found = measured(model, q, x)["mutual_information"]
    theirs = [mutual_information(q, x, torch.Generator().manual_seed(s)) for s in range(20)]
    assert abs(found.value - sum(theirs) / 20) < 4 * found.stderr


def test_of_many_points_the_first_are_compared_and_in_order(monkeypatch):
    monkeypatch.setattr(module, "INFORMATION_POINTS", 60)
    model = Axes(WEIGHTS)
    x = model.sample(150, 0)
    spread = LocalGaussian(torch.arange(150, dtype=torch.float64)[:, None] * 50, torch.zeros(150, 1).double())

    class First(Posterior):
        def sample(self, x, count, generator):
            return spread.sample(x, count, generator)

        def log_prob(self, z, x):
            return spread.log_prob(z, x)[:, : len(x)]

    one = Axes(WEIGHTS[:1])
    assert measured(one, First(), x[:, :1])["mutual_information"].value == pytest.approx(math.log(60))


def test_a_posterior_without_a_density_has_no_information():
    class Hidden(Prior):
        def log_prob(self, z, x):
            return None

    model = Axes(WEIGHTS)
    assert list(measured(model, Hidden(4), model.sample(30, 0))) == ["active_units", "kl_to_prior"]


def test_errors_are_the_spread_over_test_sets():
    model = Axes(WEIGHTS)
    found = []
    for seed in range(150):
        x = model.sample(200, seed)
        found.append(measured(model, model.exact(x), x, seed=seed))
    for metric in ("mutual_information", "kl_to_prior"):
        values = torch.tensor([each[metric].value for each in found])
        claimed = torch.tensor([each[metric].stderr for each in found]).square().mean().sqrt()
        assert abs(float(values.std() / claimed) - 1) < 4 * 0.058


def test_the_error_of_a_count_is_that_of_dimensions_near_the_threshold():
    """With a variance of 0.01 a dimension is counted half of the time; far from it the count is sure."""
    at = math.sqrt(0.01 / 0.99)
    counts, claimed = [], []
    for seed in range(120):
        model = Axes(torch.tensor([1.0, at, 0.0], dtype=torch.float64))
        x = model.sample(500, seed)
        found = measured(model, model.exact(x), x, 100, seed)["active_units"]
        counts.append(found.value)
        claimed.append(found.stderr)
    assert set(counts) == {1.0, 2.0}
    assert abs(sum(counts) / 120 - 1.5) < 0.15
    assert 0.3 < sum(claimed) / 120 <= 0.5
