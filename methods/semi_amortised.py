"""The semi-amortised VAE: gradient steps refine the posterior of each training point."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from methods.common.posteriors import DiagonalGaussian, Gaussian
from methods.contract.decoder import GenerativeModel
from methods.contract.method import require
from methods.contract.search_space import Choice, Range, Uniform
from methods.vae import VAE


@dataclass(frozen=True)
class RefinedGaussian(Gaussian):
    """The Gaussian of an encoder after a few gradient steps on the ELBO of each x.

    The gradient is the natural gradient, sigma^2 d/d mu and (1/2) d/d log sigma, so that one rate suits posteriors of
    any width. A step changes a mean by at most rate * sigma and a log sigma by at most rate. The likelihood is averaged
    over the 2 L points mu +- sqrt(L) sigma_j e_j (cubature of third degree, Arasaratnam & Haykin 2009, eq. 31).
    Therefore q is a deterministic function of x, the same in training and afterwards.

    Args:
        model: The generative model.
        encoder: The Gaussian where the steps start.
        refinements: K, number of gradient steps for each x.
        rate: alpha, the step size. For a linear decoder and the right sigma, a rate of 1 is a Newton step.
    """

    model: GenerativeModel
    encoder: DiagonalGaussian
    refinements: int
    rate: float

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, differentiable through all steps: (n, D) -> (n, L), (n, L)."""
        mean, log_scale = self.encoder.moments(x)
        for _ in range(self.refinements):
            mean, log_scale = self._refined(x.to(mean), mean, log_scale)
        return mean, log_scale

    def _refined(self, x: Tensor, mean: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        """The moments after one more step."""
        axes = math.sqrt(mean.shape[-1]) * torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
        nodes = torch.cat([axes, -axes]).view(-1, *[1] * (mean.dim() - 1), mean.shape[-1])
        scale = log_scale.exp()
        slopes = self._slopes(x, mean + scale * nodes)
        up = scale * (slopes.mean(0) - mean)
        wider = 0.5 * (scale * (slopes * nodes).mean(0) - scale.square() + 1)
        return mean + self.rate * scale * up.clamp(-1, 1), log_scale + self.rate * wider.clamp(-1, 1)

    def _slopes(self, x: Tensor, z: Tensor) -> Tensor:
        """d log p(x | z) / dz, (m, n, L), for x (n, D) and z (m, n, L). Differentiable where gradients are enabled."""
        unrolled = torch.is_grad_enabled()
        with torch.enable_grad():
            z = z if z.requires_grad else z.requires_grad_()
            return torch.autograd.grad(self.model.log_likelihood(x, z).sum(), z, create_graph=unrolled)[0]


@dataclass(frozen=True)
class SemiAmortisedVAE(VAE):
    """Joint training on the ELBO of q(z | x) refined for each training point (Kim et al. 2018, algorithm 1).

    The encoder is trained by the gradient through the refinement, which needs second derivatives of the decoder. At a
    few steps that gradient is 10,000 times as long as usual, and the second moment of the optimiser would then hold all
    later steps back. So its norm is bounded, as in the authors' code. On most problems most gradients are scaled.

    Args:
        steps: Number of gradient steps.
        batch_size: Training points per step.
        learning_rate: Learning rate.
        schedule: 'anytime', or 'cosine' for ablation.
        steepness: Factor on the initial weights and biases of the decoder's first layer.
        restarts: Number of starts, of which the best after a tenth of the steps goes on.
        refinements: K, number of refining gradient steps for each training point.
        rate: alpha, the step size of the refinement, for natural gradients.
        clip: The norm to which longer gradients are scaled down. The authors' code has 5.
    """

    colour_group: ClassVar[str] = ""
    search: ClassVar[Mapping[str, Range]] = {
        **VAE.search,
        "refinements": Choice((1, 2, 4)),
        "rate": Uniform(0.1, 1.0),
    }

    refinements: int = 1
    rate: float = 0.5
    clip: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, positive=("rate", "clip"), not_negative=("refinements",))

    @property
    def max_gradient_norm(self) -> float:
        """The same norm for all replicas."""
        return self.clip

    def posterior(self, model: GenerativeModel, encoder: DiagonalGaussian) -> RefinedGaussian:
        """The encoder's Gaussian, refined."""
        return RefinedGaussian(model, encoder, self.refinements, self.rate)
