"""Networks of several seeds as one program against the networks themselves."""

import copy
from typing import ClassVar

import pytest
import torch
from torch import nn

from methods.common.posteriors import build_encoder
from methods.common.replicas import Networks, Replicas, trained

REPLICAS = 3


@pytest.fixture(params=["circle", "s_curve"])
def members(request, make_task):
    """A function that gives the networks of three seeds, each with the units of its own data, as two equal lists."""

    def make(noise="known"):
        tasks = [make_task(request.param, noise=noise, seed=seed) for seed in range(REPLICAS)]
        each = [Networks(task.model, build_encoder(task.model, task.generator)) for task in tasks]
        if noise == "known":
            for i, networks in enumerate(each):
                networks.model.set_variance(0.1 * (i + 1))
        return each, copy.deepcopy(each)

    return make


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def outputs(networks, x, noise):
    """Moments of q(z | x), decoded draws and their likelihood."""
    mean, log_scale = networks.encoder.moments(x)
    z = mean + log_scale.exp() * noise
    return mean, log_scale, networks.model.decode(z), networks.model.log_likelihood(x, z)


def inputs(networks):
    """Data (R, n, D) and noise (draws, R, n, L)."""
    return normal(REPLICAS, 5, networks.model.data_dim), normal(4, REPLICAS, 5, networks.model.latent_dim)


def of_replica(found, r):
    """The part of a replica of (R, n, L), (draws, R, n, D) or (draws, R, n)."""
    return found[r] if len(found) == REPLICAS else found[:, r]


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("noise", ["known", "learned"])
def test_the_program_computes_what_each_network_does_alone(members, noise):
    each, alone = members(noise)
    replicas = Replicas(each)
    x, draws = inputs(each[0])
    for program in (replicas.training, replicas.mean):
        for r, networks in enumerate(alone):
            together, expected = outputs(program, x, draws), outputs(networks, x[r], draws[:, r])
            for found, value in zip(together, expected, strict=True):
                close(of_replica(found, r), value)


def test_a_row_of_weights_holds_the_parameters_of_a_network_and_of_its_part_of_the_program(members):
    each, _ = members("learned")
    replicas = Replicas(each)
    x, draws = inputs(each[0])
    before = [value.detach().clone() for value in outputs(replicas.mean, x, draws)]
    with torch.no_grad():
        replicas.weights[1] *= 0.5
    for r, networks in enumerate(each):
        own = torch.cat([p.detach().flatten() for p in trained(networks)])
        assert torch.equal(own, replicas.weights[r])
        assert torch.equal(own, replicas.evaluated[r]) == (r != 1)
        close(replicas.training.model.decode(draws)[:, r], networks.model.decode(draws[:, r]))
    assert all(torch.equal(a, b) for a, b in zip(before, outputs(replicas.mean, x, draws), strict=True))


@pytest.mark.parametrize("noise", ["known", "learned"])
def test_gradients_are_those_of_each_network_alone(members, noise):
    each, alone = members(noise)
    replicas = Replicas(each)
    x, draws = inputs(each[0])
    count = len(trained(each[0].model))
    found = []
    for part in (replicas.parameters[:count], replicas.parameters[count:], replicas.parameters):
        replicas.differentiate(outputs(replicas.training, x, draws)[-1].sum(), part)
        found.append(replicas.gradient.clone())
        replicas.gradient.zero_()
    of_model, of_encoder, whole = found
    assert torch.equal(of_model + of_encoder, whole)
    for r, networks in enumerate(alone):
        loss = outputs(networks, x[r], draws[:, r])[-1].sum()
        for part, network in zip((of_model, of_encoder), (networks.model, networks.encoder), strict=True):
            gradient = torch.autograd.grad(loss, trained(network), retain_graph=True)
            expected = torch.cat([g.flatten() for g in gradient])
            mine = part[r][: expected.numel()] if network is networks.model else part[r][-expected.numel() :]
            torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


class Stated(nn.Module):
    """A layer that may be part of a program."""

    replica_axes: ClassVar = {"weight": 1}

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return x * self.weight


class Unstated(nn.Module):
    """One that does not say how."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return x * self.weight


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("layer", [Stated, Unstated])
def test_a_module_that_states_no_axes_can_be_fitted_only_alone(layer, count, make_task):
    each = []
    for seed in range(count):
        task = make_task("circle", seed=seed)
        encoder = build_encoder(task.model, task.generator)
        encoder.network.append(layer())
        each.append(Networks(task.model, encoder))
    if layer is Stated or count == 1:
        assert len(Replicas(each).weights) == count
    else:
        with pytest.raises(TypeError, match=r"^Unstated cannot be part of a program of several replicas$"):
            Replicas(each)
