"""MAPA: index posterior, placement and fit, one after the other."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from methods.base import Fitted, Task
from methods.cells import CellPosterior, PriorCells
from methods.mapa import index, placement
from methods.mapa.fit import Regression, fit, trial
from methods.posteriors import Prior

LARGEST = 10_000


@dataclass(frozen=True)
class MAPA:
    """A posterior fixed before training, then the generative model alone (after Yacoby et al. 2024, arXiv 2403.08941).

    denoise_steps: expectation-maximisation steps from the data to the atoms. kernel_width: the index posterior's
    variance, in units of the noise. centres: k-means centres of the path (L = 1). steps: most L-BFGS steps, which
    end when 50 of them gain less than `tolerance` nats. history: L-BFGS pairs. trial_steps: steps that compare
    placements (L = 2). noise_rounds: rounds of noise estimation and refitting, where the noise is learned.
    """

    denoise_steps: int = 1
    kernel_width: float = 1.0
    centres: int = 45
    steps: int = 2000
    tolerance: float = 0.02
    history: int = 30
    trial_steps: int = 100
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

    def _fit_given_noise(self, task: Task, x: Tensor, before: Fitted) -> Generator[Fitted, None, Fitted]:
        """One round at the present noise; what was fitted before stands until the codes are placed."""
        noise = task.model.variance()
        atoms = index.denoise(x, noise, self.denoise_steps)
        targets, weights = index.mean_given_index(
            index.log_index_posterior(x, atoms, self.kernel_width * noise).exp(), x
        )
        cells = PriorCells.equal(len(x), task.latent_dim)
        places: list[Tensor] = []
        for _name, order in placement.candidates(atoms.cpu().numpy(), cells.codes.numpy(), self.centres, task.ledger):
            yield before
            places.append(torch.from_numpy(order))
        problems = [
            Regression(cells.codes[place].to(x).float(), targets.float(), weights.float(), noise) for place in places
        ]
        losses = [math.inf] * len(problems)
        for i, problem in enumerate(problems if len(problems) > 1 else []):
            for losses[i] in trial(task.model, problem, task.ledger, self.trial_steps, self.history):
                yield before
        chosen = losses.index(min(losses))
        by_code = atoms[places[chosen].argsort()]

        def log_index(new: Tensor, among: Tensor = atoms) -> Tensor:
            return index.log_index_posterior(new.double(), among, self.kernel_width * noise)

        fitted = Fitted(task.model, CellPosterior(partial(log_index, among=by_code), cells), log_index)
        yield fitted
        for _loss in fit(task.model, problems[chosen], task.ledger, self.steps, self.history, self.tolerance):
            yield fitted
        if task.model.learns_noise:
            with torch.no_grad():
                centres = task.model.decode(cells.codes.to(x.device)).double()
                task.model.set_variance(index.refine_noise(x, centres, noise))
            yield fitted
        return fitted
