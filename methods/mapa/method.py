"""MAPA: deconvolution, index posterior, placement and fit, one after the other."""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.common.latent_grid import LatentGrid, exact_posterior
from methods.common.posteriors import Prior
from methods.contract.decoder import DiscreteModel, GenerativeModel
from methods.contract.method import Fitted, Method, Role, Task, require
from methods.likelihoods import DISCRETE
from methods.mapa import deconvolution, families, noise, placement
from methods.mapa.assignment import Attempt, Placement, PlacesAnew, Shares, reassigned, released, steepened
from methods.mapa.fit import fit
from methods.mapa.held_out import Kept
from methods.mapa.rff_fit import fit_embedded, signals_span

POOR_FIT = 1.0
NEAR = 4
LOOK_EVERY = 25


@dataclass(frozen=True)
class MAPA(Method):
    """A posterior fixed before training, then the generative model alone (after Yacoby et al. 2024, arXiv 2403.08941).

    Above two latent dimensions, or if the signals span more than four dimensions, training points are too far apart
    for kernels. An embedding replaces them (`rff_lvm.py`, `rff_fit.py`), to which only `steps` and `history` apply.

    Args:
        smoothing: Variance of the first kernel of the deconvolution, in units of the kernel variance (see
            `kernel_width`). With 0 the atoms start at the training points.
        weight_steps: Expectation-maximisation steps for the weights of the atoms (L = 1). On surfaces, where all cells
            have equal mass, weights stay equal.
        atom_steps: Expectation-maximisation steps for the positions of the atoms, of Gaussian data.
        kernel_width: Kernel variance of deconvolution and index posterior, in units of the noise variance.
        atoms: Most atoms that represent the signals; of more training points, a random subset gives the atoms.
        centres: Number of k-means centres on the path that orders the codes (L = 1).
        steps: Most optimiser steps of the selected fit, its trial included, in each noise round. On a surface, codes
            leave the grid after half of them.
        tolerance: The fit ends when 50 steps gain less than this, in nats per training point.
        history: Number of pairs that L-BFGS remembers.
        trial_steps: Steps of each trial fit. Only the one with the highest likelihood of validation points continues;
            of the placements of a surface, half are left behind after half of these steps.
        replacements: How often codes are reassigned to suit the decoder (L = 2), the first time within the trial.
        replacement_steps: Steps before each replacement.
        steepness: Factor on the first layer's initial weights. For L = 1 a second start uses it if the first is 1 nat
            or more from a perfect fit after its trial, and the better one continues; for L = 2 every start uses a
            quarter of it.
        hard_trial: 1 for one more trial on surfaces, with the placement that is best after its trial: each training
            point then belongs to one code alone, not to all by their posterior. 0 for none.
        releases: How often codes off the grid are placed anew (L = 2), after they have left it. They do so for the
            second half of the steps, and for as many steps from the initial weights. 0 keeps them on the grid.
        noise_rounds: Rounds of fitting and noise estimation, if the noise is learned.
        placement: 'best' tries all placements, 'first' one; the name of a placement, or how it begins, selects it.
            For ablation, 'random' is the floor, and 'truth' has the codes under the true model.
        boxes: Number of boxes of latent space among which the index posterior chooses for a new x. Within a box the
            decoder places z. With 0, the posterior of training is used for new x too, with the kernel of the index
            posterior.
        optimiser: 'lbfgs', or 'adam' for ablation.

    Raises:
        ValueError: If a hyperparameter is out of range.
    """

    colour_group: ClassVar[str] = "mapa"

    ablation: ClassVar[Mapping[str, tuple[float | str, ...]]] = {
        "smoothing": (0, 2, 6, 12),
        "kernel_width": (0.5, 1, 2, 4),
        "weight_steps": (0, 5, 30),
        "atom_steps": (0, 1, 5),
        "placement": ("best", "random", "truth"),
        "boxes": (0, 1, 8),
        "optimiser": ("lbfgs", "adam"),
        "steepness": (1, 8),
        "hard_trial": (0, 1),
        "releases": (0, 4),
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
    trial_steps: int = 100
    replacement_steps: int = 50
    replacements: int = 4
    steepness: float = 8.0
    noise_rounds: int = 3
    hard_trial: int = 1
    releases: int = 4
    placement: str = "best"
    boxes: int = 8
    optimiser: str = "lbfgs"

    def __post_init__(self) -> None:
        positive = ("kernel_width", "atoms", "centres", "steps", "history", "trial_steps", "steepness", "noise_rounds")
        not_negative = (
            "smoothing",
            "weight_steps",
            "atom_steps",
            "tolerance",
            "replacements",
            "hard_trial",
            "releases",
            "boxes",
        )
        require(self, positive=positive, not_negative=not_negative)

    @property
    def sees_truth(self) -> bool:  # type: ignore[override]
        """Whether the codes are those of the true model."""
        return self.placement == "truth"

    @property
    def role(self) -> Role:  # type: ignore[override]
        """'method', or 'reference' where the true model is seen."""
        return "reference" if self.sees_truth else "method"

    def skip(self, latent_dim: int, data_dim: int, n_train: int) -> str | None:
        """The reason why data of these sizes cannot be fitted: above two latent dimensions, L must be below D and N.

        Args:
            latent_dim: L, the dimension of z.
            data_dim: D, the dimension of x.
            n_train: N, the number of training points.

        Returns:
            The reason in a few words; None if the method accepts them.
        """
        if latent_dim > 2 and latent_dim >= min(data_dim, n_train):
            return f"mapa embeds in fewer dimensions than there are coordinates ({data_dim}) and data ({n_train})"
        return None

    def skip_likelihood(self, family: str, latent_dim: int) -> str | None:
        """The reason why data of a family cannot be fitted: the embedding above two latent dimensions is Gaussian."""
        if latent_dim > 2 and family in DISCRETE:
            return f"mapa fits gaussian data only above two latent dimensions, got {family}"
        return None

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Place codes and fit the decoder.

        Args:
            task: The fitting problem.

        Yields:
            What has been learned, after each placement, each step of a trial or of the fit, and each noise estimate.

        Raises:
            ValueError: If the placement or the optimiser is unknown.
        """
        x = task.train.double()
        if self._embeds(task, x):
            yield from fit_embedded(task, x, self.steps, self.history)
            return
        few = deconvolution.thinned(x, self.atoms, task.generator)
        rounds = self.noise_rounds if task.model.learns_noise else 1
        if task.model.learns_noise:
            noise.set_pilot(task.model, few)
        best, reached = Fitted(task.model, Prior(task.latent_dim)), -math.inf
        start = copy.deepcopy(task.model)
        for _ in range(rounds):
            start.take_noise(task.model)
            fitted, value = yield from self._fit_given_noise(task, start, x, few, best)
            if value >= reached:
                best, reached = fitted, value
            yield best
        if isinstance(best.model, GenerativeModel):
            task.model.load_state_dict(best.model.state_dict())

    def _embeds(self, task: Task, x: Tensor) -> bool:
        """Whether training points are too far apart for kernels. Data that are not Gaussian have no embedding."""
        if isinstance(task.model, DiscreteModel):
            return False
        return task.latent_dim > 2 or signals_span(task, x) > NEAR

    def _fit_given_noise(
        self, task: Task, start: GenerativeModel, x: Tensor, few: Tensor, fitted: Fitted
    ) -> Generator[Fitted, None, tuple[Fitted, float]]:
        """One round at the present noise variance. It yields the earlier `fitted` until the first trial step.

        Returns:
            What is learned, with the noise variance estimated anew if that is better on validation points; and their
            log-likelihood. The model of the task has the new estimate in any case.
        """
        kept, shares = Kept(task, self.boxes), self._shares(task, x, few)
        trial = min(self.trial_steps, self.steps)
        tried: list[Attempt] = []
        for attempt in self._attempts(task, start, shares, few):
            yield kept.fitted or fitted
            yield from _watched(attempt, trial if task.latent_dim == 1 else trial // 2, kept)
            tried.append(attempt)
        if task.latent_dim > 1:
            tried = sorted(tried, key=_value, reverse=True)[: math.ceil(len(tried) / 2)]
            for attempt in tried:
                yield from _watched(attempt, trial - trial // 2, kept)
            if self.hard_trial:
                placed = max(tried, key=_value).placed
                tried.append(self._attempt(task, steepened(start, *self._starts(2)), shares.hard(few, x), placed))
                yield from _watched(tried[-1], trial, kept)
        best = max(tried, key=_value)
        free = min(self.steps // 2, self.steps - best.steps) if task.latent_dim > 1 and self.releases else 0
        yield from _watched(best, self.steps - free - best.steps, kept)
        if free:
            for model in (copy.deepcopy(kept.model), steepened(start, *self._starts(2))):
                placed = released(kept.model, shares, best.placed, task.ledger)
                yield from _watched(self._attempt(task, model, shares, placed, released), free, kept)
        task.model.load_state_dict(kept.model.state_dict())
        if not task.model.learns_noise:
            return kept.refined(task.model), kept.value
        noise.refine(task.model, few, kept.codes.to(task.train))
        value = kept.log_likelihood(task.model)
        anew = value >= kept.value
        return kept.refined(copy.deepcopy(task.model) if anew else kept.model), value if anew else kept.value

    def _shares(self, task: Task, x: Tensor, few: Tensor) -> Shares:
        """The shares of the training data under the posterior, which is fixed from here on."""
        ledger, likelihood = task.ledger, task.model.likelihood
        weight_steps = self.weight_steps if task.latent_dim == 1 else 0
        if isinstance(task.model, DiscreteModel):
            settings = (self.kernel_width, self.smoothing, weight_steps)
            of_few = families.estimate(few, likelihood, *settings)
            whole = of_few.sharpened(x, ledger) if len(x) > len(few) else of_few
            return Shares.of(whole, x, task.latent_dim, ledger)
        width, scale = self.kernel_width * float(likelihood.dispersion), likelihood.scale
        steps = weight_steps, self.atom_steps
        found = deconvolution.estimate(few, width, self.smoothing, *steps, ledger, scale)
        if len(x) > len(few):
            found = deconvolution.sharpened(found, x, width, ledger)
        return Shares.of(found, x, task.latent_dim, ledger)

    def _attempts(self, task: Task, start: GenerativeModel, shares: Shares, few: Tensor) -> Iterator[Attempt]:
        """One attempt for each placement, not yet begun, and a steeper one if its trial fits badly (L = 1)."""
        for _name, order in placement.candidates(
            shares.mixture.in_units(shares.mixture.atoms).cpu().numpy(),
            lambda: shares.mixture.in_units(few).cpu().numpy(),
            LatentGrid.equal(len(shares.targets), task.latent_dim).codes.numpy(),
            float(start.likelihood.dispersion),
            self.centres,
            task.ledger,
            self.placement,
            self._true_codes(task, shares.mixture.atoms),
        ):
            for steepness in self._starts(task.latent_dim):
                placed = shares.on_grid(torch.from_numpy(order))
                attempt = self._attempt(task, steepened(start, steepness), shares, placed)
                yield attempt
                if attempt.loss < POOR_FIT:
                    break

    def _attempt(
        self, task: Task, model: GenerativeModel, shares: Shares, placed: Placement, anew: PlacesAnew = reassigned
    ) -> Attempt:
        """A fit to shares under a placement, not yet begun."""
        begin = partial(
            fit, ledger=task.ledger, history=self.history, tolerance=self.tolerance, optimiser=self.optimiser
        )
        often = self.releases if anew is released else self.replacements if task.latent_dim > 1 else 0
        return Attempt(model, shares, placed, begin, task.ledger, often, self.replacement_steps, anew)

    def _true_codes(self, task: Task, atoms: Tensor) -> NDArray[np.float64] | None:
        """The most probable codes of atoms under the true model, (K, L); None unless they are asked for."""
        if not self.sees_truth:
            return None
        if task.truth is None:
            raise ValueError("placement=truth needs the true model, and this task has none")
        posterior = exact_posterior(task.truth, task.latent_dim)
        return posterior.grid.codes[posterior.log_index(atoms).argmax(1).cpu()].numpy()

    def _starts(self, latent_dim: int) -> Iterable[float]:
        """Factors on the first layer: for curves 1 and then the full steepness, for surfaces a quarter of it."""
        return dict.fromkeys((1.0, self.steepness)) if latent_dim == 1 else (max(1.0, self.steepness / 4),)


def _value(attempt: Attempt) -> float:
    return attempt.value


def _watched(attempt: Attempt, steps: int, kept: Kept) -> Iterator[Fitted]:
    """Train on, and look at validation points every 25 steps and, if the last look was earlier, at the end.

    Args:
        attempt: The fit.
        steps: Most steps.
        kept: The best state so far, which this may replace.

    Yields:
        The best state so far, after each step; the present one before the first look.
    """
    taken = 0
    for taken, _ in enumerate(attempt.advance(steps), 1):
        if taken % LOOK_EVERY == 0:
            kept.look(attempt)
        yield kept.fitted or attempt.fitted
    if taken % LOOK_EVERY or not taken:
        kept.look(attempt)
        yield kept.fitted or attempt.fitted
