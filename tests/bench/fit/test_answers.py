"""What a model or posterior answers is checked before it is scored: whatever breaks the contract is a failed run."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from bench.fit.runner import run_one
from methods.common.posteriors import Prior
from methods.contract.method import Fitted, Method, Posterior


class Model(nn.Module):
    """The model that the task gives, to be spoiled."""

    def __init__(self, plain):
        super().__init__()
        self.plain, self.asked = plain, 0

    def decode(self, z):
        return self.plain.decode(z)

    def variance(self):
        return self.plain.variance()


class Late(Model):
    """Learns when it is first asked."""

    def decode(self, z):
        self.asked += 1
        if self.asked == 1:
            with torch.no_grad():
                self.plain.network[-1].bias += 0.1
        return self.plain.decode(z)


class Restless(Model):
    """Answers otherwise each time."""

    def decode(self, z):
        self.asked += 1
        return self.plain.decode(z) + 1e-3 * self.asked


class RestlessNoise(Model):
    """Has another noise each time."""

    def variance(self):
        self.asked += 1
        return self.plain.variance() * (1 + 1e-3 * self.asked)


class Imaginary(Model):
    """Decodes to complex numbers."""

    def decode(self, z):
        return torch.complex(self.plain.decode(z), torch.ones(()))


class Flat(Model):
    """Decodes to another shape."""

    def decode(self, z):
        return self.plain.decode(z)[..., :1]


class Whole(Model):
    """Decodes to whole numbers."""

    def decode(self, z):
        return self.plain.decode(z).int()


class Nothing(Model):
    """Decodes to what is no tensor."""

    def decode(self, z):
        return self.plain.decode(z).detach().numpy()


def noise(value):
    class Noise(Model):
        def variance(self):
            return value

    return Noise


class Draws(Posterior):
    """The prior, to be spoiled."""

    def __init__(self, latent_dim):
        self.plain = Prior(latent_dim)

    def sample(self, x, count, generator):
        return self.plain.sample(x, count, generator)


class One(Draws):
    """One draw, however many are asked for."""

    def sample(self, x, count, generator):
        return self.plain.sample(x, 1, generator)


class Broadcast(Draws):
    """A density of the wrong shape, which would be broadcast."""

    def sample(self, x, count, generator):
        z, log_q = self.plain.sample(x, count, generator)
        return z, log_q[:, :1]


class OwnDensity(Draws):
    """A density of each code under its own x alone."""

    def log_prob(self, z, x):
        return self.plain.log_prob(z, x).diagonal()


class Unfaithful(Draws):
    """Draws that do not come from the generator given."""

    def sample(self, x, count, generator):
        return self.plain.sample(x, count, torch.Generator().manual_seed(int(torch.randint(1000, ()))))


class Lost(Draws):
    """Draws that are no numbers, of the first x alone."""

    def sample(self, x, count, generator):
        z, log_q = self.plain.sample(x, count, generator)
        return torch.where(torch.arange(len(x))[:, None] == 0, math.nan, z), log_q


class Boastful(Draws):
    """States a density that is too low, so that its ELBO is above log p(x)."""

    def sample(self, x, count, generator):
        z, log_q = self.plain.sample(x, count, generator)
        return z, log_q - 1000.0


SPOILED = {
    "late": (Late, Draws, None, "BadAnswerError: the model's parameters change when it is asked twice"),
    "restless": (Restless, Draws, None, "BadAnswerError: model.decode gives other values when it is asked twice"),
    "restless-noise": (RestlessNoise, Draws, None, "BadAnswerError: model.variance() changes when it is asked twice"),
    "imaginary": (Imaginary, Draws, None, "BadAnswerError: model.decode must have real numbers, got complex64"),
    "flat": (Flat, Draws, None, "BadAnswerError: model.decode must have shape (1, 40, 2), got (1, 40, 1)"),
    "whole": (Whole, Draws, None, "BadAnswerError: model.decode must have real numbers, got int32"),
    "nothing": (Nothing, Draws, None, "BadAnswerError: model.decode must be a torch.Tensor, got ndarray"),
    "noise-0": (noise(0.0), Draws, None, "BadAnswerError: model.variance() must be above 0 and finite, got 0.0"),
    "noise-minus": (noise(-1.0), Draws, None, "BadAnswerError: model.variance() must be above 0 and finite, got -1.0"),
    "noise-text": (noise("1.0"), Draws, None, "BadAnswerError: model.variance() must be a number, got str"),
    "noise-tensor": (
        noise(torch.ones(2)),
        Draws,
        None,
        "BadAnswerError: model.variance() must be a number, got Tensor",
    ),
    "one": (Model, One, None, "BadAnswerError: posterior.sample: z must have shape (3, 40, 1), got (1, 40, 1)"),
    "broadcast": (Model, Broadcast, None, "BadAnswerError: posterior.sample: log q(z | x) must have shape (1, 40)"),
    "own-density": (Model, OwnDensity, None, "BadAnswerError: posterior.log_prob must have shape (40, 40), got (40,)"),
    "unfaithful": (Model, Unfaithful, None, "BadAnswerError: posterior.sample gives other draws for the same"),
    "lost": (Model, Lost, None, "BadAnswerError: posterior.sample: 3 of 120 draws are not finite"),
    "noise-nan": (noise(math.nan), Draws, None, "NotFiniteError: the decoder gives values that are not finite"),
    "unnormalised": (
        Model,
        Draws,
        lambda x: torch.zeros(len(x), 40),
        "BadAnswerError: exp(log_index) must sum to 1 for each x, got a sum that is 39 off",
    ),
    "boastful": (Model, Boastful, None, "BadAnswerError: the ELBO is 9"),
    "index": (Model, Draws, lambda x: torch.zeros(len(x), 7), "BadAnswerError: log_index must have shape (3, 40)"),
}


def spoiled(model, posterior, log_index):
    @dataclass(frozen=True)
    class Spoiled(Method):
        """Yields what the task gives it, spoiled."""

        def fit(self, task):
            made = model(task.model)
            task.ledger.charge("all", 1e3)
            yield Fitted(made, posterior(task.latent_dim), log_index)

    return Spoiled()


@pytest.mark.parametrize("name", SPOILED)
def test_a_bad_answer_fails_the_run_with_a_sentence(run_spec, offer, name):
    *parts, message = SPOILED[name]
    result = run_one(run_spec(method=offer("spoiled", spoiled(*parts)), seed=1))
    assert result.status == "failed"
    assert result.message.startswith(message)
    assert not [row for row in result.rows if row.metric == "signal_w2"]


def test_good_answers_are_scored(run_spec, offer):
    result = run_one(run_spec(method=offer("plain", spoiled(Model, Draws, None)), seed=1))
    assert (result.status, result.message) == ("done", "")


class Hidden(Model):
    """Trains inside decode, on itself, before it answers."""

    def decode(self, z):
        for _ in range(10):
            torch.ones(300, 300) @ torch.ones(300, 300)
        return self.plain.decode(z)


def test_work_within_an_answer_is_counted(run_spec, offer):
    """The cost of a query is that of drawing and decoding: products of matrices in it are seen."""
    plain, hidden = (
        run_one(run_spec(method=offer("plain", spoiled(model, Draws, None)), seed=1)) for model in (Model, Hidden)
    )
    assert hidden.cost.flops == plain.cost.flops == 1e3
    assert hidden.query_flops - plain.query_flops == pytest.approx(10 * 2 * 300**3 / 40, rel=1e-12)
    assert hidden.query_s > 0
    layers = 2 * (1 * 64 + 64 * 64 + 64 * 2)
    assert layers < plain.query_flops < 1.5 * layers
