"""What each column means, in a line, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

SCHEMA = 2  # of the tables and of study.json
# What a folder's runs have in common; methods, datasets and seeds may be added to it later.
SHARED = ("size", "validation_size", "test_size", "latent_dim", "noise", "device", "max_flops", "max_seconds")


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
        "quadrature up to 2 latent and 100 data dimensions; else importance sampling or annealing: Wu et al. 2017",
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
    Definition(
        "approximation_gap",
        "approximation gap",
        "nats",
        "lower",
        "the part of the inference gap that the best member of q's family would leave, on 100 held-out points",
        "Cremer et al. 2018, eq. 4",
    ),
    Definition(
        "amortisation_gap",
        "amortisation gap",
        "nats",
        "lower",
        "the rest of it: the ELBO of that best member less q's own, on the same points",
        "Cremer et al. 2018, eq. 5",
    ),
    Definition(
        "index_kl",
        "index KL",
        "nats",
        "lower",
        "mean KL from the true model's posterior over which training code gave x to the method's, over the first 1,000 "
        "training data; not measured above 20,000",
        "our reading of Yacoby et al. 2024, arXiv 2403.08941",
    ),
    Definition(
        "index_kl_floor",
        "index KL floor",
        "nats",
        "",
        "that of the true model where the codes are not known to it: on average, the least that any method can reach",
        "",
    ),
    Definition("index_kl_ratio", "index KL by floor", "times", "lower", "how many times the floor the index KL is", ""),
    Definition(
        "index_tv", "index TV", "probability", "lower", "their mean total variation distance", "as for the index KL"
    ),
    Definition(
        "index_tv_floor",
        "index TV floor",
        "probability",
        "",
        "that of the same posterior, which is the best by KL and nearly so by this",
        "",
    ),
    Definition(
        "signal_w2",
        "signal W2",
        "data units",
        "lower",
        "root mean square over held-out x of the 2-Wasserstein distance between the true posterior of f(z) given x and "
        "the method's",
        "Peyre & Cuturi 2019, arXiv 1803.00567",
    ),
    Definition(
        "sample_w2",
        "sample W2",
        "data units",
        "lower",
        "2-Wasserstein distance between 500 draws of the learned model and 500 of the true one",
        "Peyre & Cuturi 2019, arXiv 1803.00567",
    ),
    Definition(
        "sample_w2_floor",
        "sample W2 of the truth",
        "data units",
        "",
        "the same distance between two sets of the true model: what a perfect model would show",
        "",
    ),
    Definition(
        "annealing_gap",
        "annealing gap",
        "nats",
        "lower",
        "distance between bounds from above and from below on log p(x) of data drawn from the learned model: how far "
        "annealed importance sampling can be off (above 2 latent or 100 data dimensions)",
        "Grosse et al. 2015, arXiv 1511.02543; Wu et al. 2017, arXiv 1611.04273",
    ),
)
MAIN_METRICS = ("test_ll", "oracle_gap", "elbo", "inference_gap")

COSTS = (
    Definition("wall_s", "wall time", "s", "lower", "elapsed time of fitting alone, evaluation off the clock", ""),
    Definition("cpu_s", "CPU time", "s", "lower", "processor time of fitting alone, over all threads", ""),
    Definition("flops", "FLOPs", "FLOP", "lower", "floating-point operations of everything that the method does", ""),
    Definition("decoder_passes", "decoder passes", "data", "lower", "data put forward through the decoder", ""),
    Definition("encoder_passes", "encoder passes", "data", "lower", "data put forward through the encoder", ""),
)

MEMORY = Definition(
    "peak_memory_mb", "peak memory", "MB", "lower", "the most memory that fitting held beyond what it began with", ""
)

PAIRED = (
    Definition(
        "difference",
        "difference",
        "nats",
        "higher",
        "the median over shared seeds of the paired difference in final test log-likelihood, and a 95% bootstrap "
        "interval of that median (percentiles at 98.5%, which cover it 94 to 99 times in 100), for six seeds or more",
        "Efron & Tibshirani 1993, chapter 13",
    ),
    Definition(
        "verdict",
        "verdict",
        "",
        "",
        "better or worse if that interval excludes zero and the signed-rank test, corrected for all comparisons of the "
        "report, has p of at most 5%; else indistinguishable",
        "Wilcoxon 1945; Benjamini & Hochberg 1995",
    ),
    Definition(
        "cost_to_match",
        "cost to match",
        "the other's cost",
        "lower",
        "what is spent up to the first checkpoint whose test log-likelihood reaches the other's final one, whatever "
        "later ones show, over what the other spends until it first has as much; never is infinite; the median over "
        "seeds. Checkpoints are three to a decade of FLOPs, so it may be off by a factor of up to 2.2 either way",
        "",
    ),
)

COST_NAMES = tuple(cost.name for cost in COSTS)
_KNOWN = {definition.name: definition for definition in (*METRICS, *COSTS, MEMORY)}


def define(name: str, unit: str = "") -> Definition:
    """The definition of a column; one that is not known here is labelled with its own name and unit."""
    return _KNOWN.get(name, Definition(name, name, unit, "", "not described here", ""))


def in_order(names: Iterable[str]) -> list[str]:
    """Distinct metric names: those known here in the order given here, then the others as they came."""
    names = list(dict.fromkeys(names))
    known = [metric.name for metric in METRICS if metric.name in names]
    return known + [name for name in names if name not in known]
