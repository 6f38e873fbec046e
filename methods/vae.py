"""The variational autoencoder (VAE)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from methods.common.amortised import AmortisedMethod
from methods.common.posteriors import Gaussian
from methods.common.training import Objective, elbo
from methods.contract.decoder import GenerativeModel
from methods.contract.search_space import Choice, LogUniform, Range


@dataclass(frozen=True)
class VAE(AmortisedMethod):
    """Joint training of decoder and encoder on the ELBO (Kingma & Welling 2014, algorithm 1).

    Args:
        steps: Number of gradient steps.
        batch_size: Training points per step.
        learning_rate: Learning rate.
        schedule: 'anytime', or 'cosine' for ablation.
        steepness: Factor on the initial weights and biases of the decoder's first layer.
        restarts: Number of starts, of which the best after a tenth of the steps goes on.
    """

    colour_group: ClassVar[str] = "vae"
    search: ClassVar[Mapping[str, Range]] = {
        "learning_rate": LogUniform(1e-3, 3e-2),
        "batch_size": Choice((25, 50, 100, 250)),
        "steepness": Choice((1.0, 2.0, 4.0, 8.0)),
        "restarts": Choice((1, 2, 4)),
    }

    def objective(self, model: GenerativeModel, posterior: Gaussian, x: Tensor, noise: Tensor, step: int) -> Objective:  # noqa: ARG002
        """The ELBO of one draw for each x."""
        return Objective.of(elbo(model, posterior, x, noise[0]))
