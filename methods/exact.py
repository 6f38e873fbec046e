"""Maximum likelihood by quadrature: the ceiling, on the training data, of any inference scheme for the decoder."""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from operator import attrgetter

import torch

from methods.baselines import MOST_COORDINATES
from methods.common.latent_grid import LatentGrid
from methods.common.mixture_likelihood import ModelPosterior, log_index_given_model, maximise_likelihood
from methods.contract.decoder import GaussianModel
from methods.contract.method import Fitted, Method, Task, require
from methods.mapa import MAPA
from methods.mapa.assignment import steepened

STEEPNESS = (1.0, 4.0, 8.0)
MAPA_TOLERANCE = 0.2


@dataclass(frozen=True)
class ExactMLE(Method):
    """argmax of sum_n log of the integral of N(x_n; f(z), s2 I) N(z; 0, I) dz over the decoder f, and s2 if learned.

    The integral is a sum over boxes of latent space that resolve the decoder. They are cut anew for each trial, so that
    a decoder gains little from what lies between their centres; within one, L-BFGS on all data is deterministic. The
    starts are MAPA's solution and the initial weights, plain and with the first layer 4 and 8 times as steep; of them
    the better half by training likelihood goes on from trial to trial (successive halving, Jamieson & Talwalkar 2016).
    What is highest here is the likelihood of the training data: where they are few, the maximum overfits.

    box: how far the decoder may move across a box, in standard deviations of the noise. trial_steps: L-BFGS steps of a
    trial; the winner goes on until one gains less than `tolerance` nats. steps: the most of any start, and of MAPA.
    history: L-BFGS pairs.
    """

    box: float = 2.0
    trial_steps: int = 100
    steps: int = 600
    tolerance: float = 0.005
    history: int = 60

    def __post_init__(self) -> None:
        require(self, positive=("box", "trial_steps", "steps", "history"), not_negative=("tolerance",))

    def skip(self, latent_dim: int, data_dim: int, size: int) -> str | None:  # noqa: ARG002
        """Why such data cannot be fitted, or None."""
        if latent_dim > 2:
            return "no quadrature is dense enough above 2 latent dimensions"
        if data_dim > MOST_COORDINATES:
            return f"no quadrature is dense enough above {MOST_COORDINATES} coordinates, got {data_dim}"
        return None

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Yields whenever MAPA does, and then, after each step of any start, the start that is best so far.

        Raises what MAPA does.
        """
        ascents = yield from self._starts(task)
        while len(ascents) > 1:
            yield from self._trials(task, ascents)
            ascents = better_half(ascents)
        winner = ascents[0]
        while winner.steps < self.steps and winner.gain > self.tolerance:
            yield from self._trials(task, ascents)

    def _starts(self, task: Task) -> Generator[Fitted, None, list[Ascent]]:
        """The ascents from all starts, once MAPA's is found."""
        own = replace(task, model=copy.deepcopy(task.model))
        steep = [Ascent(steepened(task.model, factor)) for factor in STEEPNESS]
        for fitted in MAPA(steps=self.steps, tolerance=MAPA_TOLERANCE).fit(own):
            if isinstance(fitted.model, GaussianModel):
                task.model.load_state_dict(fitted.model.state_dict())
            yield replace(fitted, model=task.model)
        return [Ascent(own.model), *steep]

    def _trials(self, task: Task, ascents: list[Ascent]) -> Iterator[Fitted]:
        """One trial of each ascent; what is yielded has the weights of the best of them so far."""
        for ascent in ascents:
            for _ in ascent.advance(task, self):
                best = max(ascents, key=attrgetter("likelihood"))
                task.model.load_state_dict(best.model.state_dict())
                log_index = log_index_given_model(task.model, task.train, best.grid)
                yield Fitted(task.model, ModelPosterior(task.model), log_index)


def better_half(ascents: list[Ascent]) -> list[Ascent]:
    """The ascents that have come to the highest training likelihood, best first."""
    return sorted(ascents, key=attrgetter("likelihood"), reverse=True)[: len(ascents) // 2]


class Ascent:
    """The ascent of the likelihood from one start, as far as it has come.

    likelihood: the mean over training data in nats, over the codebook of the last trial. steps: taken so far. gain: by
    how much the last trial raised the likelihood over its own codebook, from its first step to its last.
    """

    def __init__(self, model: GaussianModel):
        self.model, self.likelihood, self.gain, self.steps = model, -math.inf, 0.0, 0

    def advance(self, task: Task, method: ExactMLE) -> Iterator[None]:
        """Take the steps of a trial, one at a time, over a codebook that resolves the decoder as it now is."""
        model, most = self.model, min(method.trial_steps, method.steps - self.steps)
        with torch.no_grad():
            across = method.box * math.sqrt(model.variance())
            self.grid = LatentGrid.resolving(model.decode, task.latent_dim, across)
        name = f"likelihood over {len(self.grid.low)} codes"
        values = maximise_likelihood(model, task.train, self.grid, task.ledger, most, 0.0, method.history, name)
        first, self.gain = None, 0.0
        for self.likelihood in values:
            first = self.likelihood if first is None else first
            self.gain = self.likelihood - first
            self.steps += 1
            yield
