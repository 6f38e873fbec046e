"""The spline flow's density and its bound against automatic derivatives, grids and planted mistakes."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal
from torch.special import ndtr
from zuko.distributions import DiagNormal, NormalizingFlow

from methods import flow
from methods.contract.decoder import gaussian_log_prob, standard_normal_log_prob
from methods.flow import SplineFlow, build_flow, tempered_elbo

BINS = 4
DATA = {1: "circle", 2: "s_curve", 3: "manifold"}


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def make_flow(make_task):
    """A function that gives a model, a flow whose splines are far from the identity, and data; all in float64."""

    def make(latent, cls=SplineFlow, bent=0.3):
        task = make_task(DATA[latent], latent_dim=latent)
        task.model.set_variance(0.3)
        posterior = build_flow(task.model, task.generator, BINS)
        posterior.__class__ = cls
        with torch.no_grad():
            for layer in posterior.spline.transforms:
                for parameter in layer.hyper[-1].parameters():
                    parameter.copy_(bent * normal(*parameter.shape))
        return task.model.double(), posterior.double(), task.train[:5].double()

    return make


class Mistaken(SplineFlow):
    """Counts the log-determinant of the splines, and that of the affine layer, this many times."""

    slopes, scales = 1, 1

    def push(self, x, noise):
        z, log_q = super().push(x, noise)
        log_scale = self.outputs(x)[:, self.latent_dim : 2 * self.latent_dim].sum(-1)
        base = standard_normal_log_prob(noise)
        return z, base - self.scales * log_scale - self.slopes * (base - log_scale - log_q)


class WithoutSlopes(Mistaken):
    slopes = 0


class WithoutScales(Mistaken):
    scales = 0


class WrongSign(Mistaken):
    slopes = -1


MISTAKES = (WithoutSlopes, WithoutScales, WrongSign)


def density_is_that_of_the_map(posterior, x, latent):
    """log q = log N(e) - log |det dz/de| with the Jacobian by automatic differentiation, a row of it at a time."""
    noise = normal(3, len(x), latent)
    _, log_q = posterior.push(x, noise)
    summed = torch.autograd.functional.jacobian(lambda e: posterior.push(x, e)[0].sum((0, 1)), noise)
    jacobians = summed.movedim(0, -2)
    expected = Independent(Normal(torch.zeros_like(noise), 1.0), 1).log_prob(noise)
    return torch.allclose(log_q, expected - torch.linalg.slogdet(jacobians)[1], atol=1e-9)


def draws_have_the_density(posterior, x, latent, count=10_000):
    """E_q [r(z) / q(z)] = 1 for any density r; here the Gaussian of the draws' own moments."""
    with torch.no_grad():
        z, log_q = posterior.sample(x.float(), count, torch.Generator().manual_seed(1))
    z = z.double()
    r = Independent(Normal(z.mean(0), 0.7 * z.std(0)), 1).log_prob(z)
    ratio = (r - log_q).exp()
    error = ratio.std(0) / math.sqrt(count)
    return bool(((ratio.mean(0) - 1).abs() < 4 * error).all() and (error < 0.1).all())


@pytest.mark.parametrize("latent", [1, 2, 3])
def test_density_is_that_of_the_map_by_automatic_differentiation(make_flow, latent):
    _, posterior, x = make_flow(latent)
    assert density_is_that_of_the_map(posterior, x, latent)


@pytest.mark.parametrize("latent", [1, 2])
def test_draws_have_the_density_that_is_stated(make_flow, latent):
    _, posterior, x = make_flow(latent)
    assert draws_have_the_density(posterior, x, latent)


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("latent", [1, 2])
def test_a_mistake_in_the_density_is_caught(make_flow, mistake, latent):
    _, posterior, x = make_flow(latent, mistake)
    assert not density_is_that_of_the_map(posterior, x, latent)
    assert not draws_have_the_density(posterior, x, latent)


def on_a_grid(posterior, x, points, reach=7.0):
    """Codes spread evenly over +- reach of L dimensions, (m, 1, L), log q(z | x) of each by zuko, and their spacing."""
    latent = posterior.latent_dim
    mean, log_scale, features = posterior.outputs(x).tensor_split([latent, 2 * latent], -1)
    axis = torch.linspace(-reach, reach, points, dtype=torch.float64)
    z = torch.cartesian_prod(*[axis] * latent).reshape(-1, 1, latent)
    base = DiagNormal(torch.zeros(latent, dtype=torch.float64), torch.ones(latent, dtype=torch.float64))
    inner = NormalizingFlow(posterior.spline(features).inv, base)
    log_q = inner.log_prob((z - mean) / log_scale.exp()) - log_scale.sum(-1)
    return z, log_q, float(axis[1] - axis[0]) ** latent


def test_density_over_the_plane_integrates_to_one_and_to_the_share_of_draws_in_each_quadrant(make_flow):
    _, posterior, x = make_flow(2)
    x, count = x[:1], 40_000
    with torch.no_grad():
        z, log_q, cell = on_a_grid(posterior, x, 200)
        draws = posterior.sample(x, count, torch.Generator().manual_seed(2))[0][:, 0]
    mass, centre = log_q[:, 0].exp() * cell, draws.median(0).values
    assert float(mass.sum()) == pytest.approx(1, abs=2e-3)
    for right in (True, False):
        for above in (True, False):
            within = [((c > centre) == torch.tensor([right, above])).all(-1) for c in (z[:, 0], draws)]
            share = float(mass[within[0]].sum())
            assert float(within[1].double().mean()) == pytest.approx(share, abs=4 * math.sqrt(0.25 / count) + 2e-3)


def bound(*args):
    return tempered_elbo(*args, 0.3).bound


def surrogate(*args):
    return tempered_elbo(*args, 1.0).surrogate


def tempered(*args):
    return tempered_elbo(*args, 0.3).surrogate


def over_noise(objective, model, posterior, x, points):
    """E objective over its base noise by the trapezium rule, (1,)."""
    axis = torch.linspace(-6.5, 6.5, points, dtype=torch.float64)
    noise = torch.cartesian_prod(*[axis] * model.latent_dim).reshape(-1, 1, model.latent_dim)
    weights = standard_normal_log_prob(noise)[:, 0].exp() * float(axis[1] - axis[0]) ** model.latent_dim
    return weights @ objective(model, posterior, x.expand(len(noise), -1), noise[:, 0][None])


def over_codes(weight, model, posterior, x, points):
    """The same as an integral of q (weight log p(x, z) - log q) over z, which no noise enters, (1,)."""
    z, log_q, cell = on_a_grid(posterior, x, points)
    log_joint = gaussian_log_prob(x - model.decode(z), model.log_noise) + standard_normal_log_prob(z)
    return ((log_q.exp() * (weight * log_joint - log_q)).sum(0) * cell)[0]


def same_gradient(objective, weight, model, posterior, x, points):
    """Whether value and gradient in every weight of decoder and posterior are those of the integral, for one datum."""
    parameters = [*model.network.parameters(), *posterior.parameters()]
    values = over_noise(objective, model, posterior, x, points), over_codes(weight, model, posterior, x, points)
    found, exact = (torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters)]) for value in values)
    return torch.allclose(*values, rtol=1e-3) and torch.allclose(found, exact, atol=5e-3 * float(exact.abs().max()))


POINTS = {1: 4000, 2: 200}


@pytest.mark.parametrize(("objective", "weight"), [(surrogate, 1), (tempered, 0.3)])
@pytest.mark.parametrize("latent", [1, 2])
def test_gradient_is_right_in_expectation(make_flow, objective, weight, latent):
    model, posterior, x = make_flow(latent, bent=0.1)
    assert same_gradient(objective, weight, model, posterior, x[:1], POINTS[latent])


def test_bound_is_the_elbo_whatever_the_weight(make_flow):
    model, posterior, x = make_flow(1)
    found, exact = over_noise(bound, model, posterior, x[:1], 4000), over_codes(1, model, posterior, x[:1], 4000)
    assert not found.requires_grad
    torch.testing.assert_close(found, exact.detach(), rtol=1e-3, atol=0)


def without_the_prior(model, posterior, x, noise):
    z, log_q = posterior.push(x, noise)
    return (model.log_likelihood(x, z) - log_q).mean(0)


def with_a_fixed_density(model, posterior, x, noise):
    """The right value, but no gradient of log q."""
    z, log_q = posterior.push(x, noise)
    return (model.log_likelihood(x, z) + standard_normal_log_prob(z) - log_q.detach()).mean(0)


@pytest.mark.parametrize("mistake", [without_the_prior, with_a_fixed_density, tempered])
def test_a_mistake_in_the_objective_is_caught(make_flow, mistake):
    model, posterior, x = make_flow(1)
    assert not same_gradient(mistake, 1, model, posterior, x[:1], POINTS[1])


def test_a_flow_begins_as_the_gaussian_of_its_affine_layer(make_task):
    for name, latent in (("circle", 1), ("s_curve", 2)):
        task = make_task(name)
        posterior, x = build_flow(task.model, task.generator, BINS), task.train[:4]
        with torch.no_grad():
            z, log_q = posterior.sample(x, 50, torch.Generator().manual_seed(0))
            mean, log_scale = posterior.outputs(x)[:, : 2 * latent].chunk(2, -1)
        expected = Independent(Normal(mean, log_scale.exp()), 1).log_prob(z)
        torch.testing.assert_close(log_q, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("latent", [1, 2])
def test_points_from_the_cube_are_those_of_the_base_pushed(make_flow, latent):
    _, posterior, x = make_flow(latent)
    noise = normal(20, latent)
    spare = torch.cat([ndtr(noise), torch.full((20, 1), 0.3, dtype=torch.float64)], 1)
    pushed = posterior.push(x, noise[:, None].expand(-1, len(x), -1))[0]
    torch.testing.assert_close(posterior.from_uniform(x, spare), pushed)


def test_the_checks_of_distributions_are_as_they_were():
    """Importing zuko turns them off for the whole process, and with them a part of what other methods cost."""
    assert torch.distributions.Distribution._validate_args == __debug__


@pytest.mark.parametrize(("warm_up", "steps", "full"), [(50.0, 200, 50), (0.25, 200, 50), (1.0, 200, 1)])
def test_the_weight_rises_over_a_number_of_steps_or_a_share_of_them(warm_up, steps, full, monkeypatch):
    weights = []
    monkeypatch.setattr(flow, "tempered_elbo", lambda *args: weights.append(args[-1]))
    for step in range(steps):
        flow.FlowVAE(warm_up=warm_up, steps=steps).objective(None, None, None, None, step)
    assert weights[0] == flow.LEAST_WEIGHT
    assert weights[full] == 1.0
    assert full == 1 or weights[full - 1] < 1.0
