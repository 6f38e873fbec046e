"""The generative model that all methods share, and the networks of decoders and encoders."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, TypedDict, Unpack

import torch
from torch import Tensor, nn

from methods.contract.architecture import ACTIVATION, ACTIVATIONS, HIDDEN
from methods.likelihoods import DISCRETE, Gaussian, Likelihood, PerCoordinateGaussian, gaussian_log_prob

LEAST_NOISE = 1e-6


def mlp(sizes: Sequence[int], activation: str, generator: torch.Generator) -> nn.Sequential:
    """Linear layers with an activation between them, at random initial weights.

    Weights and biases are uniform within 1/sqrt(fan-in), which is torch's default for linear layers.

    Args:
        sizes: Width of the input, of each hidden layer and of the output.
        activation: A key of ACTIVATIONS, or "linear" for none.
        generator: The source of the initial weights. The layers are made on its device.

    Raises:
        ValueError: For an unknown activation.
    """
    if activation != "linear" and activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}; available: {', '.join([*ACTIVATIONS, 'linear'])}")
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layer = _Linear(fan_in, fan_out, device=generator.device)
        layer.draw(generator)
        layers += [layer] if activation == "linear" else [layer, getattr(nn, ACTIVATIONS[activation])()]
    return _Network(*(layers if activation == "linear" else layers[:-1]))


class _Network(nn.Sequential):
    """Layers in turn, without the hooks of modules, which take as long as a small layer."""

    def forward(self, x: Tensor) -> Tensor:
        """The output of the last layer."""
        for layer in self:
            x = layer.forward(x)
        return x


class _Linear(nn.Linear):
    """A linear layer that draws nothing from the global generator; `skip_init` would import torch's symbolic shapes."""

    replica_axes: ClassVar[Mapping[str, int]] = {"weight": 0, "bias": 1}

    def reset_parameters(self) -> None:
        """Leave the parameters as they are."""

    def draw(self, generator: torch.Generator) -> None:
        """Draw weights and biases uniformly within 1/sqrt(fan-in)."""
        bound = 1 / math.sqrt(self.in_features)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """From (..., in) to (..., out); with an axis of R replicas in the weights, from (..., R, n, in)."""
        weight, bias = self.weight, self.bias
        if weight.dim() == 2:
            return nn.functional.linear(x, weight, bias)
        if x.dim() == 3:
            return torch.baddbmm(bias, x, weight.mT)
        together = x.movedim(-3, 0).flatten(1, -2)
        made = torch.baddbmm(bias, together, weight.mT)
        return made.view(len(made), *x.shape[:-3], x.shape[-2], -1).movedim(0, -3)


class Standardiser(nn.Module):
    """x -> (x - shift) / scale, with one scale for all coordinates, so that rotations of the data stay rotations.

    Args:
        train: Training points, (N, D). Their mean is the shift, their root mean square deviation the scale.
    """

    replica_axes: ClassVar[Mapping[str, int]] = {"shift": 1, "scale": 2}
    shift: Tensor
    scale: Tensor

    def __init__(self, train: Tensor):
        super().__init__()
        self.register_buffer("shift", train.mean(0))
        spread = (train - train.mean(0)).square().mean().sqrt()
        least = 1e-6 * train.abs().amax()  # below this, spread is rounding
        self.register_buffer("scale", torch.where(spread > least, spread, torch.ones_like(spread)))

    def forward(self, x: Tensor) -> Tensor:
        """From data units to standard units, (..., D)."""
        return (x - self.shift) / self.scale

    def inverse(self, y: Tensor) -> Tensor:
        """From standard units to data units, (..., D)."""
        return self.shift + self.scale * y


class GenerativeModel(nn.Module, ABC):
    """z ~ N(0, I_L), x | z ~ p(x | decode(z)).

    Args:
        network: The decoder network, from codes to outputs in standard units.
        train: Training points, (N, D), which set the standard units.
        latent_dim: L.
        hidden: Widths of the hidden layers, which the encoder shares.
        activation: The decoder's activation.

    Attributes:
        units: The map of data between data units and standard units.
        latent_dim: L.
        data_dim: D.
        hidden: Widths of the hidden layers of decoder and encoder.
        activation: The decoder's activation.
    """

    def __init__(
        self,
        network: nn.Sequential,
        train: Tensor,
        latent_dim: int,
        hidden: Sequence[int] = HIDDEN,
        activation: str = ACTIVATION,
    ):
        super().__init__()
        self.network = network
        self.units = Standardiser(train)
        self.latent_dim = latent_dim
        self.data_dim = train.shape[1]
        self.hidden = tuple(hidden)
        self.activation = activation

    @property
    @abstractmethod
    def likelihood(self) -> Likelihood:
        """p(x | z) at the present parameters, given the decoder's outputs."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """The outputs that p(x | z) depends on: (..., L) -> (..., D)."""

    @property
    def learns_noise(self) -> bool:
        """Whether a noise variance is learned."""
        return False

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) in nats, differentiable in all that is learned: x (..., D), z (..., L) -> (...)."""
        return self.likelihood.log_prob(x, self.decode(z))

    def variance(self) -> float:
        """The noise variance s2 of Gaussian data, in squared data units.

        Raises:
            TypeError: If the likelihood has none.
        """
        raise TypeError(f"a {self.likelihood.name} likelihood has no noise variance")

    def set_variance(self, value: float) -> None:
        """Set the noise variance s2 of Gaussian data, in squared data units.

        Raises:
            TypeError: If the likelihood has none.
        """
        raise TypeError(f"a {self.likelihood.name} likelihood has no noise variance, got {value}")

    def take_noise(self, other: GenerativeModel) -> None:
        """Take over the noise variance of another model, if there is one."""

    def relative_noise(self) -> Tensor:
        """The noise variance in standard units, (..., 1); 1 for a likelihood without one."""
        return torch.ones_like(self.units.scale)

    def redraw(self, generator: torch.Generator) -> None:
        """Draw other initial weights of the decoder in place. The noise stays as it is."""
        for layer in self.network:
            if isinstance(layer, _Linear):
                layer.draw(generator)

    def steepen(self, factor: float) -> None:
        """Multiply the weights and biases of the decoder's first layer, so that it varies over z as over factor z."""
        with torch.no_grad():
            for parameter in self.network[0].parameters():
                parameter.mul_(factor)


class Architecture(TypedDict, total=False):
    """What a model and its encoders share beside the data: the arguments of `GenerativeModel` that have defaults."""

    hidden: Sequence[int]
    activation: str


class StandardisedModel(GenerativeModel):
    """A model whose network gives the mean of x in standard units."""

    def means(self, z: Tensor) -> Tensor:
        """The mean of x given z in data units: (..., L) -> (..., D)."""
        found: Tensor = self.units.inverse(self.network(z.to(self.units.scale)))
        return found


class GaussianModel(StandardisedModel):
    """p(z) = N(0, I_L), p(x | z) = N(f(z), s2 I_D). The network works in standard units, all else in data units.

    Args:
        network: The decoder network, from codes to means of x in standard units.
        train: Training points, (N, D), which set the standard units.
        latent_dim: L.
        noise_variance: s2 in squared data units, if it is known. None: it is learned, and starts at a tenth of the
            variance of the data.
        **architecture: `hidden` and `activation`, as of `GenerativeModel`.

    Attributes:
        log_noise: log s2, a parameter that requires a gradient only if s2 is learned.
    """

    replica_axes: ClassVar[Mapping[str, int]] = {"log_noise": 1}

    def __init__(
        self,
        network: nn.Sequential,
        train: Tensor,
        latent_dim: int,
        noise_variance: float | None,
        **architecture: Unpack[Architecture],
    ):
        super().__init__(network, train, latent_dim, **architecture)
        start = 0.1 * float(self.units.scale) ** 2 if noise_variance is None else noise_variance
        self.log_noise = nn.Parameter(torch.tensor(math.log(start)), requires_grad=noise_variance is None)

    @property
    def likelihood(self) -> Gaussian:
        """p(x | z) at the present noise variance."""
        return Gaussian(self.variance())

    @property
    def learns_noise(self) -> bool:
        """Whether the noise variance is learned."""
        return self.log_noise.requires_grad

    def decode(self, z: Tensor) -> Tensor:
        """The mean of x given z in data units: (..., L) -> (..., D)."""
        return self.means(z)

    def variance(self) -> float:
        """The noise variance s2, in squared data units."""
        return float(self.log_noise.detach().double().exp())

    def set_variance(self, value: float) -> None:
        """Set the noise variance s2, in squared data units."""
        with torch.no_grad():
            self.log_noise.fill_(math.log(value))

    def take_noise(self, other: GenerativeModel) -> None:
        """Take over the noise variance of another model."""
        self.set_variance(other.variance())

    def relative_noise(self) -> Tensor:
        """The noise variance in standard units, (..., 1)."""
        return self.log_noise.detach().exp()[..., None] / self.units.scale.square()

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) in nats: x (..., D), z (..., L) -> (...)."""
        return gaussian_log_prob(x - self.decode(z), self.log_noise)


class PerCoordinateModel(StandardisedModel):
    """p(z) = N(0, I_L), p(x | z) = N(mu(z), diag v), with a noise variance for each coordinate, which is learned.

    Every variance starts at a tenth of that of its coordinate. It stays above a millionth of the variance of the data,
    since a coordinate that the decoder reproduces would else have a likelihood without bound (Mattei & Frellsen 2018).

    Args:
        network: The decoder network, from codes to means of x in standard units.
        train: Training points, (N, D), which set the standard units.
        latent_dim: L.
        **architecture: `hidden` and `activation`, as of `GenerativeModel`.

    Attributes:
        log_noise: The log of what v is above the least variance, (D,).
    """

    replica_axes: ClassVar[Mapping[str, int]] = {"log_noise": 1}

    def __init__(
        self,
        network: nn.Sequential,
        train: Tensor,
        latent_dim: int,
        **architecture: Unpack[Architecture],
    ):
        super().__init__(network, train, latent_dim, **architecture)
        self.log_noise = nn.Parameter(torch.zeros_like(self.units.shift))
        self.set_variances(0.1 * train.var(0, unbiased=False))

    @property
    def least(self) -> Tensor:
        """The variance that none goes below, in squared data units."""
        return LEAST_NOISE * self.units.scale.square()

    @property
    def variances(self) -> Tensor:
        """v in squared data units, (..., D), differentiable."""
        return self.least + self.log_noise.exp()

    @property
    def likelihood(self) -> PerCoordinateGaussian:
        """p(x | z) at the present noise variances."""
        return PerCoordinateGaussian(self.variances.detach().double())

    @property
    def learns_noise(self) -> bool:
        """True."""
        return True

    def decode(self, z: Tensor) -> Tensor:
        """The mean of x given z, over v: (..., L) -> (..., D)."""
        return self.means(z) / self.variances

    def set_variance(self, value: float) -> None:
        """Give every coordinate the same noise variance, in squared data units."""
        self.set_variances(torch.full_like(self.units.shift, value))

    @torch.no_grad()
    def set_variances(self, values: Tensor) -> None:
        """Set v, (D,), in squared data units, to twice the least variance where it is below that."""
        self.log_noise.copy_((values.to(self.log_noise) - self.least).clamp(min=self.least).log())

    def take_noise(self, other: GenerativeModel) -> None:
        """Take over the noise variances of another such model."""
        if isinstance(other, PerCoordinateModel):
            self.set_variances(other.variances)

    def relative_noise(self) -> Tensor:
        """The harmonic mean of the noise variances in standard units, (..., 1), which sets the precision of z."""
        return 1 / (self.units.scale.square() / self.variances.detach()).mean(-1, keepdim=True)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) in nats: x (..., D), z (..., L) -> (...)."""
        variances = self.variances
        squared = (x - self.means(z)).square() / variances
        return -0.5 * (squared + variances.log() + math.log(2 * math.pi)).sum(-1)


class DiscreteModel(GenerativeModel):
    """A model of data whose likelihood has no parameters of its own, such as binary data or counts.

    What the network gives is added to the outputs whose mean is that of the data.

    Args:
        network: The decoder network, from codes to outputs.
        train: Training points, (N, D).
        latent_dim: L.
        likelihood: p(x | z).
        **architecture: `hidden` and `activation`, as of `GenerativeModel`.
    """

    replica_axes: ClassVar[Mapping[str, int]] = {"middle": 1}
    middle: Tensor

    def __init__(
        self,
        network: nn.Sequential,
        train: Tensor,
        latent_dim: int,
        likelihood: Likelihood,
        **architecture: Unpack[Architecture],
    ):
        super().__init__(network, train, latent_dim, **architecture)
        self._likelihood = likelihood
        self.register_buffer("middle", likelihood.outputs(likelihood.interior(train.mean(0), len(train))))

    @property
    def likelihood(self) -> Likelihood:
        """p(x | z), given the decoder's outputs."""
        return self._likelihood

    def decode(self, z: Tensor) -> Tensor:
        """The natural parameters of x given z, such as logits or log rates: (..., L) -> (..., D)."""
        decoded: Tensor = self.middle + self.network(z.to(self.middle))
        return decoded


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I) in nats: (..., L) -> (...)."""
    return -z.square().sum(-1) / 2 - z.shape[-1] / 2 * math.log(2 * math.pi)


def build_model(
    train: Tensor,
    latent_dim: int,
    noise_variance: float | None,
    generator: torch.Generator,
    hidden: Sequence[int] = HIDDEN,
    activation: str = ACTIVATION,
    family: str = Gaussian.name,
) -> GenerativeModel:
    """The generative model at its initial weights, float32.

    Args:
        train: Training points, (N, D), float32, in data units.
        latent_dim: L.
        noise_variance: s2 of Gaussian data in squared data units; None if it is learned.
        generator: The source of the initial weights.
        hidden: Widths of the hidden layers of the decoder and of every encoder built for it.
        activation: The decoder's activation. "linear" gives a decoder without hidden layers; its encoders keep theirs.
        family: The family of p(x | z), a name in `methods.likelihoods.FAMILIES`, or that of a Gaussian with a learned
            noise variance for each coordinate.
    """
    widths = () if activation == "linear" else hidden
    network = mlp([latent_dim, *widths, train.shape[1]], activation, generator)
    architecture: Architecture = {"hidden": hidden, "activation": activation}
    if family in DISCRETE:
        return DiscreteModel(network, train, latent_dim, DISCRETE[family], **architecture)
    if family == PerCoordinateGaussian.name:
        return PerCoordinateModel(network, train, latent_dim, **architecture)
    return GaussianModel(network, train, latent_dim, noise_variance, **architecture)
