"""The generative model and the encoder that all methods share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU}


def mlp(sizes: Sequence[int], activation: str, generator: torch.Generator) -> nn.Sequential:
    """Linear layers of the given sizes with an activation between them, initialised from `generator`.

    Weights and biases are uniform within 1/sqrt(fan-in), which is torch's own default for linear layers, on its device.
    Raises ValueError for an unknown activation.
    """
    if activation != "linear" and activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}; available: {', '.join([*ACTIVATIONS, 'linear'])}")
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layer = _Linear(fan_in, fan_out, device=generator.device)
        bound = 1 / math.sqrt(fan_in)
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        layers += [layer] if activation == "linear" else [layer, ACTIVATIONS[activation]()]
    return nn.Sequential(*(layers if activation == "linear" else layers[:-1]))


class _Linear(nn.Linear):
    """A linear layer that draws nothing from the global generator; `skip_init` would import torch's symbolic shapes."""

    def reset_parameters(self) -> None:
        """Leave the parameters as they are."""


class Standardiser(nn.Module):
    """x -> (x - shift) / scale with one scale for all coordinates, so that rotations of the data stay rotations."""

    shift: Tensor
    scale: Tensor

    def __init__(self, train: Tensor):
        super().__init__()
        self.register_buffer("shift", train.mean(0))
        spread = (train - train.mean(0)).square().mean().sqrt()
        least = 1e-6 * train.abs().amax()  # below this, spread is rounding
        self.register_buffer("scale", torch.where(spread > least, spread, torch.ones_like(spread)))

    def forward(self, x: Tensor) -> Tensor:
        """Data (..., D) to standard units."""
        return (x - self.shift) / self.scale

    def inverse(self, y: Tensor) -> Tensor:
        """Standard units (..., D) to data."""
        return self.shift + self.scale * y


class GaussianModel(nn.Module):
    """p(z) = N(0, I_L), p(x | z) = N(f(z), s2 I_D), f a network in standard units, everything else in data units.

    noise: the variance s2 if known; None if it is to be learned (it then starts at a tenth of the data's variance).
    """

    def __init__(self, network: nn.Sequential, train: Tensor, latent_dim: int, noise: float | None):
        super().__init__()
        self.network = network
        self.units = Standardiser(train)
        self.latent_dim = latent_dim
        self.data_dim = train.shape[1]
        start = 0.1 * float(self.units.scale) ** 2 if noise is None else noise
        self.log_noise = nn.Parameter(torch.tensor(math.log(start)), requires_grad=noise is None)

    @property
    def learns_noise(self) -> bool:
        """Whether the noise variance is to be learned."""
        return self.log_noise.requires_grad

    def decode(self, z: Tensor) -> Tensor:
        """The mean of x given z: (..., L) -> (..., D), in data units."""
        decoded: Tensor = self.units.inverse(self.network(z.to(self.units.scale)))
        return decoded

    def variance(self) -> float:
        """The noise variance s2, in squared data units."""
        return float(self.log_noise.detach().double().exp())

    def set_variance(self, value: float) -> None:
        """Set the noise variance s2."""
        with torch.no_grad():
            self.log_noise.fill_(math.log(value))

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log N(x; f(z), s2 I) in nats: x (..., D), z (..., L) -> (...)."""
        return gaussian_log_prob(x - self.decode(z), self.log_noise)


def gaussian_log_prob(residual: Tensor, log_noise: Tensor) -> Tensor:
    """log N(residual; 0, exp(log_noise) I) in nats: (..., D) -> (...)."""
    constant = residual.shape[-1] / 2 * (math.log(2 * math.pi) + log_noise)
    return -residual.square().sum(-1) / (2 * log_noise.exp()) - constant


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I) in nats: (..., L) -> (...)."""
    return -z.square().sum(-1) / 2 - z.shape[-1] / 2 * math.log(2 * math.pi)


def build_model(
    train: Tensor,
    latent_dim: int,
    noise: float | None,
    generator: torch.Generator,
    hidden: Sequence[int] = (64, 64),
    activation: str = "tanh",
) -> GaussianModel:
    """The generative model at its initial weights, float32, for training data (N, D)."""
    network = mlp([latent_dim, *hidden, train.shape[1]], activation, generator)
    return GaussianModel(network, train, latent_dim, noise)
