"""The family of curved manifolds: the same everywhere, smooth, curved, and scored alike by independent estimators."""

import math

import pytest
import torch

from datasets.base import draw, stream
from datasets.manifold import manifold

# Decoded codes 0 and (0.5, -1, 0.5, -1, ...), first three coordinates, and the sum over all coordinates.
PINNED = {
    (2, 50): [
        *(-0.913223666707, -0.486250927327, 0.325364332281, -3.165543943884),
        *(-0.435512113914, 1.629452754029, 0.384855983006, 6.614468368540),
    ],
    (4, 100): [
        *(0.545161382859, 0.400152426899, -0.169930982697, 5.735625699839),
        *(0.874995728940, 1.137043398866, 0.448683539144, 6.027418513738),
    ],
    (8, 784): [
        *(0.761374177984, -0.283041168470, 0.336783040345, -10.218165475512),
        *(-0.957642476970, 0.160594654433, 0.624829305902, -18.170049256380),
    ],
}
MEMBERS = [(1, 10), (2, 50), (4, 100), (8, 784), (16, 50)]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spectrum(problem, draws=5_000):
    """Eigenvalues of the covariance of noiseless data, descending."""
    return torch.linalg.eigvalsh(torch.cov(problem.decoder(normal(draws, problem.latent_dim)).T)).flip(0)


def jacobian(problem, z, step=1e-5):
    """By central differences: (n, D, L)."""
    shifts = step * torch.eye(problem.latent_dim, dtype=torch.float64)
    return ((problem.decoder(z[:, None] + shifts) - problem.decoder(z[:, None] - shifts)) / (2 * step)).mT


@pytest.mark.parametrize(("latent", "data"), PINNED)
def test_the_decoder_is_the_same_on_every_machine(latent, data):
    problem = manifold(latent, data_dim=data)
    codes = torch.stack([torch.zeros(latent), torch.tensor([0.5, -1.0]).repeat(latent // 2)]).double()
    decoded = problem.decoder(codes)
    found = torch.cat([decoded[:, :3], decoded.sum(1, keepdim=True)], 1).flatten().tolist()
    assert found == pytest.approx(PINNED[latent, data], abs=1e-9, rel=0)


@pytest.mark.parametrize(("latent", "data"), MEMBERS)
def test_the_signal_has_mean_nought_and_variance_one(latent, data):
    draws = 20_000 if data == 784 else 40_000
    signal = manifold(latent, data_dim=data).decoder(normal(draws, latent))
    assert abs(float(signal.var(0).mean()) - 1) < 0.01
    assert signal.mean(0).abs().max() < 0.04


@pytest.mark.parametrize(("latent", "data", "left"), [(1, 10, 0.3), (2, 50, 0.4), (4, 100, 0.3), (8, 784, 0.3)])
def test_a_plane_of_the_latent_dimension_leaves_much_of_the_signal(latent, data, left):
    values = spectrum(manifold(latent, data_dim=data))
    assert values[latent:].sum() > left * values.sum()


def test_a_smaller_length_scale_is_more_curved_and_a_large_one_flat():
    left = [
        float(values[2:].sum() / values.sum())
        for values in (spectrum(manifold(2, length_scale=scale)) for scale in (0.7, 1.0, 2.0, 20.0))
    ]
    assert left[0] > left[1] + 0.05 > left[2] + 0.1
    assert left[3] < 0.01


@pytest.mark.parametrize(("latent", "data"), MEMBERS)
def test_it_is_smooth(latent, data):
    """The error of the tangent falls with the square of the step."""
    problem = manifold(latent, data_dim=data)
    z, step = normal(20, latent), normal(20, latent, seed=1)
    slope = torch.einsum("ndl,nl->nd", jacobian(problem, z), step)
    errors = [(problem.decoder(z + h * step) - problem.decoder(z) - h * slope).norm() / h**2 for h in (1e-2, 1e-3)]
    assert float(errors[0] / errors[1]) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("latent", "data"), MEMBERS)
def test_no_direction_of_the_code_is_lost(latent, data):
    """The posterior is narrower than the prior along every axis of the Fisher information, at most codes."""
    information = jacobian(manifold(latent, data_dim=data), normal(200, latent))
    least = torch.linalg.eigvalsh(information.mT @ information)[:, 0]
    assert least.quantile(0.1) > 0.3


@pytest.mark.parametrize("latent", [2, 4, 8])
def test_the_posterior_is_as_wide_as_stated(latent):
    problem = manifold(latent, data_dim=200, noise_variance=0.5)
    jac = jacobian(problem, normal(500, latent))
    precision = 1 + jac.square().sum(1) / problem.noise_variance
    assert float(precision.rsqrt().median()) == pytest.approx(math.sqrt(latent * 0.5 / (1.6 * 200)), rel=0.2)


def test_quadrature_agrees_with_importance_sampling_from_the_prior():
    problem = manifold(2, data_dim=10, noise_variance=1.0)
    x = draw(problem, 0, 1, 1, 15).test
    found = problem.log_prob(x)
    z = normal(400_000, 2, seed=3)
    log_weight = torch.cdist(x, problem.decoder(z)).square() / (-2 * problem.noise_variance)
    value = torch.logsumexp(log_weight, 1) - math.log(len(z)) - 5 * math.log(2 * math.pi * problem.noise_variance)
    relative = (log_weight - log_weight.amax(1, keepdim=True)).exp()
    error = relative.std(1) / relative.mean(1) / math.sqrt(len(z))
    assert error.max() < 0.05
    off = (value - found.value) / (error + found.error)
    assert 0.6 < float(off.square().mean().sqrt()) < 1.4


def test_quadrature_agrees_with_a_fine_grid_where_posteriors_are_narrow():
    problem = manifold(2, noise_variance=0.05)
    z = normal(6, 2, seed=5)
    x = problem.decoder(z) + math.sqrt(problem.noise_variance) * normal(6, 50, seed=6)
    found = problem.log_prob(x)
    axis = torch.linspace(-3.5, 3.5, 351, dtype=torch.float64)
    parts = [
        torch.logsumexp(torch.cdist(x, problem.decoder(part)).square() / -0.1 - part.square().sum(1) / 2, 1)
        for part in torch.cartesian_prod(axis, axis).split(100_000)
    ]
    grid = torch.logsumexp(torch.stack(parts), 0) + 2 * math.log(0.02) - math.log(2 * math.pi)
    expected = grid - 25 * math.log(2 * math.pi * problem.noise_variance)
    assert ((found.value - expected).abs() <= found.error + 1e-7).all()
    assert found.error.mean() <= 1e-3


def test_members_have_names_and_streams_of_their_own_and_alike_ones_the_same():
    members = [
        manifold(2),
        manifold(3),
        manifold(data_dim=51),
        manifold(noise_variance=0.5),
        manifold(length_scale=2.0),
    ]
    names = [member.name for member in members]
    assert len(set(names)) == 5
    assert len({float(torch.rand(1, generator=stream(name, 0, "train"))) for name in names}) == 5
    assert manifold(2, data_dim=50, noise_variance=1, length_scale=1).name == manifold().name
    assert manifold().noise_variance == 1.0
    # The name seeds the data, so it is the same forever.
    assert manifold().name == "manifold[latent_dim=2,data_dim=50,noise=1.0,length_scale=1.0]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_dim": 0}, "latent_dim 1 to 16, got 0"),
        ({"latent_dim": 17}, "latent_dim 1 to 16, got 17"),
        ({"data_dim": 9}, "data_dim 10 to 784 .* got 9"),
        ({"data_dim": 785}, "data_dim 10 to 784 .* got 785"),
        ({"latent_dim": 12, "data_dim": 12}, "above latent_dim 12, got 12"),
        ({"noise_variance": 0.0}, "positive noise_variance and length_scale, got 0.0"),
        ({"length_scale": math.inf}, "positive noise_variance and length_scale, got 1.0 and inf"),
    ],
)
def test_what_is_out_of_range_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        manifold(**arguments)
