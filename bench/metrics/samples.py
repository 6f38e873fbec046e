"""Draws of the learned model compared with true draws."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.metrics.measurement import Measurement, mean
from bench.metrics.shared import UNSHARED, Shared
from bench.metrics.wasserstein import squared_w2
from datasets.base import DataSource, Problem, Split, stream
from methods.contract.method import DecoderModel, likelihood_of

SETS = 4
DRAWS = 500


def sample_quality(problem: Problem, model: DecoderModel, seed: int, shared: Shared = UNSHARED) -> list[Measurement]:
    """sample_w2, and sample_w2_floor, the value that a perfect model would have.

    sample_w2 is the 2-Wasserstein distance between 500 draws of the model and 500 fresh true draws, the mean over 4
    pairs of sets. The floor is the same distance between two true sets.

    Args:
        problem: The data source.
        model: The learned model.
        seed: The seed of the draws.
        shared: Where the floor is kept for other runs.
    """
    first, second = (_true_sets(problem, seed, name) for name in ("first samples", "second samples"))
    return _distances(first, second, _learned_sets(problem, model, DRAWS, seed), shared)


def sample_quality_on_data(
    source: DataSource,
    split: Split,
    model: DecoderModel,
    seed: int,
    shared: Shared = UNSHARED,
) -> list[Measurement]:
    """sample_w2 and sample_w2_floor for a source without true draws: the distance to test data.

    The test set is cut into 4 parts, of at most 500 points each. sample_w2 is the mean distance between a part and as
    many draws of the model; the floor is the mean distance between a part and as many training points.

    Args:
        source: The data source.
        split: Its data.
        model: The learned model.
        seed: The seed of the draws.
        shared: Where the floor is kept for other runs.

    Returns:
        The two measurements; none if there are fewer than 4 test points or training points.
    """
    size = min(DRAWS, len(split.test) // SETS, len(split.train) // SETS)
    if size == 0:
        return []
    first, second = (each[: SETS * size].unflatten(0, (SETS, size)) for each in (split.test, split.train))
    return _distances(first, second, _learned_sets(source, model, size, seed), shared)


def _distances(first: Tensor, second: Tensor, learned: Tensor, shared: Shared) -> list[Measurement]:
    found = shared.found("floor of samples", [first, second], lambda: {"w2": squared_w2(second, first).sqrt()})
    return [
        mean("sample_w2", squared_w2(learned, first).sqrt(), unit="data units"),
        mean("sample_w2_floor", found["w2"], unit="data units"),
    ]


def _true_sets(problem: Problem, seed: int, name: str) -> Tensor:
    return problem.sample(SETS * DRAWS, stream(problem.name, seed, name)).unflatten(0, (SETS, DRAWS))


def _learned_sets(source: DataSource, model: DecoderModel, size: int, seed: int) -> Tensor:
    generator = stream(source.name, seed, "model samples")
    z = torch.randn(SETS * size, source.latent_dim, generator=generator, dtype=torch.float64)
    return likelihood_of(model).sample(model.decode(z).double().cpu(), generator).unflatten(0, (SETS, size))
