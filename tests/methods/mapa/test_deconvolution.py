"""Where the signals lie: the estimate against simulation and the prototype, its sums against brute force."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import datasets
from bench.fit.memory import PeakMemory
from bench.metrics import TrueModel
from bench.metrics.posterior import index_divergence
from datasets.base import draw
from methods.common.latent_grid import exact_posterior, index_without_codes
from methods.common.posteriors import Prior
from methods.contract.method import Fitted, NullLedger
from methods.mapa import deconvolution
from methods.mapa.deconvolution import estimate, nearest, sharpened, sums, thinned
from methods.mapa.index import Mixture, log_index_posterior

LEDGER = NullLedger()
NOISE = 0.01
MB = 10**6
DEFAULTS = {"smoothing": 6.0, "weight_steps": 5, "atom_steps": 1}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def found(x, noise=NOISE, **options):
    return estimate(x, noise, **{**DEFAULTS, **options}, ledger=LEDGER)


def turned(x):
    angle = torch.tensor(0.7).double()
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    return x @ turn.T + torch.tensor([5.0, -3.0]).double()


def log_likelihood(mixture, x):
    """Mean log-density of x, by torch.distributions."""
    atoms = Independent(Normal(mixture.atoms, mixture.variance.sqrt()[:, None]), 1)
    return float(MixtureSameFamily(Categorical(logits=mixture.log_weight), atoms).log_prob(x).mean())


@pytest.fixture
def data():
    return draw(datasets.load("circle"), 0, 80, 1, 1).train


def test_permuting_the_data_permutes_atoms_weights_and_variances(data):
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    mixture, shuffled = found(data), found(data[order])
    torch.testing.assert_close(shuffled.atoms, mixture.atoms[order])
    torch.testing.assert_close(shuffled.log_weight, mixture.log_weight[order])
    torch.testing.assert_close(shuffled.variance, mixture.variance[order])
    assert mixture.log_weight.std() > 0.1


def test_turning_and_shifting_the_data_turns_and_shifts_the_atoms(data):
    mixture, moved = found(data), found(turned(data))
    torch.testing.assert_close(moved.atoms, turned(mixture.atoms))
    torch.testing.assert_close(moved.log_weight, mixture.log_weight)
    torch.testing.assert_close(moved.variance, mixture.variance)


def test_scaling_data_and_noise_scales_the_atoms(data):
    mixture, larger = found(data), found(7 * data, 49 * NOISE)
    torch.testing.assert_close(larger.atoms, 7 * mixture.atoms)
    torch.testing.assert_close(larger.variance, 49 * mixture.variance)
    torch.testing.assert_close(larger.log_weight.softmax(0), mixture.log_weight.softmax(0))


@pytest.mark.parametrize("size", [1, 2, 5, 40])
def test_the_variance_about_an_atom_is_that_of_a_prediction(size):
    """Of data that are all equal, the mean has the variance s2 / m; of one that is far from all others, s2."""
    x = torch.tensor([[3.0, 4.0]]).double().repeat(size + 1, 1)
    x[-1] += 1000
    mixture = found(x)
    torch.testing.assert_close(mixture.atoms, x)
    torch.testing.assert_close(mixture.variance[:-1], torch.full((size,), NOISE * (1 + 1 / size)).double())
    assert float(mixture.variance[-1]) == pytest.approx(2 * NOISE)


def test_an_effective_number_of_data_is_that_of_the_variance_of_their_weighted_mean():
    """By simulation: noise on the data moves an atom by as much as 1 / n_k says."""
    x, atoms = normal(30, 2), normal(3, 2, seed=1)
    mixture = Mixture(atoms, torch.zeros(3).double(), torch.ones(3).double())
    p = mixture.log_posterior(x).exp()
    moved = torch.stack([(p.T @ normal(30, 1, seed=2 + k))[:, 0] / p.sum(0) for k in range(4000)])
    single = sums(mixture, x, LEDGER).single()
    torch.testing.assert_close(single, moved.square().mean(0), rtol=0.08, atol=0)
    assert single.max() < 0.5


def test_without_smoothing_the_data_are_the_atoms_of_a_plain_kernel(data):
    """Two noisy data of one code are twice the noise apart."""
    mixture = found(data, smoothing=0, weight_steps=0, atom_steps=0)
    assert torch.equal(mixture.atoms, data)
    plain = torch.softmax(-(data[:, None] - data).square().sum(-1) / (4 * NOISE), 1)
    torch.testing.assert_close(mixture.log_posterior(data).exp(), plain)


def test_the_first_atoms_are_kernel_means(data):
    mixture = found(data, smoothing=3.0, weight_steps=0, atom_steps=0)
    weight = torch.softmax(-(data[:, None] - data).square().sum(-1) / (2 * 3 * NOISE), 1)
    torch.testing.assert_close(mixture.atoms, weight.T @ data / weight.sum(0)[:, None])


@pytest.mark.parametrize("noise", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("name", ["circle", "s_curve"])
def test_each_step_on_the_weights_raises_the_likelihood(name, noise):
    x = draw(datasets.load(name), 0, 100, 1, 1).train
    mixtures = [found(x, noise, weight_steps=steps, atom_steps=0) for steps in range(12)]
    scores = torch.tensor([log_likelihood(mixture, x) for mixture in mixtures], dtype=torch.float64)
    assert (scores.diff() > -1e-12).all()
    assert scores[-1] > scores[0] + 1e-4
    assert all(torch.equal(mixture.atoms, mixtures[0].atoms) for mixture in mixtures)
    assert float(mixtures[-1].log_weight.exp().sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("noise", [0.003, 0.01, 0.03])
def test_atoms_at_the_means_of_their_data_are_likelier_at_the_same_variance(data, noise):
    """The other half of expectation maximisation, whose variance is then set by another rule."""
    mixture = found(data, noise, atom_steps=0)
    even = Mixture(mixture.atoms, mixture.log_weight, torch.full_like(mixture.variance, noise))
    moved = sharpened(even, data, noise, LEDGER)
    assert log_likelihood(Mixture(moved.atoms, even.log_weight, even.variance), data) > log_likelihood(even, data)


def test_atoms_are_nearer_to_the_curve_than_the_data():
    x = draw(datasets.load("circle"), 0, 500, 1, 1).train
    mixture = found(x)
    weight = mixture.log_weight.softmax(0)
    off = float(weight @ (mixture.atoms.norm(dim=1) - 1).square())
    assert off < 0.15 * float((x.norm(dim=1) - 1).square().mean())


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ["figure8", "circle"])
def test_the_index_posterior_is_nearer_to_the_truth_than_that_of_kernels_and_near_the_floor(name, seed):
    problem = datasets.load(name)
    split = draw(problem, seed, 500, 1, 1)

    def divergence(log_index):
        fitted = Fitted(TrueModel(problem), Prior(1), log_index)
        return index_divergence(fitted, problem, split.train, split.codes)[0].value

    def kernels(x):
        return torch.log_softmax(-torch.cdist(x, split.train).square() / (4 * problem.noise_variance), 1)

    reached = divergence(log_index_posterior(found(split.train, problem.noise_variance), split.train))
    floor = divergence(index_without_codes(exact_posterior(TrueModel(problem), 1), split.train))
    assert floor < reached < 1.25 * floor
    assert reached < 0.9 * divergence(kernels)


def explicit(mixture, x):
    """The sums by their definition, in one piece."""
    p = mixture.log_posterior(x).exp()
    return p.sum(0), p.square().sum(0), torch.einsum("nk,nd->kd", p, x)


@pytest.fixture
def many():
    """A mixture of 400 atoms along a figure eight, and 1,000 data."""
    x = draw(datasets.load("figure8"), 0, 1000, 1, 1).train
    return found(x[:400]), x


@pytest.mark.parametrize("block", [1, 700, 10**9])
def test_sums_in_blocks_are_those_in_one_piece(many, block, monkeypatch):
    monkeypatch.setattr(deconvolution, "BLOCK", block)
    mixture, x = many[0], many[1][:300]
    result = sums(mixture, x, LEDGER)
    for own, expected in zip((result.weight, result.square, result.first), explicit(mixture, x), strict=True):
        torch.testing.assert_close(own, expected)


class Charges(NullLedger):
    def __init__(self):
        self.seen = {}

    def charge(self, name, flops):
        self.seen[name] = self.seen.get(name, 0.0) + flops


@pytest.mark.parametrize("block", [1000, 10**9])
def test_sums_over_the_nearest_atoms_leave_out_a_thousandth_at_most(many, block, monkeypatch):
    monkeypatch.setattr(deconvolution, "DENSE", 0)
    monkeypatch.setattr(deconvolution, "BLOCK", block)
    mixture, x = many
    mixture = Mixture(mixture.atoms, mixture.log_weight, mixture.variance / 10)
    ledger = Charges()
    result = sums(mixture, x, ledger)
    weight, square, first = explicit(mixture, x)
    nearest = deconvolution._atoms_that_matter(mixture, x)
    assert 1 < nearest <= 100
    assert ledger.seen["nearest atoms"] == pytest.approx(1000 * nearest * (math.log2(400) + 6))
    assert 0 < float((result.weight - weight).abs().sum()) < 2 * deconvolution.LEFT_OUT * len(x)
    assert float(result.weight.sum()) == pytest.approx(len(x))
    # Data lie within 2 of the origin.
    assert float((result.first - first).abs().sum()) < 2 * 2 * 2 * deconvolution.LEFT_OUT * len(x)
    assert float((result.square - square).abs().sum()) < 4 * deconvolution.LEFT_OUT * len(x)


def test_where_most_atoms_matter_all_are_weighed(many, monkeypatch):
    monkeypatch.setattr(deconvolution, "DENSE", 0)
    mixture, x = many
    wide = Mixture(mixture.atoms, mixture.log_weight, mixture.variance * 1000)
    ledger = Charges()
    result = sums(wide, x, ledger)
    torch.testing.assert_close(result.weight, explicit(wide, x)[0])
    assert ledger.seen == {}


def test_an_atom_that_explains_nothing_keeps_its_place():
    x = torch.zeros(5, 2).double()
    atoms = torch.tensor([[0.1, 0.0], [1000.0, 7.0]]).double()
    even = torch.zeros(2).double()
    moved = sharpened(Mixture(atoms, even, even + NOISE), x, NOISE, LEDGER)
    assert moved.atoms.tolist() == [[0, 0], [1000, 7]]
    assert torch.isfinite(moved.variance).all()


@pytest.fixture
def gauge():
    gauge = PeakMemory()
    if math.isnan(gauge.peak):
        pytest.skip("the system does not tell")
    return gauge


@pytest.mark.parametrize("wide", [1.0, 1000.0])
def test_sums_hold_a_few_blocks_at_a_time(wide, gauge, monkeypatch):
    """20,000 data by 2,000 atoms are 320 MB, and a block is 1.6."""
    monkeypatch.setattr(deconvolution, "BLOCK", 200_000)
    x = draw(datasets.load("circle"), 0, 20_000, 1, 1).train
    even = torch.zeros(2000).double()
    gauge.begin()
    result = sums(Mixture(x[:2000], even, even + wide * NOISE), x, LEDGER)
    gauge.end()
    assert float(result.weight.sum()) == pytest.approx(20_000)
    assert gauge.peak < 80 * MB


def test_data_that_are_few_are_not_thinned_and_many_are_drawn_without_replacement(data):
    generator = torch.Generator().manual_seed(0)
    assert thinned(data, len(data), generator) is data
    few = thinned(data, 30, generator)
    assert few.shape == (30, 2)
    assert len({tuple(row) for row in few.tolist()} & {tuple(row) for row in data.tolist()}) == 30
    assert not torch.equal(few, thinned(data, 30, generator))


def test_the_nearest_places_hold_a_few_blocks_at_a_time(gauge):
    """40,000 data by 2,000 places are 640 MB, and a block is 32; each place owns the data nearest to it."""
    x = draw(datasets.load("circle"), 0, 40_000, 1, 1).train
    gauge.begin()
    result = nearest(x[:2000], x, x)
    gauge.end()
    assert gauge.peak < 200 * MB
    _, owner = KDTree(x[:2000]).query(x)
    assert result.weight.tolist() == np.bincount(owner, minlength=2000).tolist()
    torch.testing.assert_close(result.first.sum(0), x.sum(0))
