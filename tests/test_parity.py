"""Methods and their independent implementations by Pyro end at the same held-out log-likelihood.

At a seed both start from the same weights and see the same data, batches and noise, so that what differs is the
implementation, and rounding, which training amplifies. `pyro-vae` draws the KL, whose closed form gives `vae` gradients
of less variance: it is held to `iwae` of one sample, which draws it as well, and `vae` to Pyro with the closed form.

Over six seeds on each dataset, the paired interval of the difference must lie within MARGIN nats of zero, so that the
two are shown to be equal rather than not shown to differ. MARGIN is above what rounding comes to in some hundred steps,
0.13 nats on the worst seed that was seen, and far below what the choice between `vae` and `iwae` is worth on a surface,
more than a nat. Whether the interval holds zero is not asked: most differences are 1e-6 nats, whose sign says nothing.
"""

import functools
from dataclasses import dataclass

import pytest
from pyro.infer import TraceMeanField_ELBO

import datasets
from bench.metrics.likelihood import learned_likelihood
from bench.stats.verdicts import interval
from datasets.base import draw, stream
from methods import vae
from methods.contract.decoder import build_model
from methods.contract.method import NullLedger, Task
from methods.iwae import IWAE
from methods.pyro_svi import PyroIWAE, PyroVAE, train
from methods.vae import VAE

MARGIN = 0.2
DATASETS = ("circle", "s_curve")
SEEDS = range(6)
DATA, HELD_OUT = 100, 10
SHORT = {"steps": 25, "batch_size": 50, "learning_rate": 1e-2}


@dataclass(frozen=True)
class ClosedForm(PyroVAE):
    """`pyro-vae` with the KL in closed form."""

    def fit(self, task):
        yield from train(task, TraceMeanField_ELBO(max_plate_nesting=1), *SHORT.values())


PAIRS = {
    "vae": (VAE(**SHORT), ClosedForm(**SHORT)),
    "drawn KL": (IWAE(samples=1, **SHORT), PyroVAE(**SHORT)),
    "iwae": (IWAE(samples=5, **SHORT), PyroIWAE(samples=5, **SHORT)),
}


def score(method, name, seed):
    """Mean held-out log-likelihood after training, in nats, by quadrature."""
    problem = datasets.load(name)
    split = draw(problem, seed, DATA, DATA, HELD_OUT)
    train, validation = split.train.float(), split.validation.float()
    model = build_model(train, problem.latent_dim, problem.noise_variance, stream("initial weights", seed, "decoder"))
    task = Task(train, validation, model, stream("training", seed, "draws"), NullLedger())
    *_, fitted = method.fit(task)
    return float(learned_likelihood(fitted, split.test, problem.latent_dim, seed).value.mean())


@functools.cache
def theirs(method, name):
    return [score(method, name, seed) for seed in SEEDS]


def differences(ours, reference, name):
    return [score(ours, name, seed) - other for seed, other in zip(SEEDS, theirs(reference, name), strict=True)]


def is_equal(found):
    """Whether the paired interval of differences lies within the margin."""
    low, high = interval(found)
    return max(-low, high) < MARGIN


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("pair", PAIRS)
def test_held_out_likelihood_is_that_of_pyro(pair, name):
    assert is_equal(differences(*PAIRS[pair], name))


def doubled_kl(model, posterior, x, noise, elbo=vae.elbo):
    mean, log_scale = posterior.moments(x)
    return elbo(model, posterior, x, noise) - 0.5 * (mean**2 + (2 * log_scale).exp() - 1 - 2 * log_scale).sum(-1)


def test_a_kl_that_counts_twice_is_caught(monkeypatch):
    monkeypatch.setattr(vae, "elbo", doubled_kl)
    assert not is_equal(differences(*PAIRS["vae"], "s_curve"))


@pytest.mark.parametrize(
    ("pair", "mistaken"),
    [("vae", VAE(**SHORT | {"learning_rate": 5e-3})), ("iwae", IWAE(samples=1, **SHORT))],
    ids=["half the learning rate", "one sample"],
)
def test_a_wrong_hyperparameter_is_caught(pair, mistaken):
    assert not is_equal(differences(mistaken, PAIRS[pair][1], "s_curve"))
