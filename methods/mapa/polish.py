"""MAPA with a polish: from MAPA's solution, maximise the likelihood of the generative model over a shared codebook.

From random weights the same objective often ends in poor local maxima; MAPA's solution is a good start. The polish is
this project's own addition to Yacoby et al.: the posterior is no longer fixed before training.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

from methods.common.best_state import Best
from methods.common.latent_grid import codebook
from methods.common.mixture_likelihood import ModelPosterior, log_index_given_model, maximise_likelihood
from methods.contract.method import Fitted, Task, require
from methods.mapa.method import MAPA


@dataclass(frozen=True)
class PolishedMAPA(MAPA):
    """MAPA, followed by full-batch L-BFGS on the likelihood over a shared codebook.

    MAPA's codes stay on the grid, so that it ends sooner and leaves more of the budget to the polish. Its q(z | x) is
    the exact posterior of the learned model, up to the width of grid cells. As in MAPA's own fit, the state that is
    best on validation points is kept.

    Args:
        tolerance: MAPA's fit ends, and the polish starts, when 50 steps gain less than this, in nats per training
            point.
        codes: Number of codes in the codebook.
        polish_steps: Most L-BFGS steps of the polish.
        polish_tolerance: The polish ends when 25 steps gain less than this, in nats per training point.

    Raises:
        ValueError: If a hyperparameter is out of range.
    """

    tolerance: float = 0.2
    releases: int = 0
    codes: int = 2000
    polish_steps: int = 200
    polish_tolerance: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, positive=("codes", "polish_steps"), not_negative=("polish_tolerance",))

    def skip(self, latent_dim: int, data_dim: int, n_train: int) -> str | None:  # noqa: ARG002
        """The reason why data of these sizes cannot be fitted: a codebook is dense enough for L <= 2 only.

        Args:
            latent_dim: L, the dimension of z.
            data_dim: D, the dimension of x.
            n_train: N, the number of training points.

        Returns:
            The reason in a few words; None if the method accepts them.
        """
        return "no codebook is dense enough above 2 latent dimensions" if latent_dim > 2 else None

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Fit as MAPA does, and then polish.

        Args:
            task: The fitting problem.

        Yields:
            What has been learned, whenever MAPA yields, and then after each step of the polish.

        Raises:
            ValueError: If the placement or the optimiser is unknown.
        """
        yield from super().fit(task)
        model, grid = copy.deepcopy(task.model), codebook(self.codes, task.latent_dim)
        best = Best(task, 3 * self.codes // 2 + 1)  # other codes than those of training
        ascent = maximise_likelihood(
            model, task.train, grid, task.ledger, self.polish_steps, self.polish_tolerance, self.history
        )
        for _ in best.watched(model, ascent):
            yield Fitted(task.model, ModelPosterior(task.model), log_index_given_model(task.model, task.train, grid))
