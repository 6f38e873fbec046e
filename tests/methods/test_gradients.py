"""The gradient that each objective is trained by is, in expectation, that of the bound, integrated by quadrature."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from methods.common.posteriors import build_encoder
from methods.common.training import Objective, elbo
from methods.iwae import doubly_reparameterised, importance_weighted

NODES = 64
TOLERANCE = 1e-7
STEP = 1e-4


def evidence_lower_bound(model, posterior, x, noise):
    """The ELBO in the form of the others: (n, D), (1, n, L) -> (n,)."""
    return Objective.of(elbo(model, posterior, x, noise[0]))


CASES = [
    pytest.param(evidence_lower_bound, 1, id="elbo"),
    *(pytest.param(importance_weighted, k, id=f"importance weighted, K = {k}") for k in (1, 2)),
    *(pytest.param(doubly_reparameterised, k, id=f"doubly reparameterised, K = {k}") for k in (1, 2)),
]


@pytest.fixture
def networks(make_task):
    """A decoder with a tanh layer, of noise to be learned, an encoder and three data, in double precision: L = 1."""
    task = make_task("circle", noise="learned", hidden=(3,))
    task.model.set_variance(0.5)
    posterior = build_encoder(task.model, task.generator).double()
    return task.model.double(), posterior, task.train[:3].double()


def rule(codes):
    """The Gauss-Hermite product rule over the noise of K codes: nodes (M, K) and weights (M,)."""
    points, weights = np.polynomial.hermite_e.hermegauss(NODES)
    grids = np.meshgrid(*[points] * codes, indexing="ij")
    products = np.meshgrid(*[weights / math.sqrt(2 * math.pi)] * codes, indexing="ij")
    nodes = np.stack([grid.ravel() for grid in grids], 1)
    return torch.tensor(nodes), torch.tensor(np.prod([each.ravel() for each in products], 0))


def parameters(model, posterior):
    return [*model.network.parameters(), model.log_noise, *posterior.network.parameters()]


def integrated(model, posterior, x, codes):
    """E log (1/K) sum_k p(x, z_k) / q(z_k | x), summed over x, written out with torch's densities."""
    noise, weights = rule(codes)
    mean, log_scale = posterior.moments(x)
    z = mean + log_scale.exp() * noise[..., None, None]
    likelihood = Normal(model.decode(z), (model.log_noise / 2).exp()).log_prob(x).sum(-1)
    ratio = Normal(0.0, 1.0).log_prob(z).sum(-1) - Normal(mean, log_scale.exp()).log_prob(z).sum(-1)
    return (weights @ (torch.logsumexp(likelihood + ratio, 1) - math.log(codes))).sum()


def true_gradient(model, posterior, x, codes):
    gradients = torch.autograd.grad(integrated(model, posterior, x, codes), parameters(model, posterior))
    return parameters_to_vector(gradients)


def expected(objective, model, posterior, x, codes):
    """The means over the noise, by quadrature, of the bound's value and of the surrogate's gradient."""
    noise, weights = rule(codes)
    data = x.expand(len(noise), *x.shape).reshape(-1, x.shape[1])
    found = objective(model, posterior, data, noise.T.repeat_interleave(len(x), 1)[..., None])
    weights = weights.repeat_interleave(len(x))
    gradients = torch.autograd.grad(weights @ found.surrogate, parameters(model, posterior))
    return weights @ found.bound, parameters_to_vector(gradients)


def error(found, truth):
    """The largest difference over the largest value."""
    return float((found - truth).abs().max() / truth.abs().max())


def parts(gradient, model):
    """The decoder's share of a gradient, its noise's included, and the encoder's."""
    count = sum(p.numel() for p in model.parameters())
    return gradient[:count], gradient[count:]


def is_unbiased(objective, model, posterior, x, codes):
    """Whether the surrogate's gradient is, for the decoder and for the encoder, that of the integrated bound."""
    _, found = expected(objective, model, posterior, x, codes)
    pairs = zip(parts(found, model), parts(true_gradient(model, posterior, x, codes), model), strict=True)
    return [error(*pair) < TOLERANCE for pair in pairs]


@pytest.mark.parametrize(("objective", "codes"), CASES)
def test_bound_is_in_expectation_the_integrated_one(objective, codes, networks):
    value, _ = expected(objective, *networks, codes)
    assert float(value) == pytest.approx(integrated(*networks, codes).item(), rel=1e-10)
    assert not value.requires_grad


@pytest.mark.parametrize(("objective", "codes"), CASES)
def test_gradient_is_in_expectation_that_of_the_integrated_bound(objective, codes, networks):
    assert is_unbiased(objective, *networks, codes) == [True, True]


@pytest.mark.parametrize("codes", [1, 2])
def test_gradient_of_the_integrated_bound_is_that_of_central_differences(codes, networks):
    model, posterior, x = networks
    truth = true_gradient(*networks, codes)
    start = parameters_to_vector(parameters(model, posterior)).detach().clone()
    found = torch.empty_like(start)
    with torch.no_grad():
        for i, step in enumerate(STEP * torch.eye(len(start), dtype=start.dtype)):
            ends = []
            for moved in (start + step, start - step):
                vector_to_parameters(moved, parameters(model, posterior))
                ends.append(integrated(model, posterior, x, codes))
            found[i] = (ends[0] - ends[1]) / (2 * STEP)
    assert error(found, truth) < 1e-6
    assert all(float(part.abs().max()) > 0.1 for part in parts(truth, model))


# Mistakes, with the parts (decoder, encoder) whose gradient is still right


def terms(model, posterior, x, noise):
    """mu, log sigma and the draws z of a batch."""
    mean, log_scale = posterior.moments(x)
    return mean, log_scale, mean + log_scale.exp() * noise


def log_weights(model, x, z, mean, log_scale):
    log_q = Normal(mean, log_scale.exp()).log_prob(z).sum(-1)
    return model.log_likelihood(x, z) + Normal(0.0, 1.0).log_prob(z).sum(-1) - log_q


def surrogate(value):
    return Objective(value.detach(), value)


def kl_flipped(model, posterior, x, noise):
    bound = elbo(model, posterior, x, noise[0])
    likelihood = model.log_likelihood(x, terms(model, posterior, x, noise[0])[2])
    return surrogate(2 * likelihood - bound)


def path_dropped(model, posterior, x, noise):
    """Draws held constant, without the score of q that would then be due."""
    mean, log_scale, z = terms(model, posterior, x, noise)
    return surrogate(torch.logsumexp(log_weights(model, x, z.detach(), mean, log_scale), 0))


def score_kept(model, posterior, x, noise):
    """Squared weights, although the weights still depend on the parameters of q directly."""
    return squared(model, x, *terms(model, posterior, x, noise), held=False)


def not_squared(model, posterior, x, noise):
    """The score of q dropped, and the weights as they are."""
    mean, log_scale, z = terms(model, posterior, x, noise)
    return surrogate(torch.logsumexp(log_weights(model, x, z, mean.detach(), log_scale.detach()), 0))


def squared_for_the_decoder(model, posterior, x, noise):
    return squared(model, x, *terms(model, posterior, x, noise), held=True)


def squared(model, x, mean, log_scale, z, held):
    at = (mean.detach(), log_scale.detach()) if held else (mean, log_scale)
    found = log_weights(model, x, z, *at)
    return surrogate((torch.softmax(found.detach(), 0).square() * found).sum(0))


@pytest.mark.parametrize(
    ("mistake", "codes", "right"),
    [
        (kl_flipped, 1, [True, False]),
        (path_dropped, 1, [True, False]),
        (path_dropped, 2, [True, False]),
        (score_kept, 2, [False, False]),
        (not_squared, 2, [True, False]),
        (squared_for_the_decoder, 2, [False, True]),
    ],
)
def test_a_mistake_is_caught_where_it_is(mistake, codes, right, networks):
    assert is_unbiased(mistake, *networks, codes) == right


@pytest.mark.parametrize("harmless", [score_kept, not_squared])
def test_with_one_code_the_score_has_no_mean_and_its_weight_is_one(harmless, networks):
    assert is_unbiased(harmless, *networks, 1) == [True, True]
