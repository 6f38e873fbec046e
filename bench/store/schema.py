"""The tables of a study: their columns, and what each metric and cost means. Nothing else names a column's meaning."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SCHEMA = 3  # of the tables, of runs/*.json and of study.json
RUN = ["dataset", "method", "seed"]  # what identifies a run
PAIR = ["dataset", "method"]
LEARNS = ("method", "reference")  # the roles of methods that learn
# In the tables of plots: what stands beside methods, kinds of images, and the least index probability that is kept.
TRUTH, FLOOR, DATA = "truth", "floor", "data"
POINT, RECONSTRUCTION, SAMPLE = "test point", "reconstruction", "sample"
LEAST_INDEX_PROBABILITY = 1e-6


@dataclass(frozen=True)
class Definition:
    """What a column holds.

    Args:
        name: The name of the column, or of the metric in the column `metric`.
        label: How people read it.
        unit: Its unit; empty if it has none.
        better: 'higher' or 'lower'; empty if neither is better.
        meaning: What it is, in one line.
        source: The paper, as author and year; references.bib has its entry.
    """

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
        "mean log p(x) of the learned model over the test points: quadrature up to 2 latent and 100 data dimensions, "
        "else by importance sampling or annealed importance sampling",
        "Wu et al. 2017",
    ),
    Definition(
        "oracle_gap",
        "oracle gap",
        "nats",
        "lower",
        "mean of log p_true(x) - log p(x) over the test points: an unbiased estimate of KL(true || learned)",
        "Kullback & Leibler 1951",
    ),
    Definition(
        "oracle_gap_trimmed",
        "trimmed oracle gap",
        "nats",
        "lower",
        "the oracle gap without the 1 % of test points with the largest and the 1 % with the smallest gaps, from 100 "
        "test points on",
        "Tukey & McLaughlin 1963",
    ),
    Definition(
        "oracle_gap_worst",
        "oracle gap of the worst 1 %",
        "nats",
        "lower",
        "what the 1 % of test points with the largest gaps contribute to the oracle gap: their sum over the number of "
        "all points, from 100 test points on",
        "",
    ),
    Definition(
        "elbo",
        "ELBO",
        "nats",
        "higher",
        "mean evidence lower bound of the test points under the method's own q(z|x)",
        "Kingma & Welling 2014",
    ),
    Definition(
        "inference_gap",
        "inference gap",
        "nats",
        "lower",
        "test_ll - elbo, the mean of KL(q(z|x) || p(z|x)) under the learned model",
        "Cremer et al. 2018",
    ),
    Definition(
        "mutual_information",
        "mutual information",
        "nats",
        "",
        "I_q(x, z), the mean of log q(z|x) - log q(z) with q(z) the mean of q(z|x) over the first 500 test points: a "
        "lower bound in expectation, and at most the log of their number",
        "Hoffman & Johnson 2016; He et al. 2019, eq. 6",
    ),
    Definition(
        "active_units",
        "active units",
        "dimensions",
        "",
        "the number of latent dimensions in which the mean of q(z|x) varies over the test points by more than 0.01",
        "Burda et al. 2016",
    ),
    Definition(
        "kl_to_prior",
        "KL to the prior",
        "nats",
        "",
        "mean KL(q(z|x) || N(0, I)) over the test points: the mutual information plus KL(q(z) || N(0, I))",
        "Hoffman & Johnson 2016",
    ),
    Definition(
        "approximation_gap",
        "approximation gap",
        "nats",
        "lower",
        "the inference gap of the best member of q's family, over 100 test points",
        "Cremer et al. 2018, eq. 4",
    ),
    Definition(
        "amortisation_gap",
        "amortisation gap",
        "nats",
        "lower",
        "the ELBO of the best member of q's family minus the ELBO of q, over the same points",
        "Cremer et al. 2018, eq. 5",
    ),
    Definition(
        "index_kl",
        "index KL",
        "nats",
        "lower",
        "mean KL divergence from the true model's index posterior (which training code generated x) to the method's, "
        "over the first 1,000 training points; not measured above 20,000 training points",
        "our reading of Yacoby et al. 2024",
    ),
    Definition(
        "index_kl_floor",
        "index KL floor",
        "nats",
        "",
        "the index KL of the true model when it does not know the training codes: no method can have a lower mean",
        "",
    ),
    Definition(
        "index_kl_ratio", "index KL by floor", "times", "lower", "the index KL divided by the index KL floor", ""
    ),
    Definition(
        "index_tv",
        "index TV",
        "probability",
        "lower",
        "mean total variation distance between the same two index posteriors",
        "as for the index KL",
    ),
    Definition(
        "index_tv_floor",
        "index TV floor",
        "probability",
        "",
        "the index TV of the true model when it does not know the training codes: close to the lowest possible value",
        "",
    ),
    Definition(
        "signal_w2",
        "signal W2",
        "data units",
        "lower",
        "root mean square, over test points x, of the 2-Wasserstein distance between the true posterior of f(z) and "
        "the method's",
        "Peyré & Cuturi 2019",
    ),
    Definition(
        "sample_w2",
        "sample W2",
        "data units",
        "lower",
        "2-Wasserstein distance between 500 samples of the learned model and 500 samples of the true model; without a "
        "true model, between samples of the learned model and as many test points",
        "Peyré & Cuturi 2019",
    ),
    Definition(
        "sample_w2_floor",
        "sample W2 of the truth",
        "data units",
        "",
        "the same distance between two sets of 500 samples of the true model, or between test points and as many "
        "training points: what a perfect model would have",
        "",
    ),
    Definition(
        "annealing_gap",
        "annealing gap",
        "nats",
        "lower",
        "difference between an upper and a lower bound on log p(x) of data drawn from the learned model: the largest "
        "error of annealed importance sampling (above 2 latent or 100 data dimensions)",
        "Grosse et al. 2015; Wu et al. 2017",
    ),
)
MAIN_METRICS = ("test_ll", "oracle_gap", "oracle_gap_trimmed", "oracle_gap_worst", "elbo", "inference_gap")

COSTS = (
    Definition("wall_s", "wall time", "s", "lower", "elapsed time of fitting, without evaluation", ""),
    Definition("cpu_s", "CPU time", "s", "lower", "processor time of fitting, over all threads", ""),
    Definition("flops", "FLOPs", "FLOP", "lower", "floating-point operations of everything that the method does", ""),
    Definition("decoder_passes", "decoder passes", "rows", "lower", "rows in decoder forward passes", ""),
    Definition("encoder_passes", "encoder passes", "rows", "lower", "rows in encoder forward passes", ""),
)
COST_NAMES = tuple(cost.name for cost in COSTS)

MEMORY = Definition(
    "peak_memory_mb",
    "peak memory",
    "MB",
    "lower",
    "the most memory that fitting used above what it started with, divided by the seeds of its program",
    "",
)
QUERIES = (
    Definition(
        "query_flops",
        "FLOPs per query",
        "FLOP",
        "lower",
        "FLOPs of a draw of q(z|x) for one x and of its decoding, the most over the checkpoints; no part of the FLOPs",
        "",
    ),
    Definition("query_s", "seconds per query", "s", "lower", "seconds of the same; no part of the wall time", ""),
)
RUN_COSTS = (*COSTS, MEMORY, *QUERIES)

PAIRED = (
    Definition(
        "difference",
        "difference",
        "nats",
        "higher",
        "the median over shared seeds of the paired difference in final test log-likelihood, with a 95% bootstrap "
        "interval of that median from six seeds on (percentiles at 98.5%, which cover it 94 to 99 times in 100)",
        "Efron & Tibshirani 1993, chapter 13",
    ),
    Definition(
        "verdict",
        "verdict",
        "",
        "",
        "better or worse if the interval excludes zero, equivalent if it lies within the margin, each only if a test "
        "by sign flips of whole seeds, corrected for all comparisons in the report, has p of at most 5%; otherwise "
        "undecided",
        "Westfall & Young 1993, algorithm 4.1; Cui et al. 2005; Schuirmann 1987",
    ),
    Definition(
        "cost_to_match",
        "cost to match",
        "the other's cost",
        "lower",
        "the cost of the first checkpoint at which a method reaches the other's final test log-likelihood less 0.01 "
        "nats, divided by the other's cost when it first reaches that value; infinite if never; the median over seeds, "
        "and over all datasets that both were fitted to. There are three "
        "checkpoints per decade of FLOPs, so it may be wrong by a factor of up to 2.2 either way",
        "",
    ),
)

TABLES: dict[str, tuple[str, ...]] = {
    "runs": (*RUN, "role", "status", "message", "notes", *COST_NAMES, MEMORY.name, "concurrent", "key"),  # and more
    "measurements": (*RUN, "checkpoint", "metric", "value", "stderr", "unit", *COST_NAMES, "concurrent"),
    "diagnostics": (*RUN, "checkpoint", "metric", "diagnostic", "value"),
    "work": (*RUN, "name", "calls", "flops", "by"),
    "densities": (*RUN, "x1", "x2", "log_density"),
    "posteriors": (*RUN, "point", "index", "code", "x", "probability"),
    "signals": (*RUN, "point", "draw", "x", "signal"),
    "images": (*RUN, "kind", "place", "width", "pixels"),
    "references": ("dataset", "seed", "point", "draw", "rhat", "ess", "z"),
}
# Columns of runs beyond these are hyperparameters, which begin so, and conditions such as n_train.
RESULTS = {
    *TABLES["runs"],
    "stopped_by",
    "formula_flops",
    "overrun_flops",
    "overrun_s",
    *(query.name for query in QUERIES),
    "evaluation_s",
    "timed_seed",
    "source",
}
HYPERPARAMETER = "p_"

_KNOWN = {definition.name: definition for definition in (*METRICS, *RUN_COSTS)}


def define(name: str, unit: str = "") -> Definition:
    """The definition of a metric or cost; an unknown name is its own label, with the unit given."""
    return _KNOWN.get(name, Definition(name, name, unit, "", "not described here", ""))


def in_order(names: Iterable[str]) -> list[str]:
    """Distinct metric names: those of METRICS in its order, then the others as they came."""
    names = list(dict.fromkeys(names))
    known = [metric.name for metric in METRICS if metric.name in names]
    return known + [name for name in names if name not in known]


def check_schema(folder: Path, schema: object) -> None:
    """Refuse a folder whose schema is not SCHEMA.

    Raises:
        ValueError: Names the folder, its schema and what to do.
    """
    if schema == SCHEMA:
        return
    older = isinstance(schema, int) and schema < SCHEMA
    advice = (
        "make the study again in a new folder (--out), or set this one aside (--fresh)"
        if older
        else "use the version of mapa-bench that wrote it"
    )
    raise ValueError(f"{folder} has schema {schema!r}, but this version reads schema {SCHEMA}; {advice}")
