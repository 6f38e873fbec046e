"""MAPA: index posterior, placement and fit, one after the other."""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from methods.base import Fitted, Task
from methods.cells import CellPosterior, PriorCells
from methods.mapa import index, placement
from methods.mapa.fit import Regression, fit
from methods.model import GaussianModel
from methods.posteriors import Prior

LARGEST = 10_000
POOR_FIT = 1.0


@dataclass(frozen=True)
class MAPA:
    """A posterior fixed before training, then the generative model alone (after Yacoby et al. 2024, arXiv 2403.08941).

    denoise_steps: expectation-maximisation steps from the data to the atoms. kernel_width: the index posterior's
    variance, in units of the noise. centres: k-means centres of the path (L = 1). steps: most L-BFGS steps, which
    end when 50 of them gain less than `tolerance` nats. history: L-BFGS pairs. trial_steps: steps after which only the
    best placement goes on (L = 2). steepness: by how much the first layer's initial weights are multiplied where a fit
    along a path (L = 1) is still more than a nat away after its trial; the better of both starts goes on.
    noise_rounds: rounds of noise estimation and refitting, where the noise is learned.
    """

    denoise_steps: int = 1
    kernel_width: float = 1.0
    centres: int = 45
    steps: int = 2000
    tolerance: float = 0.02
    history: int = 30
    trial_steps: int = 100
    steepness: float = 8.0
    noise_rounds: int = 3

    def skip(self, latent_dim: int, data_dim: int, size: int) -> str | None:  # noqa: ARG002
        """Why such data cannot be fitted, or None."""
        return "mapa places codes in 1 or 2 latent dimensions only" if latent_dim > 2 else None

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Yields after each placement, each step of its trial or of the fit, and each estimate of the noise.

        Raises ValueError for more than 10,000 data, for which the dense index posterior is too large.
        """
        x = task.train.double()
        if len(x) > LARGEST:
            raise ValueError(f"mapa holds an N x N index posterior: at most {LARGEST} data, got {len(x)}")
        rounds = self.noise_rounds if task.model.learns_noise else 1
        if task.model.learns_noise:
            task.model.set_variance(index.pilot_noise(x))
        fitted = Fitted(task.model, Prior(task.latent_dim))
        for _ in range(rounds):
            fitted = yield from self._fit_given_noise(task, x, fitted)

    def _fit_given_noise(self, task: Task, x: Tensor, fitted: Fitted) -> Generator[Fitted, None, Fitted]:
        """One round at the present noise; what was fitted before stands until the first codes are placed."""
        best = _Attempt(task.model, fitted, iter(()))
        for attempt in self._attempts(task, x):
            yield best.fitted
            for _ in attempt.go_on(self.trial_steps):
                yield min(attempt, best, key=_loss).fitted
            best = min(attempt, best, key=_loss)
        for _ in best.go_on():
            yield best.fitted
        task.model.load_state_dict(best.model.state_dict())
        if task.model.learns_noise:
            with torch.no_grad():
                centres = task.model.decode(PriorCells.equal(len(x), task.latent_dim).codes.to(x)).double()
                task.model.set_variance(index.refine_noise(x, centres, task.model.variance()))
        fitted = replace(best.fitted, model=task.model)
        yield fitted
        return fitted

    def _attempts(self, task: Task, x: Tensor) -> Iterator[_Attempt]:
        """A fit, not yet begun, for each placement of the codes, and another one where the trial of it went badly."""
        noise = task.model.variance()
        atoms = index.denoise(x, noise, self.denoise_steps)

        def log_index(new: Tensor, among: Tensor = atoms) -> Tensor:
            return index.log_index_posterior(new.double(), among, self.kernel_width * noise)

        targets, weights = index.mean_given_index(log_index(x).exp(), x)
        cells = PriorCells.equal(len(x), task.latent_dim)
        for _name, order in placement.candidates(atoms.cpu().numpy(), cells.codes.numpy(), self.centres, task.ledger):
            place = torch.from_numpy(order)
            regression = Regression(cells.codes[place].to(x).float(), targets.float(), weights.float(), noise)
            by_code = CellPosterior(partial(log_index, among=atoms[place.argsort()]), cells)
            for steepness in (1.0, self.steepness) if task.latent_dim == 1 else (1.0,):
                model = _steepened(task.model, steepness)
                losses = fit(model, regression, task.ledger, self.steps, self.history, self.tolerance)
                attempt = _Attempt(model, Fitted(model, by_code, log_index), losses)
                yield attempt
                if attempt.loss < POOR_FIT:
                    break


def _steepened(model: GaussianModel, factor: float) -> GaussianModel:
    """A copy whose first layer turns as often and as sharply over z as one of the model does over factor z."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.network[0].parameters():
            parameter.mul_(factor)
    return model


@dataclass
class _Attempt:
    """A fit under one placement of the codes, as far as it has come: its loss in nats, and those to come."""

    model: GaussianModel
    fitted: Fitted
    losses: Iterator[float]
    loss: float = math.inf

    def go_on(self, steps: int | None = None) -> Iterator[None]:
        """Take at most so many more steps, one at a time."""
        for loss in islice(self.losses, steps):
            self.loss = loss
            yield


def _loss(attempt: _Attempt) -> float:
    return attempt.loss
