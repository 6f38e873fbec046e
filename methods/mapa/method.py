"""MAPA: index posterior, placement and fit, one after the other."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from methods.common.latent_grid import LatentGrid
from methods.common.posteriors import Prior
from methods.contract.decoder import GaussianModel
from methods.contract.method import Fitted, Method, Task, require
from methods.mapa import deconvolution, noise, placement
from methods.mapa.assignment import Attempt, Shares, steepened
from methods.mapa.fit import fit
from methods.mapa.rff_fit import fit_embedded, signals_span

POOR_FIT = 1.0
NEAR = 4


@dataclass(frozen=True)
class MAPA(Method):
    """A posterior fixed before training, then the generative model alone (after Yacoby et al. 2024, arXiv 2403.08941).

    Above two latent dimensions, and where the signals span more than four, data are too far apart for kernels and an
    embedding takes their place (`embedding.py`); of what follows it has `steps` and `history` alone.

    smoothing, weight_steps, atom_steps: how the signals are estimated, see `deconvolution.estimate`. kernel_width: by what
    the noise variance is multiplied in the posterior. atoms: the most that stand for the signals. centres: k-means
    centres of the path (L = 1). steepness: by what the first layer's initial weights are multiplied where a fit along a
    path is still more than a nat away after its trial (the better of both starts goes on), and half as much for L = 2.
    trial_steps: L-BFGS steps after which only the best placement goes on. replacements: how often that is then improved
    (L = 2), each share of the data taking the code that suits the decoder so far, with as many steps after each. steps:
    the most in all; they end when 50 of them gain less than `tolerance` nats. history: L-BFGS pairs. noise_rounds:
    rounds of noise estimation and refitting, where the noise is learned. placement: 'best' of several, one of them by
    name, or 'random'. optimiser: 'lbfgs' or 'adam'. The last two are for ablation.
    """

    colour_group: ClassVar[str] = "mapa"

    ablation: ClassVar[Mapping[str, tuple[float | str, ...]]] = {
        "smoothing": (0, 2, 6, 12),
        "kernel_width": (0.5, 1, 2, 4),
        "weight_steps": (0, 5, 30),
        "atom_steps": (0, 1, 5),
        "placement": ("best", "random"),
        "optimiser": ("lbfgs", "adam"),
        "steepness": (1, 8),
    }

    smoothing: float = 6.0
    weight_steps: int = 5
    atom_steps: int = 1
    kernel_width: float = 1.0
    atoms: int = 2000
    centres: int = 45
    steps: int = 600
    tolerance: float = 0.02
    history: int = 60
    trial_steps: int = 50
    replacements: int = 3
    steepness: float = 8.0
    noise_rounds: int = 3
    placement: str = "best"
    optimiser: str = "lbfgs"

    def __post_init__(self) -> None:
        positive = ("kernel_width", "atoms", "centres", "steps", "history", "trial_steps", "steepness", "noise_rounds")
        not_negative = ("smoothing", "weight_steps", "atom_steps", "tolerance", "replacements")
        require(self, positive=positive, not_negative=not_negative)

    def skip(self, latent_dim: int, data_dim: int, size: int) -> str | None:
        """Why such data cannot be fitted, or None."""
        if latent_dim > 2 and latent_dim >= min(data_dim, size):
            return f"mapa embeds in fewer dimensions than there are coordinates ({data_dim}) and data ({size})"
        return None

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Yields after each placement, each step of its trial or of the fit, and each estimate of the noise."""
        x = task.train.double()
        if task.latent_dim > 2 or signals_span(task, x) > NEAR:
            yield from fit_embedded(task, x, self.steps, self.history)
            return
        few = deconvolution.thinned(x, self.atoms, task.generator)
        rounds = self.noise_rounds if task.model.learns_noise else 1
        if task.model.learns_noise:
            task.model.set_variance(noise.pilot_noise(few))
        fitted = Fitted(task.model, Prior(task.latent_dim))
        start = copy.deepcopy(task.model)
        for _ in range(rounds):
            start.set_variance(task.model.variance())
            fitted = yield from self._fit_given_noise(task, start, x, few, fitted)

    def _fit_given_noise(
        self, task: Task, start: GaussianModel, x: Tensor, few: Tensor, fitted: Fitted
    ) -> Generator[Fitted, None, Fitted]:
        """One round at the present noise; what was fitted before stands until the first codes are placed."""
        best: Attempt | None = None
        for attempt in self._attempts(task, start, self._shares(task, x, few)):
            yield fitted
            for _ in attempt.advance(min(self.trial_steps, self.steps)):
                best = attempt if best is None or attempt.loss < best.loss else best
                fitted = best.fitted
                yield fitted
        if best is None:
            return fitted
        for _ in range(self.replacements if task.latent_dim > 1 else 0):
            best.place_anew(task.ledger)
            yield best.fitted
            for _ in best.advance(min(self.trial_steps, self.steps - best.steps)):
                yield best.fitted
        for _ in best.advance(self.steps - best.steps):
            yield best.fitted
        task.model.load_state_dict(best.model.state_dict())
        if task.model.learns_noise:
            with torch.no_grad():
                centres = task.model.decode(best.codes).double()
                task.model.set_variance(noise.refine_noise(few, centres, task.model.variance()))
        fitted = replace(best.fitted, model=task.model)
        yield fitted
        return fitted

    def _shares(self, task: Task, x: Tensor, few: Tensor) -> Shares:
        """The data in equal shares, as the posterior that is fixed from here on divides them."""
        width, ledger = self.kernel_width * task.model.variance(), task.ledger
        found = deconvolution.estimate(few, width, self.smoothing, self.weight_steps, self.atom_steps, ledger)
        if len(x) > len(few):
            found = deconvolution.sharpened(found, x, width, ledger)
        return Shares.of(found, x, task.latent_dim, ledger)

    def _attempts(self, task: Task, start: GaussianModel, shares: Shares) -> Iterator[Attempt]:
        """A fit, not yet begun, for each placement of the codes, and another one where the trial of it went badly."""
        begin = partial(
            fit, ledger=task.ledger, history=self.history, tolerance=self.tolerance, optimiser=self.optimiser
        )
        for _name, order in placement.candidates(
            shares.mixture.atoms.cpu().numpy(),
            shares.atom.cpu().numpy(),
            LatentGrid.equal(len(shares.atom), task.latent_dim).codes.numpy(),
            self.centres,
            task.ledger,
            self.placement,
        ):
            for steepness in self._starts(task.latent_dim):
                attempt = Attempt(steepened(start, steepness), shares, torch.from_numpy(order), begin)
                yield attempt
                if attempt.loss < POOR_FIT:
                    break

    def _starts(self, latent_dim: int) -> tuple[float, ...]:
        """Initial steepness: for curves plain and, if that fits badly, steep; for surfaces half as steep."""
        return (1.0, self.steepness) if latent_dim == 1 else (self.steepness / 2,)
