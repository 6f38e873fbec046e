"""Embeddings above two latent dimensions: each step against closed forms, and the whole against true codes."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch.distributions import MultivariateNormal
from torch.func import jacrev, vmap

import datasets
from bench.fit.flop_counter import CountingLedger
from datasets.base import draw
from datasets.manifold import manifold
from methods.contract.method import NullLedger
from methods.mapa import rff_lvm
from methods.mapa.layouts import layout_flops
from methods.mapa.rff_lvm import (
    PREFERENCE,
    Codes,
    LearnedMap,
    LearnedPosterior,
    Surrogate,
    SurrogatePosterior,
    climb,
    embed,
    isometric_codes,
    median_noise_variance,
    principal_codes,
    signal_subspace,
)

LEDGER = NullLedger()


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_codes(n=50, latent=3):
    root = normal(n, latent, latent, seed=1)
    return Codes(normal(n, latent), root @ root.mT + 0.1 * torch.eye(latent))


@pytest.fixture(scope="module")
def curved():
    """A manifold that is not too bent, its data and an embedding."""
    problem = manifold(3, data_dim=30, noise_variance=0.1, length_scale=2.0)
    split = draw(problem, 0, 400, 100, 1)
    return problem, split, embed(split.train.float(), 3, problem.noise_variance, LEDGER)


@pytest.mark.parametrize(("n", "data_dim"), [(2000, 40), (300, 600)])
@pytest.mark.parametrize("known", [True, False])
def test_subspace_is_that_of_the_signal(n, data_dim, known):
    """Six strong directions among noise are found, whichever Gram matrix is the smaller, and no seventh."""
    axes = torch.linalg.qr(normal(data_dim, 6)).Q
    x = 5 + 10 * normal(n, 6, seed=1) @ axes.T + 0.7 * normal(n, data_dim, seed=2)
    subspace, variances = signal_subspace(x, 3, 0.49 if known else None, LEDGER)
    assert subspace.axes.shape == (data_dim, 6)
    assert torch.linalg.matrix_norm(subspace.axes.T @ axes, 2) <= 1 + 1e-9
    assert torch.linalg.svdvals(subspace.axes.T @ axes).min() > 0.98
    scores = subspace.scores(x)
    torch.testing.assert_close(scores.square().mean(0), variances)
    total = (x - x.mean(0)).square().sum(1).mean()
    torch.testing.assert_close(scores.square().sum(1).mean() + subspace.beyond, total)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0])
def test_median_noise_variance_is_that_of_simulated_noise(ratio):
    n = 1000
    noise = normal(n, round(ratio * n))
    sample = torch.linalg.eigvalsh(noise.T @ noise / n)
    assert median_noise_variance(ratio) == pytest.approx(float(sample.median()), abs=0.01)


def test_principal_codes_are_the_posterior_of_a_linear_model():
    """Of x = W z + noise, whose posterior is known, up to the rotation that diagonalises W."""
    scale, width = torch.tensor([3.0, 2.0, 1.0]).double(), 0.5
    scores = normal(20, 3)
    codes = principal_codes(scores, scale.square() + width, width)
    precision = torch.diag(1 + scale.square() / width)
    torch.testing.assert_close(codes.covariance, torch.linalg.inv(precision).expand(20, -1, -1))
    torch.testing.assert_close(codes.mean, scores * scale / width @ torch.linalg.inv(precision))


def test_nodes_have_the_moments_of_the_codes():
    codes = some_codes()
    nodes = codes.nodes(20_000, LEDGER)
    torch.testing.assert_close(nodes.mean(0), codes.mean)
    shifts = nodes - codes.mean
    found = torch.einsum("kni,knj->nij", shifts, shifts) / len(shifts)
    assert ((found - codes.covariance).abs() / codes.covariance.abs().amax((1, 2), keepdim=True)).max() < 0.06
    assert torch.equal(codes.nodes(2, LEDGER), codes.nodes(2, LEDGER))


def test_whitened_codes_have_the_moments_of_the_prior():
    white = some_codes().whitened(LEDGER)
    second = white.mean.T @ white.mean / len(white.mean) + white.covariance.mean(0)
    torch.testing.assert_close(second, torch.eye(3).double())
    torch.testing.assert_close(white.mean.mean(0), torch.zeros(3).double())


def test_jacobian_is_that_of_the_map():
    surrogate, _ = Surrogate.random(3, 40).fit(some_codes(), normal(50, 5, seed=3), 0.1, 0.0, LEDGER)
    z = normal(7, 3, seed=4)
    torch.testing.assert_close(surrogate.jacobian(z), vmap(jacrev(surrogate.decode))(z).mT)


def test_fit_is_the_best_ridge_by_evidence():
    """No ridge gives a coordinate a higher evidence, computed from its n x n covariance, than the one found."""
    z, width = normal(60, 2), 0.3
    codes = Codes(z, 1e-20 * torch.eye(2).double().expand(60, -1, -1))
    random = Surrogate.random(2, 30)
    scores = torch.sin(2 * z[:, :1]) + math.sqrt(width) * normal(60, 1, seed=5)
    surrogate, left = random.fit(codes, scores, width, 0.0, LEDGER)
    features = random.features(z)

    def evidence(prior):
        covariance = prior * features @ features.T + width * torch.eye(60)
        return float(MultivariateNormal(torch.zeros(60).double(), covariance).log_prob(scores[:, 0]))

    def ridge(prior):
        return features.T @ torch.linalg.solve(features @ features.T + width / prior * torch.eye(60), scores)

    grid = [10 ** (k / 8) for k in range(-40, 17)]
    best = max(grid, key=evidence)
    closest = min(grid, key=lambda prior: float((ridge(prior) - surrogate.coefficient).norm()))
    assert evidence(closest) > evidence(best) - 0.1
    assert float((ridge(closest) - surrogate.coefficient).norm() / surrogate.coefficient.norm()) < 0.1
    assert left == pytest.approx(float((scores - surrogate.decode(z)).square().mean()))
    assert random.fit(codes, scores, width, 0.9, LEDGER)[1] == 0.9


@pytest.mark.parametrize(("latent", "width"), [(1, 1e-6), (2, 1e-4), (2, 1e-2)])
def test_features_that_are_alike_up_to_rounding_do_no_harm(latent, width):
    """A few codes tell few of 200 features apart. The fit is about that of least squares on those that are resolved."""
    z = normal(400, latent)
    codes = Codes(z, 1e-20 * torch.eye(latent).double().expand(400, -1, -1))
    scores = torch.sin(2 * z @ normal(latent, 5, seed=1)) + 0.1 * normal(400, 5, seed=2)
    surrogate, left = Surrogate.random(latent).fit(codes, scores, width, 0.0, LEDGER)

    def unexplained(least):
        """What least squares leaves without the directions of a singular value below `least` times the largest."""
        features = surrogate.features(z).numpy()
        found = np.linalg.lstsq(features, scores.numpy(), rcond=least)[0]
        return float(np.square(scores.numpy() - features @ found).mean())

    assert unexplained(1e-8) <= left <= 1.01 * unexplained(1e-5)


def test_climb_finds_the_posterior_of_a_linear_map_in_closed_form():
    weight, width = normal(3, 6, seed=6), 0.2
    linear = Surrogate(torch.zeros(3, 1).double(), torch.zeros(1).double(), torch.zeros(5, 6).double())
    linear.coefficient[1:4] = weight / PREFERENCE
    scores = normal(40, 6)
    found = climb(linear, scores, normal(40, 3, seed=7), width, 10, LEDGER)
    covariance = torch.linalg.inv(torch.eye(3) + weight @ weight.T / width)
    torch.testing.assert_close(found.covariance, covariance.expand(40, -1, -1))
    torch.testing.assert_close(found.mean, scores @ weight.T @ covariance / width, rtol=1e-6, atol=1e-8)


def test_the_posterior_under_a_learned_decoder_is_that_of_a_linear_model(make_task):
    """Whatever the surrogate map says, and in one step of a linear decoder from anywhere."""
    task = make_task(normal(60, 6).float(), noise=0.2, latent_dim=3, activation="linear")
    weight = LearnedMap(task.model).jacobian(torch.zeros(1, 3).double())[0]
    shift = task.model.decode(torch.zeros(1, 3)).double()
    surrogate = embed(task.train, 3, 0.2, LEDGER, rounds=1).posterior
    found = LearnedPosterior(surrogate, task.model).gaussian(task.train)
    covariance = torch.linalg.inv(torch.eye(3) + weight @ weight.T / 0.2)
    torch.testing.assert_close(found.covariance, covariance.expand(60, -1, -1), rtol=1e-4, atol=1e-6)
    mean = (task.train.double() - shift) @ weight.T @ covariance / 0.2
    torch.testing.assert_close(found.mean, mean, rtol=1e-3, atol=1e-3)


def test_linear_data_are_embedded_as_well_as_can_be():
    """On data that probabilistic principal component analysis explains, true codes are a linear map of the means."""
    problem = datasets.load("linear_gaussian", 4)
    split = draw(problem, 0, 500, 1, 1)
    codes = embed(split.train, 4, problem.noise_variance, LEDGER).codes
    known = torch.linalg.lstsq(split.train - split.train.mean(0), split.codes).solution
    least = (split.codes - (split.train - split.train.mean(0)) @ known).square().mean()
    found = torch.linalg.lstsq(codes.mean, split.codes).solution
    assert (split.codes - codes.mean @ found).square().mean() < 1.1 * least + 0.01


def test_curved_data_are_embedded_better_than_by_principal_components(curved):
    """A quadratic map predicts true codes from embedded ones with less error than from principal components."""
    _, split, embedding = curved

    def unexplained(z):
        pairs = torch.stack([z[:, i] * z[:, j] for i in range(3) for j in range(i + 1)], 1)
        features = torch.cat([torch.ones(len(z), 1), z, pairs], 1).double()
        return float((split.codes - features @ torch.linalg.lstsq(features, split.codes).solution).square().mean())

    subspace, variances = signal_subspace(split.train, 3, 0.1, LEDGER)
    linear = principal_codes(subspace.scores(split.train), variances[:3], 0.1)
    assert unexplained(embedding.codes.mean) < 0.6 * unexplained(linear.mean)


@pytest.fixture(scope="module")
def folded():
    """A surface whose sheets lie on top of each other along the principal axes: its codes and its data."""
    split = draw(manifold(2, data_dim=50), 20, 500, 1, 1)
    return split.codes, split.train


def starting_from(codes):
    """Instead of the layout that keeps distances: the codes made from the others."""
    return lambda _scores, principal, _ledger: codes(principal)


def neighbours_kept(z, codes):
    """The share of the ten nearest codes of each point that are among the ten nearest of its true code."""
    true, found = ((torch.cdist(a, a) + 1e9 * torch.eye(len(a))).topk(10, largest=False).indices for a in (z, codes))
    return float((true[:, :, None] == found[:, None]).any(2).double().mean())


def test_folded_data_are_unfolded(folded, monkeypatch):
    """By the layout that keeps distances; from principal components alone, sheets stay on top of each other."""
    z, x = folded
    found = embed(x, 2, 1.0, LEDGER)
    monkeypatch.setattr(rff_lvm, "isometric_codes", starting_from(lambda principal: principal))
    flat = embed(x, 2, 1.0, LEDGER)
    assert neighbours_kept(z, found.codes.mean) > 1.1 * neighbours_kept(z, flat.codes.mean)
    assert found.posterior.width - 1 < 0.7 * (flat.posterior.width - 1)
    assert found.posterior.evidence(LEDGER) > flat.posterior.evidence(LEDGER) + 0.3


def test_a_layout_that_is_worse_is_left(curved, monkeypatch):
    _, split, _ = curved
    monkeypatch.setattr(rff_lvm, "isometric_codes", starting_from(lambda principal: principal))
    alone = embed(split.train, 3, 0.1, LEDGER)
    useless = starting_from(lambda principal: Codes(normal(400, 3), principal.covariance))
    monkeypatch.setattr(rff_lvm, "isometric_codes", useless)
    assert torch.equal(embed(split.train, 3, 0.1, LEDGER).codes.mean, alone.codes.mean)


def test_points_beyond_those_laid_out_have_the_code_of_their_nearest_one(folded, monkeypatch):
    _, x = folded
    monkeypatch.setattr(rff_lvm, "MOST_LAID_OUT", 300)
    subspace, variances = signal_subspace(x, 2, 1.0, LEDGER)
    scores = subspace.scores(x)
    codes = isometric_codes(scores, principal_codes(scores, variances[:2], 1.0), LEDGER)
    nearest = torch.cdist(scores[300:], scores[:300]).argmin(1)
    torch.testing.assert_close(codes.mean[300:], codes.mean[nearest])
    spread = codes.mean.T @ codes.mean / len(x) + codes.covariance.mean(0)
    torch.testing.assert_close(spread, torch.eye(2, dtype=torch.float64))


def test_the_evidence_of_a_linear_map_is_that_of_its_normal_distribution():
    """log N(scores; mean, W W^T + width I), to which Laplace's method comes at modes."""
    weight, width, scores = normal(3, 2, seed=3), 0.5, normal(40, 3)
    map_ = Surrogate.random(2, 4)
    coefficient = torch.cat([torch.zeros(1, 3), weight.T / PREFERENCE, torch.zeros(4, 3)]).double()
    linear = replace(map_, coefficient=coefficient)
    codes = climb(linear, scores, torch.zeros(40, 2).double(), width, 20, LEDGER)
    posterior = SurrogatePosterior(None, linear, width, scores, codes)
    marginal = MultivariateNormal(torch.zeros(3).double(), weight @ weight.T + width * torch.eye(3))
    assert posterior.evidence(LEDGER) == pytest.approx(float(marginal.log_prob(scores).mean()), abs=1e-6)


def test_noise_is_learned_where_it_is_unknown(curved):
    problem, split, embedding = curved
    assert embedding.noise == problem.noise_variance
    assert embed(split.train, 3, None, LEDGER).noise == pytest.approx(problem.noise_variance, rel=0.5)


def test_posterior_of_training_data_is_near_their_codes(curved):
    _, split, embedding = curved
    found = embedding.posterior.gaussian(split.train)
    spread = embedding.codes.covariance.diagonal(dim1=1, dim2=2).sqrt()
    assert ((found.mean - embedding.codes.mean).abs() / spread).median() < 0.3


def test_draws_have_the_density_that_is_stated(curved):
    _, split, embedding = curved
    x = split.validation[:5].float()
    z, log_q = embedding.posterior.sample(x, 2000, torch.Generator().manual_seed(0))
    q = embedding.posterior.gaussian(x)
    torch.testing.assert_close(log_q, MultivariateNormal(q.mean, q.covariance).log_prob(z))
    standard = torch.linalg.solve_triangular(torch.linalg.cholesky(q.covariance), (z - q.mean)[..., None], upper=False)
    assert kstest(standard.flatten().numpy(), "norm").pvalue > 1e-3


def test_every_density_at_every_code_is_that_of_torch(curved):
    _, split, embedding = curved
    x, z = split.validation[:4].float(), normal(6, 3)
    q, found = embedding.posterior.gaussian(x), embedding.posterior.log_prob(z, x)
    expected = [MultivariateNormal(m, c).log_prob(z) for m, c in zip(q.mean, q.covariance, strict=True)]
    torch.testing.assert_close(found, torch.stack(expected, 1))


def test_points_from_the_cube_follow_the_posterior(curved):
    _, split, embedding = curved
    x = split.validation[:3]
    u = torch.quasirandom.SobolEngine(3, scramble=True, seed=0).draw(4096).double()
    z, q = embedding.posterior.from_uniform(x, u), embedding.posterior.gaussian(x)
    assert z.shape == (4096, 3, 3)
    scale = q.covariance.diagonal(dim1=1, dim2=2).sqrt()
    assert ((z.mean(0) - q.mean) / scale).abs().max() < 0.01
    centred = z - q.mean
    assert (
        (torch.einsum("kni,knj->nij", centred, centred) / 4096 - q.covariance) / q.covariance.amax()
    ).abs().max() < 0.02


def test_all_work_is_counted_or_charged():
    """Twice the data are less than three times the work, all of it under known prices."""
    flops = []
    for n in (100, 200):
        ledger = CountingLedger()
        ledger.start()
        embed(draw(manifold(3, data_dim=20), 0, n, 1, 1).train, 3, 1.0, ledger, rounds=2)
        ledger.stop()
        assert ledger.unlisted == set()
        assert 0 < ledger.formula_flops < ledger.flops
        charged = {work.name: work.flops for work in ledger.account() if work.by == "formula"}
        # Principal axes; from both starts, a ridge regression in 204 features before and after each of 2 rounds, and a
        # whitening in each; and one of the layout.
        assert charged["eigenvectors"] == 9 * (20**3 + 2 * 3 * 204**3 + (2 * 2 + 1) * 3**3)
        assert charged["inverses"] == 2 * 2 * 27 * n * 2 * 3
        assert charged["roots"] == 27 / 3 * n * (2 * 3 + 2)  # of the evidence too
        rank = signal_subspace(draw(manifold(3, data_dim=20), 0, n, 1, 1).train, 3, 1.0, LEDGER)[0].axes.shape[1]
        assert charged["layout isomap-12"] == pytest.approx(layout_flops("isomap-12", n, rank, 3), abs=1)
        flops.append(ledger.flops)
    assert flops[0] < flops[1] < 3 * flops[0]


@pytest.mark.parametrize(("n", "data_dim"), [(50, 3), (3, 20)])
def test_too_few_data_or_coordinates_are_refused(n, data_dim):
    with pytest.raises(ValueError, match="more data and coordinates than latent dimensions 3"):
        embed(normal(n, data_dim), 3, 0.1, LEDGER)


def test_data_without_noise_or_without_any_variance_are_embedded():
    plane = normal(60, 3) @ normal(3, 8, seed=1)
    for x in (plane, torch.ones(60, 8)):
        codes = embed(x, 3, None, LEDGER).codes
        assert torch.isfinite(codes.mean).all()
        assert torch.isfinite(codes.covariance).all()
