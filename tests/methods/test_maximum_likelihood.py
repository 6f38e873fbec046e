"""On probabilistic PCA the best that any inference can reach is analytic (Tipping & Bishop 1999)."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from methods import flow, full_covariance, iterative, iwae, particles, semi_amortised, svi, vae, wake_sleep

LINEAR = {"hidden": (), "activation": "linear"}  # of the decoder, and of the encoder, which has its layers
# The posterior of a linear model is linear in x, so that a linear encoder leaves no inference gap.
FAST = {"batch_size": 250, "learning_rate": 0.2}
METHODS = {
    "vae": vae.VAE(steps=600, **FAST),
    "iwae": iwae.IWAE(samples=4, steps=300, **FAST),
    "iwae-dreg": iwae.DoublyReparameterisedIWAE(samples=4, steps=300, **FAST),
    "iterative": iterative.Iterative(steps=600, window=5, most_inner=10, **FAST),
    "semi-amortised": semi_amortised.SemiAmortisedVAE(steps=300, **FAST),
    "flow": flow.FlowVAE(steps=300, batch_size=250, learning_rate=0.1, warm_up=100),
    "full-covariance": full_covariance.FullCovarianceVAE(steps=300, **FAST),
    "wake-sleep": wake_sleep.WakeSleep(samples=4, steps=300, **FAST),
    "svi": svi.SVI(steps=800, batch_size=250, learning_rate=0.05, code_rate=2.0),
    "particles": particles.Particles(steps=1000, batch_size=250, learning_rate=0.05, rate=0.05),
}


def log_likelihood(x, mean, covariance):
    return float(multivariate_normal(mean, covariance).logpdf(x).mean())


def best(x, latent, noise):
    """The greatest mean log-likelihood of data x (N, D) with known noise, or learned for None; and that noise."""
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    noise = values[:-latent].mean() if noise is None else noise
    values[:-latent] = noise
    return log_likelihood(x, x.mean(0), (vectors * values.clip(noise)) @ vectors.T), noise


def reached(model, x):
    codes = torch.cat([torch.zeros(1, model.latent_dim), torch.eye(model.latent_dim)])
    with torch.no_grad():
        decoded = model.decode(codes).double().numpy()
    weight = (decoded[1:] - decoded[0]).T
    return log_likelihood(x, decoded[0], weight @ weight.T + model.variance() * np.eye(len(weight)))


@pytest.fixture(params=METHODS)
def trained(request):
    """A function that trains a method with a linear encoder, and gives what it has yielded last at each tenth."""
    method = METHODS[request.param]

    def train(task):
        for step, fitted in enumerate(method.fit(task), 1):
            if step % (method.steps // 10) == 0:
                yield fitted

    return train


def test_known_noise_leads_to_the_maximum_and_never_above(trained, make_task):
    """In two latent dimensions; the test below is in one."""
    task = make_task("linear_gaussian", 500, latent_dim=2, **LINEAR)
    x = task.train.double().numpy()
    highest, _ = best(x, 2, task.model.variance())
    looks = [reached(fitted.model, x) for fitted in trained(task)]
    assert len(looks) == 10
    assert max(looks) < highest + 1e-6
    assert looks[0] < highest - 0.02 or looks[0] < looks[-1]
    assert looks[-1] > highest - 0.02


def test_learned_noise_is_the_mean_of_the_discarded_eigenvalues(trained, make_task):
    generator = torch.Generator().manual_seed(4)
    codes = torch.randn(500, 1, generator=generator)
    x = codes @ torch.tensor([[2.0, -1.0, 0.5, 0.0]]) + 3 + 0.4 * torch.randn(500, 4, generator=generator)
    task = make_task(x, noise="learned", latent_dim=1, **LINEAR)
    *_, fitted = trained(task)
    highest, noise = best(x.double().numpy(), 1, None)
    assert math.log(fitted.model.variance() / noise) == pytest.approx(0, abs=0.05)
    assert highest - 0.02 < reached(fitted.model, x.double().numpy()) < highest + 1e-6
