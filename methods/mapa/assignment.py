"""The assignment of codes to the training points, and a fit under one assignment."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from methods.common.latent_grid import GridPosterior, LatentGrid
from methods.contract.decoder import GenerativeModel
from methods.contract.method import Fitted, Ledger
from methods.mapa import deconvolution, placement
from methods.mapa.fit import Regression
from methods.mapa.index import Atoms, log_index_posterior
from methods.mapa.refined import RefinedPosterior

LEAST = 1e-12
CODES = 2_000


@dataclass(frozen=True)
class Placement:
    """Where in latent space the codes lie.

    Args:
        codes: The code of each share, (K, L).
        cells: The index of the cell that holds it, (K,). On the grid it is a permutation.
        posterior: The posterior of training, q(z | x).
    """

    codes: Tensor
    cells: Tensor
    posterior: GridPosterior


@dataclass(frozen=True)
class Shares:
    """The training data divided into one share for each atom, which gets one code and one cell of the prior.

    For L = 1 the mass of its cell is the weight of the atom. For L = 2 all cells, and so all weights, are equal.

    Args:
        mixture: The mixture that estimates where the signals lie, with K atoms.
        targets: The targets of the weighted least squares, (K, D), in data units.
        weights: The weights of the weighted least squares, (K,). They sum to the number of training points.
        log_index: The index posterior log p(i | x), (n, D) -> (n, N), in nats.
        latent_dim: L.
    """

    mixture: Atoms
    targets: Tensor
    weights: Tensor
    log_index: Callable[[Tensor], Tensor]
    latent_dim: int

    @staticmethod
    def of(mixture: Atoms, x: Tensor, latent_dim: int, ledger: Ledger) -> Shares:
        """Divide training points into shares.

        Args:
            mixture: The mixture that estimates where their signals lie; of equal weights if L is 2.
            x: Training points, (N, D), float64.
            latent_dim: L, 1 or 2.
            ledger: Where the work is accounted for.
        """
        found = deconvolution.sums(mixture, x, ledger)
        targets = found.means(mixture.atoms).float()
        return Shares(mixture, targets, found.weight.float(), log_index_posterior(mixture, x), latent_dim)

    def hard(self, few: Tensor, x: Tensor) -> Shares:
        """The same codes, and each training point given wholly to the nearest of those that the atoms began at.

        Means under a kernel of the noise flatten a surface where it curves; a point of its own does not.

        Args:
            few: The training points that the atoms began at, (K, D).
            x: Training points, (N, D), of which they are some or all.
        """
        if len(few) == len(x):
            return replace(self, targets=x.float(), weights=torch.ones_like(self.weights))
        found = deconvolution.nearest(self.mixture.in_units(few), self.mixture.in_units(x), x)
        return replace(self, targets=found.means(few).float(), weights=found.weight.float())

    def grid(self, order: Tensor) -> LatentGrid:
        """The grid of the prior, with one cell for each share.

        Args:
            order: The index of the share of each cell, in the order of the cells, (K,).
        """
        if self.latent_dim > 1:
            return LatentGrid.equal(len(order), self.latent_dim)
        return LatentGrid.intervals(self.mixture.log_weight.softmax(0)[order].cpu())

    def on_grid(self, cells: Tensor) -> Placement:
        """The placement with a cell for each share, and the code at the centre of its cell.

        Args:
            cells: The index of the cell of each share, a permutation, (K,).
        """
        order = cells.argsort()
        grid = self.grid(order)
        posterior = GridPosterior(lambda x: self.mixture.log_posterior(x.double())[:, order], grid)
        return Placement(grid.codes[cells].to(self.targets), cells, posterior)

    def off_grid(self, codes: Tensor) -> Placement:
        """The placement with codes anywhere (L = 2). A cell may hold several of them, or none.

        Args:
            codes: The code of each share, (K, 2).
        """
        grid = LatentGrid.equal(len(codes), self.latent_dim)
        cells = grid.cells(codes)

        def log_index(x: Tensor) -> Tensor:
            found = self.mixture.log_posterior(x.double()).exp()
            return torch.zeros_like(found).index_add(1, cells.to(x.device), found).clamp(min=LEAST).log().log_softmax(1)

        return Placement(codes.to(self.targets), cells, GridPosterior(log_index, grid))


def steepened(model: GenerativeModel, factor: float) -> GenerativeModel:
    """A copy of a model with a steeper decoder: its first layer varies over z as the original varies over factor z.

    Args:
        model: The generative model. It does not change.
        factor: The factor on the weights and biases of the decoder's first layer.
    """
    model = copy.deepcopy(model)
    model.steepen(factor)
    return model


def _refined(index: GridPosterior, log_index: Callable[[Tensor], Tensor], model: GenerativeModel, boxes: int) -> Fitted:
    """What is learned, with a posterior of `boxes` boxes, or that of training if there are none."""
    return Fitted(model, RefinedPosterior(index, model, boxes) if boxes else index, log_index)


@torch.no_grad()
def nearest_codes(model: GenerativeModel, targets: Tensor) -> Tensor:
    """The code at which a decoder is nearest to each target, of 2,000 at the centres of cells of equal mass.

    Args:
        model: The generative model.
        targets: Targets, (K, D), in data units.

    Returns:
        Codes, (K, L).
    """
    codes = LatentGrid.equal(CODES, 2).codes.to(targets)
    decoded = model.decode(codes).double()
    return codes[model.likelihood.deviances(targets.double(), decoded).argmin(1)]


def reassigned(model: GenerativeModel, shares: Shares, present: Placement, ledger: Ledger) -> Placement:
    """The placement on the same cells under which the deviance of a decoder is least.

    The posterior over atoms does not change.
    """
    with torch.no_grad():
        decoded = model.decode(present.codes)
        deviances = model.likelihood.deviances(shares.targets.double(), decoded.double())
        cost = shares.weights[:, None] * deviances
    return shares.on_grid(present.cells[placement.assignment(cost.cpu().numpy(), ledger)])


def released(model: GenerativeModel, shares: Shares, present: Placement, ledger: Ledger) -> Placement:  # noqa: ARG001
    """The placement off the grid, with each share at the code where a decoder is nearest to it.

    One to a cell, codes bend latent space between neighbours, as data drawn at random do not fill cells evenly. Off the
    grid they need not. Where they lie follows from the decoder alone. The posterior over atoms does not change.
    """
    return shares.off_grid(nearest_codes(model, shares.targets))


PlacesAnew = Callable[[GenerativeModel, Shares, Placement, Ledger], Placement]


class Attempt:
    """A fit of the decoder that begins under one placement of the codes, and can be advanced step by step.

    Args:
        model: The generative model. It is trained in place.
        shares: The shares of the training data.
        placed: The first placement.
        begin: Starts a fit of a model to a `Regression`; the iterator yields the loss after each step.
        ledger: Where the work is accounted for.
        replacements: How often codes are placed anew.
        every: After how many steps, each time, or when the fit ends by itself.
        anew: What places them anew: `reassigned` on the grid, `released` off it.

    Attributes:
        loss: The loss after the last step, in nats per training point; infinite before the first.
        value: The highest mean log-likelihood of validation points that was seen in this fit, in nats.
        steps: The number of steps so far.
        placed: The present placement.
        fitted: What is learned so far, with the posterior of training.
        refined: What is learned with a model that does not change any more, and a posterior for new x.
    """

    def __init__(
        self,
        model: GenerativeModel,
        shares: Shares,
        placed: Placement,
        begin: Callable[..., Iterator[float]],
        ledger: Ledger,
        replacements: int = 0,
        every: int = 1,
        anew: PlacesAnew = reassigned,
    ):
        self.model, self.shares, self.begin, self.ledger = model, shares, begin, ledger
        self.left, self.every, self.anew = replacements, every, anew
        self.loss, self.value, self.steps = math.inf, -math.inf, 0
        self._place(placed)

    def _place(self, placed: Placement) -> None:
        self.placed, self.placed_at, shares = placed, self.steps, self.shares
        self.fitted = Fitted(self.model, placed.posterior, shares.log_index)
        self.refined = partial(_refined, placed.posterior, shares.log_index)
        regression = Regression(placed.codes, shares.targets, shares.weights, self.model.likelihood)
        self.losses = self.begin(self.model, regression)

    def advance(self, steps: int) -> Iterator[None]:
        """Train the decoder, and place codes anew where it is time to.

        Args:
            steps: The largest number of steps to take.

        Yields:
            None, after each step.
        """
        for _ in range(steps):
            due = self.left > 0 and self.steps - self.placed_at >= self.every
            loss = None if due else next(self.losses, None)
            if loss is None and self.left > 0:
                self.place_anew()
                loss = next(self.losses, None)
            if loss is None:
                return
            self.loss = loss
            self.steps += 1
            yield

    def place_anew(self) -> None:
        """Place the codes anew to suit the present decoder; a new fit begins there."""
        self.left -= 1
        self._place(self.anew(self.model, self.shares, self.placed, self.ledger))
