"""What each column means, in a line, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Definition:
    """A measured quantity: its label, unit and direction, its meaning and its source."""

    name: str
    label: str
    unit: str
    better: str
    meaning: str
    source: str


METRICS = (
    Definition(
        "test_ll",
        "test log-likelihood",
        "nats",
        "higher",
        "mean log p(x) of the learned model over held-out points",
        "quadrature up to 2 latent dimensions, else importance sampling: Burda et al. 2016, arXiv 1509.00519",
    ),
    Definition(
        "oracle_gap",
        "oracle gap",
        "nats",
        "lower",
        "mean of log p_true(x) - log p(x) on the same points: an unbiased estimate of KL(true || learned)",
        "Kullback & Leibler 1951",
    ),
    Definition(
        "elbo",
        "ELBO",
        "nats",
        "higher",
        "mean evidence lower bound of the same points under the method's own q(z|x)",
        "Kingma & Welling 2014, arXiv 1312.6114",
    ),
    Definition(
        "inference_gap",
        "inference gap",
        "nats",
        "lower",
        "test_ll - elbo = mean KL(q(z|x) || p(z|x)): how far inference is from its own model's posterior",
        "Cremer et al. 2018, arXiv 1801.03558",
    ),
)

COSTS = (
    Definition("wall_s", "wall time", "s", "lower", "elapsed time of fitting alone, evaluation off the clock", ""),
    Definition("cpu_s", "CPU time", "s", "lower", "processor time of fitting alone, over all threads", ""),
    Definition("flops", "FLOPs", "FLOP", "lower", "floating-point operations of everything that the method does", ""),
    Definition("decoder_passes", "decoder passes", "data", "lower", "data put forward through the decoder", ""),
    Definition("encoder_passes", "encoder passes", "data", "lower", "data put forward through the encoder", ""),
)

COST_NAMES = tuple(cost.name for cost in COSTS)
_KNOWN = {definition.name: definition for definition in (*METRICS, *COSTS)}


def define(name: str, unit: str = "") -> Definition:
    """The definition of a column; one that is not known here is labelled with its own name and unit."""
    return _KNOWN.get(name, Definition(name, name, unit, "", "not described here", ""))


def in_order(names: Iterable[str]) -> list[str]:
    """Distinct metric names: those known here in the order given here, then the others as they came."""
    names = list(dict.fromkeys(names))
    known = [metric.name for metric in METRICS if metric.name in names]
    return known + [name for name in names if name not in known]
