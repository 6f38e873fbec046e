"""The generative topographic mapping: a codebook through the decoder, by maximum likelihood."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from methods.common.best_state import Best
from methods.common.latent_grid import codebook
from methods.common.mixture_likelihood import ModelPosterior, log_index_given_model, maximise_likelihood
from methods.contract.method import Fitted, Method, Task, require
from methods.contract.search_space import Choice, Range
from methods.mapa.assignment import steepened

LOOK_EVERY = 10
STEEPER = 4.0


@dataclass(frozen=True)
class GTM(Method):
    """argmax of sum_n log sum_s w_s p(x_n | z_s) over the decoder, for fixed codes z_s (Bishop et al. 1998).

    Bishop's decoder is linear in fixed features, so that expectation maximisation has a closed M step. Here it is a
    network: L-BFGS takes the gradient of expectation maximisation. Starts differ in the steepness of the first layer,
    1, 4 and 16 at most. The one that is best on validation points after its trial goes on, and its state that is best
    on them is kept. For a new x, q(z | x) is the posterior of the decoder on a latent grid.

    Args:
        codes: S, number of codes.
        starts: Number of starts, at most 3, each 4 times as steep as the one before.
        trial_steps: L-BFGS steps of a trial.
        steps: Most L-BFGS steps of the start that goes on.
        tolerance: The fit ends when 25 steps gain less than this, in nats per training point.
        history: Number of pairs that L-BFGS remembers.
    """

    search: ClassVar[Mapping[str, Range]] = {
        "codes": Choice((500, 1000, 2000, 4000)),
        "starts": Choice((1, 2, 3)),
        "tolerance": Choice((0.002, 0.01, 0.05)),
    }

    codes: int = 2000
    starts: int = 3
    trial_steps: int = 100
    steps: int = 400
    tolerance: float = 0.01
    history: int = 60

    def __post_init__(self) -> None:
        require(self, positive=("codes", "starts", "trial_steps", "steps", "history"), not_negative=("tolerance",))

    def skip_likelihood(self, family: str, latent_dim: int) -> str | None:  # noqa: ARG002
        """None: it accepts any likelihood."""
        return None

    def skip(self, latent_dim: int, data_dim: int, n_train: int) -> str | None:  # noqa: ARG002
        """The reason why such data cannot be fitted, or None."""
        return "no codebook is dense enough above 2 latent dimensions" if latent_dim > 2 else None

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Yield after each step of any start; the model has the state that was best on validation points so far."""
        grid = codebook(self.codes, task.latent_dim)
        best = Best(task)
        fits, scores = [], []
        for model in [steepened(task.model, STEEPER**k) for k in range(self.starts)]:
            ascent = maximise_likelihood(model, task.train, grid, task.ledger, self.steps, self.tolerance, self.history)
            fits.append((model, ascent))
            scores.append(-math.inf)

        def advance(which: int, steps: int) -> Iterator[Fitted]:
            model, ascent = fits[which]
            for taken, _ in enumerate(islice(ascent, steps), 1):
                if taken % LOOK_EVERY == 0 or taken == 1:
                    scores[which] = max(scores[which], best.look(model))
                yield Fitted(
                    task.model, ModelPosterior(task.model), log_index_given_model(task.model, task.train, grid)
                )

        for start in range(self.starts):
            yield from advance(start, self.trial_steps)
        yield from advance(scores.index(max(scores)), self.steps)
