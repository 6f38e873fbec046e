"""Posterior collapse: a deep decoder that joint training leaves constant, although its codes are worth 3 nats."""

import pytest
import torch

import datasets
from bench.metrics.codes import code_use
from bench.metrics.likelihood import encoded
from datasets.base import stream
from methods.mapa import MAPA
from methods.vae import VAE

NOISE_VARIANCE = 0.1
DEEP, SHALLOW = (16,) * 16, (16,) * 2


@pytest.fixture(scope="module")
def fitted(make_task):
    """Methods by the depth of the networks, fitted to 200 points of the circle with much noise."""
    x = circle(200, "train")
    methods = {"vae": VAE(steps=300, batch_size=50), "mapa": MAPA(steps=100)}

    def fit(name, hidden):
        *_, last = methods[name].fit(make_task(x, noise=NOISE_VARIANCE, latent_dim=1, hidden=hidden))
        return last

    return {which: fit(*which) for which in (("vae", DEEP), ("vae", SHALLOW), ("mapa", DEEP))}


def circle(n, name):
    z, x = datasets.load("circle").sample_joint(n, stream("circle", 0, name))
    signal = datasets.load("circle").decoder(z)
    return signal + (x - signal) * (NOISE_VARIANCE / 0.01) ** 0.5


def use(fitted):
    """Active units, mutual information and the ELBO on test points."""
    x = circle(500, "test")
    with torch.no_grad():
        codes = encoded(fitted, x, 16, 0)
        found = {each.metric: each.value for each in code_use(fitted.posterior, x, codes)}
    return found["active_units"], found["mutual_information"], float(codes.elbo.mean())


def test_the_deep_vae_collapses_where_a_posterior_fixed_before_training_does_not(fitted):
    collapsed, shallow, survives = (use(fitted[each]) for each in (("vae", DEEP), ("vae", SHALLOW), ("mapa", DEEP)))
    assert collapsed[0] == 0
    assert abs(collapsed[1]) < 0.01
    assert shallow[0] == survives[0] == 1
    assert min(shallow[1], survives[1]) > 1
    assert min(shallow[2], survives[2]) > collapsed[2] + 2
    with torch.no_grad():
        decoded = fitted["vae", DEEP].model.decode(torch.linspace(-2, 2, 50)[:, None])
    assert decoded.std(0).max() < 0.01 * NOISE_VARIANCE**0.5
