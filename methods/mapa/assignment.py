"""Codes for the data: what is placed, and a fit under one placement of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from methods.common.latent_grid import GridPosterior, LatentGrid
from methods.contract.decoder import GaussianModel
from methods.contract.method import Fitted, Ledger
from methods.mapa import deconvolution, placement
from methods.mapa.fit import Regression
from methods.mapa.index import Mixture, log_index_posterior


@dataclass(frozen=True)
class Shares:
    """The data in M shares, each of which will have a code and a part of the prior: what is to be placed and fitted.

    For L = 1 a share is an atom of the mixture, whose weight is the part of the prior that it will have. For L = 2,
    where parts are equal, an atom has as many shares as its weight comes to. atom: the atom of each share, (M,).
    targets (M, D), weights (M,): of the weighted least squares.
    """

    mixture: Mixture
    atom: Tensor
    targets: Tensor
    weights: Tensor
    log_index: Callable[[Tensor], Tensor]
    latent_dim: int

    @staticmethod
    def of(estimate: Mixture, x: Tensor, latent_dim: int, ledger: Ledger) -> Shares:
        """The shares of data x (N, D), under a mixture for their signals."""
        mixture, atom = estimate, torch.arange(len(estimate.atoms), device=x.device)
        if latent_dim > 1:
            mixture, atom = deconvolution.resampled(estimate, len(estimate.atoms))
        found = deconvolution.sums(mixture, x, ledger)
        targets, weights = found.means(mixture.atoms), found.weight / atom.bincount()
        log_index = log_index_posterior(mixture, x)
        return Shares(mixture, atom, targets[atom].float(), weights[atom].float(), log_index, latent_dim)

    def grid(self, atom: Tensor) -> LatentGrid:
        """The parts of the prior, once their order is that of the atoms `atom`, (M,)."""
        if self.latent_dim > 1:
            return LatentGrid.equal(len(atom), self.latent_dim)
        return LatentGrid.intervals(self.mixture.log_weight.softmax(0)[atom].cpu())

    def placed(self, place: Tensor) -> tuple[Tensor, GridPosterior]:
        """Codes (M, L) and q(z | x), once share m has the cell of index place[m].

        Shares of one atom have its probability in parts.
        """
        atom = self.atom[place.argsort()]
        grid = self.grid(atom)
        log_copies = self.atom.bincount()[atom].double().log()
        posterior = GridPosterior(lambda x: self.mixture.log_posterior(x.double())[:, atom] - log_copies, grid)
        return grid.codes[place], posterior


def steepened(model: GaussianModel, factor: float) -> GaussianModel:
    """A copy whose first layer turns as often and as sharply over z as one of the model does over factor z."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.network[0].parameters():
            parameter.mul_(factor)
    return model


class Attempt:
    """A fit under one placement of the codes, as far as it has come: its loss in nats, and those to come."""

    def __init__(self, model: GaussianModel, shares: Shares, place: Tensor, begin: Callable[..., Iterator[float]]):
        self.model, self.shares, self.begin = model, shares, begin
        self.loss, self.steps = math.inf, 0
        self._place(place)

    def _place(self, place: Tensor) -> None:
        self.place, shares = place, self.shares
        codes, posterior = shares.placed(place)
        self.codes = codes.to(shares.targets)
        self.fitted = Fitted(self.model, posterior, shares.log_index)
        regression = Regression(self.codes, shares.targets, shares.weights, self.model.variance())
        self.losses = self.begin(self.model, regression)

    def advance(self, steps: int | None = None) -> Iterator[None]:
        """Take at most so many more steps, one at a time."""
        for loss in islice(self.losses, steps):
            self.loss = loss
            self.steps += 1
            yield

    def place_anew(self, ledger: Ledger) -> None:
        """Give each share the code at which the decoder, as it is, costs least; the posterior over atoms stays."""
        shares = self.shares
        with torch.no_grad():
            decoded = self.model.decode(self.codes)
            cost = shares.weights[:, None] * torch.cdist(shares.targets.double(), decoded.double()).square()
        self._place(self.place[placement.assignment(cost.cpu().numpy(), ledger)])
