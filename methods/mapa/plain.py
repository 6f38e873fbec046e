"""MAPA without our own additions, so that what they give is not credited to the idea of Yacoby et al."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from methods.contract.method import Task
from methods.mapa.method import MAPA


@dataclass(frozen=True)
class PlainMAPA(MAPA):
    """The index posterior of the abstract, with a kernel of variance 2 s2 around each training point.

    It has one placement: the path on curves, the data themselves where D = L, and otherwise Isomap with 8 neighbours.
    Its initial weights are those that all methods share. Nothing is denoised, begun again, reassigned or embedded, and
    the posterior of training is also that of a new x. Like other methods, it keeps the state that is best on validation
    points.
    """

    smoothing: float = 0.0
    weight_steps: int = 0
    atom_steps: int = 0
    replacements: int = 0
    hard_trial: int = 0
    releases: int = 0
    steepness: float = 1.0
    placement: str = "first"
    boxes: int = 0

    def skip(self, latent_dim: int, data_dim: int, n_train: int) -> str | None:  # noqa: ARG002
        """The reason why data of these sizes cannot be fitted: it has no placement above two latent dimensions.

        Args:
            latent_dim: L, the dimension of z.
            data_dim: D, the dimension of x.
            n_train: N, the number of training points.

        Returns:
            The reason in a few words; None if the method accepts them.
        """
        return "it places codes in 1 or 2 latent dimensions only" if latent_dim > 2 else None

    def _embeds(self, task: Task, x: Tensor) -> bool:  # noqa: ARG002
        return False
