"""Codes as parameters: one code for each training point, trained together with the decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from methods.common.training import Objective
from methods.common.without_encoder import WithoutEncoder
from methods.contract.decoder import GenerativeModel
from methods.contract.method import require
from methods.contract.search_space import LogUniform, Range
from methods.vae import VAE

RIDGE, LEAST = 1e-6, 1e-30


@dataclass(frozen=True)
class MAPCodes(WithoutEncoder):
    """argmax of sum_n log p(x_n, z_n) over the decoder and the codes (Schuster & Krogh 2023, arXiv 2110.06672).

    Without a bound on the codes the maximum is at codes of size 0 and an infinitely steep decoder. GLO (Bojanowski et
    al. 2018, arXiv 1707.05776) keeps them within a ball, and afterwards fits a Gaussian to them. Here they have mean 0
    and covariance I over all training points at every step. Then log p(z_n) is constant in sum.

    Args:
        steps: Number of gradient steps.
        batch_size: Training points per step.
        learning_rate: Learning rate.
        schedule: 'anytime', or 'cosine' for ablation.
        steepness: Factor on the initial weights and biases of the decoder's first layer.
        restarts: Number of starts, of which the best after a tenth of the steps goes on.
        code_rate: Learning rate of the codes, in units of that of the decoder.
    """

    search: ClassVar[Mapping[str, Range]] = {**VAE.search, "code_rate": LogUniform(1.0, 10.0)}
    exceptions: ClassVar[Mapping[str, str]] = {
        "optimum": "with codes of covariance I the decoder explains the noise along its own directions too"
    }

    code_rate: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, positive=("code_rate",))

    @property
    def row_rate(self) -> float:
        """Learning rate of the rows, in units of that of the decoder."""
        return self.code_rate

    def posterior_of_batch(self, model: GenerativeModel, encoder: Any, index: Tensor) -> Tensor:  # noqa: ARG002
        """The codes of a batch, (..., n, L)."""
        return whitened(self.row_rate * encoder.values).take_along_dim(index, -2)

    def objective(self, model: GenerativeModel, posterior: Tensor, x: Tensor, noise: Tensor, step: int) -> Objective:  # noqa: ARG002
        """log p(x | z) of each x at its code, which is no bound on log p(x)."""
        return Objective.of(model.log_likelihood(x, posterior))


def whitened(codes: Tensor) -> Tensor:
    """Codes, (..., N, L), shifted and mapped to mean 0 and covariance I."""
    centred = codes - codes.mean(-2, keepdim=True)
    covariance = centred.mT @ centred / codes.shape[-2]
    size = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] + LEAST
    root = torch.linalg.cholesky(covariance + RIDGE * size * torch.eye(codes.shape[-1]).to(codes))
    return torch.linalg.solve_triangular(root, centred.mT, upper=False).mT
