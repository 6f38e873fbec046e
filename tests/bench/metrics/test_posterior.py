"""Divergences of posteriors: against closed forms, under reparameterisation, for the oracle, and as they worsen."""

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch.special import ndtr, ndtri

from bench.metrics import TrueModel, posterior, shared
from bench.metrics.posterior import cube_points, gap_split, index_divergence, index_floor, signal_distance
from datasets import load
from datasets.base import Problem, draw
from datasets.linear import linear_gaussian
from methods.common.latent_grid import exact_posterior, index_without_codes
from methods.common.posteriors import LocalGaussian, Prior
from methods.contract.method import Fitted, Posterior


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Gaussian1(Posterior):
    """q(z | x) of a linear model of L = 1 with a given slope, moved and widened in units of the exact one's width."""

    problem: Problem
    moved: float = 0.0
    widened: float = 1.0

    def parts(self, x):
        zero = self.problem.decoder(torch.zeros(1, 1, dtype=torch.float64))
        slope = self.problem.decoder(torch.ones(1, 1, dtype=torch.float64)) - zero
        precision = 1 + slope.square().sum() / self.problem.noise_variance
        mean = (x - zero) @ slope.T / self.problem.noise_variance / precision
        scale = precision.rsqrt()
        return mean + self.moved * scale, (self.widened * scale).expand_as(mean), slope.norm()

    def sample(self, x, count, generator):
        mean, scale, _ = self.parts(x)
        noise = torch.randn(count, *mean.shape, generator=generator, dtype=torch.float64)
        return mean + scale * noise, torch.distributions.Normal(mean, scale).log_prob(mean + scale * noise).sum(-1)


class FromUniform(Gaussian1):
    def from_uniform(self, x, u):
        mean, scale, _ = self.parts(x)
        return mean + scale * ndtri(u)[:, None]


def signal(problem, posterior, model=None, n=60, truth=None):
    x = draw(problem, 0, 1, 1, n).test
    truth = truth or exact_posterior(TrueModel(problem), problem.latent_dim)
    (found,) = signal_distance(Fitted(model or TrueModel(problem), posterior), problem, truth, x, 0)
    return found


@pytest.mark.parametrize(("moved", "widened"), [(0.0, 2.0), (0.5, 1.0), (-1.0, 0.5)])
def test_signal_w2_of_gaussians_is_the_closed_form(moved, widened):
    """Both signals lie on a line, where the distance of Gaussians is sqrt((m1 - m2)^2 + (s1 - s2)^2)."""
    problem = linear_gaussian(1)
    posterior = FromUniform(problem, moved, widened)
    _, scale, slope = FromUniform(problem).parts(torch.zeros(1, 2, dtype=torch.float64))
    expected = float(slope * scale) * math.hypot(moved, widened - 1)
    found = signal(problem, posterior)
    assert abs(found.value - expected) <= found.stderr + 1e-3 * expected
    assert found.stderr < 0.05 * expected


def test_draws_in_the_place_of_quantiles_are_off_by_no_more_than_the_error_says():
    problem = linear_gaussian(1)
    exact, drawn = (signal(problem, kind(problem, 0.5, 1.5)) for kind in (FromUniform, Gaussian1))
    assert abs(exact.value - drawn.value) < 3 * drawn.stderr
    assert drawn.stderr > exact.stderr


@pytest.mark.parametrize("name", ["figure8", "absolute", "spiral_dots", "s_curve", "pinwheel"])
def test_signal_w2_is_zero_for_the_oracle(name):
    problem = load(name)
    found = signal(problem, exact_posterior(TrueModel(problem), problem.latent_dim))
    assert (found.value, found.stderr) == (0, 0)


@dataclass(frozen=True)
class Reparameterised(Posterior):
    """A model and a posterior after z -> h(z), a map that leaves N(0, I) as it is, and its inverse."""

    model: object
    posterior: object
    there: object
    back: object

    def decode(self, z):
        return self.model.decode(self.back(z))

    def variance(self):
        return self.model.variance()

    def sample(self, x, count, generator):
        raise NotImplementedError

    def from_uniform(self, x, u):
        return self.there(self.posterior.from_uniform(x, u))


def turn(angle):
    rotation = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]).double()
    return lambda z: z @ rotation


MAPS = {
    "mirrored": (1, lambda z: -z, lambda z: -z),
    "cut and swapped": (1, lambda z: ndtri((ndtr(z) + 0.3) % 1), lambda z: ndtri((ndtr(z) - 0.3) % 1)),
    "turned": (2, turn(1.0), turn(-1.0)),
}


@pytest.mark.parametrize("map_", MAPS)
def test_signal_w2_does_not_see_how_latent_space_is_parameterised(map_):
    latent, there, back = MAPS[map_]
    problem = load({1: "figure8", 2: "s_curve"}[latent])
    mean, log_scale = torch.full((20, latent), 0.3), torch.full((20, latent), -1.5)
    posterior = LocalGaussian(mean.double(), log_scale.double())
    changed = Reparameterised(TrueModel(problem), posterior, there, back)
    assert signal(problem, changed, changed, 20).value == pytest.approx(
        signal(problem, posterior, n=20).value, rel=1e-6
    )


def test_signal_w2_of_the_oracle_in_other_coordinates_is_within_its_error_of_zero():
    """The boxes and the points are then others, and what is left is what the error must cover."""
    problem = load("s_curve")
    turned = Reparameterised(TrueModel(problem), None, turn(0.7), turn(-0.7))
    found = signal(problem, exact_posterior(turned, 2), turned)
    assert found.value < 0.3 * math.sqrt(problem.noise_variance)
    assert found.value < 3 * found.stderr


def test_signal_w2_grows_as_a_posterior_is_perturbed():
    problem = load("figure8")

    class Perturbed(type(exact_posterior(TrueModel(problem), 1))):
        def from_uniform(self, x, u):
            return super().from_uniform(x, u) + self.moved

    found = []
    for moved in (0.0, 0.03, 0.1, 0.3, 1.0):
        exact = exact_posterior(TrueModel(problem), 1)
        posterior = Perturbed(exact.log_index, exact.grid)
        posterior.moved = moved
        found.append(signal(problem, posterior).value)
    assert found[0] == 0
    assert all(later > 1.5 * earlier for earlier, later in pairwise(found))


def test_signal_w2_sees_a_wrong_decoder():
    problem = linear_gaussian(1)

    class Shifted(TrueModel):
        def decode(self, z):
            return super().decode(z) + 0.5

    found = signal(problem, exact_posterior(TrueModel(problem), 1), Shifted(problem))
    assert found.value == pytest.approx(0.5 * 2**0.5)


# The index posterior.


def log_index_posterior(x, atoms, variance):
    return torch.log_softmax(-(x[:, None] - atoms).square().sum(-1) / (2 * variance), 1)


def index(problem, log_index, n=80):
    split = draw(problem, 0, n, 1, 1)
    fitted = Fitted(TrueModel(problem), Prior(problem.latent_dim), log_index(split))
    return {m.metric: m for m in index_divergence(fitted, problem, split.train, split.codes)}


def truth(split, problem):
    centres = problem.decoder(split.codes)
    return lambda x: log_index_posterior(x, centres, problem.noise_variance)


def test_the_true_index_posterior_diverges_from_itself_by_nothing():
    problem = load("figure8")
    found = index(problem, lambda split: truth(split, problem))
    assert found["index_kl"].value == pytest.approx(0, abs=1e-12)
    assert found["index_tv"].value == pytest.approx(0, abs=1e-12)


def test_the_uniform_index_posterior_diverges_by_the_entropy_that_is_missing():
    problem, n = load("figure8"), 80
    split = draw(problem, 0, n, 1, 1)
    found = index(problem, lambda _: lambda x: torch.full((len(x), n), -math.log(n), dtype=torch.float64))
    p = torch.distributions.Categorical(logits=truth(split, problem)(split.train))
    assert found["index_kl"].value == pytest.approx(float((math.log(n) - p.entropy()).mean()))
    assert found["index_tv"].value == pytest.approx(float((p.probs - 1 / n).abs().sum(1).mean() / 2))


def test_a_mass_on_the_wrong_index_is_far_but_finite():
    problem, n = load("figure8"), 80

    def elsewhere(_):
        certain = torch.full((n, n), -math.inf, dtype=torch.float64)
        certain[torch.arange(n), (torch.arange(n) + n // 2) % n] = 0.0
        return lambda _: certain

    found = index(problem, elsewhere)
    assert 100 < found["index_kl"].value < 700
    assert found["index_tv"].value > 0.9


def test_the_posterior_that_knows_the_model_but_not_the_codes_is_the_floor():
    """Against brute force on a grid, and below what distances between the data alone give."""
    problem = load("figure8")
    split = draw(problem, 0, 80, 1, 1)
    floor = index_without_codes(exact_posterior(TrueModel(problem), 1), split.train)
    z = torch.linspace(-8, 8, 20_001, dtype=torch.float64)[:, None]
    likelihood = (-torch.cdist(split.train, problem.decoder(z)).square() / (2 * problem.noise_variance)).exp()
    of_code = likelihood * (-z[:, 0].square() / 2).exp()
    expected = likelihood @ (of_code / of_code.sum(1, keepdim=True)).T
    expected /= expected.sum(1, keepdim=True)
    torch.testing.assert_close(floor(split.train).exp(), expected, atol=2e-3, rtol=0)
    of_floor = index(problem, lambda _: floor)["index_kl"].value
    for width in (1.0, 1.5, 2.0, 3.0):
        plain = index(problem, lambda s, w=width: lambda x: log_index_posterior(x, s.train, w * problem.noise_variance))
        assert of_floor < plain["index_kl"].value


@pytest.mark.parametrize(
    ("name", "floor", "plain"), [("figure8", 0.42, 0.55), ("circle", 0.37, 0.49), ("clusters", 0.26, 0.48)]
)
def test_the_floors_that_a_prototype_found(name, floor, plain):
    """Another implementation, other data: mean KL at N = 500 of the floor, and of distances at twice the noise."""
    problem = load(name)
    found = index(problem, lambda s: index_without_codes(exact_posterior(TrueModel(problem), 1), s.train), 500)
    assert found["index_kl"].value == pytest.approx(floor, abs=0.05)
    found = index(problem, lambda s: lambda x: log_index_posterior(x, s.train, 2 * problem.noise_variance), 500)
    assert found["index_kl"].value == pytest.approx(plain, abs=0.06)


def floor_of(problem, n, seed=0):
    split = draw(problem, seed, n, 1, 1)
    exact = exact_posterior(TrueModel(problem), problem.latent_dim)
    return {m.metric: m.value for m in index_floor(problem, exact, split.train, split.codes)}, split, exact


@pytest.mark.parametrize("name", ["figure8", "circle"])
def test_the_floor_is_the_mean_of_the_true_posterior_over_codes_drawn_given_the_data(name):
    """That mean is the best by KL, since the true codes are themselves such a draw."""
    problem = load(name)
    found, split, exact = floor_of(problem, 100)
    codes, _ = exact.sample(split.train, 400, generator())
    average = torch.stack([truth_at(split.train, problem, each).exp() for each in codes]).mean(0)
    best = index(problem, lambda _: lambda _: average.log(), 100)
    assert found["index_kl_floor"] == pytest.approx(best["index_kl"].value, abs=5e-3)
    assert found["index_tv_floor"] == pytest.approx(best["index_tv"].value, abs=5e-3)


def truth_at(x, problem, codes):
    return log_index_posterior(x, problem.decoder(codes), problem.noise_variance)


@pytest.mark.parametrize("name", ["figure8", "s_curve"])
def test_the_floor_is_where_the_oracle_is(name):
    problem = load(name)
    found, *_ = floor_of(problem, 40)
    exact = exact_posterior(TrueModel(problem), problem.latent_dim)
    oracle = index(problem, lambda split: index_without_codes(exact, split.train), 40)
    assert found["index_kl_floor"] == pytest.approx(oracle["index_kl"].value, rel=1e-9)
    assert found["index_tv_floor"] == pytest.approx(oracle["index_tv"].value, rel=1e-9)


def test_the_floor_is_computed_once_for_the_same_data(monkeypatch):
    problem = load("figure8")
    shared._computed.cache_clear()
    calls = []
    plain = posterior.index_without_codes
    monkeypatch.setattr(posterior, "index_without_codes", lambda *each: calls.append(1) or plain(*each))
    same, again, other = (floor_of(problem, 50, seed)[0] for seed in (0, 0, 1))
    assert same == again != other
    assert len(calls) == 2


def test_of_many_data_the_first_thousand_are_scored_against_all(monkeypatch):
    """In chunks, of which none holds more than so many probabilities."""
    problem, n = load("figure8"), 1200
    monkeypatch.setattr(posterior, "ENTRIES_AT_ONCE", 300 * n)
    split = draw(problem, 0, n, 1, 1)
    asked = []

    def doubled(x):
        asked.append(len(x))
        return log_index_posterior(x, split.train, 2 * problem.noise_variance)

    found = index(problem, lambda _: doubled, n)
    assert asked == [300, 300, 300, 100]
    p, q = truth(split, problem)(split.train[:1000]), doubled(split.train[:1000])
    assert found["index_kl"].value == pytest.approx(float((p.exp() * (p - q)).sum(1).mean()), rel=1e-9)
    assert found["index_tv"].value == pytest.approx(float((p.exp() - q.exp()).abs().sum(1).mean() / 2), rel=1e-9)


def test_of_up_to_a_thousand_data_all_are_scored_at_once():
    asked = []

    def uniform(x):
        asked.append(len(x))
        return torch.full((len(x), 1000), -math.log(1000), dtype=torch.float64)

    index(load("circle"), lambda _: uniform, 1000)
    assert asked == [1000]


def test_what_memory_does_not_hold_is_left_out(monkeypatch):
    monkeypatch.setattr(posterior, "MOST_INDICES", 60)
    problem = load("figure8")
    assert index(problem, lambda split: truth(split, problem), 61) == {}
    assert floor_of(problem, 61)[0] == {}
    assert floor_of(problem, 60)[0] != {}
    exact = exact_posterior(TrueModel(problem), 1)
    monkeypatch.setattr(posterior, "MOST_ENTRIES", 30 * len(exact.log_mass))
    assert floor_of(problem, 31)[0] == {}
    assert floor_of(problem, 30)[0] != {}


def test_a_method_without_an_index_posterior_has_no_such_rows():
    problem = load("figure8")
    assert index(problem, lambda _: None) == {}


# The two parts of the inference gap.


def split_of(problem, posterior, n=40):
    x = draw(problem, 0, 1, 1, n).test
    found = gap_split(Fitted(TrueModel(problem), posterior(x)), x, problem.log_prob(x), 0)
    return {m.metric: m for m in found}


def test_a_family_that_holds_the_exact_posterior_has_only_an_amortisation_gap():
    problem = linear_gaussian(1)
    for moved, widened in ((0.0, 1.0), (1.0, 1.0), (0.0, 3.0)):
        q = Gaussian1(problem, moved, widened)
        found = split_of(problem, lambda x, q=q: LocalGaussian(q.parts(x)[0], q.parts(x)[1].log()))
        kl = widened**2 / 2 + moved**2 / 2 - 0.5 - math.log(widened)
        assert found["approximation_gap"].value == pytest.approx(0, abs=2e-3)
        assert abs(found["amortisation_gap"].value - kl) < 4 * max(kl, 0.01) / math.sqrt(64)


def test_a_diagonal_family_is_charged_for_the_correlation_that_it_lacks():
    problem = linear_gaussian(2)
    zero = problem.decoder(torch.zeros(1, 2, dtype=torch.float64))
    weight = problem.decoder(torch.eye(2, dtype=torch.float64)) - zero
    precision = torch.eye(2).double() + weight @ weight.T / problem.noise_variance
    family = float(precision.diagonal().log().sum() - torch.logdet(precision)) / 2
    found = split_of(problem, lambda x: LocalGaussian(torch.zeros(len(x), 2).double(), torch.zeros(len(x), 2).double()))
    assert family > 0.1
    assert abs(found["approximation_gap"].value - family) < 5 * found["approximation_gap"].stderr + 2e-3


def test_a_posterior_that_cannot_be_bettered_has_no_amortisation_gap():
    problem = load("figure8")
    exact = split_of(problem, lambda _: exact_posterior(TrueModel(problem), 1))
    assert abs(exact["approximation_gap"].value) < 5e-3
    assert abs(exact["amortisation_gap"].value) < 5e-3
    prior = split_of(problem, lambda _: Prior(1))
    assert prior["amortisation_gap"].value == 0
    assert prior["approximation_gap"].value > 1


def test_a_posterior_without_a_family_has_no_split():
    problem = linear_gaussian(1)
    assert split_of(problem, lambda _: Gaussian1(problem)) == {}


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_points_of_the_cube_are_spread_evenly(dim):
    points = cube_points(256, dim)
    assert points.shape == (256, dim)
    assert ((points > 0) & (points < 1)).all()
    assert (points.mean(0) - 0.5).abs().max() < 0.01
    assert (points.square().mean(0) - 1 / 3).abs().max() < 0.01
