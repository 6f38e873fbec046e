"""Validation: how states of a fit are compared on points that are not fitted, the same for all methods.

Up to two latent dimensions by log p(x), as that of a mixture over the 2,000 codes of a codebook. A bound or a training
loss would not do: a few points decide a mean bound, and neither tells of the density between the training points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from methods.common.latent_grid import LOWEST_EXPONENT, codebook
from methods.contract.decoder import GenerativeModel

POINTS = 500
CODES = 2000
MOST_DIMENSIONS = 2  # above it so few codes are too far apart


class HeldOut:
    """The log-likelihood of validation points under a model.

    Args:
        validation: Validation points, (V, D). The first 500 are used.
        latent_dim: L, at most 2.
        codes: Number of codes. A method that trains on those of a codebook takes others, as it may gain on them alone.
    """

    def __init__(self, validation: Tensor, latent_dim: int, codes: int = CODES):
        self.x = validation[:POINTS].double()
        grid = codebook(codes, latent_dim)
        self.codes, self.log_weights = grid.codes.to(validation), grid.mass.log().to(self.x)

    @torch.no_grad()
    def log_likelihood(self, model: GenerativeModel) -> float:
        """The mean of log sum_s w_s p(x | z_s) over the points, in nats."""
        likelihood, outputs = model.likelihood, model.decode(self.codes).double()
        affinity = likelihood.affinity(self.x, outputs, self.log_weights - likelihood.log_partition(outputs))
        top = affinity.amax(1, keepdim=True)
        log_sums = top.squeeze(1) + affinity.sub_(top).clamp_(min=LOWEST_EXPONENT).exp_().sum(1).log()
        return float((log_sums + likelihood.base(self.x)).mean()) + likelihood.constant(self.x.shape[1])
