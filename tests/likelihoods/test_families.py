"""Every family of p(x | z): densities, moments and geometry against torch's distributions and against each other."""

import math

import pytest
import torch
from torch.distributions import Normal

from likelihoods import Bernoulli, Gaussian, Poisson

FAMILIES = {
    "gaussian": (Gaussian(0.3), lambda o: Normal(o, math.sqrt(0.3))),
    "bernoulli": (Bernoulli(), lambda o: torch.distributions.Bernoulli(logits=o)),
    "poisson": (Poisson(), lambda o: torch.distributions.Poisson(o.exp())),
}


@pytest.fixture(params=FAMILIES)
def family(request):
    """A likelihood, torch's distribution of the same outputs, data (7, 4) and outputs (5, 4)."""
    likelihood, distribution = FAMILIES[request.param]
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    x = likelihood.sample(outputs[[0, 1, 2, 3, 4, 0, 1]], generator)
    return likelihood, distribution, x, outputs


def test_the_density_is_that_of_torch(family):
    likelihood, distribution, x, outputs = family
    expected = distribution(outputs).log_prob(x[:, None]).sum(-1)
    assert torch.allclose(likelihood.log_prob(x[:, None], outputs), expected, rtol=1e-12)


def test_all_forms_of_the_density_differ_by_terms_in_x_alone(family):
    likelihood, _, x, outputs = family
    expected = likelihood.log_prob(x[:, None], outputs)
    forms = {
        "deviance": likelihood.deviance(x[:, None], outputs) / (-2 * likelihood.dispersion),
        "affinity": likelihood.affinity(x, outputs, -likelihood.log_partition(outputs)),
        "compared": likelihood.compared(x, outputs),
    }
    for found in forms.values():
        off = expected - found
        assert torch.allclose(off, off[:, :1].expand_as(off), atol=1e-10)
    whole = forms["affinity"] + likelihood.base(x)[:, None] + likelihood.constant(4)
    assert torch.allclose(whole, expected, atol=1e-10)
    doubled = likelihood.compared(x, outputs.repeat_interleave(2, 0), 2)
    assert torch.allclose(doubled, forms["compared"], atol=1e-10)


def test_the_conjugate_is_the_value_at_the_outputs_that_explain_x_best(family):
    likelihood, _, _, outputs = family
    x = likelihood.mean(outputs)
    best = likelihood.log_prob(x, outputs)
    assert torch.allclose(likelihood.conjugate(x) + likelihood.base(x) + likelihood.constant(4), best, atol=1e-10)
    assert torch.allclose(likelihood.deviance(x, outputs), torch.zeros(5).double(), atol=1e-10)
    assert (likelihood.log_prob(x, outputs + 0.1) < best).all()
    assert (likelihood.log_prob(x, outputs - 0.1) < best).all()


def test_moments_are_those_of_draws(family):
    likelihood, distribution, _, outputs = family
    drawn = likelihood.sample(outputs.expand(40_000, -1, -1), torch.Generator().manual_seed(1))
    expected = distribution(outputs)
    assert torch.allclose(likelihood.mean(outputs), expected.mean, rtol=1e-12)
    assert torch.allclose(drawn.mean(0), expected.mean, atol=0.03 * float(expected.variance.max()) + 0.01)
    assert torch.allclose(drawn.var(0), expected.variance, rtol=0.05)


def test_the_embedding_has_the_fisher_metric(family):
    likelihood, distribution, _, outputs = family
    (slope,) = torch.autograd.grad(likelihood.embed(at := outputs.clone().requires_grad_()).sum(), at)
    information = distribution(outputs).variance / likelihood.dispersion**2
    assert torch.allclose(slope.square() / likelihood.dispersion, information, rtol=1e-10)
