"""The evidence lower bound against torch, Pyro and exact integrals; batches and steps."""

import itertools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from methods.common.posteriors import build_encoder
from methods.common.training import Objective, adam, ascend, batches, elbo
from methods.contract.method import NullLedger


@pytest.fixture(params=[1, 2])
def networks(request, make_task):
    """A model, an encoder and five data: L = 1 and 2."""
    task = make_task(["circle", "s_curve"][request.param - 1], noise=0.3)
    task.model.set_variance(0.3)
    return task.model, build_encoder(task.model, task.generator), task.train[:5]


def expected_bound(model, posterior, x, nodes=9):
    """E elbo over its noise by the Gauss-Hermite product rule, (n,): exact where f is a polynomial."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    total = 0
    for index in itertools.product(range(nodes), repeat=model.latent_dim):
        noise = torch.tensor(points[list(index)], dtype=torch.float32).expand(len(x), -1)
        total = total + float(np.prod(weights[list(index)] / math.sqrt(2 * math.pi))) * elbo(model, posterior, x, noise)
    return total


def test_elbo_is_the_expected_log_likelihood_minus_the_kl_of_torch(networks):
    model, posterior, x = networks
    noise = torch.randn(5, model.latent_dim, generator=torch.Generator().manual_seed(0))
    mean, log_scale = posterior.moments(x)
    q = Independent(Normal(mean, log_scale.exp()), 1)
    prior = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1)
    decoded = model.decode(mean + log_scale.exp() * noise)
    likelihood = Independent(Normal(decoded, math.sqrt(0.3)), 1).log_prob(x)
    torch.testing.assert_close(elbo(model, posterior, x, noise), likelihood - kl_divergence(q, prior))


def test_elbo_is_that_of_pyro(networks, clean_pyro):
    model, posterior, x = networks

    def generative(x):
        with pyro.plate("data", len(x)):
            zeros = torch.zeros(len(x), model.latent_dim)
            z = pyro.sample("z", dist.Normal(zeros, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(model.decode(z), math.sqrt(model.variance())).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            mean, log_scale = posterior.moments(x)
            pyro.sample("z", dist.Normal(mean, log_scale.exp()).to_event(1))

    pyro.set_rng_seed(0)
    objective = Trace_ELBO(num_particles=2000, vectorize_particles=True, max_plate_nesting=1)
    with torch.no_grad():
        theirs = np.array([-objective.loss(generative, guide, x) for _ in range(12)])
        ours = float(expected_bound(model, posterior, x).sum())
    stderr = theirs.std(ddof=1) / math.sqrt(len(theirs))
    assert stderr < 0.05
    assert abs(ours - theirs.mean()) < 4 * stderr


def linear(make_task, latent):
    task = make_task("linear_gaussian", latent_dim=latent, activation="linear")
    return task.model, build_encoder(task.model, task.generator), task.train[:7]


def closed_form(model, posterior, x):
    """The expected bound of a linear decoder, (n,): E |x - W z - b|^2 = |x - W mu - b|^2 + sum_j sigma_j^2 |W_j|^2."""
    mean, log_scale = posterior.moments(x)
    weight = model.units.scale * model.network[0].weight
    spread = (log_scale.exp().square() * weight.square().sum(0)).sum(1)
    residual = (x - model.decode(mean)).square().sum(1)
    noise = model.log_noise.exp()
    likelihood = -(residual + spread) / (2 * noise) - x.shape[1] / 2 * (2 * math.pi * noise).log()
    return likelihood - 0.5 * (mean.square() + (2 * log_scale).exp() - 1 - 2 * log_scale).sum(1)


@pytest.mark.parametrize("latent", [1, 2])
def test_bound_and_gradient_are_right_in_expectation(make_task, latent):
    model, posterior, x = linear(make_task, latent)
    parameters = [*model.network.parameters(), *posterior.network.parameters()]
    expected = closed_form(model, posterior, x)
    found = expected_bound(model, posterior, x, nodes=4)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    exact = torch.autograd.grad(expected.sum(), parameters)
    for gradient, truth in zip(torch.autograd.grad(found.sum(), parameters), exact, strict=True):
        torch.testing.assert_close(gradient, truth, rtol=1e-3, atol=1e-3 * float(truth.abs().max()))


@pytest.mark.parametrize(("n", "size", "used"), [(12, 4, 12), (13, 4, 12), (3, 4, 3), (4, 4, 4), (1, 1, 1)])
def test_batches_take_each_datum_once_a_pass(n, size, used):
    stream = batches(n, size, torch.Generator().manual_seed(0), NullLedger())
    per_pass = used // min(size, n)
    orders = []
    for _ in range(3):
        taken = [next(stream) for _ in range(per_pass)]
        assert {len(batch) for batch in taken} == {min(size, n)}
        orders.append(torch.cat(taken).tolist())
        assert len(set(orders[-1])) == used
        assert set(orders[-1]) <= set(range(n))
    assert n < 4 or len({tuple(order) for order in orders}) == 3


def test_every_datum_has_its_turn_though_the_last_batch_is_dropped():
    taken = torch.cat([*itertools.islice(batches(7, 3, torch.Generator().manual_seed(0), NullLedger()), 200)])
    share = torch.bincount(taken, minlength=7) / len(taken)
    assert (share - 1 / 7).abs().max() < 0.03


def test_ascend_steps_every_optimiser_up_the_surrogate_and_returns_the_bound():
    first, second = (nn.Parameter(torch.tensor([value])) for value in (1.0, 2.0))
    optimisers = [torch.optim.SGD([p], lr=0.1) for p in (first, second)]

    def objective():
        return Objective(torch.tensor([5.0, 8.0]), torch.cat([first**2 + 3 * second, 4 * first + 3 * second]))

    for _ in range(2):
        expected = first.item() + 0.1 * (2 * first.item() + 4) / 2, second.item() + 0.1 * 3
        value = ascend(objective, *optimisers)
        assert float(value) == 6.5
        assert not value.requires_grad
        assert (first.item(), second.item()) == pytest.approx(expected)


def test_adam_takes_only_what_is_to_be_learned():
    free, held = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1), requires_grad=False)
    optimiser = adam([free, held], 0.1)
    ascend(lambda: Objective.of(torch.sum(free + held)), optimiser)
    assert held.item() == 1
    assert free.item() == pytest.approx(1.1, abs=1e-6)
