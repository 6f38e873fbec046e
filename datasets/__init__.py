"""Synthetic problems whose true model is known: z ~ N(0, I_L), x | z ~ N(f(z), s2 I_D).

This module is the registry and stays importable without torch, so that listing the problems is instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets.base import Problem

_YACOBY = "after Yacoby et al., Failure Modes of Variational Autoencoders, arXiv 2007.07124"
_FOLKLORE = "manifold-learning folklore; the formula here is the definition"


@dataclass(frozen=True)
class Entry:
    """A registered problem: where its factory is, and what `list` says of it.

    `latent_dim` None means that the factory takes any latent dimension.
    """

    target: str
    summary: str
    source: str
    latent_dim: int | None
    data_dim: int | None


BUILTIN: dict[str, Entry] = {
    "figure8": Entry("datasets.curves:figure8", "a figure eight with a gap", _YACOBY, 1, 2),
    "circle": Entry("datasets.curves:circle", "a closed circle: the two ends of z meet", _YACOBY, 1, 2),
    "absolute": Entry("datasets.curves:absolute", "|z| on the diagonal: a bimodal posterior", _YACOBY, 1, 2),
    "clusters": Entry("datasets.curves:clusters", "clusters on a circle under much noise", _YACOBY, 1, 2),
    "spiral_dots": Entry("datasets.curves:spiral_dots", "dots on a spiral joined by fast jumps", _YACOBY, 1, 2),
    "swiss_roll": Entry("datasets.surfaces:swiss_roll", "a rolled-up sheet", _FOLKLORE, 2, 3),
    "s_curve": Entry("datasets.surfaces:s_curve", "a sheet bent to an S", _FOLKLORE, 2, 3),
    "torus": Entry("datasets.surfaces:torus", "a closed surface with a hole", _FOLKLORE, 2, 3),
    "pinwheel": Entry("datasets.surfaces:pinwheel", "five bent arms in the plane", _FOLKLORE, 2, 2),
    "linear_gaussian": Entry(
        "datasets.linear:linear_gaussian",
        "W z + m: everything is analytic",
        "probabilistic PCA, Tipping & Bishop 1999",
        None,
        None,
    ),
}

CURVES = ("figure8", "circle", "absolute", "clusters", "spiral_dots")
SURFACES = ("swiss_roll", "s_curve", "torus", "pinwheel")


def load(name: str, latent_dim: int | None = None) -> Problem:
    """The built-in problem `name`, at its own latent dimension or at the one asked for.

    Raises KeyError for an unknown name and ValueError for a latent dimension that the problem does not have.
    """
    from importlib import import_module

    module, attribute = BUILTIN[name].target.split(":")
    return getattr(import_module(module), attribute)(latent_dim)
