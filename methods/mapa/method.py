"""MAPA: index posterior, placement and fit, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.base import Fitted, Task
from methods.mapa import index, placement
from methods.mapa.fit import Regression, fit, trial_loss
from methods.posteriors import CellPosterior, PriorCells

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

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Yields after each step of the fit, and after each estimate of the noise.

        Raises ValueError for more than 10,000 data, for which the dense index posterior is too large.
        """
        x = task.train.double()
        if len(x) > LARGEST:
            raise ValueError(f"mapa holds an N x N index posterior: at most {LARGEST} data, got {len(x)}")
        rounds = self.noise_rounds if task.model.learns_noise else 1
        if task.model.learns_noise:
            task.model.set_variance(index.pilot_noise(x))
        for _ in range(rounds):
            yield from self._fit_given_noise(task, x)

    def _fit_given_noise(self, task: Task, x: Tensor) -> Iterator[Fitted]:
        noise = task.model.variance()
        atoms = index.denoise(x, noise, self.denoise_steps)
        posterior = index.log_index_posterior(x, atoms, self.kernel_width * noise).exp()
        targets, weights = index.mean_given_index(posterior, x)
        cells = PriorCells(len(x), task.latent_dim)
        problems = []
        for _name, order in placement.candidates(atoms.cpu().numpy(), cells.codes.numpy(), self.centres, task.ledger):
            code_of = torch.from_numpy(order)
            codes = cells.codes[code_of].to(x.device)
            problems.append((code_of, Regression(codes.float(), targets.float(), weights.float(), noise)))
        code_of, regression = min(problems, key=lambda problem: self._trial(task, problem[1], len(problems)))
        by_code = atoms[code_of.argsort()]
        fitted = Fitted(
            task.model,
            CellPosterior(
                lambda new: index.log_index_posterior(new.double(), by_code, self.kernel_width * noise), cells
            ),
        )
        for _loss in fit(task.model, regression, task.ledger, self.steps, self.history, self.tolerance):
            yield fitted
        if task.model.learns_noise:
            with torch.no_grad():
                centres = task.model.decode(cells.codes.to(x.device)).double()
                task.model.set_variance(index.refine_noise(x, centres, noise))
            yield fitted

    def _trial(self, task: Task, regression: Regression, candidates: int) -> float:
        if candidates == 1:
            return 0.0
        return trial_loss(task.model, regression, task.ledger, self.trial_steps, self.history)
