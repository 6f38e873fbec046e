"""Draws of the learned model against true ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.metrics.measurement import Measurement, mean
from bench.metrics.wasserstein import squared_w2
from datasets.base import DataSource, Problem, Split, stream
from methods.contract.method import DecoderModel

SETS = 4
DRAWS = 500


def sample_quality(problem: Problem, model: DecoderModel, seed: int) -> list[Measurement]:
    """sample_w2, and sample_w2_floor: the same distance between two true sets, which a perfect model would show.

    The 2-Wasserstein distance between 500 draws of the model and 500 fresh true ones, the mean over 4 pairs of sets.
    """
    first, second = (_true_sets(problem, seed, name) for name in ("first samples", "second samples"))
    return _distances(first, second, _learned_sets(problem, model, DRAWS, seed))


def sample_quality_on_data(source: DataSource, split: Split, model: DecoderModel, seed: int) -> list[Measurement]:
    """sample_w2 to held-out data, and sample_w2_floor, from these to training data, where no true draws are to be had.

    The mean over 4 pairs of sets: all of the test set in four parts, of 500 at most, against as many draws of the model
    or training data. Empty with fewer than 4 test or training data.
    """
    size = min(DRAWS, len(split.test) // SETS, len(split.train) // SETS)
    if size == 0:
        return []
    first, second = (each[: SETS * size].unflatten(0, (SETS, size)) for each in (split.test, split.train))
    return _distances(first, second, _learned_sets(source, model, size, seed))


def _distances(first: Tensor, second: Tensor, learned: Tensor) -> list[Measurement]:
    return [
        mean("sample_w2", squared_w2(learned, first).sqrt(), unit="data units"),
        mean("sample_w2_floor", squared_w2(second, first).sqrt(), unit="data units"),
    ]


def _true_sets(problem: Problem, seed: int, name: str) -> Tensor:
    return problem.sample(SETS * DRAWS, stream(problem.name, seed, name)).unflatten(0, (SETS, DRAWS))


def _learned_sets(source: DataSource, model: DecoderModel, size: int, seed: int) -> Tensor:
    generator = stream(source.name, seed, "model samples")
    z = torch.randn(SETS * size, source.latent_dim, generator=generator, dtype=torch.float64)
    signal = model.decode(z).double().cpu()
    noise = torch.randn(signal.shape, generator=generator, dtype=torch.float64)
    return (signal + math.sqrt(model.variance()) * noise).unflatten(0, (SETS, size))
