"""The polish: from MAPA's solution, on with the likelihood of the generative model itself, over a shared codebook.

From random weights the same objective often sticks in poor maxima; MAPA's solution is the start that it needs. Our own
addition, and none of Yacoby et al.: the posterior is no longer fixed before training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from methods.common.mixture_likelihood import ModelPosterior, codebook, log_index_given_model, maximise_likelihood
from methods.contract.method import Fitted, Task, require
from methods.mapa.method import MAPA


@dataclass(frozen=True)
class PolishedMAPA(MAPA):
    """MAPA, and then the likelihood over a shared codebook: full-batch L-BFGS, as in MAPA.

    Its q(z | x) is the exact posterior of what was learned, but for the width of boxes.

    codes: S, codes in the codebook. polish_steps: most L-BFGS steps of the polish, which ends when 25 of them gain less
    than `polish_tolerance` nats. The others as for MAPA.
    """

    tolerance: float = 0.2
    codes: int = 2000
    polish_steps: int = 200
    polish_tolerance: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, positive=("codes", "polish_steps"), not_negative=("polish_tolerance",))

    def skip(self, latent_dim: int, data_dim: int, size: int) -> str | None:  # noqa: ARG002
        """Why such data cannot be fitted, or None."""
        return "no codebook is dense enough above 2 latent dimensions" if latent_dim > 2 else None

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Yields whenever MAPA does, and then after each step of the polish.

        Raises what MAPA does.
        """
        yield from super().fit(task)
        model, train = task.model, task.train
        grid = codebook(self.codes, task.latent_dim)
        for _ in maximise_likelihood(
            model, train, grid, task.ledger, self.polish_steps, self.polish_tolerance, self.history
        ):
            yield Fitted(model, ModelPosterior(model), log_index_given_model(model, train, grid))
