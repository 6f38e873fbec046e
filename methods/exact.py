"""Maximum likelihood by quadrature, with no bound, from several starts."""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter

import torch
from torch import Tensor

from methods.common.best_state import Best
from methods.common.latent_grid import MOST_COORDINATES, resolving
from methods.common.mixture_likelihood import ModelPosterior, log_index_given_model, maximise_likelihood
from methods.contract.decoder import GenerativeModel
from methods.contract.method import Fitted, Method, Task, require
from methods.mapa import MAPA
from methods.mapa.assignment import steepened

STEEPNESS = (1.0, 4.0, 8.0)
MAPA_TOLERANCE = 0.2


@dataclass(frozen=True)
class ExactMLE(Method):
    """argmax of sum_n log of the integral of N(x_n; f(z), s2 I) N(z; 0, I) dz over the decoder f, and s2 if learned.

    The integral is a sum over the cells of a latent grid that resolves the decoder. Each trial makes a new grid, so
    that a decoder gains little from what lies between codes. Within a trial, full-batch L-BFGS is deterministic.
    The starts are MAPA's solution on the grid, which ends sooner than one off it, and the initial weights with the
    first layer times 1, 4 and 8. After each trial the better half continues (successive halving, Jamieson &
    Talwalkar 2016). With few training points the maximum overfits: starts are compared by the likelihood of
    validation points, and the state that is best on them is kept.

    Args:
        box: Largest movement of the decoder across a grid cell, in standard deviations of the noise.
        trial_steps: L-BFGS steps of a trial.
        steps: Most L-BFGS steps of each start, and of MAPA.
        tolerance: The winner continues until a trial gains less than this, in nats per training point.
        history: Number of pairs that L-BFGS remembers.
    """

    box: float = 2.0
    trial_steps: int = 100
    steps: int = 600
    tolerance: float = 0.005
    history: int = 60

    def __post_init__(self) -> None:
        require(self, positive=("box", "trial_steps", "steps", "history"), not_negative=("tolerance",))

    def skip_likelihood(self, family: str, latent_dim: int) -> str | None:  # noqa: ARG002
        """None: it accepts any likelihood."""
        return None

    def skip(self, latent_dim: int, data_dim: int, n_train: int) -> str | None:  # noqa: ARG002
        """The reason why such data cannot be fitted, or None."""
        if latent_dim > 2:
            return "no quadrature is dense enough above 2 latent dimensions"
        if data_dim > MOST_COORDINATES:
            return f"no quadrature is dense enough above {MOST_COORDINATES} coordinates, got {data_dim}"
        return None

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Yield whenever MAPA does, and then the state best on validation points so far, after each step of any start.

        Raises:
            ValueError: Where MAPA raises it.
        """
        ascents = yield from self._starts(task)
        best = Best(task)
        while len(ascents) > 1:
            yield from self._trials(task, ascents, best)
            ascents = better_half(ascents)
        winner = ascents[0]
        while winner.steps < self.steps and winner.gain > self.tolerance:
            yield from self._trials(task, ascents, best)

    def _starts(self, task: Task) -> Generator[Fitted, None, list[Ascent]]:
        """Run MAPA; the ascents from its solution and from the initial weights."""
        own = replace(task, model=copy.deepcopy(task.model))
        steep = [Ascent(steepened(task.model, factor)) for factor in STEEPNESS]
        for fitted in MAPA(steps=self.steps, tolerance=MAPA_TOLERANCE, releases=0).fit(own):
            if isinstance(fitted.model, GenerativeModel):
                task.model.load_state_dict(fitted.model.state_dict())
            yield replace(fitted, model=task.model)
        return [Ascent(own.model), *steep]

    def _trials(self, task: Task, ascents: list[Ascent], best: Best) -> Iterator[Fitted]:
        """One trial of each ascent; the model of the task has the state that was best on validation points so far."""
        for ascent in ascents:
            for _ in ascent.advance(task, self, best):
                yield Fitted(task.model, ModelPosterior(task.model), partial(self._log_index, task))

    def _log_index(self, task: Task, x: Tensor) -> Tensor:
        """The index posterior that the model implies, on a grid that resolves it: (n, D) -> (n, N), in nats."""
        with torch.no_grad():
            grid = resolving(task.model, task.latent_dim, self.box)
        return log_index_given_model(task.model, task.train, grid)(x)


def better_half(ascents: list[Ascent]) -> list[Ascent]:
    """The half of the ascents that reached the highest likelihood of validation points, best first."""
    return sorted(ascents, key=attrgetter("reached"), reverse=True)[: len(ascents) // 2]


class Ascent:
    """The ascent of the likelihood from one start.

    Args:
        model: The model at its start, which is trained in place.

    Attributes:
        grid: The grid of the last trial.
        reached: The highest mean log-likelihood of validation points so far, in nats.
        steps: Steps taken so far.
        gain: Gain of the last trial on its own grid, from its first step to its last, in nats per training point.
    """

    def __init__(self, model: GenerativeModel):
        self.model, self.reached, self.gain, self.steps = model, -math.inf, 0.0, 0

    def advance(self, task: Task, method: ExactMLE, best: Best) -> Iterator[None]:
        """Take the steps of a trial, one at a time, on a new grid that resolves the present decoder."""
        self.reached = max(self.reached, (yield from best.watched(self.model, self._climb(task, method))))

    def _climb(self, task: Task, method: ExactMLE) -> Iterator[float]:
        """The likelihood of the training points after each step of a trial."""
        model, most = self.model, min(method.trial_steps, method.steps - self.steps)
        with torch.no_grad():
            self.grid = resolving(model, task.latent_dim, method.box)
        name = f"likelihood over {len(self.grid.low)} codes"
        values = maximise_likelihood(model, task.train, self.grid, task.ledger, most, 0.0, method.history, name)
        first, self.gain = None, 0.0
        for value in values:
            first = value if first is None else first
            self.gain = value - first
            self.steps += 1
            yield value
